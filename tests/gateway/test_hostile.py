"""Every route of the table against those who mean no good: a walk over ROUTES, on the real bank."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from domain.user import Role
from gateway import pages
from gateway.models import Bulk
from gateway.routes import ROUTES
from tests.gateway.stand import PASSWORD, Got, Person, as_documented
from tests.gateway.test_edge import forged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.routes import Route
    from tests.gateway.stand import Town

NAME = re.compile(r"\{(\w+)\}")
AT_ONCE = 16
# percent-encoded, as they go over the wire
IDS = (
    *("..", "%2e%2e%2f", "..%2f..%2fhealth", "a%2fb", "%00", "x%0ay", "%ff", "%ED%A0%80", "%09"),
    *("%F0%9F%98%80", "A" * 4_000, "'--", "%7B%7D", "x.y", ".", "-1", "null"),
)
LIMITS = ("0", "-1", "201", "1e3", "1.0", "", "null", "50;", "%D9%A1", "000000001000")
CURSORS = ("x", "=", "%00", "v1", "djE6", "djE6MTIzNDU2Nzg5MDEyMzQ1Njc4OTA", "%ff", "A" * 3_000)
LONG = pages.cursor(f"000000{'9' * 4_400}|")  # as a number more than Python reads
TIMES = (
    *("x", "", "%00", "1e9", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "2026-02-30"),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59Z", "0001-01-01"),
)
QUERIES: dict[str, tuple[str, ...]] = {
    "limit": (*LIMITS, "000000001" + "0" * 4_400),
    "cursor": (*CURSORS, "djE6fDk5OTk5OTk5OTk5OTk5OXx4", "djE6Nzp6", "djE6OTk5OTk5OmFi", LONG),
    **dict.fromkeys(("at", "from", "to"), TIMES),
    "q": ("%00", "%25", "'", '%22"', "+-*", "(", "@@", ""),
    "fields": (",", "%00", "x" * 3_000),
    "group_by": ("x", ",,,", "currency,currency"),
}
BODIES: dict[str, tuple[bytes, set[int]]] = {
    "nothing": (b"{", {400}),
    "not UTF-8": (b"\xff\xfe{}", {400}),
    "two values": (b"{}{}", {400}),
    "a member twice": (b'{"a":1,"a":2}', {400}),
    "deep": (b"[" * 100_000, {400}),
    "many digits": (b'{"amount":' + b"9" * 5_000 + b"}", {400}),
    "no object": (b"1", {422}),
    "null": (b"null", {422}),
    "an unknown member": (b'{"nobody_knows":1}', {422}),
    "half a pair": (b'{"\\ud800":"\\udfff"}', {422}),
}


def paths(route: Route, names: dict[str, str] | None = None) -> str:
    """A route's path with these names filled in, `x` for others."""
    return NAME.sub(lambda found: (names or {}).get(found[1], "x"), route.path)


async def ask(
    person: Person, method: str, path: str, data: bytes | None = None, **more: str
) -> Got:
    """As `Person.ask`, with the path as it is written here."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    if person.token is not None:
        headers["Authorization"] = f"Bearer {person.token}"
    if data is not None:
        headers["Content-Type"] = "application/json"
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    url = URL(f"{person.url}{path}", encoded=True)
    async with person.session.request(
        method, url, data=data, headers=headers, allow_redirects=False
    ) as response:
        text = "" if response.status == 200 else await response.text(errors="replace")
        got = Got(response.status, response.headers.copy(), text)
    if got.status >= 400:
        as_documented(method, path, got)
    return got


async def walk(cases: Iterable[tuple[Any, ...]], check: Any) -> None:
    """All cases, some at a time; what is wrong with any of them, in one list."""
    turn, wrong = asyncio.Semaphore(AT_ONCE), list[str]()

    async def one(case: tuple[Any, ...]) -> None:
        async with turn:
            try:
                said = await check(*case)
            except (AssertionError, aiohttp.ClientError) as exc:
                said = str(exc)[:300]
        if said:
            shown = [part.name if hasattr(part, "handler") else str(part)[:60] for part in case]
            wrong.append(f"{shown}: {said}")

    await asyncio.gather(*(one(case) for case in cases))
    assert not wrong, "\n".join(wrong)


async def test_nobody_comes_in_without_the_right_role(people: Town) -> None:
    """401 without a token or with a refresh token, 403 for each role that is not the route's."""
    tokens: dict[str, str | None] = {
        "nobody": None,
        "a word": "x.y.z",
        "no role": forged(sub="x", roles=[]),
        **{role: forged(sub="x", roles=[role.value]) for role in Role},
    }

    def cases() -> Iterator[tuple[Route, str, int]]:
        for route in ROUTES:
            if route.roles is not None:
                yield from ((route, name, 401) for name in ("nobody", "a word"))
                strangers = [role for role in Role if role not in route.roles]
                yield from ((route, name, 403) for name in ("no role", *strangers))

    async def check(route: Route, name: str, wanted: int) -> str | None:
        person = Person(people.session, people.url, tokens[name])
        got = await ask(person, route.method, paths(route))
        return None if got.status == wanted else f"{got.status}, not {wanted}"

    await walk(cases(), check)


