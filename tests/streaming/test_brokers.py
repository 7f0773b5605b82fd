"""Three brokers that restart, die and lose replicas under load: stalls end by themselves, sums are exact.

The worker is supervised as in production. If a person had to help, it would end with exit code 71: that fails.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import ConsumerGroupState, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

import streaming.state
from deploy.local.kafka import HOST
from streaming.admin import EARLIEST, Admin
from streaming.errors import Fenced
from streaming.owners import described
from tests.streaming.kit import committed, rows, running, set_config, until, wait_until, write
from tests.streaming.supervised import NEEDS_A_PERSON, Supervised
from tests.streaming.test_cycle import adder
from tests.streaming.test_kills import check, drained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from deploy.local.kafka import Kafka

PARTITIONS = 3
STEPS = ("stable_offsets", "log_ends", "restore")  # of a restore, as `state.py` calls them


class Load:
    """Writes numbers, some at a time, and survives whatever happens to brokers; `count` that are written."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.count = 0
        self._topic = topic
        self._over = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "message.timeout.ms": 300_000,
            }
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(60)

    def stop(self) -> int:
        self._over.set()
        self._thread.join(60)
        assert self._producer.flush(120) == 0
        return self.count

    def _run(self) -> None:
        while not self._over.wait(0.05):
            for _ in range(5):
                self._producer.produce(
                    self._topic, key=b"k%d" % (self.count % 9), value=b"%d" % self.count
                )
                self.count += 1
            self._producer.poll(0)


class Stand:
    """Three brokers, an adder over replicated topics, and its load."""

    def __init__(self, kafka: Kafka, name: str, load: Any = None, adder: Any = None) -> None:
        self.kafka, self.name, self.load, self.adder = kafka, name, load, adder
        self.admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def done(self) -> int:
        """Records processed, as the group's offsets say."""
        topic = f"{self.name}.in"
        return sum(
            max(0, committed(self.kafka.bootstrap, self.name, topic, n)) for n in range(PARTITIONS)
        )

    def goes_on(self, timeout_s: float = 90) -> None:
        """More is processed than now: the stall, if there was one, is over."""
        before = self.load.count

        def more() -> bool:
            assert NEEDS_A_PERSON not in self.adder.codes, self.adder.worker.text[-3000:]
            try:
                return self.done() > before
            except KafkaException:
                return False

        wait_until(more, timeout_s)

    def replicas(self, topic: str, partition: int) -> Any:
        return self.admin.list_topics(topic, 10).topics[topic].partitions[partition]

    def leader(self, topic: str, partition: int) -> int:
        return int(self.replicas(topic, partition).leader)

    def group_coordinator(self) -> int:
        """Asked with a client of its own: one that remembers a dead coordinator asks that one again."""

        def found() -> int | None:
            admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
            try:
                group = described(admin, self.name, 10)
            except KafkaException:
                return None
            return int(group.coordinator.id) if group.state is ConsumerGroupState.STABLE else None

        return int(wait_until(found, 30))

    def transaction_coordinator(self, instance: int = 0) -> int:
        """The leader of its partition of the transaction log; a transactional id is hashed as Java does."""
        value = 0
        for char in f"{self.name}.{instance}":
            value = (31 * value + ord(char)) & 0xFFFFFFFF
        return self.leader("__transaction_state", (value & 0x7FFFFFFF) % 4)

    def die(self, node: int) -> None:
        self.kafka.kill(node)
        self.goes_on()
        self.kafka.restart(node)
        self.in_sync()

    def in_sync(self) -> None:
        """All replicas of all partitions, or the next death would take a majority away.

        Each broker says so: one that was frozen tells, at first, what it knew then.
        """

        def synced(node: int) -> bool:
            topics = _told(f"{HOST}:{self.kafka.port(node)}").topics.values()
            return all(
                len(part.isrs) == len(part.replicas) == 3
                for topic in topics for part in topic.partitions.values()
            )  # fmt: skip

        wait_until(lambda: all(map(synced, self.kafka.nodes)), 90)

    def min_isr_unmet(self, node: int, seconds: float) -> None:
        """A node is away, and what we write to wants all three."""
        out, changelog = f"{self.name}.out", f"{self.name}-sums-changelog"
        for topic in (out, changelog):
            set_config(self.kafka.bootstrap, topic, min_insync_replicas="3")
        self.kafka.kill(node)
        wait_until(lambda: len(self.replicas(out, 0).isrs) == 2, 60)
        time.sleep(seconds)  # the outage itself
        self.kafka.restart(node)
        self.goes_on()
        self.in_sync()

    def settle(self) -> None:
        count = self.load.stop()
        wait_until(lambda: self.done() == count, 90)
        wait_until(lambda: drained(self.kafka.bootstrap, self.name, count), 30)
        assert NEEDS_A_PERSON not in self.adder.codes
        check(self.kafka.bootstrap, self.name, PARTITIONS)


