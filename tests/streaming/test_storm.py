"""A rebalance storm: workers join, leave and die every moment while restores are slowed down at each step.

What a worker holds when it is ready is compared with a replay of the input up to the position it holds, with
the changelog up to that position, and with what was ready before: state never goes back.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.streaming.kit import (
    POSITION,
    Worker,
    create,
    read,
    rows,
    running,
    until,
    wait_until,
    write,
)
from tests.streaming.test_cycle import adder
from tests.streaming.test_kills import check, drained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTITIONS = 3
KEYS = 12


def join(directory: Path, options: dict[str, Any]) -> Worker:
    log = directory / f"joiner-{options['instance']}.log"
    return Worker.start(log, options, "tests.streaming.joiner")


class Load:
    """Writes records in small lots until it is stopped; `count` of them so far."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.count = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bootstrap, topic), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _run(self, bootstrap: str, topic: str) -> None:
        while not self._over.wait(0.1):
            lot = range(self.count, self.count + 20)
            write(bootstrap, topic, [(b"k%d" % (n % KEYS), b"%d" % n) for n in lot])
            self.count += 20


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    yield workers
    for one in workers:
        one.kill()


def said(directory: Path) -> list[dict[str, Any]]:
    """What was ready, in the order of time."""
    lines = [
        json.loads(line.removeprefix("READY "))
        for log in directory.glob("joiner-*.log")
        for line in log.read_text(errors="replace").splitlines()
        if line.startswith("READY ") and line.endswith("}")
    ]
    return sorted(lines, key=lambda line: float(line["at"]))


def folds(bootstrap: str, changelog: str) -> dict[tuple[int, int], dict[str, int]]:
    """Rows of the changelog at each (partition, source offset) that it has a position for."""
    now: dict[int, dict[str, int]] = defaultdict(dict)
    found: dict[tuple[int, int], dict[str, int]] = {}
    for message in read(bootstrap, changelog):
        rows = now[message.partition()]
        if message.key() == POSITION:
            [offset] = json.loads(message.value())["offsets"].values()
            found[message.partition(), offset] = dict(rows)
        else:
            rows[message.key().decode()] = int(message.value())
    return found


def replays(bootstrap: str, topic: str) -> dict[tuple[int, int], dict[str, int]]:
    """Sums by key after the first so many records of a partition."""
    now: dict[int, dict[str, int]] = defaultdict(dict)
    found: dict[tuple[int, int], dict[str, int]] = {(n, 0): {} for n in range(PARTITIONS)}
    for message in read(bootstrap, topic):
        sums, key = now[message.partition()], message.key().decode()
        sums[key] = sums.get(key, 0) + int(message.value())
        found[message.partition(), message.offset() + 1] = dict(sums)
    return found


def judge(bootstrap: str, name: str, directory: Path) -> int:
    """Compare all that was ready. Answers how many partitions that were."""
    changelog = folds(bootstrap, f"{name}-sums-changelog")
    replay = replays(bootstrap, f"{name}.in")
    last: dict[int, int] = defaultdict(int)
    lines = said(directory)
    for line in lines:
        partition, offset = line["partition"], line["position"].get(f"{name}.in", 0)
        assert line["rows"] == replay[partition, offset], line
        assert line["rows"] == changelog.get((partition, offset), {}), line
        assert offset >= last[partition], f"ready with an older state than before: {line}"
        last[partition] = offset
    return len(lines)


def storm(
    bootstrap: str, name: str, directory: Path, joined: list[Worker], changes: int, seed: int
) -> None:
    """Two workers stay unless killed, two come and go by themselves; one with files, three with memory."""
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=PARTITIONS)
    chance = random.Random(seed)

    def options(number: int) -> dict[str, Any]:
        files = {"store": "rocksdb", "state_dir": str(directory / "state")}
        return {
            "bootstrap": bootstrap, "name": name, "instance": str(number), "partitions": PARTITIONS,
            "seed": chance.random(), "stays_s": (0.2, 2) if number > 1 else (1e6, 1e6), "delay_s": 0.15,
            "driver": files if number in (1, 2) else {},
        }  # fmt: skip

    def changed() -> int:
        return sum(worker.text.count("ready with partitions") for worker in joined)

    with Load(bootstrap, f"{name}.in") as load:
        joined.extend(join(directory, options(number)) for number in range(4))
        wait_until(lambda: all(worker.said("ready with") for worker in joined[:2]))
        for _ in range(changes):
            before = changed()
            wait_until(lambda before=before: changed() > before)
            if chance.random() < 0.25:
                number = chance.randrange(4)
                joined[number].kill()
                joined[number] = join(directory, options(number))
            time.sleep(chance.uniform(0.2, 2) / 4)  # the storm itself, not a wait for a fact
            for number, worker in enumerate(joined):
                if worker.process.poll() is not None:
                    assert worker.process.returncode in {70, 73}, worker.text[-3000:]
                    joined[number] = join(directory, options(number))
    for worker in joined[2:]:
        worker.kill()
    wait_until(lambda: drained(bootstrap, name, load.count), 90)
    for worker in joined:
        worker.kill()
    check(bootstrap, name, PARTITIONS)


async def test_a_partition_that_comes_back_has_what_another_worker_did(
    bootstrap: str, prefix: str
) -> None:
    """A worker keeps the stores that it had: they are as old as its loss of the partition."""
    name = f"{prefix}back"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)

    async def add(total: int) -> None:
        for n in range(2):
            write(bootstrap, f"{name}.in", [(b"k", b"1")] * 5, partition=n)
        sums = {(n, b"k"): b"%d" % total for n in range(2)}
        await until(lambda: rows(bootstrap, f"{name}-sums-changelog") == sums)

    stays, comes = (adder(name, bootstrap, 2, instance=n) for n in "01")
    async with running(stays):
        await add(5)
        async with running(comes):
            await until(lambda: len(stays.sums.held) == len(comes.sums.held) == 1)
            await add(10)
        await until(lambda: len(stays.sums.held) == 2 or stays.failure)
        assert stays.failure is None
        await add(15)


def test_what_is_ready_is_right_in_a_short_storm(
    bootstrap: str, prefix: str, tmp_path: Path, joined: list[Worker]
) -> None:
    storm(bootstrap, f"{prefix}storm", tmp_path, joined, 8, seed=1)
    assert judge(bootstrap, f"{prefix}storm", tmp_path) > 2 * PARTITIONS


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(2, 6))
def test_what_is_ready_is_right_in_a_long_storm(
    bootstrap: str, prefix: str, tmp_path: Path, joined: list[Worker], seed: int
) -> None:
    storm(bootstrap, f"{prefix}storm", tmp_path, joined, 60, seed=seed)
    assert judge(bootstrap, f"{prefix}storm", tmp_path) > 20 * PARTITIONS
