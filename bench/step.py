"""CPU of a transfer through all services, without a broker: the whole, and each step of it.

    python -m bench.step [--transfers 3000] [--rounds 5] [--split]

Real apps, agents, tables, deciders and codec; only librdkafka is a list here. CPU of this process is
measured, not time, and the best of the rounds: a busy machine makes it a little slower, not wrong.
The floor of the same run is the codec alone: each input decoded once, each event and each changed row
encoded once. What counts is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from agents.envelope import Input
from agents.recent import Recent
from agents.relay import Relay, copies
from agents.transact import Shell
from bench.load import OPERATOR
from domain.account import OpenAccount
from domain.decider import Overlay, apply
from domain.saga import Rail, TransactionCompleted, TransactionType
from domain.services import DECIDERS
from domain.transaction import CreateTransaction
from pipeline import RELAY, SERVICES
from resilience.garbage import collect_rarely
from schemas.codec import Codec
from streaming import App, DriverConfig, partition_of
from streaming.context import Batch, enter
from streaming.cycle import Cycle
from streaming.stores import MemoryStore
from streaming.tables import TablePartition
from topics.catalog import Installation
from topics.subscriptions import route

PARTITIONS = 3
BATCH = 600  # records of one partition in one transaction
START_MS = 1_800_000_000_000
POSITION = b"{}"


class Record:
    """What `confluent_kafka.Message` answers."""

    __slots__ = ("_at_ms", "_headers", "_key", "_offset", "_partition", "_value")

    def __init__(
        self, partition: int, offset: int, key: Any, value: Any, headers: Any, at_ms: int
    ) -> None:
        self._partition, self._offset, self._at_ms = partition, offset, at_ms
        self._key, self._value, self._headers = key, value, headers

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> Any:
        return self._key

    def value(self) -> Any:
        return self._value

    def headers(self) -> Any:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 2, self._at_ms


class Broker:
    """Topics as lists, and the producer of everybody."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.sent: list[tuple[Any, ...]] = []
        self.produced = 0
        self.now_ms = START_MS

    def produce(self, *record: Any) -> None:
        """As Producer.produce: topic, value, key, partition, call-backs, timestamp, headers."""
        self.sent.append(record)

    def deliver(self) -> None:
        """What was produced becomes readable; not part of what is measured."""
        for topic, value, key, partition, _, _, _, headers in self.sent:
            to = partition if partition >= 0 else partition_of(key, PARTITIONS)
            log = self.logs[topic, to]
            self.now_ms += random.random() < 0.2
            log.append(Record(to, len(log), key, value, headers, self.now_ms))
        self.produced += len(self.sent)
        self.sent.clear()


