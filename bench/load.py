"""A load of transfers: accounts opened and funded, then orders written straight into the inboxes.

Plain idempotent producer and plain read_committed reader; an order counts as made once the broker acknowledged it.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from domain.account import OpenAccount
from domain.saga import Rail, Terms, TransactionType
from domain.transaction import CreateTransaction
from schemas.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.system import System

FINALS = (b"TransactionCompleted", b"TransactionFailed", b"TransactionCancelled")
OPERATOR = "operator-of-the-load"


@dataclass(slots=True)
class Bank:
    """One installation under load."""

    bootstrap: str
    prefix: str = ""
    seed: int = 1
    ordered: dict[str, int] = field(
        default_factory=dict
    )  # acknowledged: transaction_id -> minor units
    accounts: list[str] = field(default_factory=list)
    _codec: Codec = field(default_factory=Codec)
    _producer: Any = None
    _refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "metadata.recovery.strategy": "none",  # brokers are killed under it
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "delivery.timeout.ms": 120_000,
            }
        )

    def _send(self, service: str, key: str, command: Any, delivered: Any = None) -> None:
        command_id = str(uuid.uuid4()).encode()
        kind = f"streambank.{service}.{type(command).__name__}".encode()
        headers = [
            ("ce_id", command_id),
            ("ce_source", b"/gateway"),
            ("ce_type", kind),
            ("correlation_id", command_id),
        ]
        topic = f"{self.prefix}{service}.inbox"
        self._producer.produce(
            topic, self._codec.encode(command), key.encode(), headers=headers, on_delivery=delivered
        )
        self._producer.poll(0)

    def flush(self) -> None:
        """Until the broker has all. Raises RuntimeError when it does not take them."""
        if self._producer.flush(130) or self._refused:
            raise RuntimeError(f"the broker did not take all commands: {self._refused[:3]}")

    def open(
        self, count: int, overdraft_minor: int = 0, currencies: tuple[str, ...] = ("USD",)
    ) -> None:
        """Open accounts for as many people."""
        for n in range(count):
            account_id = str(
                uuid.UUID(int=random.Random(f"{self.seed}-{n}").getrandbits(128), version=4)
            )
            self.accounts.append(account_id)
            command = OpenAccount(
                account_id=account_id,
                user_id=f"person-{n}",
                name="",
                currencies=currencies,
                overdraft_limits={"USD": overdraft_minor} if overdraft_minor else {},
                actor_id=OPERATOR,
                request_hash="",
            )
            self._send("account", account_id, command)
        self.flush()

    def deposit(self, account_ids: Iterable[str], amount_minor: int) -> list[str]:
        return [
            self._order(TransactionType.DEPOSIT, amount_minor, None, account_id)
            for account_id in account_ids
        ]

    def transfer(self, source: str, destination: str, amount_minor: int) -> str:
        return self._order(TransactionType.TRANSFER, amount_minor, source, destination)

    def transfers(self, count: int, hot_share: float = 0.0) -> list[str]:
        """Random transfers; `hot_share` of them from or to one account, the first."""
        chance = random.Random(self.seed + len(self.ordered))
        made = []
        for _ in range(count):
            source, destination = chance.sample(self.accounts, 2)
            if chance.random() < hot_share:
                hot = self.accounts[0]
                other = destination if destination != hot else source
                source, destination = (hot, other) if chance.random() < 0.5 else (other, hot)
            made.append(self.transfer(source, destination, chance.randint(1, 100)))
        return made

    def _order(
        self,
        kind: TransactionType,
        amount_minor: int,
        source: str | None,
        destination: str | None,
        terms: Terms | None = None,
    ) -> str:
        transaction_id = str(uuid.uuid4())
        owner = source or destination
        command = CreateTransaction(
            transaction_id=transaction_id,
            type=kind,
            amount_minor=amount_minor,
            currency="USD",
            source_account_id=source,
            destination_account_id=destination,
            owner_id=f"person-{self.accounts.index(owner)}"
            if len(self.accounts) < 50
            else self._person(owner),
            actor_id=OPERATOR,
            privileged=True,
            rail=Rail.BOOK,
            deadline_s=3600,
            description="",
            reference="",
            metadata={},
            request_hash=transaction_id,
            terms=terms,
        )

        def delivered(error: Any, _: Any) -> None:
            if error is None:
                self.ordered[transaction_id] = amount_minor
            else:
                self._refused.append(str(error))

        self._send("transaction", transaction_id, command, delivered)
        return transaction_id

    def _person(self, account_id: str) -> str:
        if len(self._people) != len(self.accounts):
            self._people.update({a: f"person-{n}" for n, a in enumerate(self.accounts)})
        return self._people[account_id]

    _people: dict[str, str] = field(default_factory=dict)


class Ends:
    """Reads the ends of transactions as they are committed."""

    def __init__(self, bootstrap: str, prefix: str = "") -> None:
        self.at: dict[
            str, float
        ] = {}  # transaction_id -> monotonic seconds of its end as we saw it
        self.kinds: dict[str, str] = {}
        self._missing: set[str] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "metadata.recovery.strategy": "none",
                "group.id": f"ends-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
            }
        )
        topic = f"{prefix}transaction.events"
        partitions = self._consumer.list_topics(topic, 30).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, p, 0) for p in partitions])

    def poll(self, timeout_s: float = 0.05) -> None:
        for message in self._consumer.consume(5_000, timeout_s):
            if message.error() is not None:
                if message.error().retriable() or message.error().code() < 0:
                    continue
                raise KafkaException(message.error())
            kind = dict(message.headers())["ce_type"].rsplit(b".", 1)[-1]
            if kind in FINALS:
                transaction_id = message.key().decode()
                self.at.setdefault(transaction_id, time.monotonic())
                self.kinds[transaction_id] = kind.decode()
                self._missing.discard(transaction_id)

    def wait(self, ids: Mapping[str, int] | Iterable[str], timeout_s: float = 300) -> None:
        """Until all of them have ended. Raises TimeoutError."""
        wanted = set(ids)
        missing = self._missing = wanted - self.at.keys()
        deadline = time.monotonic() + timeout_s
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(missing)} of {len(wanted)} transactions have no end: {sorted(missing)[:3]}"
                )
            self.poll()

    def close(self) -> None:
        self._consumer.close()


def opened(bootstrap: str, accounts: int) -> tuple[Bank, Ends]:
    """So many accounts, each with money, and whoever hears of ends."""
    bank, ends = Bank(bootstrap), Ends(bootstrap)
    bank.open(accounts)
    bank.deposit(bank.accounts, 10_000_000)
    bank.flush()
    ends.wait(bank.ordered)
    return bank, ends


def drained(system: System, bank: Bank, ends: Ends, count: int, hot: float) -> tuple[float, float]:
    """Transfers/s from the first order to the last end, and worker CPU per transfer in µs."""
    before = system.cpu_s()
    started = time.monotonic()
    ids = bank.transfers(count, hot)
    bank.flush()
    ends.wait(ids)
    seconds = max(ends.at[i] for i in ids) - started
    return count / seconds, (system.cpu_s() - before) / count * 1e6
