"""App: faust.App with the exactly-once transport under it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import tempfile
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust
from faust.sensors import SensorDelegate
from faust.web.views import View
from mode.signals import SyncSignal

from streaming import faust_settings
from streaming.context import outside
from streaming.errors import DriverError, ExitCode, Misuse, Unsupported, refused
from streaming.streams import Agent, Stream, Supervisor
from streaming.tables import Table, TableManager
from streaming.topics import Policy, Topic, ValueCodec
from streaming.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from streaming.config import DriverConfig
    from streaming.repartition import Repartition

log = logging.getLogger(__name__)


class Unsent(SyncSignal[Any]):
    """A signal that is never sent: connecting to it is refused."""

    def connect(self, fun: Any = None, **options: Any) -> Any:
        raise Unsupported(
            f"app.{self.name} is not sent on this driver: work on the record where it is sent"
        )


class Sensors(SensorDelegate):
    """Only Faust's own monitor, which nobody tells of records."""

    app: Any

    def add(self, sensor: Any) -> None:
        if sensor is not self.app.monitor:
            raise Unsupported(
                "app.sensors.add: Faust's sensors are not told of records here; read the Prometheus metrics of "
                "streaming.metrics"
            )
        super().add(sensor)


class App(faust.App):
    """A Faust app whose agents' work commits in Kafka transactions. `id` is also its consumer group.

    What agents write, the tables they change and the offsets they read become visible together or not at
    all. Timers, pages and tasks run outside of transactions: their sends go out at once.

    `options` are Faust's settings; those that would do nothing here are refused (`faust_settings.py`).
    """

    in_transaction = False  # in none of Faust's own
    on_produce_message = Unsent()
    rebalancing_count = 0

    def __init__(
        self, id: str, *, driver: DriverConfig, monitor: Any = None, **options: Any
    ) -> None:
        if monitor is not None:
            raise Unsupported(
                f"app {id}: monitor: read the Prometheus metrics of streaming.metrics"
            )
        self.driver = driver
        self._ours = {
            "Stream": Stream,
            "Agent": Agent,
            "Table": Table,
            "TableManager": TableManager,
            "Topic": Topic,
            "agent_supervisor": Supervisor,
            "broker": f"kafka://{driver.bootstrap.split(',', maxsplit=1)[0]}",
            "topic_disable_leader": True,
            "datadir": str(driver.state_dir or Path(tempfile.gettempdir()) / "streaming"),
        }
        super().__init__(id, **{**self._ours, "web_enabled": False, **options})
        self.sensors = Sensors(self)
        self._policies: dict[str, tuple[Policy, bool]] = {}  # and whether it was given
        self.repartitions: dict[str, Repartition] = {}  # by topic
        self.tasks_begun = asyncio.Event()

    def _load_settings(self, *, silent: bool = False) -> Any:
        conf = super()._load_settings(silent=silent)
        faust_settings.check(conf.id, conf, self._ours)
        return conf

    async def on_start(self) -> None:
        faust_settings.check(self.conf.id, self.conf, self._ours)  # they may be assigned until now
        await super().on_start()

    async def on_started_init_extra_tasks(self) -> None:
        await super().on_started_init_extra_tasks()
        self.tasks_begun.set()

    @property
    def replication(self) -> int:
        """Copies of each topic that the app makes: as it is set, else -1, which is as the brokers' default says."""
        copies = self.conf.topic_replication_factor
        return -1 if copies == faust_settings.DEFAULT_REPLICATION else int(copies)

    @property
    def positions_topic(self) -> str:
        """Where an app without tables keeps its positions."""
        return f"{self.conf.id}-positions-changelog"

    @property
    def changelogs(self) -> dict[str, str]:
        """Changelog topic by table name. An app without tables keeps its positions in a topic of their own."""
        if not self.tables:
            return {"positions": self.positions_topic}
        return {name: table.changelog_topic_name for name, table in self.tables.items()}

    def topic(
        self,
        *topics: str,
        value_codec: ValueCodec | None = None,
        on_poison: str | None = None,
        on_error: str | None = None,
        dead_letters: str | None = None,
        **options: Any,
    ) -> Any:
        """Declare a topic; see `Policy` for what becomes of records that fail.

        Declared again (to read it, and to write it) without a policy it keeps the one that it has.
        """
        if len(topics) > 1 or options.get("pattern"):
            raise Unsupported(
                "a topic with several names or a pattern can't be co-partitioned; declare each"
            )
        ignored = options.get("maxsize") or options.get("acks") is False
        if ignored and not options.get("internal"):  # so Faust declares changelogs
            raise Unsupported(
                f"topic {', '.join(topics)}: maxsize and acks do nothing here: DriverConfig.batch_max says how much "
                f"is read, and offsets are committed with the transaction"
            )
        if options.get("schema") is not None:
            faust_settings.check_schema(f"topic {', '.join(topics)}", type(options["schema"]))
        policy = Policy(
            on_poison=on_poison or "dead-letter",
            on_error=on_error or "stop",
            dead_letters=dead_letters or f"{self.conf.id}.dead",
        )
        if topics:
            given = on_poison or on_error or dead_letters
            kept = self._policies.setdefault(topics[0], (policy, bool(given)))
            if given and kept[1] and kept[0] != policy:
                raise Misuse(f"topic {topics[0]} has two policies: {kept[0]} and {policy}")
            if given:
                self._policies[topics[0]] = policy, True
            policy = self._policies[topics[0]][0]
        # Faust builds the topic by its class setting, which knows nothing of codec and policy objects
        topic: Any = super().topic(*topics, **options)
        topic.value_codec, topic.policy = value_codec, policy
        return topic

    def policy_of(self, topic: str) -> Policy:
        """The policy of a source topic."""
        kept = self._policies.get(topic)
        return kept[0] if kept is not None else Policy(dead_letters=f"{self.conf.id}.dead")

    def add_repartition(self, made: Repartition) -> None:
        """Read the topic as one more source, under the policy of the records that are written to it."""
        self.repartitions[made.topic] = made
        self._policies[made.topic] = self.policy_of(made.source_topic), True

    def Table(
        self, name: str, *, value_codec: Any = None, watcher: Any = None, **options: Any
    ) -> Any:
        """Declare a table. `value_codec`: an object with loads and dumps; `watcher`: see `tables.Watcher`."""
        table: Any = super().Table(name, **options)
        table.value_codec, table.watcher = value_codec, watcher
        table.immutable = bool(getattr(value_codec, "immutable", False))
        return table

    def agent(
        self,
        channel: Any = None,
        *,
        isolated_partitions: bool = False,
        supervisor_strategy: Any = None,
        **options: Any,
    ) -> Any:
        """Declare an agent on a topic, as in Faust."""
        if isolated_partitions:
            raise Unsupported(
                "isolated_partitions: the batches of a partition are one after another anyway; leave it out"
            )
        if supervisor_strategy is not None:
            raise Unsupported(
                "supervisor_strategy: a failed record is tried again as DriverConfig and its topic's policy say"
            )
        if not (channel is None or isinstance(channel, (str, Topic))):
            raise Unsupported(f"agent on {channel!r}: an agent on this driver reads a topic")
        return super().agent(channel, **options)

    def stream(self, channel: Any, beacon: Any = None, **options: Any) -> Any:
        """A stream of a topic, for a task: its batches are transactions as those of an agent."""
        if not isinstance(channel, Topic):
            raise Unsupported("app.stream(): a stream on this driver is of a topic")
        return super().stream(channel, beacon, **options)

    # -- who leads: the owner of partition 0 ------------------------------------------------------

    def is_leader(self) -> bool:
        """Whether this process is sure to own partition 0; of all workers of the app at most one is."""
        consumer: Any = self._consumer
        return consumer is not None and bool(consumer.holds(0))

    def _task(self, fun: Callable[..., Any], on_leader: bool = False, traced: bool = False) -> Any:
        """Tasks (and timers, which are tasks) send outside of transactions.

        With `on_leader` a task waits for what the group gives this worker, and runs where that is partition 0.
        """
        run = self._on_leader(fun) if on_leader else fun
        return super()._task(_outside(run), traced=traced)

    def _on_leader(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fun)
        async def wrapped(*args: Any) -> Any:
            consumer: Any = self.consumer
            await consumer.joined.wait()
            return await fun(*args) if self.is_leader() else None

        return wrapped

    @property
    def rebalancing(self) -> bool:  # type: ignore[override]
        """True from the start, or a partition's loss, until what the group gave is restored and read."""
        consumer: Any = self._consumer
        return consumer is not None and not consumer.ready

    in_recovery = rebalancing

    def page(self, path: str, *, base: Any = View, **options: Any) -> Any:
        """A web page, of a function or a View; its sends go out at once."""

        def decorated(fun: Any) -> Any:
            if inspect.isclass(fun):
                return super(App, self).page(path, **options)(_page(fun))
            return super(App, self).page(path, base=_page(base), **options)(fun)

        return decorated

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:
        return self.transport

    async def _stop_consumer(self) -> None:
        consumer: Any = self._consumer
        if consumer is not None:
            await consumer.finish()  # the running transaction ends first

    def fail_stop(self, error: BaseException) -> None:
        """Nothing was committed: end the process; its supervisor starts it from the committed state."""
        code = error.exit_code if isinstance(error, DriverError) else ExitCode.BROKEN
        expected = isinstance(error, DriverError)
        log.critical("%s stops: %s", self.conf.id, error, exc_info=None if expected else error)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)


