"""Who tells whom what, as diagrams drawn from the subscription table and from the deciders themselves.

python -m topics.flows > docs/flows.md
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from domain.account import Account, OpenAccount, account_key
from domain.currency import RATES, RateSource, SetRates
from domain.decider import handle, put
from domain.saga import (
    Rail,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionFailed,
    TransactionType,
)
from domain.services import DECIDERS
from domain.transaction import CreateTransaction
from topics.subscriptions import EVERY, RAIL, SUBSCRIPTIONS, gathers, relays, route

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from domain.decider import Decider, Row, RowKey
    from topics.subscriptions import Subscription

CLIENT = "client"
START_MS = 1_700_000_000_000
BALANCE_MINOR = 5_000
FINAL = (TransactionCompleted, TransactionFailed, TransactionCancelled)
MESSAGES = 100  # of one story: more is a circle


def sayers() -> dict[type, str]:
    """The service that says each fact."""
    return {
        event: decider.service
        for decider in DECIDERS.values()
        for event in (*decider.events, *decider.private_events)
    }


@dataclass(frozen=True, slots=True)
class Told:
    """One message of a story: who says what to whom."""

    sayer: str
    message: str
    hearer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the deciders say to each other about one order."""

    title: str
    type: TransactionType
    amount_minor: int = 1_000
    source: str | None = "alice"
    destination: str | None = "bob"
    absent: str | None = None  # an account that is not there
    terms: Terms | None = None


STORIES = (
    Story(title="A transfer in our own books", type=TransactionType.TRANSFER),
    Story(title="No funds", type=TransactionType.TRANSFER, amount_minor=9_000),
    Story(title="Above the daily limit", type=TransactionType.TRANSFER, amount_minor=900_000),
    Story(
        title="The recipient is not there: put back", type=TransactionType.TRANSFER, absent="bob"
    ),
    Story(title="A deposit by an operator", type=TransactionType.DEPOSIT, source=None),
    Story(
        title="An exchange on one account",
        type=TransactionType.EXCHANGE,
        destination="alice",
        terms=Terms(destination_currency="USD"),
    ),
    Story(title="A withdrawal, up to the rail", type=TransactionType.WITHDRAWAL, destination=None),
)


def told(story: Story) -> Iterator[Told]:
    """The story's messages in the order in which they are said, by the real deciders."""
    tables: defaultdict[str, dict[RowKey, Row]] = defaultdict(dict)
    for name in {"alice", "bob"} - {story.absent}:
        tables["account"][account_key(name)] = _account(name)
    _set_rates(tables["currency"])
    waiting: deque[tuple[str, Any]] = deque([("transaction", _order(story))])
    yield Told(CLIENT, CreateTransaction.__name__, "transaction")
    for n in range(MESSAGES):
        if not waiting:
            return
        service, message = waiting.popleft()
        decider = DECIDERS[service]
        if type(message) not in decider.messages:
            continue
        for hearer, heard in _said(decider, tables[service], message, START_MS + n):
            yield Told(service, type(heard).__name__, hearer)
            if hearer in DECIDERS:
                waiting.append((hearer, heard))
    raise AssertionError(f"{story.title} does not end")


def _said(
    decider: Decider, rows: dict[RowKey, Row], message: Any, at_ms: int
) -> Iterator[tuple[str, Any]]:
    events, changes = handle(decider, rows, message, at_ms)
    put(rows, changes)
    for event in events:
        heard = [topic.split(".")[0] for topic, _ in (*route(event), *relays(event))]
        for hearer in heard:
            if hearer in DECIDERS or hearer == RAIL.split(".")[0]:
                yield hearer, event
        if (gathered := gathers(event)) is not None:
            (topic, _), how = gathered
            yield topic.split(".")[0], how.message((how.part(event),))
        if isinstance(event, FINAL):
            yield CLIENT, event