async def test_hostile_ids_name_nothing(people: Town) -> None:
    admin = await people.admin()

    def cases() -> Iterator[tuple[Route, str, str]]:
        for route in ROUTES:
            for name in NAME.findall(route.path):
                yield from ((route, name, one) for one in IDS)

    async def check(route: Route, name: str, one: str) -> str | None:
        data = None if route.method == "GET" else b"{}"
        got = await ask(admin, route.method, paths(route, {name: one}), data)
        # a version of a schema, and -1 for the newest, is what the registry's clients ask for
        return None if 400 <= got.status < 500 else str(got.status)

    await walk(cases(), check)


async def test_hostile_queries_are_no_failures(people: Town) -> None:
    """400 for what can't be a limit or a cursor, and nothing at all is answered with 500."""
    admin = await people.admin()
    account_id = await admin.open("USD")
    names = {"account_id": account_id, "user_id": admin.user_id}

    def cases() -> Iterator[tuple[Route, str, str]]:
        for route in ROUTES:
            if route.method == "GET" and route.tag not in ("schemas", "operations"):
                for name in (*route.query, "nonsense"):
                    given = QUERIES.get(name, ("%00", "x", "A" * 3_000))
                    yield from ((route, name, one) for one in given)

    async def check(route: Route, name: str, one: str) -> str | None:
        more = "&metric=count" if name != "metric" and "metric" in route.query else ""
        got = await ask(admin, "GET", f"{paths(route, names)}?{name}={one}{more}")
        bad = name == "nonsense" or (name == "limit" and "{" not in route.path)
        if bad and "q" not in route.query and got.status != 400:
            return f"{got.status}, not 400"
        return f"{got.status} {got.text}" if got.status in (500, 502, 504) else None

    await walk(cases(), check)


async def test_hostile_bodies_are_told_what_is_wrong(people: Town) -> None:
    admin = await people.admin()

    def cases() -> Iterator[tuple[Route, str]]:
        for route in ROUTES:
            if route.body is not None:
                yield from ((route, name) for name in (*BODIES, "too long", "another type"))

    async def check(route: Route, name: str) -> str | None:
        data, wanted = BODIES.get(name, (b"{}", {415}))
        more = {"Content_Type": "text/xml"} if name == "another type" else {}
        if name == "too long":
            data, wanted = b" " * (route.body_bytes + 1), {413}
        person = admin if route.roles is not None else people.stranger
        got = await ask(person, route.method, paths(route), data, **more)
        # a resource that is not there may be missed before its body is looked at
        return None if got.status in wanted else f"{got.status}, not {wanted}: {got.text[:200]}"

    await walk(cases(), check)


@pytest.mark.parametrize("bad", ["1", 1.0, True, [], {}, ["x"], "\ud800", "😀", None, "x" * 10_001])
@pytest.mark.parametrize(
    "member", ["amount", "currency", "source_account_id", "idempotency_key", "type"]
)
async def test_one_bad_order_spoils_no_bulk(people: Town, member: str, bad: Any) -> None:
    (route,) = (route for route in ROUTES if route.body is Bulk)
    admin = await people.admin()
    order = {"type": "transfer", "amount": 1, "currency": "USD", "idempotency_key": "k"}
    order |= {"source_account_id": "a", "destination_account_id": "b"}
    data = json.dumps([order, {**order, member: bad}]).encode()  # which writes half a pair too
    url = f"{people.url}{route.path}"
    headers = {"Authorization": f"Bearer {admin.token}", "Content-Type": "application/json"}
    async with people.session.post(url, data=data, headers=headers) as response:
        found = await response.json()
        assert response.status == 200, found
    first, second = found["items"]
    assert first["code"] == "ACCOUNT_NOT_FOUND"  # judged by itself
    assert second["status"] == "refused"


async def test_a_new_password_asked_for_twice_is_set_once(people: Town) -> None:
    """The answer was lost: the repeat is no wrong guess at the password of before."""
    alice = await people.customer("alice")
    body = {"current_password": PASSWORD, "new_password": "another horse altogether"}
    path, key = f"/api/users/{alice.user_id}/password", uuid.uuid4().hex
    first = await alice.post(path, body, Idempotency_Key=key)
    again = await alice.post(path, body, Idempotency_Key=key)
    assert (first.status, again.status) == (200, 200), again.text
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_query_is_not_let_go_for_a_body(people: Town) -> None:
    """One session is meant: an empty object beside it ends no others."""
    alice = await people.customer("alice")
    path = "/api/sessions?session_id=nobody-s"
    assert (await alice.ask("DELETE", path, {})).status == 404
    assert (await alice.ask("DELETE", path, {"others": True})).status == 400
    assert (await alice.get("/api/sessions")).status == 200
