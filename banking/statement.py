"""A bank statement, whatever format it came in, and what is wrong with one that can't be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

ENTRIES_LIMIT = 2_000
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEntry:
    """One booked movement. `line` is that of the file, from 1."""

    end_to_end_id: str
    reference: str
    amount_minor: int  # minor units of the statement's currency; above zero: in
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BankStatement:
    """What a bank booked on one day in one currency."""

    day: str  # YYYY-MM-DD
    currency: str
    entries: tuple[StatementEntry, ...]


def day_of(text: str) -> str:
    """The text, which is a day of the calendar as YYYY-MM-DD. Raises ValueError."""
    try:
        if DAY.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{text[:40]!r} is no day, such as 2026-09-21")


class Unreadable(Exception):
    """The file is no statement that can be used. `line` 0: none can be named."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}" if line else what)
        self.line, self.what = line, what