@dataclass(slots=True)
class Bank:
    """All apps of a transfer in this process, and the CPU that they used."""

    broker: Broker = field(default_factory=Broker)
    codec: Codec = field(default_factory=Codec)
    recent: Recent | None = None  # None: as if each service ran in a process of its own
    shells: dict[str, Shell] = field(default_factory=dict)
    readers: list[tuple[App, str, Callable[[Any], Any]]] = field(default_factory=list)
    read: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    inputs: int = 0
    rows: int = 0
    cpu_s: float = 0.0
    accounts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        where = Installation(partitions=PARTITIONS)
        for name, service in SERVICES.items():
            shell = Shell(_app(name), service, self.codec, where, self.recent)
            self.shells[name] = shell
            self._listen(shell.app)
            for n in range(PARTITIONS):
                shell.table.held[n] = part = TablePartition(shell.table, n, MemoryStore())
                shell.watched.assigned(n, _View(part))
        relay = Relay(_app(RELAY), DECIDERS, self.codec, where, self.recent)
        self._listen(relay.app)

    def _listen(self, app: App) -> None:
        for agent in app.agents.values():
            self.readers.append((app, agent.channel.get_topic_name(), agent.fun))

    def command(self, service: str, key: str, command: Any) -> None:
        command_id = str(uuid.uuid4()).encode()
        headers = [
            ("ce_id", command_id),
            ("ce_source", b"/gateway"),
            ("ce_type", f"streambank.{service}.{type(command).__name__}".encode()),
            ("correlation_id", command_id),
            ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("actor", OPERATOR.encode()),
            ("origin", b"203.0.113.77 00f067aa0ba902b7"),
            ("user_id", OPERATOR.encode()),
        ]
        value = self.codec.encode(command)
        self.broker.produce(f"{service}.inbox", value, key.encode(), -1, None, None, 0, headers)

    async def run(self) -> None:
        """Until nothing moves."""
        self.broker.deliver()
        while any([await self._cycle(*reader) for reader in self.readers]):
            pass

    async def _cycle(self, app: App, topic: str, agent: Callable[[Any], Any]) -> bool:
        """One transaction of one agent: what the driver does, without its thread."""
        taken = {n: self._next(app, topic, n) for n in range(PARTITIONS)}
        if not any(taken.values()):
            return False
        started = time.process_time()
        cycle: Any = Cycle(app)
        for n, records in taken.items():
            if records:
                batch = Batch(cycle, _tp(topic, n), records)
                enter(batch)
                await agent(_values(batch))
        for say in cycle._last:
            say()
        cycle.changes = {part: part.encoded() for part in cycle.dirty}
        cycle.seal()
        produce = self.broker.produce
        for _, _, to, key, value, partition, headers, at_ms in cycle.outputs:
            produce(to, value, key, partition, None, None, at_ms, headers)
        for part, rows in cycle.changes.items():
            self.rows += len(rows)
            for key, value in rows:
                produce(part.changelog, value, key, part.partition, None, None, 0, None)
        for part, rows in cycle.changes.items():
            part.merge(rows, POSITION, 0)
        self.cpu_s += time.process_time() - started
        self.inputs += sum(map(len, taken.values()))
        self.broker.deliver()
        return True

    def _next(self, app: App, topic: str, partition: int) -> list[Record]:
        place = (app.conf.id, topic, partition)
        at = self.read[place]
        records = self.broker.logs[topic, partition][at : at + BATCH]
        self.read[place] = at + len(records)
        return records

    @property
    def counts(self) -> tuple[int, int, int]:
        """Records read, records written, and those of them that are rows."""
        return self.inputs, self.broker.produced, self.rows

    async def fund(self, accounts: int) -> None:
        for n in range(accounts):
            account_id = str(uuid.UUID(int=random.getrandbits(128), version=4))
            self.accounts.append(account_id)
            command = OpenAccount(
                account_id=account_id,
                user_id=f"person-{n}",
                name="",
                currencies=("USD",),
                overdraft_limits={},
                actor_id=OPERATOR,
                request_hash="",
            )
            self.command("account", account_id, command)
        await self.run()
        for n, account_id in enumerate(self.accounts):
            self.order(None, account_id, n, 10_000_000)
        await self.run()

    def order(self, source: str | None, destination: str, owner: int, amount_minor: int) -> None:
        transaction_id = str(uuid.UUID(int=random.getrandbits(128), version=4))
        command = CreateTransaction(
            transaction_id=transaction_id,
            type=TransactionType.TRANSFER if source else TransactionType.DEPOSIT,
            amount_minor=amount_minor,
            currency="USD",
            source_account_id=source,
            destination_account_id=destination,
            owner_id=f"person-{owner}",
            actor_id=OPERATOR,
            privileged=True,
            rail=Rail.BOOK,
            deadline_s=3600,
            description="",
            reference="",
            metadata={},
            request_hash=transaction_id,
        )
        self.command("transaction", transaction_id, command)

    async def transfers(self, count: int) -> float:
        """CPU seconds of so many transfers between random accounts."""
        for _ in range(count):
            source, destination = random.sample(range(len(self.accounts)), 2)
            self.order(
                self.accounts[source],
                self.accounts[destination],
                source,
                random.randint(1, 100),
            )
        before = self.cpu_s
        await self.run()
        return self.cpu_s - before


class _View:
    """A partition's committed rows, as a watcher sees them when it is assigned."""

    def __init__(self, part: TablePartition) -> None:
        self._part = part

    def scan(self, prefix: bytes) -> Any:
        return ((key, self._part.loads(data)) for key, data in self._part.store.scan(prefix))


def _app(name: str) -> App:
    driver = DriverConfig(instance="step", bootstrap="127.0.0.1:1")
    return App(name, driver=driver, topic_partitions=PARTITIONS)


def _tp(topic: str, partition: int) -> Any:
    from faust.types import TP

    return TP(topic, partition)


async def _values(batch: Batch) -> AsyncIterator[bytes]:
    """The stream of one batch."""
    for n, record in enumerate(batch.records):
        batch.pos = n
        yield record.value()


@dataclass(slots=True)
class Sample:
    """One message of a transfer and all that came of it."""

    shell: Shell
    record: Record
    source: Input
    message: Any
    rows: dict[str, Any]
    events: Any
    changes: Any


def samples(bank: Bank, since: dict[tuple[str, int], int]) -> list[Sample]:
    """Every message that the services heard since then, decided once more over rows of its own.

    Rows are folded from nothing, so the accounts' are wrong by what was before: given as they are now.
    """
    found = []
    for name, shell in bank.shells.items():
        decider, topic = shell.service.decider, f"{name}.inbox"
        for n in range(PARTITIONS):
            part = shell.table.held[n]
            kept: dict[str, Any] = {}
            for record in bank.broker.logs[topic, n][since.get((topic, n), 0) :]:
                message = bank.codec.decode(record.value())
                source = Input(topic, n, record.offset(), record.timestamp()[1],
                               dict(record.headers()))  # fmt: skip
                for key in decider.keys(message):
                    lasting = key.startswith(("account/", "owner/"))
                    if key not in kept and lasting and (row := part.get(key.encode())) is not None:
                        kept[key] = row
                rows = {key: kept[key] for key in decider.keys(message) if key in kept}
                events = decider.decide(rows, message, source.at_ms)
                rows |= {k: kept[k] for e in events for k in decider.keys(e) if k in kept}
                changes = apply(decider, Overlay(rows), events)
                kept.update({k: v for k, v in changes.items() if v is not None})
                found.append(Sample(shell, record, source, message, rows, events, changes))
    return found


