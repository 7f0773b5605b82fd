"""The gateway's parts without a broker: keys, memory, headers, tokens, limits, the document."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.saga import Reason
from domain.services import DECIDERS
from domain.user import Role
from gateway import auth, errors, passwords, views
from gateway.answer import Answer
from gateway.client import listed_address, one_client
from gateway.errors import Problem
from gateway.headers import prefer_of, trace_of
from gateway.idempotency import Idempotency, hash_of, key_of, named, scope_of
from gateway.log_outs import LogOuts
from gateway.models import parsed
from gateway.openapi import document
from gateway.rehearsal import as_row
from gateway.routes import ROUTES
from gateway.shared import Shared
from gateway.throttle import Throttle
from resilience.limiter import Limiter
from settings import Settings
from tests.domain.simulator import run

SCOPE = scope_of("alice", "POST /api/transactions", "k")


def test_a_key_bare_or_quoted_is_the_same() -> None:
    assert key_of("abc") == key_of('"abc"') == key_of(" abc ") == "abc"
    assert key_of(None) is None
    assert len(key_of("k" * 255) or "") == 255


@pytest.mark.parametrize("header", ["", '""', "k" * 256, "a\tb", "é", "a\x7f"])
def test_keys_that_cannot_be_used(header: str) -> None:
    with pytest.raises(Problem) as refused:
        key_of(header)
    assert refused.value.code == "IDEMPOTENCY_KEY_INVALID"


@given(st.uuids(), st.text())
def test_names_are_rfc_9562_version_5(namespace: uuid.UUID, name: str) -> None:
    assert named(namespace, name) == uuid.uuid5(namespace, name)


def test_ids_follow_from_the_scope_alone() -> None:
    assert scope_of("alice", "POST /api/transactions", "k") == SCOPE
    others = {
        scope_of("bob", "POST /api/transactions", "k"),
        scope_of("alice", "POST /api/accounts", "k"),
        scope_of("alice", "POST /api/transactions", "l"),
        scope_of("alice", "POST /api/transactions", None),
        scope_of("alice", "POST /api/transactions", None),
    }
    assert len(others | {SCOPE}) == 6


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers(0, 9) | st.text(max_size=5), max_size=5))
def test_the_fingerprint_does_not_see_the_order_of_members(body: dict[str, Any]) -> None:
    assert hash_of(body) == hash_of(dict(reversed(body.items())))
    assert hash_of(body) != hash_of({**body, "one more": 1})


def test_memory_first_in_progress_then_answered() -> None:
    memory = Idempotency()
    assert memory.begin(SCOPE, "h") is None
    with pytest.raises(Problem) as busy:
        memory.begin(SCOPE, "h")
    with pytest.raises(Problem) as other:
        memory.begin(SCOPE, "another")
    memory.finish(SCOPE, Answer(201, b"{}"))
    entry = memory.begin(SCOPE, "h")
    assert (busy.value.status, other.value.status) == (409, 422)
    assert entry is not None
    assert entry.answer == Answer(201, b"{}")


def test_memory_keeps_of_a_202_that_it_was() -> None:
    memory = Idempotency()
    memory.begin(SCOPE, "h")
    memory.finish(SCOPE, Answer(202))
    entry = memory.begin(SCOPE, "h")
    assert entry is not None
    assert (entry.accepted, entry.answer) == (True, None)


def test_memory_of_what_was_not_accepted_is_none() -> None:
    memory = Idempotency()
    memory.begin(SCOPE, "h")
    memory.forget(SCOPE)
    assert memory.begin(SCOPE, "another") is None


def test_memory_is_bounded() -> None:
    memory = Idempotency(entries=10, answer_bytes=3000)
    scopes = [uuid.uuid4() for _ in range(30)]
    for scope in scopes:
        memory.begin(scope, "h")
        memory.finish(scope, Answer(201, b"x" * 500))
    known = [scope for scope in scopes if scope in memory._entries]
    assert known == scopes[-3:]
    assert memory._bytes == 3000


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("wait=10", 10),
        ("respond-async, wait=5", 5),
        ("Wait = 5; foo=bar", 5),
        ("wait=600", 30),
        ("wait=0", 0),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=²", None),
        ("wait", None),
        ("return=minimal", None),
        (None, None),
    ],
)
def test_prefer(header: str | None, wait_s: int | None) -> None:
    assert prefer_of(header).wait_s == wait_s


def test_a_trace_goes_on_with_a_new_span() -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    trace = trace_of(given)
    assert trace.traceparent.startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert trace.traceparent.endswith("-00")
    assert trace.span_id != "00f067aa0ba902b7"
    assert trace_of(None) != trace_of(None)


def test_tokens_say_who_and_what() -> None:
    tokens = auth.Tokens("x" * 32, 60)
    issued = tokens.issue("alice", [Role.CUSTOMER, Role.OPERATOR], "session", "token", 7)
    caller = tokens.caller(f"bearer {issued['access_token']}")
    assert caller == tokens.caller(f"Bearer {issued['access_token']}")
    assert (caller.user_id, caller.privileged) == ("alice", True)
    assert (caller.session_id, caller.auth_s) == ("session", 7)
    assert tokens.refreshed(issued["refresh_token"]) == auth.Claims("alice", "session", "token", 7)
    alone = tokens.issue("alice", [Role.CUSTOMER])
    assert tokens.caller(f"Bearer {alone['access_token']}").session_id == ""
    for wrong in (
        lambda: tokens.caller(f"Basic {issued['access_token']}"),
        lambda: tokens.caller(f"Bearer {issued['refresh_token']}"),
        lambda: tokens.refreshed(issued["access_token"]),
        lambda: tokens.refreshed(alone["refresh_token"]),
        lambda: auth.Tokens("y" * 32, 60).caller(f"Bearer {issued['access_token']}"),
    ):
        with pytest.raises(Problem) as refused:
            wrong()
        assert refused.value.status == 401


def test_a_token_of_a_clock_that_goes_before_ours_is_taken() -> None:
    tokens = auth.Tokens("x" * 32, 60)
    now = int(time.time())
    ahead = {"iss": auth.ISSUER, "sub": "a", "jti": "j", "typ": "access", "roles": ["customer"]}
    token = jwt.encode({**ahead, "iat": now + 3, "exp": now + 60}, "x" * 32, algorithm="HS256")
    assert tokens.caller(f"Bearer   {token} ").user_id == "a"


def test_who_logs_out_may_be_late() -> None:
    session_id = uuid.uuid4().hex
    told: list[str] = []
    tokens = auth.Tokens("x" * 32, -60, told=lambda ended, _: told.append(ended))
    issued = tokens.issue("alice", [Role.CUSTOMER], session_id, "token", 7)
    header = f"Bearer {issued['access_token']}"
    with pytest.raises(Problem):
        tokens.caller(header)
    tokens.withdraw(tokens.ending_access(header))
    assert told == [session_id]


@pytest.mark.parametrize(
    ("ends", "counted"),
    [
        (None, False),
        (Problem("INVALID_CREDENTIALS"), True),
        (Problem("STATE_UNAVAILABLE"), False),
        (asyncio.CancelledError(), True),
    ],
)
async def test_what_counts_as_a_guess(ends: BaseException | None, counted: bool) -> None:
    settings = Settings(login_failures_account=1)
    throttle = Throttle(Shared(None, LogOuts()), settings)
    with suppress(Problem, asyncio.CancelledError):
        async with throttle.attempt("alice", "192.0.2.1"):
            if ends is not None:
                raise ends
    if counted:
        with pytest.raises(Problem):
            async with throttle.attempt("alice", "192.0.2.2"):
                pass
    else:
        async with throttle.attempt("alice", "192.0.2.2"):
            pass


@pytest.mark.parametrize(
    ("remote", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8::4:3:2:1", "2001:db8::/64"),
        (None, "-"),
    ],
)
def test_what_counts_as_one_client(remote: str | None, client: str) -> None:
    assert one_client(remote) == client


def test_a_mapped_address_is_listed_as_orders_come_from_it() -> None:
    assert listed_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert listed_address("2001:db8::1") == "2001:db8::1"


def test_every_byte_of_a_long_password_counts() -> None:
    long = "p" * 100
    kept = passwords.hashed(long, rounds=4)
    assert passwords.matches(long, kept)
    assert not passwords.matches(long[:-1], kept)
    assert not passwords.matches("p" * 72, kept)
    assert not passwords.matches("a\x00c", passwords.hashed("a\x00b", rounds=4))


def test_what_is_put_back_does_not_count() -> None:
    limiter = Limiter(limit=2, window_s=30.0)
    for _ in range(5):
        assert limiter.take("a", 0.0).allowed
        limiter.give_back("a")
    assert [limiter.take("a", 0.0).allowed for _ in range(3)] == [True, True, False]
    limiter.give_back("nobody")


def test_a_bucket_is_spent_and_drips_full_again() -> None:
    limiter = Limiter(limit=3, window_s=30.0)
    assert [limiter.take("a", 0.0).allowed for _ in range(4)] == [True, True, True, False]
    assert limiter.take("b", 0.0).remaining == 2
    refused = limiter.take("a", 5.0)
    assert (refused.allowed, refused.retry_s) == (False, 5.0)
    assert limiter.take("a", 10.0).allowed
    assert limiter.take("a", 1000.0).remaining == 2


def test_every_reason_of_the_domain_has_words() -> None:
    assert set(errors.CODES) >= set(Reason)
    assert errors.CODES["EMAIL_TAKEN"][0] == 409
    assert errors.CODES["INSUFFICIENT_FUNDS"][0] == 422


def test_times_are_rfc_3339() -> None:
    assert views.time_of(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    assert views.time_of(None) is None


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_body_breaks_the_parser(data: bytes) -> None:
    with suppress(Problem):
        parsed(data)


def test_the_document_has_every_route_and_resolves() -> None:
    made = document(ROUTES)
    for route in ROUTES:
        operation = made["paths"][route.path][route.method.lower()]
        assert operation["security"] == ([] if route.roles is None else [{"bearer": []}])
    ids = [one["operationId"] for path in made["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))
    schemas = made["components"]["schemas"]
    for ref in _refs(made):
        assert ref.removeprefix("#/components/schemas/") in schemas


def _refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for one in value.values() for ref in _refs(one)]
    return [ref for one in value for ref in _refs(one)] if isinstance(value, list) else []


@pytest.mark.parametrize("seed", range(6))
def test_a_row_is_read_as_it_was_shown(seed: int) -> None:
    """What a dry run decides from is what the services decide from."""
    bank = run(seed)
    kinds = set()
    for (service, _), rows in bank.rows.items():
        for row in rows.values():
            assert as_row(service, views.plain(row)) == row
            kinds.add(type(row))
    assert len(kinds) > 3


def test_no_two_kinds_of_rows_of_a_service_look_alike() -> None:
    for service in DECIDERS:
        assert as_row(service, None) is None
        with pytest.raises(KeyError):
            as_row(service, {"nothing": 1})
