"""What a query reads of the logs: only the events of its period, only one partition's rows at a time."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from domain.account import AccountOpened
from schemas.codec import Codec
from topics.catalog import Installation
from travel.schema import BY_NAME
from travel.snapshot import Snapshot, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from proof.reader import LogRecord

PARTITIONS = 2
FIRST_MS = 1_750_000_000_000
COUNT = 300  # events of a partition, one a second


@pytest.fixture
def source(kafka: Any, prefix: str) -> Source:
    at, topic = {"bootstrap.servers": kafka.bootstrap}, f"{prefix}account.events"
    admin = AdminClient(at)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    producer, codec = Producer({**at, "batch.num.messages": 10}), Codec()
    for n in range(COUNT):
        for partition in range(PARTITIONS):
            at_ms = FIRST_MS + n * 1_000
            opened = AccountOpened(
                account_id=f"A{n}",
                user_id="U-ann",
                name="everyday",
                currencies=("USD",),
                overdraft_limits={},
                request_hash="h",
                version=1,
                at_ms=at_ms,
            )
            key, value = opened.account_id.encode(), codec.encode(opened)
            producer.produce(topic, value, key, partition, timestamp=at_ms)
    assert producer.flush(30) == 0
    return Source(at, Installation(namespace=prefix, partitions=PARTITIONS), codec)


def test_events_before_a_period_are_not_read(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot(source, FIRST_MS + COUNT * 1_000)
    read = 0
    whole = snapshot._reader.records

    def counted(topic: str, partition: int, start: int | None = None) -> Iterator[LogRecord]:
        nonlocal read
        for record in whole(topic, partition, start):
            read += 1
            yield record

    monkeypatch.setattr(snapshot._reader, "records", counted)
    try:
        found = list(snapshot.events("account", FIRST_MS + (COUNT - 5) * 1_000))
        assert [line["subject"] for line in found] == [f"A{COUNT - n}" for n in range(5, 0, -1)] * 2
        assert read <= PARTITIONS * 15  # a batch of ten is found whole
        assert list(snapshot.events("account", FIRST_MS + COUNT * 1_000)) == []
        assert len(list(snapshot.events("account"))) == PARTITIONS * COUNT
    finally:
        snapshot.close()


class Rows(dict[str, Any]):
    """Rows that can be watched."""


def test_the_rows_of_one_partition_are_held_at_a_time(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded, kept = Snapshot._partition, weakref.WeakValueDictionary[int, Rows]()

    def watched(self: Snapshot, service: str, partition: int) -> Mapping[str, Any]:
        assert not kept
        rows = kept[partition] = Rows(folded(self, service, partition))
        return rows

    monkeypatch.setattr(Snapshot, "_partition", watched)
    snapshot = Snapshot(source, FIRST_MS + COUNT * 1_000)
    try:
        lines = list(snapshot.lines("account", [BY_NAME["accounts"], BY_NAME["legs"]]))
    finally:
        snapshot.close()
    assert {name for name, _ in lines} == {"accounts"}
    assert len(lines) == PARTITIONS * COUNT
