"""A look that many share: asked for once in a while, and by nobody while nobody wants to know."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Looks(Generic[T]):
    """`look` at most once in `each_s`; callers of one moment share what it finds, or what it raises."""

    def __init__(self, look: Callable[[], Coroutine[Any, Any, T]], each_s: float) -> None:
        self._look, self._each_s = look, each_s
        self._asking: asyncio.Task[T] | None = None
        self._asked_s = 0.0

    async def now(self) -> T:
        if self._asking is None or time.monotonic() - self._asked_s >= self._each_s:
            self._asked_s = time.monotonic()
            self._asking = asyncio.create_task(self._look())
        return await asyncio.shield(self._asking)
