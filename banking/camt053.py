"""camt.053 (ISO 20022, BankToCustomerStatement, versions 001.02 and later) → one day's statement.

Parsed by expat alone, as it streams: a document type, an entity or a processing instruction is
refused where it begins, depth, text and the number of entries are bounded. Of what it says are taken
booked entries: amount, direction, the bank's reference, the end-to-end id, the day. Where there are
none the day is that of the closing balance; other balances are of other days (PRCD, FWAV).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn
from xml.parsers import expat

from banking.amounts import minor_of
from banking.statement import ENTRIES_LIMIT, BankStatement, StatementEntry, Unreadable, day_of

NAMESPACE = re.compile(r"urn:iso:std:iso:20022:tech:xsd:camt\.053\.001\.(0[2-9]|1[0-9])")
DEPTH_LIMIT = 32
TEXT_LIMIT = 1_000  # characters of one element
# xs:dateTime behind a day, or xs:date's time zone: the day is the bank's, as it wrote it
TIME = re.compile(r"(T\d{2}:\d{2}:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII)
# where the money went, of a reversal (RvslInd) too: what it takes back went the other way
DIRECTIONS = {"CRDT": 1, "DBIT": -1}
BOOKED = "BOOK"  # all else is not yet money: pending, announced (INFO), of a day to come (FUTR)
STATEMENT = ("Document", "BkToCstmrStmt", "Stmt")
ENTRY = (*STATEMENT, "Ntry")
BALANCE = (*STATEMENT, "Bal")
CLOSING = "CLBD"
ONCE = {
    "Amt": "amount",
    "CdtDbtInd": "direction",
    "Sts": "status",
    "Sts/Cd": "status",
    "Sts/Prtry": "status",
    "BookgDt/Dt": "day",
    "BookgDt/DtTm": "day",
    "AcctSvcrRef": "reference",
    "NtryDtls/TxDtls/Refs/EndToEndId": "end_to_end_id",
}


def read(data: bytes) -> BankStatement:
    """Raises Unreadable with the line of what is wrong."""
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise Unreadable(
            exc.lineno, f"it is not well-formed XML: {expat.ErrorString(exc.code)}"
        ) from exc
    return reader.statement()


@dataclass(slots=True)
class _Entry:
    line: int
    currency: str = ""
    transactions: int = 0
    told: dict[str, str] = field(default_factory=dict)


class _Reader:
    """The document as far as it was read."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.EntityDeclHandler = self._refuse_doctype
        self.parser.ProcessingInstructionHandler = self._refuse_instruction
        self._path: list[str] = []
        self._text: list[str] = []
        self._entry: _Entry | None = None
        self._balance: dict[str, str] = {}
        self._closings: list[tuple[str, int]] = []  # days as written, and their lines
        self._entries: list[StatementEntry] = []
        self._statements = 0
        self._days: set[str] = set()
        self._currencies: set[str] = set()

    def statement(self) -> BankStatement:
        if not self._statements:
            raise Unreadable(0, "there is no statement (BkToCstmrStmt/Stmt) in it")
        if len(self._currencies) != 1:
            raise Unreadable(0, f"it has entries in {len(self._currencies)} currencies, not in one")
        days = self._days or {self._day(text, line) for text, line in self._closings}
        if not days:
            raise Unreadable(
                0, "neither an entry nor a closing balance (CLBD) says of which day it is"
            )
        if len(days) != 1:
            raise Unreadable(0, f"it is of {len(days)} days, not of one")
        return BankStatement(
            day=min(days), currency=min(self._currencies), entries=tuple(self._entries)
        )

    def _wrong(self, what: str, line: int | None = None) -> NoReturn:
        raise Unreadable(line or self.parser.CurrentLineNumber, what)

    def _refuse_doctype(self, *_: Any) -> None:
        self._wrong("a document type has no place in a statement")

    def _refuse_instruction(self, *_: Any) -> None:
        self._wrong("a processing instruction has no place in a statement")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if not self._path and (local != "Document" or not NAMESPACE.fullmatch(namespace)):
            self._wrong("the document is no camt.053 statement")
        if len(self._path) >= DEPTH_LIMIT:
            self._wrong(f"elements lie more than {DEPTH_LIMIT} deep in each other")
        self._path.append(local)
        self._text.clear()
        path = tuple(self._path)
        if path == STATEMENT:
            self._statements += 1
            if self._statements > 1:
                self._wrong("it has more than one statement")
        elif path == ENTRY:
            self._entry = _Entry(self.parser.CurrentLineNumber)
        elif path == BALANCE:
            self._balance = {}
        elif self._entry is not None and path == (*ENTRY, "Amt"):
            self._entry.currency = attributes.get("Ccy", "")
        elif self._entry is not None and path == (*ENTRY, "NtryDtls", "TxDtls"):
            self._entry.transactions += 1

    def _characters(self, text: str) -> None:
        self._text.append(text)
        if sum(map(len, self._text)) > TEXT_LIMIT:
            self._wrong(f"a text has more than {TEXT_LIMIT} characters")

    def _end(self, _name: str) -> None:
        path = tuple(self._path)
        text = "".join(self._text).strip()
        self._text.clear()
        self._path.pop()
        if path == ENTRY:
            self._finish()
        elif self._entry is not None and path[: len(ENTRY)] == ENTRY:
            self._tell(self._entry, "/".join(path[len(ENTRY) :]), text)
        elif path == BALANCE:
            self._close()
        elif path[: len(BALANCE)] == BALANCE:
            self._balance["/".join(path[len(BALANCE) :])] = text
        elif path == (*STATEMENT, "Acct", "Ccy"):
            self._currencies.add(text)

    def _close(self) -> None:
        told = self._balance
        day = told.get("Dt/Dt") or told.get("Dt/DtTm")
        if told.get("Tp/CdOrPrtry/Cd") == CLOSING and day:
            self._closings.append((day, self.parser.CurrentLineNumber))

    def _tell(self, entry: _Entry, where: str, text: str) -> None:
        name = ONCE.get(where)
        if name is None or not text:
            return
        if name in entry.told:
            self._wrong(f"{where} stands twice in one entry")
        entry.told[name] = text

    def _finish(self) -> None:
        entry, self._entry = self._entry, None
        assert entry is not None
        told, line = entry.told, entry.line
        if told.get("status", BOOKED) != BOOKED:
            return
        for name in ("status", "amount", "direction", "day"):
            if name not in told:
                self._wrong(f"an entry has no {name}", line)
        if entry.transactions > 1:
            self._wrong("an entry of several transactions can't be told apart", line)
        if len(self._entries) >= ENTRIES_LIMIT:
            self._wrong(f"it has more than {ENTRIES_LIMIT} entries", line)
        self._currencies.add(entry.currency)
        self._days.add(self._day(told["day"], line))
        self._entries.append(
            StatementEntry(
                end_to_end_id=told.get("end_to_end_id", ""),
                reference=told.get("reference", ""),
                amount_minor=self._amount(entry),
                line=line,
            )
        )

    def _amount(self, entry: _Entry) -> int:
        sign = DIRECTIONS.get(entry.told["direction"])
        if sign is None:
            self._wrong("the direction (CdtDbtInd) is neither CRDT nor DBIT", entry.line)
        try:
            minor = minor_of(entry.told["amount"], entry.currency)
        except ValueError as exc:
            self._wrong(str(exc), entry.line)
        if minor < 0:
            self._wrong("an amount is below zero", entry.line)
        return sign * minor

    def _day(self, text: str, line: int) -> str:
        day, rest = text[:10], text[10:]
        try:
            return day_of(day if TIME.fullmatch(rest) else text)
        except ValueError as exc:
            self._wrong(str(exc), line)
