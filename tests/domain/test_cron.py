"""Cron by the bank's clock: the hour that is skipped, the hour that comes twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from domain.cron import is_cron, next_ms


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def times(expression: str, after: str, count: int) -> list[str]:
    at_ms, found = ms(after), []
    for _ in range(count):
        at_ms = next_ms(expression, at_ms)
        found.append(datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()[:16])
    return found


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 6 * * *", "2026-11-26T04:59:59", ["2026-11-26T05:00", "2026-11-27T05:00"]),
        ("0 6 * * *", "2026-11-26T05:00:00", ["2026-11-27T05:00", "2026-11-28T05:00"]),
        ("0 6 * * *", "2026-03-28T06:00:00", ["2026-03-29T04:00", "2026-03-30T04:00"]),
        ("30 2 * * *", "2026-03-28T02:00:00", ["2026-03-29T01:30", "2026-03-30T00:30"]),  # skipped
        ("30 2 * * *", "2026-10-24T12:00:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),  # twice
        ("0 8 1 * *", "2026-11-26T00:00:00", ["2026-12-01T07:00", "2027-01-01T07:00"]),
        ("0 7 * * 1", "2026-11-26T00:00:00", ["2026-11-30T06:00", "2026-12-07T06:00"]),
    ],
)
def test_next_times(expression: str, after: str, expected: list[str]) -> None:
    assert times(expression, after, 2) == expected


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "61 * * * *", "0 0 31 2 *", "0 0 * * * *", "x * * * *", "*/5 " * 30, "@daily"],
)
def test_what_is_none(expression: str) -> None:
    assert not is_cron(expression)


def test_each_minute_has_the_next() -> None:
    at_ms = ms("2026-10-24T23:58:00")
    for _ in range(300):
        following = next_ms("* * * * *", at_ms)
        assert following > at_ms
        at_ms = following
