"""The work that all contenders of `bench/driver.py` do, event by event: one table write, one output.

    Deposit (6 Avro fields) -> balance of its account + amount -> Deposited (6 Avro fields)

Broker time stamps the outputs (LogAppendTime), so a contender's rate is read off its own output topic:
from the first committed output to the last, start-up excluded.
"""

from __future__ import annotations

import io
import random
import time
from dataclasses import dataclass
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 3
KEYS = 10_000

DEPOSIT = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Deposit",
        "fields": [
            {"name": "deposit_id", "type": "string"},
            {"name": "account_id", "type": "string"},
            {"name": "amount_minor", "type": "long"},
            {"name": "currency", "type": "string"},
            {"name": "reference", "type": "string"},
            {"name": "at_ms", "type": "long"},
        ],
    }
)
BALANCE = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Balance",
        "fields": [
            {"name": "account_id", "type": "string"},
            {"name": "balance_minor", "type": "long"},
            {"name": "version", "type": "long"},
        ],
    }
)
DEPOSITED = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Deposited",
        "fields": [
            {"name": "deposit_id", "type": "string"},
            {"name": "account_id", "type": "string"},
            {"name": "amount_minor", "type": "long"},
            {"name": "currency", "type": "string"},
            {"name": "balance_minor", "type": "long"},
            {"name": "at_ms", "type": "long"},
        ],
    }
)


def encode(schema: Any, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def decode(schema: Any, data: bytes) -> dict[str, Any]:
    return fastavro.schemaless_reader(io.BytesIO(data), schema, None)


def step(
    balance: dict[str, Any] | None, deposit: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The new balance row and the output of one deposit."""
    account_id, amount = deposit["account_id"], deposit["amount_minor"]
    before, version = (balance["balance_minor"], balance["version"]) if balance else (0, 0)
    row = {"account_id": account_id, "balance_minor": before + amount, "version": version + 1}
    output = {
        "deposit_id": deposit["deposit_id"],
        "account_id": account_id,
        "amount_minor": amount,
        "currency": deposit["currency"],
        "balance_minor": before + amount,
        "at_ms": deposit["at_ms"],
    }
    return row, output


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of one contender's topics; its input is shared, so that all read the same bytes."""

    input: str
    output: str
    changelog: str


def create(bootstrap: str, names: dict[str, dict[str, str]]) -> None:
    """Create topics with PARTITIONS partitions; `names` maps a topic to its settings."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(
        [NewTopic(name, PARTITIONS, 1, config=config) for name, config in names.items()]
    ).values():
        future.result(30)


def fill(bootstrap: str, topic: str, count: int, seed: int = 7, keys: int = KEYS) -> None:
    """Write `count` deposits over `keys` accounts; with as many keys as deposits, one for each."""
    chance = random.Random(seed)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for n in range(count):
        account = f"account-{n % keys if keys >= count else chance.randrange(keys):06d}"
        record = {
            "deposit_id": f"deposit-{n:08d}",
            "account_id": account,
            "amount_minor": chance.randint(1, 10_000),
            "currency": "USD",
            "reference": "salary",
            "at_ms": 1_760_000_000_000 + n,
        }
        producer.produce(topic, encode(DEPOSIT, record), account.encode())
        producer.poll(0)
    producer.flush(120)


def wait_for_outputs(bootstrap: str, topic: str, count: int, timeout_s: float = 120) -> None:
    """Until a contender has committed about `count` outputs, markers of transactions included. Raises TimeoutError."""
    consumer = _reader(bootstrap)
    deadline = time.monotonic() + timeout_s
    try:
        while (ends := _outputs(consumer, topic)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic}: {ends} of {count} outputs after {timeout_s} s")
            time.sleep(0.1)
    finally:
        consumer.close()


def _outputs(consumer: Consumer, topic: str) -> int:
    try:
        return sum(int(consumer.get_watermark_offsets(p, 5)[1]) for p in _parts(topic))
    except KafkaException as exc:  # a topic so new that its leaders are not known
        if exc.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
        return 0


def output_rate(bootstrap: str, topic: str) -> float:
    """Events/s of a contender that has ended, read off its output topic.

    Not read while it works: a reader would take a third of a core from it. Fails (AssertionError) when an output
    is there twice: a fast wrong answer is no rate.
    """
    consumer = _reader(bootstrap)
    consumer.assign(_parts(topic))
    seen: set[str] = set()
    first, last, ended = 1 << 62, 0, 0
    try:
        while ended < PARTITIONS:
            for message in consumer.consume(10_000, 0.5):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    ended += 1
                    continue
                deposit_id = decode(DEPOSITED, message.value())["deposit_id"]
                assert deposit_id not in seen, f"{topic}: {deposit_id} twice"
                seen.add(deposit_id)
                at = message.timestamp()[1]
                first, last = min(first, at), max(last, at)
    finally:
        consumer.close()
    return len(seen) / max(1, last - first) * 1000


def _parts(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, p, 0) for p in range(PARTITIONS)]


def _reader(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "rate",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
