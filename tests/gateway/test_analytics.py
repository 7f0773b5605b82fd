"""Reports over HTTP: their numbers are those of the log."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from domain.analytics import DAY_MS, Interval, start_of, window_key
from domain.saga import TransactionCancelled, TransactionCompleted, TransactionFailed
from gateway.analytics import asked_of
from gateway.errors import Problem
from gateway.views import time_of
from proof.reader import Reader
from schemas.codec import Codec
from tests.gateway.stand import until
from tests.gateway.test_end_to_end import funded

if TYPE_CHECKING:
    from tests.gateway.stand import Person, Stand, Town

REPORTS = "/api/analytics/reports"


@pytest.fixture
async def analyst(people: Town) -> Person:
    return await people.staff("analyst")


async def busy(people: Town) -> Person:
    """Ada with three transfers that passed, and one that could not."""
    ada, source = await funded(people, "ada", 10_000)
    _, destination = await funded(people, "bob", 1)
    for amount in (100, 250, 650, 10**9):
        got = await ada.pay(
            amount=amount, source_account_id=source, destination_account_id=destination
        )
        assert got.status == (422 if amount == 10**9 else 201), got.text
    return ada


def ends(bank: Stand) -> list[Any]:
    """All final facts of the log."""
    reader, codec = Reader({"bootstrap.servers": bank.bootstrap}), Codec()
    found = []
    for partition in range(3):
        for record in reader.records(f"{bank.prefix}transaction.events", partition):
            event = codec.decode(record.value or b"")
            if isinstance(event, TransactionCompleted | TransactionFailed | TransactionCancelled):
                found.append(event)
    reader.close()
    return found


async def sums(analyst: Person, query: str, *names: str) -> Counter[Any]:
    got = await analyst.get(f"{REPORTS}?{query}")
    assert got.status == 200, got.text
    found: Counter[Any] = Counter()
    for item in got.json["items"]:
        found[tuple(item[name] for name in names)] += item["value"]
    return found


async def counted(analyst: Person, user_id: str, count: int) -> None:
    async def is_counted() -> bool:
        found = await sums(analyst, f"metric=count&interval=day&user_id={user_id}")
        return sum(found.values()) == count

    await until(is_counted, "all is counted", 60)


async def test_the_numbers_of_reports_are_those_of_the_log(
    people: Town, bank: Stand, analyst: Person
) -> None:
    ada = await busy(people)
    await counted(analyst, ada.user_id, 5)
    from_ms = start_of(time.time_ns() // 1_000_000, Interval.DAY) - DAY_MS
    since = f"from={time_of(from_ms)}"

    reports = {
        "count of types": (f"metric=count&interval=hour&group_by=type&{since}", ["type"]),
        "volume": (
            f"metric=volume&interval=hour&group_by=currency,type&{since}",
            ["currency", "type"],
        ),
        "count of users": (f"metric=count&interval=day&group_by=user&{since}", ["user_id"]),
    }
    differ: dict[str, Any] = {}

    async def equal() -> bool:
        """Others' transactions go on: until both looks are of one moment."""
        log = await asyncio.to_thread(ends, bank)
        expected: dict[str, Counter[Any]] = {name: Counter() for name in reports}
        for one in log:
            expected["count of types"][(one.order.type,)] += 1
            expected["count of users"][(one.order.owner_id,)] += 1
            if isinstance(one, TransactionCompleted):
                expected["volume"][one.order.currency, one.order.type] += one.order.amount_minor
        differ.clear()
        for name, (query, names) in reports.items():
            found = await sums(analyst, query, *names)
            for key in found | expected[name]:
                if found[key] != expected[name][key]:
                    differ[f"{name}, {key}"] = (found[key], expected[name][key])
        by_minute = await sums(analyst, "metric=count&interval=minute&group_by=type", "type")
        return not differ and by_minute <= expected["count of types"]

    try:
        await until(equal, "reports and log say the same", 60)
    except AssertionError as error:
        error.add_note(f"reported and logged: {differ}")
        raise


