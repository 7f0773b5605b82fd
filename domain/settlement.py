r"""Settlement: what a provider moved in a business day, summed up into one batch and one transfer.

    PaymentBooked --> ItemSettled: OPEN batch of provider, currency and business day
    cut-off, or RunSettlement --> CLOSED: the net amount is to be transferred (pain.001)
    ReconcileBatch (the bank's statement) --> RECONCILED | BROKEN, and anew until it agrees

Keyed by the book `<provider>.<currency>`: a book has one open batch. What comes after its day was
closed goes into the next business day's, so a batch is closed once however often a run is asked
for. A run is told to each partition, which closes what is open there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain.calendar import business_day, ends_ms, next_business_day
from domain.decider import (
    DUE,
    Changes,
    Decider,
    Due,
    Expiry,
    RowKey,
    Rows,
    Tick,
    due_key,
    due_row,
    due_subject,
    expired,
    expiry_key,
    forget,
    forgotten,
    overdue,
    tick_keys,
)
from domain.money import LONG_MAX
from domain.reconciliation import PaymentBooked
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "settlement"
CLOSE = "close"  # the kind of a due row: the batch's day is over
LATE_MS = 15 * 60 * 1000  # after the cut-off, for what was on its way
LINES_LIMIT = 2_000  # of one statement
TRANSFER_ID_LIMIT = 35  # ISO 20022 Max35Text
BY_CLOCK = "clock"  # who closed what no run did


class Status(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    RECONCILED = "reconciled"
    BROKEN = "broken"  # the last statement does not agree


class BreakKind(StrEnum):
    MISSING_THERE = "missing_there"  # the statement has no entry for the batch
    MISSING_HERE = "missing_here"  # it names a batch of this book that is not known
    AMOUNT_DIFFERS = "amount_differs"
    TWICE = "twice"  # a second entry for the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettlement:
    """Close the batches of this business day and of those before it. Arrives under `run_id`."""

    run_id: str
    day: str  # YYYY-MM-DD; "": the business day of its arrival
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BankEntry:
    """One entry of the statement of the bank's own account."""

    end_to_end_id: str
    amount_minor: int  # above zero: in
    line: int  # of the file, or the entry's number


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileBatch:
    """Hold a statement of the bank's own account against a closed batch. Arrives under its book."""

    batch_id: str
    statement_id: str
    currency: str
    entries: tuple[BankEntry, ...]
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementRunRequested:
    """A run was asked for; each settlement partition hears it."""

    run_id: str
    day: str
    actor_id: str
    request_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSettled:
    """What the provider moved is in the batch of its business day; the first item opens it."""

    batch_id: str
    number: int  # within the batch, from 0
    end_to_end_id: str
    payment_id: str
    amount_minor: int  # above zero: the provider owes it to us
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchClosed:
    """The batch is complete: `net_minor` is to be transferred, to us when above zero."""

    batch_id: str
    provider: str
    currency: str
    day: str
    items: int
    in_minor: int
    out_minor: int  # as an amount: above zero
    net_minor: int
    closed_by: str  # user_id; BY_CLOCK: the cut-off
    run_id: str  # "": the cut-off
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBreak:
    """Row `break/<batch_id>/<number>`, and a member of events: what a statement says differently."""

    batch_id: str
    number: int
    kind: BreakKind
    end_to_end_id: str
    ours_minor: int | None
    theirs_minor: int | None
    line: int | None
    version: int  # of the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReconciled:
    """A statement was held against the batch; without breaks it agrees."""

    batch_id: str
    statement_id: str
    entries: int
    others: int  # entries that are about something else
    breaks: tuple[BatchBreak, ...]
    actor_id: str
    request_hash: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementCommandRefused:
    """A command was refused; nothing changed."""

    batch_id: str  # or the run's id
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementsForgotten:
    """Items left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Row `batch/<batch_id>`. Batches stay: one a book and day."""

    batch_id: str
    provider: str
    currency: str
    day: str
    status: Status
    items: int
    in_minor: int
    out_minor: int
    net_minor: int
    closed_by: str
    run_id: str
    statement_id: str  # the last one held against it; "": none
    breaks: int  # of that one
    request_hash: str  # of that one
    due_ms: int  # when the clock closes it
    version: int
    created_ms: int
    updated_ms: int
    closed_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Row `book/<book>`: up to which day its batches are closed."""

    closed_day: str  # YYYY-MM-DD


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBatches:
    """Row `open-batches`: those of this partition, one a book; as few as pairs of provider and currency."""

    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Rows `item/<batch_id>/<number>` and, to settle it once, `settled/<book>/<end_to_end_id>`."""

    batch_id: str
    end_to_end_id: str
    payment_id: str
    amount_minor: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Row `run/<run_id>`, in the partition where it was asked for."""

    day: str
    request_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedBatches:
    """Row `closed/<run_id>`: what the run closed in this partition, a batch a book at most."""

    batch_ids: tuple[str, ...]


Command: TypeAlias = RunSettlement | ReconcileBatch
Message: TypeAlias = PaymentBooked | RunSettlement | SettlementRunRequested | ReconcileBatch | Tick
Event: TypeAlias = (
    ItemSettled
    | SettlementRunRequested
    | BatchClosed
    | BatchReconciled
    | SettlementCommandRefused
    | SettlementsForgotten
)


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case PaymentBooked():
            return _settle(rows, message, at_ms)
        case RunSettlement():
            return _ask_for_run(rows, message, at_ms)
        case SettlementRunRequested():
            return _run(rows, message, at_ms)
        case ReconcileBatch():
            return _reconcile(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _settle(rows: Rows, fact: PaymentBooked, at_ms: int) -> Sequence[Event]:
    """Into the open batch. One of a day that is over is closed first: the clock may be late.

    So is one whose sums would pass 64 bits: what comes then is settled with the day after.
    """
    book = fact.book
    if settled_key(book, fact.end_to_end_id) in rows:
        return ()
    kept: Book | None = rows.get(book_key(book))
    day = business_day(at_ms)
    if kept is not None and kept.closed_day >= day.isoformat():
        day = next_business_day(date.fromisoformat(kept.closed_day))
    open_ = next((one for one in _open(rows) if home_of(one.batch_id) == book), None)
    closed: tuple[Event, ...] = ()
    if open_ is not None and open_.day < day.isoformat():
        closed = (_closed(open_, BY_CLOCK, "", at_ms),)
        open_ = None
    if open_ is not None and _is_full(open_, fact.amount_minor):
        closed = (_closed(open_, BY_CLOCK, "", at_ms),)
        day = next_business_day(date.fromisoformat(open_.day))
        open_ = None
    batch_id = open_.batch_id if open_ is not None else f"{book}.{day.isoformat()}"
    item = ItemSettled(
        batch_id=batch_id,
        number=open_.items if open_ is not None else 0,
        end_to_end_id=fact.end_to_end_id,
        payment_id=fact.payment_id,
        amount_minor=fact.amount_minor,
        at_ms=at_ms,
    )
    return (*closed, item)


def _is_full(batch: Batch, amount_minor: int) -> bool:
    return max(batch.in_minor, batch.out_minor) + abs(amount_minor) > LONG_MAX


def _closed(batch: Batch, closed_by: str, run_id: str, at_ms: int) -> BatchClosed:
    return BatchClosed(
        batch_id=batch.batch_id,
        provider=batch.provider,
        currency=batch.currency,
        day=batch.day,
        items=batch.items,
        in_minor=batch.in_minor,
        out_minor=batch.out_minor,
        net_minor=batch.net_minor,
        closed_by=closed_by,
        run_id=run_id,
        version=batch.version + 1,
        at_ms=at_ms,
    )


def _ask_for_run(rows: Rows, command: RunSettlement, at_ms: int) -> Sequence[Event]:
    run: Run | None = rows.get(run_key(command.run_id))
    if run is not None and run.request_hash == command.request_hash:
        return ()
    if run is not None:
        return _refuse(command, command.run_id, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    today = business_day(at_ms).isoformat()
    day = command.day or today
    if not _is_day(day) or day > today:  # a day that has not come can't be over
        return _refuse(command, command.run_id, Reason.INVALID_COMMAND, at_ms)
    return (
        SettlementRunRequested(
            run_id=command.run_id,
            day=day,
            actor_id=command.actor_id,
            request_hash=command.request_hash,
            at_ms=at_ms,
        ),
    )


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _run(rows: Rows, fact: SettlementRunRequested, at_ms: int) -> Sequence[Event]:
    return [
        _closed(batch, fact.actor_id, fact.run_id, at_ms)
        for batch in _open(rows)
        if batch.day <= fact.day
    ]


def _open(rows: Rows) -> tuple[Batch, ...]:
    listed: OpenBatches | None = rows.get(OPEN)
    return listed.batches if listed else ()


def _reconcile(rows: Rows, command: ReconcileBatch, at_ms: int) -> Sequence[Event]:
    batch: Batch | None = rows.get(batch_key(command.batch_id))
    if batch is None:
        return _refuse(command, command.batch_id, Reason.SETTLEMENT_NOT_FOUND, at_ms)
    if batch.status is Status.OPEN:
        return _refuse(command, command.batch_id, Reason.SETTLEMENT_OPEN, at_ms)
    if batch.statement_id == command.statement_id:
        if batch.request_hash == command.request_hash:
            return ()
        return _refuse(command, command.batch_id, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if batch.status is Status.RECONCILED:
        return _refuse(command, command.batch_id, Reason.SETTLEMENT_RECONCILED, at_ms)
    if len(command.entries) > LINES_LIMIT or command.currency != batch.currency:
        return _refuse(command, command.batch_id, Reason.INVALID_COMMAND, at_ms)
    breaks, others = _compare(rows, batch, command.entries)
    return (
        BatchReconciled(
            batch_id=batch.batch_id,
            statement_id=command.statement_id,
            entries=len(command.entries),
            others=others,
            breaks=tuple(
                replace(one, batch_id=batch.batch_id, number=n, version=batch.version + 1)
                for n, one in enumerate(breaks)
            ),
            actor_id=command.actor_id,
            request_hash=command.request_hash,
            version=batch.version + 1,
            at_ms=at_ms,
        ),
    )


def _compare(
    rows: Rows, batch: Batch, entries: Sequence[BankEntry]
) -> tuple[list[BatchBreak], int]:
    """What the statement says differently, and how many of its entries are about something else."""
    ours, others = transfer_id(batch.batch_id), 0
    found = False
    breaks: list[BatchBreak] = []
    for entry in entries:
        if entry.end_to_end_id == ours:
            if found:
                breaks.append(_break(BreakKind.TWICE, entry, batch.net_minor))
            elif entry.amount_minor != batch.net_minor:
                breaks.append(_break(BreakKind.AMOUNT_DIFFERS, entry, batch.net_minor))
            found = True
        elif is_of_book(entry.end_to_end_id, batch) and batch_key(entry.end_to_end_id) not in rows:
            breaks.append(_break(BreakKind.MISSING_HERE, entry, None))
        else:
            others += 1
    if not found and batch.net_minor:  # what came to nothing needs no transfer
        missing = BankEntry(end_to_end_id=ours, amount_minor=0, line=0)
        lacking = _break(BreakKind.MISSING_THERE, missing, batch.net_minor)
        breaks.append(replace(lacking, theirs_minor=None, line=None))
    return breaks, others


def _break(kind: BreakKind, entry: BankEntry, ours_minor: int | None) -> BatchBreak:
    return BatchBreak(
        batch_id="",
        number=0,
        kind=kind,
        end_to_end_id=entry.end_to_end_id,
        ours_minor=ours_minor,
        theirs_minor=entry.amount_minor,
        line=entry.line,
        version=0,
    )


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    due = expired(rows, tick, at_ms)
    gone = (SettlementsForgotten(due=due, at_ms=at_ms),) if due else ()
    over = [rows[due_subject(key)] for key in overdue(rows, tick, CLOSE, at_ms)]
    return (*gone, *(_closed(batch, BY_CLOCK, "", at_ms) for batch in over))


def _refuse(command: Command, subject: str, reason: Reason, at_ms: int) -> Sequence[Event]:
    return (
        SettlementCommandRefused(
            batch_id=subject, command=type(command).__name__, reason=reason, at_ms=at_ms
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case ItemSettled():
            return _item_settled(rows, event)
        case SettlementRunRequested():
            key = run_key(event.run_id)
            due, expiry = forget(rows, event.at_ms, key)
            run = Run(day=event.day, request_hash=event.request_hash, at_ms=event.at_ms)
            return {key: run, due: expiry}
        case BatchClosed():
            return _batch_closed(rows, event)
        case BatchReconciled():
            return _batch_reconciled(rows, event)
        case SettlementsForgotten():
            return forgotten(rows, event.due)
        case SettlementCommandRefused():
            return {}
        case _:
            assert_never(event)


def _item_settled(rows: Rows, event: ItemSettled) -> Changes:
    book, day = home_of(event.batch_id), event.batch_id.rpartition(".")[2]
    item = Item(
        batch_id=event.batch_id,
        end_to_end_id=event.end_to_end_id,
        payment_id=event.payment_id,
        amount_minor=event.amount_minor,
        at_ms=event.at_ms,
    )
    keys = item_key(event.batch_id, event.number), settled_key(book, event.end_to_end_id)
    due, expiry = forget(rows, event.at_ms, *keys)
    changes: dict[RowKey, Any] = {**dict.fromkeys(keys, item), due: expiry}
    batch: Batch | None = rows.get(batch_key(event.batch_id))
    if batch is None:
        batch = _opened(event, book, day)
        close, row = due_row(batch.due_ms, CLOSE, batch_key(event.batch_id))
        changes[close] = row
    batch = replace(
        batch,
        items=batch.items + 1,
        in_minor=batch.in_minor + max(0, event.amount_minor),
        out_minor=batch.out_minor + max(0, -event.amount_minor),
        net_minor=batch.net_minor + event.amount_minor,
        version=batch.version + 1,
        updated_ms=event.at_ms,
    )
    others = [one for one in _open(rows) if one.batch_id != batch.batch_id]
    changes[batch_key(event.batch_id)] = batch
    changes[OPEN] = OpenBatches(batches=(*others, batch))
    return changes


def _opened(event: ItemSettled, book: str, day: str) -> Batch:
    provider, _, currency = book.rpartition(".")
    return Batch(
        batch_id=event.batch_id,
        provider=provider,
        currency=currency,
        day=day,
        status=Status.OPEN,
        items=0,
        in_minor=0,
        out_minor=0,
        net_minor=0,
        closed_by="",
        run_id="",
        statement_id="",
        breaks=0,
        request_hash="",
        due_ms=ends_ms(date.fromisoformat(day)) + LATE_MS,
        version=0,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
        closed_ms=None,
    )


def _batch_closed(rows: Rows, event: BatchClosed) -> Changes:
    key, book = batch_key(event.batch_id), home_of(event.batch_id)
    batch: Batch = rows[key]
    closed = replace(
        batch,
        status=Status.CLOSED,
        closed_by=event.closed_by,
        run_id=event.run_id,
        version=event.version,
        updated_ms=event.at_ms,
        closed_ms=event.at_ms,
    )
    left = tuple([one for one in _open(rows) if one.batch_id != event.batch_id])
    return {
        key: closed,
        book_key(book): Book(closed_day=event.day),
        OPEN: OpenBatches(batches=left),
        due_key(batch.due_ms, CLOSE, key): None,
        **(_closed_by_run(rows, event) if event.run_id else {}),
    }


def _closed_by_run(rows: Rows, event: BatchClosed) -> Changes:
    key = closed_key(event.run_id)
    before: ClosedBatches | None = rows.get(key)
    due, expiry = forget(rows, event.at_ms, key)
    batch_ids = (*(before.batch_ids if before else ()), event.batch_id)
    return {key: ClosedBatches(batch_ids=batch_ids), due: expiry}


def _batch_reconciled(rows: Rows, event: BatchReconciled) -> Changes:
    key = batch_key(event.batch_id)
    batch: Batch = rows[key]
    changes: dict[RowKey, Any] = {
        break_key(event.batch_id, number): None for number in range(batch.breaks)
    }
    changes |= {break_key(event.batch_id, one.number): one for one in event.breaks}
    changes[key] = replace(
        batch,
        status=Status.BROKEN if event.breaks else Status.RECONCILED,
        statement_id=event.statement_id,
        breaks=len(event.breaks),
        request_hash=event.request_hash,
        version=event.version,
        updated_ms=event.at_ms,
    )
    return changes


OPEN: RowKey = "open-batches"
BATCH = "batch/"


def home_of(batch_id: str) -> str:
    """The book in a batch's id, `<book>.<YYYY-MM-DD>`: what the batch is keyed by."""
    return batch_id.rpartition(".")[0]


