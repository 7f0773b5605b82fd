"""A downstream: what is asked outside of this process, behind bulkhead, breaker, retries and time-out.

    ask --a place of the bulkhead--> breaker --> a call, up to three more of it --> its answer

One that is slow or dead holds its own places and no others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

from resilience.breaker import Breaker
from resilience.bulkhead import CALLS, Bulkhead, Full
from resilience.guarded import forget, through
from resilience.retry import retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.breaker import Limits

T = TypeVar("T")

KNOWN = 1_000  # downstreams whose breakers are remembered


class Away(Exception):
    """It could not be asked, or answered with an error of its own: worth another try."""


class Downstream:
    """One downstream of this process: `calls` at once, `line` of them and those that wait, beyond it `Full`."""

    def __init__(
        self,
        name: str,
        timeout_s: float,
        line: int | None = None,
        limits: Limits | None = None,
        calls: int = CALLS,
    ) -> None:
        self.timeout_s = timeout_s  # of one call
        self.line = line
        self.breaker = Breaker(name, limits)
        self.bulkhead = Bulkhead(name, calls)
        self.asked = 0  # calls under way and in line

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Raises Away after the last try, Rejected without any, Full when the line is too long."""
        if self.line is not None and self.asked >= self.line:
            raise Full(f"{self.breaker.name}: {self.asked} calls under way and in line")
        self.asked += 1
        try:
            async with self.bulkhead.waiting():
                return await self._through_breaker(call)
        finally:
            self.asked -= 1

    async def _through_breaker(self, call: Callable[[], Awaitable[T]]) -> T:
        with through(self.breaker, Away):
            async for attempt in retrying(Away):
                with attempt:
                    answer = await self._in_time(call)
        return answer

    async def _in_time(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await call()
        except TimeoutError as exc:
            raise Away(f"no answer within {self.timeout_s:g} s") from exc


class Downstreams:
    """Downstreams by name, made when first asked; beyond KNOWN the idle one of longest ago goes."""

    def __init__(
        self,
        timeout_s: float,
        line: int | None = None,
        limits: Limits | None = None,
        calls: int = CALLS,
    ) -> None:
        self.timeout_s, self.line, self.limits, self.calls = timeout_s, line, limits, calls
        self._by_name: OrderedDict[str, Downstream] = OrderedDict()

    def __getitem__(self, name: str) -> Downstream:
        found = self._by_name.get(name)
        if found is None:
            found = Downstream(name, self.timeout_s, self.line, self.limits, self.calls)
            self._by_name[name] = found
            self._forget()
        self._by_name.move_to_end(name)
        return found

    def _forget(self) -> None:
        if len(self._by_name) <= KNOWN:
            return
        idle = next((name for name, one in self._by_name.items() if not one.asked), None)
        if idle is not None:
            forget(self._by_name.pop(idle).breaker)
