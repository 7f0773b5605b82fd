"""The floor: a bare confluent-kafka transactional loop that does the work of `bench/work.py`.

Nothing but what exactly-once needs: poll, decode, state in a dict, outputs and changelog, offsets, commit.
No restore, no rebalance, no errors handled: what a driver costs is what it takes beyond this.
"""

from __future__ import annotations

import argparse

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.work import BALANCE, DEPOSIT, DEPOSITED, decode, encode, step
from resilience.garbage import collect_rarely


def run(bootstrap: str, name: str, source: str, output: str, changelog: str, count: int) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "linger.ms": 40,
            "retry.backoff.ms": 1,
            "retry.backoff.max.ms": 50,
            "delivery.report.only.error": True,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 500_000,
        }
    )
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": name,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 5000,
            "fetch.wait.max.ms": 100,
        }
    )
    producer.init_transactions(30)
    consumer.subscribe([source])
    table: dict[bytes, dict] = {}
    done = 0
    while done < count:
        head = consumer.poll(0.5)
        if head is None:
            continue
        records = [head, *consumer.consume(1999, 0)]
        producer.begin_transaction()
        changed: dict[bytes, tuple[int, dict]] = {}
        positions: dict[int, int] = {}
        for record in records:
            key = record.key()
            row, out = step(table.get(key), decode(DEPOSIT, record.value()))
            table[key] = row
            changed[key] = (record.partition(), row)
            positions[record.partition()] = record.offset() + 1
            producer.produce(output, encode(DEPOSITED, out), key)
        for key, (partition, row) in changed.items():
            producer.produce(changelog, encode(BALANCE, row), key, partition)
        producer.send_offsets_to_transaction(
            [TopicPartition(source, p, o) for p, o in positions.items()],
            consumer.consumer_group_metadata(),
            30,
        )
        producer.commit_transaction(30)
        done += len(records)
    consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "name", "source", "output", "changelog"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--count", type=int, required=True)
    collect_rarely()
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
