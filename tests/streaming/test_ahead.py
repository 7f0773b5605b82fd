"""Under backlog agents work on the next batch while the one before is committed: what they built on may be undone."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streaming import metrics
from tests.streaming.kit import App, Number, app, create, read, rows, running, until, values, write

if TYPE_CHECKING:
    from collections.abc import Callable

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
