"""transact: one service's decider over its inbox, exactly once.

    record --decode--> message --handle(rows)--> events, changes
           --> table, <service>.events, routed copies, private facts: one Kafka transaction

A record from outside that no schema can read, or that is no command of this service, goes to
`<service>.dead` in the same transaction, with its reason and where it came from. A fact, a result
or a tick that can't be read, and any exception of a decider, stop the partition.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from agents.envelope import Envelope, Headers, Input, dead_headers, running_record
from agents.watched import Watched, weigh
from domain.decider import Decider, Tick, handle
from domain.ledger import SystemBalance
from domain.payment import RailAnswered
from logs import context, trace_id
from schemas.errors import Unreadable
from topics.subscriptions import EVERY, SUBSCRIPTIONS, route

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from domain.decider import Changes, Event, Message, Rows
    from topics.catalog import Installation

log = logging.getLogger(__name__)

INNER = (Tick, RailAnswered)  # what only the shells themselves say


class Codec(Protocol):
    """`schemas.codec.Codec`: objects to bytes and back."""

    def encode(self, obj: Any) -> bytes: ...

    def decode(self, data: bytes) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a service file declares: its decider, and under which key each command must come."""

    decider: Decider
    command_keys: Mapping[type, Callable[[Any], str]]

    @property
    def name(self) -> str:
        return self.decider.service


class NotACommand(Unreadable):
    """A record from outside that can be read but may not be obeyed."""


class Said(NamedTuple):
    """One record to write. `topic` without the installation's prefix; partition -1: by the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int
    headers: Headers
    at_ms: int


def commands(decider: Decider) -> frozenset[type]:
    """The messages that come from outside: neither facts, nor results, nor ticks."""
    inbox = f"{decider.service}.inbox"
    facts = {row.event for row in SUBSCRIPTIONS if row.topic == inbox}
    return frozenset(decider.messages) - facts - frozenset(INNER)


class Heard:
    """The log context of a message; made for each, so what it says is found only when asked."""

    __slots__ = ("_headers", "service")

    def __init__(self, service: str, headers: Mapping[str, bytes]) -> None:
        self.service, self._headers = service, headers

    @property
    def trace_id(self) -> str | None:
        return trace_id(self._headers.get("traceparent", b"").decode(errors="replace"))

    @property
    def user_id(self) -> str | None:
        return self._headers.get("actor", b"").decode(errors="replace") or None


class Transactor:
    """One service's step from record to records. Knows no Kafka."""

    def __init__(self, service: Service, codec: Codec, partitions: int) -> None:
        self.service = service
        self.decider = service.decider
        self.codec = codec
        self.partitions = partitions
        self.commands = commands(service.decider)
        assert self.commands == set(service.command_keys), f"command keys of {service.name}"
        self._messages = frozenset(service.decider.messages)
        self._private = frozenset(service.decider.private_events)
        self._events_topic = f"{service.name}.events"
        self._private_topic = f"{service.name}.private"
        self._envelope = Envelope(service.name)

    def read(self, source: Input, key: bytes | None, value: bytes | None) -> Message:
        """The message in a record. `Unreadable` says why it is none that may be handled."""
        if value is None:
            raise Unreadable("no value")
        message = self.codec.decode(value)
        kind = type(message)
        if not source.foreign:
            if kind not in self._messages:
                raise Unreadable(f"{kind.__name__} is nothing that {self.service.name} hears")
        elif kind not in self.commands:
            raise NotACommand(f"{kind.__name__} is no command of {self.service.name}")
        elif (expected := self.service.command_keys[kind](message)).encode() != key:
            raise NotACommand(f"{kind.__name__} of {expected} arrived under another key")
        return message

    def decide(self, rows: Rows, message: Message, source: Input) -> tuple[list[Said], Changes]:
        """What is to be written about a message, and the rows that change."""
        events, changes = handle(self.decider, rows, message, source.at_ms)
        if not events:
            return [], changes
        return list(self._said(source, events)), changes

    def _said(self, source: Input, events: Sequence[Event]) -> Iterator[Said]:
        envelope, encode, at_ms = self._envelope, self.codec.encode, source.at_ms
        aggregate_id, place = self.decider.aggregate_id, source.place
        carried = envelope.carried(source)
        for n, event in enumerate(events):
            kind = type(event)
            subject = aggregate_id(event)
            value = encode(event)
            headers = envelope.event(carried, place, n, kind, subject)
            topic = self._private_topic if kind in self._private else self._events_topic
            yield Said(topic, subject.encode(), value, source.partition, headers, at_ms)
            for inbox, key in route(event):
                if key is EVERY:
                    for partition in range(self.partitions):
                        yield Said(inbox, subject.encode(), value, partition, headers, at_ms)
                else:
                    yield Said(inbox, key.encode(), value, -1, headers, at_ms)

    def dead(self, source: Input, key: bytes | None, value: bytes | None, why: Unreadable) -> Said:
        """The dead letter of a record: as it was, with its reason and where it came from."""
        topic, headers = f"{self.service.name}.dead", dead_headers(source, why)
        return Said(topic, key, value, source.partition, headers, source.at_ms)

    def bind_log(self, source: Input) -> None:
        """Log what follows with the trace and the user of this message."""
        context.set(Heard(self.service.name, source.headers))


