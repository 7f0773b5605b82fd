"""The common life: records in, rows and records out, once, over restarts and failures."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from typing import Any

import pytest

import streaming
from streaming.consumer import Consumer
from streaming.context import current_batch
from tests.streaming.kit import (
    App,
    Number,
    app,
    committed,
    create,
    positions,
    read,
    rows,
    running,
    until,
    values,
    write,
)


def adder(name: str, bootstrap: str, partitions: int = 1, **driver: Any) -> App:
    """Adds numbers per key; says each new sum."""
    one = app(name, bootstrap, partitions, **driver)
    numbers = one.topic(f"{name}.in", value_codec=Number())
    sums = one.topic(f"{name}.out", value_codec=Number())
    table = one.Table("sums", value_codec=Number(), default=int, partitions=partitions)

    @one.agent(numbers)
    async def add(stream: Any) -> None:
        async for event in stream.events():
            table[event.key] += event.value
            headers = [("from", b"%d" % event.message.offset)]
            await sums.send(
                key=event.key,
                value=table[event.key],
                headers=headers,
                timestamp=event.message.timestamp,
            )

    one.sums = table
    return one


async def test_sums_outputs_positions_and_offsets_agree(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    one = adder(name, bootstrap, 2)
    async with running(one):
        for n in range(100):
            write(bootstrap, f"{name}.in", [(b"k%d" % (n % 7), b"1")]) if n < 3 else None
        write(bootstrap, f"{name}.in", [(b"k%d" % (n % 7), b"1") for n in range(3, 100)])
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 100)
    changelog = f"{name}-sums-changelog"
    assert sum(map(int, rows(bootstrap, changelog).values())) == 100
    for partition, at in positions(bootstrap, changelog).items():
        assert at == {f"{name}.in": committed(bootstrap, name, f"{name}.in", partition)}


async def test_a_thread_may_look_at_an_app_before_it_starts(bootstrap: str, prefix: str) -> None:
    """Faust makes the consumer for whoever asks for it first."""
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    write(bootstrap, f"{name}.in", [(b"a", b"5")])
    one = adder(name, bootstrap)
    assert not await asyncio.to_thread(lambda: one.consumer.ready)
    async with running(one):
        await until(lambda: values(bootstrap, f"{name}.out") == [b"5"])


class Sees:
    """A watcher that looks at the rows which it is told of."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[bytes, Any]] = {}

    def assigned(self, partition: int, view: Any) -> None:
        self.rows[partition] = dict(view.scan())

    def committed(self, partition: int, changes: Any) -> None: ...

    def revoked(self, partition: int) -> None: ...


