"""Transactions: an order, recorded until it has exactly one end.

    (absent) --CreateTransaction--> PENDING --> COMPLETED | FAILED | CANCELLED

Other services decide whether money moves; here is written down what was ordered and how it ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain.decider import (
    Changes,
    Decider,
    Expiry,
    RowKey,
    Rows,
    Tick,
    expired,
    expiry_key,
    forget,
    forgotten,
    tick_keys,
)
from domain.holds import account_of
from domain.money import is_amount, is_currency
from domain.saga import (
    AccountCredited,
    Balance,
    CancelRequested,
    CancelTooLate,
    CreditRefused,
    DebitRefused,
    DebitReversed,
    Order,
    PaymentProcessed,
    Rail,
    Reason,
    ReviewRequested,
    RiskDeclined,
    Step,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "transaction"
DEADLINE_LIMIT_S = 24 * 3600


class Status(StrEnum):
    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTransaction:
    """Order a movement of money, to start within `deadline_s` seconds of its arrival or never."""

    transaction_id: str
    type: TransactionType
    amount_minor: int
    currency: str
    source_account_id: str | None
    destination_account_id: str | None
    owner_id: str
    actor_id: str
    privileged: bool
    rail: Rail
    deadline_s: int
    description: str
    reference: str
    metadata: dict[str, str]
    request_hash: str
    terms: Terms | None = None  # what the client says beyond amount and accounts


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTransaction:
    """Stop a transaction before its money moves."""

    transaction_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionCommandRefused:
    """A command on a transaction was refused; the transaction is as it was."""

    transaction_id: str
    command: str  # name of the command's type
    reason: Reason
    request_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionHeld:
    """A person must decide first; the transaction is pending until then."""

    transaction_id: str
    review_id: str
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionsForgotten:
    """Final transactions left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Row `transaction/<transaction_id>`."""

    order: Order
    description: str
    reference: str
    metadata: dict[str, str]
    request_hash: str
    status: Status
    reason: Reason | None
    review_id: str | None  # set once a person had to decide
    balances: tuple[Balance, ...]  # of the accounts touched, once final
    steps: tuple[Step, ...]
    version: int
    created_ms: int
    updated_ms: int
    completed_ms: int | None  # set once final


Message: TypeAlias = (
    CreateTransaction
    | CancelTransaction
    | AccountCredited
    | PaymentProcessed
    | RiskDeclined
    | ReviewRequested
    | DebitRefused
    | CreditRefused
    | DebitReversed
    | CancelTooLate
    | Tick
)
Final: TypeAlias = TransactionCompleted | TransactionFailed | TransactionCancelled
Event: TypeAlias = (
    TransactionCreated
    | Final
    | TransactionHeld
    | CancelRequested
    | TransactionCommandRefused
    | TransactionsForgotten
)


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case CreateTransaction():
            return _create(rows, message, at_ms)
        case AccountCredited() | PaymentProcessed():
            return _complete(rows, message, at_ms)
        case RiskDeclined() | DebitRefused() | CreditRefused() | DebitReversed():
            return _fail(rows, message, at_ms)
        case ReviewRequested():
            return _hold(rows, message, at_ms)
        case CancelTransaction():
            return _cancel(rows, message, at_ms)
        case CancelTooLate():
            return _refuse_cancel(rows, message, at_ms)
        case Tick():
            due = expired(rows, message, at_ms)
            return (TransactionsForgotten(due=due, at_ms=at_ms),) if due else ()
        case _:
            assert_never(message)


def _create(rows: Rows, command: CreateTransaction, at_ms: int) -> Sequence[Event]:
    row: Transaction | None = rows.get(transaction_key(command.transaction_id))
    if row is not None and row.request_hash == command.request_hash:
        return ()
    if row is not None:
        return _refuse(command, Reason.IDEMPOTENCY_MISMATCH, command.request_hash, at_ms)
    order = _order(command, at_ms)
    if (reason := _invalid(command)) is not None:
        return (
            TransactionFailed(
                order=order,
                request_hash=command.request_hash,
                reason=reason,
                balances=(),
                at_ms=at_ms,
                steps=traced((), "validate", SERVICE, reason, at_ms),
            ),
        )
    return (
        TransactionCreated(
            order=order,
            description=command.description,
            reference=command.reference,
            metadata=command.metadata,
            request_hash=command.request_hash,
            at_ms=at_ms,
            steps=traced((), "validate", SERVICE, "accepted", at_ms),
        ),
    )


def _order(command: CreateTransaction, at_ms: int) -> Order:
    return Order(
        transaction_id=command.transaction_id,
        type=command.type,
        amount_minor=command.amount_minor,
        currency=command.currency,
        source_account_id=command.source_account_id,
        destination_account_id=command.destination_account_id,
        owner_id=command.owner_id,
        actor_id=command.actor_id,
        privileged=command.privileged,
        rail=_rail(command),
        created_ms=at_ms,
        deadline_ms=at_ms + max(0, min(command.deadline_s, DEADLINE_LIMIT_S)) * 1000,
        terms=command.terms,
    )


def _rail(command: CreateTransaction) -> Rail:
    """What leaves the bank leaves by a rail; what comes in is booked."""
    match command.type:
        case TransactionType.WITHDRAWAL:
            return Rail.EXTERNAL
        case TransactionType.DEPOSIT:
            return Rail.BOOK
        case TransactionType.TRANSFER:
            return command.rail
        case TransactionType.CAPTURE:
            return Rail.EXTERNAL if _goes_out(command) else command.rail
        case _:
            assert_never(command.type)


def _goes_out(command: CreateTransaction) -> bool:
    """The money leaves the bank."""
    if command.type is TransactionType.CAPTURE:  # it goes where its hold says
        return not command.destination_account_id
    return command.type is TransactionType.WITHDRAWAL


def _invalid(command: CreateTransaction) -> Reason | None:
    if not command.transaction_id or {".", "/"} & set(command.transaction_id):
        return Reason.INVALID_COMMAND  # they part the ids that are made of it
    if not is_currency(command.currency):
        return Reason.CURRENCY_UNKNOWN
    if not is_amount(command.amount_minor):
        return Reason.INVALID_COMMAND
    if not 0 < command.deadline_s <= DEADLINE_LIMIT_S:
        return Reason.INVALID_COMMAND
    source, destination = command.source_account_id, command.destination_account_id
    if bool(source) is not (command.type is not TransactionType.DEPOSIT):
        return Reason.INVALID_COMMAND
    if bool(destination) is _goes_out(command):
        return Reason.INVALID_COMMAND
    if source == destination or not command.owner_id:
        return Reason.INVALID_COMMAND
    if command.type is TransactionType.CAPTURE:
        return None if _names_its_hold(command) else Reason.INVALID_COMMAND
    if command.terms is not None:
        return Reason.INVALID_COMMAND  # none of the other types has any
    return None


def _names_its_hold(command: CreateTransaction) -> bool:
    """The client says which hold on the source, and no other terms."""
    hold_id = command.terms.hold_id if command.terms is not None else None
    if hold_id is None or command.terms != Terms(hold_id=hold_id):
        return False
    return account_of(hold_id) == command.source_account_id


def _complete(rows: Rows, fact: AccountCredited | PaymentProcessed, at_ms: int) -> Sequence[Event]:
    row = _pending(rows, fact.order)
    if row is None:
        return ()
    return (
        TransactionCompleted(
            order=fact.order,
            request_hash=row.request_hash,
            balances=fact.balances,
            at_ms=at_ms,
            steps=traced(fact.steps, "complete", SERVICE, "completed", at_ms),
        ),
    )


def _fail(
    rows: Rows, fact: RiskDeclined | DebitRefused | CreditRefused | DebitReversed, at_ms: int
) -> Sequence[Event]:
    row = _pending(rows, fact.order)
    if row is None:
        return ()
    balances = fact.balances if isinstance(fact, DebitReversed) else ()
    if fact.reason is Reason.CANCELLED:
        return (
            TransactionCancelled(
                order=fact.order,
                request_hash=row.request_hash,
                balances=balances,
                at_ms=at_ms,
                steps=traced(fact.steps, "complete", SERVICE, "cancelled", at_ms),
            ),
        )
    return (
        TransactionFailed(
            order=fact.order,
            request_hash=row.request_hash,
            reason=fact.reason,
            balances=balances,
            at_ms=at_ms,
            steps=traced(fact.steps, "complete", SERVICE, "failed", at_ms),
        ),
    )


def _hold(rows: Rows, fact: ReviewRequested, at_ms: int) -> Sequence[Event]:
    row = _pending(rows, fact.order)
    if row is None or row.review_id is not None:
        return ()
    return (
        TransactionHeld(
            transaction_id=fact.order.transaction_id,
            review_id=fact.review_id,
            at_ms=at_ms,
            steps=fact.steps,
        ),
    )


def _cancel(rows: Rows, command: CancelTransaction, at_ms: int) -> Sequence[Event]:
    row: Transaction | None = rows.get(transaction_key(command.transaction_id))
    if row is None:
        return _refuse(command, Reason.TRANSACTION_NOT_FOUND, "", at_ms)
    if row.status is Status.CANCELLED:
        return ()
    if row.status is not Status.PENDING:
        return _refuse(command, Reason.TOO_LATE, row.request_hash, at_ms)
    return (
        CancelRequested(order=row.order, actor_id=command.actor_id, at_ms=at_ms, steps=row.steps),
    )


def _refuse_cancel(rows: Rows, fact: CancelTooLate, at_ms: int) -> Sequence[Event]:
    row: Transaction | None = rows.get(transaction_key(fact.order.transaction_id))
    if row is None:
        return ()
    return (
        TransactionCommandRefused(
            transaction_id=fact.order.transaction_id,
            command=CancelTransaction.__name__,
            reason=Reason.TOO_LATE,
            request_hash=row.request_hash,
            at_ms=at_ms,
        ),
    )


def _pending(rows: Rows, order: Order) -> Transaction | None:
    """The transaction while it has no end; a fact heard twice, or after its time, meets none."""
    row: Transaction | None = rows.get(transaction_key(order.transaction_id))
    return row if row is not None and row.status is Status.PENDING else None


def _refuse(
    command: CreateTransaction | CancelTransaction, reason: Reason, request_hash: str, at_ms: int
) -> Sequence[Event]:
    return (
        TransactionCommandRefused(
            transaction_id=command.transaction_id,
            command=type(command).__name__,
            reason=reason,
            request_hash=request_hash,
            at_ms=at_ms,
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case TransactionCreated():
            return {transaction_key(event.order.transaction_id): _created(event)}
        case TransactionCompleted():
            return _ended(rows, event, Status.COMPLETED, None)
        case TransactionFailed():
            return _ended(rows, event, Status.FAILED, event.reason)
        case TransactionCancelled():
            return _ended(rows, event, Status.CANCELLED, Reason.CANCELLED)
        case TransactionHeld():
            return _held(rows, event)
        case TransactionsForgotten():
            return forgotten(rows, event.due)
        case CancelRequested() | TransactionCommandRefused():
            return {}
        case _:
            assert_never(event)


def _created(event: TransactionCreated) -> Transaction:
    return Transaction(
        order=event.order,
        description=event.description,
        reference=event.reference,
        metadata=event.metadata,
        request_hash=event.request_hash,
        status=Status.PENDING,
        reason=None,
        review_id=None,
        balances=(),
        steps=event.steps,
        version=1,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
        completed_ms=None,
    )


def _ended(rows: Rows, event: Final, status: Status, reason: Reason | None) -> Changes:
    key = transaction_key(event.order.transaction_id)
    row: Transaction | None = rows.get(key)  # absent where the order itself was invalid
    due, expiry = forget(rows, event.at_ms, key)
    return {
        key: Transaction(
            order=event.order,
            description=row.description if row else "",
            reference=row.reference if row else "",
            metadata=row.metadata if row else {},
            request_hash=event.request_hash,
            status=status,
            reason=reason,
            review_id=row.review_id if row else None,
            balances=event.balances,
            steps=event.steps,
            version=row.version + 1 if row else 1,
            created_ms=event.order.created_ms,
            updated_ms=event.at_ms,
            completed_ms=event.at_ms,
        ),
        due: expiry,
    }


def _held(rows: Rows, event: TransactionHeld) -> Changes:
    key = transaction_key(event.transaction_id)
    row: Transaction = rows[key]
    held = replace(
        row,
        review_id=event.review_id,
        steps=event.steps,
        version=row.version + 1,
        updated_ms=event.at_ms,
    )
    return {key: held}


def transaction_key(transaction_id: str) -> RowKey:
    return f"transaction/{transaction_id}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case Tick():
            return tick_keys(message)
        case TransactionsForgotten():
            return message.due
        case TransactionCompleted() | TransactionFailed() | TransactionCancelled():
            key = transaction_key(message.order.transaction_id)
            return (key, expiry_key(message.at_ms))
        case _:
            return (transaction_key(_transaction_id(message)),)


def aggregate_id(event: Event) -> str:
    if isinstance(event, TransactionsForgotten):
        return event.due[0]
    return _transaction_id(event)


def _transaction_id(message: Any) -> str:
    order = getattr(message, "order", message)
    return str(order.transaction_id)


TRANSACTION = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Transaction, Expiry),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
)
