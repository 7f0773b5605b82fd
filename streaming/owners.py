"""Who holds a partition: read from the group's description, where each worker's client id has its address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

UNMET_S = 3600.0


def described(admin: AdminClient, group: str, timeout_s: float) -> Any:
    """What the coordinator says of a group; blocking.

    Raises KafkaException, _TIMED_OUT when it does not answer in time: then ask with another client. To librdkafka a
    time is told that is never over: where one is, it may end the process (its issue 4605).
    """
    future = admin.describe_consumer_groups([group], request_timeout=UNMET_S)[group]
    try:
        return future.result(timeout_s)
    except TimeoutError as exc:
        late = f"group {group}: its coordinator did not answer within {timeout_s:g} s"
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, late)) from exc


def partition_owners(admin: AdminClient, group: str, timeout_s: float = 5.0) -> dict[int, str]:
    """partition -> "host:port" of the worker that holds it; partitions in motion are missing.

    Raises as `described` does.
    """
    owners: dict[int, str] = {}
    for member in described(admin, group, timeout_s).members:
        _, _, address = member.client_id.partition("@")
        if address and member.assignment is not None:
            owners.update({tp.partition: address for tp in member.assignment.topic_partitions})
    return owners
