"""The loop that carries it all: poll -> agents -> outputs, changelog and offsets -> commit, one transaction a cycle.

    Kafka thread   poll ........... commit 1 | poll | commit 2 | poll | commit 3
    event loop          agents 1 -> agents 2 -----> agents 3 -----> ...

What agents write is kept until they are done; only then their transaction begins, so it is open no longer than its
commit takes. Under backlog the agents work on the next cycle meanwhile, on top of rows that are not committed yet:
when that commit fails, or a rebalance comes between, the work is dropped, and nobody has seen it.

All librdkafka calls of the consumer and all blocking calls of the transaction are made by one thread (the
Kafka thread); agents run in the event loop. In a poll no transaction is open, so the rebalance call-backs
(they run inside of poll) never find one. Records that were read wait in buffers here until they are committed:
an abort needs no seek, the same records are simply taken again.

    assigned --restore, in a thread of its own--> installed --poll, cycle, poll, ...--> revoked
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from faust.types import TP
from faust.types.transports import ConsumerT
from mode import Service

from streaming import held, metrics
from streaming.admin import ANSWER_S, EARLIEST, LATEST, Admin
from streaming.cycle import Cycle
from streaming.errors import (
    DriverError,
    Fenced,
    Inconsistent,
    Misuse,
    Poison,
    RecordFailed,
    Stuck,
    UnknownOutcome,
    is_fatal,
    kafka_error,
)
from streaming.positions import POSITION_KEY, Position, Topology, check_log, check_position
from streaming.restore import (
    Cancelled,
    Token,
    restore,
    stable_offsets,
)
from streaming.standby import Standby
from streaming.stores import MemoryStore, Store
from streaming.tables import TablePartition, TableView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping

    from streaming.context import Batch
    from streaming.cycle import Output
from streaming.crashes import Crashes

log = logging.getLogger(__name__)

Item = TypeVar("Item")

UNKNOWN_COMMIT_S = 60.0  # how long a commit without an answer is asked for again
# of one question: where a record was refused librdkafka waits all of it, and says so when asked again
COMMIT_ASK_S = 1.0
COORDINATOR_S = 3.0  # pause between two looks at the group's coordinator
OUTAGE_S = 180.0  # how long transactions may fail in a row before the process is started anew
NEW_TOPIC_S = 5.0  # how long a topic may be unknown before it is missing
FIRST_READ_S = 10.0  # how long after the start an agent's body may take to begin to read
WRITE_EVERY = 1000  # records given to librdkafka after which others in the event loop have a turn
CRASHES = 3  # starts without a commit after which records are taken one by one


# a leader that is new does not show all that was committed at once: what does not fit is looked at again
VIEWS = 2
VIEW_PAUSE_S = 1.5


@dataclass(slots=True)
class Suspect:
    """A record that failed: taken alone, after a pause, until it passes or its policy is applied."""

    offset: int
    attempts: int = 0
    retry_at: float = 0.0
    stopped: bool = False


@dataclass(slots=True)
class Assignment:
    """What one rebalance gave us; `token` is cancelled when the next one begins."""

    tps: frozenset[TP]
    token: Token
    offsets: dict[TP, int] = field(default_factory=dict)
    installed: bool = False


@dataclass(slots=True)
class Careful:
    """After a commit failed for a reason no record was named for: small batches of one task, up to `until`."""

    size: int
    until: dict[TP, int]
    crashed: bool = False  # the process went down again and again: one record at a time, all along


class CommitFailed(Exception):
    """A transaction could not be committed, and it is not known which record is the cause."""


def _place(tp: TP, offset: int) -> str:
    return f"{tp.topic}-{tp.partition}@{offset}"


class Consumer(Service, ConsumerT):
    """Faust's consumer; owns offsets, transactions, and the tables' life."""

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
        self._on_assigned = on_partitions_assigned
        self._on_revoked = on_partitions_revoked
        self.randomly_assigned_topics: set[str] = set()
        self._thread = ThreadPoolExecutor(1, f"kafka-{self.app_id}")
        self._restorer = ThreadPoolExecutor(1, f"restore-{self.app_id}")
        self._consumer: KafkaConsumer | None = None
        self._producer: KafkaProducer | None = None
        self._admin: Admin | None = None
        self._held: held.Held | None = None
        self._topology: Topology | None = None
        self._assignment: Assignment | None = None
        self._stores: dict[
            tuple[str, int], Store
        ] = {}  # by table and partition, kept over rebalances
        self._offsets: dict[int, dict[str, int]] = defaultdict(
            dict
        )  # next offset by task and topic
        self._buffers: dict[TP, deque[Any]] = {}
        self._paused: set[TP] = set()
        self._ends: dict[TP, int] = {}  # where a source's log ended when all of it was read
        self._suspects: dict[TP, Suspect] = {}
        self._careful: Careful | None = None
        self._group: Any = None
        self._failure_pause_s = 0.0
        self._failing_since: float | None = None
        self._next_cycle_s = 0.0
        self._standby: Standby | None = None
        self._topic_ids: dict[str, str] = {}
        self._tombstones_s: dict[str, float] = {}  # by changelog
        self._given_up: dict[TP, set[int]] = {}  # offsets that an operator lets pass
        for place in self.driver.skip:
            name, _, offset = place.rpartition("@")
            topic, _, number = name.rpartition("-")
            self._given_up.setdefault(TP(topic, int(number)), set()).add(int(offset))
        self._crashes = Crashes(self.driver.crash_file(self.app_id))
        self._last_poll = time.monotonic()
        self._ending = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._lag_at_s = 0.0
        self._subscribed = False
        self.sources: tuple[str, ...] | None = None  # once they can't change any more
        self._first_assignment = True
        self._delivered_offsets: dict[tuple[str, int], int] = {}
        self.dead_letter_count = 0

    # -- life -------------------------------------------------------------------------------------

    async def _call(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def on_start(self) -> None:
        driver = self.driver
        self._admin = Admin(driver.client(self.app_id), self.app_id)
        self._held = held.Held(self.app_id, self._admin)
        self._producer = KafkaProducer(driver.producer(self.app_id))
        self._consumer = KafkaConsumer(driver.consumer(self.app_id))
        await self._call(self._init_transactions)

    def _init_transactions(self) -> None:
        """Fence and abort what a predecessor of our name left open."""
        assert self._producer is not None
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._producer.init_transactions(30)
            except KafkaException as exc:
                if not kafka_error(exc).retriable() or time.monotonic() > deadline:
                    raise
                log.warning(
                    "%s: init_transactions is tried again: %s", self.app_id, kafka_error(exc)
                )

    async def on_stop(self) -> None:
        await self.finish()
        if self._assignment is not None:
            self._assignment.token.event.set()
        if self._consumer is not None:
            await self._call(self._consumer.close)
        # in the Kafka thread, where an assignment may just have said that it begins
        await self._call(self._crashes.survived)
        self._drop_assignment()
        loop = asyncio.get_running_loop()
        if self._standby is not None:
            await loop.run_in_executor(None, self._standby.stop)
        # a restore that was cancelled looks at its token soon; until then it may open and write stores
        await loop.run_in_executor(None, self._restorer.shutdown)
        for store in self._stores.values():
            store.close()
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
        read = set(topics) & set(self.app.topics.acking_topics)
        try:
            await self.wait_for_readers(self.app.agents)
            self.sources = names = tuple(sorted(read | set(self.app.repartitions)))
            self._topology = await self._call(self._find_topology, names)
        except Exception as exc:  # noqa: BLE001 - ends the process
            self.app.fail_stop(exc)
            return
        if self.driver.standby and self.app.tables:
            self._standby = self._new_standby()
        consumer = self._consumer
        assert consumer is not None
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

    @property
    def changelogs(self) -> dict[str, Any]:
        """Changelog topic by table name. An app without tables keeps its positions in a topic of their own."""
        if not self.app.tables:
            return {"positions": self.app.positions_topic}
        return {name: table.changelog_topic_name for name, table in self.app.tables.items()}

    def _find_topology(self, sources: tuple[str, ...]) -> Topology:
        """Check partition counts of all topics that must be co-partitioned; learn their ids."""
        assert self._admin is not None
        self._create_repartition_topics()
        given = [name for name in sources if name not in self.app.repartitions]
        if not self.app.tables and given:  # a topic that was just made may not be known yet
            self._create_beside(given[0], self.app.positions_topic, {"cleanup.policy": "compact"})
        names = [*sources, *self.changelogs.values()]
        described = self._describe(names)
        counts = {name: len(found.partitions) for name, found in described.items()}
        ids = {name: str(found.topic_id) for name, found in described.items()}
        self._check_changelogs()
        self._topic_ids = ids
        if len(set(counts.values())) > 1:
            raise Inconsistent(
                f"{self.app_id}: sources and changelogs must have the same number of partitions, they have {counts}"
            )
        return Topology(
            app_id=self.app_id,
            sources=sources,
            tables=tuple(sorted(self.app.tables)),
            partitions=next(iter(counts.values())),
            topic_ids={name: ids[name] for name in sources},
            adopt=self.driver.adopt_topology,
        )

    def _describe(self, names: list[str]) -> dict[str, Any]:
        """Descriptions of topics. Raises Inconsistent when one is missing.

        A topic that was created just now may not be known to each broker yet: asked again for a while.
        """
        from confluent_kafka import TopicCollection

        assert self._admin is not None

        def question(client: AdminClient) -> tuple[dict[str, Any], str | None]:
            futures = client.describe_topics(TopicCollection(names), request_timeout=ANSWER_S)
            found, missing = {}, None
            for name, future in futures.items():
                try:
                    found[name] = future.result(31)
                except KafkaException as exc:
                    if kafka_error(exc).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise
                    missing = f"{self.app_id}: topic {name}: {kafka_error(exc).str()}"
            return found, missing

        deadline = time.monotonic() + NEW_TOPIC_S
        while True:
            found, missing = self._admin.ask(question)
            if missing is None:
                return found
            if time.monotonic() > deadline:
                raise Inconsistent(missing)
            time.sleep(0.1)

    def _create_repartition_topics(self) -> None:
        config = {"cleanup.policy": "delete", "retention.ms": "-1"}
        for name, made in self.app.repartitions.items():
            count = self._create_beside(made.source_topic, name, config)
            if made.partitions is not None and count and made.partitions != count:
                raise Misuse(
                    f"{self.app_id}: group_by with partitions={made.partitions}, but {made.source_topic} has "
                    f"{count}, and so must {name}: leave partitions= out"
                )

    def _create_beside(self, source: str, name: str, config: dict[str, str]) -> int:
        """Create a topic of as many partitions as the source has, unless it is there. Answers how many."""
        assert self._admin is not None
        metadata = self._admin.ask(lambda client: client.list_topics(timeout=ANSWER_S))
        found = metadata.topics.get(source)
        count = len(found.partitions) if found is not None else 0
        if not count or name in metadata.topics:
            return count
        new = NewTopic(name, count, config=config)
        try:
            self._admin.ask(lambda client: client.create_topics([new])[new.topic].result(61))
        except KafkaException as exc:
            if kafka_error(exc).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return count

    def _check_changelogs(self) -> None:
        """A changelog that deletes loses state. Learns how long a deleted key's record is kept."""
        assert self._admin is not None
        asked = {
            ConfigResource(ConfigResource.Type.TOPIC, name): name
            for name in self.changelogs.values()
        }

        def question(client: AdminClient) -> dict[str, Any]:
            futures = client.describe_configs(list(asked), request_timeout=ANSWER_S)
            return {asked[resource]: future.result(31) for resource, future in futures.items()}

        for name, found in self._admin.ask(question).items():
            if found["cleanup.policy"].value != "compact":
                raise Inconsistent(
                    f"{self.app_id}: {name} has cleanup.policy {found['cleanup.policy'].value}: state would be lost; "
                    f"set it to compact"
                )
            self._tombstones_s[name] = int(found["delete.retention.ms"].value) / 1000

    # -- assignment: call-backs run in the Kafka thread, inside of poll -----------------------------

    def _kafka_assigned(self, consumer: KafkaConsumer, parts: list[TopicPartition]) -> None:
        consumer.assign([])  # nothing is fetched until the state is there; the group has its answer
        if self._ending:  # also in the consumer's close: a rebalance that ends when we do
            return
        assignment = Assignment(
            frozenset(TP(p.topic, p.partition) for p in parts), Token(threading.Event())
        )
        self._assignment = assignment
        self.loop.call_soon_threadsafe(lambda: self.add_future(self._install(assignment)))

    def _kafka_revoked(self, consumer: KafkaConsumer, parts: list[TopicPartition]) -> None:
        assignment, self._assignment = self._assignment, None
        if assignment is not None:
            assignment.token.event.set()
        # librdkafka keeps a pause over assignments: given to us again, nobody would know of it
        consumer.resume([TopicPartition(*tp) for tp in self._paused])
        consumer.unassign()
        done = threading.Event()

        def drop() -> None:
            self._drop_assignment()
            done.set()

        self.loop.call_soon_threadsafe(drop)
        # also while we stop: what was read must not be worked on once its state is gone
        while not done.wait(1) and self.loop.is_running():
            pass

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
        for tp in self._buffers:
            with suppress(KeyError):  # not measured yet
                metrics.LAG.remove(self.app_id, tp.topic, str(tp.partition))
        self._buffers.clear()
        self._ends.clear()
        self._paused.clear()
        self._suspects.clear()
        self._offsets.clear()
        self._careful = None

    async def _install(self, assignment: Assignment) -> None:
        """Restore, then read: the state of an assignment comes before its records."""
        loop = asyncio.get_running_loop()
        try:
            started = time.monotonic()
            self._check_assignment(assignment)
            count = await loop.run_in_executor(self._restorer, self._restore, assignment)
            assignment.token.check()
            for table in self.app.tables.values():
                for partition in {tp.partition for tp in assignment.tps}:
                    part = TablePartition(table, partition, self._stores[table.name, partition])
                    table.held[partition] = part
            await self._on_assigned(set(assignment.tps), self.app.consumer_generation_id + 1)
            assignment.token.check()
            await self._call(self._begin_reading, assignment)
            assignment.token.check()
            self._tell_watchers()
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
        partitions = sorted({tp.partition for tp in assignment.tps})
        log.info(
            "%s: ready with partitions %s, %d records restored in %.2f s",
            self.app_id,
            partitions,
            count,
            seconds,
        )

    def _tell_watchers(self) -> None:
        """They may look until they are told that it is revoked, which it may be by now."""
        for table in self.app.tables.values():
            if table.watcher is not None:
                for partition, part in table.held.items():
                    table.watcher.assigned(partition, TableView(part, table.held.__contains__))

    def _check_assignment(self, assignment: Assignment) -> None:
        assert self._topology is not None
        topics: dict[int, set[str]] = defaultdict(set)
        for tp in assignment.tps:
            topics[tp.partition].add(tp.topic)
        for partition, names in topics.items():
            if names != set(self._topology.sources):
                raise Inconsistent(
                    f"{self.app_id}, partition {partition}: the group gave us {sorted(names)} of "
                    f"{list(self._topology.sources)}: workers with other code are in the group; stop them all, then "
                    f"start one version"
                )

    def _restore(self, assignment: Assignment) -> int:
        """In a thread: find where to read from, and bring the stores there. Answers records read."""
        assert self._admin is not None
        assert self._topology is not None
        admin, topology = self._admin, self._topology
        sources = sorted(assignment.tps)
        if self._standby is not None:
            assignment.token.check()
            self._standby.keep(self._others({tp.partition for tp in sources}))
        if not sources:  # more workers than partitions
            return 0
        for _ in range(VIEWS):
            began = time.monotonic()
            try:
                return self._restore_once(assignment, admin, topology, sources)
            except Inconsistent as exc:
                if time.monotonic() - began > self.driver.takeover_timeout_s / 2:
                    raise  # it has waited long enough
                log.warning("%s: looks again: %s", self.app_id, exc)
                time.sleep(VIEW_PAUSE_S)
        return self._restore_once(assignment, admin, topology, sources)

    def _restore_once(
        self, assignment: Assignment, admin: Admin, topology: Topology, sources: list[TP]
    ) -> int:
        """One view of offsets, changelogs and logs. Raises Inconsistent when they do not fit each other."""
        committed = stable_offsets(
            admin, self.app_id, sources, self.driver.takeover_timeout_s, assignment.token
        )
        stores: dict[TP, Store] = {}
        for name, topic in self.changelogs.items():
            for partition in {tp.partition for tp in sources}:
                stores[TP(topic, partition)] = self._store(name, partition)
        count = restore(
            self.driver.client(self.app_id),
            admin,
            stores,
            assignment.token,
            self._tombstones_s,
            self.driver.takeover_timeout_s,
        )
        lows = admin.log_ends(sources, EARLIEST)
        highs = admin.log_ends(sources, LATEST)
        for partition in sorted({tp.partition for tp in sources}):
            here = {
                tp.topic: offset for tp, offset in committed.items() if tp.partition == partition
            }
            for topic in self.changelogs.values():
                data = stores[TP(topic, partition)].position
                kept = Position.loads(data) if data is not None else None
                check_position(topology, partition, here, kept, topic)
        for tp in sources:
            if tp in committed:
                check_log(self.app_id, tp.topic, tp.partition, committed[tp], lows[tp], highs[tp])
            assignment.offsets[tp] = committed.get(tp, lows[tp])
        return count

    def _new_standby(self) -> Standby:
        assert self._admin is not None
        return Standby(
            self.app_id,
            self.driver.client(self.app_id),
            self._admin,
            self._standby_store,
            self._tombstones_s,
            self._standby_failed,
        )

    def _others(self, ours: set[int]) -> list[TP]:
        """The changelog partitions that others own."""
        assert self._topology is not None
        numbers = [n for n in range(self._topology.partitions) if n not in ours]
        return [TP(topic, n) for topic in self.changelogs.values() for n in numbers]

    def _standby_store(self, tp: TP) -> Store:
        [name] = [name for name, topic in self.changelogs.items() if topic == tp.topic]
        return self._store(name, tp.partition)

    def _standby_failed(self, error: BaseException) -> None:
        self.loop.call_soon_threadsafe(self.app.fail_stop, error)

    def _store(self, table: str, partition: int) -> Store:
        store = self._stores.get((table, partition))
        if store is None:
            store = self._stores[table, partition] = self._new_store(table, partition)
        return store

    def _new_store(self, table: str, partition: int) -> Store:
        if self.driver.store == "memory":
            return MemoryStore()
        from streaming.rocks import RocksStore, store_directory

        assert self.driver.state_dir is not None
        worker = self.driver.state_dir / f"{self.app_id}.{self.driver.instance}"
        topic_id = self._topic_ids[self.changelogs[table]]
        return RocksStore(store_directory(worker, table, partition, topic_id))

    def _begin_reading(self, assignment: Assignment) -> None:
        """In the Kafka thread, between two polls."""
        assignment.token.check()
        if assignment is not self._assignment or self._ending:
            raise Cancelled
        assert self._consumer is not None
        for tp, offset in assignment.offsets.items():
            self._buffers[tp] = deque()
            self._offsets[tp.partition][tp.topic] = offset
        self._remember_crashes(assignment)
        self._consumer.assign(
            [TopicPartition(*tp, offset) for tp, offset in assignment.offsets.items()]
        )
        assignment.installed = True

    def _remember_crashes(self, assignment: Assignment) -> None:
        """Records that hung or killed this worker before are suspects; others are taken one by one."""
        crashes = self._crashes
        for place, tries in crashes.tries.items():
            name, _, offset = place.rpartition("@")
            topic, _, number = name.rpartition("-")
            tp = TP(topic, int(number))
            if int(offset) >= assignment.offsets.get(tp, sys.maxsize):
                stopped = tries >= self.driver.attempts
                now = time.monotonic()
                self._suspects[tp] = Suspect(int(offset), tries, now, stopped)
                log.critical("%s: %s took the worker down %d times%s", self.app_id, place, tries,
                             ": its partition stops here" if stopped else "")  # fmt: skip
        metrics.STOPPED.labels(self.app_id).set(sum(s.stopped for s in self._suspects.values()))
        if crashes.starts >= CRASHES and self._first_assignment:
            until = {tp: at + self.driver.batch_max for tp, at in assignment.offsets.items()}
            self._careful = Careful(1, until, crashed=True)
        if self._first_assignment and assignment.offsets:
            self._first_assignment = False
            crashes.begin()

    def holds(self, partition: int) -> bool:
        """True while this process is sure to own the partition number: assigned, restored, and polling."""
        assignment = self._assignment
        return (
            assignment is not None
            and assignment.installed
            and time.monotonic() - self._last_poll < self.driver.session_timeout_s
            and any(tp.partition == partition for tp in assignment.tps)
        )

    @property
    def ready(self) -> bool:
        """True once what the group gave us, be it nothing, is restored and read."""
        assignment = self._assignment
        return assignment is not None and assignment.installed

    @property
    def last_poll_s(self) -> float:
        """When the group's consumer last polled, `time.monotonic` seconds."""
        return self._last_poll

    def restoring(self, partition: int) -> bool:
        """True while this process has the partition number but not yet its state."""
        assignment = self._assignment
        return (
            assignment is not None
            and not assignment.installed
            and any(tp.partition == partition for tp in assignment.tps)
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
        assert self._producer is not None
        self._producer.poll(0)
        if self._failure_pause_s:
            time.sleep(self._failure_pause_s)
        timeout_s = self.driver.poll_timeout_s
        if any(self._takeable(tp) for tp in self._buffers):
            timeout_s = min(max(0.0, self._next_cycle_s - time.monotonic()), timeout_s)
        self._read(timeout_s)
        if self._last_poll < self._next_cycle_s and not self._paused:
            return {}
        work = self._choose()
        if work and not self._is_member():  # ejected, and not told yet: nothing could be committed
            time.sleep(0.01)
            return {}
        return work

    def _poll_between(self, cycle: Cycle) -> bool:
        """In the Kafka thread, before a cycle that was worked on ahead begins: whether it still may."""
        self._read(0.0)
        return self._assignment is cycle.assignment and self._is_member()

    def _read(self, timeout_s: float) -> None:
        """Two batches at most: the rest stays with librdkafka, for it forgets what it has when it is paused."""
        assert self._consumer is not None
        here = sum(len(buffer) for tp, buffer in self._buffers.items() if self._takeable(tp))
        count = 2 * self.driver.batch_max - here - 1
        head = self._consumer.poll(timeout_s)
        self._last_poll = time.monotonic()
        if head is not None:
            self._take_in([head, *(self._consumer.consume(count, 0) if count > 0 else ())])
        self._flow()
        if self._last_poll >= self._lag_at_s:
            self._measure_lag()

    def _is_member(self) -> bool:
        """Learn the group's metadata as of this poll."""
        assert self._consumer is not None
        self._group = self._consumer.consumer_group_metadata()
        return is_member(self._group)

    def _take_in(self, messages: list[Any]) -> None:
        """Into the buffers. The next offset is looked up where the source changes, not for each record."""
        source: tuple[str, int] | None = None
        buffer: deque[Any] | None = None
        expected = 0
        for message in messages:
            error = message.error()
            if error is not None:
                self._consumer_error(error, message)
                continue
            topic, partition = message.topic(), message.partition()
            if source != (topic, partition):
                source = topic, partition
                buffer = self._buffers.get(source)  # type: ignore[call-overload]
                if buffer:
                    expected = buffer[-1].offset() + 1
                elif buffer is not None:
                    expected = self._offsets[partition][topic]
            if buffer is None:
                continue  # revoked inside of this poll
            offset = message.offset()
            if offset < expected:
                raise Inconsistent(
                    f"{self.app_id}: {topic}-{partition} went back to {offset}, expected {expected}"
                )
            buffer.append(message)
            expected = offset + 1

    def _consumer_error(self, error: KafkaError, message: Any) -> None:
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

    def _flow(self) -> None:
        """Back-pressure: a partition whose buffer is full is not fetched until it is half empty."""
        assert self._consumer is not None
        limit = 3 * self.driver.batch_max  # more than is ever read of what goes on
        full = [
            tp
            for tp, buffer in self._buffers.items()
            if len(buffer) > limit and tp not in self._paused
        ]
        free = [tp for tp in self._paused if len(self._buffers[tp]) <= limit // 2]
        if full:
            self._consumer.pause([TopicPartition(*tp) for tp in full])
            self._paused.update(full)
        if free:
            self._consumer.resume([TopicPartition(*tp) for tp in free])
            self._paused.difference_update(free)

    def _measure_lag(self) -> None:
        """Once a second: how far the group is behind the end of each source partition, as last fetched."""
        assert self._consumer is not None
        assert self._held is not None
        self._lag_at_s = self._last_poll + 1
        for tp, buffer in self._buffers.items():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(*tp), cached=True)
            next_offset = self._offsets[tp.partition][tp.topic]
            if not buffer:  # the markers of transactions, which nobody is given, were passed by too
                next_offset = max(next_offset, self._ends.get(tp, next_offset))
            behind = end - next_offset
            metrics.LAG.labels(self.app_id, tp.topic, str(tp.partition)).set(max(0, behind))
            self._held.measure(tp, next_offset, next_offset if buffer else end)

    async def _watch_held(self) -> None:
        assert self._held is not None
        while not self.should_stop:
            await self.sleep(held.LOOK_S)
            try:
                await asyncio.to_thread(self._held.look)
            except KafkaException as exc:
                log.warning("%s: silent sources: %s", self.app_id, kafka_error(exc))

    def _takeable(self, tp: TP) -> bool:
        buffer = self._buffers[tp]
        if not buffer:
            return False
        suspect = self._suspects.get(tp)
        if suspect is None or buffer[0].offset() < suspect.offset:
            return True
        if suspect.offset in self._given_up.get(tp, ()):
            return True
        return not suspect.stopped and time.monotonic() >= suspect.retry_at

    def _choose(self) -> dict[TP, list[Any]]:
        """The records of the next cycle: a due suspect alone, else a fair share of each source partition."""
        ready = [tp for tp in self._buffers if self._takeable(tp)]
        for tp in ready:
            suspect = self._suspects.get(tp)
            if (
                suspect is not None
                and self._buffers[tp][0].offset() >= suspect.offset
                and suspect.retry_at
            ):
                return {tp: [self._buffers[tp][0]]}
        if not ready:
            return {}
        if self._careful is not None:
            tp = min(ready, key=lambda tp: (tp not in self._careful.until, tp))  # type: ignore[union-attr]
            return {tp: self._head(tp, self._careful.size)}
        shares = fair_shares({tp: len(self._buffers[tp]) for tp in ready}, self.driver.batch_max)
        return {tp: self._head(tp, share) for tp, share in shares.items()}

    def _head(self, tp: TP, count: int) -> list[Any]:
        """Records at the head of a buffer, up to a suspect."""
        buffer, suspect = self._buffers[tp], self._suspects.get(tp)
        head = list(islice(buffer, count))  # by index each would be a walk through the deque
        alone = {suspect.offset} if suspect is not None else set()
        if tp in self._given_up:
            alone |= self._given_up[tp]
        if not alone:
            return head
        for n, record in enumerate(head):
            if record.offset() in alone:
                return head[:n] or head[:1]
        return head

    def _ahead(self, cycle: Cycle) -> Cycle | None:
        """The next cycle, to be worked on while this one commits: under backlog, when nothing is suspected.

        In the event loop: the Kafka thread does not poll now, so that buffers and assignment stay as they are.
        """
        if (
            self.should_stop
            or self._ending
            or self.driver.gather_s
            or self._suspects
            or self._careful is not None
            or self._given_up
        ):
            return None
        taken = {batch.tp: len(batch.records) for batch in cycle.batches}
        more = {
            tp: count
            for tp, buffer in self._buffers.items()
            if (count := len(buffer) - taken.get(tp, 0))
        }
        if sum(more.values()) < max(1, self.driver.batch_max // 2):
            return None
        metrics.AHEAD.labels(self.app_id).inc()
        shares = fair_shares(more, self.driver.batch_max)
        return self._new_cycle(
            {
                tp: list(islice(self._buffers[tp], start := taken.get(tp, 0), start + share))
                for tp, share in shares.items()
            }
        )

    # -- one cycle --------------------------------------------------------------------------------

    def _new_cycle(self, work: dict[TP, list[Any]]) -> Cycle:
        cycle = Cycle(self.app, self._group, self._assignment)
        if self._careful is not None and self._careful.crashed:
            [(tp, [record])] = work.items()
            self._crashes.works_on(_place(tp, record.offset()))
        for tp, records in work.items():
            aside = self._aside(tp, records[0])
            batch = cycle.add(tp, records, () if aside else self.app.topics.channels_of(tp))
            if aside:
                self._dead_letter(batch, 0, aside)
        return cycle

    async def _worked(self, work: dict[TP, list[Any]]) -> Cycle:
        cycle = self._new_cycle(work)
        await self._run(cycle)
        return cycle

    async def _run(self, cycle: Cycle) -> None:
        """Let the agents work. Their failure is the cycle's; raises Stuck when one does not come back."""
        try:
            await cycle.run(self.driver.cycle_timeout_s)
            cycle.changes = self._encode(cycle)
        except (RecordFailed, KafkaException, CommitFailed) as exc:
            cycle.error = exc
        except Stuck:
            at = [(b.tp, b.records[b.pos].offset()) for b in cycle.batches if b.pos is not None]
            self._crashes.hung(_place(tp, offset) for tp, offset in at)
            raise
        finally:
            cycle.close()

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
                error = await self._commit(cycle)
                if error is None:
                    self._merge(cycle)
                elif ahead is not None:
                    ahead.error = error  # it saw rows that will not be
                    # at once: readers wait for its end, and agents may take long
                    await self._undo(cycle, error)
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
        """Begin the transaction, and hand to librdkafka all that the agents wrote, rows and positions.

        Answers why it can't be, a record named where one is known.
        """
        assert self._producer is not None
        for tp in self._next_offsets(cycle):
            assert tp in self._buffers, f"{tp} was lost inside of a cycle"
        cycle.seal()
        self._producer.begin_transaction()
        cycle.begun = True
        self._fault("begun")
        try:
            async for outputs in _in_turns(cycle.outputs):
                self._write_outputs(outputs)
            for part, changes in cycle.changes.items():
                async for rows in _in_turns(changes):
                    self._write_rows(part.changelog, part.partition, rows)
            cycle.positions = self._positions(cycle)
            self._delivered_offsets.clear()
            for task, position in cycle.positions.items():
                for topic in self.changelogs.values():
                    self._produce(topic, POSITION_KEY, position, task, self._position_delivered)
        except (RecordFailed, KafkaException) as exc:
            return await self._refused(cycle, exc)
        return None

    def _write_outputs(self, outputs: list[Output]) -> None:
        """Raises RecordFailed for one that can't be written."""
        assert self._producer is not None
        produce, faults = self._producer.produce, self.driver.faults
        for batch, pos, topic, key, value, partition, headers, at_ms in outputs:
            try:
                try:
                    produce(topic, value, key, partition, None, None, at_ms, headers)
                except BufferError:
                    self._produce(topic, key, value, partition, None, at_ms, headers)
            except Exception as exc:
                if batch is None:
                    raise
                raise RecordFailed(batch.tp, batch.records[pos].offset(), exc) from exc
            if faults is not None:
                faults("produced")

    def _write_rows(
        self, changelog: str, partition: int, rows: list[tuple[bytes, bytes | None]]
    ) -> None:
        assert self._producer is not None
        produce = self._producer.produce
        for key, value in rows:
            try:
                produce(changelog, value, key, partition)
            except BufferError:
                self._produce(changelog, key, value, partition)

    async def _commit(self, cycle: Cycle) -> BaseException | None:
        """Send the offsets and commit. Answers why it must be aborted."""
        began = time.perf_counter()
        try:
            await self._sent(self._call(self._commit_transaction, cycle), cycle)
        except KafkaException as exc:
            return await self._refused(cycle, exc) if _hides_the_cause(exc) else exc
        self._fault("committed")
        metrics.COMMIT_S.labels(self.app_id).observe(time.perf_counter() - began)
        return None

    async def _refused(self, cycle: Cycle, error: BaseException) -> BaseException:
        """Why this transaction can't be committed, once it may be aborted.

        Its offsets are sent, though they will not count: a write that was refused because another one had failed
        does not say why, this does. And the coordinator knows the transaction then. To abort one that it has not
        heard of, right after a commit, is a fatal error to librdkafka.
        """
        answer = await self._sent(self._call(self._cause, cycle, error), cycle)
        return answer if _hides_the_cause(error) else error

    def _fault(self, point: str) -> None:
        if self.driver.faults is not None:
            self.driver.faults(point)

    def _aside(self, tp: TP, record: Any) -> str:
        """Why nobody reads this record, alone in its batch, and it goes to the dead letters; empty when not."""
        if record.offset() in self._given_up.get(tp, ()):
            return "given up by an operator"
        suspect = self._suspects.get(tp)
        if (
            suspect is not None
            and suspect.offset == record.offset()
            and suspect.attempts >= self.driver.attempts
            and self._policy(tp.topic).on_error == "dead-letter"
        ):
            return f"failed {suspect.attempts} times"
        return ""

    def _policy(self, topic: str) -> Any:
        return self.app.policy_of(topic)

    def put_aside(self, batch: Batch, record: Any, poison: Poison) -> None:
        """A record that its codec can't read: to the dead letters once, however many agents read it.

        Raises the poison where the topic's policy (or the poison itself) says that it must not be passed by.
        """
        if poison.stops or self._policy(batch.tp.topic).on_poison == "stop":
            raise poison
        key = (batch.tp, record.offset())
        if key not in batch.cycle.put_aside:
            batch.cycle.put_aside.add(key)
            self._dead_letter(batch, batch.pos or 0, str(poison))

    def _dead_letter(self, batch: Batch, pos: int, reason: str) -> None:
        tp, record = batch.tp, batch.records[pos]
        topic = self._policy(tp.topic).dead_letters
        origin = f"{tp.topic}-{tp.partition}@{record.offset()}"
        log.error("%s: %s goes to %s: %s", self.app_id, origin, topic, reason)
        headers = [
            *(record.headers() or ()),
            ("dead_letter_reason", reason[:500].encode()),
            ("dead_letter_topic", tp.topic.encode()),
            ("dead_letter_partition", str(tp.partition).encode()),
            ("dead_letter_offset", str(record.offset()).encode()),
            ("dead_letter_app", self.app_id.encode()),
        ]
        batch.cycle.outputs.append(
            (batch, pos, topic, record.key(), record.value(), -1, headers, 0)
        )
        metrics.DEAD_LETTERS.labels(self.app_id, tp.topic).inc()

    def _next_offsets(self, cycle: Cycle) -> dict[TP, int]:
        return {batch.tp: batch.next_offset for batch in cycle.batches}

    def _send_offsets(self, cycle: Cycle) -> None:
        """In the Kafka thread. The group's metadata is of the poll that read these records (KIP-447)."""
        assert self._producer is not None
        # all sources of each task, so that group and position record always name the same topics
        offsets = [
            TopicPartition(topic, task, offset)
            for task in {batch.partition for batch in cycle.batches}
            for topic, offset in self._after(cycle, task).items()
        ]
        deadline = time.monotonic() + self.driver.transaction_timeout_s
        while True:
            left_s = max(1.0, deadline - time.monotonic())
            try:
                self._producer.send_offsets_to_transaction(offsets, cycle.group, left_s)
                break
            except KafkaException as exc:
                error = kafka_error(exc)
                if (
                    error.txn_requires_abort()
                    or not error.retriable()
                    or time.monotonic() > deadline
                ):
                    raise
                time.sleep(0.02)
        self._fault("offsets")

    async def _sent(self, sending: Awaitable[Any], cycle: Cycle) -> Any:
        """Wait for what sends offsets, and whatever it does then.

        librdkafka may wait for ever for a coordinator that is gone (its issues 5456 and 5511). Raises Stuck
        when the coordinator answers others meanwhile, or after OUTAGE_S.
        """
        started, answers = time.monotonic(), 0
        waited_s = self.driver.transaction_timeout_s + 2
        future = asyncio.ensure_future(sending)
        while not (await asyncio.wait({future}, timeout=waited_s))[0]:
            if cycle.offsets_sent:
                break
            waited_s = COORDINATOR_S
            answers += await asyncio.to_thread(self._coordinator_answers)
            seconds = time.monotonic() - started
            if answers > 1 or seconds > OUTAGE_S:
                raise Stuck(f"{self.app_id}: offsets are not sent after {seconds:.0f} s")
        return await future

    def _coordinator_answers(self) -> bool:
        """Whether the group's coordinator answers a client that remembers no other one."""
        assert self.sources is not None
        admin = Admin(self.driver.client(self.app_id), self.app_id)
        try:
            admin.offsets([TP(self.sources[0], 0)], within_s=0)
        except KafkaException as exc:
            log.warning("%s: the group's coordinator: %s", self.app_id, kafka_error(exc))
            return False
        return True

    def _cause(self, cycle: Cycle, error: BaseException) -> BaseException:
        """In the Kafka thread: why the transaction can't go on, which a request for it answers."""
        try:
            self._send_offsets(cycle)
        except KafkaException as exc:
            return exc
        return error

    def _encode(self, cycle: Cycle) -> dict[TablePartition, list[tuple[bytes, bytes | None]]]:
        """Changed rows as changelog records, each encoded once."""
        try:
            return {part: part.encoded() for part in cycle.dirty}
        except Exception as exc:
            raise CommitFailed(f"a changed row can't be encoded: {exc!r}") from exc

    def _positions(self, cycle: Cycle) -> dict[int, bytes]:
        """The new position record of each task in this cycle."""
        assert self._topology is not None
        tasks = {batch.partition for batch in cycle.batches}
        return {task: self._topology.position(self._after(cycle, task)).dumps() for task in tasks}

    def _commit_transaction(self, cycle: Cycle) -> None:
        """In the Kafka thread. Raises KafkaException when it must be aborted."""
        self._send_offsets(cycle)
        cycle.offsets_sent = True
        self._fault("before commit")
        self._ask_for_commit()
        self._await_reports(len(cycle.positions) * len(self.changelogs))

    def _await_reports(self, count: int) -> None:
        """The delivery reports of the positions; the commit is done, so they are only to be fetched."""
        assert self._producer is not None
        deadline = time.monotonic() + 10
        while len(self._delivered_offsets) < count:
            if time.monotonic() > deadline:
                raise UnknownOutcome(
                    f"{self.app_id}: the positions of a committed transaction were not reported"
                )
            self._producer.poll(0.01)

    def _after(self, cycle: Cycle, task: int) -> dict[str, int]:
        offsets = dict(self._offsets[task])
        offsets.update(
            {
                tp.topic: offset
                for tp, offset in self._next_offsets(cycle).items()
                if tp.partition == task
            }
        )
        return offsets

    def _position_delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self._delivered_offsets[message.topic(), message.partition()] = message.offset()

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        delivered: Any = None,
        timestamp_ms: int = 0,
        headers: Any = None,
    ) -> None:
        """Wait while librdkafka's queue is full: the broker is slower than we are."""
        assert self._producer is not None
        while True:
            try:
                return self._producer.produce(
                    topic, value, key, partition, delivered, None, timestamp_ms, headers
                )
            except BufferError:
                self._producer.poll(0.01)

    def _ask_for_commit(self) -> None:
        """Ask until the broker says yes or no: a commit whose outcome is unknown is never aborted."""
        assert self._producer is not None
        said = time.monotonic()
        deadline = said + UNKNOWN_COMMIT_S
        while True:
            try:
                return self._producer.commit_transaction(COMMIT_ASK_S)
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

    def _merge(self, cycle: Cycle) -> None:
        """The transaction is committed: state, positions and buffers move in one synchronous step."""
        self._fault("before merge")
        for task, position in cycle.positions.items():
            for name, topic in self.changelogs.items():
                next_offset = self._delivered_offsets[topic, task] + 1
                table = self.app.tables.get(name)
                if table is None:
                    self._stores[name, task].apply((), position, next_offset, time.time())
                else:
                    part = table.held[task]
                    part.merge(cycle.changes.get(part, []), position, next_offset)
        for batch in cycle.batches:
            buffer = self._buffers[batch.tp]
            for _ in batch.records:
                buffer.popleft()
            self._offsets[batch.partition][batch.tp.topic] = batch.next_offset
            self._settle(batch)
        self._failure_pause_s, self._failing_since = 0.0, None
        self._next_cycle_s = time.monotonic() + self.driver.gather_s
        if self._careful is None or not self._careful.crashed:
            self._crashes.survived()
        records = sum(len(batch.records) for batch in cycle.batches)
        metrics.TRANSACTIONS.labels(self.app_id).inc()
        metrics.RECORDS.labels(self.app_id).inc(records)
        metrics.OUTPUTS.labels(self.app_id).inc(len(cycle.outputs))
        metrics.BATCH_SIZE.labels(self.app_id).observe(records)

    def _settle(self, batch: Batch) -> None:
        """What was suspected up to here has passed."""
        suspect = self._suspects.get(batch.tp)
        if suspect is not None and suspect.offset < batch.next_offset:
            del self._suspects[batch.tp]
            metrics.SUSPECTS.labels(self.app_id).set(len(self._suspects))
        if self._crashes.tries:
            self._crashes.passed(_place(batch.tp, batch.first))
        careful = self._careful
        if careful is not None and batch.tp in careful.until:
            if not careful.crashed:
                careful.size = min(2 * careful.size, self.driver.batch_max)
            if batch.next_offset >= careful.until[batch.tp]:
                self._careful_without(batch.tp)

    def _careful_without(self, tp: TP) -> None:
        assert self._careful is not None
        self._careful.until.pop(tp, None)
        if not self._careful.until:
            self._careful = None

    # -- when it fails ----------------------------------------------------------------------------

    async def _roll_back(
        self, cycle: Cycle, error: BaseException, ahead: Cycle | None = None
    ) -> None:
        """Forget what the agents made of a cycle, and of the one `ahead` that built on it."""
        metrics.ABORTS.labels(self.app_id).inc()
        cycle.drop()
        if ahead is not None:
            ahead.drop()
        await self._undo(cycle, error)
        if isinstance(error, RecordFailed) and not isinstance(error.cause, KafkaException):
            return self._suspect(error.tp, error.offset, error.cause)
        if isinstance(error, RecordFailed) and not _transaction_broken(error.cause):
            return self._suspect(error.tp, error.offset, error.cause)
        cause = error.cause if isinstance(error, RecordFailed) else error
        if _passes(cause):
            self._failure_pause_s = min(max(0.05, self._failure_pause_s * 2), 2.0)
            self._failing_since = self._failing_since or time.monotonic()
            if time.monotonic() - self._failing_since > OUTAGE_S:
                raise Stuck(f"{self.app_id}: no transaction for {OUTAGE_S} s: {cause}") from cause
            log.warning("%s: transaction aborted, all of it is tried again: %s", self.app_id, cause)
            return None
        return self._look_closer(cycle, cause)

    async def _undo(self, cycle: Cycle, error: BaseException) -> None:
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
        assert self._producer is not None
        deadline = time.monotonic() + UNKNOWN_COMMIT_S
        while True:
            try:
                self._producer.abort_transaction(10)
                return self._fault("aborted")
            except KafkaException as exc:
                if kafka_error(exc).retriable() and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                if kafka_error(exc).code() == KafkaError.INVALID_TXN_STATE:
                    log.warning("%s: begins anew with a producer: %s", self.app_id, exc)
                    self._producer = KafkaProducer(self.driver.producer(self.app_id))
                    self._init_transactions()
                    return self._fault("aborted")
                raise Fenced(
                    f"{self.app_id}: can't abort ({kafka_error(exc).str()}) after {error!r}"
                ) from error

    def _suspect(self, tp: TP, offset: int | None, cause: BaseException) -> None:
        """An agent failed at a record: those before it go on, it is tried alone, then its policy decides."""
        if offset is None:
            raise Misuse(
                f"an agent of {self.app_id} failed outside of a record: {cause!r}"
            ) from cause
        suspect = self._suspects.get(tp)
        if suspect is None or suspect.offset != offset:
            suspect = self._suspects[tp] = Suspect(offset)
        suspect.attempts += 1
        metrics.SUSPECTS.labels(self.app_id).set(len(self._suspects))
        pause = min(
            self.driver.retry_backoff_s * 2 ** (suspect.attempts - 1),
            self.driver.retry_backoff_max_s,
        )
        suspect.retry_at = time.monotonic() + (0.001 if suspect.attempts == 1 else pause)
        where = _place(tp, offset)
        if self._careful is not None:
            self._careful_without(tp)
        # a dead letter that can't be written is tried as often again
        limit = self.driver.attempts
        if self._policy(tp.topic).on_error == "dead-letter" or where in self.driver.skip:
            limit *= 2
        if suspect.attempts >= limit:
            suspect.stopped = True
            stopped = sum(s.stopped for s in self._suspects.values())
            metrics.STOPPED.labels(self.app_id).set(stopped)
            log.critical(
                "%s: %s failed %d times, its partition stops here (others go on): %r",
                self.app_id, where, suspect.attempts, cause, exc_info=cause,
            )  # fmt: skip
            return
        log.error(
            "%s: %s failed (attempt %d), tried again alone: %r",
            self.app_id,
            where,
            suspect.attempts,
            cause,
        )

    def _look_closer(self, cycle: Cycle, cause: BaseException) -> None:
        """A transaction can't be committed and no record is named: halve until one record is left."""
        count = max(len(batch.records) for batch in cycle.batches)
        log.warning(
            "%s: transaction of %d records can't be committed: %s", self.app_id, count, cause
        )
        if len(cycle.batches) == 1 and count == 1:
            batch = cycle.batches[0]
            self._suspect(batch.tp, batch.first, cause)
            return
        until = self._next_offsets(cycle)
        if self._careful is not None:
            until = {**until, **self._careful.until}
        size = max(1, count // 2)
        self._careful = Careful(size, until)

    # -- the rest of what Faust asks of a consumer --------------------------------------------------

    def assignment(self) -> set[TP]:
        return set(self._assignment.tps) if self._assignment is not None else set()

    def positions(self, partition: int) -> Mapping[str, int]:
        """Next offset by source topic of one partition number, as committed."""
        return dict(self._offsets.get(partition, {}))

    def topic_partitions(self, topic: str) -> int | None:
        return self._topology.partitions if self._topology is not None else None

    def key_partition(self, topic: str, key: Any, partition: int | None = None) -> int | None:
        return (
            partition
            if partition is not None
            else self.app.producer.key_partition(topic, key).partition
        )

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
        return self._offsets.get(tp.partition, {}).get(tp.topic)

    def _ours(self, *args: Any, **kw: Any) -> Any:
        raise Misuse("the driver owns positions and fetching")

    getmany = perform_seek = seek = seek_wait = highwater = _ours
    highwaters = earliest_offsets = _ours


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


async def _in_turns(records: list[Item]) -> AsyncIterator[list[Item]]:
    """The records in parts: between two of them others in the event loop have a turn."""
    for start in range(0, len(records), WRITE_EVERY):
        if start:
            await asyncio.sleep(0)
        yield records[start : start + WRITE_EVERY]


def is_member(metadata: bytes) -> bool:
    """Whether a group's metadata, as librdkafka writes it, names a member of a generation.

    The broker takes offsets with generation -1 into an empty group: they would pass by KIP-447's fence.
    """
    magic, generation, names = metadata[:7], metadata[7:11], metadata[11:]
    if magic != b"CGMDv2:":
        raise Misuse(f"this librdkafka writes its group metadata in another way: {metadata!r}")
    _, member, _ = names.split(b"\0", 2)
    return int.from_bytes(generation, sys.byteorder, signed=True) >= 0 and bool(member)


def _transaction_broken(exc: BaseException) -> bool:
    """A Kafka error of the transaction as a whole, not of the record that was being written."""
    if not isinstance(exc, KafkaException):
        return False
    error = kafka_error(exc)
    return bool(
        error.txn_requires_abort() or error.retriable() or error.code() == KafkaError._STATE
    )


def _hides_the_cause(exc: BaseException) -> bool:
    """A write that was refused because an earlier one had failed: it is not this record's fault."""
    cause = exc.cause if isinstance(exc, RecordFailed) else exc
    return isinstance(cause, KafkaException) and kafka_error(cause).code() == KafkaError._STATE


def _passes(exc: BaseException) -> bool:
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


__all__ = ["CommitFailed", "Consumer", "DriverError"]