class Gate:
    """Holds every restore before one of its steps, once it is shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step = ""
        self.reached, self.opened = threading.Event(), threading.Event()
        for name in STEPS:
            where = Admin if name == "log_ends" else streaming.state
            monkeypatch.setattr(where, name, self._held(name, getattr(where, name)))

    def _held(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **kw: Any) -> Any:
            if name == self.step and (name != "log_ends" or _asks_of_sources(*args)):
                self.reached.set()
                self.opened.wait(60)
            return step(*args, **kw)

        return held

    def shut(self, step: str) -> None:
        self.reached.clear()
        self.opened.clear()
        self.step = step

    def open(self) -> None:
        self.step = ""
        self.opened.set()


def _asks_of_sources(_: Admin, tps: Sequence[Any], where: int, *__: Any) -> bool:
    """As a restore does at its end; others ask of changelogs, or for ends alone."""
    return where == EARLIEST and not any(tp.topic.endswith("-changelog") for tp in tps)


def _create(kafka: Kafka, name: str) -> None:
    """An adder's topics, on each of three brokers."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    new = [NewTopic(f"{name}{end}", PARTITIONS, 3) for end in (".in", ".out")]
    changelog = {"cleanup.policy": "compact"}
    new.append(NewTopic(f"{name}-sums-changelog", PARTITIONS, 3, config=changelog))
    for future in admin.create_topics(new).values():
        future.result(30)


def _told(bootstrap: str) -> Any:
    """What a client is told that asks now for the first time."""
    return AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10)


@pytest.fixture
def stand(
    cluster: Callable[..., Kafka], prefix: str, worker: Callable[..., Any]
) -> Iterator[Stand]:
    kafka = cluster(nodes=3)
    name = f"{prefix}three"
    _create(kafka, name)
    options = {
        "bootstrap": kafka.bootstrap, "name": name, "instance": "0", "partitions": PARTITIONS,
    }  # fmt: skip
    with (
        Supervised(lambda: worker("adder", **options)) as adder,
        Load(kafka.bootstrap, f"{name}.in") as load,
    ):
        stand = Stand(kafka, name, load, adder)
        stand.goes_on()
        yield stand


def test_the_transaction_coordinator_dies_and_min_isr_is_unmet(stand: Stand) -> None:
    stand.die(stand.transaction_coordinator())
    stand.min_isr_unmet(stand.leader(f"{stand.name}.out", 0), 2)
    stand.settle()


async def test_the_groups_coordinator_leaves_the_cluster(
    cluster: Callable[..., Kafka], prefix: str
) -> None:
    """A client that has heard so, and has nobody to connect to, finds the next one."""
    kafka, name = await asyncio.to_thread(cluster, nodes=3), f"{prefix}three"
    _create(kafka, name)
    stand = Stand(kafka, name)
    async with running(adder(name, kafka.bootstrap, PARTITIONS)):
        coordinator = await asyncio.to_thread(stand.group_coordinator)
    instance = next(n for n in range(100) if stand.transaction_coordinator(n) != coordinator)
    one = adder(name, kafka.bootstrap, PARTITIONS, instance=f"{instance}")
    async with running(one):
        await asyncio.to_thread(_add_one, stand, 1)
        kafka.kill(coordinator)
        await until(lambda: coordinator not in _told(kafka.bootstrap).brokers)
        client = one.consumer._writer.producer
        assert coordinator not in client.list_topics(timeout=10).brokers  # and forgets it
        await asyncio.to_thread(_add_one, stand, 2)
    assert one.failure is None
    check(kafka.bootstrap, name, PARTITIONS)