def _account(name: str) -> Account:
    command = OpenAccount(
        account_id=name,
        user_id=name,
        name=name,
        currencies=("EUR", "USD"),
        overdraft_limits={},
        actor_id=name,
        request_hash="",
    )
    _, changes = handle(DECIDERS["account"], {}, command, START_MS)
    account = changes[account_key(name)]
    assert isinstance(account, Account)
    return replace(account, balances={"EUR": BALANCE_MINOR, "USD": 0})


def _set_rates(rows: dict[RowKey, Row]) -> None:
    message: Any = SetRates(
        base="EUR",
        rates={"USD": "1.1"},
        source=RateSource.OPERATOR,
        as_of_ms=START_MS,
        max_age_s=60,
        spread_ppm=0,
        actor_id="operator",
        request_id=RATES,
    )
    for _ in range(2):  # the command, then the fact that it leads to
        (message,), changes = handle(DECIDERS["currency"], rows, message, START_MS)
        rows.update(changes)


def _order(story: Story) -> CreateTransaction:
    return CreateTransaction(
        transaction_id="order",
        type=story.type,
        amount_minor=story.amount_minor,
        currency="EUR",
        source_account_id=story.source,
        destination_account_id=story.destination,
        owner_id=story.source or story.destination or "",
        actor_id="alice",
        privileged=False,
        rail=Rail.BOOK,
        deadline_s=60,
        description="",
        reference="",
        metadata={},
        request_hash="",
        terms=story.terms,
    )


def document() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield from (
        "# Flows: who tells whom what",
        "",
        "Written by `python -m topics.flows` from `topics/subscriptions.py` and the deciders; a test holds them",
        "together. Why the saga goes so stands in [saga](saga.md).",
        "",
        "## All services",
        "",
        "An arrow is the number of kinds of facts that one hears of the other; dotted: through the relay, off the",
        "money path.",
        "",
        "```mermaid",
        "flowchart LR",
    )
    yield from _overview()
    yield from ("```", "", "## Stories", "", "What is said, by the deciders themselves.")
    for story in STORIES:
        yield from ("", f"### {story.title}", "", "```mermaid", "sequenceDiagram")
        yield from _sequence(told(story))
        yield "```"
    by_hearer = defaultdict(list)
    for row in SUBSCRIPTIONS:
        by_hearer[row.topic].append(row)
    yield from ("", "## Who hears what", "")
    for topic in sorted(by_hearer):
        yield from _hearer(topic, by_hearer[topic])
    yield ""


def _overview() -> Iterator[str]:
    said = sayers()
    counts: defaultdict[tuple[str, str, bool], set[type]] = defaultdict(set)
    for row in SUBSCRIPTIONS:
        counts[said[row.event], row.service, row.relay].add(row.event)
    for (sayer, hearer, relay), events in sorted(counts.items()):
        label = next(iter(events)).__name__ if len(events) == 1 else f"{len(events)} kinds"
        yield f"    {sayer} {'-.->' if relay else '-->'}|{label}| {hearer}"


def _sequence(messages: Iterator[Told]) -> Iterator[str]:
    found = list(messages)
    for name in dict.fromkeys(name for one in found for name in (one.sayer, one.hearer)):
        yield f"    participant {name}"
    for one in found:
        yield f"    {one.sayer}->>{one.hearer}: {one.message}"


def _hearer(topic: str, rows: Sequence[Subscription]) -> Iterator[str]:
    said = sayers()
    yield from (
        f"### {topic}",
        "",
        "| fact | said by | under | when |",
        "| --- | --- | --- | --- |",
    )
    for row in rows:
        key = "each partition" if row.key is EVERY else f"`{row.key}`"
        when = row.when.__name__.strip("_").replace("_", " ") if row.when else ""
        notes = [when, "relayed" if row.relay else "", "gathered" if row.gathered else ""]
        remark = ", ".join(note for note in notes if note)
        yield f"| {row.event.__name__} | {said[row.event]} | {key} | {remark} |"
    yield ""


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
