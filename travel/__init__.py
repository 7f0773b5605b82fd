"""Time travel: any row, or a whole service, as it was; and SQL over the tables, now or then.

from travel import query
query("SELECT status, count(*) FROM transactions GROUP BY status").dicts()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from travel.sql import Result


def query(sql: str, at: str | None = None, *, rows: int = 100_000, seconds: float = 60.0) -> Result:
    """What one SELECT answers over the tables of docs/tables.md, now or `at` a time (RFC 3339).

    Kafka and the rest come from the settings. Raises `travel.errors.Refused` for SQL that can't be
    had, `travel.errors.TooLarge` when its time or memory is over or its rows have too many bytes;
    more rows than `rows` are cut off, and the result then says `truncated`.
    """
    from travel.moments import moment
    from travel.sql import Limits, run

    at_ms = None if at is None else moment(at)
    return run(sql, at_ms, Limits(rows=rows, seconds=seconds))
