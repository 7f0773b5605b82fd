"""What a gateway process knows of sessions: asked once, heard at once, trusted while nobody answers."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from deploy.local.processes import free_ports
from domain.person import Role
from domain.session import Cause, SessionEnded, SessionOpened, SessionsEnded
from domain.user import RolesSet
from gateway.auth import Caller
from gateway.errors import Problem, state_unavailable
from gateway.log_outs import LogOuts
from gateway.sessions import OPENING_S, Sessions
from tests.forked import PIPELINE, ForkedChild, command
from tests.gateway.stand import PASSWORD, Person, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gateway.stand import Stand, Town

USER, SESSION = "u-ada", uuid.uuid4().hex
ADA = Caller(USER, frozenset({Role.CUSTOMER}), SESSION, auth_s=1)


class Tables:
    """The rows of a user's worker, in memory."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.roles, self.version, self.generation = ["customer"], 1, 0
        self.late = 0  # answers that are from before
        self.sessions: dict[str, dict[str, Any]] = {SESSION: self.session()}

    def session(self, **changes: Any) -> dict[str, Any]:
        row = {"session_id": SESSION, "generation": 0, "ended_ms": None, "expires_ms": 10**14}
        return {**row, **changes}

    def partition(self, _key: str) -> int:
        return 0

    async def rows(self, _service: str, _partition: int, keys: Any) -> dict[str, Any]:
        self.asked += 1
        if self.away:
            raise state_unavailable("nobody answers")
        user, listed, session = keys
        self.late -= 1
        generation = self.generation - (self.late >= 0)
        assert (user, listed) == (f"user/{USER}", f"sessions-of/{USER}")
        return {
            user: {"roles": self.roles, "version": self.version},
            listed: {"generation": generation, "kept_session_id": None},
            session: self.sessions.get(session.rpartition("/")[2]),
        }


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def sessions(tables: Tables) -> Sessions:
    return Sessions(tables, LogOuts(), 3600)  # type: ignore[arg-type]


async def refused(sessions: Sessions, caller: Caller = ADA) -> bool:
    try:
        await sessions.admit(caller)
    except Problem as problem:
        return (problem.status, problem.code) == (401, "UNAUTHENTICATED")
    return False


async def test_a_session_is_asked_for_once(tables: Tables, sessions: Sessions) -> None:
    for _ in range(3):
        assert await sessions.admit(ADA) == ADA
    assert tables.asked == 1


@pytest.mark.parametrize("change", [{"ended_ms": 1}, {"expires_ms": 1}, {"generation": -1}])
async def test_one_that_ended_before_this_process_began(
    tables: Tables, sessions: Sessions, change: dict[str, Any]
) -> None:
    tables.sessions[SESSION] = tables.session(**change)
    assert await refused(sessions)


async def test_one_that_is_not_there_may_be_on_its_way(tables: Tables, sessions: Sessions) -> None:
    tables.sessions.clear()
    now_s = int(time.time())
    assert not await refused(sessions, Caller(USER, ADA.roles, SESSION, now_s))
    assert await refused(sessions, Caller(USER, ADA.roles, "other", now_s - int(OPENING_S) - 1))


async def test_what_is_heard_holds_at_once(tables: Tables, sessions: Sessions) -> None:
    assert not await refused(sessions)
    tables.generation, tables.late = 1, 3
    ended = SessionsEnded(
        user_id=USER,
        kept_session_id=None,
        generation=1,
        cause=Cause.REVOKED,
        end_id="e",
        at_ms=0,
    )
    sessions.heard(ended)
    assert await refused(sessions)


async def test_the_end_of_one_session_is_told_to_all_processes(tables: Tables) -> None:
    log_outs, other = LogOuts(), uuid.uuid4().hex
    sessions = Sessions(tables, log_outs, 3600)  # type: ignore[arg-type]
    sessions.heard(SessionEnded(user_id=USER, session_id=SESSION, cause=Cause.REUSED, at_ms=0))
    sessions.heard(
        SessionOpened(
            user_id=USER,
            session_id="new",
            number=100,
            generation=0,
            evicted_session_id=other,
            expires_ms=0,
            at_ms=0,
        )
    )
    assert log_outs.has(SESSION)
    assert log_outs.has(other)


async def test_roles_of_now(tables: Tables, sessions: Sessions) -> None:
    tables.roles, tables.version = ["support"], 3
    assert (await sessions.admit(ADA)).roles == {Role.SUPPORT}
    for version, role in ((2, Role.ADMIN), (4, Role.OPERATOR)):
        said = RolesSet(user_id=USER, roles=(role,), version=version, actor_id="", at_ms=0)
        sessions.heard(said)
    assert (await sessions.admit(ADA)).roles == {Role.OPERATOR}, "an older word counts no more"


async def test_while_nobody_answers_a_token_stands_for_itself(
    tables: Tables, sessions: Sessions
) -> None:
    tables.away = True
    for _ in range(3):
        assert await sessions.admit(ADA) == ADA
    assert tables.asked == 1, "nobody waits for each request"


# on the real bank


async def test_a_gateway_that_starts_anew_knows_who_is_out(
    bank: Stand, people: Town, tmp_path: Path
) -> None:
    """And hears of what another one does; there is no Redis here."""
    alice, bob, carl = [await people.customer(name) for name in ("alice", "bob", "carl")]
    assert (await alice.ask("DELETE", "/api/sessions", Prefer="wait=10")).status == 200
    assert (await carl.post("/api/auth/logout", wait=None)).status == 204
    (port,) = free_ports(1)
    environment = {**bank.environment, "STREAMBANK_GATEWAY_PORT": str(port)}
    other = ForkedChild("other", [PIPELINE, "gateway"], tmp_path, environment=environment)
    other.start()
    try:
        there = [
            Person(one.session, f"http://127.0.0.1:{port}", one.token) for one in (alice, bob, carl)
        ]

        async def ready() -> bool:
            try:
                return (await there[0].get("/readiness")).status == 200
            except aiohttp.ClientError:
                return False

        await until(ready, "the other gateway is ready", 60)
        statuses = [(await one.get("/api/accounts")).status for one in there]
        assert statuses == [401, 200, 401]
        change = {"current_password": PASSWORD, "new_password": "another horse"}
        email = (await bob.get(f"/api/users/{bob.user_id}")).json["email"]
        second = await people.login(email)
        got = await second.post(f"/api/users/{bob.user_id}/password", change)
        assert got.status == 200, got.text

        async def out() -> bool:
            return (await there[1].get("/api/accounts")).status == 401

        await until(out, "the other gateway has heard", 5)
    finally:
        other.stop(grace_s=10)


def test_what_people_did_is_proven_from_the_log(bank: Stand) -> None:
    """Private facts and public ones, in the order of their decisions, decided again."""
    done = command("verify", "--service", "user", "--decide", environment=bank.environment)
    assert done.returncode == 0, done.stdout + done.stderr
