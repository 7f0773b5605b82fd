"""Bulkhead: at most so many calls at once to one downstream, so that a slow one can't take
the whole process.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CALLS = 15  # per downstream and process


class Full(Exception):
    """All places are taken; answered at once, so that callers can tell their own client."""


class Bulkhead:
    """Places for calls. `waiting` queues for one, `at_once` refuses with `Full`."""

    def __init__(self, name: str, calls: int = CALLS) -> None:
        self.name = name
        self.calls = calls
        self.taken = 0
        self._places = asyncio.Semaphore(calls)

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        async with self._places:
            self.taken += 1
            try:
                yield
            finally:
                self.taken -= 1

    @asynccontextmanager
    async def at_once(self) -> AsyncIterator[None]:
        if self._places.locked():
            raise Full(f"{self.name}: {self.calls} calls under way")
        async with self.waiting():
            yield
