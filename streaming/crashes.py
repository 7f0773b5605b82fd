"""What a worker must still know after it crashed or hung: a small file beside its state.

A record that hangs its agent or kills the process would otherwise take the worker down for ever, since how
often it was tried lives in memory. So the file counts starts since the last commit, and names the record
that was alone in work; one that went down with the process `attempts` times stops its partition.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from faust.types import TP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def place_of(tp: TP, offset: int) -> str:
    """How a record is named in logs, in the file and in `DriverConfig.skip`."""
    return f"{tp.topic}-{tp.partition}@{offset}"


def placed(text: str) -> tuple[TP, int]:
    """The record that `place_of` names."""
    name, _, offset = text.rpartition("@")
    topic, _, number = name.rpartition("-")
    return TP(topic, int(number)), int(offset)


class Crashes:
    """`starts` without a commit so far, and tries by "topic-partition@offset" of records that went down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts, self.working = 0, ""
        self.tries: dict[str, int] = {}
        self._dirty = False
        try:
            kept: Mapping[str, Any] = json.loads(path.read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return
        self.starts = int(kept["starts"])
        self.tries = dict(kept["tries"])
        working = str(kept["working"])
        if working:
            self.tries[working] = self.tries.get(working, 0) + 1

    def begin(self) -> None:
        """A worker starts: unless it commits before it ends, the next one will know."""
        self.starts, self._dirty = self.starts + 1, True
        self._save()

    def works_on(self, place: str) -> None:
        """This record is alone in work: if the process ends now, it is the cause."""
        self.working, self._dirty = place, True
        self._save()

    def hung(self, places: Iterable[str]) -> None:
        """These records were in work when an agent did not come back."""
        for place in places:
            self.tries[place] = self.tries.get(place, 0) + 1
        self.working = ""
        self._save()

    def passed(self, place: str) -> None:
        """This record is committed."""
        if self.tries.pop(place, None) is not None:
            self._dirty = True

    def survived(self) -> None:
        """Work was committed. Costs nothing when the file already says so."""
        if self._dirty:
            self.starts, self.working, self._dirty = 0, "", False
            self._save()

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"starts": self.starts, "working": self.working, "tries": self.tries})
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.path)
