"""Where to travel: a time, or an offset of each partition's event topic."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from travel.errors import BadMoment

if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = 253_370_764_800_000  # the year 9999 begins: what is counted from it stays a time
RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
OFFSETS = re.compile(r"\d{1,9}:\d{1,18}(,\d{1,9}:\d{1,18})*", re.ASCII)


def moment(text: str) -> int:
    """A time of RFC 3339 as Unix milliseconds, rounded down. Raises BadMoment.

    Nothing was before 1970 or is after LAST_MS: such a time is the nearest one between. A negative
    one would be an order to Kafka (-1: the end of a log), not a time.
    """
    if RFC_3339.fullmatch(text):
        # Python reads microseconds at most
        plain = re.sub(r"(\.\d{6})\d+", r"\1", text.upper())
        try:
            at = datetime.fromisoformat(plain)
        except ValueError:
            pass
        else:
            return min(max((at - EPOCH) // timedelta(milliseconds=1), 0), LAST_MS)
    raise BadMoment(f"{text[:60]!r} is no time as RFC 3339 has it, such as 2026-03-01T12:00:00Z")


def past(text: str, now_ms: int) -> int:
    """The same, of a time that is over. Raises BadMoment."""
    at_ms = moment(text)
    if at_ms > now_ms:
        raise BadMoment(f"{text[:60]} is in the future")
    return at_ms


def place(text: str) -> int | Mapping[int, int]:
    """A time in Unix milliseconds, or offsets by partition from `0:120,2:96`. Raises BadMoment."""
    if OFFSETS.fullmatch(text):
        pairs = [pair.split(":") for pair in text.split(",")]
        return {int(partition): int(offset) for partition, offset in pairs}
    try:
        return moment(text)
    except BadMoment as exc:
        raise BadMoment(f"{exc}, nor offsets, such as 0:120,2:96") from exc
