"""Topics: an agent's sends are part of its transaction; all other sends must say that they are not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import faust
from faust.exceptions import DecodeError
from faust.serializers import codecs
from faust.types import TP, ModelT, RecordMetadata

from streaming.context import current_batch, sending_batch
from streaming.errors import Misuse, Poison, refused

Headers = Iterable[tuple[str, bytes]] | Mapping[str, bytes] | None


class ValueCodec(Protocol):
    """Bytes to values and back; `loads` raises `streaming.Poison` for bytes that can't be read."""

    def loads(self, data: bytes) -> Any: ...

    def dumps(self, value: Any) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What becomes of a record that can't be read (`on_poison`) or whose agent fails (`on_error`).

    `dead-letter`: it goes to `dead_letters` in a transaction, with reason and origin, and the next one is
    taken. `stop`: its partition stops with an alert and the others go on. Nothing is ever skipped.
    """

    on_poison: str = "dead-letter"
    on_error: str = "stop"
    dead_letters: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("on_poison", self.on_poison), ("on_error", self.on_error)):
            if value not in {"dead-letter", "stop"}:
                raise ValueError(f"topic: {name} is {value!r}; use dead-letter or stop")


class _Sent:
    """What a send in a transaction answers: awaitable; the offset is known only after the commit."""

    __slots__ = ("metadata",)

    def __init__(self, topic: str) -> None:
        self.metadata = RecordMetadata(topic, -1, TP(topic, -1), -1)

    def __await__(self) -> Any:
        return self.metadata
        yield

    def result(self) -> RecordMetadata:
        return self.metadata


def _same(value: Any) -> Any:
    return value


def codec_of(
    kind: Any, serializer: Any, registry: Any
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(encode, decode) of a Faust type and serializer; bytes and value codecs skip Faust's registry.

    Values that are None or bytes already are not given to them.
    """
    if hasattr(serializer, "loads") and not isinstance(serializer, codecs.Codec):
        return serializer.dumps, serializer.loads
    if (kind in {None, bytes} and serializer == "raw") or (kind is bytes and serializer is None):
        return _same, _same
    return (
        lambda value: registry.dumps_value(kind, value, serializer=serializer),
        _unreadable_is_poison(lambda data: registry.loads_value(kind, data, serializer=serializer)),
    )


def key_bytes(key: Any, registry: Any, kind: Any, serializer: Any) -> bytes | None:
    """A record's key: bytes as they are, anything else by its key serializer; text as UTF-8 where there is none.

    Raises Misuse where that one makes no bytes of it.
    """
    if key is None or isinstance(key, bytes):
        return key
    if isinstance(key, str) and (serializer or registry.key_serializer) in {None, "raw"}:
        return key.encode()
    data = registry.dumps_key(kind, key, serializer=serializer)
    if not isinstance(data, bytes):
        raise Misuse(
            f"a key of {type(key).__name__} ({key!r}) is neither bytes nor text: give its topic key_serializer='json'"
        )
    return data


def _unreadable_is_poison(loads: Callable[..., Any]) -> Callable[..., Any]:
    """Faust's decoders say DecodeError of bytes that can't be read, today or ever."""

    def read(data: bytes | None) -> Any:
        try:
            return loads(data)
        except DecodeError as exc:
            raise Poison(str(exc)) from exc

    return read


