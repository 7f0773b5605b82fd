"""A statement as CSV: `booked_on,end_to_end_id,reference,amount,currency`, amounts with a sign.

booked_on,end_to_end_id,reference,amount,currency
2026-09-21,3f2c…,rail-91ab…,-10.50,EUR
"""

from __future__ import annotations

import csv
import io

from banking.amounts import minor_of
from banking.statement import ENTRIES_LIMIT, BankStatement, StatementEntry, Unreadable, day_of

COLUMNS = ("booked_on", "end_to_end_id", "reference", "amount", "currency")
TEXT_LIMIT = 200


def read(data: bytes) -> BankStatement:
    """Raises Unreadable with the line of what is wrong."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Unreadable(data[: exc.start].count(b"\n") + 1, "it is not UTF-8") from exc
    rows = csv.reader(io.StringIO(text), strict=True)
    entries: list[StatementEntry] = []
    days: set[str] = set()
    currencies: set[str] = set()
    try:
        if tuple(next(rows, ())) != COLUMNS:
            raise Unreadable(1, f"the columns are not {','.join(COLUMNS)}")
        for row in rows:
            if not row:
                continue
            if len(entries) >= ENTRIES_LIMIT:
                raise Unreadable(rows.line_num, f"it has more than {ENTRIES_LIMIT} entries")
            entries.append(_entry(row, rows.line_num))
            days.add(row[0])
            currencies.add(row[4])
    except csv.Error as exc:
        raise Unreadable(rows.line_num, f"it is no CSV: {exc}") from exc
    if len(days) != 1 or len(currencies) != 1:
        raise Unreadable(0, "its entries are not of one day and one currency")
    return BankStatement(day=min(days), currency=min(currencies), entries=tuple(entries))


def _entry(row: list[str], line: int) -> StatementEntry:
    if len(row) != len(COLUMNS):
        raise Unreadable(line, f"it has {len(row)} columns, not {len(COLUMNS)}")
    day, end_to_end_id, reference, amount, currency = row
    if max(len(end_to_end_id), len(reference)) > TEXT_LIMIT:
        raise Unreadable(line, f"an id has more than {TEXT_LIMIT} characters")
    try:
        day_of(day)
        minor = minor_of(amount, currency)
    except ValueError as exc:
        raise Unreadable(line, str(exc)) from exc
    return StatementEntry(
        end_to_end_id=end_to_end_id, reference=reference, amount_minor=minor, line=line
    )