async def test_a_users_days(people: Town, analyst: Person) -> None:
    ada = await busy(people)
    await counted(analyst, ada.user_id, 5)
    of_ada = f"user_id={ada.user_id}&interval=day&type=transfer"
    found = await sums(analyst, f"metric=volume&{of_ada}", "currency")
    assert found == {("USD",): 1_000}
    (item,) = (await analyst.get(f"{REPORTS}?metric=success_rate&{of_ada}")).json["items"]
    assert (item["value"], item["completed"], item["failed"]) == (0.75, 3, 1)
    (item,) = (await analyst.get(f"{REPORTS}?metric=failures&{of_ada}")).json["items"]
    assert (item["value"], item["reasons"]) == (1, {"DAILY_LIMIT": 1})
    (item,) = (await analyst.get(f"{REPORTS}?metric=latency&{of_ada}")).json["items"]
    assert sum(bucket["count"] for bucket in item["buckets"]) == 3
    assert item["p50_ms"] <= item["p95_ms"] <= item["p99_ms"]
    assert (await sums(analyst, f"metric=revenue&{of_ada}", "currency")).keys() == {("USD",)}
    assert await sums(analyst, f"metric=count&{of_ada}&currency=EUR") == {}
    got = await analyst.get(f"/api/analytics/users/{ada.user_id}")
    assert got.status == 200, got.text
    assert sum(hour["count"] for hour in got.json["hours"]) == 5
    (totals,) = (one for one in got.json["totals"] if one["type"] == "transfer")
    assert (totals["volume"], totals["mean_amount"]) == (1_000, 333)
    assert (await analyst.get("/api/analytics/users/nobody")).status == 404


@pytest.mark.parametrize(
    "query",
    [
        "",
        "metric=profit",
        "metric=count&interval=week",
        "metric=count&group_by=colour",
        "metric=count&group_by=user",
        "metric=count&user_id=u&interval=hour",
        "metric=count&from=today",
        "metric=count&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "metric=count&interval=minute&from=2020-01-01T00:00:00Z",
        "metric=count&interval=day&group_by=user&from=2020-01-01T00:00:00Z",
        "metric=count&currency=usd",
        "metric=count&type=gift",
        "metric=count&colour=red",
    ],
)
async def test_malformed_queries(people: Town, query: str) -> None:
    got = await (await people.admin()).get(f"{REPORTS}?{query}")
    assert (got.status, got.code) == (400, "BAD_QUERY"), got.text


@pytest.mark.parametrize("interval", Interval)
@pytest.mark.parametrize(
    ("to", "good"),
    [
        ("2286-11-19T00:00:00Z", True),
        ("2286-11-20T17:46:39.999Z", False),  # widened to its whole window, this is beyond
        ("2286-11-20T17:46:40Z", False),
        ("2287-01-01T00:00:00Z", False),
        ("9999-12-31T23:59:59Z", False),
    ],
)
def test_no_year_is_asked_for_whose_keys_lie_among_this_years(
    interval: Interval, to: str, good: bool
) -> None:
    query = {"metric": "count", "interval": interval, "to": to}
    if good:
        asked = asked_of(query)
        keys = [window_key(interval, at, 0) for at in (asked.from_ms, asked.to_ms)]
        assert keys == sorted(keys)
        return
    for from_ in ({}, {"from": "2286-11-19T00:00:00Z"}, {"from": "2026-11-26T00:00:00Z"}):
        with pytest.raises(Problem, match="before 2286-11-20T17:46:40"):
            asked_of({**query, **from_})


@pytest.mark.parametrize("role", ["support", "operator", "compliance"])
@pytest.mark.parametrize("path", ["reports?metric=count", "stream", "users/u"])
async def test_other_roles_are_refused(people: Town, role: str, path: str) -> None:
    got = await (await people.staff(role)).get(f"/api/analytics/{path}")
    assert (got.status, got.code) == (403, "FORBIDDEN")


async def test_the_stream_says_what_ends(people: Town, analyst: Person) -> None:
    headers = {"Authorization": f"Bearer {analyst.token}"}
    url = f"{analyst.url}/api/analytics/stream"
    waits = aiohttp.ClientTimeout(total=None)
    async with analyst.session.get(url, headers=headers, timeout=waits) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        before = counts(await said(response))
        await busy(people)

        async def more() -> bool:
            now = counts(await said(response))  # the oldest minute may have left it
            return sum(count - before.get(start, 0) for start, count in now.items()) >= 6

        await until(more, "the stream says that transactions ended", 40)


async def test_the_stream_ends_with_its_session(people: Town) -> None:
    listening = await people.staff("analyst")
    headers = {"Authorization": f"Bearer {listening.token}"}
    url = f"{listening.url}/api/analytics/stream"
    async with listening.session.get(url, headers=headers) as response:
        await said(response)
        assert (await listening.post("/api/auth/logout")).status == 204
        await asyncio.wait_for(response.content.read(), 20)
        assert response.content.at_eof()


async def said(response: Any) -> Any:
    while True:
        line = await asyncio.wait_for(response.content.readline(), 30)
        if line.startswith(b"data: "):
            return orjson.loads(line[6:])


def counts(said: Any) -> dict[str, int]:
    """How many ended, by the minute's start."""
    assert len(said["minutes"]) == 5
    return {minute["start"]: minute["count"] for minute in said["minutes"]}
