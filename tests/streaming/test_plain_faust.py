"""Faust code as its users write it, with Faust's own types, decorators and command line: it runs, exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import faust
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from faust.app.router import Router
from mode.supervisors import OneForOneSupervisor

import streaming
from deploy.local.processes import free_port
from streaming import faust_settings, transport
from streaming.admin import Admin
from streaming.state import State
from tests.streaming.kit import (
    ROOT,
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
    wait_until,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


class Payment(faust.Record, serializer="json"):
    payer: int
    amount: int


def reading(prefix: str, bootstrap: str, name: str = "plain", instance: str = "0") -> App:
    """An app whose agent reads numbers and does nothing."""
    one = app(f"{prefix}{name}", bootstrap, instance=instance)

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()), name="idle")
    async def idle(stream: Any) -> None:
        async for _ in stream:
            pass

    return one


# -- types ----------------------------------------------------------------------------------------


async def test_models_keys_and_rows_of_their_types(bootstrap: str, prefix: str) -> None:
    """What can't be read, key or value, is a dead letter, in a topic that the app made; the next one is taken."""
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    one, seen = app(f"{prefix}types", bootstrap), []
    source = one.topic(f"{prefix}in", key_type=int, value_type=Payment)
    out = one.topic(f"{prefix}out", key_type=int, key_serializer="json", value_type=int)
    totals = one.Table("totals", default=int, partitions=1)

    @one.agent(source)
    async def total(stream: Any) -> None:
        async for event in stream.events():
            totals[event.value.payer] += event.value.amount
            seen.append((event.key, event.message.key))
            await out.send(key=event.key, value=totals[event.value.payer])

    @one.agent(source)
    async def pairs(stream: Any) -> None:
        async for key, payment in stream.items():
            seen.append((key, payment.amount))

    good = json.dumps({"payer": 7, "amount": 5}).encode()
    bad = [(b"2", b"{no"), (b"x", good), (b"2", b"[]")]
    write(bootstrap, f"{prefix}in", [(b"1", good), *bad, (b"3", good)])
    async with running(one):
        await until(lambda: len(seen) == 4 or one.failure)
        await until(lambda: values(bootstrap, f"{prefix}out") == [b"5", b"10"])
        assert totals.partition(0).get(7) == 10
    assert sorted(seen, key=str) == [(1, 5), (1, b"1"), (3, 5), (3, b"3")]
    assert [message.key() for message in read(bootstrap, f"{prefix}out")] == [b"1", b"3"]
    assert values(bootstrap, f"{prefix}types.dead") == [value for _, value in bad]
    assert rows(bootstrap, f"{prefix}types-totals-changelog") == {(0, b"7"): b"10"}


@pytest.mark.parametrize("first", ["typed", "plain"])
async def test_agents_of_one_topic_see_keys_as_each_declared_them(
    bootstrap: str, prefix: str, first: str
) -> None:
    create(bootstrap, f"{prefix}in")
    one, seen = app(f"{prefix}{first}", bootstrap), {"typed": [], "plain": []}
    types: dict[str, dict[str, Any]] = {"typed": {"key_type": int}, "plain": {}}

    def declare(name: str) -> None:
        source = one.topic(f"{prefix}in", value_codec=Number(), **types[name])

        @one.agent(source, name=name)
        async def agent(stream: Any) -> None:
            async for event in stream.events():
                seen[name].append(event.key)

    for name in sorted(types, key=lambda name: name != first):
        declare(name)
    write(bootstrap, f"{prefix}in", [(b"%d" % n, b"1") for n in (1, 2, 3)])
    async with running(one):
        await until(lambda: all(len(keys) == 3 for keys in seen.values()) or one.failure)
    assert seen == {"typed": [1, 2, 3], "plain": [b"1", b"2", b"3"]}


