"""Three brokers that restart, die and lose replicas under load: stalls end by themselves, sums are exact.

The worker is supervised as in production. If a person had to help, it would end with exit code 71: that fails.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import ConsumerGroupState, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.streaming.kit import committed, set_config, wait_until
from tests.streaming.supervised import NEEDS_A_PERSON, Supervised
from tests.streaming.test_kills import check, drained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.local.kafka import Kafka

PARTITIONS = 3


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

    def __init__(self, kafka: Kafka, name: str, load: Load, adder: Supervised) -> None:
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
        group = self.admin.describe_consumer_groups([self.name])[self.name].result(10)
        assert group.state is ConsumerGroupState.STABLE
        return int(group.coordinator.id)

    def transaction_coordinator(self) -> int:
        """The leader of its partition of the transaction log; a transactional id is hashed as Java does."""
        value = 0
        for char in f"{self.name}.0":
            value = (31 * value + ord(char)) & 0xFFFFFFFF
        return self.leader("__transaction_state", (value & 0x7FFFFFFF) % 4)

    def die(self, node: int) -> None:
        self.kafka.kill(node)
        self.goes_on()
        self.kafka.restart(node)
        self.in_sync()

    def in_sync(self) -> None:
        """All replicas of all partitions, or the next death would take a majority away."""

        def synced() -> bool:
            topics = self.admin.list_topics(timeout=10).topics.values()
            return all(
                len(part.isrs) == len(part.replicas) == 3
                for topic in topics for part in topic.partitions.values()
            )  # fmt: skip

        wait_until(synced, 90)

    def min_isr_unmet(self, node: int, seconds: float) -> None:
        """A node is away, and what we write to wants all three."""
        out, changelog = f"{self.name}.out", f"{self.name}-sums-changelog"
        # settings that are not given go back to their defaults
        set_config(self.kafka.bootstrap, out, min_insync_replicas="3")
        set_config(
            self.kafka.bootstrap, changelog, min_insync_replicas="3", cleanup_policy="compact"
        )
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


@pytest.fixture
def stand(
    cluster: Callable[..., Kafka], prefix: str, worker: Callable[..., Any]
) -> Iterator[Stand]:
    kafka = cluster(nodes=3)
    name = f"{prefix}three"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    new = [NewTopic(f"{name}{end}", PARTITIONS, 3) for end in (".in", ".out")]
    changelog = {"cleanup.policy": "compact"}
    new.append(NewTopic(f"{name}-sums-changelog", PARTITIONS, 3, config=changelog))
    for future in admin.create_topics(new).values():
        future.result(30)
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
