"""Rate limit: a token bucket a client, filled evenly over a window.

    full (limit tokens) --take--> … --empty--> refused until a token has dripped in again

The core is pure: time comes in as monotonic seconds. Buckets are kept, full again or not; beyond
`clients` the one that was used longest ago goes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining` whole tokens; `full_s` seconds until the bucket is full; `retry_s` until a token."""

    allowed: bool
    remaining: int
    full_s: float
    retry_s: float


class Limiter:
    """`limit` requests in `window_s` seconds for each client, at once or spread."""

    def __init__(self, limit: int = 100, window_s: float = 900.0, clients: int = 100_000) -> None:
        self.limit, self.window_s = limit, window_s
        self._clients = clients
        self._rate = limit / window_s
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, client: Hashable, now_s: float) -> Verdict:
        """Take a token of the client's bucket, if there is one."""
        tokens, at_s = self._buckets.pop(client, (float(self.limit), now_s))
        tokens = min(float(self.limit), tokens + (now_s - at_s) * self._rate)
        allowed = tokens >= 1.0
        if allowed:
            tokens -= 1.0
        self._buckets[client] = (tokens, now_s)
        if len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        return self.verdict(allowed, tokens)

    def give_back(self, client: Hashable) -> None:
        """Put back a token that was taken: what it was for is not to count."""
        held = self._buckets.get(client)
        if held is not None:
            tokens, at_s = held
            self._buckets[client] = (min(float(self.limit), tokens + 1.0), at_s)

    def verdict(self, allowed: bool, tokens: float) -> Verdict:
        """What follows from a bucket that holds `tokens` now, wherever it is kept."""
        retry_s = 0.0 if allowed else (1.0 - tokens) / self._rate
        return Verdict(allowed, int(tokens), (self.limit - tokens) / self._rate, retry_s)
