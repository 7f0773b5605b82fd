"""Log lines that would come in floods: each kind at most once in a while."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

QUIET_S = 10.0


class Rarely:
    """A broker that is away is told of once in QUIET_S, not at every try to connect."""

    def __init__(self) -> None:
        self._said_s: dict[str, float] = {}

    def warn(self, kind: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s.get(kind, -QUIET_S) >= QUIET_S:
            self._said_s[kind] = now_s
            log.warning("%s", text)
