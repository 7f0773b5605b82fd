"""Logging in over HTTP: tokens, sessions, passwords, and what mails bring back.

A login is a session of the user service: the tokens are given once the service has it, or after
OPENED_S without, for they stand for themselves (`gateway/sessions.py`). A refresh always waits: which
of two refresh tokens is the newest only the service can tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from domain.credentials import (
    ChangePassword,
    ConfirmEmail,
    EmailConfirmed,
    PasswordChanged,
    RequestEmailConfirmation,
    RequestPasswordReset,
    ResetPassword,
    credentials_key,
    mailed_key,
)
from domain.mailed import Purpose, token_hash
from domain.person import Role, UserCommandRefused, normalised
from domain.saga import Reason
from domain.session import (
    SESSIONS,
    Cause,
    EndSession,
    EndSessions,
    OpenSession,
    RefreshSession,
    SessionEnded,
    SessionOpened,
    SessionRefreshed,
    SessionsEnded,
    list_key,
    refresh_key,
    session_key,
    slot_key,
)
from domain.user import address_key
from gateway import auth, users, views
from gateway.answer import Answer, answer
from gateway.errors import Problem, invalid, not_found, state_unavailable
from gateway.idempotency import named
from gateway.models import Login, Logout, RefreshToken
from gateway.outcome import LOOK, Identity, identify, once, pursue, refused
from gateway.reads import USERS
from gateway.sessions import is_live
from gateway.user_models import EmailToken, EndedSession, NewPassword, PasswordReset

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.auth import Claims
    from gateway.call import Call
    from gateway.outcome import Look
    from gateway.queries import Row
    from gateway.waiting import Heard

OPENED_S = 1.0  # a login waits so long for its session
REFRESHED_S = 5.0
RESET_S = 10.0
SHOWN_S = 1.0  # in which a worker that committed shows what was heard of
SAME_S = 0.3  # a request for a mail takes at least so long, whether anyone has the address or not
MAILED = re.compile(r"[\x21-\x7e]{1,100}\.[0-9a-f]{64}")
AGENT = 200  # characters of a client's name that are kept


# login, refresh, logout


async def login(call: Call) -> Answer:
    """Tokens for e-mail and password; 401 says nothing about which of the two was wrong."""
    body = call.body
    assert isinstance(body, Login)
    address = normalised(body.email)
    async with call.gateway.throttle.attempt(address, users.client_address(call)):
        user, password_hash = await _by_address(call, address)
        if not await call.gateway.passwords.check(body.password, password_hash) or user is None:
            raise Problem("INVALID_CREDENTIALS", headers={"WWW-Authenticate": "Bearer"})
    session_id, refresh_id = uuid.uuid4().hex, uuid.uuid4().hex
    command = OpenSession(
        user_id=user["user_id"],
        session_id=session_id,
        refresh_hash=_hash(refresh_id),
        client=call.client[:AGENT],
        address=users.client_address(call),
        actor_id=user["user_id"],
    )
    await _said(call, user["user_id"], command, SessionOpened, OPENED_S)
    return _tokens(call, user, session_id, refresh_id, int(time.time()))


async def _by_address(call: Call, address: str) -> tuple[Row | None, str | None]:
    """Who has an address, and the hash of their password."""
    queries = call.gateway.queries
    owner = await queries.row("user", address, address_key(address), versioned=False)
    user = await users.read(call, owner["user_id"]) if owner is not None else None
    if user is None:
        return None, None
    return user, await users.password_hash(call, user["user_id"])


async def refresh(call: Call) -> Answer:
    """New tokens, with the roles of now; the refresh token is good no more. 401 ends in a login.

    With an Idempotency-Key it may be asked again should the answer be lost.
    """
    body = call.body
    assert isinstance(body, RefreshToken)
    claims = call.gateway.tokens.refreshed(body.refresh_token)
    user = await users.read(call, claims.user_id)
    if user is None:
        raise auth.unauthenticated("the user is gone")
    next_id = _next(claims, call.idempotency_key)
    command = RefreshSession(
        user_id=claims.user_id,
        session_id=claims.session_id,
        presented_hash=_hash(claims.token_id),
        next_hash=_hash(next_id),
        actor_id=claims.user_id,
    )
    event = await _said(call, claims.user_id, command, SessionRefreshed, REFRESHED_S, _looked)
    if isinstance(event, UserCommandRefused):
        raise _ended(event.reason)
    if event is None:
        raise state_unavailable("the session could not be carried on in time")
    return _tokens(call, user, claims.session_id, next_id, claims.auth_s)


def _next(claims: Claims, key: str | None) -> str:
    """The id of the next refresh token: with a key the same however often it is asked for."""
    if key is None:
        return uuid.uuid4().hex
    return named(uuid.UUID(claims.token_id), key).hex


def _ended(reason: Reason) -> Problem:
    if reason is Reason.TOKEN_REUSED:
        return Problem("TOKEN_REUSED", headers={"WWW-Authenticate": "Bearer"})
    return auth.unauthenticated("the session has ended: log in")


async def _looked(call: Call, command: RefreshSession) -> bool:
    """A repeat of a refresh that was done causes no event."""
    key = refresh_key(command.user_id, command.session_id)
    row = await call.gateway.queries.row("user", command.user_id, key, versioned=False)
    return row is not None and row["refresh_hash"] == command.next_hash


async def logout(call: Call) -> Answer:
    """End the session of the refresh token, of the access token, or of both."""
    body = call.body
    assert isinstance(body, Logout)
    tokens = call.gateway.tokens
    if body.refresh_token is None and call.authorization is None:
        raise invalid("/refresh_token", "REQUIRED", "is needed, or the access token's header")
    given = []  # all are read before the first is withdrawn
    if body.refresh_token is not None:
        given.append(tokens.ending(body.refresh_token))
    if call.authorization is not None:
        given.append(tokens.ending_access(call.authorization))
    ended = [tokens.withdraw(claims) for claims in given]
    for user_id, session_id in dict.fromkeys(
        (claims.user_id, claims.session_id) for claims in ended if claims.session_id
    ):
        command = EndSession(
            user_id=user_id, session_id=session_id, cause=Cause.LOGGED_OUT, actor_id=user_id
        )
        await _send(call, user_id, command, str(uuid.uuid4()))
    return Answer(204)


def _hash(token_id: str) -> str:
    """What is kept of a refresh token; its id has 122 random bits."""
    return hashlib.sha256(token_id.encode()).hexdigest()


def _tokens(call: Call, user: Row, session_id: str, refresh_id: str, auth_s: int) -> Answer:
    roles = [Role(role) for role in user["roles"]]
    tokens = call.gateway.tokens
    issued = tokens.issue(user["user_id"], roles, session_id, refresh_id, auth_s)
    return answer(issued, headers={"Cache-Control": "no-store"})


async def _send(call: Call, user_id: str, command: Any, command_id: str) -> None:
    await call.gateway.commands.send(
        "user",
        user_id,
        command,
        command_id=command_id,
        traceparent=call.trace.traceparent,
        actor_id=user_id,
        origin=call.origin,
    )


async def _said(
    call: Call,
    user_id: str,
    command: Any,
    wanted: type,
    wait_s: float,
    looked: Callable[[Call, Any], Any] | None = None,
) -> Any:
    """What the service says to a command: an event of this type, a refusal, or None in time.

    `looked`: asked halfway and at the end whether the rows show it, which is True then.
    """
    command_id, end_s = str(uuid.uuid4()), time.monotonic() + wait_s
    look_s = time.monotonic() + wait_s / 2
    with call.gateway.waiting.watch("user", user_id) as watch:
        await _send(call, user_id, command, command_id)
        while (now_s := time.monotonic()) < end_s:
            until_s = look_s if looked is not None and now_s < look_s else end_s
            heard = await watch.next(until_s - now_s)
            if heard is not None and heard.answers(command_id):
                if isinstance(heard.event, wanted | UserCommandRefused):
                    return heard.event
            elif heard is None and looked is not None and await looked(call, command):
                return True
    return None


# sessions


async def sessions(call: Call) -> Answer:
    """One's own sessions that live, the newest first."""
    user_id = call.caller.user_id
    rows = await _sessions(call, user_id)
    items = [
        {
            "session_id": session["session_id"],
            "client": (token["client"] or None) if token else None,
            "address": (token["address"] or None) if token else None,
            "current": session["session_id"] == call.caller.session_id,
            "opened_at": views.time_of(session["opened_ms"]),
            "refreshed_at": views.time_of(session["refreshed_ms"]),
            "expires_at": views.time_of(session["expires_ms"]),
        }
        for session, token in rows
    ]
    items.sort(key=lambda item: item["opened_at"], reverse=True)
    return answer({"items": items, "next_cursor": None})