class Topic(faust.Topic):
    """faust.Topic with a codec object if wanted (`value_codec`), and a policy for records that fail."""

    app: Any
    policy = Policy()
    _name: str | None = None
    _decode_key: Callable[..., Any] | None

    def __init__(
        self,
        app: Any,
        *,
        value_codec: ValueCodec | None = None,
        policy: Policy | None = None,
        **kw: Any,
    ) -> None:
        super().__init__(app, **kw)
        self.value_codec = value_codec
        self.policy = policy or Policy(dead_letters=f"{app.conf.id}.dead")
        for name in ("decode", "deliver"):  # Faust makes its own for each topic
            vars(self).pop(name, None)

    def clone_with(self, **changes: Any) -> Any:  # pragma: no cover - Faust's own derive path
        raise Misuse("derive a topic by declaring another one with app.topic(…)")

    def _clone_args(self) -> Mapping[str, Any]:
        return {**super()._clone_args(), "value_codec": self.value_codec, "policy": self.policy}

    def _bind(self) -> None:
        schema, registry = self.schema, self.app.serializers
        kind = schema.value_type if schema else self.value_type
        serializer = (
            self.value_codec or (schema and schema.value_serializer) or self.value_serializer
        )
        self._encode_value, self._decode_value = codec_of(kind, serializer, registry)
        model = self.value_codec is None and isinstance(kind, type) and issubclass(kind, ModelT)
        self._never_empty = model and not self.allow_empty
        kind = self._key_kind = schema.key_type if schema else self.key_type
        serializer = (schema and schema.key_serializer) or self.key_serializer
        self._key_serializer = serializer
        plain = kind in {None, bytes} and (serializer or registry.key_serializer) in {None, "raw"}
        self._decode_key = (
            None
            if plain
            else _unreadable_is_poison(
                lambda data: registry.loads_key(kind, data, serializer=serializer)
            )
        )
        self._name = self.get_topic_name()
        self._sent = _Sent(self._name)

    @property
    def loads(self) -> Callable[[bytes], Any]:
        """Decodes a record's bytes, of a record that has a value."""
        if self._name is None:
            self._bind()
        return self._decode_value

    def loads_empty(self) -> None:
        """What a record without value is. Raises Poison where each must be a model."""
        if self._name is None:
            self._bind()
        if self._never_empty:
            raise Poison(
                f"a record without value is none of {self.value_type}; declare {self._name} with allow_empty=True"
            )

    @property
    def loads_key(self) -> Callable[..., Any] | None:
        """Decodes a record's key; None where a key is the bytes that it is."""
        if self._name is None:
            self._bind()
        return self._decode_key

    def value_of(self, data: bytes | None) -> Any:
        """The value in a record's bytes; None for a record without value."""
        return None if data is None else self.loads(data)

    def encoded(self, key: Any, value: Any) -> tuple[bytes | None, bytes | None]:
        """A record's key and value as bytes; bytes stay as they are."""
        if self._name is None:
            self._bind()
        if type(key) is not bytes:
            key = key_bytes(key, self.app.serializers, self._key_kind, self._key_serializer)
        if value is not None and type(value) is not bytes:
            value, given = self._encode_value(value), value
            if not isinstance(value, bytes):
                raise Misuse(
                    f"topic {self._name}: its serializer makes no bytes of {given!r}: declare it with another one, "
                    f"or with a value_codec"
                )
        return key, value

    async def declare(self) -> None:
        """Create it unless it is there, with as many copies as were asked for, else as the brokers' default says."""
        self.replicas = self.replicas or self.app.replication
        await super().declare()

    # Faust's put hands an event to a channel in memory: on a topic it would bypass the transaction
    def put(  # type: ignore[override]
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int = -1,
        headers: Headers = None,
        timestamp_ms: int = 0,
    ) -> None:
        """Add a record to the running batch's transaction; bytes go as they are.

        Raises Misuse outside of an agent. What can never be written (too large, unknown partition) fails the
        record that wrote it, once the agents are done with the batch.
        """
        batch = current_batch()
        if batch is None:
            raise Misuse("put() belongs to an agent's transaction; use send() in a timer or page")
        self._put(batch, key, value, partition, headers, timestamp_ms)

    def _put(
        self, batch: Any, key: Any, value: Any, partition: int, headers: Any, timestamp_ms: int
    ) -> None:
        raw_key, data = self.encoded(key, value)
        if headers is not None:  # a copy: the agent may change its own
            headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        batch.cycle.produce(self._name, raw_key, data, partition, headers, timestamp_ms)

    async def send(
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        **unused: Any,
    ) -> Awaitable[RecordMetadata]:
        """Send in the agent's transaction; in a timer or page at once. `timestamp` is in seconds."""
        sent: Awaitable[RecordMetadata] = await self._send(
            key, value, partition, timestamp, headers, unused
        )
        return sent

    def send_soon(
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        **unused: Any,
    ) -> Any:
        """`send` without await: only in an agent's transaction."""
        batch = sending_batch()
        if batch is None:
            raise Misuse(
                "send_soon() outside of an agent would lose errors: use `await topic.send(…)`"
            )
        _refuse(unused)
        where = -1 if partition is None else partition
        self._put(batch, key, value, where, headers, int((timestamp or 0) * 1000))
        return self._sent

    async def _send(
        self,
        key: Any,
        value: Any,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        unused: Any,
    ) -> Any:
        _refuse(unused)
        batch = sending_batch()
        where = -1 if partition is None else partition
        timestamp_ms = int((timestamp or 0) * 1000)
        if batch is not None:
            self._put(batch, key, value, where, headers, timestamp_ms)
            return self._sent
        raw_key, data = self.encoded(key, value)
        producer = await self.app.maybe_start_producer()
        return await producer.send(self._name, raw_key, data, where, timestamp_ms / 1000, headers)


for _name, _instead in {
    "publish_message": "use send()",
    "as_future_message": "use send()",
    "decode": "use value_of(bytes)",
    "deliver": "send to the topic",
    "get": "read the topic in an agent",
    "derive": "declare another topic with app.topic(…)",
    "derive_topic": "declare another topic with app.topic(…)",
}.items():
    _sentence = f"topic.{_name}() passes by the transaction or the codec: {_instead}"
    setattr(Topic, _name, refused(_sentence))


def _refuse(unused: Mapping[str, Any]) -> None:
    named = sorted(name for name, value in unused.items() if value is not None and name != "force")
    if named:
        raise Misuse(f"send: {', '.join(named)} can't be given per record; declare a topic with it")
