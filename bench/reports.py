"""What a large report needs of memory: `python -m bench.reports [--rows 1000000]`.

A topic of completed transactions (the real codec and headers) is made into a report of as many rows, and that into each
file, for a tenth of the rows and for all. Each step is a process of its own, of which the most memory that it ever held
(peak RSS) and the seconds are printed; what does not grow with the rows is the same in both lines.

    query    the rows as of a time: `perform`'s child reads the log, DuckDB orders them, into Parquet
    csv …    the rows into a file, as a gateway does for a download; a PDF has at most 20,000
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import psutil

from bench.replay import credited, fill
from deploy.local.kafka import STEADY, Kafka
from domain.reporting import Definition, Source
from domain.saga import TransactionCompleted
from domain.transaction import TRANSACTION
from gateway.reports import PAPER, document
from rendering import WRITERS, Format
from reports.make import LIMITS
from reports.sources import TABLES, select
from settings import PREFIX
from travel.errors import Refused, TooLarge
from travel.sql import Target, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WATCH_S = 0.02
DEFINITION = Definition(
    title="Transactions",
    source=Source.TRANSACTIONS,
    columns=tuple(TABLES[Source.TRANSACTIONS].columns),
    filters=(),
    group_by=(),
)


def completed(count: int, start_ms: int) -> Iterator[tuple[int, Any]]:
    """Times and events: one transaction ends each millisecond."""
    for n in range(count):
        of = credited(n, start_ms + n)
        yield (
            of.at_ms,
            TransactionCompleted(
                order=of.order,
                request_hash="h",
                balances=of.balances,
                at_ms=of.at_ms,
                steps=of.steps,
            ),
        )


def measured(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[int, Any]:
    """The most bytes that a program and its children held at once, and what it says in its last line."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    peak, whole = 0, psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [whole, *whole.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family))
        except psutil.NoSuchProcess:
            continue
        time.sleep(WATCH_S)
    assert process.stdout is not None
    said = process.stdout.read().splitlines()
    return peak, orjson.loads(said[-1]) if said else {}


def query(file: Path, to_ms: int) -> None:
    """In a process of its own: the rows, as `reports.make` computes them."""
    sql = select(DEFINITION, 0, to_ms)
    limits = replace(
        LIMITS, seconds=3_600.0
    )  # what it takes is measured, on however busy a machine
    try:
        result = run(sql, to_ms, limits, Target(parquet=file), since_ms=0)
    except (Refused, TooLarge) as exc:
        print(orjson.dumps({"refused": str(exc)}).decode())
    else:
        print(orjson.dumps({"truncated": result.truncated}).decode())


def render(file: Path, kind: Format, count: int) -> None:
    """In a process of its own: the rows into a file."""
    row = {
        "report_id": "r",
        "definition": asdict(DEFINITION),
        "from_ms": 0,
        "to_ms": 1,
        "as_of_ms": 1,
        "rows": count,
    }
    target = file.with_suffix(f".{kind}")
    with target.open("wb") as out:
        WRITERS[kind](document(row, file), out)
    print(orjson.dumps({"bytes": target.stat().st_size}).decode())


def shown(name: str, count: int, peak: int, seconds: float, said: dict[str, Any]) -> None:
    size = f", {said['bytes'] / 1e6:,.1f} MB" if "bytes" in said else ""
    refused = f"  REFUSED: {said['refused']}" if "refused" in said else ""
    print(f"{name:<6} {count:>9,} rows  peak {peak >> 20:>5,} MiB  {seconds:6.1f} s{size}{refused}")
    sys.stdout.flush()


def computed(count: int, start_ms: int, file: Path, environment: dict[str, str]) -> None:
    """The rows of the first `count` transactions."""
    began_s = time.perf_counter()
    command = ["-m", "bench.reports", "--file", str(file), "--query", str(start_ms + count)]
    peak, said = measured(command, environment)
    shown("query", count, peak, time.perf_counter() - began_s, said)


def written(count: int, file: Path, kind: Format) -> None:
    """Those rows in a file."""
    if kind is Format.PDF and count > PAPER:
        print(f"pdf    {count:>9,} rows  refused: {PAPER:,} fit into a PDF", flush=True)
        return
    began_s = time.perf_counter()
    command = ["-m", "bench.reports", "--file", str(file), "--rows", str(count)]
    peak, said = measured([*command, "--render", kind.value])
    shown(kind.value, count, peak, time.perf_counter() - began_s, said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--query", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--render", type=Format, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.query is not None:
        query(options.file, options.query)
        return
    if options.render is not None:
        render(options.file, options.render, options.rows)
        return
    with tempfile.TemporaryDirectory() as directory:
        whole(options.rows, Path(directory))


def whole(rows: int, directory: Path) -> None:
    with Kafka(directory / "kafka", java=STEADY, orphaned=signal.SIGKILL) as kafka:
        start_ms = time.time_ns() // 1_000_000 - rows - 1_000
        began_s = time.perf_counter()
        fill(kafka.bootstrap, TRANSACTION, completed(rows, start_ms))
        print(f"{rows:,} events written in {time.perf_counter() - began_s:.0f} s", flush=True)
        environment = {
            f"{PREFIX}KAFKA_BOOTSTRAP": kafka.bootstrap,
            f"{PREFIX}PARTITIONS": "1",
        }
        sizes = sorted({PAPER // 10, PAPER, rows // 10, rows})
        files = {n: directory / f"{n}.parquet" for n in sizes if n <= rows}
        for count, file in files.items():
            computed(count, start_ms, file, environment)
    for kind in Format:
        for count, file in files.items():
            if file.exists():
                written(count, file, kind)


if __name__ == "__main__":
    main()
