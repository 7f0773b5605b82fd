"""Circuit breaker: a downstream that mostly fails is left alone for a while.

    CLOSED --more than half of the window's calls failed--> OPEN --30 s--> HALF_OPEN
    HALF_OPEN --its one probe succeeds--> CLOSED, fails--> OPEN

The window is 60 s in slices of a second; below `least_calls` in it nothing opens. The core is pure:
time comes in as monotonic seconds. A call costs about a microsecond.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Rejected(Exception):
    """Open: the downstream was not called. `retry_after_s` says when a probe may go."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"breaker of {name} is open for another {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When it opens and for how long. The defaults are REQUIREMENTS §6."""

    window_s: int = 60
    least_calls: int = 10
    failing_percent: int = 50  # opens above it
    open_s: float = 30.0


class Breaker:
    """One downstream. `admit` gives a ticket; `succeeded` or `failed` takes it back."""

    __slots__ = (
        "_calls",
        "_failures",
        "_probing",
        "_slices",
        "_until_s",
        "changes",
        "limits",
        "name",
        "state",
    )

    def __init__(self, name: str, limits: Limits | None = None) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.state = State.CLOSED
        self.changes = 0  # of state, ever
        self._slices: deque[list[int]] = deque()  # [second, calls, failures], oldest first
        self._calls = 0
        self._failures = 0
        self._until_s = 0.0
        self._probing = False

    def admit(self, now_s: float) -> int:
        """A ticket for a call, or `Rejected`."""
        if self.state is not State.CLOSED:
            self._admit_probe(now_s)
        return self.changes

    def succeeded(self, ticket: int, now_s: float) -> None:
        """The call came back well. One from before the last change says nothing."""
        if ticket != self.changes:
            return
        if self.state is State.HALF_OPEN:
            self._become(State.CLOSED)
        self._count(now_s, 0)

    def failed(self, ticket: int, now_s: float) -> None:
        """The call failed or timed out, after its own retries."""
        if ticket != self.changes:
            return
        if self.state is State.HALF_OPEN:
            self._open(now_s)
            return
        self._count(now_s, 1)
        if self._too_many():
            self._open(now_s)

    def abandoned(self, ticket: int) -> None:
        """The call was given up for a reason of ours: it says nothing about the downstream."""
        if ticket == self.changes:
            self._probing = False

    def _admit_probe(self, now_s: float) -> None:
        if self.state is State.OPEN and now_s >= self._until_s:
            self._become(State.HALF_OPEN)
        if self.state is State.OPEN or self._probing:
            raise Rejected(self.name, max(0.0, self._until_s - now_s))
        self._probing = True

    def _too_many(self) -> bool:
        limits = self.limits
        return (
            self._calls >= limits.least_calls
            and self._failures * 100 > self._calls * limits.failing_percent
        )

    def _count(self, now_s: float, failures: int) -> None:
        second = int(now_s)
        slices = self._slices
        if not slices or slices[-1][0] != second:
            slices.append([second, 0, 0])
            self._expire(second - self.limits.window_s)
        slices[-1][1] += 1
        slices[-1][2] += failures
        self._calls += 1
        self._failures += failures

    def _expire(self, second: int) -> None:
        while self._slices[0][0] <= second:
            _, calls, failures = self._slices.popleft()
            self._calls -= calls
            self._failures -= failures

    def _open(self, now_s: float) -> None:
        self._until_s = now_s + self.limits.open_s
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self.state = state
        self.changes += 1
        self._slices.clear()
        self._calls = self._failures = 0
        self._probing = False
