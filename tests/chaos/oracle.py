"""The independent reader: what the topics say, read by a plain consumer and held against what was ordered.

It shares no code with the driver, the shells or the deciders: bytes are read with confluent-kafka
(read_committed), resolved by the schema id in front of them, and judged by the laws below.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from confluent_kafka import Message

FINALS = {"TransactionCompleted", "TransactionFailed", "TransactionCancelled"}
SYSTEM = {"clearing", "world", "fees", "position", "rounding", "suspense", "written_off"}


Money: TypeAlias = "defaultdict[tuple[str, str], int]"  # minor units by account and currency


@dataclass(frozen=True, slots=True)
class Fact:
    """One committed event as it stands in its topic."""

    topic: str
    partition: int
    offset: int
    id: str
    type: str
    value: dict[str, Any]


def read(bootstrap: str, topic: str, decode: Callable[[bytes], dict[str, Any]]) -> list[Fact]:
    """All committed events of a topic, each partition in order, up to its end as of now."""
    return [fact(message, decode) for message in messages(bootstrap, topic)]


def fact(message: Message, decode: Callable[[bytes], dict[str, Any]]) -> Fact:
    headers = {name: data.decode() for name, data in message.headers() or []}
    return Fact(
        message.topic(),
        message.partition(),
        message.offset(),
        headers["ce_id"],
        headers["ce_type"].rsplit(".", 1)[-1],
        decode(message.value()),
    )


def messages(bootstrap: str, topic: str) -> list[Message]:
    """All committed records of a topic, each partition in order, up to its end as of now."""
    ends = _ends(bootstrap, topic)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "oracle",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in ends])
    found: list[Message] = []
    try:
        while any(_position(consumer, topic, p) < end for p, end in ends.items()):
            for message in consumer.consume(5_000, 0.2):
                if message.error() is not None:
                    raise KafkaException(message.error())
                found.append(message)
    finally:
        consumer.close()
    return found


def _ends(bootstrap: str, topic: str) -> dict[int, int]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    partitions = admin.list_topics(topic, 30).topics[topic].partitions
    spec = {TopicPartition(topic, p): OffsetSpec.latest() for p in partitions}
    return {tp.partition: f.result().offset for tp, f in admin.list_offsets(spec).items()}


def _position(consumer: Consumer, topic: str, partition: int) -> int:
    (position,) = consumer.position([TopicPartition(topic, partition)])
    return max(position.offset, 0)


def findings(
    transactions: Sequence[Fact],
    accounts: Sequence[Fact],
    ordered: Mapping[str, int],
    limits: Mapping[str, int] | None = None,
    idle: bool = True,
) -> list[str]:
    """Everything that is wrong, one sentence each; empty when all laws hold.

    `ordered`: transaction_id -> amount in minor units of each acknowledged order. `limits`: overdraft in minor
    units by account_id (0 where not named). `idle`: nothing is in flight, so clearing must be zero.
    """
    return [
        *_each_order_has_one_end(transactions, ordered),
        *_ids_are_unique([*transactions, *accounts]),
        *_postings_balance(accounts),
        *_balances_follow(accounts, limits or {}),
        *_money_matches_ends(transactions, accounts, ordered),
        *(_clearing_is_zero(accounts) if idle else ()),
    ]


def _each_order_has_one_end(facts: Iterable[Fact], ordered: Mapping[str, int]) -> Iterable[str]:
    ends = Counter(f.value["order"]["transaction_id"] for f in facts if f.type in FINALS)
    for transaction_id in ordered:
        if ends[transaction_id] != 1:
            yield f"transaction {transaction_id} has {ends[transaction_id]} ends, not 1"
    for transaction_id in ends.keys() - ordered.keys():
        yield f"transaction {transaction_id} ended but was never ordered"


def _ids_are_unique(facts: Iterable[Fact]) -> Iterable[str]:
    for (topic, event_id), count in Counter((f.topic, f.id) for f in facts).items():
        if count != 1:
            yield f"{topic}: event {event_id} is there {count} times"


def _postings_balance(facts: Iterable[Fact]) -> Iterable[str]:
    for fact in facts:
        sums: dict[str, int] = defaultdict(int)
        for posting in fact.value.get("postings", ()):
            sums[posting["currency"]] += posting["amount_minor"]
        if any(sums.values()):
            yield f"{fact.topic}-{fact.partition}@{fact.offset}: postings sum to {dict(sums)}"


def _balances_follow(facts: Iterable[Fact], limits: Mapping[str, int]) -> Iterable[str]:
    """The balances that events claim are the running sums of their postings, and never below the limit."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for fact in facts:
        touched = set()
        for posting in fact.value.get("postings", ()):
            if posting["account"] not in SYSTEM:
                touched.add(key := (posting["account"], posting["currency"]))
                sums[key] += posting["amount_minor"]
        for balance in fact.value.get("balances", ()):
            key = balance["account_id"], balance["currency"]
            if key in touched and balance["after_minor"] != sums[key]:
                yield (
                    f"{fact.topic}-{fact.partition}@{fact.offset}: {key} is said to be "
                    f"{balance['after_minor']}, the postings so far sum to {sums[key]}"
                )
        for key in touched:
            if sums[key] < -limits.get(key[0], 0):
                yield f"{fact.topic}-{fact.partition}@{fact.offset}: {key} is at {sums[key]}"


