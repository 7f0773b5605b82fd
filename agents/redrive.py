"""redrive: dead letters back into the topic that they came from.

Each letter goes back once: the letter read and the record written are one Kafka transaction of the
group `redrive`, so running it again, or after a crash, takes only what is new. The record has its
own headers again and `redriven`, the place of the letter. What still can't be read dies again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agents.envelope import Headers

TIMEOUT_S = 30.0
BATCH = 500


class NoOrigin(Exception):
    """A dead letter does not say where it came from; nothing behind it was put back."""


def redrive(kafka: Mapping[str, Any], namespace: str, topic: str) -> int:
    """Put back what lies in a dead-letter topic up to its present end; answers how many.

    Raises KafkaException, LookupError for a topic that is not there, NoOrigin.
    """
    group = f"{namespace}redrive"
    consumer = Consumer(_reading(kafka, group))
    producer = Producer(
        {
            **kafka,
            "transactional.id": f"{group}.{topic}",
            "partitioner": "murmur2_random",
            "retry.backoff.ms": 5,
            # offsets would wait without end for a coordinator that left the cluster, as for the driver's client
            "connections.max.idle.ms": int(TIMEOUT_S * 500),
        }
    )
    try:
        producer.init_transactions(TIMEOUT_S)
        return sum(
            _redrive(consumer, producer, at, end)
            for at, end in _positions(consumer, f"{namespace}{topic}")
        )
    finally:
        consumer.close()


def _reading(kafka: Mapping[str, Any], group: str) -> dict[str, Any]:
    return {
        **kafka,
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
    }


def _positions(consumer: Any, topic: str) -> list[tuple[TopicPartition, int]]:
    """Where to begin in each partition, and where to end."""
    found = consumer.list_topics(topic, TIMEOUT_S).topics[topic]
    if found.error is not None:
        raise LookupError(f"there is no topic {topic}")
    committed = consumer.committed(
        [TopicPartition(topic, partition) for partition in found.partitions], TIMEOUT_S
    )
    positions = []
    for at in committed:
        low, end = consumer.get_watermark_offsets(at, TIMEOUT_S)
        at.offset = max(at.offset, low) if at.offset >= 0 else low
        positions.append((at, end))
    return positions


def _redrive(consumer: Any, producer: Any, at: TopicPartition, end: int) -> int:
    count = 0
    consumer.assign([at])
    while (letters := _read(consumer, end)) is not None:
        if not letters:
            continue
        producer.begin_transaction()
        try:
            for letter in letters:
                _put_back(producer, letter)
            done = TopicPartition(at.topic, at.partition, letters[-1].offset() + 1)
            producer.send_offsets_to_transaction(
                [done], consumer.consumer_group_metadata(), TIMEOUT_S
            )
            producer.commit_transaction(TIMEOUT_S)
        except (KafkaException, NoOrigin):
            producer.abort_transaction(TIMEOUT_S)
            raise
        count += len(letters)
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


def _put_back(producer: Any, letter: Any) -> None:
    where = f"{letter.topic()}-{letter.partition()}-{letter.offset()}"
    headers: Headers = letter.headers() or []
    dead = {name: value for name, value in headers if name.startswith("dead_letter_")}
    if "dead_letter_topic" not in dead:
        raise NoOrigin(f"dead letter {where} does not say which topic it came from")
    own = [(name, value) for name, value in headers if name not in dead and name != "redriven"]
    # by the key to where it belongs, which is not where it was when another hash put it there
    keyless = letter.key() is None
    partition = int(dead["dead_letter_partition"]) if keyless else -1
    producer.produce(
        dead["dead_letter_topic"].decode(),
        letter.value(),
        letter.key(),
        partition,
        headers=[*own, ("redriven", where.encode())],
    )