def _page(view: type) -> type:
    """The View, whose handlers run outside of transactions."""

    async def dispatch(self: Any, request: Any) -> Any:
        with outside():
            return await view.dispatch(self, request)  # type: ignore[attr-defined]

    names = {"dispatch": dispatch, "__doc__": view.__doc__, "__module__": view.__module__}
    return type(view.__name__, (view,), names)


REFUSED = {
    "GlobalTable": "send the record to each partition and keep it in a table",
    "SetGlobalTable": "send the record to each partition and keep it in a table",
    "SetTable": "put the element into the key of a table",
    "LiveCheck": "it would run on Faust's own transport; read the topics with a consumer of your own",
    "channel": "an in-memory channel has no transaction: use a topic, or a queue between tasks",
    "commit": "offsets are committed with the transaction; leave it out",
    "table_route": "ask streaming.partition_owners who owns the key's partition, and send the request there",
    "topic_route": "ask streaming.partition_owners who owns the key's partition, and send the request there",
    "start_client": "use a producer of your own, or set producer_only before start",
    "maybe_start_client": "use a producer of your own, or set producer_only before start",
}
for _name, _instead in REFUSED.items():
    setattr(App, _name, refused(f"app.{_name}: {_instead}"))
REFUSED["router"] = REFUSED["table_route"]
App.router = property(refused(f"app.router: {REFUSED['router']}"))  # type: ignore[assignment]


def _outside(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The coroutine function, whose sends go out at once. Faust still sees its parameters."""

    @wraps(fun)
    async def wrapped(*args: Any, **kw: Any) -> Any:
        with outside():
            return await fun(*args, **kw)

    return wrapped
