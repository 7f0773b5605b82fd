"""What all tests share: a real Kafka for the run, private clusters, names that nobody else has."""

from __future__ import annotations

import shutil
import signal
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from deploy.local.kafka import Kafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


@pytest.fixture
def prefix() -> str:
    """Goes before every topic, group and transactional id of a test."""
    return f"t{uuid.uuid4().hex[:8]}-"
