"""Who did what: facts by entity, actor and time straight from the event topics, where no store answers.

A look is bounded: at most SCAN records, else TooLarge says to narrow it. An entity's own facts lie in
one partition of each topic, so naming it reads a part of the log alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.services import DECIDERS
from proof.chain import Result as Result  # what `verified` answers
from proof.chain import verify
from proof.reader import Reader
from stores.catalog import WATCHERS, json_of, said
from streaming import partition_of
from travel.errors import TooLarge
from travel.export import export

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proof.reader import LogRecord
    from travel.export import Asked
    from travel.snapshot import Source

SCAN = 100_000


def trail(source: Source, asked: Asked, deadline_s: float) -> list[dict[str, Any]]:
    """Facts as the stores' documents of events, the oldest first. Raises TooLarge, TimeoutError."""
    reader = Reader(source.kafka, deadline_s)
    try:
        found = [
            json_of(said(service, source.codec.decode(r.value or b""), r.headers, (p, r.offset)))
            for service in DECIDERS
            if service not in WATCHERS
            for p, r in _records(source, reader, service, asked)
        ]
    finally:
        reader.close()
    return sorted(found, key=lambda one: (one["at_ms"], one["event_id"]))


def _records(
    source: Source, reader: Reader, service: str, asked: Asked
) -> Iterator[tuple[int, LogRecord]]:
    topic, count = f"{source.installation.namespace}{service}.events", 0
    partitions = range(source.installation.partitions)
    if asked.entity is not None:
        partitions = range(
            home := partition_of(asked.entity.encode(), source.installation.partitions), home + 1
        )
    for partition in partitions:
        start = reader.offset_at(topic, partition, asked.from_ms)
        for record in reader.records(topic, partition, start):
            if asked.to_ms is not None and record.at_ms >= asked.to_ms:
                break
            count += 1
            if count > SCAN:
                raise TooLarge(f"more than {SCAN:,} facts of {service}: narrow it by from and to")
            if asked.shows(record):
                yield partition, record


def exported(
    source: Source, asked: Asked, key: str, limit: int, deadline_s: float
) -> Iterator[bytes]:
    """`audit export` within a time. Raises Refused, TooLarge, TimeoutError."""
    reader = Reader(source.kafka, deadline_s)
    try:
        yield from export(source, reader, asked, key, limit)
    finally:
        reader.close()


def verified(source: Source, from_ms: int | None, deadline_s: float) -> Result:
    """`audit verify` within a time. Raises TimeoutError."""
    reader = Reader(source.kafka, deadline_s)
    installed = source.installation
    try:
        return verify(reader, installed.namespace, source.codec, installed.partitions, from_ms)
    finally:
        reader.close()
