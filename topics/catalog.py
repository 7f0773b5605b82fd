"""Every topic on one page: who writes it, what its key is, how long it keeps what.

    <service>.inbox    what a service decides, in the order of deciding; its time is the broker's
    <service>.events   what it said, for ever: the event store
    <service>.private  what it said to itself alone (credentials)
    <service>.dead     what could not be read, with its reason and origin
    <app>-…-changelog  its rows, the last of each key

All but `schemas` have the installation's number of partitions, which never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from domain.services import DECIDERS
from topics.subscriptions import EMAIL, FEED, PUSH, RAIL, REPORTS, SMS, WEBHOOK

if TYPE_CHECKING:
    from settings import Settings

DAY_MS = 24 * 3600 * 1000
FOR_EVER = -1
INBOX_RETENTION_MS = 7 * DAY_MS
# longer than a worker's files may lie unused: a deleted row must not come back from an old store
TOMBSTONE_MS = 30 * DAY_MS
# a dead letter is the record that died and some headers more
DEAD_BYTES = 2 << 20

RELAY, OBSERVE = "relay", "observe"  # the apps of agents/relay.py and observe.py
SCHEMAS = "schemas"
REDRIVEN = "redrive-positions"  # which letters went back: a group's offsets expire, letters do not


class Kind(StrEnum):
    INBOX = "inbox"
    EVENTS = "events"
    PRIVATE = "private"
    DEAD = "dead"
    CHANGELOG = "changelog"
    EFFECTS = "effects"
    SCHEMAS = "schemas"


# the broker's time is the one clock; elsewhere a record has the time of what led to it
BROKER_TIME = frozenset({Kind.INBOX, Kind.EFFECTS})
COMPACTED = frozenset({Kind.CHANGELOG, Kind.SCHEMAS})
EXPIRING = frozenset({Kind.INBOX, Kind.EFFECTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What two installations may set differently. `namespace` goes before each topic's name."""

    namespace: str = ""
    partitions: int = 3
    replication: int = 1
    inbox_retention_ms: int = INBOX_RETENTION_MS

    @classmethod
    def of(cls, settings: Settings) -> Installation:
        return cls(
            namespace=settings.prefix,
            partitions=settings.partitions,
            replication=settings.replication,
            inbox_retention_ms=settings.inbox_retention_hours * 3600 * 1000,
        )

    @property
    def min_insync(self) -> int:
        """One replica may be away."""
        return max(1, self.replication - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic, by its name without the installation's namespace."""

    name: str
    kind: Kind
    key: str  # what the record's key is
    writer: str
    partitions: int | None = None  # None: the installation's

    def partitions_in(self, installation: Installation) -> int:
        return self.partitions or installation.partitions

    def config(self, installation: Installation) -> dict[str, str]:
        """What the broker is told about it."""
        stamp = "LogAppendTime" if self.kind in BROKER_TIME else "CreateTime"
        config = {
            "message.timestamp.type": stamp,
            "min.insync.replicas": str(installation.min_insync),
        }
        if self.kind in COMPACTED:
            return {**config, "cleanup.policy": "compact", "delete.retention.ms": str(TOMBSTONE_MS)}
        retention_ms = installation.inbox_retention_ms if self.kind in EXPIRING else FOR_EVER
        config |= {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
        return config | ({"max.message.bytes": str(DEAD_BYTES)} if self.kind is Kind.DEAD else {})


def _of(service: str, has_secrets: bool) -> tuple[Topic, ...]:
    """The topics that each service has."""
    topics = (
        Topic(
            name=f"{service}.inbox",
            kind=Kind.INBOX,
            key="aggregate id",
            writer="the gateway and whoever says what it hears",
        ),
        Topic(name=f"{service}.events", kind=Kind.EVENTS, key="aggregate id", writer=service),
        Topic(name=f"{service}.dead", kind=Kind.DEAD, key="as it was", writer=service),
        Topic(
            name=f"{service}-table-changelog",
            kind=Kind.CHANGELOG,
            key="row key",
            writer=service,
        ),
    )
    private = Topic(
        name=f"{service}.private", kind=Kind.PRIVATE, key="aggregate id", writer=service
    )
    return (*topics, private) if has_secrets else topics


TOPICS: tuple[Topic, ...] = (
    *(
        topic
        for decider in DECIDERS.values()
        for topic in _of(decider.service, bool(decider.private_events))
    ),
    Topic(name=FEED, kind=Kind.EFFECTS, key="fetch_id", writer="currency"),
    Topic(name=RAIL, kind=Kind.EFFECTS, key="transaction_id", writer="payment"),
    Topic(name=REPORTS, kind=Kind.EFFECTS, key="report_id", writer="reporting"),
    *(
        Topic(name=name, kind=Kind.EFFECTS, key="user_id", writer="notification")
        for name in (EMAIL, SMS, PUSH, WEBHOOK)
    ),
    *(
        topic
        for app in (RELAY, OBSERVE)
        for topic in (
            Topic(
                name=f"{app}-positions-changelog", kind=Kind.CHANGELOG, key="position", writer=app
            ),
            Topic(name=f"{app}.dead", kind=Kind.DEAD, key="as it was", writer=app),
        )
    ),
    Topic(
        name=REDRIVEN,
        kind=Kind.CHANGELOG,
        key="dead-letter topic-partition",
        writer="redrive",
        partitions=1,
    ),
    Topic(
        name=SCHEMAS,
        kind=Kind.SCHEMAS,
        key="schema id, decimal",
        writer="topics apply",
        partitions=1,
    ),
)
