"""Repartition: `stream.group_by(key)` writes each record again under a new key, and the body reads it there.

    source --run: the key of each value--> <app id>-<agent>-<name>-repartition --grouped--> the agent's body

The copy is an output of the source record's transaction. Its topic is one more source of the app, with as many
partitions: a record lands in the task of its new key, with that key's partition of all tables.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from decimal import Decimal
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import faust
from faust.exceptions import Skip
from faust.types.models import FieldDescriptorT
from mode.utils.futures import maybe_async

from streaming.context import running_batch
from streaming.errors import Misuse, Unsupported
from streaming.topics import key_bytes

if TYPE_CHECKING:
    import asyncio

    from streaming.streams import Stream

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Repartition:
    """A source stream's records under the key that `key` (a model's field, or a function) takes of their values."""

    def __init__(self, source: Stream, topic: str, key: Any, partitions: int | None) -> None:
        self.source, self.topic, self.key, self.partitions = source, topic, key, partitions
        self.source_topic = source.channel.get_topic_name()
        # at the source they decide what is written, and under which key; behind it what the body sees
        self.processors = tuple(source._processors)
        kind, serializer = _key_type(key)
        schema: Any = faust.Schema(
            key_type=kind,
            key_serializer=serializer,
            value_type=source.channel.schema.value_type,
            value_serializer=source.channel.schema.value_serializer,
            allow_empty=source.channel.schema.allow_empty,
        )
        channel = source.channel.clone(
            topics=[topic],
            is_iterator=True,
            internal=False,
            schema=schema,
            key_type=kind,
            key_serializer=serializer,
        )
        source.app.topics.add(channel)
        grouped: Any = source.clone(
            channel=channel,
            prev=source,
            prefix=source.prefix,
            processors=list(self.processors),
        )
        grouped.agent = source.agent
        self.grouped = grouped
        self._running: asyncio.Future[Any] | None = None

    def start(self) -> None:
        """Begin to write, unless it goes on already. It ends with the agent."""
        if self._running is None or self._running.done():
            assert self.source.agent is not None
            self._running = self.source.agent.add_future(self.run())

    def renew(self, key: Any) -> None:
        """The agent was restarted: its new body brought its key and its processors again."""
        self.key, self.processors = key, tuple(self.source._processors)
        self.grouped._processors[:] = self.processors
        self.start()

    async def run(self) -> None:
        """Write until the agent is cancelled. What fails here fails its record, as an agent would."""
        while not await self._run():
            pass
        self.grouped.channel._throw(StopAsyncIteration())  # ends the body, too

    async def _run(self) -> bool:
        """True when the source has ended, False when a record failed."""
        try:
            async with aclosing(self.source.values_for(())) as values:
                async for value in values:
                    await self._write(value)
        except BaseException as exc:
            batch = running_batch()
            if batch is not None:
                batch.finish(exc)
            if isinstance(exc, Exception):
                if batch is None:
                    self.source.app.fail_stop(exc)
                return batch is None
            raise
        return True

    async def _write(self, value: Any) -> None:
        batch = self.source.batch
        assert batch is not None
        assert batch.pos is not None
        record = batch.records[batch.pos]
        try:
            for processor in self.processors:
                value = await maybe_async(processor(value))
        except Skip:
            return
        key = await self._key_of(value)
        if key is None:
            raise Misuse(
                f"group_by into {self.topic}: a value's new key is None, so it belongs to no partition; "
                f"filter such values before group_by"
            )
        if not isinstance(key, (bytes, str)):
            key = key_bytes(key, self.source.app.serializers, None, "json")
        self.grouped.channel.put(
            key=key,
            value=record.value(),
            headers=record.headers(),
            timestamp_ms=max(0, record.timestamp()[1]),
        )

    async def _key_of(self, value: Any) -> Any:
        if isinstance(self.key, FieldDescriptorT):
            return self.key.getattr(value)
        return await maybe_async(self.key(value))


def _key_type(key: Any) -> tuple[Any, str]:
    """Type and serializer of the new keys as they are read: of a simple field its own, else they are bytes.

    As they are written: bytes and text as they are, anything else as JSON.
    """
    kind = key.type if isinstance(key, FieldDescriptorT) else None
    if len(some := set(get_args(kind)) - {NoneType}) == 1 and get_origin(kind) in {
        Union,
        UnionType,
    }:
        [kind] = some  # None has no partition
    if kind in (int, float, Decimal):
        return kind, "json"
    return (kind if kind in (str, bytes) else None), "raw"


def regroup(stream: Stream, key: Any, name: str | None, topic: Any, partitions: int | None) -> Any:
    """The stream of `stream`'s records under another key. Raises Misuse or Unsupported."""
    _check_stream(stream, topic)
    target = _topic_name(stream, key, name)
    found = stream.repartition
    if found is not None and found.topic == target:
        found.renew(key)
        return found.grouped
    if found is not None:
        raise Misuse(
            f"agent {stream.prefix} groups into {found.topic} already, and now into {target}: "
            f"group once in an agent, always in the same way; declare one agent for each key"
        )
    if stream.reading or stream.app.consumer.sources is not None:
        raise Misuse(
            f"agent {stream.prefix}: group_by comes too late, after the app joined its group; call it first "
            f"in the agent's body, before anything is read or awaited for long"
        )
    made = stream.repartition = Repartition(stream, target, key, partitions)
    stream._next = made.grouped
    stream.app.add_repartition(made)
    made.start()
    return made.grouped


def _check_stream(stream: Stream, topic: Any) -> None:
    if stream.agent is None:
        raise Misuse("stream.group_by() belongs to the body of an agent, on the stream it is given")
    if stream.concurrency_index is not None:
        raise Unsupported(
            f"agent {stream.prefix}: group_by with concurrency>1; leave concurrency out: the batches of a "
            f"partition are one after another anyway"
        )
    if topic is not None:
        raise Unsupported(
            f"agent {stream.prefix}: group_by has a topic of its own; leave topic= out"
        )
    if stream._prev is not None:
        raise Unsupported(
            f"agent {stream.prefix}: group_by of a stream that is grouped already; group it by the last key only"
        )


def _topic_name(stream: Stream, key: Any, name: str | None) -> str:
    if isinstance(key, FieldDescriptorT):
        name = name or key.ident
    elif not callable(key):
        raise Misuse(
            f"group_by: {key!r} is no key; give a model's field or a function of the value"
        )
    if not name:
        raise Misuse("group_by with a function needs name=: it names the topic, over all restarts")
    assert stream.agent is not None
    topic = f"{stream.app.conf.id}-{stream.agent.name}-{name}-repartition"
    if not _TOPIC_NAME.fullmatch(topic):
        raise Misuse(
            f"group_by: {topic!r} can't be a topic's name; give the agent (and the key) a name= of letters, "
            f"digits, dots, hyphens and underscores"
        )
    return topic