def _clearing_is_zero(facts: Iterable[Fact]) -> Iterable[str]:
    sums: dict[str, int] = defaultdict(int)
    for fact in facts:
        for posting in fact.value.get("postings", ()):
            if posting["account"] == "clearing":
                sums[posting["currency"]] += posting["amount_minor"]
    for currency, amount in sums.items():
        if amount:
            yield f"clearing holds {amount} {currency} while nothing is in flight"


def _money_matches_ends(
    transactions: Iterable[Fact], accounts: Iterable[Fact], ordered: Mapping[str, int]
) -> Iterable[str]:
    """Completed: moved exactly once, as ordered, and the fee too. Not completed: nothing moved in the end."""
    moved: dict[str, Money] = defaultdict(lambda: defaultdict(int))
    for fact in accounts:
        if "order" not in fact.value:
            continue
        money = moved[fact.value["order"]["transaction_id"]]
        for posting in fact.value.get("postings", ()):
            if posting["account"] not in SYSTEM or posting["account"] == "fees":
                money[posting["account"], posting["currency"]] += posting["amount_minor"]
    for fact in transactions:
        if fact.type not in FINALS:
            continue
        order = fact.value["order"]
        transaction_id = order["transaction_id"]
        if order["amount_minor"] != ordered.get(transaction_id, order["amount_minor"]):
            yield f"transaction {transaction_id} is about {order['amount_minor']}, not as ordered"
        expected = _expected(order) if fact.type == "TransactionCompleted" else {}
        money = {key: amount for key, amount in moved[transaction_id].items() if amount}
        if money != expected:
            yield f"transaction {transaction_id} ({fact.type}) moved {money}, expected {expected}"
        if expected and order["type"] == "exchange":
            yield from _rate_is_kept(order)


def _expected(order: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """What a completed order adds to customers and to fees, by account and currency; no zeros."""
    source, destination = order["source_account_id"], order["destination_account_id"]
    amount, currency, terms = order["amount_minor"], order["currency"], order["terms"] or {}
    fee = terms.get("fee_minor", 0)
    money: Money = defaultdict(int)
    money["fees", currency] += fee
    if source is not None:
        money[source, currency] -= amount + max(fee, 0)
    if order["type"] == "exchange":
        money[destination, terms["destination_currency"]] += terms["destination_amount_minor"]
        money["fees", terms["destination_currency"]] += terms["spread_minor"]
    elif destination is not None:
        money[destination, currency] += amount - min(fee, 0)
    return {key: amount for key, amount in money.items() if amount}


def _rate_is_kept(order: Mapping[str, Any]) -> Iterable[str]:
    """Of two currencies with two digits each: what was credited is the amount at its rate."""
    terms = order["terms"]
    exact = order["amount_minor"] * Decimal(terms["rate"])
    if abs(terms["destination_amount_minor"] - exact) > 1:
        yield f"transaction {order['transaction_id']} credited not {exact}, as its rate says"


def without(facts: Sequence[Fact], n: int) -> list[Fact]:
    """The log with record `n` removed: a control that must be found."""
    return [*facts[:n], *facts[n + 1 :]]


def doubled(facts: Sequence[Fact], n: int) -> list[Fact]:
    """The log with record `n` there twice: a control that must be found."""
    return [*facts[: n + 1], *facts[n:]]


def changed(facts: Sequence[Fact], n: int) -> list[Fact]:
    """The log with the amount of record `n` changed by one: a control that must be found."""
    value = dict(facts[n].value)
    if value.get("postings"):
        first, *rest = value["postings"]
        value["postings"] = [{**first, "amount_minor": first["amount_minor"] + 1}, *rest]
    elif "order" in value:
        value["order"] = {**value["order"], "amount_minor": value["order"]["amount_minor"] + 1}
    return [*facts[:n], replace(facts[n], value=value), *facts[n + 1 :]]
