"""Before an app joins its group: the topics of its own are made, and all that it stands on are checked.

Sources and changelogs must be co-partitioned, and a changelog must be compacted: what differs is refused with a
sentence, before anything is read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, NewTopic

from streaming.admin import ANSWER_S
from streaming.errors import Inconsistent, Misuse, kafka_error
from streaming.positions import Topology

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka.admin import AdminClient

    from streaming.admin import Admin

# how long a topic may be unknown before it is missing: a source, and one that this app has just made
SOURCE_S = 5.0
OWN_TOPIC_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What was found: `topic_ids` and `tombstones_s`, how long a deleted key's record is kept, by changelog."""

    topology: Topology
    topic_ids: Mapping[str, str]
    tombstones_s: Mapping[str, float]


def prepare(app: Any, admin: Admin, sources: Sequence[str]) -> Prepared:
    """Make the app's own topics, check all. Blocking. Raises Inconsistent, Misuse, KafkaException."""
    given = [name for name in sources if name not in app.repartitions]
    described = _describe(app.conf.id, admin, given, SOURCE_S)
    _create_own(app, admin, {name: len(found.partitions) for name, found in described.items()})
    changelogs = list(app.changelogs.values())
    described |= _describe(app.conf.id, admin, [*app.repartitions, *changelogs], OWN_TOPIC_S)
    ids = {name: str(found.topic_id) for name, found in described.items()}
    tombstones_s = _check_changelogs(app.conf.id, admin, changelogs)
    counts = {name: len(found.partitions) for name, found in described.items()}
    if len(set(counts.values())) > 1:
        raise Inconsistent(
            f"{app.conf.id}: sources and changelogs must have the same number of partitions, they have {counts}"
        )
    topology = Topology(
        app_id=app.conf.id,
        sources=tuple(sources),
        tables=tuple(sorted(app.tables)),
        partitions=next(iter(counts.values())),
        topic_ids={name: ids[name] for name in sources},
        adopt=app.driver.adopt_topology,
    )
    return Prepared(
        topology=topology,
        topic_ids={name: ids[name] for name in changelogs},
        tombstones_s=tombstones_s,
    )


def _create_own(app: Any, admin: Admin, partitions: Mapping[str, int]) -> None:
    """Repartition topics, dead letters, and the positions of an app without tables. `partitions`: of each source."""
    new = []
    config = {"cleanup.policy": "delete", "retention.ms": "-1"}
    letters = {
        policy.dead_letters: count
        for source, count in partitions.items()
        if "dead-letter" in {(policy := app.policy_of(source)).on_poison, policy.on_error}
    }
    copies = app.replication
    new += [NewTopic(name, count, copies, config=config) for name, count in letters.items()]
    for name, made in app.repartitions.items():
        count = partitions[made.source_topic]
        if made.partitions not in (None, count):
            raise Misuse(
                f"{app.conf.id}: group_by with partitions={made.partitions}, but {made.source_topic} has "
                f"{count}, and so must {name}: leave partitions= out"
            )
        new.append(NewTopic(name, count, copies, config=config))
    if not app.tables and partitions:
        count = next(iter(partitions.values()))
        config = {"cleanup.policy": "compact"}
        new.append(NewTopic(app.positions_topic, count, copies, config=config))
    _create_missing(app, admin, new)


def _create_missing(app: Any, admin: Admin, new: Sequence[NewTopic]) -> None:
    """Who may not create topics has had them made. Raises Inconsistent where the app shall not."""
    there = admin.ask(lambda client: client.list_topics(timeout=ANSWER_S)).topics
    missing = [topic for topic in new if topic.topic not in there]
    if app.conf.topic_allow_declare:
        for topic in missing:
            admin.create(topic)
        return
    tables = {name for name in app.changelogs.values() if name not in there}
    if names := sorted(tables | {topic.topic for topic in missing}):
        raise Inconsistent(
            f"{app.conf.id}: topics are missing ({', '.join(names)}), and topic_allow_declare forbids to create them: "
            f"have them made, changelogs with cleanup.policy=compact, or leave the setting out"
        )


def _describe(app_id: str, admin: Admin, names: Sequence[str], within_s: float) -> dict[str, Any]:
    """Descriptions of topics. Raises Inconsistent when one is missing.

    A topic that was created just now may not be known to each broker yet: asked again for a while.
    """
    if not names:
        return {}

    def question(client: AdminClient) -> tuple[dict[str, Any], dict[str, KafkaError]]:
        futures = client.describe_topics(TopicCollection([*names]), request_timeout=ANSWER_S)
        found, missing = {}, {}
        for name, future in futures.items():
            try:
                found[name] = future.result(31)
            except KafkaException as exc:
                missing[name] = kafka_error(exc)
                if missing[name].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        return found, missing

    began = time.monotonic()
    while True:
        found, missing = admin.ask(question)
        if not missing:
            return found
        if time.monotonic() - began > within_s:
            name, error = next(iter(missing.items()))
            raise Inconsistent(f"{app_id}: topic {name}: {error.str()}")
        time.sleep(0.1)


def _check_changelogs(app_id: str, admin: Admin, changelogs: list[str]) -> dict[str, float]:
    """Raise Inconsistent for one that deletes: it loses state. Answers how long each keeps a deleted key's record."""
    asked = {ConfigResource(ConfigResource.Type.TOPIC, name): name for name in changelogs}

    def question(client: AdminClient) -> dict[str, Any]:
        futures = client.describe_configs(list(asked), request_timeout=ANSWER_S)
        return {asked[resource]: future.result(31) for resource, future in futures.items()}

    kept_s = {}
    for name, found in admin.ask(question).items():
        if found["cleanup.policy"].value != "compact":
            raise Inconsistent(
                f"{app_id}: {name} has cleanup.policy {found['cleanup.policy'].value}: state would be lost; "
                f"set it to compact"
            )
        kept_s[name] = int(found["delete.retention.ms"].value) / 1000
    return kept_s
