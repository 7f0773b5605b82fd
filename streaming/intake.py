"""Intake: records that were read and are not committed yet, and which of them the next cycle takes.

    librdkafka --read, two batches at most--> buffers --choose, a fair share of each source--> cycle --settle--> gone

An abort needs no seek: what it takes back is still here, and is chosen again.

No lock: the Kafka thread (`begin`, `read`, `lags`, `choose`) and the event loop (all else) never touch it at once, for
whoever polls is awaited, and a revocation inside of a poll waits until the event loop has done `forget`.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, TopicPartition
from faust.types import TP

from streaming.errors import Fenced, Inconsistent, is_fatal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka import Consumer as KafkaConsumer

    from streaming.config import DriverConfig
    from streaming.context import Batch
    from streaming.cycle import Cycle
    from streaming.suspects import Suspects

log = logging.getLogger(__name__)

CYCLE_S = 1.0
FIRST_SIZE = 500  # while it is not known yet how long agents take


class Intake:
    """`buffers` by source partition; `offsets`: next by task and topic, as committed; `paused` by back-pressure."""

    def __init__(self, app_id: str, driver: DriverConfig, suspects: Suspects) -> None:
        self.app_id, self.driver, self._suspects = app_id, driver, suspects
        self.buffers: dict[TP, deque[Any]] = {}
        self.offsets: dict[int, dict[str, int]] = defaultdict(dict)
        self.paused: set[TP] = set()
        # records that a cycle takes: what agents do in about CYCLE_S
        self._size = min(FIRST_SIZE, driver.batch_max)
        self._ends: dict[TP, int] = {}  # where a source's log ended when all of it was read

    def begin(self, offsets: Mapping[TP, int]) -> None:
        """Reading begins at these."""
        for tp, offset in offsets.items():
            self.buffers[tp] = deque()
            self.offsets[tp.partition][tp.topic] = offset

    def forget(self) -> None:
        """The assignment is over."""
        self.buffers.clear()
        self.offsets.clear()
        self.paused.clear()
        self._ends.clear()

    # -- reading ----------------------------------------------------------------------------------

    def read(self, consumer: KafkaConsumer, timeout_s: float) -> float:
        """Up to two batches that may be taken: of a partition that is paused librdkafka throws away what it fetched.

        Answers when it polled, `time.monotonic` seconds.
        """
        here = sum(len(buffer) for tp, buffer in self.buffers.items() if self._takeable(tp))
        count = 2 * self.driver.batch_max - here - 1
        head = consumer.poll(timeout_s)
        polled_s = time.monotonic()
        if head is not None:
            self._take_in([head, *(consumer.consume(count, 0) if count > 0 else ())])
        self._flow(consumer)
        return polled_s

    def _take_in(self, messages: list[Any]) -> None:
        """Into the buffers. The next offset is looked up where the source changes, not for each record."""
        source: tuple[str, int] | None = None
        buffer: deque[Any] | None = None
        expected = 0
        for message in messages:
            error = message.error()
            if error is not None:
                self._failed(error, message)
                continue
            topic, partition = message.topic(), message.partition()
            if source != (topic, partition):
                source = topic, partition
                buffer = self.buffers.get(source)  # type: ignore[call-overload]
                if buffer:
                    expected = buffer[-1].offset() + 1
                elif buffer is not None:
                    expected = self.offsets[partition][topic]
            if buffer is None:
                continue  # revoked inside of this poll
            offset = message.offset()
            if offset < expected:
                raise Inconsistent(
                    f"{self.app_id}: {topic}-{partition} went back to {offset}, expected {expected}"
                )
            buffer.append(message)
            expected = offset + 1

    def _failed(self, error: KafkaError, message: Any) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._ends[TP(message.topic(), message.partition())] = message.offset()
            return
        if code in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            raise Inconsistent(
                f"{self.app_id}: {message.topic()}-{message.partition()} no longer has the next offset to read "
                f"({error.str()}): records were deleted before they were processed, or the log was recreated"
            )
        if code == KafkaError.FENCED_INSTANCE_ID:
            raise Fenced(
                f"{self.app_id}: another worker has our name {self.driver.instance}: {error.str()}"
            )
        if is_fatal(error):
            raise Fenced(f"{self.app_id}: {error.str()}")
        log.warning("%s: consumer: %s", self.app_id, error)

    def _flow(self, consumer: KafkaConsumer) -> None:
        """Back-pressure: a partition whose buffer is full is not fetched until it is half empty."""
        limit = 3 * self.driver.batch_max  # more than is ever read of what goes on
        full = [
            tp
            for tp, buffer in self.buffers.items()
            if len(buffer) > limit and tp not in self.paused
        ]
        free = [tp for tp in self.paused if len(self.buffers[tp]) <= limit // 2]
        if full:
            consumer.pause([TopicPartition(*tp) for tp in full])
            self.paused.update(full)
        if free:
            consumer.resume([TopicPartition(*tp) for tp in free])
            self.paused.difference_update(free)

    def lags(self, consumer: KafkaConsumer) -> Iterator[tuple[TP, int, int]]:
        """Each source partition, the next offset to be read of it, and its log's end as last fetched."""
        for tp, buffer in self.buffers.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(*tp), cached=True)
            next_offset = self.offsets[tp.partition][tp.topic]
            if not buffer:  # the markers of transactions, which nobody is given, were passed by too
                next_offset = max(next_offset, self._ends.get(tp, next_offset))
            yield tp, next_offset, end

    # -- choosing ---------------------------------------------------------------------------------

    @property
    def takeable(self) -> bool:
        """Whether there is a record that may be taken now."""
        return any(self._takeable(tp) for tp in self.buffers)

    def _takeable(self, tp: TP) -> bool:
        buffer = self.buffers[tp]
        return bool(buffer) and self._suspects.lets_pass(tp, buffer[0].offset())

    def choose(self) -> dict[TP, list[Any]]:
        """The records of the next cycle: a due suspect alone, else a fair share of each source partition."""
        ready = [tp for tp in self.buffers if self._takeable(tp)]
        for tp in ready:
            if self._suspects.is_due(tp, self.buffers[tp][0].offset()):
                return {tp: [self.buffers[tp][0]]}
        if not ready:
            return {}
        careful = self._suspects.careful
        if careful is not None:
            tp = min(ready, key=lambda tp: (tp not in careful.until, tp))
            return {tp: self._head(tp, careful.size)}
        shares = fair_shares({tp: len(self.buffers[tp]) for tp in ready}, self._size)
        return {tp: self._head(tp, share) for tp, share in shares.items()}

    def _head(self, tp: TP, count: int) -> list[Any]:
        # by index each would be a walk through the deque
        return self._suspects.together(tp, list(islice(self.buffers[tp], count)))

    def choose_behind(self, cycle: Cycle) -> dict[TP, list[Any]]:
        """The records after those of a cycle that is not committed yet; none where less than half a batch waits."""
        taken = {batch.tp: len(batch.records) for batch in cycle.batches}
        more = {
            tp: count
            for tp, buffer in self.buffers.items()
            if (count := len(buffer) - taken.get(tp, 0))
        }
        if sum(more.values()) < max(1, self.driver.batch_max // 2):
            return {}
        shares = fair_shares(more, self._size)
        return {
            tp: list(islice(self.buffers[tp], start := taken.get(tp, 0), start + share))
            for tp, share in shares.items()
        }

    def worked(self, count: int, took_s: float) -> None:
        """How long the agents took for a cycle of so many records: the next ones are to take about CYCLE_S.

        Nobody polls meanwhile: longer than max.poll.interval.ms, and the group would have given the partitions away.
        """
        if took_s > CYCLE_S:
            self._size = max(1, int(count * CYCLE_S / took_s))
        elif took_s < CYCLE_S / 2 and count >= self._size:
            self._size = min(2 * self._size, self.driver.batch_max)

    # -- committing -------------------------------------------------------------------------------

    def offsets_after(self, cycle: Cycle) -> dict[int, dict[str, int]]:
        """The next offset of all sources of each task in a cycle, by task and topic, once it is committed.

        All of them, so that group and position record always name the same topics.
        """
        after: dict[int, dict[str, int]] = {}
        for tp, offset in cycle.next_offsets.items():
            assert tp in self.buffers, f"{tp} was lost inside of a cycle"
            after.setdefault(tp.partition, dict(self.offsets[tp.partition]))[tp.topic] = offset
        return after

    def settle(self, batch: Batch) -> None:
        """A batch is committed."""
        buffer = self.buffers[batch.tp]
        for _ in batch.records:
            buffer.popleft()
        self.offsets[batch.partition][batch.tp.topic] = batch.next_offset


def fair_shares(waiting: Mapping[TP, int], total: int) -> dict[TP, int]:
    """How many records each source partition gives of `total`: as many as any other, or all that wait there.

    At least one each, so that a total of fewer than there are partitions is exceeded.
    """
    shares: dict[TP, int] = {}
    for tp, count in sorted(waiting.items(), key=lambda item: item[1]):
        each = max(1, total // (len(waiting) - len(shares)))
        shares[tp] = min(count, each)
        total -= shares[tp]
    return shares
