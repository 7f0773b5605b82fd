"""Writer: what the agents made of a cycle becomes one Kafka transaction.

    begin, outputs, rows, positions (event loop) --> offsets, commit, delivery reports (Kafka thread)
        \\-- refused: its offsets are sent all the same, which answers why --> abort

A commit is asked for until the broker says yes or no: one whose outcome is unknown is never aborted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Producer as KafkaProducer

from streaming import metrics
from streaming.admin import Admin
from streaming.errors import Fenced, RecordFailed, Stuck, UnknownOutcome, is_fatal, kafka_error
from streaming.positions import POSITION_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from streaming.config import DriverConfig
    from streaming.cycle import Cycle, Output
    from streaming.positions import Topology

log = logging.getLogger(__name__)

Item = TypeVar("Item")

UNKNOWN_COMMIT_S = 60.0  # how long a commit without an answer is asked for again
# of one question: where a record was refused librdkafka waits all of it, and says so when asked again
COMMIT_ASK_S = 1.0
COORDINATOR_S = 3.0  # pause between two looks at the group's coordinator
OUTAGE_S = 180.0  # how long transactions may fail in a row before the process is started anew
WRITE_EVERY = 1000  # records given to librdkafka after which others in the event loop have a turn


class Writer:
    """`call` runs a blocking function in the Kafka thread."""

    producer: KafkaProducer  # once open

    def __init__(self, app: Any, call: Callable[..., Awaitable[Any]]) -> None:
        self.app, self._call = app, call
        self.driver: DriverConfig = app.driver
        self.app_id: str = app.conf.id
        # offset of each position record of the transaction written last, by changelog and partition
        self.delivered: dict[tuple[str, int], int] = {}

    def open(self) -> None:
        """In the Kafka thread: fence, and abort what a predecessor of our name left open."""
        self.producer = KafkaProducer(self.driver.producer(self.app_id))
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.producer.init_transactions(30)
            except KafkaException as exc:
                if not kafka_error(exc).retriable() or time.monotonic() > deadline:
                    raise
                log.warning(
                    "%s: init_transactions is tried again: %s", self.app_id, kafka_error(exc)
                )

    # -- writing: in the event loop; nothing waits for the broker unless librdkafka's queue is full ---

    async def write(self, cycle: Cycle, topology: Topology) -> BaseException | None:
        """Begin the transaction, and hand to librdkafka all that the agents wrote, rows and positions.

        Answers why it can't be, a record named where one is known.
        """
        cycle.seal()
        self.producer.begin_transaction()
        cycle.begun = True
        self.driver.at("begun")
        try:
            async for outputs in _in_turns(cycle.outputs):
                self._write_outputs(outputs)
            for part, changes in cycle.changes.items():
                async for rows in _in_turns(changes):
                    self._write_rows(part.changelog, part.partition, rows)
            self._write_positions(cycle, topology)
        except (RecordFailed, KafkaException) as exc:
            return await self._refused(cycle, exc)
        return None

    def _write_outputs(self, outputs: list[Output]) -> None:
        """Raises RecordFailed for one that can't be written."""
        produce, faults = self.producer.produce, self.driver.faults
        for batch, pos, topic, key, value, partition, headers, at_ms in outputs:
            try:
                try:
                    produce(topic, value, key, partition, None, None, at_ms, headers)
                except BufferError:
                    self._produce(topic, value, key, partition, None, None, at_ms, headers)
            except Exception as exc:
                if batch is None:
                    raise
                raise RecordFailed(
                    batch.tp, batch.records[pos].offset(), _naming(topic, exc)
                ) from exc
            if faults is not None:
                faults("produced")

    def _write_rows(
        self, changelog: str, partition: int, rows: list[tuple[bytes, bytes | None]]
    ) -> None:
        produce = self.producer.produce
        for key, value in rows:
            try:
                produce(changelog, value, key, partition)
            except BufferError:
                self._produce(changelog, value, key, partition)

    def _write_positions(self, cycle: Cycle, topology: Topology) -> None:
        self.delivered.clear()
        for task, after in cycle.after.items():
            position = cycle.positions[task] = topology.position(after).dumps()
            for topic in self.app.changelogs.values():
                self._produce(topic, position, POSITION_KEY, task, self._position_delivered)

    def _position_delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.delivered[message.topic(), message.partition()] = message.offset()

    def _produce(self, *record: Any) -> None:
        """Wait while librdkafka's queue is full: the broker is slower than we are."""
        while True:
            try:
                return self.producer.produce(*record)
            except BufferError:
                self.producer.poll(0.01)

    # -- committing ---------------------------------------------------------------------------------

    async def commit(self, cycle: Cycle) -> BaseException | None:
        """Send the offsets and commit. Answers why it must be aborted."""
        began = time.perf_counter()
        try:
            await self._sent(self._call(self._commit, cycle), cycle)
        except KafkaException as exc:
            return await self._refused(cycle, exc) if _hides_the_cause(exc) else exc
        self.driver.at("committed")
        metrics.COMMIT_S.labels(self.app_id).observe(time.perf_counter() - began)
        return None

    def _commit(self, cycle: Cycle) -> None:
        """In the Kafka thread. Raises KafkaException when it must be aborted."""
        self._send_offsets(cycle)
        cycle.offsets_sent = True
        self.driver.at("before commit")
        self._ask_for_commit()
        self._await_reports(len(cycle.positions) * len(self.app.changelogs))

    def _send_offsets(self, cycle: Cycle) -> None:
        """In the Kafka thread. The group's metadata is of a poll under the same assignment (KIP-447)."""
        offsets = [
            TopicPartition(topic, task, offset)
            for task, after in cycle.after.items()
            for topic, offset in after.items()
        ]
        deadline = time.monotonic() + self.driver.transaction_timeout_s
        while True:
            left_s = max(1.0, deadline - time.monotonic())
            try:
                self.producer.send_offsets_to_transaction(offsets, cycle.group, left_s)
                break
            except KafkaException as exc:
                error = kafka_error(exc)
                late = time.monotonic() > deadline
                if error.txn_requires_abort() or not error.retriable() or late:
                    raise
                time.sleep(0.02)
        self.driver.at("offsets")

    def _ask_for_commit(self) -> None:
        """Until the broker says yes or no. Raises UnknownOutcome where it says nothing."""
        said = time.monotonic()
        deadline = said + UNKNOWN_COMMIT_S
        while True:
            try:
                return self.producer.commit_transaction(COMMIT_ASK_S)
            except KafkaException as exc:
                error = kafka_error(exc)
                if error.txn_requires_abort() or is_fatal(error):
                    raise
                if time.monotonic() > deadline:
                    raise UnknownOutcome(
                        f"{self.app_id}: no answer to a commit: {error.str()}"
                    ) from exc
                if time.monotonic() > said + 10:
                    said = time.monotonic()
                    log.warning("%s: asks for the commit again: %s", self.app_id, error)
                time.sleep(0.02)

    def _await_reports(self, count: int) -> None:
        """The delivery reports of the positions; the commit is done, so they are only to be fetched."""
        deadline = time.monotonic() + 10
        while len(self.delivered) < count:
            if time.monotonic() > deadline:
                raise UnknownOutcome(
                    f"{self.app_id}: the positions of a committed transaction were not reported"
                )
            self.producer.poll(0.01)

    async def _sent(self, sending: Awaitable[Any], cycle: Cycle) -> Any:
        """Wait for what sends offsets, and whatever it does then.

        librdkafka may wait for ever for a coordinator that is gone (its issues 5456 and 5511; the settings of
        `config.py` avoid the ways that we know). Raises Stuck when the coordinator answers others meanwhile, or
        after OUTAGE_S.
        """
        started, answers = time.monotonic(), 0
        waited_s = self.driver.transaction_timeout_s + 2
        future = asyncio.ensure_future(sending)
        while not (await asyncio.wait({future}, timeout=waited_s))[0]:
            if cycle.offsets_sent:
                break
            waited_s = COORDINATOR_S
            answers += await asyncio.to_thread(self._coordinator_answers, cycle)
            seconds = time.monotonic() - started
            if answers > 1 or seconds > OUTAGE_S:
                raise Stuck(f"{self.app_id}: offsets are not sent after {seconds:.0f} s")
        return await future

    def _coordinator_answers(self, cycle: Cycle) -> bool:
        """Whether the group's coordinator answers a client that remembers no other one."""
        with Admin(self.driver.client(self.app_id), self.app_id) as admin:
            try:
                admin.offsets([cycle.batches[0].tp], within_s=0)
            except KafkaException as exc:
                log.warning("%s: the group's coordinator: %s", self.app_id, kafka_error(exc))
                return False
            return True

    # -- when it fails ------------------------------------------------------------------------------

    async def _refused(self, cycle: Cycle, error: BaseException) -> BaseException:
        """Why this transaction can't be committed, once it may be aborted.

        Its offsets are sent, though they will not count: a write that was refused because another one had failed
        does not say why, this does. And the coordinator knows the transaction then. To abort one that it has not
        heard of, right after a commit, is a fatal error to librdkafka.
        """
        answer = await self._sent(self._call(self._cause, cycle, error), cycle)
        return answer if _hides_the_cause(error) else error

    def _cause(self, cycle: Cycle, error: BaseException) -> BaseException:
        """In the Kafka thread: why the transaction can't go on, which a request for it answers."""
        try:
            self._send_offsets(cycle)
        except KafkaException as exc:
            return exc
        return error

    async def undo(self, cycle: Cycle, error: BaseException) -> None:
        """Abort the cycle's transaction, if it has one. Raises Fenced."""
        if isinstance(error, KafkaException) and is_fatal(kafka_error(error)):
            raise Fenced(f"{self.app_id}: {kafka_error(error).str()}") from error
        if cycle.begun:
            await self._call(self._abort, error)
            cycle.begun = False

    def _abort(self, error: BaseException) -> None:
        """In the Kafka thread.

        A transaction that the coordinator has not heard of, for instance since it refused one of its topics, it
        can't abort, and librdkafka's client is broken then. Nobody has fenced us: that is what it looks at first.
        """
        deadline = time.monotonic() + UNKNOWN_COMMIT_S
        while True:
            try:
                self.producer.abort_transaction(10)
                return self.driver.at("aborted")
            except KafkaException as exc:
                if kafka_error(exc).retriable() and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                if kafka_error(exc).code() == KafkaError.INVALID_TXN_STATE:
                    log.warning("%s: begins anew with a producer: %s", self.app_id, exc)
                    self.open()
                    return self.driver.at("aborted")
                raise Fenced(
                    f"{self.app_id}: can't abort ({kafka_error(exc).str()}) after {error!r}"
                ) from error


