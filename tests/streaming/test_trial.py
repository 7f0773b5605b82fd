"""`agent.test_context`: an agent without a broker, its rows and outputs as after a commit or an abort."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import Any

import faust
import pytest

import streaming
from tests.streaming.kit import App, Number, app


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client of Kafka is made, and Python opens no connection."""

    def refuse(*args: Any, **kw: Any) -> Any:
        raise AssertionError("a test_context went to the network")

    for client in (
        "consumer.KafkaConsumer",
        "consumer.Admin",
        "writer.KafkaProducer",
        "writer.Admin",
        "transport.KafkaProducer",
        "transport.Admin",
    ):
        monkeypatch.setattr(f"streaming.{client}", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


class Bank:
    """Adds numbers per key and says each sum; fails at 13, after it wrote."""

    def __init__(self, read: str = "events") -> None:
        self.app: App = app("trial", "127.0.0.1:1", 4)
        self.numbers = self.app.topic("numbers", value_codec=Number(), dead_letters="letters")
        self.sums = self.app.topic("sums", value_codec=Number())
        self.table = self.app.Table("sums", value_codec=Number(), default=int, partitions=4)

        @self.app.agent(self.numbers, name="add")
        async def add(stream: Any) -> None:
            if read == "take":
                async for taken in stream.take(10, within=1):
                    for value in taken:
                        self.add(b"all", value, {})
            elif read == "items":
                async for key, value in stream.items():
                    self.add(key, value, {})
            else:
                async for event in stream.events():
                    self.add(event.key, event.value, event.headers)

        self.agent = add

    def add(self, key: bytes, value: int, headers: Any) -> None:
        self.table[key] += value
        self.sums.put(key=key, value=self.table[key], headers=headers)
        if value == 13:
            raise RuntimeError("not 13")


async def test_rows_and_outputs_of_what_was_put() -> None:
    bank = Bank()
    async with bank.agent.test_context() as agent:
        await agent.put(5, key=b"anna", headers={"h": b"1"})
        event = await agent.put(b"7", key="anna", timestamp=1_700_000_000.5)
        assert bank.table.partition(0).get(b"anna") == 12
        assert agent.values(bank.sums) == [5, 12]
        first, second = agent.sent
        assert (first.topic, first.key, first.value) == ("sums", b"anna", b"5")
        assert (first.headers, second.headers) == ([("h", b"1")], [])
        assert (event.key, event.message.offset) == (b"anna", 1)
        assert event.message.timestamp == 1_700_000_000.5


@pytest.mark.parametrize("read", ["events", "items", "take"])
async def test_a_failure_is_raised_and_nothing_of_it_stays(read: str) -> None:
    bank = Bank(read)
    key = b"all" if read == "take" else b"anna"
    async with bank.agent.test_context() as agent:
        await agent.put(1, key=b"anna")
        for _ in range(3):
            with pytest.raises(RuntimeError, match="not 13"):
                await agent.put(13, key=b"anna")
            assert bank.table.partition(0).get(key) == 1
        await agent.put(2, key=b"anna")
        assert bank.table.partition(0).get(key) == 3
        assert agent.values(bank.sums) == [1, 3]


async def test_poison_goes_to_the_dead_letters() -> None:
    bank = Bank()
    async with bank.agent.test_context() as agent:
        await agent.put(b"x", key=b"anna")
        [letter] = agent.sent
        assert (letter.topic, letter.key, letter.value) == ("letters", b"anna", b"x")
        assert dict(letter.headers)["dead_letter_offset"] == b"0"
        await agent.put(1, key=b"anna")
        assert agent.values(bank.sums) == [1]


async def test_each_context_is_fresh_and_leaves_the_app_as_it_was() -> None:
    bank = Bank()
    before = {name: bank.app.__dict__.get(name) for name in ("_consumer", "_producer", "topics")}
    for _ in range(2):
        async with bank.agent.test_context() as agent:
            await agent.put(5, key=b"anna", partition=3)
            assert bank.table.partition(3).get(b"anna") == 5
            with pytest.raises(streaming.Misuse, match="one at a time"):
                async with bank.agent.test_context():
                    pass
            await agent.put(5, key=b"anna", partition=3)
    for name, value in before.items():
        assert bank.app.__dict__.get(name) is value
    assert bank.table.held == {}
    with pytest.raises(streaming.Misuse, match="inside of"):
        await agent.put(1)
    assert "fail_stop" not in bank.app.__dict__


async def test_sinks_and_what_it_yields() -> None:
    one = app("yields", "127.0.0.1:1")
    out = one.topic("out", value_codec=Number())

    @one.agent(one.topic("in", value_codec=Number()), sink=[out])
    async def double(stream: Any) -> Any:
        async for value in stream:
            yield 2 * value

    async with double.test_context() as agent:
        event = await agent.put(21)
        assert agent.results[event.message.offset] == 42
        assert agent.values(out) == [42]


async def test_sends_outside_stay_when_the_agent_fails() -> None:
    one = app("outside", "127.0.0.1:1")
    out = one.topic("out", value_codec=Number())

    @one.agent(one.topic("in", value_codec=Number()))
    async def fails(stream: Any) -> None:
        async for value in stream:
            with streaming.outside():
                await (await out.send(key=b"k", value=value))
            await out.send(key=b"k", value=-value)
            raise RuntimeError("after both")

    async with fails.test_context() as agent:
        with pytest.raises(RuntimeError, match="after both"):
            await agent.put(1)
        assert agent.values(out) == [1]


class Payment(faust.Record, serializer="json"):
    """Grouped by its payee."""

    payee: str
    amount: int


async def test_group_by_runs_both_halves() -> None:
    one = app("grouped", "127.0.0.1:1")
    table = one.Table("sums", value_codec=Number(), default=int, partitions=1)

    @one.agent(one.topic("payments", value_type=Payment), name="received")
    async def received(stream: Any) -> None:
        async for event in stream.group_by(Payment.payee).events():
            table[event.key] += event.value.amount
            if event.value.amount == 13:
                raise RuntimeError("not 13")

    async with received.test_context() as agent:
        for amount in (1, 2):
            await agent.put(Payment(payee="anna", amount=amount), key=b"ben")
        with pytest.raises(RuntimeError, match="not 13"):
            await agent.put(Payment(payee="anna", amount=13), key=b"ben")
        await agent.put(Payment(payee="anna", amount=4), key=b"ben")
        assert table.partition(0).get(b"anna") == 7
        assert agent.sent[0].key == b"anna"
    assert one.repartitions == {}


async def test_a_body_that_is_refused_says_why() -> None:
    one = app("refused", "127.0.0.1:1")

    @one.agent(one.topic("in", value_codec=Number()))
    async def joins(stream: Any) -> None:
        stream.join()

    with pytest.raises(streaming.Unsupported, match="join"):
        async with joins.test_context():
            pass
    assert "topics" not in one.__dict__ or not list(one.topics)


async def test_an_agent_that_hangs_is_named() -> None:
    one = app("hangs", "127.0.0.1:1", cycle_timeout_s=0.2)

    @one.agent(one.topic("in", value_codec=Number()))
    async def hangs(stream: Any) -> None:
        async for _ in stream:
            await asyncio.Event().wait()

    async with hangs.test_context() as agent:
        with pytest.raises(streaming.DriverError, match="did not come back"):
            await agent.put(1)


async def test_a_record_that_failed_is_not_taken_up_beside_the_next() -> None:
    bank = Bank()
    bank.app.driver = dataclasses.replace(bank.app.driver, batch_max=1)
    async with bank.agent.test_context() as agent:
        with pytest.raises(RuntimeError, match="not 13"):
            await agent.put(13, key=b"a", partition=1)
        await agent.put(5, key=b"a", partition=0)
        await agent.put(5, key=b"a", partition=1)
        assert agent.values(bank.sums) == [5, 5]
        assert bank.table.partition(1).get(b"a") == 5
