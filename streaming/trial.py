"""Trial: an agent alone in a test, without a broker: `async with agent.test_context() as agent`.

    await agent.put(value, key=b"k")  --the driver's own cycle-->  agent.sent, the tables' rows; or its exception

Each put is one record in a transaction of its own. Cycle, codecs, dead letters, commit and merge are those of
the driver; only Kafka is not there: what would be written to it is kept in `sent`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faust.types import TP, RecordMetadata

from streaming.consumer import Consumer
from streaming.context import Batch
from streaming.crashes import Crashes
from streaming.errors import Misuse, RecordFailed
from streaming.positions import Topology
from streaming.state import State
from streaming.stores import MemoryStore, Store
from streaming.streams import Agent
from streaming.tables import TablePartition, TableView
from streaming.topics import Topic

if TYPE_CHECKING:
    from confluent_kafka import Message

    from streaming.cycle import Cycle

CREATE_TIME = 1  # a record's timestamp is its writer's


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A record that the agent wrote. `partition` is -1 where its key decides, `timestamp_ms` 0 where now."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int
    timestamp_ms: int


class Record:
    """What librdkafka would hand out for a record that was put."""

    def __init__(self, tp: TP, offset: int, sent: Sent) -> None:
        self.tp, self._offset, self._sent = tp, offset, sent

    def topic(self) -> str:
        return self.tp.topic

    def partition(self) -> int:
        return self.tp.partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._sent.key

    def value(self) -> bytes | None:
        return self._sent.value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._sent.headers or None

    def timestamp(self) -> tuple[int, int]:
        return CREATE_TIME, self._sent.timestamp_ms or int(time.time() * 1000)


class Outputs:
    """Both producers: the transactional one of the cycle, and the one of sends outside of transactions."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._open: list[Sent] = []  # in the running transaction
        self._reports: list[tuple[Any, Message | Record]] = []
        self._offsets: dict[TP, int] = defaultdict(int)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        delivered: Any = None,
        _: Any = None,
        timestamp_ms: int = 0,
        headers: Any = None,
    ) -> None:
        sent = Sent(
            topic=topic,
            key=_checked(key),
            value=_checked(value),
            headers=list(headers or ()),
            partition=partition,
            timestamp_ms=timestamp_ms,
        )
        self._open.append(sent)
        if delivered is not None:
            tp = TP(topic, partition)
            self._reports.append((delivered, Record(tp, self._offsets[tp], sent)))
            self._offsets[tp] += 1

    def poll(self, timeout_s: float) -> None:
        reports, self._reports = self._reports, []
        for delivered, record in reports:
            delivered(None, record)

    def begin_transaction(self) -> None:
        self._open = []

    def send_offsets_to_transaction(self, *args: Any) -> None:
        """No group keeps them."""

    def commit_transaction(self, timeout_s: float) -> None:
        self.sent += self._open
        self._open = []

    def abort_transaction(self) -> None:
        self._open, self._reports = [], []

    async def maybe_start(self) -> None:
        """Nothing to start."""

    async def send(
        self, topic: str, key: Any, value: Any, partition: int, timestamp_s: float, headers: Any
    ) -> asyncio.Future[RecordMetadata]:
        """A send outside of transactions: it stays, whatever becomes of the agent's work."""
        listed = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        self.sent.append(
            Sent(
                topic=topic,
                key=_checked(key),
                value=_checked(value),
                headers=listed,
                partition=partition,
                timestamp_ms=int(timestamp_s * 1000),
            )
        )
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        future.set_result(RecordMetadata(topic, partition, TP(topic, partition), -1))
        return future


def _checked(data: Any) -> bytes | None:
    """What librdkafka takes. Raises TypeError for anything else, as it does."""
    if data is None or isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    raise TypeError(f"a key or value must be bytes once it is encoded, not {data!r}")


class Channels(set[Any]):
    """In the conductor's place: who reads what, of this agent alone."""

    def channels_of(self, tp: TP) -> list[Any]:
        return [channel for channel in self if tp.topic in channel.topics]


