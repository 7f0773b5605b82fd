"""Warm standby: the changelog partitions that this worker does not own are followed into their stores.

    assigned --keep(all others)--> followed, ... --keep(without it)--> owned: its restore reads only the rest

A store belongs either to the side that owns the partition or to the thread here. `keep` moves it, and begins a
new turn: what the thread had read in an earlier turn is thrown away, never applied to a store that was owned
in between.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streaming import metrics
from streaming.admin import EARLIEST, LATEST
from streaming.closing import close_client
from streaming.restore import changes, clear_unusable, reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from faust.types import TP

    from streaming.admin import Admin
    from streaming.stores import Store

log = logging.getLogger(__name__)

CHUNK = 5_000  # records applied at once: the longest that `keep` waits
WAIT_S = 0.2  # for a chunk: how far a copy is behind its owner when all is well
PAUSE_S = 1.0  # before it goes on after an outage


class Standby:
    """Follows what `keep` named last, from the first `keep` on.

    `store_of` opens the store of a changelog partition. `failed` is told, in the thread, of an error that
    is no outage.
    """

    def __init__(
        self,
        app_id: str,
        config: Mapping[str, Any],
        admin: Admin,
        store_of: Callable[[TP], Store],
        tombstones_s: Mapping[str, float],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.app_id, self._admin, self._store_of = app_id, admin, store_of
        self._config, self._tombstones_s, self._failed = config, tombstones_s, failed
        self._lock = threading.Lock()  # held while stores are opened, cleared or written
        self._turn = 0
        self._kept: frozenset[TP] = frozenset()
        self._stores: dict[TP, Store] = {}
        self._behind: set[TP] = set()  # not yet at their log's end in this turn
        self._look_at_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"standby-{app_id}", daemon=True)
        self._started = False

    def keep(self, tps: Iterable[TP]) -> None:
        """From its return on, only the stores of these are touched here. Waits for one chunk at most."""
        kept = frozenset(tps)
        with self._lock:
            if kept != self._kept:
                self._kept, self._turn, self._stores = kept, self._turn + 1, {}
            start, self._started = not self._started, True
        if start:
            self._thread.start()

    def stop(self) -> None:
        """From its return on no store is touched; blocking."""
        self._ended.set()
        if self._started:
            self._thread.join()

    # -- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    self._follow()
                except KafkaException as exc:
                    log.warning("%s: standby copies go on after: %s", self.app_id, exc)
                    self._ended.wait(PAUSE_S)
        except BaseException as exc:  # noqa: BLE001 - the owner ends the process
            self._failed(exc)

    def _follow(self) -> None:
        """Until it is stopped; raises KafkaException when the stores must be looked at again."""
        consumer = Consumer(
            {
                **reader(self._config),
                "queued.max.messages.kbytes": 32 << 10,
                "fetch.queue.backoff.ms": 50,
            }
        )
        turn = -1
        try:
            while not self._ended.is_set():
                if turn != self._turn or time.monotonic() > self._look_at_s:
                    turn = self._begin(consumer)
                else:
                    self._apply(consumer.consume(CHUNK, WAIT_S), turn)
        finally:
            close_client(consumer)

    def _begin(self, consumer: Consumer) -> int:
        """Open the stores of a turn, and read on from where they stand. Answers the turn."""
        with self._lock:
            turn, kept = self._turn, sorted(self._kept)
        now_s = time.time()
        starts = self._admin.log_ends(kept, EARLIEST)
        ends = self._admin.log_ends(kept, LATEST)
        with self._lock:
            if turn != self._turn:
                return -1
            self._stores = {tp: self._store_of(tp) for tp in kept}
            self._behind = set(kept)
            clear_unusable(self._stores, starts, ends, self._tombstones_s)
            for tp, store in self._stores.items():
                if not store.next_offset or store.next_offset == ends[tp]:
                    store.as_of_s = now_s
            offsets = {tp: max(store.next_offset, starts[tp]) for tp, store in self._stores.items()}
        consumer.assign([TopicPartition(*tp, offset) for tp, offset in offsets.items()])
        # looked at again long before compaction can forget a deletion: what is too far behind starts anew
        kept_s = min((self._tombstones_s[tp.topic] for tp in kept), default=8.0)
        self._look_at_s = time.monotonic() + max(1.0, kept_s / 8)
        metrics.STANDBY_BEHIND.labels(self.app_id).set(len(kept))
        return turn

    def _apply(self, messages: list[Any], turn: int) -> None:
        """Take in what was read in this turn, if it still is this turn.

        A copy's age counts from when it was last at the log's end: deletions since then must still be told.
        """
        found = changes(messages)
        with self._lock:
            if turn != self._turn:
                return
            for tp, new in found.items():
                store = self._stores[tp]
                as_of_s = time.time() if new.ended else store.as_of_s
                store.apply(new.rows, new.position, new.next_offset, as_of_s)
            caught_up = {tp for tp, new in found.items() if new.ended} & self._behind
            self._behind -= caught_up
            behind = len(self._behind)
        metrics.STANDBY_RECORDS.labels(self.app_id).inc(len(messages))
        metrics.STANDBY_BEHIND.labels(self.app_id).set(behind)
        for topic, partition in sorted(caught_up):
            log.info("%s: standby copy of %s-%d has caught up", self.app_id, topic, partition)
