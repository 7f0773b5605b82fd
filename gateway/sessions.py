r"""Which sessions live, and which roles their users have now, as this process knows it.

    token --session known here?--> yes: on
                 \--> the user's worker: session, generation, roles --> kept for RECHECK_S
    user.events --SessionEnded, SessionsEnded, RolesSet--> known here at once

A token says who and which roles, so that nobody needs to be asked for each request. What has
changed since is heard from the events, as soon as it is committed; what was said before this
process began is asked of the user service when it first sees a session. While no worker answers a
token that was not heard to be ended stands for itself, until it expires.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from domain.person import Role, user_key
from domain.session import SessionEnded, SessionOpened, SessionsEnded, list_key, session_key
from domain.user import RolesSet
from gateway.auth import unauthenticated
from gateway.errors import Problem

if TYPE_CHECKING:
    from gateway.auth import Caller
    from gateway.log_outs import LogOuts
    from gateway.queries import Queries, Row

RECHECK_S = 60.0  # should an event pass unheard: a broker that was away, a process that stood still
AWAY_S = 5.0  # for which a worker that did not answer is not asked again
ASK_S = 1.0  # of a worker; a caller waits no longer
SHOWN_S = 1.0  # in which a worker that committed shows what was heard of
OPENING_S = 30.0  # in which a session that was just opened may not be in the table yet
USERS = 50_000
SESSION_ID = re.compile(r"[0-9a-f]{32}")  # no token has another
EVENTS = (SessionOpened, SessionEnded, SessionsEnded, RolesSet)


@dataclass(slots=True)
class Known:
    """What is known of one user."""

    sessions: dict[str, float] = field(
        default_factory=dict
    )  # that live, and until when it is known
    generation: int = 0  # that sessions have at least
    roles: frozenset[Role] | None = None
    version: int = 0  # of the roles


class Sessions:
    """The sessions of one process, on its event loop."""

    def __init__(self, queries: Queries, log_outs: LogOuts, access_s: int) -> None:
        self._queries, self._log_outs, self._access_s = queries, log_outs, access_s
        self._users: OrderedDict[str, Known] = OrderedDict()
        self._away_until_s = 0.0

    async def admit(self, caller: Caller) -> Caller:
        """The caller with the roles of now; 401 when the session has ended. One of no session is as the token says."""
        user_id, session_id = caller.user_id, caller.session_id
        if not session_id:
            return caller
        known = self._users.get(user_id)
        if known is None or known.sessions.get(session_id, 0.0) < time.monotonic():
            known = await self._asked(caller)
        if known.roles is None or known.roles == caller.roles:
            return caller
        return replace(caller, roles=known.roles)

    async def _asked(self, caller: Caller) -> Known:
        known = self._of(caller.user_id)
        now_s = time.monotonic()
        if now_s < self._away_until_s:
            return known
        try:
            async with asyncio.timeout(ASK_S):
                rows = await self._rows(caller, known)
        except (Problem, TimeoutError) as exc:
            if isinstance(exc, Problem) and exc.status != 503:
                raise
            self._away_until_s = time.monotonic() + AWAY_S
            return known
        self._learn(caller, known, *rows)
        return known

    async def _rows(
        self, caller: Caller, known: Known
    ) -> tuple[Row | None, Row | None, Row | None]:
        """User, list and session, not from before what was heard."""
        user_id, end_s = caller.user_id, time.monotonic() + SHOWN_S
        wanted = user_key(user_id), list_key(user_id), session_key(user_id, caller.session_id)
        partition = self._queries.partition(user_id)
        while True:
            found = await self._queries.rows("user", partition, wanted)
            user, listed, session = (found[key] for key in wanted)
            shown = listed["generation"] if listed else 0
            if shown >= known.generation or time.monotonic() > end_s:
                return user, listed, session
            await asyncio.sleep(0.01)

    def _learn(
        self,
        caller: Caller,
        known: Known,
        user: Row | None,
        listed: Row | None,
        session: Row | None,
    ) -> None:
        if session is None:
            if time.time() - caller.auth_s > OPENING_S:
                raise ended()
            known_s = 1.0
        elif not is_live(session, listed, int(time.time() * 1000)):
            raise ended()
        else:
            known_s = RECHECK_S
        known.sessions[caller.session_id] = time.monotonic() + known_s
        if user is not None and user["version"] >= known.version:
            known.version = user["version"]
            known.roles = frozenset(Role(role) for role in user["roles"])

    def heard(self, event: Any) -> None:
        """An event of EVENTS: it holds from now on."""
        match event:
            case SessionEnded():
                self.end(event.user_id, event.session_id)
            case SessionOpened():
                if event.evicted_session_id is not None:
                    self.end(event.user_id, event.evicted_session_id)
            case SessionsEnded():
                known = self._of(event.user_id)
                known.sessions.clear()
                known.generation = max(known.generation, event.generation)
            case RolesSet():
                known = self._of(event.user_id)
                if event.version > known.version:
                    known.version, known.roles = event.version, frozenset(event.roles)

    def end(self, user_id: str, session_id: str) -> None:
        """No token of this session is taken any more, in no process of this gateway."""
        self._of(user_id).sessions.pop(session_id, None)
        if SESSION_ID.fullmatch(session_id) and not self._log_outs.has(session_id):
            self._log_outs.add(session_id, int(time.time()) + self._access_s)

    def _of(self, user_id: str) -> Known:
        known = self._users.get(user_id)
        if known is None:
            known = self._users[user_id] = Known()
            if len(self._users) > USERS:
                self._users.popitem(last=False)
        return known


def is_live(session: Row, listed: Row | None, now_ms: int) -> bool:
    """The same as `domain.session.is_live`, of rows as workers serve them."""
    return (
        session["ended_ms"] is None
        and session["expires_ms"] > now_ms
        and listed is not None
        and (
            session["generation"] == listed["generation"]
            or session["session_id"] == listed["kept_session_id"]
        )
    )


def ended() -> Problem:
    return unauthenticated("the session has ended: log in")
