"""The compacted topic `schemas`: key schema id, value schema text.

Written by `topics apply`, asked by workers that meet an id newer than themselves: readers are
rolled before writers, but a rollback leaves records of the newer ones behind.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from schemas import released
from schemas.records import records, schema_id, text, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 30.0
NEW_S = 5.0  # how long a broker may not know of a topic that another one has made
NO_LEADER = frozenset({KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION})
UNKNOWN = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
PAUSE_S = 1.0  # between two looks for ids that are not there


def schemas() -> dict[int, str]:
    """All schemas that this version knows by id: the released ones, and those it writes."""
    found = {id_: release.text() for id_, release in released.by_id().items()}
    for name in records():
        found.setdefault(schema_id(whole(name)), text(name))
    return found


def publish(kafka: Mapping[str, Any], topic: str) -> int:
    """Write the schemas that are not in the topic yet; answers how many. Raises KafkaException."""
    log = SchemaLog(kafka, topic)
    log.read()
    missing = {id_: schema for id_, schema in schemas().items() if log.get(id_) != schema}
    log.close()
    producer = Producer({**kafka, "enable.idempotence": True})
    failed: list[Any] = []
    for id_, schema in missing.items():
        producer.produce(
            topic,
            schema.encode(),
            str(id_).encode(),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    if producer.flush(TIMEOUT_S) or failed:
        raise KafkaException(f"{topic}: {len(failed) or 'some'} schemas were not written")
    return len(missing)


class SchemaLog:
    """The topic's content, read when an id is asked for that is not known yet.

    Calling it is the codec's `lookup`; a look at the topic takes some milliseconds and is taken at
    most once a second.
    """

    def __init__(self, kafka: Mapping[str, Any], topic: str) -> None:
        self._kafka, self._topic = kafka, topic
        self._texts: dict[int, str] = {}
        self._consumer: Any = None
        self._looked_at = -PAUSE_S

    def __call__(self, id_: int) -> str | None:
        if id_ not in self._texts and time.monotonic() - self._looked_at >= PAUSE_S:
            self.read()
        return self._texts.get(id_)

    def get(self, id_: int) -> str | None:
        """What was read so far."""
        return self._texts.get(id_)

    def read(self) -> None:
        """Read to the topic's present end. Raises KafkaException, also when that takes too long."""
        self._looked_at = time.monotonic()
        consumer = self._consumer or self._opened()
        partition = TopicPartition(self._topic, 0)
        end = self._end(consumer, partition)
        while self._offset(consumer, partition) < end:
            if time.monotonic() - self._looked_at > TIMEOUT_S:
                raise KafkaException(f"{self._topic}: not read to its end in {TIMEOUT_S:.0f} s")
            for message in consumer.consume(1000, 0.2):
                if message.error():
                    raise KafkaException(message.error())
                self._texts[int(message.key())] = message.value().decode()

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _opened(self) -> Any:
        self._consumer = Consumer(
            {
                **self._kafka,
                "group.id": f"{self._topic}-readers",  # named, never joined
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign([TopicPartition(self._topic, 0, OFFSET_BEGINNING)])
        return self._consumer

    def _end(self, consumer: Any, partition: TopicPartition) -> int:
        """Waits for a leader: a new topic, or one whose broker went away, has none for a moment."""
        while True:
            try:
                return int(consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)[1])
            except KafkaException as error:
                waited_s, code = time.monotonic() - self._looked_at, error.args[0].code()
                if not (
                    (code in NO_LEADER and waited_s < TIMEOUT_S)
                    or (code in UNKNOWN and waited_s < NEW_S)
                ):
                    raise
                time.sleep(0.02)

    @staticmethod
    def _offset(consumer: Any, partition: TopicPartition) -> int:
        """Where it stands; compaction leaves gaps, so a position is asked for, not counted."""
        (position,) = consumer.position([partition])
        return max(0, int(position.offset))
