"""relay: facts that services off the money path hear, copied from `<service>.events`.

The sayer's transaction holds only what the saga needs; this one, of its own, takes each fact that
a relayed subscription names into the subscriber's inbox: the same bytes, the same headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.envelope import SERVICES, running_record
from schemas.errors import Unreadable
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
        self, app: Any, deciders: dict[str, Decider], codec: Codec, installation: Installation
    ) -> None:
        self.app = app
        self.codec = codec
        self.installation = installation
        self._topics: dict[str, Any] = {}
        for name, types in relayed(deciders).items():
            self._copy_from(name, types)

    def _topic(self, name: str) -> Any:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = self.app.topic(
                f"{self.installation.namespace}{name}",
                key_type=bytes,
                value_type=bytes,
                value_serializer="raw",
                on_poison="stop",
                on_error="stop",
            )
        return topic

    def _copy_from(self, service: str, types: frozenset[bytes]) -> None:
        async def copy(stream: Any) -> None:
            async for value in stream:
                record = running_record()
                headers = record.headers() or []
                if dict(headers).get("ce_type") in types:
                    self._put(record, value, headers)

        self.app.agent(self._topic(f"{service}.events"), name=f"relay.{service}")(copy)

    def _put(self, record: Any, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        if value is None:
            raise Unreadable("a fact without value")
        for name, key, partition in copies(self.codec.decode(value), self.installation.partitions):
            self._topic(name).put(
                key=record.key() if key is None else key,
                value=value,
                partition=partition,
                headers=headers,
                timestamp_ms=record.timestamp()[1],
            )
