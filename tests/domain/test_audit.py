"""Audit: chains that only grow, heads and checkpoints by tick."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from domain.audit import (
    AUDIT,
    CHECKPOINT_MS,
    GENESIS,
    HEAD_MS,
    HEADS,
    CheckpointTaken,
    EntriesChained,
    Head,
    HeadNoted,
    HeadTold,
    RecordsRead,
    canonical,
    chain_key,
    checkpoint_hash,
    digest,
    link,
    packed,
    unpacked,
)
from domain.decider import Overlay, Tick, apply, due_key
from tests.domain.stories import NOON_MS, then

CHAIN = "account.events-0"
ONE, TWO, THREE = (sha256(name).digest() for name in (b"one", b"two", b"three"))


def read(*entries: tuple[int, bytes]) -> RecordsRead:
    return RecordsRead(
        chain=CHAIN,
        offsets=tuple(offset for offset, _ in entries),
        digests=packed([entry for _, entry in entries]),
    )


def chained(*entries: tuple[int, bytes], given: list[Any] | None = None) -> list[Any]:
    return (given or []) + then(AUDIT, given or [], read(*entries))


def test_each_link_follows_from_the_one_before_and_the_entry() -> None:
    (event,) = then(AUDIT, [], read((3, ONE), (5, TWO)))
    first = sha256(bytes(32) + ONE).digest()
    assert event == EntriesChained(
        chain=CHAIN,
        first=0,
        offsets=(3, 5),
        links=packed([first, sha256(first + TWO).digest()]),
        at_ms=NOON_MS,
    )


def test_a_chain_goes_on_where_it_stood() -> None:
    together = chained((3, ONE), (5, TWO), (6, THREE))
    apart = chained((5, TWO), (6, THREE), given=chained((3, ONE)))
    assert (apart[1].first, apart[1].offsets) == (1, (5, 6))
    assert unpacked(apart[1].links) == unpacked(together[0].links)[1:]


@pytest.mark.parametrize(
    ("again", "new"),
    [
        (read((3, ONE), (5, TWO)), None),
        (read((3, ONE)), None),
        (read((3, ONE), (5, TWO), (6, THREE)), (6,)),
        (read((6, THREE)), (6,)),
    ],
)
def test_what_was_read_twice_is_chained_once(again: RecordsRead, new: Any) -> None:
    said = then(AUDIT, chained((3, ONE), (5, TWO)), again)
    assert [event.offsets for event in said] == ([new] if new else [])


def head(count: int = 2, offset: int = 5) -> Head:
    of_one = link(GENESIS, ONE)
    return Head(
        chain=CHAIN, count=count, offset=offset, link=(link(of_one, TWO) if count > 1 else of_one).hex()
    )  # fmt: skip


def test_a_chain_that_grew_tells_its_head_once_in_its_time() -> None:
    given = chained((3, ONE), (5, TWO))
    due = due_key(NOON_MS + HEAD_MS, "head", chain_key(CHAIN))
    tick = Tick(due=(due,))
    assert then(AUDIT, given, tick, NOON_MS + HEAD_MS - 1) == []
    (told,) = then(AUDIT, given, tick, NOON_MS + HEAD_MS)
    assert told == HeadTold(head=head(), checkpoint_id="checkpoint", at_ms=NOON_MS + HEAD_MS)
    assert then(AUDIT, [*given, told], tick, NOON_MS + HEAD_MS) == []
    rows = Overlay({})
    apply(AUDIT, rows, [*given, told])
    assert due not in rows
    assert chained((6, THREE), given=[*given, told])[-1].first == 2


def told(given: Head) -> HeadTold:
    return HeadTold(head=given, checkpoint_id="checkpoint", at_ms=NOON_MS)


def test_a_head_is_noted_once_and_never_an_older_one() -> None:
    noted = then(AUDIT, [], told(head()))
    assert noted == [HeadNoted(head=head(), at_ms=NOON_MS)]
    assert then(AUDIT, noted, told(head())) == []
    assert then(AUDIT, noted, told(head(1, 3))) == []
    assert then(AUDIT, noted, told(replace(head(), count=3, offset=6)))


def test_a_checkpoint_has_all_heads_and_follows_the_one_before() -> None:
    other = Head(chain="user.events-1", count=7, offset=9, link=ONE.hex())
    given = then(AUDIT, [], told(other))
    given += then(AUDIT, given, told(head()))
    at_ms = NOON_MS + CHECKPOINT_MS
    tick = Tick(due=(due_key(at_ms, "checkpoint", HEADS),))
    (taken,) = then(AUDIT, given, tick, at_ms)
    zeros = GENESIS.hex()
    assert taken == CheckpointTaken(
        number=1,
        heads=(head(), other),
        entries=9,
        previous=zeros,
        hash=checkpoint_hash(1, (head(), other), zeros, at_ms),
        at_ms=at_ms,
    )
    given += [taken]
    assert then(AUDIT, given, tick, at_ms) == []
    given += then(AUDIT, given, told(replace(other, count=8)), at_ms)
    later = at_ms + CHECKPOINT_MS
    (second,) = then(AUDIT, given, Tick(due=(due_key(later, "checkpoint", HEADS),)), later)
    assert (second.number, second.previous, second.entries) == (2, taken.hash, 10)


PLACE = ("account.events", 0, 7)
HEADERS = {"ce_id": b"a-0-1-0", "actor": b"U1", "origin": b"192.0.2.1 r1"}


@pytest.mark.parametrize(
    "other",
    [
        digest(("account.events", 0, 8), 1, b"k", b"v", HEADERS),
        digest(("account.events", 1, 7), 1, b"k", b"v", HEADERS),
        digest(("user.events", 0, 7), 1, b"k", b"v", HEADERS),
        digest(PLACE, 2, b"k", b"v", HEADERS),
        digest(PLACE, 1, b"K", b"v", HEADERS),
        digest(PLACE, 1, None, b"v", HEADERS),
        digest(PLACE, 1, b"k", b"w", HEADERS),
        digest(PLACE, 1, b"kv", b"", HEADERS),
        digest(PLACE, 1, b"k", None, HEADERS),
        digest(PLACE, 1, b"k", b"v", {**HEADERS, "actor": b"U2"}),
        digest(PLACE, 1, b"k", b"v", {"ce_id": b"a-0-1-0", "actor": b"U1"}),
    ],
)
def test_whatever_differs_of_a_record_changes_its_digest(other: bytes) -> None:
    assert digest(PLACE, 1, b"k", b"v", HEADERS) != other


def test_the_form_of_a_record_is_for_ever() -> None:
    """Chains that were written must be computed again by any later version."""
    assert canonical(("t", 1, 2), 3, None, b"v", {"actor": b"U", "other": b"x"}) == (
        b"\0\0\0\1t\0\0\0\x011\0\0\0\x012\0\0\0\x013\xff\xff\xff\xff\0\0\0\1v\0\0\0\5actor\0\0\0\1U"
    )
