"""A query's directory goes with it; what killed queries left goes with the next one, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from travel.scratch import PREFIX, YOUNG_S, scratch

if TYPE_CHECKING:
    from pathlib import Path

# begins a query, gives its lock to a child that waits, says where it is, and is killed
KILLED = """
import os, signal, subprocess, sys
from travel.scratch import scratch
with scratch() as (made, lock):
    wait = "import sys; sys.stdin.read()"
    subprocess.Popen([sys.executable, "-c", wait], pass_fds=(lock,), stdout=subprocess.DEVNULL)
    print(made, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def aged(directory: Path) -> Path:
    long_ago_s = directory.stat().st_mtime - YOUNG_S - 1
    os.utime(directory, (long_ago_s, long_ago_s))
    return directory


def asked(temporary: Path) -> set[str]:
    """What is there once another query has come and gone."""
    with scratch():
        pass
    return {file.name for file in temporary.iterdir()}


def test_a_directory_goes_with_its_query(temporary: Path) -> None:
    with scratch() as (made, _):
        (made / "tables.duckdb").write_text("rows")
    assert not made.exists()


def test_what_was_killed_is_removed_once_its_child_is_dead_too(temporary: Path) -> None:
    read, write = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", KILLED], stdin=read, stdout=subprocess.PIPE, check=False, text=True
    )
    os.close(read)
    assert done.returncode == -signal.SIGKILL
    left = aged(temporary / os.path.basename(done.stdout.strip()))
    assert asked(temporary) == {left.name}
    os.close(write)  # the child ends
    while asked(temporary):
        pass


def test_what_lives_is_young_or_is_another_s_stays(temporary: Path) -> None:
    young, other = temporary / f"{PREFIX}young", aged_directory(temporary, "query-other")
    young.mkdir()
    with scratch() as (made, _):
        aged(made)
        assert asked(temporary) == {made.name, young.name, other.name}


def aged_directory(directory: Path, name: str) -> Path:
    made = directory / name
    made.mkdir()
    return aged(made)
