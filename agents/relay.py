"""relay: facts that services off the money path hear, copied from `<service>.events`.

The sayer's transaction holds only what the saga needs; this one, of its own, takes each fact that
a relayed subscription names into the subscriber's inbox: the same bytes, the headers of a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.envelope import COPIED, SERVICES, running
from agents.recent import Recent
from schemas.errors import Unreadable
from topics.catalog import TOPICS
from topics.subscriptions import EVERY, SUBSCRIPTIONS, relays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.transact import Codec
    from domain.decider import Decider
    from topics.catalog import Installation


def relayed(deciders: dict[str, Decider]) -> dict[str, frozenset[bytes]]:
    """By service whose facts are relayed: the `ce_type` of those facts."""
    wanted = {row.event for row in SUBSCRIPTIONS if row.relay}
    return {
        name: types
        for name in SERVICES
        if (
            types := frozenset(
                f"streambank.{name}.{event.__name__}".encode()
                for event in deciders[name].events
                if event in wanted
            )
        )
    }


def copies(event: Any, partitions: int) -> Iterator[tuple[str, bytes | None, int]]:
    """Topic, key and partition (-1: by the key) of each copy of a fact."""
    for topic, key in relays(event):
        if key is EVERY:
            yield from ((topic, None, partition) for partition in range(partitions))
        else:
            yield topic, key.encode(), -1


class Relay:
    """The app that copies. It keeps no state."""

    def __init__(
        self,
        app: Any,
        deciders: dict[str, Decider],
        codec: Codec,
        installation: Installation,
        recent: Recent | None = None,
    ) -> None:
        self.app = app
        self.codec = codec
        self.installation = installation
        self._recent = recent or Recent()
        self._names = {topic.name: f"{installation.namespace}{topic.name}" for topic in TOPICS}
        for name, types in relayed(deciders).items():
            self._copy_from(name, types)

    def _copy_from(self, service: str, types: frozenset[bytes]) -> None:
        async def copy(stream: Any) -> None:
            async for value in stream:
                batch, record = running()
                headers = record.headers() or []
                if _type(headers) in types:
                    self._put(batch.cycle, record, value, headers)

        topic = self.app.topic(
            self._names[f"{service}.events"],
            key_type=bytes,
            value_type=bytes,
            value_serializer="raw",
            on_poison="stop",
            on_error="stop",
        )
        self.app.agent(topic, name=f"relay.{service}")(copy)

    def _put(
        self, cycle: Any, record: Any, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        if value is None:
            raise Unreadable("a fact without value")
        fact = self._recent.get(value) or self.codec.decode(value)
        at_ms = record.timestamp()[1]
        copied = [header for header in headers if header[0] in COPIED]
        for name, key, partition in copies(fact, self.installation.partitions):
            to = record.key() if key is None else key
            cycle.produce(self._names[name], to, value, partition, copied, at_ms)


def _type(headers: list[tuple[str, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == "ce_type":  # the second one of our own
            return value
    return None
