"""How far a group is behind: records that it was not yet given, and nothing else that takes an offset."""

from __future__ import annotations

import asyncio
from typing import Any

from confluent_kafka import Producer

from streaming import metrics
from tests.streaming.kit import App, Number, app, create, running, until, write
from tests.streaming.test_cycle import adder

PARTITIONS = 3


def lag(topic: str) -> dict[int, float]:
    """What the metric says of a topic, by partition."""
    return {
        int(sample.labels["partition"]): sample.value
        for family in metrics.LAG.collect()
        for sample in family.samples
        if sample.labels["topic"] == topic
    }


def transactions(bootstrap: str, topic: str, *ends: str) -> None:
    """One for each, over all partitions, of a record a partition; it ends by `commit` or `abort`."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for end in ends:
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            producer.produce(topic, key=b"k", value=b"1", partition=partition)
        producer.flush(10)
        getattr(producer, f"{end}_transaction")(10)


NOTHING = dict.fromkeys(range(PARTITIONS), 0.0)


async def test_who_has_read_all_is_not_behind(bootstrap: str, prefix: str) -> None:
    """The marks of transactions, and what was aborted, lie behind the last record."""
    name = f"{prefix}adder"
    source = f"{name}.in"
    create(bootstrap, source, f"{name}.out", partitions=PARTITIONS)
    await asyncio.to_thread(transactions, bootstrap, source, "commit", "abort", "abort")
    one = adder(name, bootstrap, PARTITIONS)
    async with running(one):
        await until(lambda: lag(source) == NOTHING)
        await asyncio.to_thread(transactions, bootstrap, source, "commit")
        await until(lambda: all(one.consumer.positions(n)[source] == 7 for n in NOTHING))
        await until(lambda: lag(source) == NOTHING)
    assert lag(source) == {}
    again = adder(name, bootstrap, PARTITIONS)
    async with running(again):  # reads nothing that it could count from
        await until(lambda: lag(source) == NOTHING)


async def test_what_is_read_and_not_committed_is_behind(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}slow"
    source = f"{name}.in"
    create(bootstrap, source, partitions=PARTITIONS)
    one, held = holding(name, bootstrap)
    async with running(one):
        await until(lambda: lag(source) == NOTHING)
        write(bootstrap, source, [(b"k", b"1")] * 4, partition=1)
        await until(lambda: lag(source) == {**NOTHING, 1: 4.0})
        held.set()
        await until(lambda: lag(source) == NOTHING)


def holding(name: str, bootstrap: str) -> tuple[App, asyncio.Event]:
    """An app that fails at each record until it is let go."""
    one = app(name, bootstrap, PARTITIONS, attempts=1_000)
    held = asyncio.Event()

    @one.agent(one.topic(f"{name}.in", value_codec=Number()))
    async def read(stream: Any) -> None:
        async for _ in stream:
            assert held.is_set()

    return one, held
