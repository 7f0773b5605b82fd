"""Suspects: records that failed. Others go on; each is tried alone until it passes, or its topic's policy decides.

    an agent fails at a record --tried alone, `attempts` times--> dead letter (on_error), or its partition stops
    a commit fails, no record is named --batches are halved--> one record is left: that one
    the process went down at a record --known from its crash file--> as one that failed

At most one record of a source partition is suspected: what lies behind it waits. As with `intake`, whose records these
are, the Kafka thread and the event loop never ask at once.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faust.types import TP

from streaming import metrics
from streaming.crashes import Crashes, place_of, placed
from streaming.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streaming.config import DriverConfig
    from streaming.context import Batch
    from streaming.cycle import Cycle

log = logging.getLogger(__name__)

CRASHES = 3  # starts without a commit after which records are taken one by one


@dataclass(slots=True)
class Suspect:
    """A record that failed: the first of its source partition that may not go with others."""

    offset: int
    attempts: int = 0
    retry_at: float = 0.0
    stopped: bool = False


@dataclass(slots=True)
class Careful:
    """After a commit failed for a reason no record was named for: small batches of one task, up to `until`."""

    size: int
    until: dict[TP, int]
    crashed: bool = False  # the process went down again and again: one record at a time, all along


class Suspects:
    """Those of one worker. `careful` where batches are small."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.driver: DriverConfig = app.driver
        self.app_id: str = app.conf.id
        self.careful: Careful | None = None
        self.crashes = Crashes(self.driver.crash_file(self.app_id))
        self.by_source: dict[TP, Suspect] = {}
        self._given_up: dict[TP, set[int]] = {}  # offsets that an operator lets pass
        for text in self.driver.skip:
            tp, offset = placed(text)
            self._given_up.setdefault(tp, set()).add(offset)
        self._started = False

    @property
    def some_alone(self) -> bool:
        """Whether some record may have to be taken alone."""
        return bool(self.by_source or self._given_up or self.careful is not None)

    @property
    def stopped(self) -> int:
        """Partitions that stand still."""
        return sum(suspect.stopped for suspect in self.by_source.values())

    # -- which records may be taken ---------------------------------------------------------------

    def lets_pass(self, tp: TP, offset: int) -> bool:
        """Whether the record at the head of a source partition may be taken now."""
        suspect = self.by_source.get(tp)
        if suspect is None or offset < suspect.offset:
            return True
        if suspect.offset in self._given_up.get(tp, ()):
            return True
        return not suspect.stopped and time.monotonic() >= suspect.retry_at

    def is_due(self, tp: TP, offset: int) -> bool:
        """Whether the record, which may be taken, is one that failed before: it goes first, and alone."""
        suspect = self.by_source.get(tp)
        return suspect is not None and offset >= suspect.offset and bool(suspect.retry_at)

    def together(self, tp: TP, records: list[Any]) -> list[Any]:
        """Those that may go together: up to one that must be alone; that one where it is the first.

        Alone is a suspect, and what an operator gave up.
        """
        suspect = self.by_source.get(tp)
        alone = {suspect.offset} if suspect is not None else set()
        if tp in self._given_up:
            alone |= self._given_up[tp]
        if not alone:
            return records
        for n, record in enumerate(records):
            if record.offset() in alone:
                return records[:n] or records[:1]
        return records

    def why_aside(self, tp: TP, offset: int) -> str:
        """Why nobody reads this record, alone in its batch, and it goes to the dead letters; empty when not."""
        if offset in self._given_up.get(tp, ()):
            return "given up by an operator"
        suspect = self.by_source.get(tp)
        if (
            suspect is not None
            and suspect.offset == offset
            and suspect.attempts >= self.driver.attempts
            and self.app.policy_of(tp.topic).on_error == "dead-letter"
        ):
            return f"failed {suspect.attempts} times"
        return ""

    def begin_work(self, work: Mapping[TP, Sequence[Any]]) -> None:
        """A cycle begins with these: when the process goes down again and again, its file says with which."""
        if self.careful is not None and self.careful.crashed:
            [(tp, [record])] = work.items()
            self.crashes.works_on(place_of(tp, record.offset()))

    # -- what became of them ----------------------------------------------------------------------

    def failed(self, tp: TP, offset: int | None, cause: BaseException) -> None:
        """An agent failed at a record: those before it go on, it is tried alone, then its policy decides."""
        if offset is None:
            raise Misuse(
                f"an agent of {self.app_id} failed outside of a record: {cause!r}"
            ) from cause
        suspect = self.by_source.get(tp)
        if suspect is None or suspect.offset != offset:
            suspect = self.by_source[tp] = Suspect(offset)
        suspect.attempts += 1
        metrics.SUSPECTS.labels(self.app_id).set(len(self.by_source))
        suspect.retry_at = time.monotonic() + self._pause_s(suspect.attempts)
        if self.careful is not None:
            self._careful_without(tp)
        where = place_of(tp, offset)
        if suspect.attempts < self._limit(tp, where):
            log.error(
                "%s: %s failed (attempt %d), tried again alone: %r",
                self.app_id, where, suspect.attempts, cause,
            )  # fmt: skip
            return
        suspect.stopped = True
        metrics.STOPPED.labels(self.app_id).set(self.stopped)
        log.critical(
            "%s: %s failed %d times, its partition stops here (others go on): %r",
            self.app_id, where, suspect.attempts, cause, exc_info=cause,
        )  # fmt: skip

    def _pause_s(self, attempts: int) -> float:
        if attempts == 1:
            return 0.001
        driver = self.driver
        return float(min(driver.retry_backoff_s * 2 ** (attempts - 1), driver.retry_backoff_max_s))

    def _limit(self, tp: TP, where: str) -> int:
        """Attempts after which the partition stops. A dead letter that can't be written is tried as often again."""
        once = self.driver.attempts
        aside = self.app.policy_of(tp.topic).on_error == "dead-letter" or where in self.driver.skip
        return 2 * once if aside else once

    def look_closer(self, cycle: Cycle, cause: BaseException) -> None:
        """A transaction can't be committed and no record is named: halve until one record is left."""
        count = max(len(batch.records) for batch in cycle.batches)
        log.warning(
            "%s: transaction of %d records can't be committed: %s", self.app_id, count, cause
        )
        if len(cycle.batches) == 1 and count == 1:
            batch = cycle.batches[0]
            self.failed(batch.tp, batch.first, cause)
            return
        until = cycle.next_offsets
        if self.careful is not None:
            until = {**until, **self.careful.until}
        self.careful = Careful(max(1, count // 2), until)

    def hung(self, cycle: Cycle) -> None:
        """An agent did not come back: the next start of this worker shall know at which record."""
        self.crashes.hung(
            place_of(batch.tp, batch.records[batch.pos].offset())
            for batch in cycle.batches
            if batch.pos is not None
        )

    def committed(self, batches: Iterable[Batch]) -> None:
        """What was suspected up to here has passed."""
        for batch in batches:
            self._passed(batch)
        if self.careful is None or not self.careful.crashed:
            self.crashes.survived()

    def _passed(self, batch: Batch) -> None:
        suspect = self.by_source.get(batch.tp)
        if suspect is not None and suspect.offset < batch.next_offset:
            del self.by_source[batch.tp]
            metrics.SUSPECTS.labels(self.app_id).set(len(self.by_source))
        if self.crashes.tries:
            self.crashes.passed(place_of(batch.tp, batch.first))
        careful = self.careful
        if careful is not None and batch.tp in careful.until:
            if not careful.crashed:
                careful.size = min(2 * careful.size, self.driver.batch_max)
            if batch.next_offset >= careful.until[batch.tp]:
                self._careful_without(batch.tp)

    def _careful_without(self, tp: TP) -> None:
        assert self.careful is not None
        self.careful.until.pop(tp, None)
        if not self.careful.until:
            self.careful = None

    # -- with an assignment -----------------------------------------------------------------------

    def begin(self, offsets: Mapping[TP, int]) -> None:
        """Reading begins at these. What hung or killed this worker before is suspected; others go one by one."""
        for where, tries in self.crashes.tries.items():
            tp, offset = placed(where)
            if offset >= offsets.get(tp, sys.maxsize):
                stopped = tries >= self.driver.attempts
                self.by_source[tp] = Suspect(offset, tries, time.monotonic(), stopped)
                log.critical("%s: %s took the worker down %d times%s", self.app_id, where, tries,
                             ": its partition stops here" if stopped else "")  # fmt: skip
        metrics.STOPPED.labels(self.app_id).set(self.stopped)
        if self._started:
            return
        if self.crashes.starts >= CRASHES:
            until = {tp: at + self.driver.batch_max for tp, at in offsets.items()}
            self.careful = Careful(1, until, crashed=True)
        if offsets:
            self._started = True
            self.crashes.begin()

    def forget(self) -> None:
        """The assignment is over."""
        self.by_source.clear()
        self.careful = None
