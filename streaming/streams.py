"""Streams and agents: records of a batch one by one, and failures told to the transaction.

A batch counts as processed only when the agent asks for what comes after it; an agent that raises, ends or
is cancelled before that fails the transaction. Stock Faust acknowledges in a `finally`, so that an exception
skips the record: that is why its stream loop is not used.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import faust
from faust.agents.agent import Agent as _Agent
from faust.exceptions import Skip
from faust.streams import _current_event
from mode.supervisors import OneForOneSupervisor
from mode.utils.futures import maybe_async, notify

from streaming.context import current_batch, enter
from streaming.errors import Misuse, Poison, Unsupported
from streaming.topics import Topic

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from streaming.context import Batch

YIELD_EVERY = 200  # records after which timers, readers and heartbeats get their turn

REFUSED = {
    "group_by": "send to a topic of its own with the new key and read that in another agent",
    "through": "send to the topic and read it in another agent",
    "echo": "send to the channels in the agent's body",
    "join": "keep one side in a table",
    "left_join": "keep one side in a table",
    "inner_join": "keep one side in a table",
    "outer_join": "keep one side in a table",
    "combine": "declare one agent on each topic",
    "noack": "offsets are committed with the transaction, never by record",
    "noack_take": "use take(n, within)",
    "take_events": "use take(n, within)",
    "take_with_timestamp": "use take(n, within)",
    "rate_limit": "limit where the records are written",
}


class Stream(faust.Stream[Any]):
    """`async for value in stream`, `.events()`, `.items()`, `.take(n, within)`, `.enumerate()`, `.filter(…)`."""

    app: Any
    channel: Any
    batch: Batch | None = None
    _value: Any = None
    _set_event: Any = None

    @property
    def current_event(self) -> Any:
        return self.batch.event(self._value) if self.batch is not None else self._set_event

    @current_event.setter
    def current_event(self, value: Any) -> None:  # the base class assigns it
        self._set_event = value

    def _event_now(self) -> Any:
        return self.current_event

    async def _next_batch(self) -> Batch | None:
        try:
            event = await self.channel.queue.get()
        except StopAsyncIteration:  # thrown into the queue when the agent is cancelled
            return None
        batch: Batch = event.value
        self.batch = batch
        enter(batch)
        # faust.current_event() calls it as it would a weak reference
        _current_event.set(self._event_now)  # type: ignore[arg-type]
        return batch

    def _end_batch(self, batch: Batch) -> None:
        self.batch = self._value = None
        _current_event.set(None)
        batch.finish()

    async def _values(self) -> AsyncIterator[Any]:
        self._finalized = True
        await self.maybe_start()
        decode, processors = self.channel.value_of, self._processors
        while not self.should_stop:
            batch = await self._next_batch()
            if batch is None:
                return
            cycle = batch.cycle
            for n, record in enumerate(batch.records):
                if cycle.error is not None:  # another agent failed: this transaction is lost
                    break
                batch.pos = n
                if n and not n % YIELD_EVERY:
                    await asyncio.sleep(0)
                try:
                    value = decode(record.value())
                except Poison as poison:
                    self.app.consumer.put_aside(batch, record, poison)
                    continue
                try:
                    for processor in processors:
                        value = await maybe_async(processor(value))
                except Skip:
                    continue
                self._value = value
                yield value
            self._end_batch(batch)

    def __aiter__(self) -> Any:
        if not isinstance(self.channel, Topic):
            raise Unsupported(
                "an agent on this driver reads a topic; an in-memory channel has no transaction"
            )
        return self._values()

    async def events(self) -> AsyncIterator[Any]:
        async for value in self._values():
            assert self.batch is not None
            yield self.batch.event(value)

    async def items(self) -> AsyncIterator[Any]:
        async for value in self._values():
            assert self.batch is not None
            assert self.batch.pos is not None
            yield self.batch.records[self.batch.pos].key(), value

    async def take(self, max_: int, within: Any = None) -> AsyncGenerator[Any, None]:
        """Lists of at most `max_` values, never of two transactions: what is there is given at once.

        `within` is therefore always kept. The list's records are processed when the next list is asked for.
        """
        if max_ < 1:
            raise Misuse(f"take: {max_} values make no list; ask for 1 or more")
        taken: list[Any] = []
        async for value in self._values():
            taken.append(value)
            assert self.batch is not None
            if len(taken) >= max_ or self._at_end():
                yield taken
                taken = []

    def _at_end(self) -> bool:
        """No readable record follows in this batch."""
        batch = self.batch
        assert batch is not None
        assert batch.pos is not None
        decode = self.channel.value_of
        for record in batch.records[batch.pos + 1 :]:
            try:
                decode(record.value())
            except Poison:
                continue
            return False
        return True


def _refuse(name: str, instead: str) -> Any:
    def refused(self: Stream, *args: Any, **kw: Any) -> Any:
        raise Unsupported(f"stream.{name}() is not exactly-once on this driver: {instead}")

    return refused


for _name, _instead in REFUSED.items():
    setattr(Stream, _name, _refuse(_name, _instead))


class Supervisor(OneForOneSupervisor):
    """Restarts a failed agent as often as it fails: how often a record is tried is the consumer's decision.

    mode loses a wake-up that arrives while it restarts a service (then it looks after 5 s): try again.
    """

    def __init__(self, *services: Any, **options: Any) -> None:
        super().__init__(*services, **{**options, "max_restarts": 1e9})

    def wakeup(self) -> None:
        if self._please_wakeup is not None:
            notify(self._please_wakeup)
        elif not self.should_stop:
            self.loop.call_later(0.005, self.wakeup)


class Agent(_Agent):
    """An exception in the agent fails its transaction; the agent starts again and sees the records again."""

    async def _replace_actor(self, service: Any, index: int) -> Any:
        actor = await super()._replace_actor(service, index)
        await actor.maybe_start()  # else the supervisor takes two more passes to see the next crash
        return actor

    def actor_from_stream(self, stream: Any, **options: Any) -> Any:
        """A restarted agent reads on from its stream and adds its processors and filters to it again."""
        if stream is not None:
            kept = self._maybe_unwrap_reply_request  # Faust's own, added only when a stream is made
            stream._processors[:] = [one for one in stream._processors if one == kept]
        return super().actor_from_stream(stream, **options)

    async def _execute_actor(self, coro: Any, aref: Any) -> None:
        async def guarded() -> None:
            try:
                await coro
                if not (self.should_stop or self.app.should_stop):
                    raise Misuse(
                        f"agent {self.name} left its loop: an agent must read its stream for ever"
                    )
            except BaseException as exc:
                batch = _running_batch()
                if batch is not None:
                    batch.finish(exc)
                raise

        await super()._execute_actor(guarded(), aref)

    def test_context(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported(
            "agent.test_context(): test the pure function that the agent calls, or a real broker"
        )

    def _ask(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported(
            "agent.ask(): an answer in a transaction can't be waited for inside it; send a topic"
        )

    ask = join = map = kvjoin = kvmap = _ask


def _running_batch() -> Batch | None:
    try:
        return current_batch()
    except Misuse:  # its transaction is over
        return None
