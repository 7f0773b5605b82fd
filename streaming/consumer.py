"""The loop that carries it all: poll -> agents -> outputs, changelog and offsets -> commit, one transaction a cycle.

    Kafka thread   poll ........... commit 1 | poll | commit 2 | poll | commit 3
    event loop          agents 1 -> agents 2 -----> agents 3 -----> ...

What agents write is kept until they are done; only then their transaction begins, so it is open no longer than its
commit takes. Under backlog the agents work on the next cycle meanwhile, on top of rows that are not committed yet:
when that commit fails, or a rebalance comes between, the work is dropped, and nobody has seen it.

All librdkafka calls of the consumer, and those of the transaction that wait for a broker, are made by one thread (the
Kafka thread). Agents run in the event loop, where their outputs are also handed over; that waits only while
librdkafka's queue is full. In a poll no transaction is open, so the rebalance call-backs
(they run inside of poll) never find one.

    assigned --restore, in a thread of its own--> installed --poll, cycle, poll, ...--> revoked

The parts, none of which knows the loop: `preparation` (topics), `state` (committed rows), `intake` (records that
were read), `cycle` (what one transaction is made of), `suspects` (records that failed), `writer` (the transaction),
`dead_letters`, `held` (open transactions of others).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, TopicPartition
from faust.types import TP
from faust.types.transports import ConsumerT
from mode import Service

from streaming import dead_letters, held, metrics
from streaming.admin import Admin
from streaming.closing import close_member
from streaming.cycle import Cycle
from streaming.errors import CommitFailed, Misuse, RecordFailed, Stuck, kafka_error
from streaming.intake import Intake
from streaming.preparation import prepare
from streaming.restore import Cancelled
from streaming.state import Assignment, State
from streaming.suspects import Suspects
from streaming.tables import TablePartition, TableView
from streaming.writer import OUTAGE_S, Writer, breaks_transaction, is_outage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

log = logging.getLogger(__name__)

FIRST_READ_S = 10.0  # how long after the start an agent's body may take to begin to read
LAG_EVERY_S = 1.0


class Consumer(Service, ConsumerT):
    """Faust's consumer: the life of assignments and cycles. What each is made of is in the modules named above."""

    logger = log
    in_transaction = False
    transactions: Any = None
    scheduler: Any = None
    commit_interval = 0.0

    def __init__(
        self,
        transport: Any,
        callback: Any,
        on_partitions_revoked: Any,
        on_partitions_assigned: Any,
        **kw: Any,
    ) -> None:
        kw.pop("commit_interval", None)
        super().__init__(**kw)
        self.transport, self.app = transport, transport.app
        self.driver = self.app.driver
        self.app_id: str = self.app.conf.id
        self.randomly_assigned_topics: set[str] = set()
        self.sources: tuple[str, ...] | None = None  # once they can't change any more
        self.suspects = Suspects(self.app)
        self.intake = Intake(self.app_id, self.driver, self.suspects)
        self._on_assigned = on_partitions_assigned
        self._thread = ThreadPoolExecutor(1, f"kafka-{self.app_id}")
        self._writer = Writer(self.app, self._call)
        self._consumer: KafkaConsumer | None = None
        self._admin: Admin | None = None
        self._held: held.Held | None = None
        self._state: State | None = None  # once subscribed
        self._assignment: Assignment | None = None
        self._telling: asyncio.Task[None] | None = None  # that partitions are revoked
        self._group: Any = None  # its metadata as of the last poll
        self._subscribed = self._ending = False
        self.joined = asyncio.Event()  # what the group gave us first is restored and read
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_poll_s = time.monotonic()
        self._next_cycle_s = self._lag_at_s = 0.0
        self._failure_pause_s = 0.0
        self._failing_since_s: float | None = None

    # -- life -------------------------------------------------------------------------------------

    async def _call(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def on_start(self) -> None:
        self._admin = Admin(self.driver.client(self.app_id), self.app_id)
        self._admin.meet_coordinator()
        self._held = held.Held(self.app_id, self._admin)
        self._consumer = KafkaConsumer(self.driver.consumer(self.app_id))
        await self._call(self._writer.open)

    async def on_stop(self) -> None:
        await self.finish()
        if self._assignment is not None:
            self._assignment.token.event.set()
        if self._consumer is not None:
            await self._call(close_member, self._consumer, self.app_id)
        # in the Kafka thread, where an assignment may just have said that it begins
        await self._call(self.suspects.crashes.survived)
        self._drop_assignment()
        if self._state is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._state.close)
        if self._admin is not None:
            await self._call(self._admin.close)
        self._thread.shutdown(wait=False)

    async def finish(self) -> None:
        """Let the running cycle end and begin no other."""
        self._ending = True
        await self._idle.wait()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group; called by Faust once all agents are known."""
        if self._subscribed:
            return
        self._subscribed = True
        admin, consumer = self._admin, self._consumer
        assert admin is not None
        assert consumer is not None
        try:
            if await self.wait_for_stopped(self.app.tasks_begun):
                return
            await asyncio.sleep(0)  # up to where they first wait: they may read, too
            await self.wait_for_readers(self.app.agents)
            # all that are known now: from here on the conductor refuses others
            self.sources = names = self._sources()
            if not names:
                self._reads_nothing()
                return
            for channel in list(self.app.topics):
                if channel.internal:
                    await channel.maybe_declare()
            prepared = await self._call(prepare, self.app, admin, names)
        except Exception as exc:  # noqa: BLE001 - ends the process
            self.app.fail_stop(exc)
            return
        self._state = State(self.app, admin, prepared, self._standby_failed)
        await self._call(
            lambda: consumer.subscribe(
                list(names),
                on_assign=self._kafka_assigned,
                on_revoke=self._kafka_revoked,
                on_lost=self._kafka_revoked,
            )
        )
        self.add_future(self._run_cycles())
        self.add_future(self._watch_held())

    def _sources(self) -> tuple[str, ...]:
        read = {name for channel in self.app.topics if channel.acks for name in channel.topics}
        return tuple(sorted(read | set(self.app.repartitions)))

    def _reads_nothing(self) -> None:
        """An app of timers, tasks and pages: it joins no group and holds no partition. Raises Misuse."""
        if self.app.tables:
            raise Misuse(
                f"{self.app_id} has tables ({', '.join(self.app.tables)}) and reads no topic: rows change only in an "
                f"agent; declare one, or leave the tables out"
            )
        metrics.READY.labels(self.app_id).set(1)
        self.joined.set()
        log.info("%s: ready, it reads no topic", self.app_id)

    async def wait_for_readers(self, agents: Mapping[str, Any]) -> None:
        """Until all agents (by name) read: before that their bodies may add a source by group_by. Raises Misuse."""
        deadline = time.monotonic() + FIRST_READ_S
        while late := [name for name, agent in agents.items() if not agent.reading]:
            if time.monotonic() > deadline:
                raise Misuse(
                    f"{self.app_id}: {', '.join(late)} did not begin to read within {FIRST_READ_S:.0f} s: an "
                    f"agent must read its stream before it does anything that takes long or fails"
                )
            await asyncio.sleep(0.01)

    def _standby_failed(self, error: BaseException) -> None:
        self.loop.call_soon_threadsafe(self.app.fail_stop, error)

    # -- assignment: call-backs run in the Kafka thread, inside of poll -----------------------------

    def _kafka_assigned(self, consumer: KafkaConsumer, parts: list[TopicPartition]) -> None:
        consumer.assign([])  # nothing is fetched until the state is there; the group has its answer
        if self._ending:  # also in the consumer's close: a rebalance that ends when we do
            return
        assignment = self._assignment = Assignment(
            frozenset(TP(p.topic, p.partition) for p in parts)
        )
        self.loop.call_soon_threadsafe(lambda: self.add_future(self._install(assignment)))

    def _kafka_revoked(self, consumer: KafkaConsumer, parts: list[TopicPartition]) -> None:
        assignment, self._assignment = self._assignment, None
        if assignment is not None:
            assignment.token.event.set()
        # librdkafka keeps a pause over assignments: given to us again, nobody would know of it
        consumer.resume([TopicPartition(*tp) for tp in self.intake.paused])
        consumer.unassign()
        done = threading.Event()

        def drop() -> None:
            telling = None
            try:
                self._drop_assignment()
                # while it stops nobody is told, as in Faust
                if assignment is not None and assignment.told is not None and not self._ending:
                    telling = self.loop.create_task(self._tell_revoked(assignment))
                    telling.add_done_callback(lambda _: done.set())
            except Exception as exc:  # noqa: BLE001 - ends the process
                self.app.fail_stop(exc)
            finally:
                self._telling = telling  # asyncio keeps no task by itself
                if telling is None:
                    done.set()

        self.loop.call_soon_threadsafe(drop)
        # also while we stop: what was read must not be worked on once its state is gone
        while not done.wait(1) and self.loop.is_running():
            pass

    async def _tell_revoked(self, assignment: Assignment) -> None:
        """Before others get the partitions, and once those who were told of them are done with that."""
        assert assignment.told is not None
        await self._tell(self.app.on_partitions_assigned, assignment.told.wait)
        revoked = self.app.on_partitions_revoked
        await self._tell(revoked, lambda: revoked.send(set(assignment.tps)))

    async def _tell(self, signal: Any, handlers: Callable[[], Awaitable[Any]]) -> None:
        """Wait for the handlers of one of the app's signals. One that fails, or does not end, ends the process."""
        limit_s = self.driver.cycle_timeout_s
        try:
            try:
                async with asyncio.timeout(limit_s) as limit:
                    await handlers()
            except TimeoutError as exc:
                if not limit.expired():  # the handler's own
                    raise
                raise Stuck(
                    f"{self.app_id}: a handler of {signal.name} took more than {limit_s} s"
                ) from exc
        except Exception as exc:  # noqa: BLE001 - ends the process
            self.app.fail_stop(exc)

    def _drop_assignment(self) -> None:
        """Forget what only the owner may have; committed stores stay, as old as they are."""
        metrics.READY.labels(self.app_id).set(0)
        for table in self.app.tables.values():
            for partition in list(table.held):
                del table.held[partition]
                if table.watcher is not None:
                    table.watcher.revoked(partition)
        if self._held is not None:
            self._held.forget()
        for tp in self.intake.buffers:  # before they are forgotten
            with suppress(KeyError):  # not measured yet
                metrics.LAG.remove(self.app_id, tp.topic, str(tp.partition))
        self.intake.forget()
        self.suspects.forget()

    async def _install(self, assignment: Assignment) -> None:
        """Restore, then read: the state of an assignment comes before its records."""
        state = self._state
        assert state is not None
        self.app.rebalancing_count += 1
        started = time.monotonic()
        try:
            state.check_sources(assignment)
            loop = asyncio.get_running_loop()
            count = await loop.run_in_executor(state.restorer, state.restore, assignment)
            assignment.token.check()
            for table in self.app.tables.values():
                for partition in assignment.partitions:
                    store = state.store(table.name, partition)
                    table.held[partition] = TablePartition(table, partition, store)
            assignment.told = asyncio.Event()
            try:
                await self._on_assigned(set(assignment.tps), self.app.consumer_generation_id + 1)
            finally:
                assignment.told.set()
            assignment.token.check()
            await self._call(self._begin_reading, assignment)
            assignment.token.check()
            self._tell_watchers()
            self.joined.set()
        except Cancelled:
            return
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - ends the process
            self.app.fail_stop(exc)
            return
        seconds = time.monotonic() - started
        metrics.RESTORE_S.labels(self.app_id).set(seconds)
        metrics.RESTORED.labels(self.app_id).inc(count)
        metrics.READY.labels(self.app_id).set(1)
        log.info(
            "%s: ready with partitions %s, %d records restored in %.2f s",
            self.app_id, sorted(assignment.partitions), count, seconds,
        )  # fmt: skip
        await self._tell(self.app.on_rebalance_complete, self.app.on_rebalance_complete.send)

    def _tell_watchers(self) -> None:
        """They may look until they are told that it is revoked, which it may be by now."""
        for table in self.app.tables.values():
            if table.watcher is not None:
                for partition, part in table.held.items():
                    table.watcher.assigned(partition, TableView(part, table.held.__contains__))

    def _begin_reading(self, assignment: Assignment) -> None:
        """In the Kafka thread, between two polls."""
        assignment.token.check()
        if assignment is not self._assignment or self._ending:
            raise Cancelled
        assert self._consumer is not None
        self.intake.begin(assignment.offsets)
        self.suspects.begin(assignment.offsets)
        self._consumer.assign(
            [TopicPartition(*tp, offset) for tp, offset in assignment.offsets.items()]
        )
        assignment.installed = True

    def holds(self, partition: int) -> bool:
        """True while this process is sure to own the partition number: assigned, restored, and polling."""
        assignment = self._assignment
        return (
            assignment is not None
            and assignment.installed
            and time.monotonic() - self._last_poll_s < self.driver.session_timeout_s
            and partition in assignment.partitions
        )

    @property
    def ready(self) -> bool:
        """True once what the group gave us, be it nothing, is restored and read; where nothing is read at once."""
        if self.sources == ():
            return True
        assignment = self._assignment
        return assignment is not None and assignment.installed

    @property
    def last_poll_s(self) -> float:
        """When the group's consumer last polled, `time.monotonic` seconds; now where it has nothing to poll."""
        return time.monotonic() if self.sources == () else self._last_poll_s

    def restoring(self, partition: int) -> bool:
        """True while this process has the partition number but not yet its state."""
        assignment = self._assignment
        return (
            assignment is not None
            and not assignment.installed
            and partition in assignment.partitions
        )

    # -- the loop ---------------------------------------------------------------------------------

    async def _run_cycles(self) -> None:
        try:
            while not (self.should_stop or self._ending):
                self._idle.clear()
                work = await self._call(self._poll)
                cycle = await self._worked(work) if work else None
                while cycle is not None:
                    cycle = await self._conclude(cycle)
                self._idle.set()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - ends the process
            self.app.fail_stop(exc)
        finally:
            self._idle.set()

    def _poll(self) -> dict[TP, list[Any]]:
        """In the Kafka thread: read what is there, and choose the records of the next cycle."""
        self._writer.producer.poll(0)
        if self._failure_pause_s:
            time.sleep(self._failure_pause_s)
        timeout_s = self.driver.poll_timeout_s
        if self.intake.takeable:
            timeout_s = min(max(0.0, self._next_cycle_s - time.monotonic()), timeout_s)
        self._read(timeout_s)
        if self._last_poll_s < self._next_cycle_s and not self.intake.paused:
            return {}
        work = self.intake.choose()
        if work and not self._is_member():  # ejected, and not told yet: nothing could be committed
            time.sleep(0.01)
            return {}
        return work

    def _poll_between(self, cycle: Cycle) -> bool:
        """In the Kafka thread, before a cycle that was worked on ahead begins: whether it still may."""
        self._read(0.0)
        return self._assignment is cycle.assignment and self._is_member()

    def _read(self, timeout_s: float) -> None:
        assert self._consumer is not None
        self._last_poll_s = self.intake.read(self._consumer, timeout_s)
        if self._last_poll_s >= self._lag_at_s:
            self._lag_at_s = self._last_poll_s + LAG_EVERY_S
            self._measure_lag()

    def _is_member(self) -> bool:
        """Learn the group's metadata as of this poll."""
        assert self._consumer is not None
        self._group = self._consumer.consumer_group_metadata()
        return is_member(self._group)

    def _measure_lag(self) -> None:
        """How far the group is behind the end of each source partition, as last fetched."""
        assert self._consumer is not None
        assert self._held is not None
        for tp, next_offset, end in self.intake.lags(self._consumer):
            lag = metrics.LAG.labels(self.app_id, tp.topic, str(tp.partition))
            lag.set(max(0, end - next_offset))
            self._held.measure(tp, next_offset, next_offset if self.intake.buffers[tp] else end)

    async def _watch_held(self) -> None:
        assert self._held is not None
        while not self.should_stop:
            await self.sleep(held.LOOK_S)
            try:
                await asyncio.to_thread(self._held.look)
            except KafkaException as exc:
                log.warning("%s: silent sources: %s", self.app_id, kafka_error(exc))

    # -- one cycle --------------------------------------------------------------------------------

    def _new_cycle(self, work: dict[TP, list[Any]]) -> Cycle:
        cycle = Cycle(self.app, self._group, self._assignment)
        self.suspects.begin_work(work)
        for tp, records in work.items():
            aside = self.suspects.why_aside(tp, records[0].offset())
            batch = cycle.add(tp, records, () if aside else self.app.topics.channels_of(tp))
            if aside:
                dead_letters.send(self.app, batch, 0, aside)
        return cycle

    async def _worked(self, work: dict[TP, list[Any]]) -> Cycle:
        cycle = self._new_cycle(work)
        await self._run(cycle)
        return cycle

    def _ahead(self, cycle: Cycle) -> Cycle | None:
        """The next cycle, to be worked on while this one commits: under backlog, when nothing is suspected.

        In the event loop: the Kafka thread does not poll now, so that buffers and assignment stay as they are.
        """
        ending = self.should_stop or self._ending
        if ending or self.driver.gather_s or self.suspects.some_alone:
            return None
        work = self.intake.choose_behind(cycle)
        if not work:
            return None
        metrics.AHEAD.labels(self.app_id).inc()
        return self._new_cycle(work)

    async def _run(self, cycle: Cycle) -> None:
        """Let the agents work. Their failure is the cycle's; raises Stuck when one does not come back."""
        began_s = time.monotonic()
        try:
            await cycle.run(self.driver.cycle_timeout_s)
            cycle.encode()
        except (RecordFailed, KafkaException, CommitFailed) as exc:
            cycle.error = exc
        except Stuck:
            self.suspects.hung(cycle)
            raise
        finally:
            cycle.close()
            self.intake.worked(cycle.record_count, time.monotonic() - began_s)

    async def _conclude(self, cycle: Cycle) -> Cycle | None:
        """Commit what the agents made of a cycle, or roll it back.

        Answers the cycle that they worked on meanwhile, to be concluded next; None when there is none.
        """
        error, ahead, working = cycle.error, None, None
        if error is None:
            error = await self._write(cycle)
        if error is None:
            ahead = self._ahead(cycle)
            working = None if ahead is None else asyncio.ensure_future(self._run(ahead))
            try:
                error = await self._writer.commit(cycle)
                if error is None:
                    self._merge(cycle)
                elif ahead is not None:
                    ahead.error = error  # it saw rows that will not be
                    # at once: readers wait for the transaction's end, and the agents ahead may take long
                    await self._writer.undo(cycle, error)
                if working is not None:
                    await working
            finally:
                if working is not None:
                    working.cancel()
        if error is not None:
            await self._roll_back(cycle, error, ahead)
            return None
        if ahead is None or await self._call(self._poll_between, ahead):
            return ahead
        ahead.drop()  # a rebalance: whoever has the partitions now takes its records
        return None

    async def _write(self, cycle: Cycle) -> BaseException | None:
        assert self._state is not None
        cycle.after = self.intake.offsets_after(cycle)
        return await self._writer.write(cycle, self._state.topology)

    def _merge(self, cycle: Cycle) -> None:
        """The transaction is committed: state, positions and buffers move in one synchronous step."""
        self.driver.at("before merge")
        assert self._state is not None
        for task, position in cycle.positions.items():
            for name, topic in self.app.changelogs.items():
                next_offset = self._writer.delivered[topic, task] + 1
                table = self.app.tables.get(name)
                if table is None:
                    self._state.store(name, task).apply((), position, next_offset, time.time())
                else:
                    part = table.held[task]
                    part.merge(cycle.changes.get(part, []), position, next_offset)
        for batch in cycle.batches:
            self.intake.settle(batch)
        self.suspects.committed(cycle.batches)
        self._failure_pause_s, self._failing_since_s = 0.0, None
        self._next_cycle_s = time.monotonic() + self.driver.gather_s
        metrics.TRANSACTIONS.labels(self.app_id).inc()
        metrics.RECORDS.labels(self.app_id).inc(cycle.record_count)
        metrics.OUTPUTS.labels(self.app_id).inc(len(cycle.outputs))
        metrics.BATCH_SIZE.labels(self.app_id).observe(cycle.record_count)

    async def _roll_back(
        self, cycle: Cycle, error: BaseException, ahead: Cycle | None = None
    ) -> None:
        """Forget what the agents made of a cycle, and of the one `ahead` that built on it."""
        metrics.ABORTS.labels(self.app_id).inc()
        cycle.drop()
        if ahead is not None:
            ahead.drop()
        await self._writer.undo(cycle, error)
        if isinstance(error, RecordFailed) and not breaks_transaction(error.cause):
            return self.suspects.failed(error.tp, error.offset, error.cause)
        cause = error.cause if isinstance(error, RecordFailed) else error
        if is_outage(cause):
            return self._wait_out(cause)
        return self.suspects.look_closer(cycle, cause)

    def _wait_out(self, cause: BaseException) -> None:
        """An outage: all of it is tried again, after a pause. Raises Stuck when it does not end."""
        self._failure_pause_s = min(max(0.05, self._failure_pause_s * 2), 2.0)
        self._failing_since_s = self._failing_since_s or time.monotonic()
        if time.monotonic() - self._failing_since_s > OUTAGE_S:
            raise Stuck(f"{self.app_id}: no transaction for {OUTAGE_S} s: {cause}") from cause
        log.warning("%s: transaction aborted, all of it is tried again: %s", self.app_id, cause)

    # -- the rest of what Faust asks of a consumer --------------------------------------------------

    def assignment(self) -> set[TP]:
        return set(self._assignment.tps) if self._assignment is not None else set()

    def positions(self, partition: int) -> Mapping[str, int]:
        """Next offset by source topic of one partition number, as committed."""
        return dict(self.intake.offsets.get(partition, {}))

    def topic_partitions(self, topic: str) -> int | None:
        return self._state.topology.partitions if self._state is not None else None

    async def wait_empty(self) -> None: ...
    def stop_flow(self) -> None: ...
    def resume_flow(self) -> None: ...
    def pause_partitions(self, tps: Iterable[TP]) -> None: ...
    def resume_partitions(self, tps: Iterable[TP]) -> None: ...
    def on_buffer_full(self, tp: TP) -> None: ...
    def on_buffer_drop(self, tp: TP) -> None: ...
    def verify_recovery_event_path(self, now: float, tp: TP) -> None: ...
    def track_message(self, message: Any) -> None: ...
    def close(self) -> None: ...
    async def on_task_error(self, exc: BaseException) -> None: ...

    @property
    def unacked(self) -> set[Any]:
        return set()

    def ack(self, message: Any) -> bool:
        return False  # offsets are committed with the transaction, never by message

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        return True

    async def create_topic(self, *args: Any, **kw: Any) -> None:
        await self.app.producer.create_topic(*args, **kw)

    async def position(self, tp: TP) -> int | None:
        return self.positions(tp.partition).get(tp.topic)

    def _ours(self, *args: Any, **kw: Any) -> Any:
        raise Misuse("the driver owns positions and fetching")

    getmany = perform_seek = seek = seek_wait = highwater = key_partition = _ours
    highwaters = earliest_offsets = _ours


def is_member(metadata: bytes) -> bool:
    """Whether a group's metadata, as librdkafka writes it, names a member of a generation.

    The broker takes offsets with generation -1 into an empty group: they would pass by KIP-447's fence.
    """
    magic, generation, names = metadata[:7], metadata[7:11], metadata[11:]
    if magic != b"CGMDv2:":
        raise Misuse(f"this librdkafka writes its group metadata in another way: {metadata!r}")
    _, member, _ = names.split(b"\0", 2)
    return int.from_bytes(generation, sys.byteorder, signed=True) >= 0 and bool(member)
