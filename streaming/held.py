"""Sources in which somebody left a transaction open: what lies behind it is not given, and Kafka does not say so.

A source that is silent though its log goes on is looked at; when its last stable offset stands still below the
end of the log, a warning names the place and the way out.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streaming import metrics
from streaming.admin import LATEST, READ_COMMITTED

if TYPE_CHECKING:
    from faust.types import TP

    from streaming.admin import Admin

log = logging.getLogger(__name__)

LOOK_S = 5.0  # between two looks at a silent source
HELD_S = 10.0  # how long a transaction may be open before that is said


@dataclass(slots=True)
class Silent:
    """A source whose records up to `end` were not given yet; `stable`: where the open transaction begins."""

    next_offset: int
    end: int
    since_s: float
    stable: int | None = None
    said_s: float = 0.0
    clear_to: int = -1  # no transaction is open below


class Held:
    """Told of what was read by `measure`, in one thread; `look` asks the brokers, in another."""

    def __init__(self, app_id: str, admin: Admin) -> None:
        self.app_id, self._admin = app_id, admin
        self._silent: dict[TP, Silent] = {}

    def measure(self, tp: TP, next_offset: int, end: int) -> None:
        """All up to `next_offset` was read, and the log is known to go on to `end`."""
        silent = self._silent.get(tp)
        if next_offset >= end or (silent is not None and silent.next_offset != next_offset):
            self._forget(tp)
        elif silent is None:
            self._silent[tp] = Silent(next_offset, end, time.monotonic())
        else:
            silent.end = end

    def forget(self) -> None:
        """Nothing is assigned any more."""
        for tp in list(self._silent):
            self._forget(tp)

    def _forget(self, tp: TP) -> None:
        silent = self._silent.pop(tp, None)
        if silent is not None and silent.said_s:
            log.warning("%s: %s-%d goes on", self.app_id, *tp)
            metrics.HELD_S.labels(self.app_id, tp.topic, str(tp.partition)).set(0)

    def look(self) -> None:
        """Blocking. Raises KafkaException when the brokers don't answer."""
        now = time.monotonic()
        asked = {
            tp: (silent, silent.end)
            for tp, silent in list(self._silent.items())
            if now - silent.since_s >= LOOK_S and silent.clear_to < silent.end
        }
        ends = self._admin.log_ends(list(asked), LATEST, READ_COMMITTED)
        for tp, (silent, end) in asked.items():
            if ends[tp] >= end:
                silent.clear_to, silent.stable = end, None
            elif ends[tp] != silent.stable:  # a transaction that may still end by itself
                silent.stable = ends[tp]
            elif now - silent.since_s >= HELD_S:
                self._say(tp, silent, now)

    def _say(self, tp: TP, silent: Silent, now: float) -> None:
        seconds = now - silent.since_s
        metrics.HELD_S.labels(self.app_id, tp.topic, str(tp.partition)).set(seconds)
        if now - silent.said_s < HELD_S and silent.said_s:
            return
        silent.said_s = now
        log.warning(
            "%s: %s-%d gives nothing since %.0f s: a producer's transaction is open there from offset %d on; find it "
            "with kafka-transactions.sh find-hanging and end it with kafka-transactions.sh abort",
            self.app_id, *tp, seconds, silent.stable,
        )  # fmt: skip