async def _sessions(call: Call, user_id: str) -> list[tuple[Row, Row | None]]:
    """Live sessions, each with what its refresh token tells."""
    queries, now_ms = call.gateway.queries, int(time.time() * 1000)
    partition = queries.partition(user_id)
    slots = [slot_key(user_id, number) for number in range(SESSIONS)]
    head = await queries.rows("user", partition, [list_key(user_id), *slots])
    ids = [row["session_id"] for key in slots if (row := head[key]) is not None]
    of_session = {id_: session_key(user_id, id_) for id_ in ids}
    of_token = {id_: refresh_key(user_id, id_) for id_ in ids}
    rows = await queries.rows("user", partition, [*of_session.values(), *of_token.values()])
    return [
        (session, rows[of_token[id_]])
        for id_ in ids
        if (session := rows[of_session[id_]]) is not None
        and is_live(session, head[list_key(user_id)], now_ms)
    ]


async def end_session(call: Call) -> Answer:
    """202, or 200 once they have ended for everybody. Which: in the path, the body or the query."""
    body = call.body if isinstance(call.body, EndedSession) else EndedSession()
    session_id = call.names.get("session_id") or body.session_id
    user_id = call.caller.user_id
    if session_id is not None:
        key = session_key(user_id, session_id)
        if await call.gateway.queries.row("user", user_id, key, versioned=False) is None:
            raise not_found("no such session, or not yet")

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Ending(call, identity, session_id, body.others))

    return await once(call, identify(call), first)


