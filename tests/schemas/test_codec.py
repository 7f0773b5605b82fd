"""What is written can be read; what can't be read is said to be; both as fastavro does it."""

from __future__ import annotations

import io
import json
import random
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.decider import Tick
from domain.ledger import move
from domain.saga import AccountDebited, Balance, Order, Posting, Rail, Step, TransactionType
from schemas.codec import HEADER, Codec, header
from schemas.errors import SchemaMistake, UnknownSchema, Unreadable
from schemas.generated import LONGS, read_long
from schemas.records import names, records, schema_id, text, types, whole
from streaming.errors import Poison
from tests.schemas.things import things

ALL = sorted(types())
RELAXED = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)

ORDER = Order(
    transaction_id="0c2b8e1e-9d0c-5c56-a0a4-0a0b6d7a7d01",
    type=TransactionType.TRANSFER,
    amount_minor=10_500,
    currency="USD",
    source_account_id="alice",
    destination_account_id="bob",
    owner_id="user-alice",
    actor_id="user-alice",
    privileged=False,
    rail=Rail.BOOK,
    created_ms=1_764_000_000_000,
    deadline_ms=1_764_000_030_000,
)
DEBITED = AccountDebited(
    order=ORDER,
    postings=move("USD", 10_500, "alice", "clearing"),
    balances=(
        Balance(
            account_id="alice", currency="USD", before_minor=20_000, after_minor=9_500, version=3
        ),
    ),
    at_ms=1_764_000_000_123,
    steps=(Step(step="debit", service="account", outcome="débité", at_ms=1_764_000_000_123),),
)


def fastavro_body(value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed(names()[type(value)]), asdict(value))
    return out.getvalue()


@cache
def parsed(name: str) -> Any:
    return fastavro.parse_schema(whole(name))


@pytest.mark.parametrize("name", ALL)
def test_written_as_fastavro_and_read_back_whole_or_not_at_all(name: str) -> None:
    codec, first = Codec(), header(schema_id(whole(name)))

    @RELAXED
    @given(things(types()[name]))
    def law(value: Any) -> None:
        data = codec.encode(value)
        assert data == first + fastavro_body(value)
        back = codec.decode(data)
        assert back == value
        assert type(back) is type(value)
        assert codec.type_of(data) is type(value)
        cut = [data[:end] for end in range(len(data))]
        for other in (*cut, *(data + extra for extra in (b"\0", b"\2", b"extra"))):
            assert unreadable(codec, other), other

    law()


def unreadable(codec: Codec, data: bytes) -> bool:
    try:
        codec.decode(data)
    except Unreadable:
        return True
    return False


@pytest.mark.parametrize("name", ALL)
def test_garbage_is_unreadable_or_an_object_and_nothing_else(name: str) -> None:
    codec, first, chance = Codec(), header(schema_id(whole(name))), random.Random(name)
    for _ in range(200):
        body = chance.randbytes(chance.randrange(81))
        try:
            value = codec.decode(first + body)
        except Unreadable:
            continue
        assert codec.decode(codec.encode(value)) == value, body


def test_one_byte_changed_never_raises_anything_else() -> None:
    codec = Codec()
    good = codec.encode(DEBITED)

    @settings(RELAXED, max_examples=500)
    @given(st.integers(0, len(good) - 1), st.integers(0, 255))
    def law(at: int, byte: int) -> None:
        with suppress(Unreadable):
            codec.decode(good[:at] + bytes((byte,)) + good[at + 1 :])

    law()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no bytes"),
        (None, "no bytes"),
        (b"\0", "not a zero and a schema id"),
        (b"\0\0\0\0", "not a zero and a schema id"),
        (b'{"transaction_id": "a"}', "not a zero and a schema id"),
        (b"\1" + Codec().encode(DEBITED)[1:], "not a zero and a schema id"),
        (b"\0\0\0\0\7abc", "no schema has the id 7"),
        (Codec().encode(DEBITED)[:HEADER], "no AccountDebited"),
        (Codec().encode(DEBITED) + b"!", "1 bytes too many"),
        (header(Codec().id_of(Tick)) + LONGS[1 << 40], "no Tick"),  # a block of 2^40 items
        (header(Codec().id_of(Tick)) + b"\2\1", "a length is negative"),
        (header(Codec().id_of(Tick)) + b"\xff" * 30, "no Tick"),  # a number that never ends
        (header(Codec().id_of(Tick)) + b"\2\4\xff\xff\0", "no Tick"),  # no UTF-8
    ],
)
def test_the_reason_is_said(data: Any, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence) as caught:
        Codec().decode(data)
    assert isinstance(caught.value, Poison)


