"""Short retries of one outbound call: three more, 100 ms doubling to 10 s at most, each ±10 %.

Longer schedules belong to whoever owns the work, as ticks; a retry here only rides out a blink.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

RETRIES = 3
FIRST_S = 0.1
CAP_S = 10.0
JITTER = 0.1


def pause_s(tries: int, chance: float) -> float:
    """Seconds to wait after `tries` failures; `chance` in 0 … 1 moves it by up to 10 %."""
    pause = min(FIRST_S * 2.0 ** (tries - 1), CAP_S)
    return min(pause * (1 + JITTER * (2 * chance - 1)), CAP_S)


def retrying(
    *outages: type[BaseException], chance: Callable[[], float] = random.random
) -> AsyncRetrying:
    """Tries again on these exceptions alone; the last of them is raised as it is."""

    def wait(state: RetryCallState) -> float:
        return pause_s(state.attempt_number, chance())

    return AsyncRetrying(
        stop=stop_after_attempt(1 + RETRIES),
        wait=wait,
        retry=retry_if_exception_type(outages),
        reraise=True,
    )
