"""What must be true beside the money: each service's log against what it heard, did and was asked for.

Read as `oracle` reads: plain consumers, the published schemas, no code of the services. `CHECKS` are the
laws, `CONTROLS` what each of them must find when the log is tampered with.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.chaos.oracle import FINALS, Fact, doubled, fact, messages, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from confluent_kafka import Message

# the headers that an entry of the audit is made of: docs/audit.md
CHAINED = (
    *("ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "causation_id", "correlation_id"),
    *("traceparent", "actor", "origin"),
)
IN_APP = ("TransactionCompleted", "TransactionFailed")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was said in the bank, and what the world outside has seen of it."""

    facts: Mapping[str, Sequence[Fact]]  # by event topic
    entries: Mapping[str, Sequence[tuple[int, bytes]]]  # offset and digest by <topic>-<partition>
    decided: Sequence[Mapping[str, Any]]  # the provider's file
    texted: Sequence[Mapping[str, Any]]  # SMS that have arrived
    addresses: Sequence[str]  # of whom asked to be registered
    reports: Mapping[str, int]  # that were asked for: until when, Unix ms, by report_id
    deposited: int  # minor units of USD, booked from outside by no provider

    def of(self, topic: str, *types: str) -> Iterator[Fact]:
        return (found for found in self.facts.get(topic, ()) if found.type in types)

    def ends(self) -> Iterator[Fact]:
        return self.of("transaction.events", *FINALS)

    def completed(self) -> Iterator[dict[str, Any]]:
        """The orders that were carried out."""
        for end in self.of("transaction.events", "TransactionCompleted"):
            yield end.value["order"]

    def tampered(self, topic: str, facts: Sequence[Fact]) -> Evidence:
        return replace(self, facts={**self.facts, topic: facts})


Check: TypeAlias = "Callable[[Evidence], Iterable[str]]"


def findings(evidence: Evidence) -> list[str]:
    """Everything that is wrong, one sentence each; empty when all laws hold."""
    return [sentence for check in CHECKS for sentence in check(evidence)]


def collect(
    bootstrap: str, topics: Iterable[str], decode: Callable[[bytes], dict[str, Any]]
) -> tuple[dict[str, list[Fact]], dict[str, list[tuple[int, bytes]]]]:
    """Facts of the public topics, digests of all; what is private is not read beyond its bytes."""
    facts: dict[str, list[Fact]] = {}
    entries: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for topic in topics:
        found = messages(bootstrap, topic)
        if topic.endswith(".events"):
            facts[topic] = [fact(message, decode) for message in found]
        for message in found if topic != "audit.events" else ():
            chain = f"{message.topic()}-{message.partition()}"
            entries[chain].append((message.offset(), digest(message)))
    return facts, dict(entries)


def digest(message: Message) -> bytes:
    """SHA-256 over place and content, each part with its length before it."""
    headers = dict(message.headers() or [])
    parts = [
        message.topic().encode(),
        str(message.partition()).encode(),
        str(message.offset()).encode(),
        str(message.timestamp()[1]).encode(),
        message.key(),
        message.value(),
    ]
    for name in CHAINED:
        if name in headers:
            parts += [name.encode(), headers[name]]
    sizes = (b"\xff" * 4 if part is None else len(part).to_bytes(4, "big") for part in parts)
    return hashlib.sha256(
        b"".join(size + (part or b"") for size, part in zip(sizes, parts, strict=True))
    ).digest()


# -- the laws -------------------------------------------------------------------------------------


def provider_agrees(evidence: Evidence) -> Iterator[str]:
    """The provider's book is ours: each movement once, the same way, under the same reference."""
    theirs = Counter(
        (_asked(line)["end_to_end_id"], _signed(line), line["reference"])
        for line in evidence.decided
        if line["status"] == "approved"
    )
    booked = evidence.of("payment.events", "PaymentBooked")
    ours = Counter(
        (f.value["end_to_end_id"], f.value["amount_minor"], f.value["provider_reference"])
        for f in booked
    )
    yield from _differences("moved by the provider", theirs, ours)


def _asked(line: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line["body"])
    return found


def _signed(line: Mapping[str, Any]) -> int:
    """Charged is in; paid out and refunded is out."""
    body = _asked(line)
    charged = line["kind"] == "payments" and body["source_account_id"] is None
    return int(body["amount"]) if charged else -int(body["amount"])


def world_agrees(evidence: Evidence) -> Iterator[str]:
    """What the accounts say of the world is what the provider moved, and what was paid in."""
    moved = sum(_signed(line) for line in evidence.decided if line["status"] == "approved")
    posted = sum(
        posting["amount_minor"]
        for said in evidence.facts["account.events"]
        for posting in said.value.get("postings", ())
        if posting["account"] == "world"
    )
    if posted + moved + evidence.deposited:
        yield f"world has {posted}, the provider moved {moved}, {evidence.deposited} was paid in"


