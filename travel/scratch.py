"""Directories of queries: each is gone when its query ends, or by the next one when all that used it were killed.

    made, locked --handed to the child--> removed
                 \\--both were killed: no lock is left--> removed by whoever comes later

A lock (flock(2)) ends with the last process that holds it open, however that one ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "streambank-query-"
YOUNG_S = 600.0  # such a one may be made just now, and not be locked yet


@contextmanager
def scratch() -> Iterator[tuple[Path, int]]:
    """A directory, and a descriptor of its lock that a child must inherit (`pass_fds`)."""
    _tidy(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as made:
        lock = os.open(made, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(made), lock
        finally:
            os.close(lock)


def _tidy(directory: Path) -> None:
    """Remove what killed queries left: ours, and locked by nobody."""
    for found in directory.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another one tidies too, or it is not ours to open
            about = found.lstat()
            if about.st_uid == os.getuid() and time.time() - about.st_mtime > YOUNG_S:
                _remove_dead(found)


def _remove_dead(found: Path) -> None:
    """Raises BlockingIOError while somebody uses it."""
    lock = os.open(found, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(found, ignore_errors=True)
    finally:
        os.close(lock)
