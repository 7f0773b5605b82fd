"""An account's ledger from the log: its entries in a period, with the balances before and behind.

    account.events --postings of one account, added up from its opening--> entries, balances

Nothing is kept but a sum for each currency. Each event says the balance that it leads to; a sum
that is another one is a bug, or a damaged log.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias

from domain.account import ACCOUNT, AccountOpened
from domain.ledger import balances_of
from domain.services import DECIDERS
from proof.reader import Reader
from streaming import partition_of
from travel.fold import End, events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from travel.fold import Log
    from travel.snapshot import Source

MONEY = frozenset(
    f"streambank.{ACCOUNT.service}.{event.__name__}".encode()
    for event in ACCOUNT.events
    if "postings" in {field.name for field in fields(event)}
)
OPENED = f"streambank.{ACCOUNT.service}.{AccountOpened.__name__}".encode()


# told the balances before a period, minor units by currency; answers what is told each entry
Begin: TypeAlias = "Callable[[Mapping[str, int]], Callable[[dict[str, Any]], None]]"


def read_ledger(
    source: Source, account_id: str, period: tuple[int, int], begin: Begin, deadline_s: float
) -> Mapping[str, int]:
    """`ledger` of the log as it is; TimeoutError for what is not read by then (`time.monotonic`)."""
    log = Reader(source.kafka, deadline_s)
    try:
        return ledger(log, source, account_id, period, begin)
    finally:
        log.close()


def ledger(
    log: Log,
    source: Source,
    account_id: str,
    period: tuple[int, int],
    begin: Begin,
) -> Mapping[str, int]:
    """Tells each entry of the period (Unix ms, the end excluded), the oldest first; answers the balances then.

    An entry is as `stores.catalog.Entry`, and has its `order` beside it.
    """
    start_ms, end_ms = period
    add: Callable[[dict[str, Any]], None] | None = None
    sums: Counter[str] = Counter()
    for event_id, at_ms, event in _facts(log, source, account_id, end_ms):
        if isinstance(event, AccountOpened):
            sums.update(dict.fromkeys(event.currencies, 0))
            continue
        if add is None and at_ms >= start_ms:
            add = begin(dict(sums))
        for entry in _entries(event_id, event, account_id):
            sums[entry["currency"]] += entry["amount_minor"]
            if add is not None:
                add(entry)
        for balance in balances_of(event):
            if balance.account_id == account_id and _moves(event, balance):
                assert sums[balance.currency] == balance.after_minor, f"{event_id} of {account_id}"
    if add is None:
        begin(dict(sums))
    return sums


def _moves(event: Any, balance: Any) -> bool:
    """A fact hands on the other side's balance too, which is of before."""
    return any(
        posting.account == balance.account_id and posting.currency == balance.currency
        for posting in event.postings
    )


def _facts(
    log: Log, source: Source, account_id: str, end_ms: int
) -> Iterator[tuple[str, int, Any]]:
    """What was said of the account before `end_ms`: id, time, event."""
    key, installation = account_id.encode(), source.installation
    partition = partition_of(key, installation.partitions)
    decider = DECIDERS[ACCOUNT.service]
    end = End(at_ms=end_ms - 1)
    for record in events(log, installation.namespace, decider, partition, end):
        kind = record.headers.get("ce_type")
        if record.key == key and (kind in MONEY or kind == OPENED):
            event = source.codec.decode(record.value or b"")
            yield record.headers["ce_id"].decode(), record.at_ms, event


def _entries(event_id: str, event: Any, account_id: str) -> Iterator[dict[str, Any]]:
    order = event.order
    after = {(b.account_id, b.currency): b.after_minor for b in balances_of(event)}
    for number, posting in enumerate(event.postings):
        if posting.account == account_id:
            yield {
                "event_id": event_id,
                "number": number,
                "currency": posting.currency,
                "amount_minor": posting.amount_minor,
                "balance_minor": after.get((account_id, posting.currency)),
                "transaction_id": order.transaction_id,
                "at_ms": event.at_ms,
                "order": {
                    "type": order.type,
                    "source_account_id": order.source_account_id,
                    "destination_account_id": order.destination_account_id,
                },
            }
