r"""A worker process: any set of services in one event loop, and one ops server for all of them.

    started --apps, perform, projections, ops server--> running --SIGTERM | SIGINT--> stopped, exit 0
                                                   \--anything breaks--> exit with a code of its own

On a signal each running transaction ends first, then the group is left. What breaks is not mended
here: nothing was committed, and what supervises the process starts it again. A projection that can't
go on because of its own store stands still while others run here, and says so in readiness.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import web
from confluent_kafka import KafkaException

from agents.errors import CannotStart
from agents.observe import Observe
from agents.operations import Check, Operations, disk, polled
from agents.perform import Perform
from agents.project import Project
from agents.relay import Relay
from agents.transact import Shell
from resilience.garbage import collect_rarely
from settings import Settings
from streaming import Admin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger(__name__)

Reading: TypeAlias = dict[Perform | Project, asyncio.Task[None]]  # what reads topics on its own

LOOK_S = 0.5  # between two looks whether an app has crashed
BROKER_S = 5.0  # between two looks whether the broker answers


@dataclass(slots=True)
class Workers:
    """What runs in one process."""

    settings: Settings
    shells: dict[str, Shell] = field(default_factory=dict)
    relay: Relay | None = None
    observe: Observe | None = None
    perform: Perform | None = None
    projects: dict[str, Project] = field(default_factory=dict)  # by what runs them is called

    @property
    def apps(self) -> list[Any]:
        """The Faust apps, each with an event loop's share of its own."""
        others = [part.app for part in (self.relay, self.observe) if part]
        return [*(shell.app for shell in self.shells.values()), *others]

    @property
    def names(self) -> list[str]:
        """The services that run here."""
        others = {"perform": self.perform, "relay": self.relay, "observe": self.observe}
        return [*self.shells, *(name for name, runs in others.items() if runs), *self.projects]

    @property
    def consumers(self) -> list[Perform | Project]:
        """What reads topics on its own, beside the apps."""
        return [*([self.perform] if self.perform else []), *self.projects.values()]

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Until a signal or `stop`. Raises CannotStart, or what broke."""
        stop = stop or _signalled()
        collect_rarely()
        broker = Broker(self.settings)
        async with AsyncExitStack() as running:
            await running.enter_async_context(_serving(self, broker))
            watching = asyncio.create_task(broker.watch())
            running.callback(watching.cancel)
            for app in self.apps:
                running.push_async_callback(app.stop)
            await asyncio.gather(*(_start(app) for app in self.apps))
            reading = {one: asyncio.create_task(one.run()) for one in self.consumers}
            log.info("running", extra={"services": self.names})
            await _until(stop, self.apps, reading)
            log.info("stopping", extra={"services": self.names})
            for consumer in self.consumers:
                consumer.stop()
            await asyncio.gather(*reading.values())

    def checks(self, broker: Broker) -> tuple[Check, ...]:
        """What this process must have to be ready."""
        found = [Check(name="broker", problem=broker.problem), disk(self.settings.state_dir)]
        found += [
            polled(name, shell.last_poll_s, shell.ready) for name, shell in self.shells.items()
        ]
        for name, part in (("relay", self.relay), ("observe", self.observe)):
            if part is not None:
                found.append(_reading(name, part.app.consumer))
        if (perform := self.perform) is not None:
            found.append(polled("perform", lambda: perform.last_poll_s, lambda: perform.ready))
        found += [Check(name=name, problem=one.problem) for name, one in self.projects.items()]
        return tuple(found)


def _reading(name: str, consumer: Any) -> Check:
    """An app without a table."""
    return polled(name, lambda: consumer.last_poll_s, lambda: consumer.ready)


class Broker:
    """Whether the broker answers, looked at every few seconds."""

    def __init__(self, settings: Settings) -> None:
        self._kafka: dict[str, Any] = {**settings.kafka, "client.id": "readiness"}
        self._admin = Admin(self._kafka)
        self._answered_s = -2 * BROKER_S
        self._said = "not asked yet"

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(None, self._ask)
            await asyncio.sleep(BROKER_S)

    def _ask(self) -> None:
        try:
            self._admin.ask(
                lambda client: client.list_topics("__consumer_offsets", BROKER_S), within_s=0
            )
        except KafkaException as exc:
            self._said = exc.args[0].str()
        else:
            self._answered_s = time.monotonic()

    def problem(self) -> str | None:
        silent_s = time.monotonic() - self._answered_s
        return None if silent_s < 3 * BROKER_S else f"does not answer: {self._said}"


def _signalled() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _start(app: Any) -> None:
    """Start a Faust app as its worker would, without the worker's own logging and signals."""
    app.finalize()
    app.in_worker = True
    await app.start()


async def _until(stop: asyncio.Event, apps: list[Any], reading: Reading) -> None:
    """Wait for `stop`. Raises what an app or a consumer broke on.

    A projection that broke on its own store's account stands still while anything else runs here.
    """
    while not stop.is_set():
        for app in apps:
            if app.crashed:
                raise app.crash_reason or RuntimeError(f"{app.conf.id} crashed")
        for consumer in [one for one, task in reading.items() if task.done()]:
            if isinstance(consumer, Project) and consumer.broken and (apps or len(reading) > 1):
                log.error(
                    "the projection into %s stands still: %s", consumer.store.name, consumer.broken
                )
                reading.pop(consumer).exception()
            else:
                reading[consumer].result()
        try:
            await asyncio.wait_for(stop.wait(), LOOK_S)
        except TimeoutError:
            continue


@asynccontextmanager
async def _serving(workers: Workers, broker: Broker) -> AsyncIterator[None]:
    """The ops server, for as long as the block runs."""
    settings = workers.settings
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise CannotStart(
            f"{settings.state_dir} can't be made ({exc.strerror}): correct STREAMBANK_STATE_DIR"
        ) from exc
    operations = Operations(
        shells=workers.shells, checks=workers.checks(broker), token=settings.internal_token
    )
    runner = web.AppRunner(operations.app(), access_log=None)
    await runner.setup()
    try:
        await _listen(runner, settings.ops_host, settings.ops_port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"port {port} on {host} is in use: give this worker another one by --ops-port"
            ) from exc
        raise CannotStart(
            f"port {port} on {host} can't be had ({exc.strerror}): correct STREAMBANK_OPS_HOST or "
            "STREAMBANK_OPS_PORT"
        ) from exc
