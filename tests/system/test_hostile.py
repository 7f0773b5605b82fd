"""Records that nobody here would write, in every topic that is read: dead letters, and all behind them goes on."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from domain.account import AccountOpened
from domain.saga import Rail, TransactionCompleted, TransactionType
from pipeline import effects
from settings import Settings
from tests.agents.memory import open_account, order
from tests.streaming.kit import wait_until
from tests.system.conftest import Installation
from topics.catalog import EXPIRING, TOPICS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.local.kafka import Kafka
    from tests.system.bank import Client

Header = tuple[str, bytes | None]
NULLS: list[Header] = [
    (name, None) for name in ("ce_id", "ce_type", "ce_source", "traceparent", "correlation_id", "actor", "origin")
]  # fmt: skip
# key, value, headers
HOSTILE: list[tuple[bytes | None, bytes | None, list[Header]]] = [
    (b"A-x", b"", []),
    (b"A-x", b"not avro", []),
    (b"A-x", b"\x00\xff\xff\xff\xff", []),  # no such schema
    (b"A-x", None, []),
    (None, b"\x00", []),
    (b"\xff\xfe", b"\x00" * 1_000, []),
    (b"A-x", b"not avro", NULLS),
    (b"A-x", b"not avro", [("traceparent", b"\xff\xfe"), ("ce_id", b"x" * 10_000)]),
    # the largest that a topic takes by default, so that its letter is larger
    (b"A-x", b"x" * 999_990, [("correlation_id", b"y" * 40_000)]),
]


@pytest.fixture(scope="module")
def client(running: Installation) -> Iterator[Client]:
    made = running.client("account.events", "transaction.events")
    yield made
    made.close()


def test_what_nobody_can_read_is_a_dead_letter_wherever_it_comes(running: Installation) -> None:
    owner = {effect.requests: effect.dead for effect in effects(Settings())}
    expected: Counter[str] = Counter()
    producer = Producer({"bootstrap.servers": running.bootstrap, "message.max.bytes": 2 << 20})
    read = [topic for topic in TOPICS if topic.kind in EXPIRING]
    for topic in read:
        for key, value, headers in HOSTILE:
            producer.produce(f"{running.prefix}{topic.name}", value, key, 0, headers=[*headers])
        expected[owner.get(topic.name) or topic.name.replace(".inbox", ".dead")] += len(HOSTILE)
    assert producer.flush(30) == 0
    assert len(read) > 15
    dead = running.client(*expected)
    try:
        dead.wait(lambda: len(dead.seen) >= sum(expected.values()), "all dead letters", 60)
        found = Counter(m.topic().removeprefix(running.prefix) for m in dead.seen)
        assert found == expected
        assert all("dead_letter_reason" in dict(message.headers()) for message in dead.seen)
        places = {
            (
                given["dead_letter_topic"],
                given["dead_letter_partition"],
                given["dead_letter_offset"],
            )
            for given in (dict(message.headers()) for message in dead.seen)
        }
        assert len(places) == len(dead.seen)
    finally:
        dead.close()


def test_headers_without_a_value_are_none(running: Installation, client: Client) -> None:
    """A withdrawal whose headers are all there and empty goes all the way, over the rail too."""
    account_id, user_id = f"A-{uuid.uuid4()}", f"U-{uuid.uuid4()}"
    send(client, "account", account_id, open_account(account_id, user_id))
    client.wait(lambda: client.said(AccountOpened, account_id=account_id), "an account")
    deposit, withdrawal = f"T-{uuid.uuid4()}", f"T-{uuid.uuid4()}"
    kinds = TransactionType.DEPOSIT, TransactionType.WITHDRAWAL
    into = order(deposit, None, account_id, 500, kind=kinds[0], owner=user_id)
    send(client, "transaction", deposit, into)
    assert isinstance(*client.ended(deposit), TransactionCompleted)
    out = order(withdrawal, account_id, None, 100, kind=kinds[1], owner=user_id, rail=Rail.EXTERNAL)
    send(client, "transaction", withdrawal, out)
    assert isinstance(*client.ended(withdrawal), TransactionCompleted)
    mine = [
        message
        for message in client.seen
        if (message.key() or b"") in {withdrawal.encode(), account_id.encode()}
    ]
    assert mine
    assert all(value is not None for message in mine for _, value in message.headers())


def send(client: Client, service: str, key: str, command: Any) -> None:
    nulls: Any = dict(NULLS)
    client.raw(f"{service}.inbox", key.encode(), client.codec.encode(command), nulls)
    client.flush()


def test_all_of_it_is_still_at_work(running: Installation) -> None:
    status, answer = running.get("/readiness")
    assert status == 200, answer
    metrics = running.get("/metrics")[1].decode()
    stopped = [line for line in metrics.splitlines() if line.startswith("streaming_stopped_part")]
    assert stopped
    assert all(line.endswith(" 0.0") for line in stopped), stopped
    proven = running.pipeline("verify", "--decide")
    assert proven.returncode == 0, proven.stdout
    assert "trial balance" in proven.stdout


def test_redrive_takes_each_letter_once_and_passes_by_what_it_is_told(
    running: Installation,
) -> None:
    producer = Producer({"bootstrap.servers": running.bootstrap})
    topic = f"{running.prefix}user.dead"
    for value in (b"one", b"two"):
        headers: list[Header] = [
            ("dead_letter_topic", b"somebody.events" if value == b"one" else None)
        ]
        producer.produce(topic, value, b"k", 0, headers=[*headers])
    assert producer.flush(30) == 0
    skip: list[str] = []
    for _ in range(2):
        told = running.pipeline("redrive", "user.dead", *skip)
        assert told.returncode == 1
        assert "does not say which inbox it came from" in told.stderr
        skip += re.findall(r"--skip [\w.-]+", told.stderr)[0].split()
    told = running.pipeline("redrive", "user.dead", *skip)
    assert (told.returncode, told.stdout) == (0, f"user.dead: {len(HOSTILE)} put back\n"), told
    dead = running.client("user.dead")
    try:
        count = 2 * len(HOSTILE) + 2
        dead.wait(lambda: len(dead.seen) >= count, "they die again")
    finally:
        dead.close()
    again = running.pipeline("redrive", "user.dead")
    assert again.stdout == f"user.dead: {len(HOSTILE)} put back\n", again


def test_no_group_knows_what_was_redriven(running: Installation) -> None:
    """A group's offsets expire a week after its last member, and letters are kept for ever."""
    kinds = {topic.name: topic.kind for topic in TOPICS}
    assert kinds["redrive-positions"] is Kind.CHANGELOG
    admin = AdminClient({"bootstrap.servers": running.bootstrap})
    groups = {group.group_id for group in admin.list_consumer_groups().result(10).valid}
    assert f"{running.prefix}account" in groups
    assert f"{running.prefix}redrive" not in groups


