"""Cron expressions: when something recurs, by the bank's clock.

Five fields (minute, hour, day of month, month, day of week) as cron has them. The hour that the
clock skips in March runs at the next one there is; the hour that it shows twice in October, once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from domain.bank_day import HOUR_MS, bank_time_ms

MINUTE_MS = 60 * 1000
LENGTH_LIMIT = 100  # characters


def is_cron(expression: str) -> bool:
    """True for an expression of five fields that has a next time."""
    if len(expression) > LENGTH_LIMIT or len(expression.split()) != 5:
        return False
    try:
        next(CronSim(expression, datetime(2026, 1, 1)))  # noqa: DTZ001 - the bank's clock
    except (CronSimError, StopIteration):
        return False
    return True


def next_ms(expression: str, after_ms: int) -> int:
    """The first time (Unix ms) behind `after_ms` at which it is due; the expression `is_cron`."""
    shown = datetime.fromtimestamp(bank_time_ms(after_ms) // 1000, UTC).replace(tzinfo=None)
    for local in CronSim(expression, shown - timedelta(hours=2)):
        at_ms = _time_ms(local)
        if at_ms > after_ms:
            return at_ms
    raise AssertionError(f"{expression!r} has no next time")


def _time_ms(local: datetime) -> int:
    """When the bank's clock shows this first; what it never shows is an hour later."""
    shown_ms = int(local.replace(tzinfo=UTC).timestamp()) * 1000
    for offset_ms in (2 * HOUR_MS, HOUR_MS):
        if bank_time_ms(shown_ms - offset_ms) == shown_ms:
            return shown_ms - offset_ms
    return shown_ms - HOUR_MS
