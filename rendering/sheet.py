"""XLSX: a sheet of what the document is about, a sheet for each table; numbers are numbers.

XlsxWriter's constant memory: a row is on disk before the next one is taken. Texts are written as
texts, so none is run as a formula or followed as a link.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, BinaryIO

import xlsxwriter

from rendering.document import Kind, Money

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rendering.document import Document, Table, Value

EXACT = 10**15  # a cell is a double: what is larger is written as text, whole
WIDTHS = {Kind.TEXT: 28, Kind.CODE: 40, Kind.NUMBER: 12, Kind.MONEY: 18, Kind.TIME: 20}
NAME = 31  # units of UTF-16 that the name of a sheet may have
RESERVED = ("history",)  # in any case: names that Excel keeps for sheets of its own
SHEET = 1_048_576  # rows that a sheet may have; what is written below them is lost without a word
CELL = 32_767  # characters that a cell may have
INK, PALE = "#1F2A37", "#EEF2F6"


def write_xlsx(document: Document, file: BinaryIO) -> None:
    options = {
        "constant_memory": True,
        "in_memory": False,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    book = xlsxwriter.Workbook(file, options)
    book.set_properties({"title": document.title, "company": document.issuer})
    sheets = _Sheets(book)
    sheets.about(document)
    for table in document.tables:
        sheets.table(table)
    book.close()


class _Sheets:
    """The sheets of one book, and the formats that their cells share."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._names: set[str] = {*RESERVED}
        self._formats: dict[tuple[str, bool], Any] = {}
        self._title = book.add_format({"bold": True, "font_size": 16, "font_color": INK})
        self._label = book.add_format({"font_color": "#667085"})
        head = {"bold": True, "font_color": "#FFFFFF", "bg_color": INK, "border_color": INK}
        self._head = book.add_format(head)
        self._head_right = book.add_format({**head, "align": "right"})

    def about(self, document: Document) -> None:
        """Title, facts and the summary."""
        sheet = self._sheet("About")
        sheet.set_column(0, 0, 26)
        sheet.set_column(1, 8, 22)
        sheet.write_string(0, 0, document.title, self._title)
        at = 2
        for label, text in document.facts:
            sheet.write_string(at, 0, label, self._label)
            sheet.write_string(at, 1, text[:CELL])
            at += 1
        for table in document.summary:
            at = self._rows(sheet, at + 1, table, table.rows)

    def table(self, table: Table) -> None:
        """On as many sheets as it needs, each with the head."""
        rows = iter(table.rows)
        self._one(table, islice(rows, SHEET - 1))
        for first in rows:
            self._one(table, chain((first,), islice(rows, SHEET - 2)))

    def _one(self, table: Table, rows: Iterator[Sequence[Value]]) -> None:
        sheet = self._sheet(table.title)
        for number, column in enumerate(table.columns):
            sheet.set_column(number, number, WIDTHS[column.kind])
        sheet.freeze_panes(1, 0)
        self._rows(sheet, 0, table, rows)

    def _sheet(self, title: str) -> Any:
        """A sheet of this name, as far as a sheet may have it and no other has."""
        plain = re.sub(r"[\[\]:*?/\\']", " ", title).strip() or "Sheet"
        name, number = _cut(plain, NAME), 2
        while name.lower() in self._names:
            behind = f" {number}"
            name = f"{_cut(plain, NAME - len(behind))}{behind}"
            number += 1
        self._names.add(name.lower())
        return self._book.add_worksheet(name)

    def _rows(self, sheet: Any, at: int, table: Table, rows: Iterable[Sequence[Value]]) -> int:
        """Writes head and rows; answers the number of the line behind them."""
        for number, column in enumerate(table.columns):
            right = column.kind in (Kind.MONEY, Kind.NUMBER)
            head = self._head_right if right else self._head
            sheet.write_string(at, number, column.title, head)
        for row in rows:
            at += 1
            strong = bool(row) and isinstance(row[0], str) and row[0] in table.strong
            for number, value in enumerate(row):
                self._cell(sheet, at, number, value, strong)
        return at + 1

    def _cell(self, sheet: Any, at: int, number: int, value: Value, strong: bool) -> None:
        if value is None:
            sheet.write_blank(at, number, None, self._format("@", strong))
        elif isinstance(value, Money) and abs(value.minor) < EXACT:
            decimals = f".{'0' * value.exponent}" if value.exponent else ""
            amount = Decimal(value.minor).scaleb(-value.exponent)
            sheet.write_number(at, number, amount, self._format(f"#,##0{decimals}", strong))
        elif isinstance(value, Money):
            sheet.write_string(at, number, value.text(), self._format("@", strong))
        elif isinstance(value, datetime):
            plain = value.replace(tzinfo=None)
            sheet.write_datetime(at, number, plain, self._format("yyyy-mm-dd hh:mm:ss", strong))
        elif isinstance(value, int) and abs(value) < EXACT:
            sheet.write_number(at, number, value, self._format("#,##0", strong))
        else:
            sheet.write_string(at, number, str(value)[:CELL], self._format("@", strong))

    def _format(self, number: str, strong: bool) -> Any:
        found = self._formats.get((number, strong))
        if found is None:
            look = {"bold": True, "bg_color": PALE} if strong else {}
            found = self._book.add_format({"num_format": number, **look})
            self._formats[number, strong] = found
        return found


def _cut(text: str, units: int) -> str:
    """As much of the text as so many units of UTF-16 hold: an emoji is two, and is never halved."""
    held = text.encode("utf-16-le")[: 2 * units]
    return held.decode("utf-16-le", "ignore").rstrip()
