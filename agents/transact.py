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
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from agents.envelope import Envelope, Headers, Input, dead_headers, given, running
from agents.watched import Watched, weigh
from domain.account import CreditsGathered
from domain.analytics import PointsRead
from domain.audit import RecordsRead
from domain.decider import Decider, Tick, handle
from domain.ledger import SystemBalance
from logs import context, trace_id
from schemas.errors import Unreadable
from streaming import partition_of
from topics.catalog import TOPICS
from topics.subscriptions import EVERY, SUBSCRIPTIONS, gathers, route

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agents.recent import Recent
    from domain.decider import Changes, Event, Message, Rows
    from topics.catalog import Installation
    from topics.subscriptions import Gathered

log = logging.getLogger(__name__)

INNER = (Tick, CreditsGathered, RecordsRead, PointsRead)  # what only the shells themselves say
GATHER_LIMIT = 1_000  # parts of one message


class Codec(Protocol):
    """`schemas.codec.Codec`: objects to bytes and back."""

    def encode(self, obj: Any) -> bytes: ...

    def decode(self, data: bytes) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a service file declares: its decider, under which key each command must come, and what
    `perform` answers it.
    """

    decider: Decider
    command_keys: Mapping[type, Callable[[Any], str]]
    results: tuple[type, ...] = ()

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


def commands(service: Service) -> frozenset[type]:
    """The messages that come from outside: neither facts, nor results, nor ticks."""
    inbox = f"{service.name}.inbox"
    facts = {row.event for row in SUBSCRIPTIONS if row.topic == inbox}
    return frozenset(service.decider.messages) - facts - {*service.results, *INNER}


class Heard:
    """The log context of the message that an agent works on; it says what its headers say, when asked."""

    __slots__ = ("headers", "service")

    def __init__(self, service: str) -> None:
        self.service = service
        self.headers: Mapping[str, bytes] = {}

    @property
    def trace_id(self) -> str | None:
        return trace_id(self.headers.get("traceparent", b"").decode(errors="replace"))

    @property
    def user_id(self) -> str | None:
        return self.headers.get("actor", b"").decode(errors="replace") or None


class Gathering:
    """What the facts of one transaction say together: a message to each partition that hears of them."""

    __slots__ = ("_copied", "_parts", "at_ms")

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int, Gathered], list[Any]] = {}
        self._copied: dict[tuple[str, int, Gathered], Headers] = {}  # of the first fact
        self.at_ms = 0  # of the last fact

    def add(self, event: Event, copied: Headers, partitions: int, at_ms: int) -> None:
        """A fact that was said, with the headers of its copies."""
        found = gathers(event)
        if found is not None:
            (topic, key), gathered = found
            target = (topic, home(key, partitions), gathered)
            self._parts.setdefault(target, []).append(gathered.part(event))
            self._copied.setdefault(target, copied)
            self.at_ms = at_ms

    def said(self, encode: Callable[[Any], bytes]) -> Iterator[Said]:
        """The messages. One of a single fact carries on its trace and actor, one of many nobody's.

        Its id is made of the first fact's.
        """
        for target, parts in self._parts.items():
            topic, partition, gathered = target
            (_, ce_id), (_, ce_type), source, *carried = self._copied[target]
            for n in range(0, len(parts), GATHER_LIMIT):
                some = tuple(parts[n : n + GATHER_LIMIT])
                headers = [
                    ("ce_id", b"%b-gathered-%d" % (ce_id, n)),
                    ("ce_type", ce_type.rpartition(b".")[0] + b"." + gathered.name),
                    source,
                    *(carried if len(parts) == 1 else ()),
                ]
                value = encode(gathered.message(some))
                yield Said(topic, b"gathered", value, partition, headers, self.at_ms)


@lru_cache(maxsize=100_000)  # murmur2 in Python takes as long as all the rest of a copy
def home(key: str, partitions: int) -> int:
    """The partition of an aggregate."""
    return partition_of(key.encode(), partitions)


class Transactor:
    """One service's step from record to records. Knows no Kafka."""

    def __init__(
        self, service: Service, codec: Codec, partitions: int, recent: Recent | None = None
    ) -> None:
        self.service = service
        self.recent = recent
        self.decider = service.decider
        self.codec = codec
        self.partitions = partitions
        self.commands = commands(service)
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
        message = None if self.recent is None else self.recent.get(value)
        if message is None:
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

    def decide(
        self, rows: Rows, message: Message, source: Input, gathering: Gathering
    ) -> tuple[list[Said], Changes]:
        """What is to be written about a message, and the rows that change.

        What its facts say together with others of the transaction goes into `gathering`.
        """
        events, changes = handle(self.decider, rows, message, source.at_ms)
        if not events:
            return [], changes
        return list(self._said(source, events, gathering)), changes

    def _said(self, source: Input, events: Sequence[Event], gathering: Gathering) -> Iterator[Said]:
        envelope, encode, at_ms = self._envelope, self.codec.encode, source.at_ms
        aggregate_id, place, recent = self.decider.aggregate_id, source.place, self.recent
        shared = envelope.shared(source)
        for n, event in enumerate(events):
            kind = type(event)
            subject = aggregate_id(event).encode()
            value = encode(event)
            headers, copied = envelope.event(shared, place, n, kind, subject)
            topic = self._private_topic if kind in self._private else self._events_topic
            yield Said(topic, subject, value, source.partition, headers, at_ms)
            gathering.add(event, copied, self.partitions, at_ms)
            routes = route(event)
            if routes and recent is not None:
                recent.add(value, event)
            for inbox, key in routes:
                if key is EVERY:
                    for partition in range(self.partitions):
                        yield Said(inbox, subject, value, partition, copied, at_ms)
                else:
                    yield Said(inbox, key.encode(), value, -1, copied, at_ms)

    def dead(self, source: Input, key: bytes | None, value: bytes | None, why: Unreadable) -> Said:
        """The dead letter of a record: as it was, with its reason and where it came from."""
        topic, headers = f"{self.service.name}.dead", dead_headers(source, why)
        return Said(topic, key, value, source.partition, headers, source.at_ms)


