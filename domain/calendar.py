"""The business calendar: on which days money is settled between banks, and when such a day ends.

The days are TARGET's, the Eurosystem's: Monday to Friday, save six holidays a year (ECB, "TARGET
calendar"). A business day ends at CUT_OFF_HOUR by the bank's clock; what comes later, or on a day
that is none, belongs to the next.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from domain.bank_day import HOUR_MS, bank_day, bank_time_ms, day_start_ms

CUT_OFF_HOUR = 18
EPOCH = date(1970, 1, 1)


def easter(year: int) -> date:
    """Easter Sunday of the Gregorian calendar (Meeus, Astronomical Algorithms, chapter 8)."""
    a, b, c = year % 19, year // 100, year % 100
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    weekday = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7
    m = (a + 11 * h + 22 * weekday) // 451
    month, day = divmod(h + weekday - 7 * m + 114, 31)
    return date(year, month, day + 1)


@lru_cache(maxsize=32)
def holidays(year: int) -> frozenset[date]:
    """The days from Monday to Friday on which TARGET rests, and those that fall on a weekend."""
    sunday = easter(year)
    return frozenset(
        {
            date(year, 1, 1),
            sunday - timedelta(days=2),
            sunday + timedelta(days=1),
            date(year, 5, 1),
            date(year, 12, 25),
            date(year, 12, 26),
        }
    )


def is_business_day(day: date) -> bool:
    return day.weekday() < 5 and day not in holidays(day.year)


def next_business_day(day: date) -> date:
    """The first business day after this one."""
    day += timedelta(days=1)
    while not is_business_day(day):
        day += timedelta(days=1)
    return day


def day_of(at_ms: int) -> date:
    """The day, business or not, that the bank's clock shows at a time (Unix ms)."""
    return EPOCH + timedelta(days=bank_day(at_ms))


def business_day(at_ms: int) -> date:
    """The business day that a time (Unix ms) belongs to."""
    there = datetime.fromtimestamp(bank_time_ms(at_ms) // 1000, UTC)
    day = there.date()
    if is_business_day(day) and there.hour < CUT_OFF_HOUR:
        return day
    return next_business_day(day)


def ends_ms(day: date) -> int:
    """When a business day ends, Unix milliseconds."""
    # the clock changes on Sundays, which are none: such a day has its hours
    return day_start_ms((day - EPOCH).days) + CUT_OFF_HOUR * HOUR_MS
