"""The catalog names every topic that the code speaks of, once."""

from __future__ import annotations

from collections import Counter

from domain.services import DECIDERS
from topics.catalog import TOPICS, Installation, Kind
from topics.subscriptions import SUBSCRIPTIONS

NAMES = Counter(topic.name for topic in TOPICS)


def test_each_name_stands_once() -> None:
    assert [name for name, count in NAMES.items() if count > 1] == []


def test_every_subscribed_topic_is_there() -> None:
    assert {row.topic for row in SUBSCRIPTIONS} - NAMES.keys() == set()


def test_every_service_has_its_topics() -> None:
    for decider in DECIDERS.values():
        kinds = {topic.kind for topic in TOPICS if topic.name.startswith(f"{decider.service}.")}
        assert {Kind.INBOX, Kind.EVENTS, Kind.DEAD} <= kinds
        assert (Kind.PRIVATE in kinds) is bool(decider.private_events)
        assert f"{decider.service}-table-changelog" in NAMES


def test_events_are_kept_for_ever_and_inboxes_have_the_brokers_time() -> None:
    installation = Installation()
    for topic in TOPICS:
        config = topic.config(installation)
        if topic.kind in (Kind.EVENTS, Kind.PRIVATE, Kind.DEAD):
            assert config["retention.ms"] == "-1"
        is_inbox = topic.name.endswith(".inbox")
        assert (config["message.timestamp.type"] == "LogAppendTime") is is_inbox


def test_one_replica_may_be_away() -> None:
    assert [Installation(replication=n).min_insync for n in (1, 2, 3)] == [1, 1, 2]
