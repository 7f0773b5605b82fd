"""Envelopes: the CloudEvents headers (Kafka binding, binary mode) around each record.

`ce_id` of an event is `<input topic>-<partition>-<offset>-<n>`: the n-th thing said about that
input. A replay writes the same ids, and anyone can find what an event was decided from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import domain
import streaming

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers: TypeAlias = list[tuple[str, bytes]]

SERVICES = (
    "user",
    "account",
    "transaction",
    "payment",
    "notification",
    "audit",
    "analytics",
    "risk",
    "currency",
    "settlement",
    "reporting",
)
OURS = frozenset(f"/{name}".encode() for name in (*SERVICES, "perform", "observe"))
# what a message hands on to all that is said about it; `origin`: the client's address and request id
CARRIED = ("traceparent", "correlation_id", "actor", "origin")
# what the copy of a fact in an inbox has; the rest is told once, by the fact in `<service>.events`
COPIED = frozenset(("ce_id", "ce_type", "ce_source", *CARRIED))


def given(headers: Iterable[tuple[str, bytes | None]] | None) -> dict[str, bytes]:
    """A record's headers by name. One without a value, which Kafka allows, is one that is not there."""
    found: dict[str, Any] = dict(headers or ())
    if None in found.values():
        found = {name: value for name, value in found.items() if value is not None}
    return found


@cache
def code() -> bytes:
    """Names the deciders' code: two processes with the same value decide the same."""
    digest = hashlib.sha256()
    for path in sorted(Path(domain.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12].encode()


@dataclass(slots=True)  # one for each record: a frozen one takes twice as long to make
class Input:
    """Where a message came from: its place, the broker's time (Unix ms) and its headers."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    headers: dict[str, bytes]

    @property
    def place(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"

    @property
    def ce_id(self) -> bytes:
        """Its own id; a foreign record that has none is known by its place."""
        return self.headers.get("ce_id") or self.place.encode()

    @property
    def foreign(self) -> bool:
        """Written by the gateway or by anyone else who is not one of the services."""
        return self.headers.get("ce_source") not in OURS


class Place(NamedTuple):
    """What an event's `ce_id` says: its input, and which of the input's events it is."""

    topic: str
    partition: int
    offset: int
    n: int


def place(ce_id: bytes) -> Place:
    """Raises ValueError when this is not the id of a decided event."""
    topic, partition, offset, n = ce_id.decode().rsplit("-", 3)
    return Place(topic, int(partition), int(offset), int(n))


def running() -> tuple[Any, Any]:
    """The batch that the running agent works on, and its record (a confluent_kafka.Message)."""
    batch = streaming.current_batch()
    assert batch is not None
    assert batch.pos is not None
    return batch, batch.records[batch.pos]


class Shared(NamedTuple):
    """The headers that all events of one input have alike."""

    copied: Headers  # those that copies in inboxes have too
    rest: Headers


class Envelope:
    """Builds the headers of what one service says; what never changes is made once."""

    __slots__ = ("_fixed", "_prefix", "_source", "_types")

    def __init__(self, service: str, source: str | None = None) -> None:
        """`source`: who says it, where that is not the service whose message it is."""
        self._prefix = f"streambank.{service}."
        self._types: dict[type, bytes] = {}
        self._source = ("ce_source", f"/{source or service}".encode())
        self._fixed: Headers = [
            ("ce_specversion", b"1.0"),
            ("content-type", b"application/avro"),
            ("code", code()),
        ]

    def shared(self, source: Input) -> Shared:
        """What is said alike of all events of one input."""
        headers = source.headers
        copied = [self._source, *((name, headers[name]) for name in CARRIED if name in headers)]
        if "traceparent" not in headers:
            copied.append(("traceparent", own_trace(source.ce_id)))
        if "correlation_id" not in headers:
            copied.append(("correlation_id", source.ce_id))
        rest = [
            *self._fixed,
            ("ce_time", rfc3339(source.at_ms)),
            ("causation_id", source.ce_id),
        ]
        return Shared(copied, rest)

    def event(
        self, shared: Shared, place: str, n: int, kind: type, subject: bytes
    ) -> tuple[Headers, Headers]:
        """The headers of the n-th event decided from the input at `place`: the fact's, and its copies'."""
        ce_type = self._types.get(kind)
        if ce_type is None:
            ce_type = self._types[kind] = (self._prefix + kind.__name__).encode()
        copied = [("ce_id", f"{place}-{n}".encode()), ("ce_type", ce_type), *shared.copied]
        return [*copied, ("ce_subject", subject), *shared.rest], copied


def dead_headers(source: Input, why: Exception) -> Headers:
    """The headers of a dead letter: its own, why it is dead, and where it came from."""
    own = [item for item in source.headers.items() if not item[0].startswith("dead_letter_")]
    return [
        *own,
        ("dead_letter_reason", f"{type(why).__name__}: {why}"[:500].encode()),
        ("dead_letter_topic", source.topic.encode()),
        ("dead_letter_partition", b"%d" % source.partition),
        ("dead_letter_offset", b"%d" % source.offset),
    ]


def own_trace(ce_id: bytes) -> bytes:
    """The W3C trace, not sampled, of what no request began, such as a tick; a replay says the same."""
    digest = hashlib.blake2b(ce_id, digest_size=24).hexdigest()
    return f"00-{digest[:32]}-{digest[32:]}-00".encode()


@lru_cache(maxsize=64)  # the records of a batch share few milliseconds
def rfc3339(at_ms: int) -> bytes:
    """Unix milliseconds as RFC 3339 with milliseconds and Z."""
    return b"%b.%03dZ" % (_second(at_ms // 1000), at_ms % 1000)


@lru_cache(maxsize=64)
def _second(at_s: int) -> bytes:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def texts(headers: Iterable[tuple[str, bytes]] | None) -> dict[str, str]:
    """Headers for people and logs; bytes that are no UTF-8 are shown escaped."""
    return {name: (value or b"").decode(errors="backslashreplace") for name, value in headers or ()}
