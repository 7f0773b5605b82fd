"""CSV (RFC 4180): UTF-8, one head, the rows of all tables of a document, amounts as plain decimals.

Spreadsheets take a text that begins with one of FORMULA for a formula and run it: such a text gets
an apostrophe before it, which they take for "this is text" (OWASP, CSV injection). Numbers are not
touched.
"""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

from rendering.document import Money

if TYPE_CHECKING:
    from rendering.document import Document, Value

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def write_csv(document: Document, file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    writer = csv.writer(text, lineterminator="\r\n")
    for number, table in enumerate(document.tables):
        if not number:
            writer.writerow([neutral(column.title) for column in table.columns])
        for row in table.rows:
            writer.writerow([cell(value) for value in row])
    text.flush()
    text.detach()  # the file stays the caller's


def cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, Money):
        return value.text()
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value) if isinstance(value, int) else neutral(value)


def neutral(text: str) -> str:
    """The text as no spreadsheet runs it."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) or text.startswith(FORMULA) else text
