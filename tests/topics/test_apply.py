"""What `topics apply` makes, alters and refuses, on a real broker."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from schemas.records import records, schema_id, whole
from topics.apply import TopicMismatch, apply, check
from topics.catalog import DAY_MS, TOPICS, Installation, Kind, Topic
from topics.schema_log import SchemaLog

if TYPE_CHECKING:
    from deploy.local.kafka import Kafka

ALICE = Topic(name="alice.inbox", kind=Kind.INBOX, key="account_id", writer="tests")


@pytest.fixture
def connection(kafka: Kafka) -> dict[str, Any]:
    return {"bootstrap.servers": kafka.bootstrap}


def configs(connection: dict[str, Any], name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    admin = AdminClient(connection)
    (future,) = admin.describe_configs([resource]).values()
    return {name: entry.value for name, entry in future.result(30).items()}


def settled(connection: dict[str, Any], name: str, setting: str, value: str) -> bool:
    """A broker answers with a topic's new settings a moment after it took them."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if configs(connection, name)[setting] == value:
            return True
    return False


def test_all_topics_are_made_once(connection: dict[str, Any], prefix: str) -> None:
    installation = Installation(namespace=prefix, partitions=2)
    with pytest.raises(TopicMismatch, match="run `topics apply`"):
        check(connection, installation)
    done = apply(connection, installation)
    assert len([line for line in done if "created" in line]) == len(TOPICS)
    check(connection, installation)
    assert apply(connection, installation) == []
    metadata = AdminClient(connection).list_topics(timeout=30).topics
    assert len(metadata[f"{prefix}account.inbox"].partitions) == 2
    assert len(metadata[f"{prefix}schemas"].partitions) == 1
    inbox = configs(connection, f"{prefix}account.inbox")
    assert inbox["message.timestamp.type"] == "LogAppendTime"
    assert configs(connection, f"{prefix}account.events")["retention.ms"] == "-1"
    assert configs(connection, f"{prefix}account-table-changelog")["cleanup.policy"] == "compact"


def test_another_partition_count_is_refused_and_nothing_changes(
    connection: dict[str, Any], prefix: str
) -> None:
    before = Installation(namespace=prefix, partitions=2)
    apply(connection, before, (ALICE,))
    after = replace(before, partitions=3, inbox_retention_ms=DAY_MS)
    with pytest.raises(TopicMismatch, match=r"alice\.inbox has 2 partitions .* say 3"):
        apply(connection, after, (ALICE, replace(ALICE, name="bob.inbox")))
    assert f"{prefix}bob.inbox" not in AdminClient(connection).list_topics(timeout=30).topics
    assert configs(connection, f"{prefix}alice.inbox")["retention.ms"] == str(7 * DAY_MS)


def test_a_retention_is_altered(connection: dict[str, Any], prefix: str) -> None:
    before = Installation(namespace=prefix)
    apply(connection, before, (ALICE,))
    done = apply(connection, replace(before, inbox_retention_ms=DAY_MS), (ALICE,))
    assert done == [f"{prefix}alice.inbox: retention.ms {7 * DAY_MS} -> {DAY_MS}"]
    assert settled(connection, f"{prefix}alice.inbox", "retention.ms", str(DAY_MS))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [(Kind.CHANGELOG, "cleanup.policy=delete, not compact"), (Kind.EVENTS, "LogAppendTime, not")],
)
def test_another_rule_for_what_is_there_is_refused(
    connection: dict[str, Any], prefix: str, kind: Kind, sentence: str
) -> None:
    installation = Installation(namespace=prefix)
    apply(connection, installation, (ALICE,))
    with pytest.raises(TopicMismatch, match=sentence):
        apply(connection, installation, (replace(ALICE, kind=kind),))


def test_workers_find_schemas_newer_than_themselves(
    connection: dict[str, Any], prefix: str
) -> None:
    apply(connection, Installation(namespace=prefix), [t for t in TOPICS if t.name == "schemas"])
    log = SchemaLog(connection, f"{prefix}schemas")
    try:
        for name in records():
            released = log(schema_id(whole(name)))  # its docs may have been better said since
            assert released is not None
            assert schema_id(json.loads(released)) == schema_id(whole(name))
        assert log(1) is None
        producer = Producer(connection)
        producer.produce(f"{prefix}schemas", b'"string"', b"1")
        producer.flush(30)
        log.read()
        assert log(1) == '"string"'
    finally:
        log.close()
