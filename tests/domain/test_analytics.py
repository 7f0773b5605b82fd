"""Analytics: windows of event time, late points, and what leaves when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from domain.analytics import (
    ANALYTICS,
    BUCKETS_MS,
    DAY_MS,
    GRACE_MS,
    HOUR_MS,
    KEEP_MINUTES_MS,
    KEEP_USERS_MS,
    MINUTE_MS,
    NOTHING,
    Behaviour,
    Interval,
    Point,
    PointsCounted,
    PointsRead,
    UserDay,
    Window,
    added,
    behaviour_key,
    figures_of,
    start_of,
    user_day_key,
    window_key,
)
from domain.decider import DUE, Overlay, Tick, apply
from domain.money import LONG_MAX
from schemas.codec import Codec
from tests.domain.stories import NOON_MS, then

NOON = start_of(NOON_MS, Interval.DAY) + 12 * HOUR_MS


def point(offset: int = 0, at_ms: int = NOON, **changes: Any) -> Point:
    fields: dict[str, Any] = {
        "offset": offset,
        "at_ms": at_ms,
        "outcome": "completed",
        "type": "transfer",
        "currency": "USD",
        "user_id": "u-ada",
        "amount_minor": 2_000,
        "fee_minor": 3,
        "latency_ms": 60,
        **changes,
    }
    return Point(**fields)


def read(*points: Point, source: int = 0, partition: int = 1) -> PointsRead:
    return PointsRead(source=source, partition=partition, points=points)


def counted(*messages: PointsRead, at_ms: int = NOON) -> list[Any]:
    said: list[Any] = []
    for message in messages:
        said += then(ANALYTICS, said, message, at_ms)
    return said


def rows(said: list[Any]) -> Overlay:
    found = Overlay({})
    apply(ANALYTICS, found, said)
    return found


def window(said: list[Any], interval: Interval, start_ms: int) -> Any:
    row: Window | None = rows(said).get(window_key(interval, start_ms, 1))
    return None if row is None else row.figures


def test_a_point_counts_in_the_minute_the_hour_and_the_day_of_its_own_time() -> None:
    late_at_night = NOON + 11 * HOUR_MS + 59 * MINUTE_MS + 30_000
    said = counted(read(point(at_ms=late_at_night)), at_ms=NOON + DAY_MS)
    expected = {"transfer/USD": figures_of(point(), False)}
    assert window(said, Interval.MINUTE, late_at_night - 30_000) == expected
    assert window(said, Interval.HOUR, NOON + 11 * HOUR_MS) == expected
    assert window(said, Interval.DAY, NOON - 12 * HOUR_MS) == expected
    assert window(said, Interval.DAY, NOON + 12 * HOUR_MS) is None


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        ("completed", (1, 0, 0, 2_000, 3, 60)),
        ("failed", (0, 1, 0, 0, 0, 0)),
        ("cancelled", (0, 0, 1, 0, 0, 0)),
    ],
)
def test_what_each_outcome_counts(outcome: str, counts: tuple[int, ...]) -> None:
    one = figures_of(point(outcome=outcome), False)
    assert (
        one.completed,
        one.failed,
        one.cancelled,
        one.volume_minor,
        one.revenue_minor,
        one.latency_ms,
    ) == counts
    assert sum(one.latencies) == one.completed


@pytest.mark.parametrize(
    ("latency_ms", "bucket"), [(0, 0), (5, 0), (6, 1), (600_000, 13), (600_001, 14), (10**9, 14)]
)
def test_a_latency_falls_in_the_bucket_that_it_does_not_exceed(
    latency_ms: int, bucket: int
) -> None:
    latencies = figures_of(point(latency_ms=latency_ms), False).latencies
    assert [n for n, count in enumerate(latencies) if count] == [bucket]
    assert len(latencies) == len(BUCKETS_MS) + 1


def test_types_and_currencies_are_kept_apart_and_the_same_together() -> None:
    said = counted(
        read(point(0), point(1, currency="EUR"), point(2), point(3, type="deposit")),
    )
    found = window(said, Interval.MINUTE, NOON)
    assert {name: figures.completed for name, figures in found.items()} == {
        "transfer/USD": 2,
        "transfer/EUR": 1,
        "deposit/USD": 1,
    }
    assert found["transfer/USD"].volume_minor == 4_000


def test_failures_are_counted_by_their_reason() -> None:
    def failed(offset: int, reason: str) -> Point:
        return point(offset, outcome="failed", reason=reason)

    said = counted(
        read(point(0), failed(1, "DAILY_LIMIT"), failed(2, "BLACKLISTED"), failed(3, "DAILY_LIMIT"))
    )
    for interval in Interval:
        figures = window(said, interval, start_of(NOON, interval))["transfer/USD"]
        assert figures.reasons == {"DAILY_LIMIT": 2, "BLACKLISTED": 1}
        assert figures.failed == 3


@pytest.mark.parametrize(
    ("behind_ms", "late"),
    [(0, 0), (MINUTE_MS + GRACE_MS - 1, 0), (MINUTE_MS + GRACE_MS, 1), (DAY_MS, 1)],
)
def test_a_late_point_corrects_its_window_and_is_counted_there(behind_ms: int, late: int) -> None:
    """Its minute began at NOON; the partition had seen what was `behind_ms` later."""
    first = counted(read(point(0, NOON + behind_ms)))
    said = first + then(ANALYTICS, first, read(point(1, NOON)), NOON + behind_ms)
    (found,) = window(said, Interval.MINUTE, NOON).values()
    assert found.completed == 1 + (behind_ms == 0)
    assert found.late == late


def test_points_that_were_read_twice_count_once() -> None:
    first = counted(read(point(4), point(7)))
    assert then(ANALYTICS, first, read(point(4), point(7))) == []
    (more,) = then(ANALYTICS, first, read(point(7), point(9)))
    assert (more.offset, more.cells[0].figures.completed) == (9, 1)
    other = then(ANALYTICS, first, read(point(4), source=2))
    assert len(other) == 1, "offsets are those of a source partition"


def test_a_minute_leaves_in_its_time_and_is_not_made_again() -> None:
    said = counted(read(point()))
    leaves_ms = NOON + MINUTE_MS + KEEP_MINUTES_MS
    due = tuple(key for key in rows(said) if key.startswith(DUE))
    assert then(ANALYTICS, said, Tick(due=due), leaves_ms - 1) == []
    said += then(ANALYTICS, said, Tick(due=due), leaves_ms)
    assert window(said, Interval.MINUTE, NOON) is None
    assert window(said, Interval.HOUR, NOON)["transfer/USD"].completed == 1
    said += then(ANALYTICS, said, read(point(1)), leaves_ms)
    assert window(said, Interval.MINUTE, NOON) is None
    assert window(said, Interval.HOUR, NOON)["transfer/USD"].completed == 2
    assert window(said, Interval.DAY, NOON - 12 * HOUR_MS)["transfer/USD"].completed == 2


def test_a_users_day_and_behaviour() -> None:
    said = counted(
        read(
            point(0, user_id="u-bob"),
            point(1, NOON + 5),
            point(2, NOON + HOUR_MS, outcome="failed"),
            point(3, NOON + DAY_MS),
        ),
        at_ms=NOON + DAY_MS,
    )
    found = rows(said)
    today: UserDay = found[user_day_key(NOON - 12 * HOUR_MS, "u-ada")]
    assert (today.figures["transfer/USD"].completed, today.figures["transfer/USD"].failed) == (1, 1)
    ada: Behaviour = found[behaviour_key("u-ada")]
    assert (ada.hours[12], ada.hours[13], sum(ada.hours)) == (2, 1, 3)
    assert (ada.first_ms, ada.last_ms) == (NOON + 5, NOON + DAY_MS)
    assert found[behaviour_key("u-bob")].figures["transfer/USD"].volume_minor == 2_000
    due = tuple(key for key in found if "user-day" in key)
    gone = said + then(ANALYTICS, said, Tick(due=due), NOON + 3 * DAY_MS + KEEP_USERS_MS)
    assert not [key for key in rows(gone) if "user-day/" in key]
    assert behaviour_key("u-ada") in rows(gone)


def test_a_behaviour_begins_with_its_earliest_point_whatever_comes_when() -> None:
    said = counted(read(point(0, NOON + 7), point(1, NOON + 5), point(2, NOON + HOUR_MS)))
    assert rows(said)[behaviour_key("u-ada")].first_ms == NOON + 5
    said += then(ANALYTICS, said, read(point(3, NOON - 3)))
    assert rows(said)[behaviour_key("u-ada")].first_ms == NOON - 3


def test_what_was_counted_when_first_times_were_not_kept_began_with_its_hour() -> None:
    (old,) = counted(read(point(0, NOON + 7)))
    old = replace(old, users=tuple(replace(user, first_ms=None) for user in old.users))
    said = [old, *then(ANALYTICS, [old], read(point(1, NOON + HOUR_MS)))]
    assert rows(said)[behaviour_key("u-ada")].first_ms == NOON


POINTS = st.builds(
    point,
    at_ms=st.integers(NOON - 2 * DAY_MS, NOON),
    outcome=st.sampled_from(["completed", "failed", "cancelled"]),
    type=st.sampled_from(["transfer", "deposit"]),
    currency=st.sampled_from(["USD", "EUR"]),
    user_id=st.sampled_from(["u-ada", "u-bob"]),
    amount_minor=st.integers(1, 10**15),
    fee_minor=st.integers(0, 10**6),
    latency_ms=st.integers(0, 10**6),
)


@drawn(st.lists(POINTS, min_size=1, max_size=30), st.integers(1, 7))
def test_whatever_the_order_and_the_batches_windows_sum_to_their_points(
    points: list[Point], size: int
) -> None:
    points = [replace(one, offset=n) for n, one in enumerate(points)]
    said = counted(*(read(*points[at : at + size]) for at in range(0, len(points), size)))
    assert all(isinstance(event, PointsCounted) for event in said)
    for interval in Interval:
        found = {
            (row.start_ms, name): replace(figures, late=0)
            for key, row in rows(said).items()
            if key.startswith(f"window/{interval}/")
            for name, figures in row.figures.items()
        }
        expected: dict[tuple[int, str], Any] = {}
        for one in points:
            start_ms = start_of(one.at_ms, interval)
            if interval is Interval.MINUTE and start_ms + MINUTE_MS + KEEP_MINUTES_MS <= NOON:
                continue
            key = (start_ms, f"{one.type}/{one.currency}")
            expected[key] = added(expected.get(key, NOTHING), figures_of(one, False))
        assert found == expected


def test_a_volume_that_64_bits_do_not_hold_stays_at_their_end_and_counting_goes_on() -> None:
    much = replace(NOTHING, completed=1, volume_minor=10**18, revenue_minor=-(10**18))
    figures = NOTHING
    for _ in range(20):
        figures = added(figures, much)
    assert (figures.completed, figures.volume_minor) == (20, LONG_MAX)
    assert figures.revenue_minor == -LONG_MAX
    assert Codec().decode(Codec().encode(figures)) == figures
