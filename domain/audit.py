"""Audit: all that any service said, in chains of hashes: nothing is changed, lost or added unseen.

    <topic>-<partition> --agents/observe.py--> RecordsRead --> EntriesChained      a chain each
    a chain that grew --tick--> HeadTold --> HeadNoted --tick--> CheckpointTaken   all heads at once

An entry is one committed record of an event topic. Its digest is SHA-256 over its place and content
(`digest`), its link SHA-256 over the link before it and that digest; the first follows GENESIS. Of
private facts audit sees the digest alone. What was read twice is chained once: offsets only grow.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias, assert_never, get_args

from domain.decider import (
    Changes,
    Decider,
    Due,
    RowKey,
    Rows,
    Tick,
    due_key,
    due_row,
    due_subject,
    overdue,
    tick_keys,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GENESIS = bytes(32)  # what the first link of a chain follows
LINK = 32  # bytes
# the headers that are part of an entry, in this order; one that is not there adds nothing
HEADERS = (
    *("ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "causation_id", "correlation_id"),
    *("traceparent", "actor", "origin"),
)
HEAD_MS = 30_000  # after its first entry since then, a chain tells its head
CHECKPOINT_MS = 30_000  # after the first head that it had not heard of, a checkpoint is taken
CHECKPOINT = "checkpoint"
HEADS = f"heads/{CHECKPOINT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsRead:
    """What one transaction of the reader saw of one topic partition, in its order."""

    chain: str  # <topic>-<partition>, without the installation's namespace
    offsets: tuple[int, ...]
    digests: str  # 32 bytes for each offset, base64


@dataclass(frozen=True, slots=True, kw_only=True)
class EntriesChained:
    """Entries joined a chain: the first of them is its `first`-th, from 0."""

    chain: str
    first: int
    offsets: tuple[int, ...]
    links: str  # 32 bytes for each offset, base64
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain stands: its last link (hex), that entry's offset, how many entries it has."""

    chain: str
    count: int
    offset: int
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTold:
    """A chain tells where it stands, for the next checkpoint."""

    head: Head
    checkpoint_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadNoted:
    """The checkpoint in the making knows where this chain stands."""

    head: Head
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTaken:
    """All heads at once; `hash` is over them, the number, the time and the checkpoint before."""

    number: int
    heads: tuple[Head, ...]  # by chain
    entries: int  # of all chains
    previous: str  # hash of the checkpoint before, hex; the first has zeros
    hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Row `chain/<topic>-<partition>`. `due_ms`: when it tells its head; None: nothing to tell."""

    head: Head
    due_ms: int | None
    version: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Row `heads/checkpoint`: the heads heard of (one a topic partition), and the last checkpoint."""

    heads: dict[str, Head]
    number: int  # of the last checkpoint; 0: there was none
    hash: str
    taken_ms: int
    due_ms: int | None
    version: int


Message: TypeAlias = RecordsRead | HeadTold | Tick
Event: TypeAlias = EntriesChained | HeadTold | HeadNoted | CheckpointTaken


def canonical(
    place: tuple[str, int, int],
    at_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Mapping[str, bytes],
) -> bytes:
    """A record as its digest sees it; `place`: topic without namespace, partition, offset.

    Each part has its length before it, four bytes big endian, and what is not there 0xFFFFFFFF: no
    two records look alike.
    """
    topic, partition, offset = place
    named = [
        part
        for name in HEADERS
        if (found := headers.get(name)) is not None
        for part in (name.encode(), found)
    ]
    parts = (topic.encode(), b"%d" % partition, b"%d" % offset, b"%d" % at_ms, key, value, *named)
    return b"".join(
        b"\xff\xff\xff\xff" if part is None else len(part).to_bytes(4, "big") + part
        for part in parts
    )


def digest(
    place: tuple[str, int, int],
    at_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Mapping[str, bytes],
) -> bytes:
    """SHA-256 of `canonical`."""
    return sha256(canonical(place, at_ms, key, value, headers)).digest()


def link(before: bytes, entry: bytes) -> bytes:
    """The link of an entry: SHA-256 over the link before it and its digest."""
    return sha256(before + entry).digest()


def packed(hashes: Sequence[bytes]) -> str:
    """Hashes of 32 bytes as one text."""
    return b64encode(b"".join(hashes)).decode()


def unpacked(text: str) -> list[bytes]:
    """The hashes in such a text. ValueError: it is none."""
    data = b64decode(text, validate=True)
    if len(data) % LINK:
        raise ValueError(f"{len(data)} bytes are no hashes of {LINK}")
    return [data[at : at + LINK] for at in range(0, len(data), LINK)]


def checkpoint_hash(number: int, heads: Sequence[Head], previous: str, at_ms: int) -> str:
    """SHA-256, hex, over a line for the checkpoint and one for each head."""
    lines = [f"{number} {at_ms} {previous}"]
    lines += [f"{head.chain} {head.count} {head.offset} {head.link}" for head in heads]
    return sha256("\n".join(lines).encode()).hexdigest()


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case RecordsRead():
            return _chain(rows, message, at_ms)
        case HeadTold():
            return _note(rows, message.head, at_ms)
        case Tick():
            return _told(rows, message, at_ms)
        case _:
            assert_never(message)


