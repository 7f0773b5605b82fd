"""Who holds a partition is asked while coordinators stand still and die: the one who asks lives on."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from streaming import partition_owners

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.kafka import Kafka

ADDRESS = "127.0.0.1:6066"


def owners(kafka: Kafka) -> dict[int, str]:
    """As a client that remembers nothing is told; empty while the coordinator is only coming up."""
    with suppress(KafkaException, TimeoutError):
        return partition_owners(AdminClient({"bootstrap.servers": kafka.bootstrap}), "g")
    return {}


def test_who_asks_outlives_the_coordinator(cluster: Callable[..., Kafka]) -> None:
    kafka = cluster(nodes=3)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic("t", 3, 3)])["t"].result(30)
    member = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "g", "client.id": f"one@{ADDRESS}"}
    )
    member.subscribe(["t"])
    expected = dict.fromkeys(range(3), ADDRESS)
    deadline = time.monotonic() + 60
    while owners(kafka) != expected:
        assert time.monotonic() < deadline
        member.poll(0.1)
    command = [sys.executable, "-m", "tests.streaming.asker", kafka.bootstrap, "g"]
    asker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(1)
        for node in kafka.nodes:
            kafka.kill(node)
            time.sleep(1)
            kafka.restart(node)
            kafka.freeze(node)
            time.sleep(1.5)
            kafka.thaw(node)
            time.sleep(0.5)
        assert asker.poll() is None, asker.returncode
    finally:
        asker.terminate()
    said = asker.communicate(timeout=30)[0].split()
    assert asker.returncode == 0
    assert int(said[1].rstrip(",")) > 0
    assert int(said[3]) > 0, "no look-up met a coordinator that stood still"
    member.close()
