"""A bank statement, whatever format it came in, and what is wrong with one that can't be read."""

from __future__ import annotations

from dataclasses import dataclass

ENTRIES_LIMIT = 2_000


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


class Unreadable(Exception):
    """The file is no statement that can be used. `line` 0: none can be named."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}" if line else what)
        self.line, self.what = line, what
