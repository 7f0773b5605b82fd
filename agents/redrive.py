"""redrive: dead letters back into the topic that they came from.

Each letter goes back once: the records written and the position in the dead letters, in a compacted topic of
its own, are one Kafka transaction, so running it again, or after a crash, or years later, takes only what is new.
The record has its own headers again and `redriven`, the place of the letter. What still can't be read dies again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from agents.envelope import given
from topics.catalog import DEAD_BYTES, EXPIRING, REDRIVEN, TOPICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from agents.envelope import Headers

TIMEOUT_S = 30.0
BATCH = 500


class NoOrigin(Exception):
    """A dead letter does not say where it came from; nothing behind it was put back."""


def redrive(
    kafka: Mapping[str, Any], namespace: str, topic: str, skip: Set[str] = frozenset()
) -> int:
    """Put back what lies in a dead-letter topic up to its present end; answers how many.

    `skip`: letters that stay where they are, by their places (`account.dead-0-17`).
    Raises KafkaException, LookupError for a topic that is not there, NoOrigin.
    """
    consumer = Consumer(_reading(kafka, f"{namespace}redrive"))
    producer = Producer(
        {
            **kafka,
            "transactional.id": f"{namespace}redrive.{topic}",
            "partitioner": "murmur2_random",
            "retry.backoff.ms": 5,
            "message.max.bytes": DEAD_BYTES,
        }
    )
    try:
        producer.init_transactions(TIMEOUT_S)  # another run of it has ended, or ends now
        done = _done(consumer, f"{namespace}{REDRIVEN}")
        return sum(
            _redrive(consumer, producer, namespace, at, end, skip)
            for at, end in _parts(consumer, f"{namespace}{topic}", done)
        )
    finally:
        consumer.close()


def _reading(kafka: Mapping[str, Any], group: str) -> dict[str, Any]:
    return {
        **kafka,
        "group.id": group,  # commits nothing
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
    }


def _there(consumer: Any, topic: str) -> Any:
    found = consumer.list_topics(topic, TIMEOUT_S).topics[topic]
    if found.error is not None:
        raise LookupError(f"there is no topic {topic}: `pipeline.py topics apply` makes it")
    return found


def _done(consumer: Any, positions: str) -> dict[str, int]:
    """The next letter to take, by `<dead-letter topic>-<partition>`."""
    _there(consumer, positions)
    at = TopicPartition(positions, 0)
    at.offset, end = consumer.get_watermark_offsets(at, TIMEOUT_S)
    consumer.assign([at])
    done = {}
    while (records := _read(consumer, end)) is not None:
        done.update({record.key().decode(): int(record.value()) for record in records})
    return done


def _parts(consumer: Any, topic: str, done: Mapping[str, int]) -> list[tuple[TopicPartition, int]]:
    """Where to begin in each partition, and where to end."""
    parts = []
    for partition in sorted(_there(consumer, topic).partitions):
        at = TopicPartition(topic, partition)
        low, end = consumer.get_watermark_offsets(at, TIMEOUT_S)
        at.offset = max(low, done.get(f"{topic}-{partition}", 0))
        parts.append((at, end))
    return parts


def _redrive(
    consumer: Any, producer: Any, namespace: str, at: TopicPartition, end: int, skip: Set[str]
) -> int:
    count = 0
    where = f"{at.topic}-{at.partition}"
    positions = f"{namespace}{REDRIVEN}"
    origins = {f"{namespace}{topic.name}" for topic in TOPICS if topic.kind in EXPIRING}
    consumer.assign([at])
    while (letters := _read(consumer, end)) is not None:
        if not letters:
            continue
        taken = [letter for letter in letters if f"{where}-{letter.offset()}" not in skip]
        producer.begin_transaction()
        try:
            for letter in taken:
                _put_back(producer, letter, origins)
            producer.produce(positions, b"%d" % (letters[-1].offset() + 1), where.encode())
            producer.commit_transaction(TIMEOUT_S)
        except (KafkaException, NoOrigin):
            producer.abort_transaction(TIMEOUT_S)
            raise
        count += len(taken)
    return count


def _read(consumer: Any, end: int) -> list[Any] | None:
    """The next letters; None at the end."""
    deadline_s = time.monotonic() + TIMEOUT_S
    letters = []
    while time.monotonic() < deadline_s:
        (position,) = consumer.position(consumer.assignment())
        for message in consumer.consume(BATCH, 0.1):
            if message.error() is None:
                if message.offset() < end:
                    letters.append(message)
            elif message.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(message.error())
            elif message.offset() >= end:
                return letters or None
        if letters:
            return letters
        if position.offset >= end:
            return None
    raise KafkaException(f"the end of {consumer.assignment()} was not reached in {TIMEOUT_S:.0f} s")


def _put_back(producer: Any, letter: Any, origins: Set[str]) -> None:
    where = f"{letter.topic()}-{letter.partition()}-{letter.offset()}"
    headers: Headers = letter.headers() or []
    said = given(headers)
    try:
        topic = said["dead_letter_topic"].decode()
        partition = int(said["dead_letter_partition"])
    except (KeyError, ValueError):
        topic, partition = "", -1
    if topic not in origins:
        raise NoOrigin(
            f"dead letter {where} does not say which inbox it came from: `--skip {where}` leaves it there"
        )
    own = [
        (name, value)
        for name, value in headers
        if not name.startswith("dead_letter_") and name != "redriven"
    ]
    producer.produce(
        topic,
        letter.value(),
        letter.key(),
        # by the key to where it belongs, which is not where it was when another hash put it there
        partition if letter.key() is None else -1,
        headers=[*own, ("redriven", where.encode())],
    )
