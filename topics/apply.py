"""`topics apply`: make the broker's topics what the catalog says, or say in one sentence why not.

What is missing is created, settings that lose nothing are altered. A partition count, a cleanup
policy or a kind of time stamp that differs is refused: the records that are there were written by
the other rule, and no setting changes them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from topics.catalog import SCHEMAS, TOPICS, Installation, Topic
from topics.schema_log import NEW_S, publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set
    from concurrent.futures import Future

ERRORS = 3  # of syslog's: librdkafka's notes on its own clean-up would stand before our sentence
TIMEOUT_S = 30
FIXED = frozenset({"cleanup.policy", "message.timestamp.type"})


class TopicMismatch(Exception):
    """A topic is there and is not what the catalog says; the message says what to do."""


def apply(
    kafka: Mapping[str, Any], installation: Installation, topics: Sequence[Topic] = TOPICS
) -> list[str]:
    """Bring the topics of an installation up to date; answers what was done, a line each.

    `kafka`: librdkafka's settings of the connection. Raises TopicMismatch before anything is
    changed, and KafkaException when the broker refuses or is away.
    """
    admin = AdminClient({**kafka, "log_level": ERRORS})
    wanted = {installation.namespace + topic.name: topic for topic in topics}
    found = _partition_counts(admin)
    present = {name: topic for name, topic in wanted.items() if name in found}
    configs = _configs(admin, present)
    _refuse(mismatches(present, found, configs, installation))
    done = [*_create(admin, wanted.keys() - found.keys(), wanted, installation)]
    done += _alter(admin, present, configs, installation)
    if any(topic.name == SCHEMAS for topic in topics):
        count = publish(kafka, installation.namespace + SCHEMAS)
        done += [f"{installation.namespace}{SCHEMAS}: {count} schemas written"] if count else []
    return done


def check(
    kafka: Mapping[str, Any], installation: Installation, topics: Sequence[Topic] = TOPICS
) -> None:
    """Raise TopicMismatch unless all topics are there and fit; changes nothing."""
    admin = AdminClient({**kafka, "log_level": ERRORS})
    wanted = {installation.namespace + topic.name: topic for topic in topics}
    found = _told(admin, wanted.keys(), NEW_S)
    if missing := sorted(wanted.keys() - found.keys()):
        raise TopicMismatch(f"topics are missing, run `topics apply`: {', '.join(missing)}")
    _refuse(mismatches(wanted, found, _configs(admin, wanted), installation))


def check_counts(partitions: Mapping[str, int], installation: Installation) -> None:
    """Raise TopicMismatch where a topic that is there (its partitions by name) has another count."""
    ours = {installation.namespace + topic.name: topic for topic in TOPICS}
    sentences = [
        sentence
        for name, topic in ours.items()
        if name in partitions
        for sentence in _other_count(name, topic, partitions[name], installation)
    ]
    _refuse(sentences)


def _other_count(name: str, topic: Topic, count: int, installation: Installation) -> list[str]:
    right = topic.partitions_in(installation)
    if count == right:
        return []
    return [
        f"topic {name} has {count} partitions and the settings say {right}: the count "
        "never changes, keys would move; set it back, or replay into new topics"
    ]


def mismatches(
    topics: Mapping[str, Topic],
    partitions: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
    installation: Installation,
) -> list[str]:
    """A sentence for each way in which a topic is not what it should be and can't be made so."""
    sentences = []
    for name, topic in topics.items():
        sentences += _other_count(name, topic, partitions[name], installation)
        for setting, value in topic.config(installation).items():
            if setting in FIXED and configs[name].get(setting) != value:
                sentences.append(
                    f"topic {name} has {setting}={configs[name].get(setting)}, not {value}: "
                    "what it holds was written by the other rule; replay it into a new topic"
                )
    return sentences


def _refuse(sentences: Sequence[str]) -> None:
    if sentences:
        raise TopicMismatch("\n".join(sentences))


def _partition_counts(admin: AdminClient) -> dict[str, int]:
    metadata = admin.list_topics(timeout=TIMEOUT_S)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def _configs(admin: AdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    futures = admin.describe_configs(resources, request_timeout=TIMEOUT_S)
    return {
        resource.name: {name: entry.value for name, entry in _result(future).items()}
        for resource, future in futures.items()
    }


def _create(
    admin: AdminClient,
    names: Set[str],
    wanted: Mapping[str, Topic],
    installation: Installation,
) -> list[str]:
    new = [
        NewTopic(
            name,
            num_partitions=wanted[name].partitions_in(installation),
            replication_factor=installation.replication,
            config=wanted[name].config(installation),
        )
        for name in sorted(names)
    ]
    if not new:
        return []
    for future in admin.create_topics(new, operation_timeout=TIMEOUT_S).values():
        _result(future)
    if missing := sorted(names - _told(admin, names, TIMEOUT_S).keys()):
        raise KafkaException(f"created and not seen in {TIMEOUT_S} s: {missing}")
    return [f"{topic.topic}: created, {topic.num_partitions} partitions" for topic in new]


def _told(admin: AdminClient, names: Set[str], wait_s: float) -> dict[str, int]:
    """Partition counts, once the brokers tell of these topics: they hear of new ones a moment after
    they are made. What there is after `wait_s` when they do not.
    """
    deadline = time.monotonic() + wait_s
    while names - (found := _partition_counts(admin)).keys() and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _alter(
    admin: AdminClient,
    topics: Mapping[str, Topic],
    configs: Mapping[str, Mapping[str, str]],
    installation: Installation,
) -> list[str]:
    resources, done = [], []
    for name, topic in topics.items():
        wrong = {
            setting: value
            for setting, value in topic.config(installation).items()
            if configs[name].get(setting) != value
        }
        if wrong:
            entries = [
                ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
                for setting, value in wrong.items()
            ]
            resources.append(ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries))
            done += [
                f"{name}: {setting} {configs[name].get(setting)} -> {value}"
                for setting, value in wrong.items()
            ]
    if resources:
        for future in admin.incremental_alter_configs(resources).values():
            _result(future)
    return done


def _result(future: Future[Any]) -> Any:
    try:
        return future.result(TIMEOUT_S)
    except TimeoutError as error:
        raise KafkaException(f"the broker did not answer in {TIMEOUT_S} s") from error
