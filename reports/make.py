"""Makes a report: the rows of a definition, computed from the logs as of a time, in a file.

    wait until all before `as_of` is decided --> SELECT in a process of its own --> <directory>/<name>.parquet

The same order gives the same rows whenever and wherever it is computed, so that a file that is gone
is made again. It appears whole, by its name. What is under way says how far it is in another file.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from confluent_kafka import KafkaException

from domain.reporting import Definition, Source
from reports.decided import is_decided
from reports.files import file_of, progress_of
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
        """The file. Blocks. Raises Undefined, Unmade, and travel's Refused and TooLarge."""
        check(order.definition)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._tidy()
        target, progress = (of(self.directory, order.report_id) for of in (file_of, progress_of))
        partial = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
        progress.write_bytes(orjson.dumps({"phase": "waiting", "records": 0}))
        try:
            self._await(SAID_BY[order.definition.source], order.as_of_ms)
            self._compute(order, Target(parquet=partial, progress=progress))
            partial.replace(target)
        except (KafkaException, OSError, RuntimeError) as exc:
            raise Unmade(f"{type(exc).__name__}: {exc}") from exc
        finally:
            partial.unlink(missing_ok=True)
            progress.unlink(missing_ok=True)
        return target

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
        """Files leave when the service has forgotten their reports."""
        oldest_s = time.time() - KEEP_S
        for file in self.directory.iterdir():
            known = file.suffix in (".parquet", ".partial", ".progress")
            if known and file.stat().st_mtime < oldest_s:
                file.unlink(missing_ok=True)


def progress(directory: Path, report_id: str) -> dict[str, Any] | None:
    """How far the making of a report is; None while nobody is at it."""
    try:
        found: dict[str, Any] = orjson.loads(progress_of(directory, report_id).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return found
