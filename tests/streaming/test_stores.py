"""Stores: the same contract for memory and RocksDB, and what RocksDB keeps over a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from streaming import MemoryStore, Store
from streaming.rocks import RocksStore, store_directory
from tests.streaming.kit import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["memory", "rocksdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")


def test_rows_position_and_offset_change_together(store: Store) -> None:
    assert (store.next_offset, store.position, store.get(b"a")) == (0, None, None)
    store.apply([(b"a", b"1"), (b"b", b"2"), (b"a", None), (b"c", b"")], b"{}", 7, 5.0)
    assert (store.get(b"a"), store.get(b"b"), store.get(b"c")) == (None, b"2", b"")
    assert (store.next_offset, store.position, store.as_of_s) == (7, b"{}", 5.0)
    store.apply((), None, 9, 6.0)
    assert (store.next_offset, store.position) == (9, b"{}")


def test_scan_answers_a_prefix_alone(store: Store) -> None:
    store.apply([(b"a/1", b"x"), (b"a/2", b"y"), (b"b/1", b"z")], b"{}", 1, 0.0)
    assert sorted(store.scan(b"a/")) == [(b"a/1", b"x"), (b"a/2", b"y")]
    assert len(list(store.scan())) == 3


def test_clear_forgets_everything(store: Store) -> None:
    store.apply([(b"a", b"1")], b"{}", 7, 5.0)
    store.clear()
    assert (store.get(b"a"), store.next_offset, store.position) == (None, 0, None)
    assert list(store.scan()) == []


def test_rocksdb_holds_whole_batches_after_kill_9(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from streaming.rocks import RocksStore, store_directory
store = RocksStore(Path(sys.argv[1]))
for n in range(1, 1001):
    if n == 700: os.kill(os.getpid(), 9)
    store.apply([(b"k%d" % (n % 10), b"%d" % n), (b"n", b"%d" % n)], b'{"n": %d}' % n, n, n)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")], cwd=ROOT, check=False
    )
    assert done.returncode == -9
    store = RocksStore(tmp_path / "store")
    assert store.get(b"n") == b"%d" % store.next_offset == b"699"
    assert json.loads(store.position or b"") == {"n": 699}


def test_a_directory_is_one_step_below_its_worker(tmp_path: Path) -> None:
    """A topic's id is base64, with slashes in a third of them."""
    assert store_directory(tmp_path, "sums", 3, "a/b+c").parent == tmp_path