class TableRows(Mapping[str, Any]):
    """The table of the running record's partition, as deciders read it."""

    __slots__ = ("_get",)

    def __init__(self, part: Any) -> None:
        self._get = part.get

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
        self,
        app: Any,
        service: Service,
        codec: Codec,
        installation: Installation,
        recent: Recent | None = None,
    ) -> None:
        self.app = app
        self.service = service
        self.codec = codec
        self.installation = installation
        self.transactor = Transactor(service, codec, installation.partitions, recent)
        self.watched = Watched(service.decider.indexes, service.name)
        self.table = app.Table(
            "table",
            key_type=bytes,
            value_codec=RowCodec(codec),
            partitions=installation.partitions,
            watcher=self.watched,
        )
        self._gathering = Gathering()
        self._gathered: Any = None  # the cycle whose facts are in it
        self._keeps_ledger = SystemBalance in service.decider.rows
        self._names = {topic.name: f"{installation.namespace}{topic.name}" for topic in TOPICS}
        self._inbox = app.topic(
            self._names[f"{service.name}.inbox"],
            key_type=bytes,
            value_type=bytes,
            value_serializer="raw",
            on_poison="stop",
            on_error="stop",
        )
        app.agent(self._inbox, name=f"{service.name}.decide")(self._decide)
        app.timer(1.0, name=f"{service.name}.ticks")(self._tick)

    async def _decide(self, stream: Any) -> None:
        table, names = self.table, self._names
        inbox = self._inbox.get_topic_name()
        heard = Heard(self.service.name)
        context.set(heard)
        async for value in stream:
            batch, record = running()
            heard.headers = headers = given(record.headers())
            at_ms = record.timestamp()[1]
            source = Input(inbox, batch.partition, record.offset(), at_ms, headers)
            if batch.cycle is not self._gathered:
                self._gather(batch.cycle)
            rows = TableRows(table.held[batch.partition])
            said, changes = self._step(rows, source, record.key(), value)
            if changes:
                if self._keeps_ledger:
                    weigh(source.partition, rows, changes)
                table.change(changes)
            produce = batch.cycle.produce
            for to, key, data, partition, saying, said_ms in said:
                produce(names[to], key, data, partition, saying, said_ms)

    def _step(
        self, rows: Rows, source: Input, key: bytes | None, value: bytes | None
    ) -> tuple[list[Said], Changes]:
        try:
            message = self.transactor.read(source, key, value)
        except Unreadable as why:
            if not source.foreign:
                log.error("%s can't be read, its partition stops: %s", source.place, why)
                raise
            log.warning("dead letter %s: %s", source.place, why)
            return [self.transactor.dead(source, key, value, why)], {}
        return self.transactor.decide(rows, message, source, self._gathering)

    def _gather(self, cycle: Any) -> None:
        """A new transaction: what its facts say together is written when all have been said."""
        self._gathered, self._gathering = cycle, (gathering := Gathering())

        def say() -> None:
            for to, key, data, partition, saying, said_ms in gathering.said(self.codec.encode):
                cycle.produce(self._names[to], key, data, partition, saying, said_ms)

        cycle.at_end(say)

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
