"""Workers of a test end with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.streaming.kit import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def bootstrap(kafka: Any) -> str:
    return str(kafka.bootstrap)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts a worker process: `worker("log's name", **options of worker.py)`."""
    started: list[Worker] = []

    def start(log: str, **options: Any) -> Worker:
        one = Worker.start(tmp_path / f"{log}.log", options)
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
