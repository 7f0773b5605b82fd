"""Workers on RocksDB, and workers that keep their name: what a restart reads, and what it leaves alone."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import streaming.state
from streaming.rocks import RocksStore
from tests.streaming.kit import POSITION, create, read, rows, running, until, wait_until, write
from tests.streaming.test_cycle import adder
from tests.streaming.test_kills import check, drained
from tests.streaming.test_standby import load, restored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def last_batch(bootstrap: str, changelog: str) -> int:
    """Rows of the last transaction in a changelog of one partition, with its position."""
    keys = [message.key() for message in read(bootstrap, changelog)]
    ends = [n for n, key in enumerate(keys) if key == POSITION]
    return ends[-1] - ends[-2]


@pytest.mark.parametrize("point", ["before commit", "before merge"])
def test_a_restart_after_kill_9_reads_what_the_files_lack(
    bootstrap: str, prefix: str, worker: Callable[..., Any], tmp_path: Path, point: str
) -> None:
    name = f"{prefix}rocks"
    create(bootstrap, f"{name}.in", f"{name}.out")
    load(bootstrap, name, 2_000)
    driver = {"store": "rocksdb", "state_dir": str(tmp_path), "batch_max": 100}
    common = {"bootstrap": bootstrap, "name": name, "instance": "0", "driver": driver}
    first = worker("first", die=point, after=15, **common)
    assert first.ended() == -9
    batch = last_batch(bootstrap, f"{name}-sums-changelog") if point == "before merge" else 0
    again = worker("again", **common)
    wait_until(lambda: drained(bootstrap, name, 2_000))
    [count] = restored(again.text)
    # committed and not yet in the files: one batch; the mark of the log's end counts as one
    assert batch <= count <= batch + 1
    check(bootstrap, name)

    again.kill()
    load(bootstrap, name, 300)
    last = worker("last", **common)
    wait_until(lambda: drained(bootstrap, name, 2_300))
    assert restored(last.text)[0] <= 1
    check(bootstrap, name)


def test_a_member_with_a_name_of_its_own_is_back_without_a_rebalance(
    bootstrap: str, prefix: str, worker: Callable[..., Any]
) -> None:
    name = f"{prefix}static"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    driver = {"static_membership": True, "session_timeout_s": 20.0}
    common = {"bootstrap": bootstrap, "name": name, "partitions": 2, "driver": driver}
    one = worker("one", instance="0", **common)
    wait_until(lambda: one.said("ready with partitions [0, 1]"))
    two = worker("two", instance="1", **common)
    wait_until(lambda: one.said("ready with partitions [0],") and two.said("partitions [1],"))
    load(bootstrap, name, 200)
    wait_until(lambda: drained(bootstrap, name, 200))
    before = two.text.count("ready with")
    one.kill()
    load(bootstrap, name, 200)
    again = worker("again", instance="0", **common)
    wait_until(lambda: again.said("ready with partitions [0],"))
    wait_until(lambda: drained(bootstrap, name, 400))
    assert two.text.count("ready with") == before
    assert again.text.count("ready with") == 1
    check(bootstrap, name, 2)


async def test_a_restore_that_was_cut_off_leaves_the_files_to_who_comes_next(
    bootstrap: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is told to stop between its look at the offsets and the opening of its files."""
    name = f"{prefix}cut"
    create(bootstrap, f"{name}.in", f"{name}.out")
    looked, go_on = threading.Event(), threading.Event()
    look = streaming.state.stable_offsets

    def slow(*args: Any) -> Any:
        found = look(*args)
        looked.set()
        assert go_on.wait(20)
        return found

    monkeypatch.setattr(streaming.state, "stable_offsets", slow)
    driver = {"store": "rocksdb", "state_dir": tmp_path}
    first, then = (adder(name, bootstrap, **driver) for _ in range(2))
    await first.start()
    await until(looked.is_set)
    stopping = asyncio.create_task(first.stop())
    await asyncio.sleep(0.5)  # as far as it comes
    go_on.set()
    await stopping
    async with running(then):
        write(bootstrap, f"{name}.in", [(b"k", b"1")])
        await until(lambda: rows(bootstrap, f"{name}-sums-changelog") == {(0, b"k"): b"1"})
    assert first.failure is None


def haunt(state: Path, age_s: float) -> None:
    """Age the files, and put in a row as if its deletion had come later and been forgotten."""
    [directory] = state.glob("sums-0.*")
    store = RocksStore(directory)
    store.apply([(b"deleted", b"1")], None, store.next_offset, time.time() - age_s)
    store.close()


@pytest.mark.parametrize("age_s", [60, 100_000])
async def test_a_checkpoint_that_may_miss_deletions_is_thrown_away(
    bootstrap: str, prefix: str, tmp_path: Path, age_s: int
) -> None:
    """A day (delete.retention.ms) after a row was deleted nothing in the changelog says so any more."""
    name = f"{prefix}stale"
    create(bootstrap, f"{name}.in", f"{name}.out")
    changelog = f"{name}-sums-changelog"
    write(bootstrap, f"{name}.in", [(b"k", b"1")] * 10)
    rocks = {"store": "rocksdb", "state_dir": tmp_path}
    async with running(adder(name, bootstrap, **rocks)):
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"10"})
    haunt(tmp_path / f"{name}.0", age_s)
    write(bootstrap, f"{name}.in", [(b"k", b"1")] * 10)
    async with running(adder(name, bootstrap)):  # in memory: the files fall behind
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"20"})
    one = adder(name, bootstrap, **rocks)
    async with running(one):
        view = one.tables["sums"].partition(0)
        assert view.get(b"k") == 20
        assert view.get(b"deleted") == (1 if age_s == 60 else None)
