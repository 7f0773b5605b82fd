"""Analytics over HTTP: reports over windows of time, one user's behaviour, a live stream.

A report asks each partition of the workers for its windows, and sums them. Money of several currencies
is never one number: volume and revenue come by currency, whatever they are grouped by.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from aiohttp import web
from pydantic import Field

from domain.analytics import (
    BUCKETS_MS,
    LENGTH_MS,
    NOTHING,
    Figures,
    Interval,
    added,
    behaviour_key,
    ended,
    start_of,
    user_day_key,
)
from gateway import views
from gateway.answer import Answer, answer
from gateway.answers import Shown
from gateway.errors import Problem, not_found
from gateway.looks import Looks
from gateway.reads import TABLES
from stores.questions import Wanted
from travel.errors import BadMoment
from travel.moments import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gateway.call import Call
    from gateway.queries import Queries, Row
    from stores.questions import Questions

Group: TypeAlias = tuple[int, str, str, str]  # start, currency, type, user_id; empty: not by this

PAGE = 200  # rows of one question to a worker
WINDOWS, USER_DAYS = 1_500, 92  # of one report
USERS = 10_000  # rows of one report by user
DEFAULT_WINDOWS = 24
KEYS_END_MS = 10**13  # a window's key has 13 digits, and is found in the order of its text
LIVE_S, HEARTBEAT_S = 1.0, 15.0
LIVE_MINUTES = 5


class Metric(StrEnum):
    COUNT = "count"
    VOLUME = "volume"
    SUCCESS_RATE = "success_rate"
    REVENUE = "revenue"
    LATENCY = "latency"
    FAILURES = "failures"


GROUPS = ("currency", "type", "user")
MONEY = frozenset({Metric.VOLUME, Metric.REVENUE})


class ReportItem(Shown):
    start: str
    end: str
    currency: str | None = None
    type: str | None = None
    user_id: str | None = None
    value: float | int | None
    count: int
    completed: int
    failed: int
    cancelled: int
    late: int
    p50_ms: int | None = None
    p95_ms: int | None = None
    p99_ms: int | None = None
    buckets: list[dict[str, int | None]] | None = None
    reasons: dict[str, int] | None = None


class Report(Shown):
    metric: str
    interval: str
    from_: str = Field(alias="from")
    to: str
    group_by: list[str]
    items: list[ReportItem]


class HourOfDay(Shown):
    hour: int
    count: int


class UserBehaviour(Shown):
    user_id: str
    first_at: str
    last_at: str
    hours: list[HourOfDay]
    totals: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A report: metric x interval x group x filter. Times in Unix ms, at the starts of windows."""

    metric: Metric
    interval: Interval
    from_ms: int
    to_ms: int
    groups: tuple[str, ...]
    currency: str | None
    type: str | None
    user_id: str | None

    @property
    def by_user(self) -> bool:
        return "user" in self.groups or self.user_id is not None

    @property
    def starts(self) -> range:
        return range(self.from_ms, self.to_ms, LENGTH_MS[self.interval])

    def group(self, start_ms: int, name: str, user_id: str) -> Group | None:
        """Where figures of `type/currency` are counted; None: they are not asked for."""
        kind, _, currency = name.partition("/")
        if self.currency not in (None, currency) or self.type not in (None, kind):
            return None
        by_currency = "currency" in self.groups or self.metric in MONEY
        return (
            start_ms,
            currency if by_currency else "",
            kind if "type" in self.groups else "",
            user_id if "user" in self.groups else "",
        )


def asked_of(query: Mapping[str, str]) -> Asked:
    """400 for what can't be asked."""
    interval = Interval(query.get("interval", Interval.HOUR))
    length_ms = LENGTH_MS[interval]
    now_ms = time.time_ns() // 1_000_000
    to_ms = _time(query, "to", now_ms)
    # the window in which `to` lies counts, unless `to` is its very start
    to_ms = start_of(to_ms + length_ms - 1, interval)
    from_ms = start_of(_time(query, "from", to_ms - DEFAULT_WINDOWS * length_ms), interval)
    if to_ms >= KEYS_END_MS:
        raise Problem("BAD_QUERY", f"to must lie before {views.time_of(KEYS_END_MS)}")
    if from_ms >= to_ms:
        raise Problem("BAD_QUERY", "from must lie before to")
    groups = tuple(name for name in query.get("group_by", "").split(",") if name)
    if unknown := [name for name in groups if name not in GROUPS]:
        shown = unknown[0][:60].encode("ascii", "backslashreplace").decode()
        raise Problem("BAD_QUERY", f"group_by is one or more of {', '.join(GROUPS)}, not {shown!r}")
    if "metric" not in query:
        raise Problem("BAD_QUERY", f"metric is one of {', '.join(Metric)}")
    asked = Asked(
        metric=Metric(query["metric"]),
        interval=interval,
        from_ms=from_ms,
        to_ms=to_ms,
        groups=groups,
        currency=query.get("currency"),
        type=query.get("type"),
        user_id=query.get("user_id"),
    )
    if asked.by_user and interval is not Interval.DAY:
        raise Problem("BAD_QUERY", "users are counted by day: interval=day")
    most = USER_DAYS if asked.by_user else WINDOWS
    if len(asked.starts) > most:
        raise Problem("BAD_QUERY", f"at most {most} windows of one {interval}: narrow from and to")
    return asked


