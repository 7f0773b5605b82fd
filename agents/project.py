"""project: what the services say into a store, in batches, as often as it takes.

    <service>-table-changelog, <service>.events --> a batch a partition and poll --> store
                       ^--- Overtaken: from where the store stands ---'

The store keeps the positions: with the rows, moved from one to the next, so that a batch told twice,
or by a worker that was thought dead, changes nothing. Offsets in Kafka are for those who watch the
lag. A store that is away holds back its own projection alone: the batch waits, tried again, while
the consumer stays in its group. A record that can't be read stops its partition; none is skipped. Not
read are states of a row that the same poll replaces, and what says that a row's time is over.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter as Counted
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from prometheus_client import Counter, Gauge, Histogram

from agents.envelope import given
from schemas.errors import Unreadable
from stores import catalog
from stores.catalog import (
    CHANGELOGS,
    TOPICS,
    At,
    Batch,
    OtherSchema,
    Overtaken,
    Unavailable,
    Unfit,
)
from streaming import close_member, is_fatal

if TYPE_CHECKING:
    from agents.transact import Codec
    from agents.wiring import Wiring
    from stores.catalog import Kind, Store

log = logging.getLogger(__name__)

Written: TypeAlias = Callable[[Batch], Awaitable[None]]

POLL_RECORDS = 3_000
WRITERS = 8  # batches that are written at once; the store's pool has more connections
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 3.0  # between two tries while the store is away
CONSUMER: Mapping[str, Any] = {
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "queued.max.messages.kbytes": 32 << 10,
}
CLOSE = 100  # records behind the end that still count as having caught up

ROWS = Counter("streambank_projection_rows_total", "Rows written", ["store", "table"])
BATCH_S = Histogram("streambank_projection_batch_seconds", "Duration of one batch", ["store"])
LAG = Gauge(
    "streambank_projection_lag_records",
    "Records of a partition that are not in the store yet",
    ["store", "topic", "partition"],
)
LAG_S = Gauge(
    "streambank_projection_lag_seconds",
    "Age of the last written record of the partition that is furthest behind; 0: none is",
    ["store"],
)
AWAY = Gauge("streambank_projection_store_away", "1 while the store does not answer", ["store"])
STOPPED = Gauge(
    "streambank_projection_stopped_partitions",
    "Partitions stopped by a record, or all by their store's schema or position",
    ["store"],
)


class Lost(Exception):
    """The log does not hold the offset at which the store stands; a sentence for a person."""


@dataclass(slots=True)
class Progress:
    """One partition that is ours. `turn` tells what was read before a seek from what comes after."""

    turn: int
    read: int  # the offset behind what was taken from the consumer
    written: int  # where the store stands
    end: int = -1  # where the log ended when the consumer reached it; -1: not yet
    written_ms: int = 0  # when the last record that is written was
    caught_up: bool = False  # was within CLOSE of the end, once
    stopped: str | None = None  # why it goes no further


@dataclass(frozen=True, slots=True)
class Piece:
    """What one poll brought of one partition."""

    at: At
    turn: int
    expected: int
    following: int
    at_ms: int
    batch: Batch


@dataclass(slots=True)
class Polled:
    """One poll: records by partition, the turns that it began with, ends that it met."""

    turns: dict[At, int] = field(default_factory=dict)
    records: dict[At, list[Any]] = field(default_factory=dict)
    ends: dict[At, int] = field(default_factory=dict)


class Project:
    """The projection into one store. `run` until `stop`; ready once it had caught up."""

    def __init__(
        self, wiring: Wiring, codec: Codec, store: Store, written: Written | None = None
    ) -> None:
        """`written`: told of each batch once the store has it; it raises nothing."""
        self.wiring = wiring
        self._written = written
        self.codec = codec
        self.store = store
        self.last_poll_s = 0.0
        self.away: str | None = None  # why the store does not answer, while it does not
        self.broken: str | None = None  # why it ended, if that is its own store's account
        self._progress: dict[At, Progress] = {}
        self._assigned: list[At] | None = None  # not placed at the store's positions yet
        self._has_joined = False
        self._turns = itertools.count(1)  # both threads take from it
        self._seeks: dict[int, tuple[At, int]] = {}  # by turn: where it begins
        self._commits: dict[At, int] = {}
        self._writers = asyncio.Semaphore(WRITERS)
        self._kafka = ThreadPoolExecutor(1, f"project-{store.name}")
        self._stop = asyncio.Event()

    @property
    def stopped(self) -> dict[At, str]:
        """Partitions that a record stopped, and why."""
        return {at: p.stopped for at, p in list(self._progress.items()) if p.stopped}

    @property
    def ready(self) -> bool:
        """Each partition that is ours was close to its end once, and none is stopped."""
        return self._has_joined and self._assigned is None and not self.problem()

    def problem(self) -> str | None:
        """What keeps it from being ready."""
        if self.broken is not None:
            return self.broken
        for (topic, partition), why in self.stopped.items():
            return f"{topic}-{partition} is stopped: {why}"
        behind = [at for at, p in list(self._progress.items()) if not p.caught_up]
        if behind or not self._has_joined or self._assigned is not None:
            waiting = f"; {self.away}" if self.away else ""
            return f"{len(behind)} partitions have not caught up yet{waiting}"
        return None

    def stop(self) -> None:
        """Take in nothing more; `run` ends when what is being written is written."""
        self._stop.set()

    async def run(self) -> None:
        """Raises Lost, OtherSchema, KafkaException when the broker refuses us for good."""
        loop = asyncio.get_running_loop()
        self._consumer = Consumer(self.wiring.consumer(f"project-{self.store.name}", **CONSUMER))
        topics = [self.wiring.named(topic) for topic in TOPICS]
        self._consumer.subscribe(topics, on_assign=self._given, on_revoke=self._revoked)
        writing = asyncio.create_task(self._write_all([]))
        try:
            while not self._stop.is_set():
                await self._place()
                polled = await loop.run_in_executor(self._kafka, self._poll, POLL_RECORDS)
                pieces = await self._pieces(polled)
                await self._done(writing)
                writing = asyncio.create_task(self._write_all(pieces))
            await writing
        except (Lost, OtherSchema) as exc:
            self.broken = str(exc)
            STOPPED.labels(self.store.name).set(max(1, len(self._assigned or self._progress)))
            raise
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(writing, return_exceptions=True)
            await loop.run_in_executor(self._kafka, self._close)
            self._kafka.shutdown(wait=False)

    async def _done(self, writing: asyncio.Task[None]) -> None:
        """Wait for a write; if it takes long, keep in touch with the group meanwhile."""
        loop = asyncio.get_running_loop()
        while not (await asyncio.wait([writing], timeout=1.0))[0]:
            await loop.run_in_executor(self._kafka, self._touch)
        writing.result()

    def _topic(self, at: At) -> TopicPartition:
        return TopicPartition(self.wiring.named(at[0]), at[1])

    def _at(self, place: Any) -> At:
        """Of a record or a TopicPartition of confluent-kafka."""
        topic, partition = place.topic, place.partition
        if callable(topic):
            topic, partition = topic(), partition()
        return topic.removeprefix(self.wiring.namespace), partition

    # in the Kafka thread

    def _poll(self, most: int) -> Polled:
        polled = Polled({at: p.turn for at, p in list(self._progress.items())})
        self._seek(polled.turns)
        self._commit()
        first = self._consumer.poll(0.1)
        self.last_poll_s = time.monotonic()
        for record in () if first is None else (first, *self._consumer.consume(most, 0)):
            error = record.error()
            if error is None:
                polled.records.setdefault(self._at(record), []).append(record)
            elif error.code() == KafkaError._PARTITION_EOF:
                polled.ends[self._at(record)] = _offset(record)
            else:
                self._failed(record)
        return polled

    def _failed(self, record: Any) -> None:
        """Raises Lost, or KafkaException, if this error is one for good."""
        error = record.error()
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise Lost(self._lost(record))
        if is_fatal(error):
            raise KafkaException(error)
        log.warning("reading for %s: %s", self.store.name, error)

    def _touch(self) -> None:
        """Poll without taking anything: what is paused gives nothing."""
        ours = [self._topic(at) for at in self._progress]
        self._consumer.pause(ours)
        record = self._consumer.poll(0)
        self.last_poll_s = time.monotonic()
        if record is not None:
            error = record.error()
            if error is None:  # assigned in this very poll
                self._again(self._at(record))
            elif error.code() != KafkaError._PARTITION_EOF:
                self._failed(record)
        self._consumer.resume([t for t in ours if self._at(t) in self._progress])

    def _seek(self, turns: Mapping[At, int]) -> None:
        """To where these turns begin. One that begins meanwhile is none of them and waits."""
        for turn, (at, offset) in list(self._seeks.items()):
            known = turns.get(at)
            if known is not None and known < turn:
                continue
            del self._seeks[turn]
            if known == turn:
                where = self._topic(at)
                where.offset = offset
                self._consumer.seek(where)
                self._consumer.resume([where])  # it may have been stopped in the turn before
        for at in self.stopped:
            self._consumer.pause([self._topic(at)])

    def _commit(self) -> None:
        """For those who watch the lag: nothing is read from there."""
        offsets, self._commits = self._commits, {}
        placed = []
        for at, offset in offsets.items():
            if at in self._progress:
                place = self._topic(at)
                place.offset = offset
                placed.append(place)
        if placed:
            self._consumer.commit(offsets=placed, asynchronous=True)

    def _given(self, consumer: Any, partitions: list[Any]) -> None:
        """Nothing is read before it is known from where: see `_place`."""
        consumer.assign([])
        self._progress.clear()
        self._assigned = [self._at(place) for place in partitions]
        self._has_joined = True

    def _revoked(self, consumer: Any, _partitions: list[Any]) -> None:
        for at in self._progress:
            with suppress(KeyError):
                LAG.remove(self.store.name, *map(str, at))
        self._progress.clear()
        self._assigned = None
        self._has_joined = False
        consumer.unassign()

    def _assign(self, assigned: list[At], positions: Mapping[At, int]) -> None:
        if self._assigned is not assigned:
            return  # given others meanwhile
        places = []
        for at in assigned:
            start = positions.get(at, 0)
            self._progress[at] = Progress(next(self._turns), start, start)
            places.append(self._topic(at))
            places[-1].offset = start
        self._consumer.assign(places)
        self._assigned = None

    def _lost(self, record: Any) -> str:
        at = self._at(record)
        there = self._progress[at].read if at in self._progress else "?"
        low, high = self._consumer.get_watermark_offsets(self._topic(at), 5.0)
        return (
            f"{self.store.name} stands at offset {there} of {at[0]}-{at[1]}, which holds {low} to "
            f"{high}: the topic was made anew; empty the store and let it be filled again"
        )

    def _close(self) -> None:
        self._commit()
        close_member(self._consumer, f"project-{self.store.name}")

    # in the event loop

    async def _place(self) -> None:
        """Begin where the store stands, once it says where."""
        assigned = self._assigned
        if assigned is None:
            return
        try:
            await self.store.check()
            positions = await self.store.positions()
        except Unavailable as exc:
            self._say_away(exc)
            await self._pause(FIRST_PAUSE_S)
            return
        self._say_back()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._kafka, self._assign, assigned, positions)

    async def _pieces(self, polled: Polled) -> list[Piece]:
        """What was polled as batches; what was read before a seek, or of others, is left out."""
        pieces = []
        for at, records in polled.records.items():
            await asyncio.sleep(0)  # others in this process have work too
            progress = self._progress.get(at)
            if progress is None or progress.stopped or polled.turns.get(at) != progress.turn:
                continue
            piece = self._piece(at, progress, records)
            if piece.following > progress.read:
                progress.read = piece.following
                pieces.append(piece)
        for at, end in polled.ends.items():
            progress = self._progress.get(at)
            if progress is not None and polled.turns.get(at) == progress.turn:
                progress.end = end
        return pieces

    def _piece(self, at: At, progress: Progress, records: Sequence[Any]) -> Piece:
        batch, following = batch_of(self.codec, at, records)
        if following <= records[-1].offset():
            progress.stopped = f"the record at {following} can't be read"
            log.error(
                "projection of %s-%d into %s stops: %s", *at, self.store.name, progress.stopped
            )
        at_ms = records[-1].timestamp()[1]
        return Piece(at, progress.turn, progress.read, following, at_ms, batch)

    async def _write_all(self, pieces: Sequence[Piece]) -> None:
        await asyncio.gather(*(self._write(piece) for piece in pieces))
        self._watch()

    async def _write(self, piece: Piece) -> None:
        """Until the store has it, or it is ours no more."""
        pause_s = FIRST_PAUSE_S
        while (progress := self._progress.get(piece.at)) and progress.turn == piece.turn:
            try:
                async with self._writers:
                    started_s = time.monotonic()
                    await self.store.write(piece.at, piece.expected, piece.following, piece.batch)
            except Unavailable as exc:
                self._say_away(exc)
                if self._stop.is_set():
                    return
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, LAST_PAUSE_S)
            except Unfit as exc:
                self._stop_at(progress, piece, exc)
                return
            except Overtaken as exc:
                log.info("%s; going on from there", exc)
                if exc.stored >= piece.following:  # by us perhaps, and the answer was lost
                    await self._tell(piece.batch)
                self._again(piece.at, exc.stored)
                return
            else:
                self._say_back()
                BATCH_S.labels(self.store.name).observe(time.monotonic() - started_s)
                self._wrote(progress, piece)
                await self._tell(piece.batch)
                return

    async def _tell(self, batch: Batch) -> None:
        if self._written is not None:
            await self._written(batch)

    def _stop_at(self, progress: Progress, piece: Piece, exc: Unfit) -> None:
        """What was read behind it is dropped: it comes again when the partition goes on."""
        progress.turn = next(self._turns)
        progress.stopped = (
            f"a record from {piece.expected} on does not fit {self.store.name}: {exc}"
        )
        log.error("projection of %s-%d stops: %s", *piece.at, progress.stopped)

    def _wrote(self, progress: Progress, piece: Piece) -> None:
        progress.written, progress.written_ms = piece.following, piece.at_ms
        self._commits[piece.at] = piece.following
        counted = Counted(kind for kind, _ in piece.batch.changes)
        counted[catalog.EVENTS] = len(piece.batch.events)
        counted[catalog.ENTRIES] = len(piece.batch.entries)
        counted[catalog.LINKS] = len(piece.batch.links)
        for name, count in counted.items():
            ROWS.labels(self.store.name, name).inc(count)

    def _again(self, at: At, offset: int | None = None) -> None:
        """Read a partition from where the store stands, unless it is ours no more.

        The Kafka thread may take it from us meanwhile: what it took away is not put back.
        """
        progress = self._progress.get(at)
        if progress is None:
            return
        start = progress.written if offset is None else offset
        turn = next(self._turns)
        self._seeks[turn] = at, start  # before the turn is known: who sees that finds this
        progress.turn = turn
        progress.read = progress.written = start
        progress.end, progress.written_ms, progress.stopped = -1, 0, None

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _say_away(self, exc: Unavailable) -> None:
        if self.away is None:
            log.warning("the projection into %s waits: %s", self.store.name, exc)
        self.away = str(exc)
        AWAY.labels(self.store.name).set(1)

    def _say_back(self) -> None:
        if self.away is not None:
            log.info("the projection into %s goes on", self.store.name)
        self.away = None
        AWAY.labels(self.store.name).set(0)

    def _watch(self) -> None:
        """Who has caught up, and how far behind the others are."""
        oldest_ms = 0
        for at, progress in list(self._progress.items()):
            lag = self._lag(at, progress)
            if lag is None:
                continue
            progress.caught_up = progress.caught_up or lag <= CLOSE
            LAG.labels(self.store.name, *map(str, at)).set(lag)
            if lag and progress.written_ms:
                oldest_ms = min(oldest_ms or progress.written_ms, progress.written_ms)
        age_s = time.time() - oldest_ms / 1000 if oldest_ms else 0.0
        LAG_S.labels(self.store.name).set(max(0.0, age_s))
        STOPPED.labels(self.store.name).set(len(self.stopped))

    def _lag(self, at: At, progress: Progress) -> int | None:
        """Offsets to the end; markers of transactions count until the consumer met the end."""
        if progress.end >= 0 and progress.written >= progress.read:
            written = max(progress.written, progress.end)
        else:
            written = progress.written
        known = self._consumer.get_watermark_offsets(self._topic(at), cached=True)
        if known is None or known[1] < 0:
            return 0 if written == progress.end else None
        return max(0, int(known[1]) - written)


def batch_of(codec: Codec, at: At, records: Sequence[Any]) -> tuple[Batch, int]:
    """What records of one partition say, and the offset behind them.

    Behind those before the first that can't be read: that one's offset, if there is one.
    """
    records_that_count = _newest(at, records) if at[0] in CHANGELOGS else records
    batch = Batch()
    for record in records_that_count:
        try:
            _tell(codec, at, record, batch)
        except (Unreadable, UnicodeDecodeError, KeyError) as why:
            log.error("%s-%d at %d: %r", *at, record.offset(), why)
            before = [one for one in records if one.offset() < record.offset()]
            return (batch_of(codec, at, before)[0] if before else Batch()), record.offset()
    return batch, records[-1].offset() + 1


def _newest(at: At, records: Sequence[Any]) -> list[Any]:
    """Of each row that the stores hold its last state, in their order: most need no decoding.

    That a row left its table because its time is over is no state of it: the one before stays.
    """
    kinds: dict[bytes | None, Kind | None] = {None: None}
    newest: dict[bytes, Any] = {}
    for record in records:
        key = record.key()
        if key not in kinds:
            kinds[key] = catalog.kind_of(at[0], _text(key), at[1])
        kind = kinds[key]
        if kind is not None and (kind.removed or record.value() is not None):
            newest[key] = record
    return sorted(newest.values(), key=_offset)


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _offset(record: Any) -> int:
    return int(record.offset())


def _tell(codec: Codec, at: At, record: Any, batch: Batch) -> None:
    topic, partition = at
    value = record.value()
    if topic in CHANGELOGS:
        key = record.key().decode()
        kind = catalog.kind_of(topic, key, partition)
        assert kind is not None
        row = None if value is None else codec.decode(value)
        change = catalog.change(kind, key, row)
        if change is not None:
            batch.add(change)
        return
    if value is None:
        raise Unreadable("no value")
    event = codec.decode(value)
    if topic == catalog.AUDIT_LOG:
        batch.links.extend(catalog.links(event))
        return
    said = catalog.said(
        topic.removesuffix(".events"),
        event,
        given(record.headers()),
        (partition, record.offset()),
    )
    batch.events.append(said)
    batch.entries.extend(catalog.entries(said.event_id, event))