async def _in_turns(records: list[Item]) -> AsyncIterator[list[Item]]:
    """The records in parts: between two of them others in the event loop have a turn."""
    for start in range(0, len(records), WRITE_EVERY):
        if start:
            await asyncio.sleep(0)
        yield records[start : start + WRITE_EVERY]


def _naming(topic: str, exc: Exception) -> Exception:
    """A refused write with its topic: librdkafka says "Unknown topic"."""
    if not isinstance(exc, KafkaException):
        return exc
    error = kafka_error(exc)
    flags = error.fatal(), error.retriable(), error.txn_requires_abort()
    return KafkaException(KafkaError(error.code(), f"{topic}: {error.str()}", *flags))


def _hides_the_cause(exc: BaseException) -> bool:
    """A write that was refused because an earlier one had failed: it is not this record's fault."""
    cause = exc.cause if isinstance(exc, RecordFailed) else exc
    return isinstance(cause, KafkaException) and kafka_error(cause).code() == KafkaError._STATE


def breaks_transaction(exc: BaseException) -> bool:
    """A Kafka error of the transaction as a whole, not of the record that was being written."""
    if not isinstance(exc, KafkaException):
        return False
    error = kafka_error(exc)
    return bool(
        error.txn_requires_abort() or error.retriable() or error.code() == KafkaError._STATE
    )


def is_outage(exc: BaseException) -> bool:
    """An outage that ends by itself: worth trying all of it again."""
    if not isinstance(exc, KafkaException):
        return False
    permanent = {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.TOPIC_EXCEPTION,
    }
    return kafka_error(exc).code() not in permanent
