"""The public surface of Stream, Table, Topic, Event: used and then aborted it leaves nothing, or it raises.

Each use runs in an agent that afterwards fails; a record behind it in another partition shows that the
transaction ended. Nothing of the use may be visible then.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import faust
import pytest

import streaming
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
    from collections.abc import Awaitable, Callable


class Uses:
    """One app whose agent does what the input's value names, then fails."""

    def __init__(self, prefix: str, bootstrap: str) -> None:
        self.app = app(f"{prefix}uses", bootstrap, attempts=1)
        self.out = self.app.topic(f"{prefix}out", value_type=bytes, value_serializer="raw")
        self.table = self.app.Table("rows", value_codec=Number(), default=int, partitions=1)
        self.answers: list[Any] = []


async def send(uses: Uses, event: Any) -> None:
    await uses.out.send(key=b"k", value=b"v", headers=[("h", b"1")])


async def send_without_anything(uses: Uses, event: Any) -> None:
    await uses.out.send()


async def put(uses: Uses, event: Any) -> None:
    uses.out.put(key=b"k", value=b"v")


async def send_soon(uses: Uses, event: Any) -> None:
    uses.out.send_soon(key=b"k", value=b"v")


async def app_send(uses: Uses, event: Any) -> None:
    await uses.app.send(uses.out, key=b"k", value=b"v")


async def forward(uses: Uses, event: Any) -> None:
    await event.forward(uses.out)


async def event_send(uses: Uses, event: Any) -> None:
    await event.send(uses.out, value=b"v")


async def own_task(uses: Uses, event: Any) -> None:
    await asyncio.create_task(uses.out.send(value=b"v"))


async def rows_change(uses: Uses, event: Any) -> None:
    uses.table[b"a"] += 1
    uses.table.update({b"b": 2})
    uses.table.setdefault(b"c", 3)
    uses.table.pop(b"b")
    assert uses.table.get(b"a") == 1
    assert b"b" not in uses.table


HARMLESS = (
    send, send_without_anything, put, send_soon, app_send, forward, event_send, own_task, rows_change,
)  # fmt: skip


