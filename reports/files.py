"""The files of reports: where their rows are kept, and how they are read again, a few at a time."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import duckdb
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from reports.make import Order

ROWS = 1_000  # held at a time


def file_of(directory: Path, order: Order) -> Path:
    """Where the rows of an order are: an id that is used again for another report has another file.

    The id, which clients say, is not taken for a path.
    """
    ordered = hashlib.sha256(orjson.dumps(order)).hexdigest()
    return directory / f"{_name(order.report_id)}-{ordered[:16]}.parquet"


def progress_of(directory: Path, report_id: str) -> Path:
    """Where it stands how far the making of a report is."""
    return directory / f"{_name(report_id)}.progress"


def _name(report_id: str) -> str:
    return hashlib.sha256(report_id.encode()).hexdigest()


def is_whole(file: Path) -> bool:
    """False where there is none, or one that can't be read."""
    try:
        count(file)
    except duckdb.Error:
        return False
    return True


def count(file: Path) -> int:
    """How many rows a file has."""
    with duckdb.connect(":memory:") as database:
        found = database.execute(
            "SELECT num_rows FROM parquet_file_metadata(?)", [str(file)]
        ).fetchone()
    return int(found[0]) if found else 0


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows in their order, by column."""
    with duckdb.connect(":memory:") as database:
        database.execute("SET threads = 1")
        found = database.execute("SELECT * FROM read_parquet(?)", [str(file)])
        names: Sequence[str] = [column[0] for column in found.description]
        while some := found.fetchmany(ROWS):
            for row in some:
                yield dict(zip(names, row, strict=True))
