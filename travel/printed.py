"""An answer for a terminal, or as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from rendering.delimited import neutral

if TYPE_CHECKING:
    from collections.abc import Iterator

    from travel.sql import Result

CELL = 60  # characters of one value; CSV and Parquet have all of it
NUMBERS = ("INT", "DECIMAL", "DOUBLE", "FLOAT")
NUMBERS_AS_TEXT = re.compile(r"DECIMAL\(\d+,\d+\)|U?HUGEINT|UBIGINT|VARINT|BIGNUM")


def table(result: Result) -> Iterator[str]:
    """Columns under each other, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in result.rows]
    widths = [
        max([len(name), *(len(row[n]) for row in cells)]) for n, name in enumerate(result.columns)
    ]
    right = [any(number in kind for number in NUMBERS) for kind in result.types]

    def line(values: list[str]) -> str:
        padded = [
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(values, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    yield line(list(result.columns))
    yield "  ".join("-" * width for width in widths)
    yield from map(line, cells)


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else _json(value)
    # a control character of a customer's text must not reach the terminal
    text = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"


def csv_text(result: Result) -> str:
    """RFC 4180, with a header; NULL is an empty field, lists and maps are JSON.

    A text that a spreadsheet would take for a formula is text, as in all other CSV files.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(map(neutral, result.columns))
    numbers = [NUMBERS_AS_TEXT.fullmatch(kind) is not None for kind in result.types]
    for row in result.rows:
        writer.writerow(map(_field, row, numbers))
    return out.getvalue()


def _field(value: Any, is_number: bool) -> Any:
    if isinstance(value, str):
        return value if is_number else neutral(value)
    return _json(value) if isinstance(value, list | dict | bool) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
