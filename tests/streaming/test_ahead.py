"""Under backlog agents work on the next batch while the one before is committed: what they built on may be undone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streaming import metrics
from streaming.consumer import Consumer
from streaming.crashes import Crashes
from streaming.errors import Stuck
from tests.streaming.kit import (
    App,
    Number,
    app,
    committed,
    create,
    read,
    rows,
    running,
    until,
    values,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORDS = 6_000
KEYS = 7
BATCH = 100


class Changing(Number):
    """A codec that does not promise that its values stay as they are."""

    immutable = False


class Refusing:
    """The commit of each n-th transaction is refused."""

    def __init__(self, each: int) -> None:
        self.each, self.passes, self.refused = each, 0, 0

    def __call__(self, point: str) -> None:
        if point != "before commit":
            return
        self.passes += 1
        if not self.passes % self.each:
            self.refused += 1
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "refused", retriable=True))


def counter(
    name: str, bootstrap: str, codec: Any, pause: Callable[[], float] | None = None, **driver: Any
) -> App:
    """Counts by key; says each count, and begins a key anew after 50."""
    one = app(name, bootstrap, 2, **{"batch_max": BATCH, **driver})
    source = one.topic(f"{name}.in", value_codec=Number())
    said = one.topic(f"{name}.out", value_codec=Number())
    table = one.Table("counts", value_codec=codec, default=int, partitions=2)

    @one.agent(source)
    async def count(stream: Any) -> None:
        async for key, _ in stream.items():
            table[key] += 1
            if pause is not None:
                await asyncio.sleep(pause())
            said.put(key=key, value=table[key])
            if table[key] == 50:
                del table[key]

    return one


def ahead(name: str) -> float:
    return float(metrics.AHEAD.labels(name)._value.get())


def expected(count: int) -> Counter[tuple[bytes, int]]:
    """How often each count is said of each key."""
    per_key = Counter(b"k%d" % (n % KEYS) for n in range(count))
    return Counter((key, n % 50 + 1) for key, of in per_key.items() for n in range(of))


def said(bootstrap: str, name: str) -> Counter[tuple[bytes, int]]:
    return Counter((m.key(), int(m.value())) for m in read(bootstrap, f"{name}.out"))


def check(bootstrap: str, name: str, count: int) -> None:
    assert said(bootstrap, name) == expected(count)
    left = dict.fromkeys((b"k%d" % n for n in range(KEYS)), 0)
    for (_, key), value in rows(bootstrap, f"{name}-counts-changelog").items():
        left[key] += int(value)
    per_key = Counter(b"k%d" % (n % KEYS) for n in range(count))
    assert left == {key: of % 50 for key, of in per_key.items()}


def fill(bootstrap: str, name: str, count: int) -> None:
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    write(bootstrap, f"{name}.in", [(b"k%d" % (n % KEYS), b"1") for n in range(count)])


@pytest.mark.parametrize("codec", [Number, Changing])
async def test_rows_that_are_not_committed_yet_are_seen(
    bootstrap: str, prefix: str, codec: Callable[[], Any]
) -> None:
    name = f"{prefix}counter"
    fill(bootstrap, name, RECORDS)
    one = counter(name, bootstrap, codec())
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == RECORDS)
    assert ahead(name) > RECORDS / BATCH / 4
    check(bootstrap, name, RECORDS)


@pytest.mark.parametrize("codec", [Number, Changing])
async def test_a_refused_commit_undoes_what_was_built_on_it(
    bootstrap: str, prefix: str, codec: Callable[[], Any]
) -> None:
    name = f"{prefix}counter"
    fill(bootstrap, name, RECORDS)
    refusing = Refusing(each=5)
    one = counter(name, bootstrap, codec(), lambda: 0.0, faults=refusing)
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == RECORDS)
        assert one.failure is None
    assert refusing.refused > 5
    assert ahead(name) > RECORDS / BATCH / 4
    check(bootstrap, name, RECORDS)


async def test_an_agent_that_fails_ahead_fails_its_own_batch_alone(
    bootstrap: str, prefix: str
) -> None:
    name = f"{prefix}failing"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    one = app(name, bootstrap, 2, batch_max=BATCH)
    source = one.topic(f"{name}.in", value_codec=Number())
    out = one.topic(f"{name}.out", value_codec=Number())
    table = one.Table("sums", value_codec=Number(), default=int, partitions=2)
    tries: Counter[int] = Counter()

    @one.agent(source)
    async def add(stream: Any) -> None:
        async for key, value in stream.items():
            table[key] += value
            out.put(key=key, value=table[key])
            tries[value] += 1
            if not value % 500 and tries[value] < 3:
                raise RuntimeError("not yet")

    write(bootstrap, f"{name}.in", [(b"a", b"%d" % n) for n in range(1, RECORDS + 1)])
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == RECORDS, 80)
        assert one.failure is None
    assert ahead(name) > 0
    sums = [int(value or 0) for value in values(bootstrap, f"{name}.out")]
    assert sums == [n * (n + 1) // 2 for n in range(1, RECORDS + 1)]


async def test_a_rebalance_between_drops_what_was_worked_on_ahead(
    bootstrap: str, prefix: str
) -> None:
    name = f"{prefix}counter"
    count = 2 * RECORDS
    fill(bootstrap, name, count)
    first = counter(name, bootstrap, Number(), lambda: 0.0002)
    async with running(first):
        for instance in ("1", "2", "3"):
            other = counter(name, bootstrap, Number(), lambda: 0.0002, instance=instance)
            async with running(other):
                await asyncio.sleep(0.5)
            await until(lambda: first.consumer.ready)
        await until(lambda: len(values(bootstrap, f"{name}.out")) == count, 120)
        assert first.failure is None
    assert ahead(name) > 5
    check(bootstrap, name, count)


async def test_a_list_ends_with_the_batch_that_was_given_up(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}lists"
    fill(bootstrap, name, RECORDS // 2)
    refusing = Refusing(each=4)
    one = app(name, bootstrap, 2, batch_max=BATCH, faults=refusing)
    out = one.topic(f"{name}.out", value_codec=Number())
    table = one.Table("counts", value_codec=Number(), default=int, partitions=2)

    async def late(value: int) -> int:
        await asyncio.sleep(0.0002)  # the refused commit is told while a list is collected
        return value

    @one.agent(one.topic(f"{name}.in", value_codec=Number()))
    async def count(stream: Any) -> None:
        stream.add_processor(late)
        async for numbers in stream.take(BATCH, within=1):
            table[b"n"] += len(numbers)
            for value in numbers:
                out.put(value=value)

    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) >= RECORDS // 2)
        await asyncio.sleep(0.5)
        assert one.failure is None
    assert refusing.refused > 2
    assert ahead(name) > 2
    assert len(values(bootstrap, f"{name}.out")) == RECORDS // 2
    assert sum(map(int, rows(bootstrap, f"{name}-counts-changelog").values())) == RECORDS // 2


async def test_a_transaction_that_is_refused_ends_before_the_agents_do(
    bootstrap: str, prefix: str
) -> None:
    """Whoever reads read_committed waits for its end."""
    name = f"{prefix}slow"
    fill(bootstrap, name, 10 * BATCH)
    times: dict[str, float] = {}
    slow = asyncio.Event()

    def fault(point: str) -> None:
        times.setdefault("passes", 0)
        if point == "before commit" and "refused" not in times:
            times["passes"] += 1
            if times["passes"] == 3:
                times["refused"] = time.monotonic()
                slow.set()
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "refused", retriable=True))
        if point == "aborted":
            times.setdefault("aborted", time.monotonic())

    one = app(name, bootstrap, 2, batch_max=BATCH, faults=fault)
    out = one.topic(f"{name}.out", value_codec=Number())

    @one.agent(one.topic(f"{name}.in", value_codec=Number()))
    async def copy(stream: Any) -> None:
        async for value in stream:
            await asyncio.sleep(0.002)
            if slow.is_set():
                slow.clear()
                await asyncio.sleep(3)
            out.put(value=value)

    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 10 * BATCH)
        assert one.failure is None
    assert ahead(name) > 2
    assert times["aborted"] - times["refused"] < 1.5


async def test_a_stop_while_partitions_are_taken_away_is_no_failure(
    bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that were read in the poll that told of it are not worked on: their state is gone."""
    name = f"{prefix}stops"
    fill(bootstrap, name, 2 * RECORDS)
    # one that gathers never works ahead: it takes its records in the very poll that tells of the rebalance
    first = counter(name, bootstrap, Number(), lambda: 0.003, gather_s=0.01)
    revoke, revoked = Consumer._kafka_revoked, threading.Event()

    def busy(self: Consumer, *args: Any) -> None:
        if self is first.consumer and any(self.intake.buffers.values()) and not revoked.is_set():
            self.loop.call_soon_threadsafe(time.sleep, 0.3)  # as an agent that computes
            self._ending = True
            revoked.set()
        revoke(self, *args)

    monkeypatch.setattr(Consumer, "_kafka_revoked", busy)
    async with running(first):
        await until(lambda: values(bootstrap, f"{name}.out"))
        for n in range(1, 10):
            other = counter(name, bootstrap, Number(), lambda: 0.003, instance=f"{n}")
            async with running(other, ready=False):
                await asyncio.sleep(1)
            if revoked.is_set():
                break
        await first.stop()
        assert first.failure is None
    assert revoked.is_set()
    async with running(counter(name, bootstrap, Number())):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 2 * RECORDS)
    check(bootstrap, name, 2 * RECORDS)


