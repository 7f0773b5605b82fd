"""Outputs and rows that can never be written: only their record is isolated, all healthy ones are processed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaException

from tests.streaming.kit import (
    Number,
    app,
    committed,
    create,
    delete,
    rows,
    running,
    until,
    values,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BAD = 40


class Padded(Number):
    """The bad number's row is as large as two megabytes."""

    def dumps(self, value: int) -> bytes:
        return b"%d" % value + b" " * (2_000_000 if value == BAD else 0)


class Broken(Number):
    def dumps(self, value: int) -> bytes:
        if value == BAD:
            raise RuntimeError("can't be encoded")
        return b"%d" % value


def too_large(topics: dict[str, Any], table: Any, value: int) -> None:
    topics["out"].put(value=b"x" * 2_000_000)


def too_large_for_any_broker(topics: dict[str, Any], table: Any, value: int) -> None:
    topics["out"].put(value=b"x" * 3_000_000)


def a_client_of_its_own_fails(topics: dict[str, Any], table: Any, value: int) -> None:
    raise KafkaException("schema not found")  # text, where Kafka's own carry an error


def too_large_for_the_topic(topics: dict[str, Any], table: Any, value: int) -> None:
    topics["small"].put(value=b"x" * 5_000)


def no_key_for_a_compacted_topic(topics: dict[str, Any], table: Any, value: int) -> None:
    topics["compacted"].put(value=b"x")


def missing_topic(topics: dict[str, Any], table: Any, value: int) -> None:
    topics["missing"].put(value=b"x")


def missing_partition(topics: dict[str, Any], table: Any, value: int) -> None:
    topics["out"].put(value=b"x", partition=99)


def row_too_large(topics: dict[str, Any], table: Any, value: int) -> None:
    table[b"k"] = value


def row_not_encodable(topics: dict[str, Any], table: Any, value: int) -> None:
    table[b"k"] = value


def told_while_the_rest_is_written(topics: dict[str, Any], table: Any, value: int) -> None:
    too_large_for_the_topic(topics, table, value)
    for _ in range(200_000):  # the broker's refusal makes one of these writes fail
        topics["out"].put(value=b"noise")


CASES = (
    too_large, too_large_for_any_broker, a_client_of_its_own_fails, too_large_for_the_topic,
    no_key_for_a_compacted_topic, missing_topic, missing_partition,
    row_too_large, row_not_encodable, told_while_the_rest_is_written,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("on_error", ["stop", "dead-letter"])
async def test_only_the_record_is_isolated(
    bootstrap: str, prefix: str, case: Callable[..., None], on_error: str
) -> None:
    names = {name: f"{prefix}{name}" for name in ("in", "out", "small", "compacted", "missing")}
    create(bootstrap, names["in"], names["out"], f"{prefix}dead", partitions=2)
    create(bootstrap, names["small"], max_message_bytes="2000")
    create(bootstrap, names["compacted"], cleanup_policy="compact")
    one = app(f"{prefix}bad", bootstrap, 2, attempts=2)
    source = one.topic(
        names["in"], value_codec=Number(), on_error=on_error, dead_letters=f"{prefix}dead"
    )
    topics = {
        name: one.topic(topic, value_type=bytes, value_serializer="raw")
        for name, topic in names.items()
    }
    codec = Broken() if case is row_not_encodable else Padded()
    table = one.Table("rows", value_codec=codec, default=int, partitions=2)

    @one.agent(source)
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            table[event.key] += 1000
            topics["out"].put(key=event.key, value=b"%d" % event.value)
            if event.value == BAD:
                case(topics, table, event.value)

    write(bootstrap, names["in"], [(b"a", b"%d" % n) for n in range(60)], partition=0)
    write(bootstrap, names["in"], [(b"b", b"%d" % n) for n in range(100, 300)], partition=1)
    first = 40 if on_error == "stop" else 59
    async with running(one):
        await until(lambda: len(values(bootstrap, names["out"])) == 200 + first, 60)
        if on_error == "stop":
            await until(lambda: one.consumer.suspects.stopped)
            assert committed(bootstrap, f"{prefix}bad", names["in"], 0) == BAD
        assert one.failure is None
    found = sorted(int(value or 0) for value in values(bootstrap, names["out"]))
    healthy = [n for n in range(60) if n < BAD or (n > BAD and on_error == "dead-letter")]
    assert found == [*healthy, *range(100, 300)]
    kept = rows(bootstrap, f"{prefix}bad-rows-changelog")  # no aborted try left anything in them
    assert kept[0, b"a"] == b"%d" % (1000 * len(healthy))
    assert kept[1, b"b"] == b"200000"
    assert values(bootstrap, f"{prefix}dead") == ([b"40"] if on_error == "dead-letter" else [])


async def test_a_record_as_large_as_a_topic_takes_fits_its_dead_letter(
    bootstrap: str, prefix: str
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    create(bootstrap, f"{prefix}dead", max_message_bytes=str(2 << 20))
    one = app(f"{prefix}large", bootstrap, attempts=2)
    source = one.topic(f"{prefix}in", value_codec=Number(), dead_letters=f"{prefix}dead")
    out = one.topic(f"{prefix}out", value_codec=Number())

    @one.agent(source)
    async def agent(stream: Any) -> None:
        async for value in stream:
            out.put(value=value)

    large = b"x" * 999_900
    write(bootstrap, f"{prefix}in", [(b"a", b"1"), (b"a", large), (b"a", large), (b"a", b"2")])
    async with running(one):
        await until(lambda: values(bootstrap, f"{prefix}out") == [b"1", b"2"])
    assert values(bootstrap, f"{prefix}dead") == [large] * 2


async def test_dead_letters_that_cannot_be_written_stop_the_partition(
    bootstrap: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out", partitions=2)
    one = app(f"{prefix}bad", bootstrap, 2, attempts=2)
    source = one.topic(f"{prefix}in", value_codec=Number(), dead_letters=f"{prefix}missing")
    out = one.topic(f"{prefix}out", value_codec=Number())

    @one.agent(source)
    async def agent(stream: Any) -> None:
        async for value in stream:
            out.put(value=value)

    async with running(one):
        delete(bootstrap, f"{prefix}missing")  # made at the start
        write(bootstrap, f"{prefix}in", [(b"a", b"1"), (b"a", b"x"), (b"a", b"2")], partition=0)
        write(bootstrap, f"{prefix}in", [(b"b", b"3")] * 10, partition=1)
        await until(lambda: one.consumer.suspects.stopped, 60)
        await until(lambda: len(values(bootstrap, f"{prefix}out")) == 11)
        assert one.failure is None
    assert committed(bootstrap, f"{prefix}bad", f"{prefix}in", 0) == 1
    assert f"{prefix}missing: " in caplog.text  # which topic it is