class TableRows(Mapping[str, Any]):
    """The table of the running record's partition, as deciders read it."""

    __slots__ = ("_get",)

    def __init__(self, table: Any) -> None:
        self._get = table.here().get  # found once for a record, not for each of its rows

    def get(self, key: str, default: Any = None) -> Any:
        row = self._get(key.encode())
        return default if row is None else row

    def __getitem__(self, key: str) -> Any:
        row = self._get(key.encode())
        if row is None:
            raise KeyError(key)
        return row

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._get(key.encode()) is not None

    def __iter__(self) -> Iterator[str]:
        raise TypeError("a decider names the rows that it reads, it never lists them")

    def __len__(self) -> int:
        raise TypeError("a decider names the rows that it reads, it never counts them")


class RowCodec:
    """Rows as table values. Rows never change in place, so decoded ones are kept."""

    immutable = True

    def __init__(self, codec: Codec) -> None:
        self.dumps, self.loads = codec.encode, codec.decode


class Shell:
    """One service's app on the driver: its agent, its table and its ticks."""

    def __init__(
        self, app: Any, service: Service, codec: Codec, installation: Installation
    ) -> None:
        self.app = app
        self.service = service
        self.codec = codec
        self.installation = installation
        self.transactor = Transactor(service, codec, installation.partitions)
        self.watched = Watched(service.decider.indexes, service.name)
        self.table = app.Table(
            "table",
            key_type=bytes,
            value_codec=RowCodec(codec),
            partitions=installation.partitions,
            watcher=self.watched,
        )
        self._keeps_ledger = SystemBalance in service.decider.rows
        self._topics: dict[str, Any] = {}
        self._inbox = self._topic(f"{service.name}.inbox")
        app.agent(self._inbox, name=f"{service.name}.decide")(self._decide)
        app.timer(1.0, name=f"{service.name}.ticks")(self._tick)

    def _topic(self, name: str) -> Any:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = self.app.topic(
                f"{self.installation.namespace}{name}",
                key_type=bytes,
                value_type=bytes,
                value_serializer="raw",
                on_poison="stop",
                on_error="stop",
            )
        return topic

    async def _decide(self, stream: Any) -> None:
        table, topic = self.table, self._topic
        name = self._inbox.get_topic_name()
        async for value in stream:
            record = running_record()
            source = Input(
                name,
                record.partition(),
                record.offset(),
                record.timestamp()[1],
                dict(record.headers() or ()),
            )
            rows = TableRows(table)
            said, changes = self._step(rows, source, record.key(), value)
            if self._keeps_ledger:
                weigh(source.partition, rows, changes)
            for row_key, row in changes.items():
                if row is None:
                    del table[row_key]
                else:
                    table[row_key] = row
            for to, key, data, partition, headers, at_ms in said:
                topic(to).put(
                    key=key,
                    value=data,
                    partition=partition,
                    headers=headers,
                    timestamp_ms=at_ms,
                )

    def _step(
        self, rows: Rows, source: Input, key: bytes | None, value: bytes | None
    ) -> tuple[list[Said], Changes]:
        self.transactor.bind_log(source)
        try:
            message = self.transactor.read(source, key, value)
        except Unreadable as why:
            if not source.foreign:
                log.error("%s can't be read, its partition stops: %s", source.place, why)
                raise
            log.warning("dead letter %s: %s", source.place, why)
            return [self.transactor.dead(source, key, value, why)], {}
        return self.transactor.decide(rows, message, source)

    async def _tick(self) -> None:
        """Write ticks for what is due, at most once a second, outside of any transaction."""
        now_ms = time.time_ns() // 1_000_000
        headers = [
            ("ce_source", f"/{self.service.name}".encode()),
            ("ce_type", b"streambank.Tick"),
        ]
        for partition, ticks in self.watched.ticks(now_ms):
            for tick in ticks:
                value = self.codec.encode(tick)
                await self._inbox.send(
                    key=b"tick", value=value, partition=partition, headers=headers
                )

    def ready(self) -> bool:
        """Its partitions, be they none, are restored and read."""
        return bool(self.app.consumer.ready)

    def last_poll_s(self) -> float:
        return float(self.app.consumer.last_poll_s)

    def restoring(self, partition: int) -> bool:
        return bool(self.app.consumer.restoring(partition))