@pytest.mark.parametrize("where", ["topic", "app"])
async def test_text_keys_are_read_as_they_were_written(
    bootstrap: str, prefix: str, where: str
) -> None:
    create(bootstrap, f"{prefix}in")
    driver = streaming.DriverConfig(instance="0", bootstrap=bootstrap)
    serializer = {"key_serializer": "json"}
    one = App(f"{prefix}{where}", driver=driver, **(serializer if where == "app" else {}))
    seen: list[Any] = []
    options = serializer if where == "topic" else {}
    source = one.topic(f"{prefix}in", key_type=str, value_codec=Number(), **options)
    table = one.Table("rows", default=int, partitions=1)

    @one.agent(source)
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            seen.append(event.key)
            table[event.key] += 1
            if event.value < 2:
                await source.send(key=event.key, value=event.value + 1)

    write(bootstrap, f"{prefix}in", [(b'"anna"', b"1")])
    async with running(one):
        await until(lambda: len(seen) == 2 or one.failure)
        await until(lambda: table.partition(0).get("anna") == 2)
    assert seen == ["anna", "anna"]
    assert [message.key() for message in read(bootstrap, f"{prefix}in")] == [b'"anna"'] * 2
    assert rows(bootstrap, f"{prefix}{where}-rows-changelog") == {(0, b"anna"): b"2"}


