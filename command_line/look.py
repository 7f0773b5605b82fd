"""`replay`, `timeline`, `query`: how it is, how it was, and what became of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from command_line.broker import codec_of, reach_broker
from command_line.names import picked, whole_number, writable, writing
from command_line.shown import json_text, show, tell
from pipeline import SERVICES
from topics.catalog import Installation
from travel.errors import Refused
from travel.moments import past, place
from travel.replay import Replay
from travel.timeline import Timeline, document, lines

if TYPE_CHECKING:
    import argparse

    from command_line.main import Add
    from settings import Settings


def declare(add: Add) -> None:
    command = add("replay", replay, "rebuild a service's tables from its events, to any time")
    command.add_argument("service", metavar="SERVICE", help=", ".join(SERVICES))
    command.add_argument(
        "--to",
        metavar="TIME",
        help="RFC 3339, or offsets of the event topic as partition:OFFSET,…; else the end, and compare",
    )
    command.add_argument("--key", metavar="ROWKEY", help="one row, such as account/<account_id>")

    command = add("timeline", timeline, "what became of a transaction, an account or a user")
    command.add_argument("id", metavar="ID", help="transaction_id, account_id or user_id")
    command.add_argument("--json", action="store_true", help="in full, for machines")

    command = add("query", query, "ask one SELECT over tables and events: docs/tables.md")
    command.add_argument("sql", metavar="SQL", help='such as "SELECT status, count(*) FROM …"')
    command.add_argument("--at", metavar="TIME", help="as of then, RFC 3339; else now")
    command.add_argument("--format", choices=["table", "csv", "parquet"], default="table")
    command.add_argument("--output", metavar="FILE", help="write it there, not to the terminal")
    command.add_argument("--rows", type=whole_number, default=100_000, help="at most (100000)")
    command.add_argument("--seconds", type=whole_number, default=60, help="at most (60)")


def replay(settings: Settings, options: argparse.Namespace) -> int:
    """1 when the tables differ from what their events say."""
    (name,) = picked([options.service], tuple(SERVICES))
    to = None if options.to is None else place(options.to)
    reach_broker(settings)
    done = Replay(settings.kafka, Installation.of(settings), codec_of(settings), tell).run(
        SERVICES[name].decider, to, options.key
    )
    rate = done.events / max(done.seconds, 0.001)
    summary = f"{done.events:,} events in {done.seconds:.1f} s, {rate:,.0f} events/s"
    if options.key is not None:
        tell(summary)
        for _, row in sorted(done.found.items()):
            show(json_text(row))
        if not done.found:
            tell(f"{options.key}: there is no such row then")
    else:
        show(summary)
        for kind, count in sorted(done.kinds.items()):
            show(f"{count:>12,} {kind}")
    if done.compared:
        say = show if options.key is None else tell
        if done.different:
            say(f"DIFFERENT from the kept table: {len(done.different)}, first {done.different[0]}")
        else:
            say("equal to the kept table")
    return 1 if done.different or (options.key is not None and not done.found) else 0


def timeline(settings: Settings, options: argparse.Namespace) -> int:
    reach_broker(settings)
    story = Timeline(settings.kafka, Installation.of(settings), codec_of(settings))
    try:
        entries = story.of(options.id)
    finally:
        story.close()
    for line in [json_text(document(entries))] if options.json else lines(entries):
        show(line)
    return 0


def query(settings: Settings, options: argparse.Namespace) -> int:
    """A SELECT of an analyst; its rows to the terminal or into a file."""
    from travel.printed import csv_text, table
    from travel.sql import Limits, Target, run

    at_ms = None if options.at is None else past(options.at, time.time_ns() // 1_000_000)
    output = None if options.output is None else writable(Path(options.output))
    if options.format == "parquet" and output is None:
        raise Refused("Parquet is for files: say which by --output")
    reach_broker(settings)
    limits = Limits(rows=options.rows, seconds=options.seconds)
    parquet = output if options.format == "parquet" else None
    target = Target(parquet=parquet) if parquet else None
    result = run(options.sql, at_ms, limits, target)
    if result.truncated:
        tell(f"only the first {options.rows:,} rows: ask for more by --rows")
    if parquet is not None:
        return 0
    text = (
        csv_text(result)
        if options.format == "csv"
        else "".join(f"{line}\n" for line in table(result))
    )
    if output is None:
        print(text, end="", flush=True)
    else:
        with writing(output):
            output.write_text(text, newline="")
    return 0