async def test_a_watcher_sees_the_rows_however_long_ago_the_last_poll_was(
    bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may be long; who asks from outside is told then that nothing is held."""
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    write(bootstrap, f"{name}.in", [(b"a", b"5")])
    async with running(adder(name, bootstrap)):
        await until(lambda: values(bootstrap, f"{name}.out") == [b"5"])
    begin = Consumer._begin_reading

    def long_ago(self: Consumer, assignment: Any) -> None:
        begin(self, assignment)
        self._last_poll_s -= 60

    monkeypatch.setattr(Consumer, "_begin_reading", long_ago)
    one, sees = adder(name, bootstrap), Sees()
    one.sums.watcher = sees
    async with running(one):
        await until(lambda: sees.rows == {0: {b"a": 5}})


async def test_headers_and_timestamps_pass_through(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    write(bootstrap, f"{name}.in", [(b"a", b"5")], timestamp=1_700_000_000_123)
    async with running(adder(name, bootstrap)):
        [out] = await until(lambda: read(bootstrap, f"{name}.out"))
    assert out.headers() == [("from", b"0")]
    assert out.timestamp()[1] == 1_700_000_000_123
    assert (out.key(), out.value()) == (b"a", b"5")


async def test_a_restart_goes_on_from_the_restored_state(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    for start in (1, 2, 3):
        write(bootstrap, f"{name}.in", [(b"a", b"10")])
        one = adder(name, bootstrap)
        async with running(one):
            await until(lambda start=start: len(values(bootstrap, f"{name}.out")) == start)
    assert values(bootstrap, f"{name}.out") == [b"10", b"20", b"30"]


async def test_one_changelog_record_per_key_and_batch(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    write(bootstrap, f"{name}.in", [(b"a", b"1")] * 500)
    async with running(adder(name, bootstrap)):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 500)
    written = [m for m in read(bootstrap, f"{name}-sums-changelog") if m.key() == b"a"]
    assert len(written) < 50
    assert written[-1].value() == b"500"
    assert positions(bootstrap, f"{name}-sums-changelog") == {0: {f"{name}.in": 500}}


async def test_an_app_that_gathers_makes_few_transactions(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}slow"
    create(bootstrap, f"{name}.in", f"{name}.out")
    async with running(adder(name, bootstrap, gather_s=8.0)):
        write(bootstrap, f"{name}.in", [(b"a", b"1")])
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 1)
        for _ in range(5):
            write(bootstrap, f"{name}.in", [(b"a", b"1")])
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 6)
    changelog = read(bootstrap, f"{name}-sums-changelog")
    assert [m.value() for m in changelog if m.key() == b"a"] == [b"1", b"6"]


async def test_an_app_of_two_sources_restarts_when_only_one_was_used(
    bootstrap: str, prefix: str
) -> None:
    def build() -> App:
        one = app(f"{prefix}two", bootstrap)
        table = one.Table("seen", value_codec=Number(), default=int, partitions=1)
        for source in ("a", "b"):

            async def count(stream: Any) -> None:
                async for key, value in stream.items():
                    table[key] += value

            one.agent(one.topic(f"{prefix}{source}", value_codec=Number()), name=f"count-{source}")(
                count
            )
        return one

    create(bootstrap, f"{prefix}a", f"{prefix}b")
    changelog = f"{prefix}two-seen-changelog"
    async with running(build()):
        write(bootstrap, f"{prefix}a", [(b"k", b"1")])
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"1"})
    async with running(build()):
        write(bootstrap, f"{prefix}b", [(b"k", b"2")])
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"3"})


async def test_an_app_without_tables_keeps_its_positions(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}copy"

    def build() -> App:
        one = app(name, bootstrap)
        target = one.topic(f"{prefix}to")

        @one.agent(one.topic(f"{prefix}from", value_type=bytes, value_serializer="raw"))
        async def copy(stream: Any) -> None:
            async for key, value in stream.items():
                target.put(key=key, value=value)

        return one

    create(bootstrap, f"{prefix}from", f"{prefix}to")
    for n in range(2):
        write(bootstrap, f"{prefix}from", [(b"k", b"v%d" % n)])
        async with running(build()):
            await until(lambda n=n: len(values(bootstrap, f"{prefix}to")) == n + 1)
    assert values(bootstrap, f"{prefix}to") == [b"v0", b"v1"]
    assert positions(bootstrap, f"{name}-positions-changelog") == {0: {f"{prefix}from": 2}}


async def test_two_agents_on_one_table_never_interleave(bootstrap: str, prefix: str) -> None:
    """DRIVER_REVIEW 1: an await between read and write, two topics and an agent twice, one counter."""
    one = app(f"{prefix}pair", bootstrap)
    table = one.Table("counter", value_codec=Number(), default=int, partitions=1)

    def counting(topic: str, name: str, concurrency: int = 1) -> None:
        async def count(stream: Any) -> None:
            async for _ in stream:
                before = table[b"n"]
                await asyncio.sleep(0)
                table[b"n"] = before + 1

        source = one.topic(topic, value_codec=Number())
        one.agent(source, name=name, concurrency=concurrency)(count)

    counting(f"{prefix}a", "a")
    counting(f"{prefix}b", "b", concurrency=2)
    counting(f"{prefix}b", "b again")
    create(bootstrap, f"{prefix}a", f"{prefix}b")
    for topic in ("a", "b"):
        write(bootstrap, prefix + topic, [(b"x", b"1")] * 1000)
    changelog = f"{prefix}pair-counter-changelog"
    async with running(one):
        await until(lambda: positions(bootstrap, changelog).get(0) == {
            f"{prefix}a": 1000, f"{prefix}b": 1000
        })  # fmt: skip
    assert rows(bootstrap, changelog) == {(0, b"n"): b"3000"}


def copier(name: str, prefix: str, bootstrap: str, fails_at: int | None) -> App:
    """Copies numbers partition by partition; raises at one of them."""
    one = app(name, bootstrap, 2)
    source = one.topic(f"{prefix}in", value_codec=Number())
    out = one.topic(f"{prefix}out", value_codec=Number())
    one.batches = []

    @one.agent(source, name="copy")
    async def copy(stream: Any) -> None:
        async for event in stream.events():
            if event.value == fails_at:
                one.batches.append(len(stream.batch.records))
                raise RuntimeError("not yet")
            await out.send(key=event.key, value=event.value, partition=event.message.partition)

    return one


async def test_a_failing_record_is_tried_alone_and_never_skipped(
    bootstrap: str, prefix: str
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out", partitions=2)
    write(bootstrap, f"{prefix}in", [(None, b"%d" % n) for n in range(30)], partition=0)
    write(bootstrap, f"{prefix}in", [(None, b"%d" % n) for n in range(100, 400)], partition=1)
    one = copier(f"{prefix}fails", prefix, bootstrap, 13)
    async with running(one):
        await until(lambda: one.consumer.suspects.stopped)
        # all before it, and all of the other partition
        await until(lambda: len(values(bootstrap, f"{prefix}out")) == 313)
    assert one.batches[1:] == [1, 1, 1, 1]
    async with running(copier(f"{prefix}fails", prefix, bootstrap, None)):
        await until(lambda: len(values(bootstrap, f"{prefix}out")) == 330)
    found = [int(v or 0) for v in values(bootstrap, f"{prefix}out")]
    assert found == [*range(30), *range(100, 400)]


async def test_a_rebalance_ends_back_pressure(bootstrap: str, prefix: str) -> None:
    """What waits behind a record that fails is paused; whoever has the partition next reads it all."""
    name = f"{prefix}paused"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    paused, moved = asyncio.Event(), asyncio.Event()

    def build(instance: str) -> App:
        one = app(name, bootstrap, 2, instance, batch_max=10, attempts=1_000)
        out = one.topic(f"{name}.out", value_codec=Number())

        @one.agent(one.topic(f"{name}.in", value_codec=Number()), name="copy")
        async def copy(stream: Any) -> None:
            async for value in stream:
                if value == 0 and not moved.is_set():
                    if one.consumer.intake.paused:
                        paused.set()
                    raise RuntimeError("not yet")
                out.put(value=value)

        return one

    # the group's lowest member keeps the lowest partition
    write(bootstrap, f"{name}.in", [(None, b"%d" % n) for n in range(400)], partition=0)
    first, second = build("0"), build("1")
    async with running(first):
        await until(paused.is_set)
        async with running(second):
            moved.set()
            await until(lambda: len(values(bootstrap, f"{name}.out")) >= 400)
    found = sorted(int(value or 0) for value in values(bootstrap, f"{name}.out"))
    assert found == list(range(400))


async def test_an_operator_may_give_up_a_record(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out", f"{prefix}fails.dead", partitions=2)
    write(bootstrap, f"{prefix}in", [(None, b"%d" % n) for n in range(30)], partition=0)
    one = copier(f"{prefix}fails", prefix, bootstrap, 13)
    async with running(one):
        await until(lambda: one.consumer.suspects.stopped)
    again = copier(f"{prefix}fails", prefix, bootstrap, 13)
    again.driver = dataclasses.replace(again.driver, skip=frozenset({f"{prefix}in-0@13"}))
    async with running(again):
        await until(lambda: len(values(bootstrap, f"{prefix}out")) == 29)
    assert values(bootstrap, f"{prefix}fails.dead") == [b"13"]


async def test_poison_goes_to_the_dead_letters_once_however_many_agents_read(
    bootstrap: str, prefix: str
) -> None:
    one = app(f"{prefix}dead", bootstrap)
    source = one.topic(f"{prefix}in", value_codec=Number(), dead_letters=f"{prefix}letters")
    out = one.topic(f"{prefix}out", value_codec=Number())
    for n in range(2):

        async def copy(stream: Any) -> None:
            async for value in stream:
                await out.send(value=value)

        one.agent(source, name=f"copy-{n}")(copy)
    create(bootstrap, f"{prefix}in", f"{prefix}out", f"{prefix}letters")
    write(
        bootstrap, f"{prefix}in", [(b"k", b"1"), (b"k", b"xx"), (b"k", b"2")], headers={"h": b"1"}
    )
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{prefix}out")) == 4)
    [letter] = read(bootstrap, f"{prefix}letters")
    headers = dict(letter.headers())
    assert (letter.key(), letter.value(), headers["h"]) == (b"k", b"xx", b"1")
    assert headers["dead_letter_topic"] == f"{prefix}in".encode()
    assert headers["dead_letter_offset"] == b"1"
    assert b"not a number" in headers["dead_letter_reason"]


async def test_other_errors_never_go_to_the_dead_letters(bootstrap: str, prefix: str) -> None:
    class Broken(Number):
        def loads(self, data: bytes) -> int:
            return int(data)  # ValueError is a bug, not poison

    one = app(f"{prefix}bug", bootstrap)
    source = one.topic(f"{prefix}in", value_codec=Broken(), dead_letters=f"{prefix}letters")
    seen: list[int] = []

    @one.agent(source)
    async def agent(stream: Any) -> None:
        async for value in stream:
            seen.append(value)

    create(bootstrap, f"{prefix}in", f"{prefix}letters")
    write(bootstrap, f"{prefix}in", [(b"k", b"1"), (b"k", b"xx"), (b"k", b"2")])
    async with running(one):
        await until(lambda: one.consumer.suspects.stopped)
    assert committed(bootstrap, f"{prefix}bug", f"{prefix}in") == 1
    assert read(bootstrap, f"{prefix}letters") == []
    assert 2 not in seen


async def test_tables_are_read_outside_of_agents_only_where_they_are_held(
    bootstrap: str, prefix: str
) -> None:
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    one = adder(name, bootstrap)
    write(bootstrap, f"{name}.in", [(b"a", b"1"), (b"b", b"2")])
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 2)
        view = one.sums.partition(0)
        await until(lambda: len(view) == 2)
        assert view.get(b"b") == 2
        assert list(view.scan(b"a")) == [(b"a", 1)]
        with pytest.raises(streaming.NotOwned):
            one.sums.partition(5)
        with pytest.raises(streaming.Misuse):
            one.sums[b"a"]
        with pytest.raises(streaming.Misuse):
            one.sums[b"a"] = 1
    with pytest.raises(streaming.NotOwned):
        view.get(b"a")


async def test_a_view_of_an_earlier_assignment_is_refused(bootstrap: str, prefix: str) -> None:
    """It remembers rows as they were: what was committed since it would never see."""
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    one = adder(name, bootstrap)
    write(bootstrap, f"{name}.in", [(b"a", b"1")])
    async with running(one):
        await until(lambda: one.consumer.ready and len(values(bootstrap, f"{name}.out")) == 1)
        view, assignment = one.sums.partition(0), one.consumer._assignment
        await until(lambda: view.get(b"a") == 1)
        async with running(adder(name, bootstrap, instance="1"), ready=False):
            await until(lambda: one.consumer._assignment is not assignment)
        await until(lambda: one.consumer.ready and one.consumer.holds(0))
        write(bootstrap, f"{name}.in", [(b"a", b"1")])
        await until(lambda: one.sums.partition(0).get(b"a") == 2)
        with pytest.raises(streaming.NotOwned):
            view.get(b"a")


async def test_slow_agents_are_given_less_at_once(bootstrap: str, prefix: str) -> None:
    """And are not held to be stuck, whatever a cycle takes in all."""
    create(bootstrap, f"{prefix}in", partitions=2)
    one = app(f"{prefix}slow", bootstrap, 2, cycle_timeout_s=0.5)
    cycles: Counter[Any] = Counter()

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            await asyncio.sleep(0.02)
            cycles[current_batch().cycle] += 1

    for partition in (0, 1):
        write(bootstrap, f"{prefix}in", [(b"k", b"1")] * 100, partition)
    async with running(one):
        await until(lambda: cycles.total() == 200 or one.failure)
        assert one.failure is None
        first = set(cycles)
        write(bootstrap, f"{prefix}in", [(b"k", b"1")] * 100, 0)
        await until(lambda: cycles.total() == 300 or one.failure)
    assert all(count <= 60 for cycle, count in cycles.items() if cycle not in first)