class _Ending:
    """EndSession or EndSessions on its way."""

    service = "user"

    def __init__(
        self, call: Call, identity: Identity, session_id: str | None, others: bool
    ) -> None:
        self.call, self.identity = call, identity
        user_id = call.caller.user_id
        self.key = self.aggregate_id = user_id
        self.location = "/api/sessions"
        self.named = {"session_id": session_id} if session_id else {}
        self.command: EndSession | EndSessions
        if session_id is not None:
            self.command = EndSession(
                user_id=user_id, session_id=session_id, cause=Cause.REVOKED, actor_id=user_id
            )
        else:
            self.command = EndSessions(
                user_id=user_id,
                kept_session_id=call.caller.session_id if others else None,
                end_id=identity.command_id,
                actor_id=user_id,
            )

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, UserCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        if isinstance(heard.event, SessionEnded | SessionsEnded):
            self.call.gateway.sessions.heard(heard.event)
            return answer({"status": "ended"})
        return None

    async def looked(self) -> Answer | None:
        queries, command = self.call.gateway.queries, self.command
        if isinstance(command, EndSession):
            key = session_key(self.key, command.session_id)
            row = await queries.row("user", self.key, key, versioned=False)
            done = row is None or row["ended_ms"] is not None
        else:
            row = await queries.row("user", self.key, list_key(self.key), versioned=False)
            done = row is not None and row["end_id"] == command.end_id
        return answer({"status": "ended"}) if done else None


# passwords


async def change_password(call: Call) -> Answer:
    """202, or 200 with the user. All other sessions end. One's own alone."""
    body = call.body
    assert isinstance(body, NewPassword)
    user_id = users.own(call)

    async def first(identity: Identity) -> Answer:
        # a repeat is of a time when the password is another already, and is not sent
        verified = ""
        if not identity.repeated:
            verified = await users.check_password(call, body.current_password)
            if body.new_password == body.current_password:
                raise invalid("/new_password", "SAME_PASSWORD", "is the one there is")
        command = ChangePassword(
            user_id=user_id,
            verified_hash=verified,
            password_hash=await call.gateway.passwords.hash(body.new_password),
            change_id=identity.command_id,
            kept_session_id=call.caller.session_id or None,
            actor_id=user_id,
        )
        return await pursue(call, identity, _Changing(call, identity, command))

    request_hash = users.fingerprint(call.gateway.settings.jwt_secret, call.raw_body)
    return await once(call, identify(call, request_hash=request_hash), first)


class _Changing:
    """ChangePassword on its way."""

    service = "user"

    def __init__(self, call: Call, identity: Identity, command: ChangePassword) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.key = self.aggregate_id = command.user_id
        self.location = f"/api/users/{self.key}"
        self.named = {"user_id": self.key}

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, UserCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        if isinstance(heard.event, SessionsEnded):
            self.call.gateway.sessions.heard(heard.event)
        return LOOK if isinstance(heard.event, PasswordChanged | SessionsEnded) else None

    async def looked(self) -> Answer | None:
        key = credentials_key(self.key)
        row = await self.call.gateway.queries.row("user", self.key, key, versioned=False)
        if row is None or row["change_id"] != self.command.change_id:
            return None
        user = await users.read(self.call, self.key)
        return answer(views.user(user)) if user is not None else None