# who decides about an order, once: type of the order (None: any), topic, event
DECIDED = (
    (None, "transaction.events", "TransactionCreated"),
    (None, "risk.events", "RiskApproved"),
    ("transfer", "account.events", "AccountDebited"),
    ("transfer", "account.events", "AccountCredited"),
    ("capture", "account.events", "AccountDebited"),
    ("exchange", "currency.events", "RateFixed"),
    ("exchange", "account.events", "AccountCredited"),
    ("reversal", "transaction.events", "ReversalGranted"),
    ("withdrawal", "payment.events", "PaymentProcessed"),
    ("withdrawal", "account.events", "DebitSettled"),
    ("refund", "payment.events", "RefundReserved"),
    ("refund", "payment.events", "RefundProcessed"),
)


def decided_once(evidence: Evidence) -> Iterator[str]:
    """Each decider of a completed order decided about it once."""
    for kind, topic, event in DECIDED:
        said = Counter(f.value["order"]["transaction_id"] for f in evidence.of(topic, event))
        for order in evidence.completed():
            count = said[order["transaction_id"]]
            if kind in (None, order["type"]) and count != 1:
                yield f"{topic}: {event} of {order['transaction_id']} was said {count} times, not once"


def used_once(evidence: Evidence) -> Iterator[str]:
    """A quote, a hold, a payment that is reversed: each serves one completed order at most."""
    for name in ("quote_id", "hold_id", "original_transaction_id"):
        uses = Counter(
            order["terms"][name]
            for order in evidence.completed()
            if order["terms"] is not None and order["terms"][name] and order["type"] != "refund"
        )
        yield from (f"{name} {what} was used {n} times" for what, n in uses.items() if n > 1)


def refunded_within(evidence: Evidence) -> Iterator[str]:
    """No more goes back than was charged."""
    charged = {
        order["transaction_id"]: order["amount_minor"]
        for order in evidence.completed()
        if order["type"] == "payment" and order["source_account_id"] is None
    }
    back: Counter[str] = Counter()
    for order in evidence.completed():
        if order["type"] == "refund":
            back[order["terms"]["original_transaction_id"]] += order["amount_minor"]
    for original, amount in back.items():
        if amount > charged.get(original, 0):
            yield f"{amount} went back of {original}, which charged {charged.get(original, 0)}"


