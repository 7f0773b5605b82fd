"""ask: one command from the command line to a service, and what the service says to it.

command --> <service>.inbox --> ... --> the first of `ends` in <service>.events that it caused
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, Producer, TopicPartition

from logs import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.codec import Codec

BROKER_S = 5.0


class Unanswered(Exception):
    """Nothing came back in time, or the command could not be handed over: one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A command and where it goes."""

    service: str
    key: str
    command: Any
    actor_id: str
    ends: tuple[type, ...]  # of its events, those that answer


def ask(
    kafka: Mapping[str, Any], prefix: str, codec: Codec, question: Question, wait_s: float
) -> Any:
    """The event that ends it; None when none came in `wait_s`. Raises Unanswered."""
    command_id = str(uuid.uuid4())
    consumer = _from_the_end(kafka, f"{prefix}{question.service}.events")
    try:
        _send(kafka, f"{prefix}{question.service}.inbox", codec, question, command_id)
        return _answer(consumer, codec, question, command_id, wait_s)
    finally:
        consumer.close()


def _from_the_end(kafka: Mapping[str, Any], topic: str) -> Consumer:
    consumer = Consumer(
        {
            **kafka,
            "group.id": f"ask-{os.getpid()}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    found = consumer.list_topics(topic, BROKER_S).topics[topic]
    if found.error is not None:
        raise Unanswered(f"there is no topic {topic}: run `pipeline.py topics apply` first")
    partitions = [TopicPartition(topic, partition) for partition in found.partitions]
    for partition in partitions:
        partition.offset = consumer.get_watermark_offsets(partition, BROKER_S)[1]
    consumer.assign(partitions)
    return consumer


def _send(
    kafka: Mapping[str, Any], topic: str, codec: Codec, question: Question, command_id: str
) -> None:
    producer = Producer({**kafka, "enable.idempotence": True, "partitioner": "murmur2_random"})
    kind = f"streambank.{question.service}.{type(question.command).__name__}"
    failed: list[Any] = []
    producer.produce(
        topic,
        codec.encode(question.command),
        question.key.encode(),
        headers=[
            ("ce_specversion", b"1.0"),
            ("ce_id", command_id.encode()),
            ("ce_type", kind.encode()),
            ("ce_source", b"/gateway"),
            ("ce_time", timestamp(time.time()).encode()),
            ("content-type", b"application/avro"),
            ("correlation_id", command_id.encode()),
            ("actor", question.actor_id.encode()),
        ],
        on_delivery=lambda error, _message: failed.append(error) if error else None,
    )
    if producer.flush(BROKER_S) or failed:
        raise Unanswered("Kafka did not take the command: nothing is known of it; try again")


def _answer(
    consumer: Consumer, codec: Codec, question: Question, command_id: str, wait_s: float
) -> Any:
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        message = consumer.poll(0.2)
        if message is None or message.error() is not None:
            continue
        if dict(message.headers() or ()).get("correlation_id") == command_id.encode():
            event = codec.decode(message.value() or b"")
            if isinstance(event, question.ends):
                return event
    return None