class NoCrashes(Crashes):
    """A trial's worker has no next start that should know."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))

    def _save(self) -> None: ...


class EmptyState(State):
    """Nothing is restored, and nothing stays."""

    def __init__(self, app: Any) -> None:
        self.topology = Topology(
            app_id=app.conf.id, sources=(), tables=tuple(app.tables), partitions=1, topic_ids={}
        )

    def store(self, table: str, partition: int) -> Store:
        return MemoryStore()  # for positions, which nobody asks for again

    def close(self) -> None: ...


class TrialConsumer(Consumer):
    """The driver's consumer with nothing behind it: no poll, no group, each failure the caller's at once."""

    def __init__(self, app: Any) -> None:
        super().__init__(app.transport, None, None, None)
        self.outputs = Outputs()
        kafka: Any = self.outputs
        self._writer.producer = kafka
        self.suspects.crashes = NoCrashes()
        self._state = EmptyState(app)

    def holds(self, partition: int) -> bool:
        return True

    def open(self, partition: int) -> None:
        """Empty tables, of this partition number, unless they are there."""
        for table in self.app.tables.values():
            if partition in table.held:
                continue
            part = table.held[partition] = TablePartition(table, partition, MemoryStore())
            if table.watcher is not None:
                table.watcher.assigned(partition, TableView(part, self.holds))

    async def take(self, record: Record) -> list[Sent]:
        """One cycle of one record: what it wrote. Raises the exception of the agent that failed."""
        before = len(self.outputs.sent)
        self.open(record.tp.partition)
        self.intake.buffers = {record.tp: deque([record])}  # one that failed before is forgotten
        await self._conclude(await self._worked({record.tp: [record]}))
        return self.outputs.sent[before:]

    async def _roll_back(
        self, cycle: Cycle, error: BaseException, ahead: Cycle | None = None
    ) -> None:
        cycle.drop()
        self.outputs.abort_transaction()
        raise error.cause if isinstance(error, RecordFailed) else error


class Trial(Agent):
    """The agent of a `test_context`.

    `sent`: records written so far, those of aborted work left out. `results`: what it yielded last for a put,
    by the put's offset, while its transaction was open.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.results: dict[int, Any] = {}
        self._consumer: Any = None
        self._failed: asyncio.Future[BaseException] | None = None
        self._next_offset: dict[TP, int] = defaultdict(int)
        self._taken: int | None = None  # offset of the put that is in work
        if inspect.isasyncgenfunction(self.fun):
            self.add_sink(self._yielded)

    @property
    def sent(self) -> list[Sent]:
        """Changelog records and positions are not among them: read the table."""
        own = set(self.app.changelogs.values())
        return [one for one in self._consumer.outputs.sent if one.topic not in own]

    def values(self, topic: Topic) -> list[Any]:
        """The values sent to a topic, decoded by it."""
        name = topic.get_topic_name()
        return [topic.value_of(one.value) for one in self.sent if one.topic == name]

    async def put(
        self,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
    ) -> Any:
        """Let the agent process one record (partition 0 unless told) and commit. Answers the record's event.

        Raises the agent's exception: rows and outputs are then as before, and the record is forgotten, where
        Kafka would hand it out again. `timestamp` is in seconds, now unless given.
        """
        if self._consumer is None:
            raise Misuse("put() belongs inside of `async with agent.test_context() as agent`")
        topic = self._topic
        raw_key, data = topic.encoded(key, value)
        tp = TP(topic.get_topic_name(), partition or 0)
        record = self._record(
            tp,
            Sent(
                topic=tp.topic,
                key=raw_key,
                value=data,
                headers=list(headers.items() if isinstance(headers, Mapping) else headers or ()),
                partition=tp.partition,
                timestamp_ms=int((timestamp or 0) * 1000),
            ),
        )
        self._taken = record.offset()
        await self._process(record)
        message = Batch(None, tp, [record]).message(record)  # type: ignore[arg-type]
        return self.app.create_event(raw_key, value, message.headers, message)

    async def _process(self, record: Record) -> None:
        """The record, then those that group_by made of it."""
        todo = deque([record])
        while todo:
            head = todo.popleft()
            sent = await self._consumer.take(head)
            self._check()
            for one in sent:
                if one.topic in self.app.repartitions:
                    todo.append(self._record(TP(one.topic, head.tp.partition), one))

    def _record(self, tp: TP, sent: Sent) -> Record:
        offset = self._next_offset[tp]
        self._next_offset[tp] += 1
        return Record(tp, offset, sent)

    def _yielded(self, value: Any) -> None:
        assert self._taken is not None
        self.results[self._taken] = value

    # -- the app is the trial's from start to stop ------------------------------------------------

    @property
    def _topic(self) -> Topic:
        if not isinstance(self.channel, Topic):
            raise Misuse(f"agent {self.name}: test_context needs an agent that reads a topic")
        return self.channel

    async def on_start(self) -> None:
        app = self.app
        app.finalize()
        if app.started or isinstance(app._consumer, TrialConsumer):
            raise Misuse(
                f"{app.conf.id} runs, or is in a test_context: it can be in one at a time only"
            )
        self._kept = {name: app.__dict__[name] for name in _REPLACED if name in app.__dict__}
        self._held = {table: dict(table.held) for table in app.tables.values()}
        app._policies, app.repartitions = dict(app._policies), dict(app.repartitions)
        self._consumer = app._consumer = TrialConsumer(app)
        app._producer = self._consumer.outputs
        app.topics = Channels()
        self._failed = asyncio.get_running_loop().create_future()
        app.fail_stop = self._fail
        for table in app.tables.values():
            table.held.clear()
        self._consumer.open(0)
        try:
            await super().on_start()
            await self._reads()
        except BaseException:
            await self.on_stop()
            raise

    async def _reads(self) -> None:
        assert self._failed is not None
        reading = asyncio.ensure_future(self._consumer.wait_for_readers({self.name: self}))
        await asyncio.wait({reading, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        self._check()
        await reading

    def _fail(self, error: BaseException) -> None:
        assert self._failed is not None
        if not self._failed.done():
            self._failed.set_result(error)

    def _check(self) -> None:
        """Raise what would have ended the app."""
        assert self._failed is not None
        if self._failed.done():
            raise self._failed.result()

    async def on_stop(self) -> None:
        try:
            await super().on_stop()
        finally:
            self._restore()

    def _restore(self) -> None:
        app, consumer = self.app, self._consumer
        for table, held in self._held.items():
            for partition in table.held:
                if table.watcher is not None:
                    table.watcher.revoked(partition)
            table.held.clear()
            table.held.update(held)
        for name in _REPLACED:
            app.__dict__.pop(name, None)
        app.__dict__.update(self._kept)
        self._consumer = None
        consumer._thread.shutdown(wait=False)


_REPLACED = ("_consumer", "_producer", "topics", "fail_stop", "_policies", "repartitions")
