r"""Sessions: what a login opens, each refresh carries on, and a log-out, a reuse or its time ends.

    OpenSession --> LIVE --RefreshSession, the newest token--> LIVE
                      \----EndSession | an older token | other password | SESSION_MS---> ENDED

A refresh token is good once. One that comes again was stolen, or its thief was first: nobody can
tell, so the session ends. Hashes of tokens are private; events say that a session lives or ended.
A user has SESSIONS of them: a new one takes the place of the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from domain.decider import RowKey, due_key, due_row, due_subject, overdue, tick_keys
from domain.person import refuse, user_key
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Changes, Rows, Tick
    from domain.person import UserCommandRefused

SESSION_MS = 30 * 24 * 3600 * 1000  # a session that is not refreshed for so long is over
SESSIONS = 100  # of one user
EXPIRED = "session"  # the kind of a due row at whose time a session's rows leave


class Cause(StrEnum):
    """Why a session ended."""

    LOGGED_OUT = "logged_out"
    REVOKED = "revoked"
    REUSED = "reused"  # an old refresh token came again
    PASSWORD_CHANGED = "password_changed"
    PASSWORD_RESET = "password_reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """Somebody logged in. `refresh_hash`: of the refresh token that they were given."""

    user_id: str
    session_id: str
    refresh_hash: str
    client: str  # as it calls itself
    address: str  # from which it came
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSession:
    """Put a new refresh token in the place of the one that was presented."""

    user_id: str
    session_id: str
    presented_hash: str
    next_hash: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """Log out, or revoke: its tokens are good no more."""

    user_id: str
    session_id: str
    cause: Cause
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSessions:
    """End all of a user's sessions, save `kept_session_id`. `end_id` names this order."""

    user_id: str
    kept_session_id: str | None
    end_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    """Somebody logged in. `evicted_session_id`: the session whose place this one took."""

    user_id: str
    session_id: str
    number: int  # of the user's sessions, from 0
    generation: int  # a session of an older one has ended
    evicted_session_id: str | None
    expires_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRefreshed:
    """The session goes on with a new refresh token."""

    user_id: str
    session_id: str
    expires_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """No token of this session is good any more."""

    user_id: str
    session_id: str
    cause: Cause
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsEnded:
    """All of the user's sessions up to now have ended, save `kept_session_id`."""

    user_id: str
    kept_session_id: str | None
    generation: int  # of the sessions from now on
    cause: Cause
    end_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsForgotten:
    """Sessions left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKept:
    """Private: the refresh token that is good now, by its hash; and who has it."""

    user_id: str
    session_id: str
    refresh_hash: str
    client: str
    address: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Row `session/<user_id>/<session_id>`. An ended one stays until its time is over."""

    user_id: str
    session_id: str
    generation: int
    opened_ms: int
    refreshed_ms: int
    expires_ms: int
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionList:
    """Row `sessions-of/<user_id>`; the last SESSIONS are named by the rows `session-slot/…`."""

    user_id: str
    opened: int  # so far
    generation: int = 0
    kept_session_id: str | None = None  # of an older generation, and not ended with it
    end_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSlot:
    """Row `session-slot/<user_id>/<number modulo SESSIONS>`."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """Row `refresh/<user_id>/<session_id>`, private: what the session's bearer proves it with."""

    refresh_hash: str
    client: str
    address: str
    previous_hash: str = ""


Command = OpenSession | RefreshSession | EndSession | EndSessions
Said = (
    SessionOpened
    | SessionRefreshed
    | SessionEnded
    | SessionsEnded
    | SessionsForgotten
    | SessionKept
)


def is_live(session: Session | None, sessions: SessionList, at_ms: int) -> bool:
    """`sessions`: the list that it is in."""
    return (
        session is not None
        and session.ended_ms is None
        and session.expires_ms > at_ms
        and (
            session.generation == sessions.generation
            or session.session_id == sessions.kept_session_id
        )
    )


def decide(rows: Rows, command: Command, at_ms: int) -> Sequence[Said | UserCommandRefused]:
    if user_key(command.user_id) not in rows:
        return refuse(command, Reason.USER_NOT_FOUND, at_ms)
    match command:
        case OpenSession():
            return _open(rows, command, at_ms)
        case RefreshSession():
            return _refresh(rows, command, at_ms)
        case EndSession():
            return _end(rows, command, at_ms)
        case EndSessions():
            if list_of(rows, command.user_id).end_id == command.end_id:
                return ()
            kept, end_id = command.kept_session_id, command.end_id
            return (end_all(rows, command.user_id, kept, Cause.REVOKED, end_id, at_ms),)