def _chain(rows: Rows, message: RecordsRead, at_ms: int) -> Sequence[Event]:
    row: Chain | None = rows.get(chain_key(message.chain))
    last = -1 if row is None else row.head.offset
    before = GENESIS if row is None else bytes.fromhex(row.head.link)
    offsets, links = [], []
    for offset, entry in zip(message.offsets, unpacked(message.digests), strict=True):
        if offset > last:
            before = link(before, entry)
            offsets.append(offset)
            links.append(before)
    if not offsets:
        return ()
    return (
        EntriesChained(
            chain=message.chain,
            first=0 if row is None else row.head.count,
            offsets=tuple(offsets),
            links=packed(links),
            at_ms=at_ms,
        ),
    )


def _note(rows: Rows, head: Head, at_ms: int) -> Sequence[Event]:
    row: Heads | None = rows.get(HEADS)
    known = None if row is None else row.heads.get(head.chain)
    if known is not None and known.count >= head.count:
        return ()
    return (HeadNoted(head=head, at_ms=at_ms),)


def _told(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    said: list[Event] = [
        HeadTold(head=rows[due_subject(key)].head, checkpoint_id=CHECKPOINT, at_ms=at_ms)
        for key in overdue(rows, tick, "head", at_ms)
    ]
    if overdue(rows, tick, CHECKPOINT, at_ms):
        said.append(_checkpoint(rows[HEADS], at_ms))
    return said


def _checkpoint(row: Heads, at_ms: int) -> CheckpointTaken:
    heads = tuple(row.heads[chain] for chain in sorted(row.heads))
    number = row.number + 1
    return CheckpointTaken(
        number=number,
        heads=heads,
        entries=sum(head.count for head in heads),
        previous=row.hash,
        hash=checkpoint_hash(number, heads, row.hash, at_ms),
        at_ms=at_ms,
    )


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case EntriesChained():
            return _grown(rows, event)
        case HeadTold():
            key = chain_key(event.head.chain)
            row: Chain = rows[key]
            assert row.due_ms is not None
            told = replace(row, due_ms=None, version=row.version + 1)
            return {key: told, due_key(row.due_ms, "head", key): None}
        case HeadNoted():
            return _noted(rows.get(HEADS), event)
        case CheckpointTaken():
            kept: Heads = rows[HEADS]
            assert kept.due_ms is not None
            taken = replace(
                kept,
                number=event.number,
                hash=event.hash,
                taken_ms=event.at_ms,
                due_ms=None,
                version=kept.version + 1,
            )
            return {HEADS: taken, due_key(kept.due_ms, CHECKPOINT, HEADS): None}
        case _:
            assert_never(event)


def _grown(rows: Rows, event: EntriesChained) -> Changes:
    key = chain_key(event.chain)
    row: Chain | None = rows.get(key)
    head = Head(
        chain=event.chain,
        count=event.first + len(event.offsets),
        offset=event.offsets[-1],
        link=b64decode(event.links)[-LINK:].hex(),
    )
    due: dict[RowKey, Due] = {}
    due_ms = None if row is None else row.due_ms
    if due_ms is None:
        due_ms = event.at_ms + HEAD_MS
        due = dict([due_row(due_ms, "head", key)])
    version = 1 if row is None else row.version + 1
    grown = Chain(head=head, due_ms=due_ms, version=version, updated_ms=event.at_ms)
    return {key: grown, **due}


def _noted(row: Heads | None, event: HeadNoted) -> Changes:
    kept = row or Heads(heads={}, number=0, hash=GENESIS.hex(), taken_ms=0, due_ms=None, version=0)
    due: dict[RowKey, Due] = {}
    due_ms = kept.due_ms
    if due_ms is None:
        due_ms = event.at_ms + CHECKPOINT_MS
        due = dict([due_row(due_ms, CHECKPOINT, HEADS)])
    heads = {**kept.heads, event.head.chain: event.head}
    return {HEADS: replace(kept, heads=heads, due_ms=due_ms, version=kept.version + 1), **due}


def chain_key(chain: str) -> RowKey:
    return f"chain/{chain}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case RecordsRead() | EntriesChained():
            return (chain_key(message.chain),)
        case HeadTold():
            return (chain_key(message.head.chain), HEADS)
        case HeadNoted() | CheckpointTaken():
            return (HEADS,)
        case Tick():
            return tick_keys(message)
        case _:
            assert_never(message)


def aggregate_id(event: Event) -> str:
    match event:
        case EntriesChained():
            return event.chain
        case HeadTold():
            return event.head.chain
        case HeadNoted() | CheckpointTaken():
            return CHECKPOINT
        case _:
            assert_never(event)


AUDIT = Decider(
    service="audit",
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Chain, Heads, Due),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
)
