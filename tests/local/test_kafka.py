"""The local Kafka: starts, dies and comes back with what was acknowledged."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.kafka import Kafka, brokers
from deploy.local.processes import StackError, end, free_port, identify, recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def create(kafka: Kafka, topic: str, replication: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_topics([NewTopic(topic, 1, replication)]).values():
        future.result(30)


def write(kafka: Kafka, topic: str, first: int, last: int) -> None:
    """Acknowledged by all in-sync replicas when it returns."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    failed: list[object] = []
    for n in range(first, last):
        producer.produce(
            topic, str(n).encode(), on_delivery=lambda error, _: error and failed.append(error)
        )
    assert producer.flush(60) == 0
    assert not failed


def read(kafka: Kafka, topic: str, count: int) -> list[int]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[int] = []
    while len(found) < count:
        found += [int(m.value()) for m in consumer.consume(count, 1) if not m.error()]
    consumer.close()
    return found


def test_the_shared_broker_is_ready(kafka: Kafka, prefix: str) -> None:
    assert brokers("127.0.0.1", kafka.port()) == 1
    create(kafka, f"{prefix}t")
    write(kafka, f"{prefix}t", 0, 10)
    assert read(kafka, f"{prefix}t", 10) == list(range(10))


def test_a_killed_broker_comes_back_with_what_it_acknowledged(
    cluster: Callable[..., Kafka],
) -> None:
    kafka = cluster()
    create(kafka, "t")
    write(kafka, "t", 0, 1_000)
    kafka.kill()
    assert brokers("127.0.0.1", kafka.port()) == 0
    kafka.restart()
    write(kafka, "t", 1_000, 1_100)
    assert read(kafka, "t", 1_100) == list(range(1_100))


def test_a_stopped_broker_goes_on_under_the_same_directory_and_another_port(
    tmp_path: Path,
) -> None:
    with Kafka(tmp_path) as first:
        create(first, "t")
        write(first, "t", 0, 10)
    with Kafka(tmp_path) as second:
        assert second.port() != first.port()
        assert read(second, "t", 10) == list(range(10))


def test_three_nodes_go_on_without_one_of_them(cluster: Callable[..., Kafka]) -> None:
    kafka = cluster(nodes=3)
    create(kafka, "t", replication=3)
    write(kafka, "t", 0, 100)
    leader = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics("t")
    kafka.kill(leader.topics["t"].partitions[0].leader)
    write(kafka, "t", 100, 200)
    kafka.restart(leader.topics["t"].partitions[0].leader)
    assert read(kafka, "t", 200) == list(range(200))


def test_a_frozen_broker_answers_again_after_the_thaw(cluster: Callable[..., Kafka]) -> None:
    kafka = cluster()
    kafka.freeze()
    assert brokers("127.0.0.1", kafka.port()) == 0
    kafka.thaw()
    kafka.wait_ready()


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StackError) as refused:
        Kafka(tmp_path, port).start()
    assert str(refused.value) == (
        f"port {port} is in use by another process: stop it, or set STREAMBANK_KAFKA_PORT "
        "to a free port"
    )


CRASHES = """
import os, sys
from pathlib import Path
from deploy.local import processes
from deploy.local.kafka import Kafka
processes._when_orphaned = lambda number: []   # as if the kernel could not tell the child
kafka = Kafka(Path(sys.argv[1]), int(sys.argv[2])).start()
print(kafka.pid(), flush=True)
os._exit(1)
"""


def test_what_a_crashed_run_left_is_replaced(tmp_path: Path) -> None:
    port = free_port()
    crashed = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path), str(port)],
        capture_output=True,
        text=True,
        check=False,
    )
    left = identify(int(crashed.stdout))
    assert left is not None
    assert recorded(tmp_path / "kafka-1.pid") == left
    try:
        with Kafka(tmp_path, port) as kafka:
            assert kafka.pid() != left.pid
            assert identify(left.pid) != left
    finally:
        end(left, grace_s=0)


def test_a_pid_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    """The pid is ours, this test's own; the start time is not."""
    myself = identify(os.getpid())
    assert myself is not None
    (tmp_path / "kafka-1.pid").write_text(f"{myself.pid} {myself.started - 1} {myself.boot}\n")
    assert recorded(tmp_path / "kafka-1.pid") is None
    with Kafka(tmp_path):
        assert identify(os.getpid()) == myself
