"""Whether all that had come before a time is decided: from then on the logs up to it say the same.

<service>.inbox: … 97 98 | 99 100          committed: 99, and 99 is later than the time
                         ^-- the service's offset
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from faust.types import TP

from proof.reader import Reader
from streaming.admin import Admin

if TYPE_CHECKING:
    from travel.snapshot import Source

ANSWER_S = 10.0


def is_decided(source: Source, service: str, at_ms: int) -> bool:
    """True once a service has decided all that its inbox got up to this time (Unix ms).

    Blocks. Raises KafkaException.
    """
    inbox = f"{source.installation.namespace}{service}.inbox"
    tps = [TP(inbox, n) for n in range(source.installation.partitions)]
    with Admin(source.kafka, f"{source.installation.namespace}{service}") as admin:
        committed = admin.offsets(tps, ANSWER_S)
    reader = Reader(source.kafka)
    try:
        for tp in tps:
            first = next(reader.records(*tp, committed.get(tp)), None)
            if first is not None and first.at_ms <= at_ms:
                return False
    finally:
        reader.close()
    return True
