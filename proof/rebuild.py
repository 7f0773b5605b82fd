"""A store's table built anew from the logs, beside the one that is asked, and exchanged with it.

    note the sources' ends --> fold the events from the start --> catch up from the noted ends
                           --> swap, and put the positions back to where catching up stood

The changelogs are compacted and let old rows go, the events are for ever: documents are folded from
them with the services' deciders. What the projection wrote further on it writes again, which changes
nothing. Cut off before the swap, the table that is asked is as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from agents.project import batch_of
from agents.transact import Codec
from domain.services import DECIDERS
from proof.fold import Folding, events
from proof.reader import Reader
from stores.catalog import ENTRIES, EVENTS, KINDS, LINKS, At, Batch, sources
from stores.rebuilding import Rebuilding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from proof.reader import LogRecord

CHUNK = 2_000  # records of one batch
CLOSE_S = 1.0  # how long the last round of catching up may take
ROUNDS = 1_000


class CutOff(Exception):
    """It could not be finished: a sentence. The table that is asked is as it was."""


class Told:
    """A record as the projection reads it."""

    __slots__ = ("record",)

    def __init__(self, record: LogRecord) -> None:
        self.record = record

    def key(self) -> bytes | None:
        return self.record.key

    def value(self) -> bytes | None:
        return self.record.value

    def offset(self) -> int:
        return self.record.offset

    def headers(self) -> list[tuple[str, bytes]]:
        return [*self.record.headers.items()]


@dataclass(slots=True)
class Rebuild:
    """One run over one store. `show` is told of progress, a line at a time."""

    store: Rebuilding
    reader: Reader
    codec: Codec
    namespace: str
    partitions: int
    show: Callable[[str], None]

    async def run(self, name: str) -> None:
        """One of `catalog.NAMES`. Raises CutOff, KafkaException, what the store raises."""
        started_s = time.monotonic()
        await self.store.begin_rebuild(name)
        positions = {at: await self._call(self._end, at) for at in self._sources(name)}
        if name in (EVENTS, ENTRIES, LINKS):
            positions = dict.fromkeys(positions, 0)
        else:
            await self._fold(name, positions)
        for _ in range(ROUNDS):
            round_s = time.monotonic()
            read = [await self._catch_up(name, at, positions) for at in positions]
            if not any(read) or time.monotonic() - round_s < CLOSE_S:
                break
        else:
            raise CutOff(f"{name} is written faster than it can be built anew")
        await self.store.swap(name, positions)
        self.show(f"{name}: built anew in {time.monotonic() - started_s:.1f} s")

    def _sources(self, name: str) -> Collection[At]:
        return [
            (topic, partition) for topic in sources(name) for partition in range(self.partitions)
        ]

    async def _fold(self, name: str, ends: dict[At, int]) -> None:
        """The documents as the events say, all as of the noted end of their changelog."""
        kind = next(kind for kind in KINDS if kind.name == name)
        for partition in range(self.partitions):
            at = (kind.changelog, partition)
            folding = Folding(DECIDERS[kind.service], self.codec, partition)
            records = iter(await self._call(self._events, kind.service, partition))
            batch, count = Batch(), 0
            while chunk := await self._call(list, islice(records, CHUNK)):
                for record in chunk:
                    for change in folding.changes(record):
                        if change.kind is kind:
                            batch.add(change)
                count += len(chunk)
                if not kind.removed:  # of what can be removed the last word alone is told
                    await self.store.rebuild(name, ends[at], batch)
                    batch = Batch()
            await self.store.rebuild(name, ends[at], batch)
            self.show(f"{name}: {count:,} events of partition {partition} folded")

    async def _catch_up(self, name: str, at: At, positions: dict[At, int]) -> int:
        """Read one source to its present end; answers how many records that was."""
        topic = f"{self.namespace}{at[0]}"
        records = self.reader.records(topic, at[1], positions[at])
        count = 0
        while chunk := await self._call(_told, records):
            batch, following = batch_of(self.codec, at, chunk)
            if following <= chunk[-1].offset():
                raise CutOff(f"the record at {following} of {at[0]}-{at[1]} can't be read")
            await self.store.rebuild(name, following, batch)
            positions[at] = following
            count += len(chunk)
        return count

    def _end(self, at: At) -> int:
        return self.reader.bounds(f"{self.namespace}{at[0]}", at[1])[1]

    def _events(self, service: str, partition: int) -> Any:
        return events(self.reader, self.namespace, DECIDERS[service], partition)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Reading waits for the broker, so not in the event loop."""
        return await asyncio.to_thread(function, *args)


def _told(records: Iterator[LogRecord]) -> list[Told]:
    return [Told(record) for record in islice(records, CHUNK)]
