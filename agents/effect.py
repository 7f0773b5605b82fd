"""An effect: a kind of request to the outside world, as its owner declares it to `perform`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from resilience.bulkhead import CALLS

Request: TypeAlias = Any  # one of `Effect.types`
Result: TypeAlias = Any  # a message of the owner's; its `outcome` is counted


class Caller(Protocol):
    """The way out for one kind of effect, for as long as perform runs."""

    def downstream(self, request: Request) -> str:
        """Who is asked, for metrics and logs too: each name has a bulkhead and a breaker of its own."""

    async def call(self, request: Request, headers: Mapping[str, str]) -> Result:
        """One try. Raises Away when another may go better.

        `headers`: the trace, to be carried on. It is cut off at the effect's time-out.
        """

    def unanswered(self, request: Request, why: Exception) -> Result:
        """The result when nobody said one: Away after the last try; Rejected or Full without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Requests of `types` in `requests` go out, what came of each goes into the owner's inbox."""

    name: str
    owner: str  # the service that requests it and hears the results
    requests: str  # topic
    types: tuple[type, ...]
    key: Callable[[Result], str]  # under which the owner hears a result
    open: Callable[[], AbstractAsyncContextManager[Caller]]
    timeout_s: float = 5.0  # of one try
    at_once: int = (
        CALLS  # calls under way at one downstream; others wait, their time not yet running
    )
    line: int | None = None  # calls under way and in line at one downstream; None: as many as come

    @property
    def results(self) -> str:
        return f"{self.owner}.inbox"

    @property
    def dead(self) -> str:
        return f"{self.owner}.dead"