def _open(rows: Rows, command: OpenSession, at_ms: int) -> Sequence[Said | UserCommandRefused]:
    if session_key(command.user_id, command.session_id) in rows:
        return ()
    if not (command.session_id and command.refresh_hash):
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    sessions = list_of(rows, command.user_id)
    before: SessionSlot | None = rows.get(slot_key(command.user_id, sessions.opened))
    return (
        SessionKept(
            user_id=command.user_id,
            session_id=command.session_id,
            refresh_hash=command.refresh_hash,
            client=command.client,
            address=command.address,
            at_ms=at_ms,
        ),
        SessionOpened(
            user_id=command.user_id,
            session_id=command.session_id,
            number=sessions.opened,
            generation=sessions.generation,
            evicted_session_id=before.session_id if before else None,
            expires_ms=at_ms + SESSION_MS,
            at_ms=at_ms,
        ),
    )


def _refresh(
    rows: Rows, command: RefreshSession, at_ms: int
) -> Sequence[Said | UserCommandRefused]:
    user_id, session_id = command.user_id, command.session_id
    session: Session | None = rows.get(session_key(user_id, session_id))
    token: RefreshToken | None = rows.get(refresh_key(user_id, session_id))
    if token is None or not is_live(session, list_of(rows, user_id), at_ms):
        return refuse(command, Reason.SESSION_ENDED, at_ms)
    if command.presented_hash == token.refresh_hash:
        return (
            SessionKept(
                user_id=user_id,
                session_id=session_id,
                refresh_hash=command.next_hash,
                client=token.client,
                address=token.address,
                at_ms=at_ms,
            ),
            SessionRefreshed(
                user_id=user_id,
                session_id=session_id,
                expires_ms=at_ms + SESSION_MS,
                at_ms=at_ms,
            ),
        )
    if (command.presented_hash, command.next_hash) == (token.previous_hash, token.refresh_hash):
        return ()
    return (
        SessionEnded(user_id=user_id, session_id=session_id, cause=Cause.REUSED, at_ms=at_ms),
        *refuse(command, Reason.TOKEN_REUSED, at_ms),
    )


def _end(rows: Rows, command: EndSession, at_ms: int) -> Sequence[Said | UserCommandRefused]:
    session: Session | None = rows.get(session_key(command.user_id, command.session_id))
    if session is None:
        return refuse(command, Reason.SESSION_ENDED, at_ms)
    if session.ended_ms is not None:
        return ()
    return (
        SessionEnded(
            user_id=command.user_id,
            session_id=command.session_id,
            cause=command.cause,
            at_ms=at_ms,
        ),
    )


def end_all(
    rows: Rows, user_id: str, kept: str | None, cause: Cause, end_id: str, at_ms: int
) -> SessionsEnded:
    """All but `kept`, which stays only if it lives."""
    sessions = list_of(rows, user_id)
    session: Session | None = rows.get(session_key(user_id, kept)) if kept else None
    return SessionsEnded(
        user_id=user_id,
        kept_session_id=kept if is_live(session, sessions, at_ms) else None,
        generation=sessions.generation + 1,
        cause=cause,
        end_id=end_id,
        at_ms=at_ms,
    )


def forget(rows: Rows, tick: Tick, at_ms: int) -> Sequence[SessionsForgotten]:
    due = overdue(rows, tick, EXPIRED, at_ms)
    return (SessionsForgotten(due=due, at_ms=at_ms),) if due else ()


def evolve(rows: Rows, event: Said) -> Changes:
    match event:
        case SessionKept():
            return _kept(rows, event)
        case SessionOpened():
            return _opened(rows, event)
        case SessionRefreshed():
            key = session_key(event.user_id, event.session_id)
            session: Session = rows[key]
            due, row = due_row(event.expires_ms, EXPIRED, key)
            expires_ms = event.expires_ms
            goes_on = replace(session, refreshed_ms=event.at_ms, expires_ms=expires_ms)
            return {key: goes_on, due_key(session.expires_ms, EXPIRED, key): None, due: row}
        case SessionEnded():
            key = session_key(event.user_id, event.session_id)
            ended: Session = rows[key]
            return {
                key: replace(ended, ended_ms=event.at_ms),
                **_without(rows, refresh_key(event.user_id, event.session_id)),
            }
        case SessionsEnded():
            kept = replace(
                list_of(rows, event.user_id),
                generation=event.generation,
                kept_session_id=event.kept_session_id,
                end_id=event.end_id,
            )
            return {list_key(event.user_id): kept}
        case SessionsForgotten():
            return _without(rows, *(gone for due in event.due for gone in _rows_behind(due)))


