"""Whether all that had come before a time is decided: from then on the logs up to it say the same.

<service>.inbox: … 97 98 | 99 100          committed: 99, and 99 is later than the time
                         ^-- the service's offset
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Consumer, TopicPartition

from proof.reader import Reader

if TYPE_CHECKING:
    from travel.snapshot import Source

ANSWER_S = 10.0


def is_decided(source: Source, service: str, at_ms: int) -> bool:
    """True once a service has decided all that its inbox got up to this time (Unix ms).

    Blocks. Raises KafkaException.
    """
    inbox = f"{source.installation.namespace}{service}.inbox"
    places = [TopicPartition(inbox, n) for n in range(source.installation.partitions)]
    group = f"{source.installation.namespace}{service}"
    member = Consumer({**source.kafka, "group.id": group, "enable.auto.commit": False})
    try:
        committed = member.committed(places, timeout=ANSWER_S)  # joins no group
    finally:
        member.close()
    reader = Reader(source.kafka)
    try:
        for place in committed:
            start = place.offset if place.offset >= 0 else None
            first = next(reader.records(inbox, place.partition, start), None)
            if first is not None and first.at_ms <= at_ms:
                return False
    finally:
        reader.close()
    return True