@pytest.mark.parametrize(
    ("first", "others"),
    [(7, ("7", b"7")), ("7", (7,)), (b"7", (7,)), (None, ())],
)
async def test_keys_that_could_be_the_same_bytes_are_refused(first: Any, others: Any) -> None:
    """Of what was written, not of what was only looked for, or could not be written."""
    one = app("keys", "127.0.0.1:1")
    table = one.Table("rows", default=int, partitions=1)

    @one.agent(one.topic("numbers", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            for key in (7, "7", b"7"):
                assert table.get(key, 0) == 0
                assert key not in table
            with pytest.raises(TypeError):
                table[object()] = 1
            with pytest.raises(streaming.Misuse, match="None"):
                table[None] = 1
            if first is not None:
                table[first] += 1
            for key in others:
                with pytest.raises(streaming.Misuse, match="another kind"):
                    table[key] = 1

    async with agent.test_context() as trial:
        for key in ("7", 7):
            assert table.partition(0).get(key) is None
        await trial.put(1)
        if first is not None:
            assert table.partition(0).get(first) == 1
            with pytest.raises(streaming.Misuse, match="another kind"):
                table.partition(0).get("7" if first == 7 else 7)


async def test_a_tables_key_type_says_which_keys_it_has() -> None:
    one = app("kinds", "127.0.0.1:1")
    numbers = one.Table("numbers", key_type=int, partitions=1)
    texts = one.Table("texts", key_type=str, partitions=1)

    @one.agent(one.topic("numbers", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            for table, key in ((numbers, "7"), (numbers, b"7"), (texts, 7)):
                with pytest.raises(streaming.Misuse, match="key_type"):
                    table[key] = 1
            with pytest.raises(streaming.Misuse, match="key_type"):
                numbers.change({"7": 1})
            numbers[7] = texts["7"] = texts[b"8"] = 1

    async with agent.test_context() as trial:
        await trial.put(1)


async def test_what_a_serializer_makes_no_bytes_of_is_said(bootstrap: str, prefix: str) -> None:
    one = app(f"{prefix}bytes", bootstrap)
    with pytest.raises(streaming.Misuse, match="key_serializer"):
        one.topic("t", value_type=int).encoded(5, 5)
    with pytest.raises(streaming.Misuse, match="value_codec"):
        one.topic("u", value_type=int, value_serializer="raw").encoded(b"k", 5)
    assert one.topic("v", value_type=int, value_serializer="raw").value_of(b"5") == 5


async def test_a_serializer_is_used_for_bytes_too() -> None:
    one = app("bytes", "127.0.0.1:1")
    coded = one.topic("t", value_type=bytes, value_serializer="binary")
    assert coded.value_of(b"YW5uYQ==") == b"anna"
    for options in ({}, {"value_serializer": "raw"}):
        assert one.topic("u", value_type=bytes, **options).value_of(b"YW5uYQ==") == b"YW5uYQ=="


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_record_without_value_is_no_model(allowed: bool) -> None:
    one, seen = app("empty", "127.0.0.1:1"), []

    @one.agent(one.topic("payments", value_type=Payment, allow_empty=allowed or None))
    async def agent(stream: Any) -> None:
        async for value in stream:
            seen.append(value)

    async with agent.test_context() as trial:
        await trial.put(None, key=b"k")
        dead = [sent.topic for sent in trial.sent]
    assert (seen, dead) == (([None], []) if allowed else ([], ["empty.dead"]))


# -- topics that an app makes ---------------------------------------------------------------------


def making(prefix: str, bootstrap: str, **options: Any) -> App:
    """Its topics, but for the source, are not there."""
    driver = streaming.DriverConfig(instance="0", bootstrap=bootstrap)
    one = App(f"{prefix}makes", driver=driver, topic_partitions=1, **options)
    one.Table("rows", partitions=1)

    @one.agent(one.topic(f"{prefix}in", value_type=Payment), name="groups")
    async def groups(stream: Any) -> None:
        async for _ in stream.group_by(Payment.payer):
            pass

    return one


@pytest.mark.parametrize(("asked", "copies"), [({}, -1), ({"topic_replication_factor": 2}, 2)])
async def test_topics_have_as_many_copies_as_were_asked_for(
    bootstrap: str,
    prefix: str,
    asked: dict[str, int],
    copies: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create(bootstrap, f"{prefix}in")
    made: dict[str, int] = {}

    def create_one(admin: Admin, topic: NewTopic, make: Any = Admin.create) -> None:
        made[topic.topic.removeprefix(f"{prefix}makes")] = topic.replication_factor
        make(admin, NewTopic(topic.topic, topic.num_partitions, 1, config=topic.config))

    monkeypatch.setattr(Admin, "create", create_one)
    one = making(prefix, bootstrap, **asked)

    @one.agent(name="idle")
    async def idle(stream: Any) -> None:
        async for _ in stream:
            pass

    async with running(one):
        pass
    names = ("-rows-changelog", "-groups-Payment.payer-repartition", ".dead", "-idle")
    assert made == dict.fromkeys(names, copies)


async def test_an_app_that_may_not_make_topics_names_those_that_are_missing(
    bootstrap: str, prefix: str
) -> None:
    create(bootstrap, f"{prefix}in")
    one = making(prefix, bootstrap, topic_allow_declare=False)
    async with running(one, ready=False):
        await until(lambda: one.failure)
    own = [
        f"{prefix}makes{name}"
        for name in ("-groups-Payment.payer-repartition", "-rows-changelog", ".dead")
    ]
    assert isinstance(one.failure, streaming.DriverError)
    assert ", ".join(own) in str(one.failure)
    there = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics
    assert not set(own) & set(there)


# -- agents that write to agents ------------------------------------------------------------------


async def test_an_agent_writes_to_another_and_is_answered_once(bootstrap: str, prefix: str) -> None:
    """cast, send with reply_to, and an agent on a topic that the app makes; each fails once."""
    create(bootstrap, f"{prefix}in", f"{prefix}answers")
    one, fails, seen = app(f"{prefix}cast", bootstrap), {"first", "second"}, []

    @one.agent(name="second", value_type=int)
    async def second(stream: Any) -> Any:
        async for value in stream:
            yield value * 2
            if "second" in fails:
                fails.discard("second")
                raise RuntimeError("second")
            seen.append(value)

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def first(stream: Any) -> None:
        async for value in stream:
            await second.cast(value, key=b"k")
            await second.send(value=value + 1, reply_to=f"{prefix}answers", correlation_id="c")
            if "first" in fails:
                fails.discard("first")
                raise RuntimeError("first")

    write(bootstrap, f"{prefix}in", [(b"k", b"1"), (b"k", b"10")])
    async with running(one):
        await until(lambda: len(seen) == 4 or one.failure)
        await until(lambda: len(values(bootstrap, f"{prefix}answers")) == 2)
    assert values(bootstrap, f"{prefix}cast-second") == [b"1", b"2", b"10", b"11"]
    answers = [json.loads(value) for value in values(bootstrap, f"{prefix}answers")]
    assert [(one["value"], one["correlation_id"]) for one in answers] == [(4, "c"), (22, "c")]
    assert not fails


async def test_a_request_without_headers_is_answered(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}answers")
    one = app(f"{prefix}ask", bootstrap)

    @one.agent(name="second", use_reply_headers=False)
    async def second(stream: Any) -> Any:
        async for value in stream:
            yield value * 2

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def first(stream: Any) -> None:
        async for value in stream:
            await second.send(value=value, reply_to=f"{prefix}answers", correlation_id="c")

    write(bootstrap, f"{prefix}in", [(b"k", b"1")])
    async with running(one):
        await until(lambda: values(bootstrap, f"{prefix}answers") or one.failure)
    [answer] = map(json.loads, values(bootstrap, f"{prefix}answers"))
    assert (answer["value"], answer["correlation_id"]) == (2, "c")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("values", 11),
        ("events", 1),
        ("items", (b"k", 1)),
        ("enumerate", (0, 11)),
        ("take", [11]),
        ("current", 1),
    ],
)
async def test_events_carry_the_value_that_was_read(how: str, expected: Any) -> None:
    """Processors change what is iterated, as in Faust."""
    one, seen = app("processed", "127.0.0.1:1"), []

    @one.agent(one.topic("numbers", value_codec=Number()))
    async def agent(stream: Any) -> None:
        stream.add_processor(lambda value: value + 10)
        stream = stream.filter(lambda value: value > 10)
        reads = {"events": stream.events, "items": stream.items, "enumerate": stream.enumerate}
        if how in reads:
            async for item in reads[how]():
                seen.append(item.value if how == "events" else item)
        if how == "take":
            async for item in stream.take(10, within=1):
                seen.append(item)
        async for item in stream:
            seen.append(faust.current_event().value if how == "current" else item)

    async with agent.test_context() as trial:
        await trial.put(1, key=b"k")
    assert seen == [expected]


async def test_get_answers_as_fausts_tables_do() -> None:
    one = app("get", "127.0.0.1:1")
    plain = one.Table("plain", partitions=1)
    numbers = one.Table("numbers", default=lambda: 7, partitions=1)

    @one.agent(one.topic("numbers", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            assert (plain.get("k"), plain.get("k", 1)) == (None, 1)
            assert (numbers.get("k"), numbers.get("k", 1), numbers.get("k", None)) == (7, 1, None)
            assert numbers.setdefault("k", 2) == numbers.get("k") == numbers["k"] == 2
            assert numbers.pop("k", 3) == 2
            assert numbers.pop("k", 3) == 3

    async with agent.test_context() as trial:
        await trial.put(1)


async def test_a_task_reads_a_stream_in_transactions(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    one, seen = app(f"{prefix}task", bootstrap, cycle_timeout_s=2.0), []
    source, out = (one.topic(f"{prefix}{name}", value_codec=Number()) for name in ("in", "out"))

    @one.task
    async def task() -> None:
        async for value in one.stream(source):
            await out.send(value=value)
            seen.append(value)
            if value == 2:
                raise RuntimeError("in a task nobody tries it again")

    write(bootstrap, f"{prefix}in", [(b"k", b"%d" % n) for n in range(4)])
    async with running(one, ready=False):
        await until(lambda: one.crashed)
    assert "nobody tries it again" in str(one.crash_reason)
    assert seen == [0, 1, 2]
    assert values(bootstrap, f"{prefix}out") == []


# -- timers, tasks, signals, pages ----------------------------------------------------------------


async def test_one_worker_leads(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", partitions=2)
    ran: list[str] = []

    def worker(instance: str) -> App:
        one = reading(prefix, bootstrap, instance=instance)

        @one.timer(0.05, on_leader=True)
        async def timer() -> None:
            ran.append(f"timer {instance}")

        @one.task(on_leader=True)
        async def task() -> None:
            assert one.is_leader()
            ran.append(f"task {instance}")

        return one

    one, other = worker("0"), worker("1")
    async with running(one, other):
        await until(lambda: one.is_leader() != other.is_leader())
        leader, follower = (one, other) if one.is_leader() else (other, one)
        ran.clear()
        await until(lambda: len(ran) > 3)
        assert len(set(ran)) == 1
        await leader.stop()
        assert not leader.is_leader()
        await until(follower.is_leader)
        ran.clear()
        await until(lambda: f"timer {follower.driver.instance}" in ran)
        assert len(set(ran)) == 1
    assert not any(each.crashed for each in (one, other))
    alone = worker("2")
    async with running(alone):
        await until(lambda: "task 2" in ran)


async def test_signals_tell_of_partitions(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", partitions=2)
    one, told = reading(prefix, bootstrap), []

    @one.on_partitions_assigned.connect
    async def assigned(app: Any, partitions: Any, **_: Any) -> None:
        assert app.rebalancing
        told.append(("assigned", len(partitions)))

    @one.on_partitions_revoked.connect
    async def revoked(app: Any, partitions: Any, **_: Any) -> None:
        assert app.rebalancing
        told.append(("revoked", len(partitions)))

    @one.on_rebalance_complete.connect
    async def complete(app: Any, **_: Any) -> None:
        assert not app.rebalancing
        told.append(("complete", app.rebalancing_count))

    async with running(one):
        await until(lambda: len(told) == 2)
        async with running(reading(prefix, bootstrap, instance="1")):
            await until(lambda: len(told) == 5)
    assert told[:2] == [("assigned", 2), ("complete", 1)]
    assert told[2:5] == [("revoked", 2), ("assigned", 1), ("complete", 2)]


@pytest.mark.parametrize("signal_name", ["on_partitions_assigned", "on_partitions_revoked"])
async def test_a_handler_that_fails_ends_the_worker(
    bootstrap: str, prefix: str, signal_name: str
) -> None:
    create(bootstrap, f"{prefix}in", partitions=2)
    one = reading(prefix, bootstrap)

    @getattr(one, signal_name).connect
    async def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("in a handler")

    async with running(one, ready=False):
        if signal_name == "on_partitions_revoked":
            await until(lambda: one.consumer.ready)
            async with running(reading(prefix, bootstrap, instance="1"), ready=False):
                await until(lambda: one.failure or one.crashed)
        else:
            await until(lambda: one.failure or one.crashed)
    assert str(one.failure or one.crash_reason) == "in a handler"


async def test_who_is_told_of_a_revocation_was_told_of_the_assignment(
    bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And had the time to do what it does of it."""
    create(bootstrap, f"{prefix}in", partitions=2)
    one, told, restoring = reading(prefix, bootstrap), [], threading.Event()

    def slow(*args: Any, restore: Any = State.restore) -> Any:
        if not restoring.is_set():
            restoring.set()
            time.sleep(3)  # the other one joins meanwhile
        return restore(*args)

    @one.on_partitions_assigned.connect
    async def assigned(app: Any, partitions: Any, **_: Any) -> None:
        told.append(("begins", len(partitions)))
        await asyncio.sleep(3)
        told.append(("assigned", len(partitions)))

    @one.on_partitions_revoked.connect
    async def revoked(app: Any, partitions: Any, **_: Any) -> None:
        told.append(("revoked", len(partitions)))

    monkeypatch.setattr(State, "restore", slow)
    async with running(one, ready=False):
        await until(restoring.is_set)
        async with running(reading(prefix, bootstrap, instance="1"), ready=False):
            await until(lambda: told or one.failure)
        await until(lambda: len(told) == 5 or one.failure)
    assert told[0] == ("begins", 1)  # of the two before it nobody was told
    assert told[1:4] == [("assigned", 1), ("revoked", 1), ("begins", 2)]


@pytest.mark.parametrize("error", [TimeoutError("its own"), RuntimeError("in a watcher")])
async def test_what_fails_when_partitions_are_revoked_ends_the_worker(
    bootstrap: str, prefix: str, error: Exception
) -> None:
    create(bootstrap, f"{prefix}in", partitions=2)
    one = reading(prefix, bootstrap)

    async def fails(*_: Any, **__: Any) -> None:
        raise error

    def forgets() -> None:
        del one.consumer._drop_assignment  # once
        raise error

    async with running(one):
        if isinstance(error, TimeoutError):
            one.on_partitions_revoked.connect(fails)
        else:
            one.consumer._drop_assignment = forgets
        async with running(reading(prefix, bootstrap, instance="1"), ready=False):
            await until(lambda: one.failure)
    assert one.failure is error


async def test_pages_of_functions_and_views_send_at_once(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    port = free_port()
    one = App(
        f"{prefix}web",
        driver=streaming.DriverConfig(instance="0", bootstrap=bootstrap),
        topic_partitions=1,
        web_enabled=True,
        web_bind="127.0.0.1",
        web_port=port,
    )
    out = one.topic(f"{prefix}out", value_codec=Number())

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()), name="idle")
    async def idle(stream: Any) -> None:
        async for _ in stream:
            pass

    @one.page("/function/{number}/")
    async def function(web: Any, request: Any, number: str) -> Any:
        await (await out.send(value=int(number)))
        return web.json({"sent": number})

    @one.page("/view/")
    class Counted(faust.web.View):
        async def post(self, request: Any) -> Any:
            await (await out.send(value=len(await request.read())))
            return self.json({})

    async with running(one), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        async with client.get("/function/7/") as answer:
            assert await answer.json() == {"sent": "7"}
        async with client.post("/view/", data=b"123") as answer:
            assert answer.status == 200
        assert values(bootstrap, f"{prefix}out") == [b"7", b"3"]


async def test_a_topic_that_is_read_too_late_is_refused(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}late")
    one = reading(prefix, bootstrap)
    async with running(one):
        late = one.topic(f"{prefix}late", value_codec=Number())
        with pytest.raises(streaming.Misuse, match="joined its group"):
            late.stream()
        with pytest.raises(streaming.Unsupported, match="of a topic"):
            one.stream([1, 2, 3])


async def test_a_topic_that_is_added_while_agents_begin_is_read(
    bootstrap: str, prefix: str
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}more")
    one, seen = app(f"{prefix}adds", bootstrap), []
    more = one.topic(f"{prefix}more", value_codec=Number())

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def late(stream: Any) -> None:
        await asyncio.sleep(1)
        async for _ in stream:
            pass

    @one.task
    async def task() -> None:
        await asyncio.sleep(0.5)
        async for value in more.stream():
            seen.append(value)

    write(bootstrap, f"{prefix}more", [(b"k", b"7")])
    async with running(one):
        await until(lambda: seen == [7] or one.failure or one.crashed)
    assert seen == [7]


async def test_an_app_that_reads_nothing(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}out", f"{prefix}late")
    one = app(f"{prefix}timer", bootstrap)
    out = one.topic(f"{prefix}out", value_codec=Number())

    @one.timer(0.05)
    async def timer() -> None:
        await out.send(value=1)

    @one.timer(0.05, on_leader=True)
    async def never() -> None:
        await out.send(value=2)

    async with running(one):
        await until(lambda: len(values(bootstrap, f"{prefix}out")) > 3 or one.failure)
        assert not any((one.is_leader(), one.rebalancing, one.failure, one.crashed))
        with pytest.raises(streaming.Misuse, match="joined its group"):
            one.topic(f"{prefix}late").stream()
    assert set(values(bootstrap, f"{prefix}out")) == {b"1"}
    assert committed(bootstrap, f"{prefix}timer", f"{prefix}out") < 0


async def test_tables_without_an_agent_are_refused(bootstrap: str, prefix: str) -> None:
    one = app(f"{prefix}tables", bootstrap)
    one.Table("rows", partitions=1)
    async with running(one, ready=False):
        await until(lambda: one.failure)
    assert isinstance(one.failure, streaming.Misuse)
    assert "rows" in str(one.failure)


async def test_a_producer_alone(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}out")
    one = app(f"{prefix}producer", bootstrap)
    one.producer_only = True
    async with running(one, ready=False):
        with streaming.outside():
            await (await one.topic(f"{prefix}out", value_codec=Number()).send(value=1))
    assert values(bootstrap, f"{prefix}out") == [b"1"]


async def test_sends_outside_of_agents_wait_for_room(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}out")
    one = app(f"{prefix}many", bootstrap, kafka={"queue.buffering.max.messages": 10})
    one.producer_only = True
    out = one.topic(f"{prefix}out", value_codec=Number())
    async with running(one, ready=False):
        with streaming.outside():
            for sent in [await out.send(value=n) for n in range(200)]:
                await sent
    assert values(bootstrap, f"{prefix}out") == [b"%d" % n for n in range(200)]


async def test_what_could_not_be_sent_is_said_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport, "FLUSH_S", 0.5)
    one = app("unsent", "127.0.0.1:1")
    one.producer_only = True
    async with running(one, ready=False):
        with streaming.outside():
            for _ in range(3):
                await one.topic("out", value_codec=Number()).send(value=1)
    assert "unsent: 3 records" in caplog.text


# -- Faust's command line -------------------------------------------------------------------------

PROGRAM = """
    import os, streaming

    app = streaming.App(
        os.environ["NAME"],
        driver=streaming.DriverConfig(instance="0", bootstrap=os.environ["BOOTSTRAP"]),
        topic_partitions=1,
    )
    words = app.topic(os.environ["NAME"] + ".in", value_type=str, value_serializer="raw")
    counts = app.Table("counts", default=int, partitions=1)
    said = app.topic(os.environ["NAME"] + ".out", key_type=str, value_type=int)

    @app.agent(words)
    async def count(stream):
        async for word in stream:
            counts[word] += 1
            await said.send(key=word, value=counts[word])

    @app.command()
    async def hello():
        print("hello")

    if __name__ == "__main__":
        app.main()
"""


def test_main_is_fausts_command_line(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    create(bootstrap, f"{prefix}.in", f"{prefix}.out")
    write(bootstrap, f"{prefix}.in", [(b"k", word.encode()) for word in ("a", "b", "a")])
    (tmp_path / "counting.py").write_text(textwrap.dedent(PROGRAM))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NAME": prefix,
        "BOOTSTRAP": bootstrap,
        "WEB_PORT": str(free_port()),
    }
    command = [sys.executable, "counting.py"]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*command, "worker", "--without-web"],
            env=environment, cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: len(values(bootstrap, f"{prefix}.out")) == 3)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
    written = [(m.key(), m.value()) for m in read(bootstrap, f"{prefix}.out")]
    assert written == [(b"a", b"1"), (b"b", b"1"), (b"a", b"2")]
    said = subprocess.run(
        [*command, "hello"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert said.stdout == "hello\n"


# -- what is declared and would do nothing --------------------------------------------------------


async def nothing(*_: Any) -> None: ...


TABLE_OPTIONS: dict[str, Any] = {
    "store": "rocksdb://",
    "options": {"x": 1},
    "schema": faust.Schema(),
    "on_recover": nothing,
    "recover_callbacks": {nothing},
    "on_changelog_event": nothing,
    "on_window_close": nothing,
    "window": faust.windows.TumblingWindow(10),
    "recovery_buffer_size": 10,
    "standby_buffer_size": 10,
    "use_partitioner": True,
    "is_global": True,
    "synchronize_all_active_partitions": True,
}


@pytest.mark.parametrize("option", TABLE_OPTIONS)
def test_an_option_of_a_table_that_would_do_nothing_is_refused(option: str) -> None:
    one = app("declared", "127.0.0.1:1")
    with pytest.raises(streaming.Unsupported, match="table rows"):
        one.Table("rows", **{option: TABLE_OPTIONS[option]})


class OwnSchema(faust.Schema):
    def loads_value(self, *_: Any, **__: Any) -> Any:
        return None


def test_a_schema_of_its_own_is_refused() -> None:
    one = app("declared", "127.0.0.1:1")
    for declare in (
        lambda: one.topic("t", schema=OwnSchema()),
        lambda: one.agent("t", schema=OwnSchema())(nothing).channel,
        lambda: App("own", driver=one.driver, Schema=OwnSchema).conf,
    ):
        with pytest.raises(streaming.Unsupported, match="value_codec"):
            declare()
    assert one.topic("t", schema=faust.Schema(value_type=Payment)).value_type is Payment


class OtherRouter(Router):
    pass


SETTINGS: dict[str, Any] = {
    "store": "rocksdb://",
    "broker": "kafka://elsewhere",
    "broker_credentials": faust.SASLCredentials(username="u", password="hidden"),
    "consumer_auto_offset_reset": "latest",
    "stream_buffer_maxsize": 7,
    "table_standby_replicas": 2,
    "topic_disable_leader": False,
    "Stream": faust.Stream,
    "Router": OtherRouter,
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("how", ["option", "source", "assigned"])
@pytest.mark.filterwarnings("ignore::faust.exceptions.AlreadyConfiguredWarning")
async def test_a_setting_that_would_do_nothing_is_refused(name: str, how: str) -> None:
    driver = streaming.DriverConfig(instance="0", bootstrap="127.0.0.1:1")
    given = {name: SETTINGS[name]}
    one = App("settings", driver=driver, **(given if how == "option" else {}))
    if how == "source":
        one.config_from_object(given)
    if how == "assigned":
        setattr(one.conf, name, given[name])
    with pytest.raises(streaming.Unsupported) as caught:
        await one.on_start()
    assert name in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_setting_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_SESSION_TIMEOUT", "7")
    one = app("settings", "127.0.0.1:1")
    with pytest.raises(streaming.Unsupported, match=r"DriverConfig\.session_timeout_s"):
        one.topic("numbers")


def test_what_is_so_anyway_may_be_asked_for() -> None:
    driver = streaming.DriverConfig(instance="0", bootstrap="127.0.0.1:1")
    one = App("settings", driver=driver, processing_guarantee="exactly_once", store="memory://")
    assert not one.in_transaction
    assert one.topic("numbers").get_topic_name() == "numbers"


def test_every_setting_is_on_one_list() -> None:
    lists = [set(faust_settings.REPLACED), set(faust_settings.KEPT), set(faust_settings.CLASSES)]
    assert sum(map(len, lists)) == len(set.union(*lists))
    assert set.union(*lists) == streaming.App.Settings.setting_names()


@pytest.mark.parametrize(
    "declare",
    [
        lambda one: one.topic("t", acks=False),
        lambda one: one.topic("t", maxsize=10),
        lambda one: one.agent(one.topic("t"), supervisor_strategy=OneForOneSupervisor),
        lambda one: one.agent([1, 2, 3]),
        lambda one: one.sensors.add(faust.Monitor()),
        lambda one: one.on_produce_message.connect(nothing),
        lambda one: one.router,
        lambda _: App(
            "x",
            driver=streaming.DriverConfig(instance="0", bootstrap="b:1"),
            monitor=faust.Monitor(),
        ),
    ],
)
def test_a_declaration_that_would_do_nothing_is_refused(declare: Any) -> None:
    with pytest.raises(streaming.Unsupported) as caught:
        declare(app("declared", "127.0.0.1:1"))
    assert len(str(caught.value)) > 20
