"""What all tests share: a real Kafka and real stores for the run, private ones, names of their own."""

from __future__ import annotations

import shutil
import signal
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings

from deploy.local.kafka import Kafka
from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from deploy.local.redis import Redis
from deploy.local.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# how long an example takes says how busy the machine is, and nothing of a law
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One node for the whole run: never stop or kill it, and use topics of your own (`prefix`)."""
    directory = tmp_path_factory.mktemp("kafka")
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
