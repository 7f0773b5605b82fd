"""Analytics: what ended, when, for how much: counted in windows of event time, row by row.

    final facts --agents/observe.py--> PointsRead --> PointsCounted --> window/…, behaviour/…

A point counts in the minute, hour and day (UTC) of its own time, the broker's time of the fact, never
in that of its arrival. A window stays open for GRACE_MS past its end, by the latest point of its
partition; a later point still corrects the window that it belongs to, and is counted as late there.
Minutes leave after KEEP_MINUTES_MS: from then on a late point corrects the hour and the day alone.
Each partition counts its own points; a report sums the partitions.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum
from operator import add
from typing import TYPE_CHECKING, TypeAlias, assert_never, get_args

from domain.decider import (
    DUE,
    Changes,
    Decider,
    Due,
    Overlay,
    RowKey,
    Rows,
    Tick,
    due_row,
    due_subject,
    overdue,
    tick_keys,
)
from domain.money import LONG_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
GRACE_MS = 60_000
KEEP_MINUTES_MS = 2 * DAY_MS
KEEP_USERS_MS = 90 * DAY_MS  # a user's days; hours and days of all stay
SWEEP = "sweep"  # the kind of the due row at whose time a window leaves
# upper bounds of latencies, ms; one bucket more for what took longer. Never changed: they are in rows
BUCKETS_MS = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000)


class Interval(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


LENGTH_MS = {Interval.MINUTE: MINUTE_MS, Interval.HOUR: HOUR_MS, Interval.DAY: DAY_MS}


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One transaction that ended. Amounts in minor units, latency from its creation to its end."""

    offset: int  # of its fact in the source partition
    at_ms: int
    outcome: str
    type: str
    currency: str
    user_id: str
    amount_minor: int
    fee_minor: int
    latency_ms: int
    reason: str | None = None  # why it failed


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsRead:
    """What one transaction of the reader saw in one partition of `transaction.events`, for this one."""

    source: int  # the partition read
    partition: int  # the one that counts them
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is counted; sums of it are sums of points."""

    completed: int
    failed: int
    cancelled: int
    volume_minor: int  # of what completed
    revenue_minor: int  # fees of what completed
    latency_ms: int  # sum, of what completed
    latencies: tuple[int, ...]  # of what completed, by BUCKETS_MS
    late: int  # points that came after their window had closed
    reasons: dict[str, int] = field(default_factory=dict)  # of what failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What points add to one minute, type and currency."""

    minute_ms: int
    type: str
    currency: str
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCell:
    """What points add to one user's hour, by type and currency."""

    user_id: str
    hour_ms: int
    last_ms: int  # of the latest of the points
    type: str
    currency: str
    figures: Figures
    first_ms: int | None = None  # of the earliest; None: it was counted before that was kept


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsCounted:
    """Points were counted, up to `offset` of the source partition."""

    source: int
    partition: int
    offset: int
    latest_ms: int  # of all points that this partition has counted
    cells: tuple[Cell, ...]
    users: tuple[UserCell, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsForgotten:
    """Windows left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Row `counted/<source>`: up to which offset of the source its points are counted here."""

    source: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Row `clock/<partition>`: the latest point so far, by which windows close."""

    latest_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Row `window/<interval>/<start_ms>/<partition>`: this partition's share, by `type/currency`."""

    interval: Interval
    start_ms: int
    figures: dict[str, Figures]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDay:
    """Row `user-day/<start_ms>/<user_id>`: a user's day, by `type/currency`."""

    user_id: str
    start_ms: int
    figures: dict[str, Figures]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Row `behaviour/<user_id>`: all that a user ever ordered, by `type/currency`, and when."""

    user_id: str
    figures: dict[str, Figures]
    hours: tuple[int, ...]  # transactions by hour of the day, UTC
    first_ms: int
    last_ms: int
    version: int


Message: TypeAlias = PointsRead | Tick
Event: TypeAlias = PointsCounted | WindowsForgotten

NOTHING = Figures(
    completed=0,
    failed=0,
    cancelled=0,
    volume_minor=0,
    revenue_minor=0,
    latency_ms=0,
    latencies=(0,) * (len(BUCKETS_MS) + 1),
    late=0,
)


def figures_of(point: Point, late: bool) -> Figures:
    """One point as figures."""
    done = point.outcome == Outcome.COMPLETED
    bucket = bisect_left(BUCKETS_MS, point.latency_ms) if done else -1
    return Figures(
        completed=int(done),
        failed=int(point.outcome == Outcome.FAILED),
        cancelled=int(point.outcome == Outcome.CANCELLED),
        volume_minor=point.amount_minor if done else 0,
        revenue_minor=point.fee_minor if done else 0,
        latency_ms=point.latency_ms if done else 0,
        latencies=tuple(int(n == bucket) for n in range(len(BUCKETS_MS) + 1)),
        late=int(late),
        reasons={} if point.reason is None else {point.reason: 1},
    )


def added(a: Figures, b: Figures) -> Figures:
    """Both together."""
    return Figures(
        completed=a.completed + b.completed,
        failed=a.failed + b.failed,
        cancelled=a.cancelled + b.cancelled,
        volume_minor=_fitting(a.volume_minor + b.volume_minor),
        revenue_minor=_fitting(a.revenue_minor + b.revenue_minor),
        latency_ms=a.latency_ms + b.latency_ms,
        latencies=tuple(map(add, a.latencies, b.latencies)),
        late=a.late + b.late,
        reasons=_summed(a.reasons, b.reasons),
    )


def _fitting(minor: int) -> int:
    """What 64 bits hold of it: a figure that is at its end stays there, and others go on."""
    return max(-LONG_MAX, min(minor, LONG_MAX))


def _summed(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    """Few transactions fail: mostly there is nothing to sum."""
    if not b:
        return a
    return {reason: a.get(reason, 0) + b.get(reason, 0) for reason in a | b}


def start_of(at_ms: int, interval: Interval) -> int:
    """When the window began that a time falls in, UTC."""
    return at_ms - at_ms % LENGTH_MS[interval]


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case PointsRead():
            return _count(rows, message, at_ms)
        case Tick():
            due = overdue(rows, message, SWEEP, at_ms)
            return (WindowsForgotten(due=due, at_ms=at_ms),) if due else ()
        case _:
            assert_never(message)


def _count(rows: Rows, message: PointsRead, at_ms: int) -> Sequence[Event]:
    """Points that were counted before, for the source was read again, count no more."""
    counted: Counted | None = rows.get(counted_key(message.source))
    known = -1 if counted is None else counted.offset
    points = [point for point in message.points if point.offset > known]
    if not points:
        return ()
    clock: Clock | None = rows.get(clock_key(message.partition))
    latest_ms = 0 if clock is None else clock.latest_ms
    cells: dict[tuple[int, str, str], Figures] = {}
    users: dict[tuple[str, int, str, str], tuple[int, int, Figures]] = {}
    for point in points:
        minute_ms = start_of(point.at_ms, Interval.MINUTE)
        figures = figures_of(point, latest_ms >= minute_ms + MINUTE_MS + GRACE_MS)
        latest_ms = max(latest_ms, point.at_ms)
        cell = (minute_ms, point.type, point.currency)
        cells[cell] = added(cells.get(cell, NOTHING), figures)
        hour_ms = start_of(point.at_ms, Interval.HOUR)
        user = (point.user_id, hour_ms, point.type, point.currency)
        first_ms, last_ms, before = users.get(user, (point.at_ms, point.at_ms, NOTHING))
        between = min(first_ms, point.at_ms), max(last_ms, point.at_ms)
        users[user] = (*between, added(before, figures))
    return (
        PointsCounted(
            source=message.source,
            partition=message.partition,
            offset=points[-1].offset,
            latest_ms=latest_ms,
            cells=tuple(
                Cell(minute_ms=minute_ms, type=kind, currency=currency, figures=figures)
                for (minute_ms, kind, currency), figures in cells.items()
            ),
            users=tuple(
                UserCell(
                    user_id=user_id,
                    hour_ms=hour_ms,
                    last_ms=last_ms,
                    type=kind,
                    currency=currency,
                    figures=figures,
                    first_ms=first_ms,
                )
                for (user_id, hour_ms, kind, currency), (first_ms, last_ms, figures) in (
                    users.items()
                )
            ),
            at_ms=at_ms,
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case PointsCounted():
            changes: dict[RowKey, object] = {
                counted_key(event.source): Counted(source=event.source, offset=event.offset),
                clock_key(event.partition): Clock(latest_ms=event.latest_ms),
            }
            now = Overlay(rows)
            for cell in event.cells:
                now.changes.update(_windows(now, event, cell))
            for user in event.users:
                now.changes.update(_user(now, user, event.at_ms))
            return changes | now.changes
        case WindowsForgotten():
            return {gone: None for key in event.due for gone in (key, due_subject(key))}
        case _:
            assert_never(event)


def _windows(rows: Rows, event: PointsCounted, cell: Cell) -> Changes:
    """The windows that a cell falls in, with it; a minute whose time is over is not made again."""
    changes: dict[RowKey, Window | Due] = {}
    for interval in Interval:
        start_ms = start_of(cell.minute_ms, interval)
        leaves_ms = start_ms + MINUTE_MS + KEEP_MINUTES_MS
        if interval is Interval.MINUTE and leaves_ms <= event.at_ms:
            continue
        key = window_key(interval, start_ms, event.partition)
        row: Window | None = rows.get(key)
        if row is None and interval is Interval.MINUTE:
            changes.update([due_row(leaves_ms, SWEEP, key)])
        changes[key] = Window(
            interval=interval,
            start_ms=start_ms,
            figures=_grown(row.figures if row else {}, cell),
            version=row.version + 1 if row else 1,
        )
    return changes


def _user(rows: Rows, cell: UserCell, at_ms: int) -> Changes:
    day_ms = start_of(cell.hour_ms, Interval.DAY)
    key, leaves_ms = user_day_key(day_ms, cell.user_id), day_ms + DAY_MS + KEEP_USERS_MS
    changes: dict[RowKey, UserDay | Behaviour | Due] = {}
    if leaves_ms > at_ms:
        row: UserDay | None = rows.get(key)
        if row is None:
            changes.update([due_row(leaves_ms, SWEEP, key)])
        changes[key] = UserDay(
            user_id=cell.user_id,
            start_ms=day_ms,
            figures=_grown(row.figures if row else {}, cell),
            version=row.version + 1 if row else 1,
        )
    known: Behaviour | None = rows.get(behaviour_key(cell.user_id))
    hour, count = cell.hour_ms % DAY_MS // HOUR_MS, ended(cell.figures)
    hours = known.hours if known else (0,) * 24
    first_ms = cell.hour_ms if cell.first_ms is None else cell.first_ms
    changes[behaviour_key(cell.user_id)] = Behaviour(
        user_id=cell.user_id,
        figures=_grown(known.figures if known else {}, cell),
        hours=tuple(n + count if at == hour else n for at, n in enumerate(hours)),
        first_ms=min(known.first_ms, first_ms) if known else first_ms,
        last_ms=max(known.last_ms, cell.last_ms) if known else cell.last_ms,
        version=known.version + 1 if known else 1,
    )
    return changes


def _grown(figures: dict[str, Figures], cell: Cell | UserCell) -> dict[str, Figures]:
    name = f"{cell.type}/{cell.currency}"
    return {**figures, name: added(figures.get(name, NOTHING), cell.figures)}


def ended(figures: Figures) -> int:
    """How many transactions ended, one way or another."""
    return figures.completed + figures.failed + figures.cancelled


def window_key(interval: Interval, start_ms: int, partition: int) -> RowKey:
    return f"window/{interval}/{start_ms:013d}/{partition}"


def user_day_key(start_ms: int, user_id: str) -> RowKey:
    return f"user-day/{start_ms:013d}/{user_id}"


def behaviour_key(user_id: str) -> RowKey:
    return f"behaviour/{user_id}"


def counted_key(source: int) -> RowKey:
    return f"counted/{source}"


def clock_key(partition: int) -> RowKey:
    return f"clock/{partition}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case PointsRead():
            return (counted_key(message.source), clock_key(message.partition))
        case PointsCounted():
            return tuple(_written(message))
        case Tick():
            return tick_keys(message)
        case WindowsForgotten():
            return message.due
        case _:
            assert_never(message)


def _written(event: PointsCounted) -> Iterator[RowKey]:
    for cell in event.cells:
        for interval in Interval:
            yield window_key(interval, start_of(cell.minute_ms, interval), event.partition)
    for user in event.users:
        yield user_day_key(start_of(user.hour_ms, Interval.DAY), user.user_id)
        yield behaviour_key(user.user_id)


def aggregate_id(event: Event) -> str:
    match event:
        case PointsCounted():
            return f"points-{event.source}"
        case WindowsForgotten():
            return event.due[0]
        case _:
            assert_never(event)


ANALYTICS = Decider(
    service="analytics",
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Counted, Clock, Window, UserDay, Behaviour, Due),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, "window/", "user-day/"),
)
