"""App: faust.App with the exactly-once transport under it."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import tempfile
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust

from streaming.context import outside
from streaming.errors import DriverError, ExitCode, Misuse, Unsupported
from streaming.streams import Agent, Stream, Supervisor
from streaming.tables import Table, TableManager
from streaming.topics import Policy, Topic, ValueCodec
from streaming.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from streaming.config import DriverConfig
    from streaming.repartition import Repartition

log = logging.getLogger(__name__)


class App(faust.App):
    """A Faust app whose agents' work commits in Kafka transactions. `id` is also its consumer group.

    What agents write, the tables they change and the offsets they read become visible together or not at
    all. Timers, pages and tasks run outside of transactions: their sends go out at once.
    """

    def __init__(self, id: str, *, driver: DriverConfig, **options: Any) -> None:
        self.driver = driver
        classes = {
            "Stream": Stream,
            "Agent": Agent,
            "Table": Table,
            "TableManager": TableManager,
            "Topic": Topic,
            "agent_supervisor": Supervisor,
        }
        for name, value in classes.items():
            options.setdefault(name, value)
        options.setdefault("broker", f"kafka://{driver.bootstrap.split(',', maxsplit=1)[0]}")
        options.setdefault("topic_disable_leader", True)
        options.setdefault("store", "memory://")
        options.setdefault("web_enabled", False)
        data = driver.state_dir or Path(tempfile.gettempdir()) / "streaming"
        options.setdefault("datadir", str(data))
        super().__init__(id, **options)
        self._policies: dict[str, tuple[Policy, bool]] = {}  # and whether it was given
        self.repartitions: dict[str, Repartition] = {}  # by topic

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
        self, channel: Any = None, *, isolated_partitions: bool = False, **options: Any
    ) -> Any:
        """Declare an agent on a topic, as in Faust."""
        if isolated_partitions:
            raise Unsupported(
                "isolated_partitions: the batches of a partition are one after another anyway; leave it out"
            )
        return super().agent(channel, **options)

    def GlobalTable(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported("GlobalTable: send the record to each partition and keep it in a table")

    def SetTable(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported("SetTable: put the element into the key of a table")

    SetGlobalTable = GlobalTable

    def _task(self, fun: Callable[..., Any], on_leader: bool = False, traced: bool = False) -> Any:
        """Tasks (and timers, which are tasks) send outside of transactions."""
        return super()._task(_outside(fun), on_leader=on_leader, traced=traced)

    def page(self, path: str, **options: Any) -> Any:
        """A web page; its sends go out at once."""
        decorate = super().page(path, **options)

        def decorated(fun: Any) -> Any:
            if inspect.isclass(fun):
                raise Unsupported("app.page: decorate an async function")
            return decorate(_outside(fun))

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


def _outside(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The coroutine function, whose sends go out at once. Faust still sees its parameters."""

    @wraps(fun)
    async def wrapped(*args: Any, **kw: Any) -> Any:
        with outside():
            return await fun(*args, **kw)

    return wrapped