def _kept(rows: Rows, event: SessionKept) -> Changes:
    key = refresh_key(event.user_id, event.session_id)
    before: RefreshToken | None = rows.get(key)
    token = RefreshToken(
        refresh_hash=event.refresh_hash,
        client=event.client,
        address=event.address,
        previous_hash=before.refresh_hash if before else "",
    )
    return {key: token}


def _opened(rows: Rows, event: SessionOpened) -> Changes:
    key = session_key(event.user_id, event.session_id)
    session = Session(
        user_id=event.user_id,
        session_id=event.session_id,
        generation=event.generation,
        opened_ms=event.at_ms,
        refreshed_ms=event.at_ms,
        expires_ms=event.expires_ms,
    )
    due, row = due_row(event.expires_ms, EXPIRED, key)
    evicted = event.evicted_session_id
    return {
        **(_without(rows, *_rows_of(event.user_id, evicted)) if evicted else {}),
        list_key(event.user_id): replace(list_of(rows, event.user_id), opened=event.number + 1),
        slot_key(event.user_id, event.number): SessionSlot(session_id=event.session_id),
        key: session,
        due: row,
    }


def _without(rows: Rows, *keys: RowKey) -> dict[RowKey, None]:
    """Those of the rows leave that are there: a fold of the public facts has no private ones."""
    return {key: None for key in keys if key in rows}


def _rows_of(user_id: str, session_id: str) -> tuple[RowKey, RowKey]:
    return session_key(user_id, session_id), refresh_key(user_id, session_id)


def _rows_behind(due: RowKey) -> tuple[RowKey, ...]:
    """What leaves with a due row; one whose session was evicted before leaves alone."""
    _, user_id, session_id = due_subject(due).split("/")
    return (due, *_rows_of(user_id, session_id))


def list_of(rows: Rows, user_id: str) -> SessionList:
    found: SessionList | None = rows.get(list_key(user_id))
    return found or SessionList(user_id=user_id, opened=0)


def session_key(user_id: str, session_id: str) -> RowKey:
    return f"session/{user_id}/{session_id}"


def refresh_key(user_id: str, session_id: str) -> RowKey:
    return f"refresh/{user_id}/{session_id}"


def list_key(user_id: str) -> RowKey:
    return f"sessions-of/{user_id}"


def slot_key(user_id: str, number: int) -> RowKey:
    return f"session-slot/{user_id}/{number % SESSIONS:03d}"


def slot_keys(user_id: str) -> tuple[RowKey, ...]:
    return tuple(slot_key(user_id, number) for number in range(SESSIONS))


def keys(message: Command | Said | Tick) -> Sequence[RowKey]:
    match message:
        case OpenSession():
            user_id = message.user_id
            return (
                user_key(user_id),
                list_key(user_id),
                session_key(user_id, message.session_id),
                *slot_keys(user_id),
            )
        case RefreshSession() | EndSession() | SessionRefreshed() | SessionEnded():
            found = _rows_of(message.user_id, message.session_id)
            return (user_key(message.user_id), list_key(message.user_id), *found)
        case EndSessions():
            return (user_key(message.user_id), *kept_keys(message.user_id, message.kept_session_id))
        case SessionOpened():
            evicted = message.evicted_session_id
            gone = _rows_of(message.user_id, evicted) if evicted else ()
            return (list_key(message.user_id), *gone)
        case SessionsEnded():
            return (list_key(message.user_id),)
        case SessionKept():
            return (refresh_key(message.user_id, message.session_id),)
        case SessionsForgotten():
            return tuple(key for due in message.due for key in _rows_behind(due))
        case _:
            return tick_keys(message)


def kept_keys(user_id: str, kept: str | None) -> tuple[RowKey, ...]:
    """What `end_all` reads."""
    return (list_key(user_id), *((session_key(user_id, kept),) if kept else ()))
