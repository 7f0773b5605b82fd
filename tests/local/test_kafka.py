"""The local Kafka: starts, dies and comes back with what was acknowledged."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.kafka import MADE_BY, Kafka, brokers
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


def transactional(kafka: Kafka) -> Producer:
    return Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": "one"})


def read(kafka: Kafka, topic: str, count: int, partition: int = 0) -> list[int]:
    """So many committed records. Raises TimeoutError when they don't come."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: list[int] = []
    deadline = time.monotonic() + 30
    while len(found) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic}-{partition} gave {found}")
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


def test_a_transaction_ends_in_a_partition_that_had_no_leader(
    cluster: Callable[..., Kafka],
) -> None:
    """Its marker is written once the leader is back: until then who has its name waits (KAFKA-20734)."""
    kafka = cluster(nodes=3)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    config = {"min.insync.replicas": "1"}
    made = NewTopic("t", 3, replica_assignment=[[1], [2], [3]], config=config)
    admin.create_topics([made])["t"].result(30)
    opened = transactional(kafka)
    opened.init_transactions(30)
    opened.begin_transaction()
    for partition in range(3):
        opened.produce("t", b"-1", partition=partition)
    assert opened.flush(30) == 0
    kafka.kill(3)
    while admin.list_topics("t", 30).topics["t"].partitions[2].leader != -1:
        time.sleep(0.1)
    successor = transactional(kafka)
    with pytest.raises(KafkaException, match=r"CONCURRENT_TRANSACTIONS|_TIMED_OUT"):
        successor.init_transactions(3)
    kafka.restart(3)
    successor.init_transactions(60)
    successor.begin_transaction()
    for partition in range(3):
        successor.produce("t", b"%d" % partition, partition=partition)
    successor.commit_transaction(30)
    for partition in range(3):
        assert read(kafka, "t", 1, partition) == [partition]


def test_data_of_a_newer_kafka_is_refused_and_kept(tmp_path: Path) -> None:
    with Kafka(tmp_path) as kafka:
        create(kafka, "t")
        write(kafka, "t", 0, 10)
    mark = tmp_path / "data-1" / MADE_BY
    ours = mark.read_text()
    mark.write_text("99.0.0")
    with pytest.raises(StackError, match=f"made by 99.0.0 of Kafka, and {ours} can't read it"):
        Kafka(tmp_path).start()
    mark.unlink()
    with pytest.raises(StackError, match="make wipe"):
        Kafka(tmp_path).start()
    mark.write_text("4.0.0")
    with Kafka(tmp_path) as older:
        assert read(older, "t", 10) == list(range(10))


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
