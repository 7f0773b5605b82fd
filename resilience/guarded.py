"""A breaker around a call, and its state as metrics.

with through(breaker, Away):     # Rejected when it is open
    await ask()                  # Away counts as a failure, any other exception says nothing
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import Gauge

from resilience.breaker import Breaker, State

if TYPE_CHECKING:
    from collections.abc import Iterator


BREAKER = Gauge("streambank_breaker_state", "0 closed, 1 half open, 2 open", ["downstream"])
BREAKER_CHANGES = Gauge("streambank_breaker_changes", "Changes of state so far", ["downstream"])
_BREAKERS: dict[str, Breaker] = {}
_STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


@contextmanager
def through(breaker: Breaker, *outages: type[Exception]) -> Iterator[None]:
    """Raises Rejected instead of calling while the breaker is open."""
    _BREAKERS[breaker.name] = breaker
    ticket = breaker.admit(time.monotonic())
    try:
        yield
    except outages:
        breaker.failed(ticket, time.monotonic())
        raise
    except BaseException:
        breaker.abandoned(ticket)
        raise
    else:
        breaker.succeeded(ticket, time.monotonic())
    finally:
        BREAKER.labels(breaker.name).set(_STATES[breaker.state])
        BREAKER_CHANGES.labels(breaker.name).set(breaker.changes)


def forget(breaker: Breaker) -> None:
    """Show it no more: nobody will ask through it."""
    if _BREAKERS.pop(breaker.name, None) is not None:
        BREAKER.remove(breaker.name)
        BREAKER_CHANGES.remove(breaker.name)


def states() -> dict[str, State]:
    """Of this process's breakers, by what they guard."""
    return {name: breaker.state for name, breaker in _BREAKERS.items()}
