"""Who holds a partition is asked while coordinators stand still and die: the one who asks lives on."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from confluent_kafka import Consumer

from streaming import Admin, close_member, partition_owners
from tests.streaming.kit import create

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.kafka import Kafka

ADDRESS = "127.0.0.1:6066"


def test_who_asks_outlives_the_coordinator(cluster: Callable[..., Kafka]) -> None:
    kafka = cluster(nodes=3)
    create(kafka.bootstrap, "t", partitions=3)
    member = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "g", "client.id": f"one@{ADDRESS}"}
    )
    member.subscribe(["t"])
    expected = dict.fromkeys(range(3), ADDRESS)
    deadline = time.monotonic() + 60
    with Admin({"bootstrap.servers": kafka.bootstrap}) as admin:
        while admin.ask(lambda client: partition_owners(client, "g")) != expected:
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
    close_member(member, "one")
