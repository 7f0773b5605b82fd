"""An answer for a terminal, or as CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from travel.sql import Result

CELL = 60  # characters of one value; CSV and Parquet have all of it
NUMBERS = ("INT", "DECIMAL", "DOUBLE", "FLOAT")


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
    """RFC 4180, with a header; NULL is an empty field, lists and maps are JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(result.columns)
    for row in result.rows:
        writer.writerow([_json(v) if isinstance(v, list | dict | bool) else v for v in row])
    return out.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