async def password_reset(call: Call) -> Answer:
    """With an e-mail 202, whoever has it; with a mailed token 204 once the new password holds."""
    body = call.body
    assert isinstance(body, PasswordReset)
    if body.token is not None:
        assert body.new_password is not None
        return await _reset(call, body.token, body.new_password)
    assert body.email is not None
    await call.gateway.throttle.mail(users.client_address(call))
    await asyncio.gather(_mail_reset(call, normalised(body.email)), asyncio.sleep(SAME_S))
    return answer({"status": "pending"}, 202)


async def _mail_reset(call: Call, address: str) -> None:
    queries = call.gateway.queries
    owner = await queries.row("user", address, address_key(address), versioned=False)
    if owner is None:
        return
    user_id, mail_id = str(owner["user_id"]), str(uuid.uuid4())
    command = RequestPasswordReset(
        user_id=user_id,
        mail_id=mail_id,
        token_hash=users.hash_of_mail(call, Purpose.RESET, user_id, mail_id),
        actor_id=user_id,
    )
    await _send(call, user_id, command, str(uuid.uuid4()))


async def _reset(call: Call, token: str, new_password: str) -> Answer:
    user_id = token.partition(".")[0]
    await call.gateway.throttle.mail(users.client_address(call))
    if not MAILED.fullmatch(token) or not await _is_mailed(call, user_id, token_hash(token)):
        return refused(call, Reason.TOKEN_INVALID, {})
    command = ResetPassword(
        user_id=user_id,
        token_hash=token_hash(token),
        password_hash=await call.gateway.passwords.hash(new_password),
        actor_id=user_id,
    )
    event = await _said(call, user_id, command, SessionsEnded, RESET_S, _is_reset)
    if isinstance(event, UserCommandRefused):  # nobody learns whether there is such a user
        return refused(call, Reason.TOKEN_INVALID, {})
    if event is None:
        raise state_unavailable("the password was not set in time: ask again")
    end_s = time.monotonic() + SHOWN_S  # its worker committed, and is about to show it
    while time.monotonic() < end_s:
        if await _is_reset(call, command):
            break
        await asyncio.sleep(0.01)
    return Answer(204)


async def _is_mailed(call: Call, user_id: str, wanted_hash: str) -> bool:
    """What is no token is not sent on: anybody may say one here."""
    key = mailed_key(user_id, Purpose.RESET)
    row = await call.gateway.queries.row("user", user_id, key, versioned=False)
    return row is not None and hmac.compare_digest(row["token_hash"], wanted_hash)


async def _is_reset(call: Call, command: ResetPassword) -> bool:
    key = credentials_key(command.user_id)
    row = await call.gateway.queries.row("user", command.user_id, key, versioned=False)
    return row is not None and row["change_id"] == command.token_hash


# the address


async def confirm_email(call: Call) -> Answer:
    """With the mailed token 200 and the user; without one the mail is sent again: 202."""
    body = call.body
    assert isinstance(body, EmailToken)
    user_id = users.own(call)

    async def first(identity: Identity) -> Answer:
        user = await users.read(call, user_id)
        if user is None:
            raise not_found("no such user, or not yet")
        if user["email_confirmed"]:
            return answer(views.user(user), headers={"Location": f"/api/users/{user_id}"})
        return await pursue(call, identity, _Confirming(call, identity, user_id, body.token))

    return await once(call, identify(call), first)


class _Confirming:
    """ConfirmEmail, or RequestEmailConfirmation, on its way."""

    service = "user"

    def __init__(self, call: Call, identity: Identity, user_id: str, token: str | None) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = user_id
        self.location = f"/api/users/{user_id}"
        self.named = {"user_id": user_id}
        self.command: ConfirmEmail | RequestEmailConfirmation
        if token is not None:
            self.command = ConfirmEmail(
                user_id=user_id, token_hash=token_hash(token), actor_id=user_id
            )
        else:
            mail_id = identity.command_id
            self.command = RequestEmailConfirmation(
                user_id=user_id,
                mail_id=mail_id,
                token_hash=users.hash_of_mail(call, Purpose.CONFIRM, user_id, mail_id),
                actor_id=user_id,
            )

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        event = heard.event
        if isinstance(event, UserCommandRefused):
            return refused(self.call, event.reason, self.named)
        if isinstance(event, EmailConfirmed):
            self.call.gateway.reads.told(self.call, USERS, self.key, event.version)
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        row = await users.read(self.call, self.key)
        if row is None or not row["email_confirmed"]:
            return None
        return answer(views.user(row))
