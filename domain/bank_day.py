"""The bank's day: what "a day" means where limits are by day.

The bank lives by Central European Time. Its clock changes are a table, made from the rule of EU
directive 2000/84/EC (last Sundays of March and October, 01:00 UTC), so that a replay years later
finds the same days whatever the machine's time zone data says.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS
FIRST_YEAR, LAST_YEAR = 2020, 2100


def _last_sunday_ms(year: int, month: int) -> int:
    """01:00 UTC of the last Sunday of a month of 31 days, Unix milliseconds."""
    last = datetime(year, month, 31, 1, tzinfo=UTC)
    sunday = last - timedelta(days=(last.weekday() + 1) % 7)
    return int(sunday.timestamp()) * 1000


# summer time begins at even places, ends at odd ones
CHANGES_MS: tuple[int, ...] = tuple(
    _last_sunday_ms(year, month) for year in range(FIRST_YEAR, LAST_YEAR) for month in (3, 10)
)


def bank_time_ms(at_ms: int) -> int:
    """What the bank's clock shows at a time, as milliseconds since 1970-01-01 00:00 on that clock."""
    summer = bisect_right(CHANGES_MS, at_ms) % 2
    return at_ms + HOUR_MS * (1 + summer)


def bank_day(at_ms: int) -> int:
    """The bank's day of a time, in days since 1970-01-01."""
    return bank_time_ms(at_ms) // DAY_MS


def bank_hour(at_ms: int) -> int:
    """The hour on the bank's clock, 0 … 23."""
    return bank_time_ms(at_ms) % DAY_MS // HOUR_MS


def day_start_ms(day: int) -> int:
    """The first millisecond of one of the bank's days. The clock changes on no midnight."""
    winter_ms = day * DAY_MS - HOUR_MS
    return winter_ms if bank_day(winter_ms - HOUR_MS) < day else winter_ms - HOUR_MS
