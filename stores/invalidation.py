"""Invalidation: once a store has a batch, copies in Redis of what it changed are let go.

    project --written(batch)--> Invalidation --> Redis: tombstones of users and accounts

What could not be said while Redis was away is said with a later batch, or when it is back.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from prometheus_client import Counter

from stores.catalog import KINDS, Unavailable
from stores.redis import COPIED

if TYPE_CHECKING:
    from stores.catalog import Batch, Kind
    from stores.redis import Redis

log = logging.getLogger(__name__)

WAITING = 100_000  # documents whose copies are to be let go still; beyond it the oldest stay
WARN_S = 10.0
KINDS_COPIED = tuple(kind for kind in KINDS if kind.name in COPIED)

MISSED = Counter("streambank_redis_invalidations_missed_total", "Invalidations without an answer")


class Invalidation:
    """What a projection calls with each batch that its store has. Never raises for Redis' sake."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[tuple[str, str], tuple[Kind, str, int]] = {}
        self._warned_s = float("-inf")

    async def written(self, batch: Batch) -> None:
        """Let go of the copies of what this batch changed, and of what is waiting."""
        for kind in KINDS_COPIED:
            for change in batch.of(kind):
                if change.document is not None:
                    version = int(change.document["version"])
                    self._waiting[kind.name, change.key] = (kind, change.key, version)
        if not self._waiting:
            return
        told = dict(self._waiting)
        try:
            await self._redis.invalidate([*told.values()])
        except Unavailable as exc:
            self._missed(exc)
            return
        for key, one in told.items():
            if self._waiting.get(key) == one:
                del self._waiting[key]

    def _missed(self, exc: Unavailable) -> None:
        MISSED.inc()
        while len(self._waiting) > WAITING:
            self._waiting.pop(next(iter(self._waiting)))
        if time.monotonic() - self._warned_s > WARN_S:
            self._warned_s = time.monotonic()
            log.warning("copies in Redis of %d documents stay: %s", len(self._waiting), exc)
