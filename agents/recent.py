"""Facts that this process said a moment ago, by their bytes: to hear one again is to look it up.

Services that run in one process hear each other's facts as bytes from the broker. Facts never change,
so the same bytes are the same fact, and seven of the eight decodings of a transfer are saved
(`bench/step.py`). A fact that is not here, from another process or from before a restart, is decoded.
"""

from __future__ import annotations

from typing import Any

LIMIT = 20_000  # facts of one age; there are two ages


class Recent:
    """The last facts, at least LIMIT and at most twice as many; for one event loop."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[bytes, Any] = {}
        self._old: dict[bytes, Any] = {}

    def add(self, data: bytes, fact: Any) -> None:
        if len(self._new) >= LIMIT:
            self._old, self._new = self._new, {}
        self._new[data] = fact

    def get(self, data: bytes) -> Any:
        """The fact in these bytes, None when it is not known."""
        fact = self._new.get(data)
        return self._old.get(data) if fact is None else fact
