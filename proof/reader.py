"""Reads logs as any Kafka client can: read_committed, from the first record to a fixed end.

No code of the driver is used, so the driver can't hide its own faults.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from agents.envelope import given
from streaming.closing import CLOSE_S, close_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POSITION_KEY = b"\x00streaming.position"  # of the record that says which input a changelog reflects
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One committed record."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


@dataclass(slots=True)
class Cut:
    """One partition's rows as of one input offset: what lies below it, and no more."""

    rows: dict[str, bytes]
    offset: int


class Reader:
    """Reads one partition after another, never two at once. `kafka`: bootstrap.servers and security.

    `deadline_s`, of `time.monotonic`: what is not read by then ends in TimeoutError.
    """

    def __init__(self, kafka: Mapping[str, Any], deadline_s: float = math.inf) -> None:
        self._deadline_s = deadline_s
        self._consumer = Consumer(
            {
                **kafka,
                "group.id": "verify",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 5,  # each log ends with a fetch that finds nothing
                "queued.max.messages.kbytes": 64 << 10,
            }
        )

    def close(self) -> None:
        close_client(self._consumer, CLOSE_S)

    def partitions(self, topic: str) -> int:
        """LookupError: there is no such topic."""
        found = self._consumer.list_topics(topic, self._timeout_s()).topics[topic]
        if found.error is not None or not found.partitions:
            raise LookupError(f"there is no topic {topic}")
        return len(found.partitions)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset, and the one behind the last record of any kind."""
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(topic, partition), self._timeout_s()
        )
        return low, high

    def offset_at(self, topic: str, partition: int, at_ms: int | None) -> int:
        """An offset before which no record is as late as this time; the first one without a time."""
        low, high = self.bounds(topic, partition)
        if at_ms is None:
            return low
        asked = [TopicPartition(topic, partition, at_ms)]
        found: int = self._consumer.offsets_for_times(asked, self._timeout_s())[0].offset
        return high if found < 0 else max(low, found)

    def _timeout_s(self) -> float:
        """How long one question may take."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the logs could not be read in time")
        return min(TIMEOUT_S, left_s)

    def records(self, topic: str, partition: int, start: int | None = None) -> Iterator[LogRecord]:
        """Committed records up to the present end; waits until what is open below it has ended."""
        low, end = self.bounds(topic, partition)
        at = low if start is None else max(low, start)
        if at >= end:
            return
        self._consumer.assign([TopicPartition(topic, partition, at)])
        yield from self._until(end)

    def goes_on(self, topic: str, partition: int, start: int) -> bool:
        """Whether a committed record lies there now: markers of transactions take offsets too."""
        low, end = self.bounds(topic, partition)
        if start >= end:
            return False
        self._consumer.assign([TopicPartition(topic, partition, max(low, start))])
        while (message := self._consumer.poll(self._timeout_s())) is None:
            pass
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        return error is None

    def _until(self, end: int) -> Iterator[LogRecord]:
        while True:
            self._timeout_s()
            for message in self._taken():
                error, offset = message.error(), message.offset() or 0
                if error is None:
                    if offset >= end:
                        return
                    yield _record(message)
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                elif offset >= end:
                    return

    def _taken(self) -> list[Any]:
        """What is there; `consume` with a time-out would wait it out for a short log."""
        first = self._consumer.poll(0.1)
        return [] if first is None else [first, *self._consumer.consume(5_000, 0)]

    def cut(self, changelog: str, inbox: str, partition: int) -> Cut:
        """The latest committed rows of a partition, and the input offset that they reflect."""
        rows: dict[str, bytes] = {}
        offset = 0
        for record in self.records(changelog, partition):
            if record.key == POSITION_KEY:
                offset = json.loads(record.value or b"{}")["offsets"][inbox]
            elif record.key is not None and record.value is None:
                rows.pop(record.key.decode(), None)
            elif record.key is not None and record.value is not None:
                rows[record.key.decode()] = record.value
        return Cut(rows, offset)


def _record(message: Any) -> LogRecord:
    return LogRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        given(message.headers()),
    )