def _time(query: Mapping[str, str], name: str, default_ms: int) -> int:
    text = query.get(name)
    if text is None:
        return default_ms
    try:
        return moment(text)
    except BadMoment as exc:
        raise Problem("BAD_QUERY", f"{name}: {exc}") from exc


async def report(call: Call) -> Answer:
    """`?metric=&interval=&from=&to=&group_by=` and the filters currency, type and user_id."""
    asked = asked_of(call.query)
    queries, call.read_source = call.gateway.queries, TABLES
    found: dict[Group, Figures] = {}
    if asked.by_user:
        rows = await _users(queries, asked)
    else:
        rows = await _windows(call, asked)
    for row in rows:
        for name, figures in row["figures"].items():
            group = asked.group(row["start_ms"], name, row.get("user_id", ""))
            if group is not None:
                found[group] = added(found.get(group, NOTHING), of_row(figures))
    items = [_item(asked, group, figures) for group, figures in sorted(found.items())]
    shown = {
        "metric": asked.metric,
        "interval": asked.interval,
        "from": views.time_of(asked.from_ms),
        "to": views.time_of(asked.to_ms),
        "group_by": [*asked.groups],
        "items": items,
    }
    return answer(shown)


def of_row(figures: Mapping[str, Any]) -> Figures:
    """Figures as a worker shows them."""
    return Figures(**{**figures, "latencies": tuple(figures["latencies"])})


async def _windows(call: Call, asked: Asked) -> list[Row]:
    """All partitions' windows, from the workers, or a store while they are away."""
    queries = call.gateway.queries

    async def of_tables() -> list[Row]:
        return await windows(queries, asked.interval, asked.from_ms, asked.to_ms)

    async def of_store(store: Questions) -> list[Row]:
        wanted = Wanted(type=asked.interval, from_ms=asked.from_ms, to_ms=asked.to_ms)
        page = await store.windows(wanted, None, PAGE)
        rows = [*page.items]
        while page.following is not None:
            page = await store.windows(wanted, page.following, PAGE)
            rows += page.items
        return rows

    return await call.gateway.reads.ask(call, "analytics", of_store, of_tables, tables_first=True)


async def windows(queries: Queries, interval: Interval, from_ms: int, to_ms: int) -> list[Row]:
    """The workers' windows that begin from `from_ms` on, before `to_ms`."""
    prefix = f"window/{interval}/"
    shares = await asyncio.gather(
        *(
            _between(queries, partition, prefix, from_ms, to_ms, None)
            for partition in range(queries.partitions)
        )
    )
    return [row for share in shares for row in share]


async def _between(
    queries: Queries, partition: int, prefix: str, from_ms: int, to_ms: int, most: int | None
) -> list[Row]:
    """Rows of one partition whose key goes on with a time from `from_ms` to before `to_ms`."""
    rows: list[Row] = []
    after: str | None = f"{prefix}{from_ms:013d}"
    end = f"{prefix}{to_ms:013d}"
    while after is not None:
        found, after = await queries.listed("analytics", partition, prefix, after, PAGE)
        rows += [row for key, row in found if key < end]
        if found and found[-1][0] >= end:
            break
        if most is not None and len(rows) > most:
            raise Problem("REPORT_TOO_LARGE", f"more than {most:,} rows: narrow from and to")
    return rows


async def _users(queries: Queries, asked: Asked) -> list[Row]:
    if asked.user_id is not None:
        keys = [user_day_key(start_ms, asked.user_id) for start_ms in asked.starts]
        partition = queries.partition(asked.user_id)
        found = await queries.rows("analytics", partition, keys)
        return [row for row in found.values() if row is not None]
    rows: list[Row] = []
    for partition in range(queries.partitions):
        left = USERS - len(rows)
        rows += await _between(queries, partition, "user-day/", asked.from_ms, asked.to_ms, left)
    return rows


def _item(asked: Asked, group: Group, figures: Figures) -> dict[str, Any]:
    start_ms, currency, kind, user_id = group
    named = {"currency": currency, "type": kind, "user_id": user_id}
    item: dict[str, Any] = {
        "start": views.time_of(start_ms),
        "end": views.time_of(start_ms + LENGTH_MS[asked.interval]),
        **{name: value for name, value in named.items() if value},
        "value": value_of(asked.metric, figures),
        **counts(figures),
    }
    if asked.metric is Metric.LATENCY:
        item |= {f"p{n}_ms": percentile(figures.latencies, n) for n in (50, 95, 99)}
        bounds: Iterable[int | None] = (*BUCKETS_MS, None)
        item["buckets"] = [
            {"up_to_ms": bound, "count": count}
            for bound, count in zip(bounds, figures.latencies, strict=True)
        ]
    if asked.metric is Metric.FAILURES:
        item["reasons"] = figures.reasons
    return item