@pytest.mark.parametrize("use", HARMLESS, ids=lambda use: use.__name__)
async def test_what_an_aborted_agent_did_is_never_seen(
    bootstrap: str, prefix: str, use: Callable[[Uses, Any], Awaitable[None]]
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    uses = Uses(prefix, bootstrap)
    done = asyncio.Event()

    @uses.app.agent(uses.app.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            await use(uses, event)
            done.set()
            raise RuntimeError("after the use")

    write(bootstrap, f"{prefix}in", [(b"k", b"1")])
    async with running(uses.app):
        await until(lambda: uses.app.consumer.suspects.stopped)
    assert done.is_set()
    assert read(bootstrap, f"{prefix}out") == []
    assert rows(bootstrap, f"{prefix}uses-rows-changelog") == {}


async def thread_sends(uses: Uses, event: Any) -> None:
    await asyncio.to_thread(uses.out.put, value=b"v")


async def executor_sends(uses: Uses, event: Any) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, uses.out.put)


async def thread_writes_a_row(uses: Uses, event: Any) -> None:
    await asyncio.to_thread(uses.table.__setitem__, b"k", 1)


async def value_none(uses: Uses, event: Any) -> None:
    uses.table[b"k"] = None


async def key_none(uses: Uses, event: Any) -> None:
    uses.table[None] = 1


async def reserved_key(uses: Uses, event: Any) -> None:
    uses.table[b"\x00streaming.position"] = 1


async def group_by_of_another_stream(uses: Uses, event: Any) -> None:
    event.app.stream(uses.out).group_by(int, name="number")


async def scan_all(uses: Uses, event: Any) -> None:
    list(uses.table.items())


async def callback(uses: Uses, event: Any) -> None:
    await uses.out.send(value=b"v", callback=lambda _: None)


async def ask(uses: Uses, event: Any) -> None:
    await next(iter(uses.app.agents.values())).ask(b"v")


REFUSED = (
    thread_sends, executor_sends, thread_writes_a_row, value_none, key_none, reserved_key,
    group_by_of_another_stream, scan_all, callback, ask,
)  # fmt: skip


@pytest.mark.parametrize("use", REFUSED, ids=lambda use: use.__name__)
async def test_what_can_not_be_exactly_once_raises_where_it_is_used(
    bootstrap: str, prefix: str, use: Callable[[Uses, Any], Awaitable[None]]
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    uses = Uses(prefix, bootstrap)

    @uses.app.agent(uses.app.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            with pytest.raises((streaming.Misuse, streaming.Unsupported)) as caught:
                await use(uses, event)
            uses.answers.append(str(caught.value))

    write(bootstrap, f"{prefix}in", [(b"k", b"1")])
    async with running(uses.app):
        await until(lambda: uses.answers)
    assert len(uses.answers[0]) > 20  # a sentence
    assert read(bootstrap, f"{prefix}out") == []


async def test_work_that_outlives_its_transaction_is_refused(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    uses = Uses(prefix, bootstrap)
    over = asyncio.Event()
    late: list[asyncio.Task[Any]] = []

    async def later() -> None:
        await over.wait()
        await uses.out.send(value=b"late")

    @uses.app.agent(uses.app.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            late.append(asyncio.create_task(later()))
            await uses.out.send(value=b"in time")

    write(bootstrap, f"{prefix}in", [(b"k", b"1")])
    async with running(uses.app):
        await until(lambda: values(bootstrap, f"{prefix}out") == [b"in time"])
        over.set()
        with pytest.raises(streaming.Misuse, match="is closed"):
            await late[0]
    assert values(bootstrap, f"{prefix}out") == [b"in time"]


async def test_sends_outside_of_agents_must_say_so(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}out")
    one = app(f"{prefix}outside", bootstrap)
    out = one.topic(f"{prefix}out", value_type=bytes, value_serializer="raw")

    @one.timer(0.05)
    async def tick() -> None:
        await out.send(value=b"timer")

    create(bootstrap, f"{prefix}in")

    @one.agent(one.topic(f"{prefix}in"))
    async def idle(stream: Any) -> None:
        async for _ in stream:
            pass

    async with running(one):
        await until(lambda: values(bootstrap, f"{prefix}out"))
        with pytest.raises(streaming.Misuse, match="send without a transaction"):
            await out.send(value=b"x")
        with pytest.raises(streaming.Misuse):
            out.put(value=b"x")
        with streaming.outside():
            await (await out.send(value=b"said"))
        assert b"said" in values(bootstrap, f"{prefix}out")
    assert b"x" not in values(bootstrap, f"{prefix}out")


async def test_sinks_are_part_of_the_transaction(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    uses = Uses(prefix, bootstrap)
    source = uses.app.topic(f"{prefix}in", value_codec=Number())

    @uses.app.agent(source, sink=[uses.out])
    async def agent(stream: Any) -> Any:
        async for value in stream:
            yield b"%d" % (value + 1)
            if value == 3:
                raise RuntimeError("after the sink")

    write(bootstrap, f"{prefix}in", [(b"k", b"%d" % n) for n in range(6)])
    async with running(uses.app):
        await until(lambda: uses.app.consumer.suspects.stopped)
        await until(lambda: values(bootstrap, f"{prefix}out") == [b"1", b"2", b"3"])


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_take_is_exactly_once(bootstrap: str, prefix: str, size: int) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out", f"{prefix}dead")
    one = app(f"{prefix}take", bootstrap)
    out = one.topic(f"{prefix}out", value_codec=Number())
    source = one.topic(f"{prefix}in", value_codec=Number(), dead_letters=f"{prefix}dead")
    failed = asyncio.Event()

    @one.agent(source)
    async def agent(stream: Any) -> None:
        async for taken in stream.take(size, within=1):
            assert len(taken) <= size
            for value in taken:
                await out.send(value=value)
            if 50 in taken and not failed.is_set():
                failed.set()
                raise RuntimeError("once")

    numbers = [(b"k", b"%d" % n) for n in range(100)]
    write(bootstrap, f"{prefix}in", [*numbers[:80], (b"k", b"x"), *numbers[80:], (b"k", b"y")])
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{prefix}out")) >= 100)
    assert [int(value or 0) for value in values(bootstrap, f"{prefix}out")] == list(range(100))
    assert values(bootstrap, f"{prefix}dead") == [b"x", b"y"]


async def test_a_list_never_waits_for_what_is_filtered_out(bootstrap: str, prefix: str) -> None:
    """Its records are of this transaction: given with the next one they would be lost between the two."""
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    one = app(f"{prefix}take", bootstrap)
    out = one.topic(f"{prefix}out", value_codec=Number())

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for taken in stream.filter(lambda value: not value % 2).take(1000, within=1):
            for value in taken:
                out.put(value=value)

    write(bootstrap, f"{prefix}in", [(b"k", b"%d" % n) for n in range(100)])
    async with running(one):
        await until(lambda: committed(bootstrap, f"{prefix}take", f"{prefix}in") == 100)
        found = [int(value or 0) for value in values(bootstrap, f"{prefix}out")]
    assert found == list(range(0, 100, 2))


async def test_rows_that_failed_midway_are_not_written_by_others(
    bootstrap: str, prefix: str
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}dead")
    one = app(f"{prefix}rows", bootstrap, attempts=1)
    source = one.topic(
        f"{prefix}in", value_codec=Number(), on_error="dead-letter", dead_letters=f"{prefix}dead"
    )
    table = one.Table("rows", value_codec=Number(), default=int, partitions=1)

    @one.agent(source)
    async def agent(stream: Any) -> None:
        async for value in stream:
            table.change({f"{value}": value, "\ud800" if value == 13 else "last": value})

    write(bootstrap, f"{prefix}in", [(b"k", b"13"), (b"k", b"7")])
    async with running(one):
        await until(lambda: rows(bootstrap, f"{prefix}rows-rows-changelog"))
        await until(lambda: values(bootstrap, f"{prefix}dead") == [b"13"])
    assert rows(bootstrap, f"{prefix}rows-rows-changelog") == {(0, b"7"): b"7", (0, b"last"): b"7"}


def test_what_is_refused_is_refused_when_it_is_declared() -> None:
    one: App = app("refusing", "127.0.0.1:1")
    for declare in (
        lambda: one.topic("a", "b"),
        lambda: one.topic(pattern="a.*"),
        lambda: one.GlobalTable("t"),
        lambda: one.SetTable("t"),
        lambda: one.Table("t", partitions=1).tumbling(10),
        lambda: one.Table("u", partitions=1).hopping(10, 5),
        lambda: one.Table("v", partitions=1).clear(),
    ):
        with pytest.raises(streaming.Unsupported):
            declare()


def test_streams_have_no_operator_that_is_neither_proven_nor_refused() -> None:
    """The white list: what faust.Stream offers to users is all accounted for."""
    from streaming.streams import REFUSED as REFUSED_OPERATORS

    proven = {"events", "items", "take", "enumerate", "filter", "group_by", "add_processor"}
    proven |= {"get_topic_name", "info", "clone", "derive_topic", "get_active_stream", "get_root_stream",
               "iter_ancestors", "contribute_to_stream", "remove_from_stream", "on_merge", "send",
               "throw", "ack", "asitems"}  # fmt: skip
    service = set(dir(faust.Service))
    public = {name for name in vars(faust.Stream) if not name.startswith("_")} - service
    operators = {name for name in public if callable(getattr(faust.Stream, name, None))}
    assert operators - proven - set(REFUSED_OPERATORS) == set()


def test_isolated_partitions_are_refused(prefix: str) -> None:
    app = streaming.App(
        prefix, driver=streaming.DriverConfig(instance="0", bootstrap="localhost:1")
    )
    with pytest.raises(streaming.Unsupported, match="isolated_partitions"):
        app.agent(app.topic("numbers"), isolated_partitions=True)


async def test_a_processor_is_applied_once_after_the_agent_failed(
    bootstrap: str, prefix: str
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    write(bootstrap, f"{prefix}in", [(b"k", b"%d" % n) for n in (10, 20, 30)])
    one = app(f"{prefix}app", bootstrap)
    numbers = one.topic(f"{prefix}in", value_codec=Number())
    out = one.topic(f"{prefix}out", value_codec=Number())
    failures = [20 + 1, 20 + 1]

    @one.agent(numbers, name="plus")
    async def plus(stream: Any) -> None:
        stream.add_processor(lambda value: value + 1)
        async for value in stream:
            if value in failures:
                failures.remove(value)
                raise RuntimeError("told to fail")
            out.put(key=b"k", value=value)

    async with running(one):
        await until(lambda: len(values(bootstrap, f"{prefix}out")) == 3)
    assert [int(v or 0) for v in values(bootstrap, f"{prefix}out")] == [11, 21, 31]
