"""Who holds a partition: read from the group's description, where each worker's client id has its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


def partition_owners(admin: AdminClient, group: str, timeout_s: float = 5.0) -> dict[int, str]:
    """partition -> "host:port" of the worker that holds it; partitions in motion are missing.

    Raises KafkaException when the broker does not answer in time.
    """
    future = admin.describe_consumer_groups([group], request_timeout=timeout_s)[group]
    owners: dict[int, str] = {}
    for member in future.result(timeout_s + 1).members:
        _, _, address = member.client_id.partition("@")
        if address and member.assignment is not None:
            owners.update({tp.partition: address for tp in member.assignment.topic_partitions})
    return owners