async def test_an_agent_that_hangs_ahead_is_said_to_hang_where_it_does(
    bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    """The transaction that was being committed meanwhile stands; the next start tries the record alone."""
    name = f"{prefix}hangs"
    create(bootstrap, f"{name}.in", f"{name}.out")
    write(bootstrap, f"{name}.in", [(b"a", b"%d" % n) for n in range(10 * BATCH)])
    at = 3 * BATCH + BATCH // 2

    def build(hangs: bool) -> App:
        one = app(name, bootstrap, batch_max=BATCH, cycle_timeout_s=1.0, state_dir=tmp_path)
        out = one.topic(f"{name}.out", value_codec=Number())
        table = one.Table("sums", value_codec=Number(), default=int, partitions=1)

        @one.agent(one.topic(f"{name}.in", value_codec=Number()), name="add")
        async def add(stream: Any) -> None:
            async for key, value in stream.items():
                if hangs and value == at:
                    await asyncio.Event().wait()
                table[key] += 1
                out.put(key=key, value=table[key])

        return one

    one = build(hangs=True)
    async with running(one):
        await until(lambda: one.failure)
        assert isinstance(one.failure, Stuck)
        assert committed(bootstrap, name, f"{name}.in") >= 3 * BATCH
        assert Crashes(one.driver.crash_file(name)).tries == {f"{name}.in-0@{at}": 1}
    assert ahead(name) > 0
    async with running(build(hangs=False)):
        await until(lambda: len(values(bootstrap, f"{name}.out")) >= 10 * BATCH)
    found = [int(value or 0) for value in values(bootstrap, f"{name}.out")]
    assert found == list(range(1, 10 * BATCH + 1))
