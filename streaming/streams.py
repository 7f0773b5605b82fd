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

from streaming.context import RAW, enter, running_batch
from streaming.dead_letters import put_aside
from streaming.errors import Misuse, Poison, Unsupported, refused
from streaming.repartition import Repartition, regroup
from streaming.topics import Topic

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from streaming.context import Batch

END: Any = object()  # of a batch, where it is asked for among the values
YIELD_EVERY = 200  # records after which timers, readers and heartbeats get their turn

REFUSED = {
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
    """`async for value in stream`, `.events()`, `.items()`, `.take(n, within)`, `.enumerate()`, `.filter(…)`,
    `.group_by(key)`.
    """

    app: Any
    agent: Agent | None = None
    reading = False  # the agent's body has asked for a first value
    repartition: Repartition | None = None
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
        batch.key = RAW  # another agent, of another key type, may have read it before
        self.batch = batch
        enter(batch)
        # faust.current_event() calls it as it would a weak reference
        _current_event.set(self._event_now)  # type: ignore[arg-type]
        return batch

    def _end_batch(self, batch: Batch) -> None:
        self.batch = self._value = None
        _current_event.set(None)
        batch.finish()

    def _values(
        self, shape: Callable[..., Any] | None = None, *, ends: bool = False
    ) -> AsyncGenerator[Any, None]:
        if not isinstance(self.channel, Topic):
            raise Unsupported(
                "a stream on this driver is of a topic; an in-memory channel or iterator has no transaction"
            )
        if self.repartition is not None:
            raise Misuse(
                f"agent {self.prefix} reads a stream that it grouped: read the one that group_by answered"
            )
        return self.values_for(self._processors, shape, ends=ends)

    async def values_for(
        self,
        processors: Sequence[Any],
        shape: Callable[..., Any] | None = None,
        *,
        ends: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """The values of all records, batch after batch, each through `processors`.

        `shape` makes what is given of batch, record and value; None gives the value. As in Faust it gets the value
        as it was decoded, which is also that of `current_event`. With `ends` each batch ends with END, also one that
        was given up.
        """
        self._finalized = self.reading = True
        await self.maybe_start()
        channel = self.channel
        loads, loads_empty, loads_key = channel.loads, channel.loads_empty, channel.loads_key
        while not self.should_stop:
            batch = await self._next_batch()
            if batch is None:
                return
            cycle, turn = batch.cycle, YIELD_EVERY
            for n, record in enumerate(batch.records):
                if cycle.error is not None:  # another agent failed: this transaction is lost
                    break
                batch.pos = n
                if n == turn:
                    turn += YIELD_EVERY
                    await asyncio.sleep(0)
                data = record.value()
                try:
                    value = loads_empty() if data is None else loads(data)
                    if loads_key is not None:
                        batch.key = loads_key(record.key())
                except Poison as poison:
                    put_aside(self.app, batch, record, poison)
                    continue
                self._value = decoded = value
                if processors:
                    try:
                        for processor in processors:
                            value = await maybe_async(processor(value))
                    except Skip:
                        continue
                yield value if shape is None else shape(batch, record, decoded)
            if ends:
                yield END
            self._end_batch(batch)

    def __aiter__(self) -> Any:
        return self._values()

    def group_by(
        self, key: Any, *, name: str | None = None, topic: Any = None, partitions: int | None = None
    ) -> Any:
        """This stream under another key: a field of its model, or a function of the value with a `name`.

        Each record is written again under its new key, in its own transaction, and read in the task of that
        key; its value, headers and timestamp stay. Processors and filters that were added before see each
        value twice, there and here: they must be pure. Raises Misuse or Unsupported, before anything is read.
        """
        return regroup(self, key, name, topic, partitions)

    def events(self) -> AsyncIterator[Any]:
        return self._values(_event)

    def items(self) -> AsyncIterator[Any]:
        return self._values(_item)

    async def take(self, max_: int, within: Any = None) -> AsyncGenerator[Any, None]:
        """Lists of at most `max_` values, never of two transactions: what is there is given at once.

        `within` is therefore always kept. The list's records are processed when the next list is asked for.
        """
        if max_ < 1:
            raise Misuse(f"take: {max_} values make no list; ask for 1 or more")
        taken: list[Any] = []
        last = 0  # where in its batch the last one of them is: what fails in the list is said of it
        async for value in self._values(ends=True):
            batch = self.batch
            assert batch is not None
            if value is not END:
                taken.append(value)
                last = batch.pos or 0
            elif batch.cycle.error is not None:
                taken = []  # its transaction is lost: all of it comes again
            if taken and (value is END or len(taken) >= max_):
                batch.pos = last
                yield taken
                taken = []


def _event(batch: Batch, _: Any, value: Any) -> Any:
    return batch.event(value)


def _item(batch: Batch, record: Any, value: Any) -> tuple[Any, Any]:
    return (record.key() if batch.key is RAW else batch.key), value


for _name, _instead in REFUSED.items():
    _sentence = f"stream.{_name}() is not exactly-once on this driver: {_instead}"
    setattr(Stream, _name, refused(_sentence))


class Supervisor(OneForOneSupervisor):
    """Restarts a failed agent as often as it fails: how often a record is tried is the decision of `suspects.py`.

    mode loses a wake-up that arrives while it restarts a service (then it looks after 5 s): try again.
    """

    def __init__(self, *services: Any, **options: Any) -> None:
        super().__init__(*services, **{**options, "max_restarts": 1e9})

    def wakeup(self) -> None:
        if self._please_wakeup is not None:
            notify(self._please_wakeup)
        elif not self.should_stop:
            self.loop.call_later(0.005, self.wakeup)


def _active(stream: Any) -> Any:
    """The stream that the agent's body reads: the given one, or what it grouped it into."""
    return stream.get_active_stream()


class Agent(_Agent):
    """An exception in the agent fails its transaction; the agent starts again and sees the records again."""

    app: Any

    async def _replace_actor(self, service: Any, index: int) -> Any:
        actor = await super()._replace_actor(service, index)
        await actor.maybe_start()  # else the supervisor takes two more passes to see the next crash
        return actor

    def actor_from_stream(self, stream: Any, **options: Any) -> Any:
        """A restarted agent reads on from its stream and adds its processors and filters to it again."""
        if stream is not None:
            _active(stream).reading = False
            kept = self._maybe_unwrap_reply_request  # Faust's own, added only when a stream is made
            stream._processors[:] = [one for one in stream._processors if one == kept]
        return super().actor_from_stream(stream, **options)

    def stream(self, *args: Any, **kw: Any) -> Any:
        stream: Any = super().stream(*args, **kw)
        stream.agent = self
        return stream

    @property
    def reading(self) -> bool:
        """True once each body has begun to read: from then on it adds no source."""
        actors = list(self._actors)
        return bool(actors) and all(_active(one.stream).reading for one in actors)

    async def _execute_actor(self, coro: Any, aref: Any) -> None:
        async def guarded() -> None:
            try:
                await coro
                if not (self.should_stop or self.app.should_stop):
                    raise Misuse(
                        f"agent {self.name} left its loop: an agent must read its stream for ever"
                    )
            except BaseException as exc:
                batch = running_batch()
                if batch is not None:
                    batch.finish(exc)
                elif isinstance(exc, (Misuse, Unsupported)) and not _active(aref.stream).reading:
                    self.app.fail_stop(exc)  # a restart would only raise it again
                    return
                raise

        await super()._execute_actor(guarded(), aref)

    def test_context(self, *args: Any, **options: Any) -> Any:
        """This agent alone, without a broker: `async with agent.test_context() as agent`; see `trial.Trial`."""
        from streaming.trial import Trial  # only tests need it; it is an Agent itself

        if args or options:
            raise Unsupported("agent.test_context() is of the agent as it is: it takes no options")
        return self.clone(cls=Trial)

    def _ask(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported(
            "agent.ask(): an answer in a transaction can't be waited for inside it; use agent.send(reply_to=topic)"
        )

    ask = ask_nowait = join = map = kvjoin = kvmap = _ask