# long: each takes half a minute and more
@pytest.mark.long
@pytest.mark.parametrize(
    ("way", "steps"),
    [
        ("kill", STEPS[:2]),
        ("kill", STEPS[2:]),
        pytest.param("freeze", STEPS, marks=pytest.mark.timeout(600)),
    ],
)
async def test_a_broker_goes_while_workers_restore(
    cluster: Callable[..., Kafka],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    steps: tuple[str, ...],
) -> None:
    """The coordinator, or a leader, which the workers' clients know and ask next."""
    kafka, name = await asyncio.to_thread(cluster, nodes=3), f"{prefix}three"
    _create(kafka, name)
    stand, gate = Stand(kafka, name), Gate(monkeypatch)
    go_away, come_back = (
        (kafka.kill, kafka.restart) if way == "kill" else (kafka.freeze, kafka.thaw)
    )
    async with kept(lambda: adder(name, kafka.bootstrap, PARTITIONS)) as stays:
        for count, step in enumerate(steps, 1):
            node = stand.leader(f"{name}-sums-changelog", 0)
            if step == "stable_offsets":
                node = await asyncio.to_thread(stand.group_coordinator)
            gate.shut(step)
            make = partial(adder, name, kafka.bootstrap, PARTITIONS, instance=f"{count}")
            async with kept(make, ready=False) as comes:
                await until(gate.reached.is_set)
                go_away(node)
                await until(lambda node=node: node not in _told(kafka.bootstrap).brokers)
                gate.open()
                await until(lambda comes=comes: stays.ready and comes.ready, 90)
                await asyncio.to_thread(_add_one, stand, count)
                await asyncio.to_thread(come_back, node)
                await asyncio.to_thread(stand.in_sync)
    check(kafka.bootstrap, name, PARTITIONS)


class Kept:
    """An app that is started again, as its supervisor does, when others had to fence it.

    A frozen broker may be silent for longer than a transaction may take.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._app = make, make()

    async def run(self) -> None:
        while True:
            async with running(self._app, ready=False):
                await until(lambda: self._app.failure, 600)
            assert isinstance(self._app.failure, Fenced), self._app.failure
            self._app = self._make()

    @property
    def ready(self) -> bool:
        """Asked from a thread: the consumer must not be made there, beside the one that the app makes."""
        app = self._app
        if isinstance(app.failure, Fenced):
            return False
        assert app.failure is None, app.failure
        return app._consumer is not None and bool(app.consumer.ready)


@asynccontextmanager
async def kept(make: Callable[[], Any], ready: bool = True) -> AsyncIterator[Kept]:
    keeper = Kept(make)
    task = asyncio.create_task(keeper.run())
    if ready:
        await until(lambda: keeper.ready or task.done())
    yield keeper
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _add_one(stand: Stand, count: int) -> None:
    """To each of nine sums, which are all `count` then."""
    bootstrap, changelog = stand.kafka.bootstrap, f"{stand.name}-sums-changelog"
    write(bootstrap, f"{stand.name}.in", [(b"k%d" % n, b"1") for n in range(9)])
    sums: list[bytes] = []

    def added() -> bool:
        sums[:] = rows(bootstrap, changelog).values()
        return sums == [b"%d" % count] * 9

    with suppress(AssertionError):  # the next line says what they are
        wait_until(added, 90)
    assert sums == [b"%d" % count] * 9


@pytest.mark.long
@pytest.mark.timeout(900)
def test_rolling_restart(stand: Stand) -> None:
    for node in stand.kafka.nodes:
        stand.kafka.restart(node)
        stand.in_sync()
        stand.goes_on()
    stand.settle()


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_coordinators_and_leaders_die_in_turn(stand: Stand) -> None:
    for _ in range(2):
        stand.die(stand.transaction_coordinator())
        stand.die(stand.group_coordinator())
        for partition in range(PARTITIONS):
            stand.die(stand.leader(f"{stand.name}-sums-changelog", partition))
    stand.settle()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_min_isr_unmet_for_longer_than_a_transaction_may_take(stand: Stand) -> None:
    stand.min_isr_unmet(1, 10)
    stand.settle()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_majority_is_away(stand: Stand) -> None:
    """No quorum, no leaders: everything stands, then goes on."""
    for node in (1, 2):
        stand.kafka.kill(node)
    time.sleep(20)  # the outage itself
    for node in (1, 2):
        stand.kafka.restart(node)
    stand.goes_on()
    stand.settle()
