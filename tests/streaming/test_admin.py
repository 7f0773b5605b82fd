"""Questions to the brokers that pass by themselves, asked again."""

from __future__ import annotations

import threading

from confluent_kafka.admin import AdminClient, NewPartitions
from faust.types import TP

from streaming.admin import LATEST, Admin
from tests.streaming.kit import create


def test_a_partition_that_a_broker_does_not_know_yet_is_asked_for_again(
    bootstrap: str, prefix: str
) -> None:
    """As of a broker that has just come back, whose view of the topic is still of before."""
    topic = f"{prefix}grows"
    create(bootstrap, topic, partitions=2)
    config = {"bootstrap.servers": bootstrap}
    client = AdminClient(config)

    def grow() -> None:
        client.create_partitions([NewPartitions(topic, 3)])[topic].result(20)

    later = threading.Timer(1.0, grow)
    later.start()
    with Admin(config) as admin:
        assert admin.log_ends([TP(topic, 2)], LATEST) == {TP(topic, 2): 0}
    later.join()
