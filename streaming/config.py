"""What a worker of the driver is told; times are seconds."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """Options of one worker. Raises ValueError with one sentence when they don't fit each other.

    `instance` is the stable name of this worker (a StatefulSet's ordinal, a host name): it is part of the
    transactional id, so that a restarted worker aborts at once what its predecessor left open.
    """

    instance: str
    bootstrap: str
    client_address: str | None = (
        None  # host:port of this process's ops server, found by `partition_owners`
    )
    kafka: Mapping[str, Any] = field(default_factory=dict)  # security and other librdkafka settings
    store: str = "memory"  # or rocksdb
    state_dir: Path | None = None
    standby: bool = False
    static_membership: bool = False
    batch_max: int = 2_000  # records per transaction, over all tasks; fewer where agents take long
    poll_timeout_s: float = 0.1
    # shortest time between two transactions, for an app that nobody waits for: fewer and larger ones
    gather_s: float = 0.0
    session_timeout_s: float = 10.0
    cycle_timeout_s: float = 8.0  # agents must go on to the next record within this
    transaction_timeout_s: float = (
        10.0  # longest time that a dead worker's open transaction delays others
    )
    takeover_timeout_s: float = 120.0  # longest wait for another worker's open transaction
    retry_backoff_s: float = 0.2  # first pause before a suspect record is tried again; doubles
    retry_backoff_max_s: float = 10.0
    attempts: int = 5  # tries of a suspect record before its topic's policy is applied
    skip: frozenset[str] = (
        frozenset()
    )  # "topic-partition@offset" of records that an operator gives up
    adopt_topology: tuple[
        str, ...
    ] = ()  # old topologies' hashes, to take over their state on purpose
    faults: Callable[[str], None] | None = None  # tests: called at each named point of a cycle

    def __post_init__(self) -> None:
        if not self.instance:
            raise ValueError("driver: instance is empty; give each worker a stable name of its own")
        if self.session_timeout_s < 1:
            raise ValueError(
                f"driver: session_timeout_s ({self.session_timeout_s}) must be 1 or more"
            )
        for place in self.skip:
            if not re.fullmatch(r".+-\d+@\d+", place):
                raise ValueError(f"driver: skip {place!r} must be topic-partition@offset")
        if self.store not in {"memory", "rocksdb"}:
            raise ValueError(f"driver: store {self.store!r} is unknown; use memory or rocksdb")
        if self.store == "rocksdb" and self.state_dir is None:
            raise ValueError("driver: store rocksdb needs state_dir, the directory for its files")
        if self.batch_max < 1:
            raise ValueError(f"driver: batch_max ({self.batch_max}) must be 1 or more")

    def at(self, point: str) -> None:
        """A cycle passes a named point: `faults` may end it there."""
        if self.faults is not None:
            self.faults(point)

    def crash_file(self, app_id: str) -> Path:
        """Where a worker remembers what took it down."""
        directory = self.state_dir or Path(tempfile.gettempdir()) / "streaming"
        cluster = hashlib.sha256(self.bootstrap.encode()).hexdigest()[:8]
        return directory / f"{app_id}.{self.instance}.{cluster}.crashes"

    def client(self, app_id: str) -> dict[str, Any]:
        """librdkafka settings that all clients of an app share."""
        address = f"@{self.client_address}" if self.client_address else ""
        answer_ms = int(min(10.0, self.transaction_timeout_s / 2) * 1000)
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": f"{app_id}.{self.instance}{address}",
            # A client that lost all its brokers would forget them, and then wait for ever for the coordinator
            # that it remembers (librdkafka issue 5511): with one broker, after each cut connection.
            "metadata.recovery.strategy": "none",
            # a transaction must not time out while its client waits to connect again; 10 s by default
            "reconnect.backoff.max.ms": 1000,
            # What a broker that stands still may hold up, until another one is asked: half of a transaction, so
            # that it goes on with that one. A minute by default, and 10 s for a new connection's first answer.
            "socket.timeout.ms": answer_ms,
            "api.version.request.timeout.ms": answer_ms,
            # To send offsets a client waits for the group's coordinator that it remembers, and without end where that
            # broker has left the cluster and was forgotten. It looks again when one of its connections changes: one
            # that idles is closed, and the transaction is still in time.
            "connections.max.idle.ms": int(self.transaction_timeout_s * 500),
            **self.kafka,
        }

    def producer(self, app_id: str) -> dict[str, Any]:
        """Settings of the transactional producer (librdkafka's back-off costs 100 ms a transaction by default)."""
        return {
            **self.client(app_id),
            "transactional.id": f"{app_id}.{self.instance}",
            "transaction.timeout.ms": int(self.transaction_timeout_s * 1000),
            # what can't be written is given up while its transaction can still be aborted: later its worker would
            # be fenced, and start anew
            "delivery.timeout.ms": int(self.transaction_timeout_s * 700),
            "partitioner": "murmur2_random",
            # a commit sends what waits at once; under load fewer requests spare broker and client a fifth of their CPU
            "linger.ms": 40,
            # a record of the largest usual size must fit a dead letter, with its reason and origin;
            # a batch of several stays within what every topic takes
            "message.max.bytes": 2 << 20,
            "batch.size": 1_000_000,
            "retry.backoff.ms": 1,
            "retry.backoff.max.ms": 50,
            # a missing topic is told well within the transaction's time, not after 30 s
            "topic.metadata.propagation.max.ms": 1500,
            "delivery.report.only.error": False,
            "queue.buffering.max.messages": 500_000,
            "socket.nagle.disable": True,
        }

    def consumer(self, app_id: str) -> dict[str, Any]:
        """Settings of the group's consumer; it never commits or resets by itself."""
        member = (
            {"group.instance.id": f"{app_id}.{self.instance}"} if self.static_membership else {}
        )
        session_ms = int(self.session_timeout_s * 1000)
        return {
            **self.client(app_id),
            **member,
            "group.id": app_id,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,  # says what lag is: where a log ends for its readers
            "partition.assignment.strategy": "range",
            # The others say soon that a broker which stands still is out of the cluster, and who waits for it as
            # the coordinator, to join the group, asks the next one: after max.poll.interval.ms by default.
            "topic.metadata.refresh.interval.ms": 5000,
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": min(3000, session_ms // 3),
            "max.poll.interval.ms": max(int(self.cycle_timeout_s * 2000) + 30_000, session_ms),
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": max(1000, 2 * self.batch_max),
            "fetch.message.max.bytes": 256 << 10,
            "queued.max.messages.kbytes": 64 << 10,
            "socket.nagle.disable": True,
        }
