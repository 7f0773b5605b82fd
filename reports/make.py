"""Makes a report: the rows of a definition, computed from the logs as of a time, in a file.

    wait until all before `as_of` is decided --> SELECT in a process of its own --> <directory>/<name>.parquet

The same order gives the same rows whenever and wherever it is computed, so that a file that is gone
is made again. It appears whole, by its name. What is under way says how far it is in another file.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import orjson
from confluent_kafka import KafkaException

from domain.reporting import Definition, Source
from reports.decided import is_decided
from reports.files import file_of, is_whole, progress_of
from reports.sources import check, select
from travel.errors import TooLarge
from travel.snapshot import Source as Logs
from travel.sql import Limits, Target, run

if TYPE_CHECKING:
    from pathlib import Path

    from settings import Settings

LIMITS = Limits(rows=1_000_000, seconds=120.0)
KEEP_S = 30 * 24 * 3600  # as long as the service knows the report
DECIDED_S, PAUSE_S = 30.0, 0.3  # for the workers to catch up, and between two looks
DEAD_S = LIMITS.seconds + DECIDED_S  # nobody is at what is that old and not ready
SAID_BY = {
    Source.TRANSACTIONS: "transaction",
    Source.ENTRIES: "account",
    Source.PAYMENTS: "payment",
    Source.SETTLEMENTS: "settlement",
    Source.ACCOUNTS: "account",
}


class Unmade(Exception):
    """It can't be made just now: another time it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made: times are Unix milliseconds, `to_ms` is not in the period any more."""

    report_id: str
    definition: Definition
    from_ms: int
    to_ms: int
    as_of_ms: int


class Maker:
    """Makes reports into a directory, in whatever thread it is called. Several may do it at once."""

    def __init__(self, settings: Settings) -> None:
        self.directory = settings.reports_dir
        self._logs = Logs.of(settings)

    def make(self, order: Order) -> Path:
        """The file; one that is there is not made again.

        Blocks. Raises Undefined, Unmade, and travel's Refused, TooLarge and TooLong.
        """
        check(order.definition)
        target = file_of(self.directory, order)
        try:
            if not is_whole(target):
                self._make(order, target)
        except (KafkaException, OSError, RuntimeError, duckdb.IOException) as exc:
            raise Unmade(f"{type(exc).__name__}: {exc}") from exc
        return target

    def _make(self, order: Order, target: Path) -> None:
        progress = progress_of(self.directory, order.report_id)
        partial = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._tidy()
            progress.write_bytes(orjson.dumps({"phase": "waiting", "records": 0}))
            self._await(SAID_BY[order.definition.source], order.as_of_ms)
            self._compute(order, Target(parquet=partial, progress=progress))
            partial.replace(target)
        finally:
            for file in (partial, progress):
                with suppress(OSError):
                    file.unlink()

    def _compute(self, order: Order, target: Target) -> None:
        sql = select(order.definition, order.from_ms, order.to_ms)
        result = run(sql, order.as_of_ms, LIMITS, target, since_ms=order.from_ms)
        if result.truncated:
            raise TooLarge(f"it has more than {LIMITS.rows:,} rows: narrow it")
        with target.parquet.open("rb") as made:
            os.fsync(made.fileno())

    def _await(self, service: str, as_of_ms: int) -> None:
        end_s = time.monotonic() + DECIDED_S
        while not is_decided(self._logs, service, as_of_ms):
            if time.monotonic() > end_s:
                raise Unmade(f"{service} is more than {DECIDED_S:.0f} s behind")
            time.sleep(PAUSE_S)

    def _tidy(self) -> None:
        """Files leave when the service has forgotten their reports, and what was not finished at once."""
        keep_s = {".parquet": KEEP_S, ".partial": DEAD_S, ".progress": DEAD_S}
        for file in self.directory.iterdir():
            if file.suffix in keep_s:
                with suppress(FileNotFoundError):  # another maker tidies too
                    if _age_s(file) > keep_s[file.suffix]:
                        file.unlink()


def _age_s(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def progress(directory: Path, report_id: str) -> dict[str, Any] | None:
    """How far the making of a report is; None while nobody is at it."""
    file = progress_of(directory, report_id)
    try:
        if _age_s(file) > DEAD_S:  # left by one that was killed
            return None
        found: dict[str, Any] = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found
