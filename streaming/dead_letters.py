"""Dead letters: a record that nobody can read, or that failed too often, goes to a topic with its reason and origin.

In the transaction of its batch: it is there exactly once, and its offset is committed with it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streaming import metrics
from streaming.crashes import place_of

if TYPE_CHECKING:
    from streaming.context import Batch
    from streaming.errors import Poison

log = logging.getLogger(__name__)

REASON_CHARACTERS = 500


def put_aside(app: Any, batch: Batch, record: Any, poison: Poison) -> None:
    """A record that its codec can't read: to the dead letters once, however many agents read it.

    Raises the poison where the topic's policy (or the poison itself) says that it must not be passed by.
    """
    if poison.stops or app.policy_of(batch.tp.topic).on_poison == "stop":
        raise poison
    key = (batch.tp, record.offset())
    if key not in batch.cycle.put_aside:
        batch.cycle.put_aside.add(key)
        send(app, batch, batch.pos or 0, str(poison))


def send(app: Any, batch: Batch, pos: int, reason: str) -> None:
    """Add the record at `pos` of a batch, to its topic's dead letters, to what its cycle writes."""
    tp, record = batch.tp, batch.records[pos]
    topic, app_id = app.policy_of(tp.topic).dead_letters, app.conf.id
    log.error("%s: %s goes to %s: %s", app_id, place_of(tp, record.offset()), topic, reason)
    headers = [
        *(record.headers() or ()),
        ("dead_letter_reason", reason[:REASON_CHARACTERS].encode()),
        ("dead_letter_topic", tp.topic.encode()),
        ("dead_letter_partition", str(tp.partition).encode()),
        ("dead_letter_offset", str(record.offset()).encode()),
        ("dead_letter_app", app_id.encode()),
    ]
    batch.cycle.outputs.append((batch, pos, topic, record.key(), record.value(), -1, headers, 0))
    metrics.DEAD_LETTERS.labels(app_id, tp.topic).inc()