def test_a_person_gives_up_what_stopped_a_partition(kafka: Kafka, tmp_path: Path) -> None:
    """Garbage that says it is a service's stops its partition, in perform too, until it is named."""
    bank = Installation(kafka.bootstrap, tmp_path)
    assert bank.pipeline("topics", "apply").returncode == 0
    producer = Producer({"bootstrap.servers": bank.bootstrap})
    topics = [f"{bank.prefix}{name}.inbox" for name in ("user", "rail")]
    for topic in topics:
        for source in (b"/risk", b"/somebody"):  # the second waits behind the first
            producer.produce(topic, b"not avro", b"k", 0, headers=[("ce_source", source)])
    assert producer.flush(30) == 0

    def stopped() -> list[str]:
        lines = bank.get("/metrics")[1].decode().splitlines()
        return sorted(line for line in lines if line.startswith("streaming_stopped_part"))

    apps = ["perform", f"{bank.prefix}user"]
    said = sorted(f'streaming_stopped_partitions{{app="{app}"}} 1.0' for app in apps)
    dead = bank.client("user.dead", "payment.dead")

    def letters() -> set[tuple[str, bytes]]:
        """Where they came from; one that perform said may be said again after a restart."""
        given = [dict(message.headers()) for message in dead.seen]
        return {(one["dead_letter_topic"].decode(), one["dead_letter_offset"]) for one in given}

    try:
        with bank.worker("user", "perform"):
            wait_until(lambda: stopped() == said)
            dead.read(1)
            assert not {(topic, b"0") for topic in topics} & letters()
        bank.environment["STREAMBANK_SKIP"] = ",".join(f"{topic}-0@0" for topic in topics)
        with bank.worker("user", "perform"):
            dead.wait(lambda: len(letters()) == 4, "four dead letters")
            wait_until(lambda: all(line.endswith(" 0.0") for line in stopped()))
    finally:
        dead.close()
