"""The committed rows of an app's tables, by partition: restored where they are ours, followed where they are others'.

    of others --standby follows its changelog--> assigned to us --restore reads the rest--> ours --revoked--> of others

A store outlives its assignment, as old as it is: when its partition comes back, the rest alone is read. What was
restored for an assignment that is over meanwhile is never used: its `Token` says so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faust.types import TP

from streaming.admin import EARLIEST, LATEST
from streaming.errors import Inconsistent
from streaming.positions import Position, check_log, check_position
from streaming.restore import Token, restore, stable_offsets
from streaming.standby import Standby
from streaming.stores import MemoryStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from streaming.admin import Admin
    from streaming.config import DriverConfig
    from streaming.preparation import Prepared

log = logging.getLogger(__name__)

# a leader that is new does not show all that was committed at once: what does not fit is looked at again
VIEWS = 2
VIEW_PAUSE_S = 1.5


@dataclass(slots=True)
class Assignment:
    """What one rebalance gave us; `token` is cancelled when it ends."""

    tps: frozenset[TP]
    partitions: frozenset[int] = field(init=False)
    token: Token = field(default_factory=lambda: Token(threading.Event()))
    offsets: dict[TP, int] = field(default_factory=dict)  # to read from, once restored
    installed: bool = False
    told: asyncio.Event | None = None  # once the app was told of it; set when its handlers are done

    def __post_init__(self) -> None:
        self.partitions = frozenset(tp.partition for tp in self.tps)


class State:
    """`failed` is called, in another thread, with what a standby can't go on from."""

    def __init__(
        self, app: Any, admin: Admin, prepared: Prepared, failed: Callable[[BaseException], None]
    ) -> None:
        self.app = app
        self.driver: DriverConfig = app.driver
        self.app_id: str = app.conf.id
        self.topology = prepared.topology
        self._admin, self._prepared = admin, prepared
        self._stores: dict[tuple[str, int], Store] = {}  # by table and partition
        self.restorer = ThreadPoolExecutor(1, f"restore-{self.app_id}")
        self._standby: Standby | None = None
        if self.driver.standby and app.tables:
            self._standby = Standby(
                self.app_id,
                self.driver.client(self.app_id),
                admin,
                self._standby_store,
                prepared.tombstones_s,
                failed,
            )

    def close(self) -> None:
        """Blocking. A restore that was cancelled looks at its token soon; until then it may open and write stores."""
        if self._standby is not None:
            self._standby.stop()
        self.restorer.shutdown()
        for store in self._stores.values():
            store.close()

    def store(self, table: str, partition: int) -> Store:
        """The store of a table's partition, or of the app's positions. KeyError unless it was restored."""
        return self._stores[table, partition]

    def _opened(self, table: str, partition: int) -> Store:
        store = self._stores.get((table, partition))
        if store is None:
            store = self._stores[table, partition] = self._new_store(table, partition)
        return store

    def _new_store(self, table: str, partition: int) -> Store:
        if self.driver.store == "memory":
            return MemoryStore()
        from streaming.rocks import RocksStore, store_directory

        assert self.driver.state_dir is not None
        worker = self.driver.state_dir / f"{self.app_id}.{self.driver.instance}"
        topic_id = self._prepared.topic_ids[self.app.changelogs[table]]
        return RocksStore(store_directory(worker, table, partition, topic_id))

    def _standby_store(self, tp: TP) -> Store:
        [name] = [name for name, topic in self.app.changelogs.items() if topic == tp.topic]
        return self._opened(name, tp.partition)

    def check_sources(self, assignment: Assignment) -> None:
        """Raise Inconsistent unless each partition number comes with all of our sources."""
        topics: dict[int, set[str]] = defaultdict(set)
        for tp in assignment.tps:
            topics[tp.partition].add(tp.topic)
        for partition, names in topics.items():
            if names != set(self.topology.sources):
                raise Inconsistent(
                    f"{self.app_id}, partition {partition}: the group gave us {sorted(names)} of "
                    f"{list(self.topology.sources)}: workers with other code are in the group; stop them all, then "
                    f"start one version"
                )

    def restore(self, assignment: Assignment) -> int:
        """In `restorer`: find where to read from, and bring the stores there. Answers records read."""
        if self._standby is not None:
            assignment.token.check()
            self._standby.keep(self._others(assignment.partitions))
        if not assignment.tps:  # more workers than partitions
            return 0
        for _ in range(VIEWS):
            began = time.monotonic()
            try:
                return self._restore_once(assignment)
            except Inconsistent as exc:
                if time.monotonic() - began > self.driver.takeover_timeout_s / 2:
                    raise  # it has waited long enough
                log.warning("%s: looks again: %s", self.app_id, exc)
                time.sleep(VIEW_PAUSE_S)
        return self._restore_once(assignment)

    def _others(self, ours: frozenset[int]) -> list[TP]:
        """The changelog partitions that others own."""
        numbers = [n for n in range(self.topology.partitions) if n not in ours]
        return [TP(topic, n) for topic in self.app.changelogs.values() for n in numbers]

    def _restore_once(self, assignment: Assignment) -> int:
        """One view of offsets, changelogs and logs. Raises Inconsistent when they do not fit each other."""
        admin, sources = self._admin, sorted(assignment.tps)
        timeout_s = self.driver.takeover_timeout_s
        committed = stable_offsets(admin, self.app_id, sources, timeout_s, assignment.token)
        stores = {
            TP(topic, partition): self._opened(name, partition)
            for partition in sorted(assignment.partitions)
            for name, topic in self.app.changelogs.items()
        }
        count = restore(
            self.driver.client(self.app_id),
            admin,
            stores,
            assignment.token,
            self._prepared.tombstones_s,
            timeout_s,
        )
        lows = admin.log_ends(sources, EARLIEST)
        highs = admin.log_ends(sources, LATEST)
        for (topic, partition), store in stores.items():
            here = {tp.topic: at for tp, at in committed.items() if tp.partition == partition}
            kept = Position.loads(store.position) if store.position is not None else None
            check_position(self.topology, partition, here, kept, topic)
        for tp in sources:
            if tp in committed:
                check_log(self.app_id, tp.topic, tp.partition, committed[tp], lows[tp], highs[tp])
            assignment.offsets[tp] = committed.get(tp, lows[tp])
        return count
