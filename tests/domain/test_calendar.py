"""Business days: weekends, TARGET's holidays, the cut-off by the bank's clock."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from domain.calendar import (
    business_day,
    day_of,
    easter,
    ends_ms,
    is_business_day,
    next_business_day,
)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("year", "day"),
    [(2024, "2024-03-31"), (2025, "2025-04-20"), (2026, "2026-04-05"), (2038, "2038-04-25")],
)
def test_easter(year: int, day: str) -> None:
    assert easter(year).isoformat() == day


@pytest.mark.parametrize(
    "day", ["2026-01-01", "2026-04-03", "2026-04-06", "2026-05-01", "2026-12-25", "2026-11-28"]
)
def test_days_of_rest(day: str) -> None:
    assert not is_business_day(date.fromisoformat(day))


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2026-11-28T22:59:59", "2026-11-28"),
        ("2026-11-28T23:00:00", "2026-11-29"),  # midnight in winter
        ("2026-07-01T22:00:00", "2026-07-02"),  # and in summer
    ],
)
def test_the_day_of_a_time(at: str, day: str) -> None:
    assert day_of(ms(at)).isoformat() == day


def test_the_next_business_day_is_behind_a_long_weekend() -> None:
    assert next_business_day(date(2026, 4, 2)) == date(2026, 4, 7)


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2026-11-26T10:00:00", "2026-11-26"),
        ("2026-11-26T16:59:59", "2026-11-26"),  # 17:59 in winter
        ("2026-11-26T17:00:00", "2026-11-27"),
        ("2026-07-01T15:59:59", "2026-07-01"),  # 17:59 in summer
        ("2026-07-01T16:00:00", "2026-07-02"),
        ("2026-11-27T18:00:00", "2026-11-30"),  # a Friday evening
        ("2026-11-28T09:00:00", "2026-11-30"),
    ],
)
def test_the_business_day_of_a_time(at: str, day: str) -> None:
    assert business_day(ms(at)).isoformat() == day


@pytest.mark.parametrize("day", ["2026-11-26", "2026-07-01", "2026-03-30", "2026-10-26"])
def test_a_day_ends_when_the_next_begins(day: str) -> None:
    it = date.fromisoformat(day)
    assert business_day(ends_ms(it) - 1) == it
    assert business_day(ends_ms(it)) > it
