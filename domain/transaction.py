r"""Transactions: an order, recorded until it has exactly one end.

    (absent) --CreateTransaction--> PENDING --> COMPLETED | FAILED | CANCELLED

Other services decide whether money moves; here is written down what was ordered, what it costs and
how it ended. A reversal is an order of its own, opposite to a completed one, which is never edited:
the original grants it, to one order at a time, before risk hears of it.

    reversal --TransactionCreated--> original --ReversalGranted--> risk, and on as any order
                                             \--ReversalRefused--> reversal: failed
    reversal --TransactionFailed, TransactionCancelled--> original: ReversalReleased, may be undone again
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
from domain.prices import (
    FREE,
    PRICE_LIST,
    PriceList,
    PriceListApplied,
    PriceListRefused,
    PriceListSet,
    SetPriceList,
    apply_list,
    fee_of,
    listed,
    set_list,
)
from domain.saga import (
    AccountCredited,
    AccountDebited,
    Balance,
    CancelRequested,
    CancelTooLate,
    Client,
    CreditRefused,
    CreditSuspended,
    DebitRefused,
    DebitReversed,
    Order,
    PaymentCancelTooLate,
    PaymentFailed,
    PaymentProcessed,
    Rail,
    RateRefused,
    Reason,
    RefundProcessed,
    RefundRefused,
    ReversalGranted,
    ReversalRefused,
    ReviewRequested,
    RiskDeclined,
    Step,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
    refunds,
    traced,
    undoes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVICE = "transaction"
DEADLINE_LIMIT_S = 24 * 3600
UNDONE_BY: Mapping[TransactionType, frozenset[TransactionType]] = {
    TransactionType.REVERSAL: frozenset(
        {
            TransactionType.TRANSFER,
            TransactionType.DEPOSIT,
            TransactionType.WITHDRAWAL,
            TransactionType.PAYMENT,
            TransactionType.CAPTURE,
        }
    ),
    TransactionType.REFUND: frozenset({TransactionType.PAYMENT}),
}


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
    client: Client | None = None


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
class ReversalReleased:
    """The order that was to undo this transaction came to nothing; another one may."""

    transaction_id: str  # of the original
    reversal_id: str
    at_ms: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversal:
    """Row `reversal/<original's transaction_id>`, once something was to undo the original.

    And `grant/<original's>/<transaction_id>`: decided once for this order, whatever was said.
    """

    reversal_id: str | None  # whom it is granted to; None: to nobody any more
    at_ms: int


Message: TypeAlias = (
    CreateTransaction
    | CancelTransaction
    | SetPriceList
    | PriceListSet
    | TransactionCreated
    | TransactionFailed
    | TransactionCancelled
    | ReversalRefused
    | AccountCredited
    | AccountDebited
    | PaymentProcessed
    | RateRefused
    | RiskDeclined
    | ReviewRequested
    | DebitRefused
    | CreditRefused
    | DebitReversed
    | PaymentFailed
    | RefundProcessed
    | RefundRefused
    | CreditSuspended
    | CancelTooLate
    | PaymentCancelTooLate
    | Tick
)
Failure: TypeAlias = (
    RateRefused
    | RiskDeclined
    | DebitRefused
    | CreditRefused
    | DebitReversed
    | PaymentFailed
    | RefundProcessed
    | RefundRefused
    | ReversalRefused
    | CreditSuspended
)
Final: TypeAlias = TransactionCompleted | TransactionFailed | TransactionCancelled
Event: TypeAlias = (
    TransactionCreated
    | Final
    | TransactionHeld
    | CancelRequested
    | ReversalGranted
    | ReversalRefused
    | ReversalReleased
    | PriceListSet
    | PriceListApplied
    | PriceListRefused
    | TransactionCommandRefused
    | TransactionsForgotten
)


def decide(  # noqa: C901 - a case a message
    rows: Rows, message: Message, at_ms: int
) -> Sequence[Event]:
    match message:
        case CreateTransaction():
            return _create(rows, message, at_ms)
        case AccountCredited() | PaymentProcessed() | AccountDebited():
            return _complete(rows, message, at_ms)
        case RefundProcessed() if refunds(message.order):
            return _complete(rows, message, at_ms)
        case RateRefused() | RiskDeclined() | DebitRefused():
            return _fail(rows, message, at_ms)
        case ReversalRefused() | CreditRefused() | DebitReversed():
            return _fail(rows, message, at_ms)
        case TransactionCreated():
            return _grant(rows, message, at_ms)
        case TransactionFailed() | TransactionCancelled():
            return _release(rows, message, at_ms)
        case SetPriceList():
            return set_list(rows, message, at_ms)
        case PriceListSet():
            return apply_list(rows, message, at_ms)
        case PaymentFailed() | RefundProcessed() | RefundRefused() | CreditSuspended():
            return _fail(rows, message, at_ms)
        case ReviewRequested():
            return _hold(rows, message, at_ms)
        case CancelTransaction():
            return _cancel(rows, message, at_ms)
        case CancelTooLate() | PaymentCancelTooLate():
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
    if (reason := _invalid(command)) is not None:
        return (
            TransactionFailed(
                order=_order(command, command.terms, at_ms),
                request_hash=command.request_hash,
                reason=reason,
                balances=(),
                at_ms=at_ms,
                steps=traced((), "validate", SERVICE, reason, at_ms),
            ),
        )
    return (
        TransactionCreated(
            order=_order(command, _terms(rows, command), at_ms),
            description=command.description,
            reference=command.reference,
            metadata=command.metadata,
            request_hash=command.request_hash,
            at_ms=at_ms,
            steps=traced((), "validate", SERVICE, "accepted", at_ms),
            client=command.client,
        ),
    )


def _terms(rows: Rows, command: CreateTransaction) -> Terms | None:
    """What was ordered beside an amount, and what that costs; None where there is neither."""
    if command.type in FREE:
        return command.terms
    fee_minor = fee_of(rows, command.type, command.currency, command.amount_minor)
    if command.source_account_id is None:  # nothing to take it from
        fee_minor = 0
    if command.terms is None and not fee_minor:
        return None
    return replace(command.terms or Terms(), fee_minor=fee_minor)


def _order(command: CreateTransaction, terms: Terms | None, at_ms: int) -> Order:
    return Order(
        transaction_id=command.transaction_id,
        type=command.type,
        amount_minor=command.amount_minor,
        currency=command.currency,
        source_account_id=command.source_account_id or None,
        destination_account_id=command.destination_account_id or None,
        owner_id=command.owner_id,
        actor_id=command.actor_id,
        privileged=command.privileged,
        rail=_rail(command),
        created_ms=at_ms,
        deadline_ms=at_ms + max(0, min(command.deadline_s, DEADLINE_LIMIT_S)) * 1000,
        terms=terms,
    )


def _rail(command: CreateTransaction) -> Rail:
    """What leaves the bank leaves by a rail; what comes in is booked."""
    match command.type:
        case TransactionType.WITHDRAWAL:
            return Rail.EXTERNAL
        case TransactionType.DEPOSIT | TransactionType.EXCHANGE | TransactionType.REVERSAL:
            return Rail.BOOK
        case TransactionType.PAYMENT if not command.source_account_id:
            return Rail.EXTERNAL
        case TransactionType.REFUND:
            return Rail.BOOK if command.destination_account_id else Rail.EXTERNAL
        case TransactionType.TRANSFER | TransactionType.PAYMENT:
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
    if not _has_its_sides(command) or not command.owner_id:
        return Reason.INVALID_COMMAND
    return None if _has_its_terms(command) else Reason.INVALID_COMMAND


def _has_its_sides(command: CreateTransaction) -> bool:
    """Money leaves an account, or comes to one, or both, as the type says."""
    source, destination = command.source_account_id, command.destination_account_id
    if source == destination and command.type is not TransactionType.EXCHANGE:
        return False
    match command.type:
        case TransactionType.DEPOSIT:
            return not source
        case TransactionType.WITHDRAWAL:
            return not destination
        case TransactionType.TRANSFER:
            return bool(source and destination)
        case TransactionType.EXCHANGE:  # between two currencies, be it of one account
            return bool(source and destination)
        case TransactionType.PAYMENT:  # without a source a card is charged
            return bool(destination)
        case TransactionType.CAPTURE | TransactionType.REFUND:  # without destination: by the rail
            return bool(source)
        case TransactionType.REVERSAL:
            return True
        case _:
            assert_never(command.type)


def _has_its_terms(command: CreateTransaction) -> bool:
    """Nothing is said beyond amount and accounts, save whose method, what is captured, exchanged or undone."""
    terms = command.terms
    if command.type is TransactionType.CAPTURE:
        return _names_its_hold(command)
    if command.type is TransactionType.EXCHANGE:
        return _names_another_currency(command)
    if command.type is TransactionType.PAYMENT and not command.source_account_id:
        return _names_its_method(terms)
    if command.type is TransactionType.WITHDRAWAL and terms is not None:
        return _names_its_method(terms)
    if command.type not in UNDONE_BY:
        return terms is None
    if terms is None or not terms.original_transaction_id:
        return False
    original_id, fee_minor = terms.original_transaction_id, terms.fee_minor
    return terms == Terms(original_transaction_id=original_id, fee_minor=fee_minor)


def _names_another_currency(command: CreateTransaction) -> bool:
    """The client says what is to be had, by which quote if by any, and no other terms."""
    terms = command.terms
    if terms is None or terms.destination_currency in (None, command.currency):
        return False
    destination, quote_id = terms.destination_currency or "", terms.quote_id
    said = Terms(destination_currency=destination, quote_id=quote_id)
    return terms == said and quote_id != "" and is_currency(destination)


def _names_its_method(terms: Terms | None) -> bool:
    """The client says which payment method, and no other terms."""
    method_id = terms.payment_method_id if terms is not None else None
    return bool(method_id) and terms == Terms(payment_method_id=method_id)


def _names_its_hold(command: CreateTransaction) -> bool:
    """The client says which hold on the source, and no other terms."""
    hold_id = command.terms.hold_id if command.terms is not None else None
    if hold_id is None or command.terms != Terms(hold_id=hold_id):
        return False
    return account_of(hold_id) == command.source_account_id


def _grant(rows: Rows, fact: TransactionCreated, at_ms: int) -> Sequence[Event]:
    """The original decides, once: this order may undo it, or may not."""
    order = fact.order
    original_id = _original_id(order)
    reversal: Reversal | None = rows.get(reversal_key(original_id))
    if decided_key(order) in rows:
        return ()
    if reversal is not None and reversal.reversal_id == order.transaction_id:
        return ()
    reason = _irreversible(rows.get(transaction_key(original_id)), reversal, order)
    if reason is not None:
        steps = traced(fact.steps, "grant", SERVICE, reason, at_ms)
        return (ReversalRefused(order=order, reason=reason, at_ms=at_ms, steps=steps),)
    steps = traced(fact.steps, "grant", SERVICE, "granted", at_ms)
    return (ReversalGranted(order=order, at_ms=at_ms, steps=steps),)


def _irreversible(
    original: Transaction | None, reversal: Reversal | None, order: Order
) -> Reason | None:
    if original is None:
        return Reason.TRANSACTION_NOT_FOUND
    if original.status is not Status.COMPLETED:
        return Reason.NOT_COMPLETED
    if not is_reversible(original.order, order.type):
        return Reason.NOT_REVERSIBLE
    if reversal is not None and reversal.reversal_id is not None:
        return Reason.ALREADY_REVERSED
    return None if _is_opposite(order, original.order) else Reason.INVALID_COMMAND


def is_reversible(original: Order, by: TransactionType) -> bool:
    """True for what an order of type `by` may undo; what a provider moved only payment undoes."""
    charged = original.terms is not None and original.terms.payment_method_id is not None
    return not charged and original.type in UNDONE_BY[by]


def returned_fee_minor(original: Order, by: TransactionType) -> int:
    """What the bank gives back of the fee: all of it where it undoes the original itself."""
    if by is TransactionType.REVERSAL and original.terms is not None:
        return original.terms.fee_minor
    return 0


def _is_opposite(order: Order, original: Order) -> bool:
    assert order.terms is not None
    return (
        order.source_account_id == original.destination_account_id
        and order.destination_account_id == original.source_account_id
        and order.amount_minor == original.amount_minor
        and order.currency == original.currency
        and -order.terms.fee_minor == returned_fee_minor(original, order.type)
    )


def _release(
    rows: Rows, fact: TransactionFailed | TransactionCancelled, at_ms: int
) -> Sequence[Event]:
    """The grant is free again. What was cancelled before it asked is to meet that, too."""
    order = fact.order
    original_id = _original_id(order)
    reversal: Reversal | None = rows.get(reversal_key(original_id))
    granted = reversal is not None and reversal.reversal_id == order.transaction_id
    unasked = isinstance(fact, TransactionCancelled) and decided_key(order) not in rows
    if not granted and not unasked:
        return ()
    return (
        ReversalReleased(transaction_id=original_id, reversal_id=order.transaction_id, at_ms=at_ms),
    )


def _complete(
    rows: Rows,
    fact: AccountCredited | PaymentProcessed | AccountDebited | RefundProcessed,
    at_ms: int,
) -> Sequence[Event]:
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


def _fail(rows: Rows, fact: Failure, at_ms: int) -> Sequence[Event]:
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


def _refuse_cancel(
    rows: Rows, fact: CancelTooLate | PaymentCancelTooLate, at_ms: int
) -> Sequence[Event]:
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


def evolve(rows: Rows, event: Event) -> Changes:  # noqa: C901 - a case an event
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
        case ReversalGranted():
            return _granted(rows, event)
        case ReversalRefused():
            return _decided(rows, decided_key(event.order), event.order.transaction_id, event.at_ms)
        case ReversalReleased():
            return _released(rows, event)
        case PriceListSet() | PriceListApplied():
            return listed(event)
        case CancelRequested() | TransactionCommandRefused():
            return {}
        case PriceListRefused():
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


def _granted(rows: Rows, event: ReversalGranted) -> Changes:
    """The grant, until the original is long forgotten; its leaving is asked for once."""
    key, decided = reversal_key(_original_id(event.order)), decided_key(event.order)
    row = Reversal(reversal_id=event.order.transaction_id, at_ms=event.at_ms)
    leaving = (decided,) if key in rows else (key, decided)
    due, expiry = forget(rows, event.at_ms, *leaving)
    return {key: row, decided: row, due: expiry}


def _released(rows: Rows, event: ReversalReleased) -> Changes:
    key = reversal_key(event.transaction_id)
    decided = grant_key(event.transaction_id, event.reversal_id)
    row: Reversal | None = rows.get(key)
    changes: dict[RowKey, Any] = {}
    if row is not None and row.reversal_id == event.reversal_id:
        changes[key] = Reversal(reversal_id=None, at_ms=event.at_ms)
    if decided not in rows:
        changes |= _decided(rows, decided, event.reversal_id, event.at_ms)
    return changes


def _decided(rows: Rows, key: RowKey, reversal_id: str, at_ms: int) -> Changes:
    due, expiry = forget(rows, at_ms, key)
    return {key: Reversal(reversal_id=reversal_id, at_ms=at_ms), due: expiry}


def transaction_key(transaction_id: str) -> RowKey:
    return f"transaction/{transaction_id}"


def reversal_key(original_transaction_id: str) -> RowKey:
    return f"reversal/{original_transaction_id}"


def decided_key(order: Order) -> RowKey:
    """Of an order that undoes another: whether it was granted, decided once."""
    return grant_key(_original_id(order), order.transaction_id)


def grant_key(original_transaction_id: str, transaction_id: str) -> RowKey:
    return f"grant/{original_transaction_id}/{transaction_id}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case Tick():
            return tick_keys(message)
        case TransactionsForgotten():
            return message.due
        case SetPriceList() | PriceListSet() | PriceListApplied() | PriceListRefused():
            return (PRICE_LIST,)
        case CreateTransaction():
            return (transaction_key(message.transaction_id), PRICE_LIST)
        case TransactionCompleted() | TransactionFailed() | TransactionCancelled():
            return (*_keys_of(message.order), expiry_key(message.at_ms))
        case TransactionCreated() | ReversalGranted() | ReversalRefused():
            return (*_keys_of(message.order), expiry_key(message.at_ms))
        case ReversalReleased():
            own = grant_key(message.transaction_id, message.reversal_id)
            return (reversal_key(message.transaction_id), own, expiry_key(message.at_ms))
        case _:
            return (transaction_key(_transaction_id(message)),)


def _keys_of(order: Order) -> Sequence[RowKey]:
    """Of an order that undoes another: both; one is mostly in another partition, and absent here."""
    own = transaction_key(order.transaction_id)
    if not undoes(order):
        return (own,)
    original_id = _original_id(order)
    original = transaction_key(original_id)
    return (own, original, reversal_key(original_id), decided_key(order))


def aggregate_id(event: Event) -> str:
    match event:
        case TransactionsForgotten():
            return event.due[0]
        case PriceListSet() | PriceListApplied() | PriceListRefused():
            return PRICE_LIST
        case ReversalGranted() | ReversalRefused():
            return _original_id(event.order)
        case _:
            return _transaction_id(event)


def _original_id(order: Order) -> str:
    assert order.terms is not None
    return order.terms.original_transaction_id or ""


def _transaction_id(message: Any) -> str:
    order = getattr(message, "order", message)
    return str(order.transaction_id)


TRANSACTION = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Transaction, Reversal, PriceList, Expiry),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
)