def counts(figures: Figures) -> dict[str, int]:
    names = ("completed", "failed", "cancelled", "late")
    return {"count": ended(figures), **{name: getattr(figures, name) for name in names}}


def value_of(metric: Metric, figures: Figures) -> float | int | None:
    """Money in minor units; a rate of 0 to 1; a latency in ms, the mean."""
    match metric:
        case Metric.COUNT:
            return ended(figures)
        case Metric.FAILURES:
            return figures.failed
        case Metric.VOLUME:
            return figures.volume_minor
        case Metric.REVENUE:
            return figures.revenue_minor
        case Metric.SUCCESS_RATE:
            return round(figures.completed / ended(figures), 6) if ended(figures) else None
        case Metric.LATENCY:
            done = figures.completed
            return round(figures.latency_ms / done, 1) if done else None


def percentile(latencies: tuple[int, ...], percent: int) -> int | None:
    """The bound of the bucket in which it lies; None: there are none, or it is beyond the last."""
    rank, seen = -(-sum(latencies) * percent // 100), 0
    for bound, count in zip(BUCKETS_MS, latencies, strict=False):
        seen += count
        if rank and seen >= rank:
            return bound
    return None


async def behaviour(call: Call) -> Answer:
    """All that a user ever ordered."""
    user_id = call.names["user_id"]
    row = await call.gateway.queries.row("analytics", user_id, behaviour_key(user_id))
    if row is None:
        raise not_found("this user has ordered nothing that ended")
    totals = [
        {"type": kind, "currency": currency, **_totals(of_row(figures))}
        for name, figures in sorted(row["figures"].items())
        for kind, _, currency in [name.partition("/")]
    ]
    return answer(
        {
            "user_id": user_id,
            "first_at": views.time_of(row["first_ms"]),
            "last_at": views.time_of(row["last_ms"]),
            "hours": [{"hour": hour, "count": n} for hour, n in enumerate(row["hours"])],
            "totals": totals,
        }
    )


def _totals(figures: Figures) -> dict[str, Any]:
    done = figures.completed
    return {
        **counts(figures),
        "volume": figures.volume_minor,
        "revenue": figures.revenue_minor,
        "mean_amount": figures.volume_minor // done if done else None,
        "success_rate": value_of(Metric.SUCCESS_RATE, figures),
    }


# -- live -----------------------------------------------------------------------------------------


class Live:
    """The last minutes, asked for once a second for all who watch; nobody watches: not at all."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self.now = Looks(self._look, LIVE_S).now

    async def _look(self) -> bytes:
        """JSON."""
        now_ms = time.time_ns() // 1_000_000
        to_ms = start_of(now_ms, Interval.MINUTE) + LENGTH_MS[Interval.MINUTE]
        from_ms = to_ms - LIVE_MINUTES * LENGTH_MS[Interval.MINUTE]
        rows = await windows(self._queries, Interval.MINUTE, from_ms, to_ms)
        starts = range(from_ms, to_ms, LENGTH_MS[Interval.MINUTE])
        minutes = [_minute(start, [r for r in rows if r["start_ms"] == start]) for start in starts]
        return orjson.dumps({"minutes": minutes})


def _minute(start_ms: int, rows: list[Row]) -> dict[str, Any]:
    total, money = NOTHING, dict[str, Figures]()
    for name, figures in _figures(rows):
        total = added(total, figures)
        currency = name.partition("/")[2]
        money[currency] = added(money.get(currency, NOTHING), figures)
    return {
        "start": views.time_of(start_ms),
        **counts(total),
        "success_rate": value_of(Metric.SUCCESS_RATE, total),
        "volume": {currency: one.volume_minor for currency, one in sorted(money.items())},
        "revenue": {currency: one.revenue_minor for currency, one in sorted(money.items())},
        "p50_ms": percentile(total.latencies, 50),
        "p95_ms": percentile(total.latencies, 95),
        "p99_ms": percentile(total.latencies, 99),
        "latencies": total.latencies,
        "reasons": total.reasons,
    }


def _figures(rows: list[Row]) -> Iterator[tuple[str, Figures]]:
    for row in rows:
        for name, figures in row["figures"].items():
            yield name, of_row(figures)


async def stream(call: Call, request: web.Request) -> web.StreamResponse:
    """Server-sent events: the last five minutes, at once and whenever they change."""
    first = await call.gateway.live.now()
    headers = {**call.headers, "Content-Type": "text/event-stream"}
    response = web.StreamResponse(headers=headers)
    with suppress(ConnectionResetError):  # the client went away
        await response.prepare(request)
        await _follow(call, response, first)
    return response


async def _follow(call: Call, response: web.StreamResponse, first: bytes) -> None:
    said, said_s, now = b"", 0.0, first
    while await call.may_go_on():
        if now != said:
            said, said_s = now, time.monotonic()
            await response.write(b"event: minutes\ndata: %b\n\n" % now)
        elif time.monotonic() - said_s > HEARTBEAT_S:
            said_s = time.monotonic()
            await response.write(b": still there\n\n")
        await asyncio.sleep(LIVE_S)
        with suppress(Problem):  # a partition is moving: look again
            now = await call.gateway.live.now()