def test_an_unknown_word_is_unreadable() -> None:
    data = Codec().encode(DEBITED).replace(b"\x10transfer", b"\x10transfor")
    with pytest.raises(Unreadable, match="transfor"):
        Codec().decode(data)


def test_what_no_schema_describes_is_a_bug() -> None:
    with pytest.raises(TypeError, match="no schema describes"):
        Codec().encode(object())
    with pytest.raises(OverflowError):
        Codec().encode(replace(DEBITED, at_ms=1 << 63))


def test_objects_read_are_as_good_as_objects_made() -> None:
    back = Codec().decode(Codec().encode(DEBITED))
    assert hash(back) == hash(DEBITED)
    assert type(back.order) is Order
    assert type(back.postings[0]) is Posting
    assert back.order.rail is Rail.BOOK
    assert replace(back, at_ms=1) == replace(DEBITED, at_ms=1)
    with pytest.raises(AttributeError):
        back.at_ms = 1


@given(things(int))
@settings(RELAXED, max_examples=500)
def test_longs(value: int) -> None:
    assert read_long(b"x" + LONGS[value] + b"y", 1) == (value, 1 + len(LONGS[value]))


def test_blocks_with_sizes_as_other_writers_make_them() -> None:
    """Java may write a negative count and the block's size in bytes after it, and several blocks."""
    body = LONGS[-1] + LONGS[2] + b"\2a" + LONGS[1] + b"\2b" + b"\0"
    assert Codec().decode(header(Codec().id_of(Tick)) + body) == Tick(due=("a", "b"))


# other versions of our schemas

NAME = names()[Tick]
NEWER = json.loads(text(NAME))
NEWER["fields"] = [
    {"name": "urgent", "type": "boolean", "default": False},
    *NEWER["fields"],
    {"name": "limit", "type": ["null", "long"], "default": None},
]


def newer_bytes(**values: Any) -> bytes:
    out = io.BytesIO(header(schema_id(NEWER)))
    out.seek(HEADER)
    fastavro.schemaless_writer(out, fastavro.parse_schema(NEWER), values)
    return out.getvalue()


def test_a_newer_writer_is_resolved_once_its_schema_is_found() -> None:
    data = newer_bytes(urgent=True, due=["due/1"], limit=5)
    with pytest.raises(UnknownSchema):
        Codec().decode(data)
    asked: list[int] = []

    def lookup(id_: int) -> str | None:
        asked.append(id_)
        return json.dumps(NEWER)

    codec = Codec(lookup)
    assert codec.type_of(data) is Tick
    assert [codec.decode(data) for _ in range(3)] == [Tick(due=("due/1",))] * 3
    assert set(asked) == {schema_id(NEWER)}
    assert len(asked) == 2  # once for the type, once for the reader, never again


def test_a_newer_writers_bytes_are_checked_too() -> None:
    codec = Codec(lambda _: json.dumps(NEWER))
    data = newer_bytes(urgent=True, due=["due/1"], limit=5)
    for end in range(HEADER, len(data)):
        with pytest.raises(Unreadable):
            codec.decode(data[:end])
    with pytest.raises(Unreadable, match="too many"):
        codec.decode(data + b"\0")


def test_an_older_writer_gets_our_defaults() -> None:
    """Older versions come from `released/`; here one is handed in as the log would."""
    older = json.loads(text(names()[Order]))
    older["fields"] = [f for f in older["fields"] if f["name"] != "source_account_id"]
    order = {k: v for k, v in asdict(ORDER).items() if k != "source_account_id"}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(older), order)
    codec = Codec(lambda _: json.dumps(older))
    back = codec.decode(header(schema_id(older)) + out.getvalue())
    assert back == replace(ORDER, source_account_id=None)


def test_a_schema_of_nobody_is_unreadable() -> None:
    stranger = {"type": "record", "name": "Stranger", "namespace": "elsewhere", "fields": []}
    with pytest.raises(Unreadable, match=r"elsewhere\.Stranger is no record of ours"):
        Codec(lambda _: json.dumps(stranger)).decode(header(5))


def test_a_lookup_that_answers_no_schema_is_a_mistake() -> None:
    broken = {"type": "record", "name": "Tick", "namespace": "streambank.saga", "fields": [{}]}
    with pytest.raises((SchemaMistake, Unreadable)):
        Codec(lambda _: json.dumps(broken)).decode(header(5) + b"\0")


def test_ids_are_different() -> None:
    assert len({schema_id(whole(name)) for name in records()}) == len(records())