def transfer_id(batch_id: str) -> str:
    """How the batch's transfer is named in pain.001 and found in a statement (EndToEndId, 35 characters)."""
    if len(batch_id) <= TRANSFER_ID_LIMIT:
        return batch_id
    return hashlib.sha256(batch_id.encode()).hexdigest()[:TRANSFER_ID_LIMIT]


def is_of_book(end_to_end_id: str, batch: Batch) -> bool:
    """True for what names a batch of the same book."""
    book, _, day = end_to_end_id.rpartition(".")
    return book == home_of(batch.batch_id) and _is_day(day)


def batch_key(batch_id: str) -> RowKey:
    return f"{BATCH}{batch_id}"


def book_key(book: str) -> RowKey:
    return f"book/{book}"


def item_key(batch_id: str, number: int) -> RowKey:
    return f"item/{batch_id}/{number:010d}"


def settled_key(book: str, end_to_end_id: str) -> RowKey:
    return f"settled/{book}/{end_to_end_id}"


def break_key(batch_id: str, number: int) -> RowKey:
    return f"break/{batch_id}/{number:06d}"


def run_key(run_id: str) -> RowKey:
    return f"run/{run_id}"


def closed_key(run_id: str) -> RowKey:
    return f"closed/{run_id}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case Tick():
            return (*tick_keys(message), OPEN)
        case PaymentBooked():
            book = message.book
            return (settled_key(book, message.end_to_end_id), book_key(book), OPEN)
        case RunSettlement():
            return (run_key(message.run_id),)
        case SettlementRunRequested():  # heard in each partition, and said in one
            return (OPEN, run_key(message.run_id), expiry_key(message.at_ms))
        case ReconcileBatch():
            named = [batch_key(entry.end_to_end_id) for entry in message.entries]
            return (batch_key(message.batch_id), *named)
        case ItemSettled():
            return (batch_key(message.batch_id), OPEN, expiry_key(message.at_ms))
        case BatchClosed():
            by_run = (closed_key(message.run_id), expiry_key(message.at_ms))
            return (batch_key(message.batch_id), OPEN, *(by_run if message.run_id else ()))
        case BatchReconciled():
            return (batch_key(message.batch_id),)
        case SettlementsForgotten():
            return message.due
        case SettlementCommandRefused():
            return ()
        case _:
            assert_never(message)


def aggregate_id(event: Event) -> str:
    match event:
        case SettlementRunRequested():
            return event.run_id
        case SettlementsForgotten():
            return event.due[0]
        case _:
            return event.batch_id


SETTLEMENT = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Batch, Book, OpenBatches, Item, BatchBreak, Run, ClosedBatches, Due, Expiry),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, BATCH),
)
