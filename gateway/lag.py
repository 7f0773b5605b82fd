"""How far each store is behind the log, looked at once a second in the background.

    ends of the topics, now and a second ago and … --reached by the store's positions?--> seconds

A store is as far behind as the newest ends that it has reached are old. One that does not answer
here is late until it does, so that only the first reads find that out by waiting for it. At most the mark of one
Kafka transaction, which no consumer is given, lies between a store and the end that it has reached.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from faust.types import TP
from prometheus_client import Gauge

from gateway.rarely import Rarely
from stores.catalog import TOPICS, OtherSchema, Unavailable
from streaming import LATEST, READ_COMMITTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.queries import Queries
    from stores.catalog import At
    from stores.configured import Whole

log = logging.getLogger(__name__)

LOOK_S = 1.0
SAMPLES = 60
LATE_S = 5.0
MARK = 1  # offset
CLOSE_S = 2.0

BEHIND_S = Gauge("streambank_gateway_store_behind_seconds", "Age of what a store holds", ["store"])


class Lag:
    """Of the stores of one process; `start` and `close` it on its event loop."""

    def __init__(self, queries: Queries, prefix: str, stores: Sequence[Whole]) -> None:
        self._queries, self._prefix, self._stores = queries, prefix, stores
        self._ends: deque[tuple[float, Mapping[At, int]]] = deque(maxlen=SAMPLES)
        self._late = {store.name for store in stores}  # until it is known better
        self._ages_s: dict[str, float] = {}
        self._checked: set[str] = set()
        self._rarely = Rarely()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._stores:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_S)

    def is_late(self, store: str) -> bool:
        """True while a store is more than LATE_S behind, or does not say where it is."""
        return store in self._late

    def of_stores(self) -> dict[str, float | None]:
        """Seconds that each store is behind; None for one that does not say."""
        return {
            store.name: None
            if (age_s := self._ages_s.get(store.name, float("inf"))) == float("inf")
            else age_s
            for store in self._stores
        }

    async def _run(self) -> None:
        while True:
            try:
                ends = await asyncio.to_thread(self._look)
            except KafkaException as exc:
                log.info("the ends of the topics are not known: %s", exc)
            else:
                self._ends.append((time.monotonic(), ends))
                await asyncio.gather(*(self._compare(store) for store in self._stores))
            await asyncio.sleep(LOOK_S)

    async def _compare(self, store: Whole) -> None:
        try:
            if store.name not in self._checked:
                await store.check()
                self._checked.add(store.name)
            positions = await store.positions()
        except Unavailable:
            self._ages_s.pop(store.name, None)
            self._late.add(store.name)  # or a read would wait for it, again and again
            return
        except OtherSchema as exc:
            self._rarely.warn(store.name, f"{store.name} is asked last: {exc}")
            return
        age_s = self._ages_s[store.name] = behind_s(self._ends, positions, time.monotonic())
        BEHIND_S.labels(store.name).set(age_s)
        if age_s > LATE_S:
            self._late.add(store.name)
        else:
            self._late.discard(store.name)

    def _look(self) -> dict[At, int]:
        prefix, partitions = self._prefix, range(self._queries.partitions)
        logs = [TP(f"{prefix}{topic}", partition) for topic in TOPICS for partition in partitions]
        ends = self._queries.admin.log_ends(logs, LATEST, READ_COMMITTED, within_s=0)
        return {(tp.topic.removeprefix(prefix), tp.partition): end for tp, end in ends.items()}


def behind_s(
    ends: Iterable[tuple[float, Mapping[At, int]]], positions: Mapping[At, int], now_s: float
) -> float:
    """Seconds since the newest of these ends, by their times, that the positions have reached."""
    reached = [
        at_s
        for at_s, offsets in ends
        if all(offset - positions.get(at, 0) <= MARK for at, offset in offsets.items())
    ]
    if reached:
        # what it has not reached of now is as old as the look after that
        return now_s - max(reached)
    return float("inf")