def ends(bank: Bank) -> dict[tuple[str, int], int]:
    return {place: len(log) for place, log in bank.broker.logs.items()}


def steps(  # noqa: C901 - a function a step
    bank: Bank, found: list[Sample]
) -> dict[str, Callable[[], None]]:
    """Each step of all samples at once, as a function."""
    codec = bank.codec
    relayed = [
        (event, codec.encode(event))
        for sample in found
        for event in sample.events
        if isinstance(event, TransactionCompleted)
    ]

    kept = {s.record._value: s.message for s in found} if bank.recent else {}

    def decode() -> None:
        for sample in found:
            value = sample.record._value
            if sample.source.foreign or kept.get(value) is None:
                codec.decode(value)
        for _, value in relayed:
            if kept.get(value) is None:
                codec.decode(value)

    def decide() -> None:
        for s in found:
            s.shell.service.decider.decide(s.rows, s.message, s.source.at_ms)

    def evolve() -> None:
        for s in found:
            if s.events:
                apply(s.shell.service.decider, Overlay(s.rows), s.events)

    def encode_events() -> None:
        for s in found:
            for event in s.events:
                codec.encode(event)

    def headers() -> None:
        for s in found:
            if s.events:
                envelope, place = s.shell.transactor._envelope, s.source.place
                shared = envelope.shared(s.source)
                for n, event in enumerate(s.events):
                    subject = s.shell.service.decider.aggregate_id(event).encode()
                    envelope.event(shared, place, n, type(event), subject)

    def routes() -> None:
        for s in found:
            for event in s.events:
                route(event)
        for event, _ in relayed:
            list(copies(event, PARTITIONS))

    def encode_rows() -> None:
        for s in found:
            for row in s.changes.values():
                if row is not None:
                    codec.encode(row)

    return {
        "decode": decode,
        "decide": decide,
        "evolve": evolve,
        "encode events": encode_events,
        "headers": headers,
        "route": routes,
        "encode rows": encode_rows,
    }


def best_us(functions: dict[str, Callable[[], None]], rounds: int, per: int) -> dict[str, float]:
    """CPU microseconds of each function in its best round, divided by `per`; rounds alternate."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.process_time()
            function()
            best[name] = min(best[name], (time.process_time() - started) / per * 1e6)
    return best


class Collected:
    """CPU that the garbage collector used."""

    def __init__(self) -> None:
        self.cpu_s = self._started = 0.0

    def __call__(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._started = time.process_time()
        else:
            self.cpu_s += time.process_time() - self._started


async def measure(count: int, rounds: int, split: bool) -> None:
    random.seed(7)
    bank = Bank(recent=None if split else Recent())
    await bank.fund(1_000)
    collect_rarely()
    collected = Collected()
    gc.callbacks.append(collected)
    was, since = bank.counts, ends(bank)
    whole: list[float] = []
    collector: list[float] = []
    for n in range(rounds):
        before = collected.cpu_s
        whole.append(await bank.transfers(count) / count * 1e6)
        collector.append((collected.cpu_s - before) / count * 1e6)
        if not n:
            inputs, sent, rows = [(a - b) / count for a, b in zip(bank.counts, was, strict=True)]
            found = samples(bank, since)
    gc.callbacks.remove(collected)
    cost = best_us(steps(bank, found), rounds, count)
    total, at = min(whole), whole.index(min(whole))
    floor = cost["decode"] + cost["encode events"] + cost["encode rows"]
    print(f"a transfer: {inputs:.1f} records read, {sent:.1f} written, {rows:.1f} of them rows")
    print(f"{'':24}{'µs CPU':>8}{'share':>8}")
    for name, us in cost.items():
        print(f"{name:24}{us:8.1f}{us / total:8.0%}")
    rest = total - sum(cost.values()) - collector[at]
    print(f"{'shell, tables, produce':24}{rest:8.1f}{rest / total:8.0%}")
    print(f"{'garbage collector':24}{collector[at]:8.1f}{collector[at] / total:8.0%}")
    print(f"{'the whole transfer':24}{total:8.1f}   {total / floor:.2f} × its codec's {floor:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transfers", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--split", action="store_true", help="as if each service were a process")
    options = parser.parse_args()
    asyncio.run(measure(options.transfers, options.rounds, options.split))


if __name__ == "__main__":
    main()
