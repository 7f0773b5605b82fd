"""Where the plain consumers, perform and project, read and write, and how their clients are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """`namespace` goes before each topic and group; times in seconds."""

    kafka: Mapping[str, Any]  # bootstrap.servers and security
    namespace: str = ""
    instance: str = "0"
    static_membership: bool = False  # a worker that comes back under its name keeps its partitions
    session_timeout_s: float = 10.0
    address: str = ""  # host:port of this process's ops server, found by `partition_owners`
    skip: frozenset[str] = frozenset()  # records that a person gives up, topic-partition@offset

    def named(self, name: str) -> str:
        """A topic or a group as this installation calls it."""
        return f"{self.namespace}{name}"

    def consumer(self, group: str, **more: Any) -> dict[str, Any]:
        """Settings of a consumer of what is committed, whose offsets are committed by hand."""
        name = f"{self.named(group)}.{self.instance}"
        return {
            **self.kafka,
            "client.id": f"{name}@{self.address}" if self.address else name,
            **({"group.instance.id": name} if self.static_membership else {}),
            "group.id": self.named(group),
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "session.timeout.ms": int(self.session_timeout_s * 1000),
            "fetch.queue.backoff.ms": 10,
            **more,
        }
