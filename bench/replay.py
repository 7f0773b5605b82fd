"""How fast a service's tables are rebuilt from its events: `python -m bench.replay [--events 1000000]`.

A topic of account events (deposits into 1,000 accounts, the real codec and headers) is written in bulk and then read
four ways, each by the same reader in the same run; ratios are to the bare read:

    read     committed records, counted: the floor
    decode   and decoded
    replay   and folded into rows: `pipeline.py replay account --to <now>`
    one key  `… --key account/<account_id>`: all other events are passed over undecoded
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from agents.envelope import Envelope, Input
from deploy.local.kafka import STEADY, Kafka
from domain.account import ACCOUNT, AccountOpened, account_key
from domain.ledger import WORLD, move
from domain.saga import AccountCredited, Balance, Order, Rail, Step, TransactionType
from proof.reader import Reader
from schemas.codec import Codec
from topics.catalog import Installation
from travel.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from domain.decider import Decider

ACCOUNTS = 1_000
AMOUNT_MINOR = 1_050
TOPIC = "account.events"


def deposits(count: int, start_ms: int) -> Iterator[tuple[int, Any]]:
    """Times and events: accounts are opened, then credited in turn, one event a millisecond."""
    for n in range(min(ACCOUNTS, count)):
        yield (
            start_ms + n,
            AccountOpened(
                account_id=f"account-{n:028d}",
                user_id=f"user-{n:031d}",
                name="everyday",
                currencies=("USD",),
                overdraft_limits={},
                request_hash="h",
                version=1,
                at_ms=start_ms + n,
            ),
        )
    for n in range(ACCOUNTS, count):
        yield start_ms + n, credited(n, start_ms + n)


def credited(n: int, at_ms: int) -> AccountCredited:
    account, times = f"account-{n % ACCOUNTS:028d}", n // ACCOUNTS
    order = Order(
        transaction_id=f"transaction-{n:024d}",
        type=TransactionType.DEPOSIT,
        amount_minor=AMOUNT_MINOR,
        currency="USD",
        source_account_id=None,
        destination_account_id=account,
        owner_id=f"user-{n % ACCOUNTS:031d}",
        actor_id="operator",
        privileged=True,
        rail=Rail.BOOK,
        created_ms=at_ms - 20,
        deadline_ms=at_ms + 30_000,
    )
    names = (("validate", "transaction"), ("risk", "risk"), ("credit", "account"))
    after_minor = times * AMOUNT_MINOR
    return AccountCredited(
        order=order,
        postings=move("USD", AMOUNT_MINOR, WORLD, account),
        balances=(
            Balance(
                account_id=account,
                currency="USD",
                before_minor=after_minor - AMOUNT_MINOR,
                after_minor=after_minor,
                version=times + 1,
            ),
        ),
        at_ms=at_ms,
        steps=tuple(
            Step(step=step, service=service, outcome="approved", at_ms=at_ms)
            for step, service in names
        ),
    )


def fill(bootstrap: str, decider: Decider, made: Iterator[tuple[int, Any]]) -> None:
    """A topic of one partition with these events of a service, each with its time."""
    admin, topic = AdminClient({"bootstrap.servers": bootstrap}), f"{decider.service}.events"
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": "bench",
            "linger.ms": 50,
            "queue.buffering.max.messages": 500_000,
            "delivery.report.only.error": True,
        }
    )
    producer.init_transactions()
    producer.begin_transaction()
    codec, envelope = Codec(), Envelope(decider.service)
    for n, (at_ms, event) in enumerate(made):
        source = Input(
            f"{decider.service}.inbox", 0, n, at_ms, {"ce_id": b"%036d" % n, "actor": b"operator"}
        )
        subject = decider.aggregate_id(event).encode()
        shared = envelope.shared(source)
        headers, _ = envelope.event(shared, source.place, 0, type(event), subject)
        while True:
            try:
                producer.produce(
                    topic, codec.encode(event), subject, 0, timestamp=at_ms, headers=headers
                )
                break
            except BufferError:
                producer.poll(0.1)
        if n % 20_000 == 19_999:  # a transaction may not take longer than the broker lets it
            producer.commit_transaction()
            producer.begin_transaction()
    producer.commit_transaction()


def timed(name: str, count: int, floor: float, run: Callable[[], Any]) -> float:
    """Prints the rate of one way to read; answers it."""
    started = time.perf_counter()
    run()
    rate = count / (time.perf_counter() - started)
    ratio = f", {rate / floor:.2f} of read" if floor else ""
    print(f"{name:<8} {rate:>10,.0f} events/s{ratio}", flush=True)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    count = parser.parse_args().events
    with (
        tempfile.TemporaryDirectory() as directory,
        Kafka(Path(directory), java=STEADY, orphaned=signal.SIGKILL) as kafka,
    ):
        made = deposits(count, time.time_ns() // 1_000_000 - count - 1_000)
        timed("fill", count, 0, lambda: fill(kafka.bootstrap, ACCOUNT, made))
        settings, codec = {"bootstrap.servers": kafka.bootstrap}, Codec()
        reader = Reader(settings)
        run = Replay(settings, Installation(partitions=1), codec, lambda _: None).run
        now_ms = time.time_ns() // 1_000_000
        key = account_key(f"account-{7:028d}")

        def read() -> None:
            deque(reader.records(TOPIC, 0), maxlen=0)

        def decode() -> None:
            for record in reader.records(TOPIC, 0):
                codec.decode(record.value or b"")

        read()  # once for the page cache
        floor = timed("read", count, 0, read)
        timed("decode", count, floor, decode)
        timed("one key", count, floor, lambda: run(ACCOUNT, now_ms, key))
        timed("replay", count, floor, lambda: run(ACCOUNT, now_ms))
        reader.close()
        print(f"memory of this process: {psutil.Process().memory_info().rss >> 20:,} MiB")


if __name__ == "__main__":
    main()
