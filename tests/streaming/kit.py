"""What the driver's tests share: topics, plain clients as oracle, an app that runs in the test, a worker process.

The oracle knows no code of the driver: it reads with plain confluent-kafka, read_committed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

import streaming
from tests.forked import Forked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

ROOT = Path(__file__).resolve().parents[2]
POSITION = b"\x00streaming.position"  # said here again: the oracle takes nothing from the driver


class Number:
    """Values are decimal numbers; anything else is poison."""

    immutable = True

    def loads(self, data: bytes) -> int:
        try:
            return int(data)
        except ValueError:
            raise streaming.Poison(f"not a number: {data!r}") from None

    def dumps(self, value: int) -> bytes:
        return b"%d" % value


class App(streaming.App):
    """An app whose end is seen by the test instead of ending the test's process."""

    failure: BaseException | None = None

    def fail_stop(self, error: BaseException) -> None:
        self.failure = error


def app(name: str, bootstrap: str, partitions: int = 1, instance: str = "0", **driver: Any) -> App:
    options = {"retry_backoff_s": 0.02, "retry_backoff_max_s": 0.1, "session_timeout_s": 3.0}
    config = streaming.DriverConfig(instance=instance, bootstrap=bootstrap, **{**options, **driver})
    return App(name, driver=config, topic_partitions=partitions)


@asynccontextmanager
async def running(*apps: App, ready: bool = True) -> AsyncIterator[None]:
    """The apps started and, unless told otherwise, ready; stopped at the end."""
    try:
        for one in apps:
            await one.start()
        if ready:
            for one in apps:
                await until(lambda one=one: one.consumer.ready or one.failure)
                if one.failure is not None:
                    raise one.failure
        yield
    finally:
        for one in apps:
            await one.stop()


async def until(fact: Callable[[], Any], timeout_s: float = 40) -> Any:
    """Wait for a fact, asked in a thread so that apps in this loop go on. Fails when it never comes."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = await asyncio.to_thread(fact)
        if found:
            return found
        await asyncio.sleep(0.03)
    raise AssertionError("it never came true")


def wait_until(fact: Callable[[], Any], timeout_s: float = 60) -> Any:
    """`until` where no app runs in this process."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = fact()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it never came true")


# -- the oracle -----------------------------------------------------------------------------------


def create(bootstrap: str, *names: str, partitions: int = 1, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    settings = {name.replace("_", "."): value for name, value in config.items()}
    new = [NewTopic(name, partitions, 1, config=settings) for name in names]
    for future in admin.create_topics(new).values():
        future.result(30)


def delete(bootstrap: str, *names: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_topics(list(names)).values():
        future.result(30)
    wait_until(lambda: not set(names) & set(admin.list_topics(timeout=10).topics))


def set_config(bootstrap: str, topic: str, **config: str) -> None:
    """Other settings of the topic stay as they are."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    changes = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=changes)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def write(
    bootstrap: str,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None]],
    partition: int = -1,
    **more: Any,
) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "enable.idempotence": True,  # brokers go in the midst of it: once, all the same
        }
    )
    failed: list[Any] = []
    where = {} if partition < 0 else {"partition": partition}
    for key, value in records:
        producer.produce(
            topic, key=key, value=value, **where, **more,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )  # fmt: skip
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not failed


def read(bootstrap: str, topic: str) -> list[Message]:
    """All committed records now, partition after partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "oracle",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    parts = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, n, 0) for n in parts])
    found: dict[int, list[Message]] = {n: [] for n in parts}
    ended: set[int] = set()
    while len(ended) < len(parts):
        message = consumer.poll(10)
        assert message is not None, f"{topic} can't be read to its end"
        if message.error():
            ended.add(message.partition())
        else:
            found[message.partition()].append(message)
    consumer.close()
    return [message for n in sorted(found) for message in found[n]]


def values(bootstrap: str, topic: str) -> list[bytes | None]:
    return [message.value() for message in read(bootstrap, topic)]


def rows(bootstrap: str, changelog: str) -> dict[tuple[int, bytes], bytes]:
    """The fold of a changelog: value by (partition, key); positions left out."""
    found: dict[tuple[int, bytes], bytes] = {}
    for message in read(bootstrap, changelog):
        if message.key() == POSITION:
            continue
        if message.value() is None:
            found.pop((message.partition(), message.key()), None)
        else:
            found[message.partition(), message.key()] = message.value()
    return found


def positions(bootstrap: str, changelog: str) -> dict[int, dict[str, int]]:
    """The last position record of each changelog partition."""
    return {
        message.partition(): json.loads(message.value())["offsets"]
        for message in read(bootstrap, changelog)
        if message.key() == POSITION
    }


def committed(bootstrap: str, group: str, topic: str, partition: int = 0) -> int:
    """The group's offset; negative when it has none."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    [found] = consumer.committed([TopicPartition(topic, partition)], 10)
    consumer.close()
    return int(found.offset)


def move_offset(bootstrap: str, group: str, topic: str, offset: int, partition: int = 0) -> None:
    """As a person would with kafka-consumer-groups.sh."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    consumer.close()


def delete_group(bootstrap: str, group: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def gone() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result(10)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.NON_EMPTY_GROUP:
                raise
            return False
        return True

    wait_until(gone)


# -- workers as processes -------------------------------------------------------------------------


@dataclass
class Worker:
    """`tests/streaming/worker.py` as a process, with its log."""

    process: Forked
    log: Path

    @classmethod
    def start(
        cls, log: Path, options: dict[str, Any], module: str = "tests.streaming.worker"
    ) -> Worker:
        """`module`: which of the driver's programs."""
        return cls(Forked(module, [json.dumps(options)], None, log), log)

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def said(self, text: str) -> bool:
        return text in self.text

    def ended(self, timeout_s: float = 60) -> int:
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)
