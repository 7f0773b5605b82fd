"""What all tests share: a real Kafka and real stores for the run, private ones, names of their own."""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from deploy.local.kafka import Kafka
from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from deploy.local.redis import Redis
from deploy.local.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController


GATEWAY = "tests/gateway/"
BANKS_OF_THEIR_OWN = {f"{GATEWAY}test_reads.py", f"{GATEWAY}test_outages.py"}
BROKER = pytest.StashKey[Kafka]()
SHARED_HEAP_MB = 2048  # a run leaves about a thousand partitions

# how long an example takes says how busy the machine is, and nothing of a law
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return ByFile(config, log)


class ByFile(LoadFileScheduling):
    """Tests of a file run one after another, and so do all that ask the gateway's bank: it is started once."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return GATEWAY if file.startswith(GATEWAY) and file not in BANKS_OF_THEIR_OWN else file


def pytest_configure_node(node: WorkerController) -> None:
    """Processes of tests that run at once share a broker, which is started before them and stopped after."""
    config = node.config
    if BROKER not in config.stash:
        directory = Path(tempfile.mkdtemp(prefix="kafka-"))
        config.add_cleanup(partial(shutil.rmtree, directory))
        kafka = Kafka(directory, heap_mb=SHARED_HEAP_MB, orphaned=signal.SIGKILL)
        config.add_cleanup(kafka.kill_all)
        config.stash[BROKER] = kafka.start()
    node.workerinput["kafka port"] = config.stash[BROKER].port()


@pytest.fixture(scope="session")
def kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kafka]:
    """One node for the whole run: never stop or kill it, and use topics of your own (`prefix`)."""
    shared = getattr(request.config, "workerinput", {}).get("kafka port")
    directory = tmp_path_factory.mktemp("kafka")
    if shared is not None:
        yield Kafka(directory, shared)  # not ours to start
    else:
        with Kafka(directory, orphaned=signal.SIGKILL) as kafka:
            yield kafka
    shutil.rmtree(directory)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Kafka]]:
    """Makes a started private Kafka, of one node or `nodes=3`; gone after the test."""
    with ExitStack() as started:

        def make(nodes: int = 1, **options: Any) -> Kafka:
            directory = tmp_path_factory.mktemp("cluster")
            kafka = Kafka(directory, nodes=nodes, orphaned=signal.SIGKILL, **options)
            started.callback(shutil.rmtree, directory)
            started.callback(kafka.kill_all)
            return kafka.start()

        yield make


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """One for the whole run: use databases of your own.

    Its user may create databases whose name begins with `streambank`. A test that kills or freezes
    a store of the run starts it again; one that needs it alone asks for a `store`.
    """
    yield from _for_the_run(MariaDB, tmp_path_factory)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One for the whole run: use keys of your own (`prefix`)."""
    yield from _for_the_run(Redis, tmp_path_factory)


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    """One stand-in for the whole run: use databases of your own (`prefix`)."""
    yield from _for_the_run(Mongo, tmp_path_factory)


S = TypeVar("S", bound=Server)


def _for_the_run(kind: type[S], directories: pytest.TempPathFactory) -> Iterator[S]:
    directory = directories.mktemp(kind.name)
    with kind(directory, orphaned=signal.SIGKILL) as server:
        yield server
    shutil.rmtree(directory)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[type[S]], S]]:
    """Makes a started private store, `store(MariaDB)`; gone after the test."""
    with ExitStack() as started:

        def make(kind: type[S]) -> S:
            directory = tmp_path_factory.mktemp(kind.name)
            server = kind(directory, orphaned=signal.SIGKILL)
            started.callback(shutil.rmtree, directory)
            started.callback(server.kill)
            return server.start()

        yield make


@pytest.fixture
def prefix() -> str:
    """Goes before every topic, group and transactional id of a test."""
    return f"t{uuid.uuid4().hex[:8]}-"
