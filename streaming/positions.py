"""The reserved record in each changelog partition: which input its state reflects, under which topology.

Written in the same transaction as the state and the group's offsets, so the three can only differ when
somebody changed one of them by hand, let it expire, or runs other code: then a worker must not start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streaming.errors import Inconsistent

POSITION_KEY = b"\x00streaming.position"


def topology_hash(sources: Iterable[str], tables: Iterable[str], partitions: int) -> str:
    """Names what an app reads and keeps; another hash means that old state may not fit."""
    text = json.dumps([sorted(sources), sorted(tables), partitions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Next offset to read per source topic, for one partition number."""

    topology: str
    partitions: int
    topic_ids: Mapping[str, str]
    offsets: Mapping[str, int]

    def dumps(self) -> bytes:
        fields = {
            "topology": self.topology,
            "partitions": self.partitions,
            "topic_ids": dict(self.topic_ids),
            "offsets": dict(self.offsets),
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def loads(cls, data: bytes) -> Position:
        fields = json.loads(data)
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What this worker's code reads and keeps, and the ids of the topics as the broker has them now."""

    app_id: str
    sources: tuple[str, ...]
    tables: tuple[str, ...]
    partitions: int
    topic_ids: Mapping[str, str]
    adopt: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        return topology_hash(self.sources, self.tables, self.partitions)

    def position(self, offsets: Mapping[str, int]) -> Position:
        return Position(
            topology=self.hash,
            partitions=self.partitions,
            topic_ids=self.topic_ids,
            offsets=offsets,
        )


def check_position(
    topology: Topology,
    partition: int,
    committed: Mapping[str, int],
    kept: Position | None,
    changelog: str,
) -> None:
    """Raise Inconsistent, in one sentence, unless group, changelog and code agree on one partition number.

    `committed`: the group's stable offsets by topic, absent where it has none.
    """
    where = f"{topology.app_id}, partition {partition}"
    if kept is None:
        if committed and not topology.adopt:
            raise Inconsistent(
                f"{where}: group {topology.app_id} has committed {dict(committed)} but {changelog} has no position: "
                f"the changelog was lost or recreated; restore it, or rebuild this state under a new app id"
            )
        return
    adopted = kept.topology in topology.adopt
    if kept.partitions != topology.partitions:
        raise Inconsistent(
            f"{where}: the state in {changelog} was made with {kept.partitions} partitions, the topics have "
            f"{topology.partitions} now: keys have moved; replay into a new set of topics instead of adding partitions"
        )
    if kept.topology != topology.hash and not adopted:
        raise Inconsistent(
            f"{where}: the state in {changelog} was made by topology {kept.topology}, this code is {topology.hash} "
            f"(reads {', '.join(topology.sources)}; keeps {', '.join(topology.tables) or 'no tables'}): "
            f"stop all old workers, then start the new ones with adopt_topology={kept.topology}"
        )
    for topic, offset in kept.offsets.items():
        if topic not in topology.sources:
            continue
        if kept.topic_ids.get(topic) != topology.topic_ids.get(topic):
            raise Inconsistent(
                f"{where}: topic {topic} was deleted and created again since the state in {changelog} was made"
            )
        if topic not in committed:
            raise Inconsistent(
                f"{where}: the offset of {topic} in group {topology.app_id} is gone (expired, or the group was "
                f"deleted) but {changelog} reflects it up to {offset}: set the group's offset to {offset}, "
                f"then start again"
            )
        if committed[topic] != offset:
            raise Inconsistent(
                f"{where}: group {topology.app_id} stands at {committed[topic]} in {topic} but {changelog} reflects it "
                f"up to {offset}: somebody moved the offset; set it to {offset}, then start again"
            )
    for topic, offset in committed.items():
        if topic not in kept.offsets and not adopted:
            raise Inconsistent(
                f"{where}: group {topology.app_id} stands at {offset} in {topic}, of which {changelog} knows nothing"
            )


def check_log(app_id: str, topic: str, partition: int, committed: int, low: int, high: int) -> None:
    """Raise Inconsistent when a committed offset lies outside of its log."""
    if committed < low:
        raise Inconsistent(
            f"{app_id}: {topic}-{partition} starts at {low} but the group has read up to {committed}: "
            f"{low - committed} records were deleted before they were processed"
        )
    if committed > high:
        raise Inconsistent(
            f"{app_id}: {topic}-{partition} ends at {high} but the group has read up to {committed}: "
            f"the log was truncated or recreated"
        )
