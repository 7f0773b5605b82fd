"""Warm copies: who takes over reads only what its copy lacks, and no copy is touched while it is owned."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from faust.types import TP

from streaming.admin import Admin
from streaming.restore import Token, restore
from streaming.standby import Standby
from streaming.stores import MemoryStore
from tests.streaming.kit import POSITION, create, read, wait_until, write
from tests.streaming.test_kills import check, drained

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = 2_000


def load(bootstrap: str, name: str, count: int) -> None:
    """Each record has a key of its own, so that compaction makes no changelog shorter."""
    write(bootstrap, f"{name}.in", [(b"k%d" % (n % KEYS), b"%d" % n) for n in range(count)])


def restored(text: str) -> list[int]:
    """How many records each take-over of partition 0 has read."""
    ready = [line for line in text.splitlines() if "ready with partitions [0]" in line]
    return [int(line.partition("[0], ")[2].split()[0]) for line in ready]


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_who_takes_over_reads_only_the_rest(
    bootstrap: str, prefix: str, worker: Callable[..., Any], tmp_path: Any, store: str
) -> None:
    name = f"{prefix}warm"
    create(bootstrap, f"{name}.in", f"{name}.out")
    driver = {"store": store, "state_dir": str(tmp_path), "standby": True, "session_timeout_s": 3.0}
    common = {"bootstrap": bootstrap, "name": name, "driver": driver}
    # members are given partitions in the order of their names: 0 is the owner whenever it is there
    owner = worker("owner", instance="0", **common)
    wait_until(lambda: owner.said("ready with partitions [0]"))
    load(bootstrap, name, KEYS)
    wait_until(lambda: drained(bootstrap, name, KEYS))
    other = worker("other", instance="1", **common)
    wait_until(lambda: other.text.count("has caught up") == 1)
    load(bootstrap, name, 30)
    wait_until(lambda: drained(bootstrap, name, KEYS + 30))
    owner.kill()
    wait_until(lambda: len(restored(other.text)) == 1)
    assert restored(other.text)[0] <= 30 + 30 + 2  # rows and positions since, and the end's mark
    load(bootstrap, name, 100)
    wait_until(lambda: drained(bootstrap, name, KEYS + 130))

    # what was owned is a copy again, and goes on from where it stands
    again = worker("again", instance="0", **common)
    wait_until(lambda: again.said("ready with partitions [0]"))
    wait_until(lambda: other.text.count("has caught up") == 2)
    load(bootstrap, name, 50)
    wait_until(lambda: drained(bootstrap, name, KEYS + 180))
    again.kill()
    wait_until(lambda: len(restored(other.text)) == 2)
    assert restored(other.text)[1] <= 50 + 50 + 2
    load(bootstrap, name, 100)
    wait_until(lambda: drained(bootstrap, name, KEYS + 280))
    check(bootstrap, name)


class Guarded(MemoryStore):
    """Remembers each touch by a thread that the partition did not belong to, and each step back."""

    __slots__ = ("owned", "wrong")

    def __init__(self) -> None:
        super().__init__()
        self.owned = False
        self.wrong: list[str] = []

    def apply(self, changes: Any, position: Any, next_offset: int, as_of_s: float) -> None:
        follower = threading.current_thread().name.startswith("standby-")
        if follower == self.owned:
            self.wrong.append(f"touched by the wrong side at {next_offset}")
        if next_offset < self.next_offset:
            self.wrong.append(f"{self.next_offset} back to {next_offset}")
        super().apply(changes, position, next_offset, as_of_s)


def test_a_store_changes_hands_while_records_arrive(bootstrap: str, prefix: str) -> None:
    topic = f"{prefix}changelog"
    create(bootstrap, topic, cleanup_policy="compact")
    tp, store, failed = TP(topic, 0), Guarded(), []
    config = {"bootstrap.servers": bootstrap}
    admin, tombstones = Admin(config), {topic: 86_400.0}
    standby = Standby("hands", config, admin, lambda _: store, tombstones, failed.append)
    ending, written = threading.Event(), 0

    def writer() -> None:
        nonlocal written
        while not ending.is_set():
            rows = [(b"k%d" % (n % 97), b"%d" % n) for n in range(written, written + 500)]
            write(bootstrap, topic, [*rows, (POSITION, b"%d" % written)])
            written += 500

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        for _ in range(25):
            standby.keep([tp])
            before = store.next_offset
            wait_until(lambda before=before: store.next_offset > before)
            standby.keep([])
            store.owned = True
            restore(config, admin, {tp: store}, Token(threading.Event()), tombstones, 30)
            store.owned = False
    finally:
        ending.set()
        thread.join()
        standby.keep([tp])
        wait_until(lambda: store.data.get(b"k%d" % ((written - 1) % 97)) == b"%d" % (written - 1))
        standby.stop()
    assert failed == store.wrong == []
    rows = {m.key(): m.value() for m in read(bootstrap, topic)}
    assert rows.pop(POSITION) == store.position
    assert store.data == rows


def test_a_copy_of_a_log_that_was_made_anew_starts_anew(bootstrap: str, prefix: str) -> None:
    topic = f"{prefix}changelog"
    create(bootstrap, topic, cleanup_policy="compact")
    write(bootstrap, topic, [(b"a", b"1")])
    store = MemoryStore()
    store.apply([(b"gone", b"1")], b"{}", 900, 1e12)  # far beyond this log's end
    config, failed = {"bootstrap.servers": bootstrap}, []
    standby = Standby("anew", config, Admin(config), lambda _: store, {topic: 60.0}, failed.append)
    standby.keep([TP(topic, 0)])
    wait_until(lambda: store.next_offset == 1)
    standby.stop()
    assert store.data == {b"a": b"1"}
    assert failed == []