def counted(evidence: Evidence) -> Iterator[str]:
    """Analytics has counted each end once, in its minute, and in its user's hour."""
    ends: Counter[tuple[Any, ...]] = Counter()
    for end in evidence.ends():
        order, at_ms = end.value["order"], end.value["at_ms"]
        what = end.type.removeprefix("Transaction").lower()
        fee = (order["terms"] or {}).get("fee_minor", 0)
        done = what == "completed"
        for place in (
            (at_ms // 60_000 * 60_000,),
            (order["owner_id"], at_ms // 3_600_000 * 3_600_000),
        ):
            cell = (*place, order["type"], order["currency"])
            ends[*cell, what] += 1
            ends[*cell, "volume_minor"] += order["amount_minor"] * done
            ends[*cell, "revenue_minor"] += fee * done
    found: Counter[tuple[Any, ...]] = Counter()
    for said in evidence.of("analytics.events", "PointsCounted"):
        for cell in said.value["cells"]:
            _add(found, (cell["minute_ms"], cell["type"], cell["currency"]), cell["figures"])
        for cell in said.value["users"]:
            at = (cell["user_id"], cell["hour_ms"], cell["type"], cell["currency"])
            _add(found, at, cell["figures"])
    for key in ends.keys() | found.keys():
        if ends[key] != found[key]:
            yield f"analytics counted {found[key]} of {key}, there were {ends[key]}"


def _add(
    found: Counter[tuple[Any, ...]], cell: tuple[Any, ...], figures: Mapping[str, int]
) -> None:
    for name in ("completed", "failed", "cancelled", "volume_minor", "revenue_minor"):
        found[*cell, name] += figures[name]


def chained(evidence: Evidence) -> Iterator[str]:
    """Each record of each event topic is in its chain once, at its place; the links follow from it."""
    chains: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for said in evidence.of("audit.events", "EntriesChained"):
        value, links = said.value, b64decode(said.value["links"])
        if value["first"] != len(chains[value["chain"]]):
            yield f"{value['chain']}: entry {value['first']} follows {len(chains[value['chain']])}"
        pieces = [links[at : at + 32] for at in range(0, len(links), 32)]
        chains[value["chain"]] += zip(value["offsets"], pieces, strict=True)
    for chain in chains.keys() | evidence.entries.keys():
        at, expected = bytes(32), []
        for offset, entry in evidence.entries.get(chain, ()):
            at = hashlib.sha256(at + entry).digest()
            expected.append((offset, at))
        if chains[chain] != expected:
            wrong = Counter(chains[chain])
            wrong.subtract(Counter(expected))
            offsets = sorted({offset for (offset, _), count in wrong.items() if count})[:3]
            yield f"{chain}: {len(chains[chain])} of {len(expected)} entries, wrong at {offsets} …"


def told(evidence: Evidence) -> Iterator[str]:
    """Who ordered is told once of each end, in the app."""
    ends = Counter(
        (end.value["order"]["owner_id"], end.value["order"]["transaction_id"])
        for end in evidence.of("transaction.events", *IN_APP)
    )
    said = Counter(
        (f.value["user_id"], f.value["data"]["transaction_id"])
        for f in evidence.of("notification.events", "NotificationRequested")
        if f.value["channel"] == "in_app" and "transaction_id" in f.value["data"]
    )
    yield from _differences("told in the app", ends, said)


def texted(evidence: Evidence) -> Iterator[str]:
    """What was to be sent as SMS is said to be delivered once, and has arrived once."""
    wanted, delivered = (
        Counter(
            f.value["notification_id"]
            for f in evidence.of("notification.events", kind)
            if f.value["channel"] == "sms"
        )
        for kind in ("NotificationRequested", "NotificationDelivered")
    )
    arrived = Counter(message["id"] for message in evidence.texted)
    yield from _differences("said to be delivered", wanted, delivered)
    yield from _differences("arrived", wanted, arrived)


def registered(evidence: Evidence) -> Iterator[str]:
    """Who asked to be registered is, once."""
    said = evidence.of("user.events", "UserRegistered")
    found = Counter(f.value["email"] for f in said)
    yield from _differences("registered", Counter(evidence.addresses), found)


def settled(evidence: Evidence) -> Iterator[str]:
    """Each movement of the provider is an item of one settlement, numbered within its batch."""
    booked, items = (
        Counter(
            (f.value["end_to_end_id"], f.value["payment_id"], f.value["amount_minor"])
            for f in evidence.of(topic, kind)
        )
        for topic, kind in (
            ("payment.events", "PaymentBooked"),
            ("settlement.events", "ItemSettled"),
        )
    )
    yield from _differences("settled", booked, items)
    last: dict[str, int] = {}
    for said in evidence.of("settlement.events", "ItemSettled"):
        batch_id, number = said.value["batch_id"], said.value["number"]
        if number != last.get(batch_id, -1) + 1:
            yield f"batch {batch_id} has item {number} after {last.get(batch_id, -1)}"
        last[batch_id] = number


def closed(evidence: Evidence) -> Iterator[str]:
    """A batch is closed once, and its sums are those of its items."""
    amounts: defaultdict[str, list[int]] = defaultdict(list)
    for said in evidence.of("settlement.events", "ItemSettled"):
        amounts[said.value["batch_id"]].append(said.value["amount_minor"])
    batches = [said.value for said in evidence.of("settlement.events", "BatchClosed")]
    for batch_id, count in Counter(batch["batch_id"] for batch in batches).items():
        if count != 1:
            yield f"batch {batch_id} was closed {count} times"
    for batch in batches:
        items = amounts[batch["batch_id"]]
        if (batch["items"], batch["net_minor"]) != (len(items), sum(items)):
            yield f"batch {batch['batch_id']} says {batch['net_minor']}, its items are {items}"


def reported(evidence: Evidence) -> Iterator[str]:
    """A report is made once, and has a row for each end until its time."""
    made = evidence.of("reporting.events", "ReportCompleted")
    done = Counter(said.value["report_id"] for said in made)
    yield from _differences("reported", Counter([*evidence.reports]), done)
    for said in evidence.of("reporting.events", "ReportCompleted"):
        to_ms = evidence.reports[said.value["report_id"]]
        ends = sum(end.value["at_ms"] < to_ms for end in evidence.ends())
        if said.value["rows"] != ends:
            yield f"{said.value['report_id']} has {said.value['rows']} rows of {ends} ends"


def _differences(what: str, wanted: Counter[Any], found: Counter[Any]) -> Iterator[str]:
    for one in wanted.keys() | found.keys():
        if wanted[one] != found[one]:
            yield f"{one} is {what} {found[one]} times, not {wanted[one]}"


CHECKS: tuple[Check, ...] = (
    provider_agrees,
    world_agrees,
    decided_once,
    used_once,
    refunded_within,
    counted,
    chained,
    told,
    texted,
    registered,
    settled,
    closed,
    reported,
)

# law, topic, event: what that law must find when one of these is taken away, and when it is there twice
CONTROLS: tuple[tuple[Check, str, str], ...] = (
    (provider_agrees, "payment.events", "PaymentBooked"),
    (world_agrees, "account.events", "DebitSettled"),
    *((decided_once, topic, event) for topic, event in dict.fromkeys(row[1:] for row in DECIDED)),
    (counted, "analytics.events", "PointsCounted"),
    (counted, "transaction.events", "TransactionCompleted"),
    (chained, "audit.events", "EntriesChained"),
    (told, "notification.events", "NotificationRequested"),
    (texted, "notification.events", "NotificationDelivered"),
    (registered, "user.events", "UserRegistered"),
    (settled, "payment.events", "PaymentBooked"),
    (settled, "settlement.events", "ItemSettled"),
    (reported, "reporting.events", "ReportCompleted"),
)


def unfound(evidence: Evidence) -> Iterator[str]:
    """The controls that a law did not find: evidence on which all laws hold, tampered with in each way."""
    completed = {order["transaction_id"] for order in evidence.completed()}
    for check, topic, event in CONTROLS:
        facts = evidence.facts[topic]
        places = [
            n for n, said in enumerate(facts) if said.type == event and _counts(said, completed)
        ]
        if not places:
            yield f"there is no {event} in {topic} to tamper with"
            continue
        n = places[len(places) // 2]
        for spoil in (without, doubled):
            if not any(check(evidence.tampered(topic, spoil(facts, n)))):
                yield f"{check.__name__} does not find {event} {spoil.__name__}"
    for check, changed in _other_controls(evidence):
        if not any(check(changed)):
            yield f"{check.__name__} does not find what was changed for it"


def _counts(said: Fact, completed: set[str]) -> bool:
    """What is said of an order counts where the order was carried out, of a message where a law looks at it."""
    if said.type == "NotificationRequested":
        return said.value["channel"] == "in_app" and "transaction_id" in said.value["data"]
    if said.type == "NotificationDelivered":
        return bool(said.value["channel"] == "sms")
    if "order" not in said.value or said.type == "TransactionCompleted":
        return True
    order = said.value["order"]
    kinds = {kind for kind, topic, event in DECIDED if (topic, event) == (said.topic, said.type)}
    return order["transaction_id"] in completed and (
        not kinds or bool(kinds & {None, order["type"]})
    )


def _other_controls(evidence: Evidence) -> Iterator[tuple[Check, Evidence]]:
    approved = [n for n, line in enumerate(evidence.decided) if line["status"] == "approved"]
    n = approved[len(approved) // 2]
    less = replace(evidence, decided=[*evidence.decided[:n], *evidence.decided[n + 1 :]])
    yield provider_agrees, less
    yield world_agrees, less
    yield texted, replace(evidence, texted=evidence.texted[1:])
    yield texted, replace(evidence, texted=[*evidence.texted, evidence.texted[0]])
    chain, entries = max(evidence.entries.items(), key=lambda item: len(item[1]))
    n, (offset, entry) = len(entries) // 2, entries[len(entries) // 2]
    flipped = offset, bytes([entry[0] ^ 1, *entry[1:]])
    for there in ([*entries[:n], flipped, *entries[n + 1 :]], [*entries, flipped]):
        yield chained, replace(evidence, entries={**evidence.entries, chain: there})
    topic = "settlement.events"
    batches = [n for n, f in enumerate(evidence.facts[topic]) if f.type == "BatchClosed"]
    yield closed, evidence.tampered(topic, doubled(evidence.facts[topic], batches[0]))
    batch_id = evidence.facts[topic][batches[0]].value["batch_id"]
    items = [f for f in evidence.of(topic, "ItemSettled") if f.value["batch_id"] == batch_id]
    less_items = [f for f in evidence.facts[topic] if f is not items[0]]
    yield closed, evidence.tampered(topic, less_items)
    for kind in ("exchange", "capture", "reversal"):
        yield used_once, _once_more(evidence, kind)
    yield refunded_within, _once_more(evidence, "refund", amount_minor=10**6)


def _once_more(evidence: Evidence, kind: str, **changed: int) -> Evidence:
    """Another order of this kind was completed, about the same."""
    topic = "transaction.events"
    for said in evidence.of(topic, "TransactionCompleted"):
        order = said.value["order"]
        if order["type"] == kind and (kind != "exchange" or order["terms"]["quote_id"]):
            other = {**order, "transaction_id": "another", **changed}
            more = replace(said, value={**said.value, "order": other})
            return evidence.tampered(topic, [*evidence.facts[topic], more])
    raise AssertionError(f"there is no completed {kind} to tamper with")
