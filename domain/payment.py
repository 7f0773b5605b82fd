r"""Payments: money that a provider moves, out of the bank or into it.

    out     AccountDebited --> REQUESTED --RailAnswered--> PROCESSED | FAILED
    in      RiskApproved --> REQUESTED --RailAnswered--> PROCESSED --AccountCredited--> CREDITED
    undone  PROCESSED --CreditRefused--> REFUND_REQUESTED --> REFUNDED | REFUND_FAILED

    refund  RiskApproved --> RESERVED --AccountDebited--> REQUESTED --> REFUNDED | FAILED
                        \--> REFUSED    \--DebitRefused--> FAILED

The rail is asked, never guessed: while its answer is not known, a tick asks the same again under
the same id, at growing distances. An answer may come as one, as a notice of the provider, twice, or
late: it finds its question answered. The book rail needs none of this: our own books pay at once,
in the debit. An order that names a payment method asks the method first (`payment_methods.py`).

A refund that is ordered is decided under the key of its payment, so that what is reserved and done
is never more than what was captured. What the provider moved is told to the list of its day
(`reconciliation.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain.decider import (
    FORGET,
    KEEP_FINAL_MS,
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
    overdue,
    tick_keys,
)
from domain.payment_methods import (
    AddPaymentMethod,
    PaymentMethod,
    PaymentMethodAdded,
    PaymentMethodCommandRefused,
    PaymentMethodRemoved,
    PaymentMethods,
    RemovePaymentMethod,
    add,
    added,
    check,
    method_key,
    method_keys,
    method_of,
    remove,
    removed,
)
from domain.reconciliation import (
    Booking,
    BookingListed,
    Bookings,
    PaymentBooked,
    ReconcileStatement,
    Statement,
    StatementBreak,
    StatementCommandRefused,
    StatementCompared,
    StatementPartSwept,
    StatementReconciled,
    end_to_end_id,
    home_of,
    key_of,
    reconcile,
    reconciled,
    reconciliation_keys,
)
from domain.saga import (
    AccountCredited,
    AccountDebited,
    Balance,
    CancelRequested,
    CreditRefused,
    DebitRefused,
    Order,
    PaymentCancelTooLate,
    PaymentFailed,
    PaymentMethodChecked,
    PaymentProcessed,
    PaymentRequested,
    Reason,
    RefundFailed,
    RefundProcessed,
    RefundRefused,
    RefundRequested,
    RefundReserved,
    RiskApproved,
    Step,
    charges,
    refunds,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "payment"
ASK = "ask"  # the kind of a due row: ask the rail again
FIRST_DELAY_MS = 15_000  # longer than one attempt of `perform` with its short retries
LAST_DELAY_MS = 3600 * 1000
KEEP_CREDITED_MS = 180 * 24 * 3600 * 1000  # for so long a payment can be refunded


class RailOutcome(StrEnum):
    """What one attempt at the rail came to; UNKNOWN is asked again, never guessed."""

    APPROVED = "approved"
    DECLINED = "declined"
    UNKNOWN = "unknown"


class RailOperation(StrEnum):
    """What the rail was asked to do."""

    PAY = "pay"  # asked by PaymentRequested
    REFUND = "refund"  # asked by RefundRequested


@dataclass(frozen=True, slots=True, kw_only=True)
class RailAnswered:
    """The result of asking the rail, said by `perform` into the payment inbox."""

    transaction_id: str  # of the payment, whose partition it goes to
    payment_id: str
    operation: RailOperation
    attempt: int
    outcome: RailOutcome
    provider_reference: str
    detail: str
    refund_id: str | None = None  # of a refund that was ordered
    provider: str = ""
    booked_on: str = ""  # YYYY-MM-DD, the day in the provider's books; "": it did not say


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyPayment:
    """A notice of the provider, verified by the gateway. Arrives under `payment_id`."""

    notice_id: str  # the provider's
    provider: str
    payment_id: str
    refund_id: str | None  # what the provider was asked for a refund under
    operation: RailOperation
    outcome: RailOutcome
    amount_minor: int
    currency: str
    provider_reference: str
    booked_on: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderNoticeRefused:
    """A notice of the provider fits nothing that it was asked: a person should look at it."""

    notice_id: str
    provider: str
    payment_id: str
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentCredited:
    """The money of a payment is on its account: (part of) it can be refunded from now on."""

    order: Order
    payment_id: str
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundWithdrawn:
    """The account could not be debited: what was reserved of the payment is free again."""

    order: Order
    payment_id: str
    reason: Reason
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentsForgotten:
    """Payments left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


class Status(StrEnum):
    REQUESTED = "requested"
    PROCESSED = "processed"
    CREDITED = "credited"
    FAILED = "failed"
    REFUND_REQUESTED = "refund_requested"
    REFUNDED = "refunded"
    REFUND_FAILED = "refund_failed"


class RefundStatus(StrEnum):
    RESERVED = "reserved"
    REQUESTED = "requested"
    REFUNDED = "refunded"
    FAILED = "failed"
    REFUSED = "refused"  # a tombstone too: cancelled before anything was reserved


ASKING = (Status.REQUESTED, Status.REFUND_REQUESTED, RefundStatus.REQUESTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Row `payment/<transaction_id>`."""

    order: Order
    payment_id: str
    status: Status
    attempt: int  # how often the rail was asked for what `status` waits for; 0: never
    provider_reference: str
    reason: Reason | None  # why it failed, or why a refund is needed
    balances: tuple[Balance, ...]
    steps: tuple[Step, ...]
    due_ms: int  # when the rail is asked again, or the row is forgotten
    version: int
    created_ms: int
    updated_ms: int
    method_token: str = ""
    captured_minor: int = 0  # of what was charged and credited
    refunding_minor: int = 0  # of that: reserved for refunds that have no end yet
    refunded_minor: int = 0  # of that: given back


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Row `refund/<payment_id>/<transaction_id of the refund>`: decided once for its payment."""

    order: Order
    payment_id: str
    refund_id: str
    status: RefundStatus
    attempt: int
    provider_reference: str  # the payment's
    reason: Reason | None  # why it was refused or failed
    balances: tuple[Balance, ...]
    steps: tuple[Step, ...]
    due_ms: int
    version: int
    created_ms: int
    updated_ms: int


Message: TypeAlias = (
    RiskApproved
    | AccountDebited
    | DebitRefused
    | PaymentMethodChecked
    | AccountCredited
    | CreditRefused
    | CancelRequested
    | RailAnswered
    | NotifyPayment
    | AddPaymentMethod
    | RemovePaymentMethod
    | PaymentBooked
    | ReconcileStatement
    | StatementCompared
    | StatementPartSwept
    | Tick
)
Event: TypeAlias = (
    PaymentMethodChecked
    | PaymentRequested
    | PaymentProcessed
    | PaymentFailed
    | PaymentCredited
    | PaymentCancelTooLate
    | RefundReserved
    | RefundRefused
    | RefundWithdrawn
    | RefundRequested
    | RefundProcessed
    | RefundFailed
    | ProviderNoticeRefused
    | PaymentsForgotten
    | PaymentMethodAdded
    | PaymentMethodRemoved
    | PaymentMethodCommandRefused
    | PaymentBooked
    | BookingListed
    | StatementCompared
    | StatementPartSwept
    | StatementReconciled
    | StatementCommandRefused
)


def decide(  # noqa: C901 - a case a message
    rows: Rows, message: Message, at_ms: int
) -> Sequence[Event]:
    match message:
        case RiskApproved() | AccountDebited():
            return _ordered(rows, message, at_ms)
        case PaymentMethodChecked():
            return _request(rows, message, message.reason, at_ms)
        case DebitRefused():
            return _withdraw_refund(rows, message, at_ms)
        case AccountCredited():
            return _credited(rows, message, at_ms)
        case CreditRefused():
            return _refund(rows, message, at_ms)
        case CancelRequested():
            return _cancel(rows, message, at_ms)
        case RailAnswered():
            return _answered(rows, message, at_ms)
        case NotifyPayment():
            return _notified(rows, message, at_ms)
        case AddPaymentMethod():
            return add(rows, message, at_ms)
        case RemovePaymentMethod():
            return remove(rows, message, at_ms)
        case PaymentBooked() | ReconcileStatement() | StatementCompared() | StatementPartSwept():
            return reconcile(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _ordered(rows: Rows, fact: RiskApproved | AccountDebited, at_ms: int) -> Sequence[Event]:
    """What an order needs first: its method's word, a reservation, or the rail at once."""
    match fact:
        case RiskApproved() if refunds(fact.order):
            return _reserve_refund(rows, fact, at_ms)
        case AccountDebited() if refunds(fact.order):
            return _request_refund(rows, fact, at_ms)
        case AccountDebited() if not method_of(fact.order):
            return _request(rows, fact, None, at_ms)
        case _:
            return check(rows, fact, at_ms)


def _request(
    rows: Rows, fact: AccountDebited | PaymentMethodChecked, reason: Reason | None, at_ms: int
) -> Sequence[Event]:
    """Ask the rail, unless its time is over or the method can't be used (`reason`)."""
    order = fact.order
    if payment_key(order.transaction_id) in rows:
        return ()
    if at_ms > order.deadline_ms:
        reason = Reason.DEADLINE_PASSED
    if reason is not None:
        return (_never(order, reason, fact.balances, fact.steps, at_ms),)
    return (
        PaymentRequested(
            order=order,
            payment_id=order.transaction_id,
            attempt=1,
            balances=fact.balances,
            at_ms=at_ms,
            steps=fact.steps,
            method_token=fact.method_token if isinstance(fact, PaymentMethodChecked) else "",
        ),
    )


def _never(
    order: Order,
    reason: Reason,
    balances: tuple[Balance, ...],
    steps: tuple[Step, ...],
    at_ms: int,
) -> PaymentFailed:
    """The rail is not asked, and never will be."""
    return PaymentFailed(
        order=order,
        payment_id=order.transaction_id,
        reason=reason,
        balances=balances,
        at_ms=at_ms,
        steps=traced(steps, "payment", SERVICE, reason, at_ms),
    )


def _credited(rows: Rows, fact: AccountCredited, at_ms: int) -> Sequence[Event]:
    payment: Payment | None = rows.get(payment_key(fact.order.transaction_id))
    if payment is None or payment.status is not Status.PROCESSED:
        return ()
    return (
        PaymentCredited(
            order=fact.order,
            payment_id=payment.payment_id,
            balances=fact.balances,
            at_ms=at_ms,
            steps=fact.steps,
        ),
    )


def _cancel(rows: Rows, fact: CancelRequested, at_ms: int) -> Sequence[Event]:
    """Before the payment, or the refund, began it leaves a tombstone, which a later approval meets."""
    order = fact.order
    if refunds(order):
        refund: Refund | None = rows.get(refund_key(original_of(order), order.transaction_id))
        if refund is None:
            return (_refuse_refund(fact, Reason.CANCELLED, at_ms),)
        if refund.reason is Reason.CANCELLED:
            return ()
        return (PaymentCancelTooLate(order=order, at_ms=at_ms),)
    payment: Payment | None = rows.get(payment_key(order.transaction_id))
    if payment is None:
        return (_never(order, Reason.CANCELLED, (), fact.steps, at_ms),)
    if payment.reason is Reason.CANCELLED:
        return ()
    return (PaymentCancelTooLate(order=order, at_ms=at_ms),)


# refunds that are ordered


def _reserve_refund(rows: Rows, fact: RiskApproved, at_ms: int) -> Sequence[Event]:
    """Reserved and done are never more than what was captured."""
    order, payment_id = fact.order, original_of(fact.order)
    payment: Payment | None = rows.get(payment_key(payment_id))
    if refund_key(payment_id, order.transaction_id) in rows:
        return ()
    if at_ms > order.deadline_ms:
        return (_refuse_refund(fact, Reason.DEADLINE_PASSED, at_ms),)
    if payment is None or not charges(payment.order):
        return (_refuse_refund(fact, Reason.PAYMENT_NOT_FOUND, at_ms),)
    if payment.status is not Status.CREDITED:
        return (_refuse_refund(fact, Reason.PAYMENT_NOT_CREDITED, at_ms),)
    if payment.order.destination_account_id != order.source_account_id:
        return (_refuse_refund(fact, Reason.INVALID_COMMAND, at_ms),)
    if payment.order.currency != order.currency:
        return (_refuse_refund(fact, Reason.INVALID_COMMAND, at_ms),)
    if order.amount_minor > refundable_minor(payment):
        return (_refuse_refund(fact, Reason.REFUND_EXCEEDS_PAYMENT, at_ms),)
    return (
        RefundReserved(
            order=order,
            payment_id=payment_id,
            at_ms=at_ms,
            steps=traced(fact.steps, "refund", SERVICE, "reserved", at_ms),
        ),
    )


def refundable_minor(payment: Payment) -> int:
    """What of a payment may still be refunded, minor units."""
    return payment.captured_minor - payment.refunding_minor - payment.refunded_minor


def _refuse_refund(
    fact: RiskApproved | CancelRequested, reason: Reason, at_ms: int
) -> RefundRefused:
    return RefundRefused(
        order=fact.order,
        payment_id=original_of(fact.order),
        reason=reason,
        at_ms=at_ms,
        steps=traced(fact.steps, "refund", SERVICE, reason, at_ms),
    )


def _withdraw_refund(rows: Rows, fact: DebitRefused, at_ms: int) -> Sequence[Event]:
    refund = _refund_of(rows, fact.order)
    if refund is None or refund.status is not RefundStatus.RESERVED:
        return ()
    return (
        RefundWithdrawn(
            order=fact.order,
            payment_id=refund.payment_id,
            reason=fact.reason,
            at_ms=at_ms,
            steps=fact.steps,
        ),
    )


def _request_refund(rows: Rows, fact: AccountDebited, at_ms: int) -> Sequence[Event]:
    """The money is off the account: from here the rail decides, however late it is asked."""
    refund = _refund_of(rows, fact.order)
    if refund is None or refund.status is not RefundStatus.RESERVED:
        return ()
    return (
        RefundRequested(
            order=fact.order,
            payment_id=refund.payment_id,
            refund_id=refund.refund_id,
            provider_reference=refund.provider_reference,
            attempt=1,
            reason=Reason.REFUND_ORDERED,
            balances=fact.balances,
            at_ms=at_ms,
            steps=fact.steps,
        ),
    )


def _refund_of(rows: Rows, order: Order) -> Refund | None:
    refund: Refund | None = rows.get(refund_key(original_of(order), order.transaction_id))
    return refund


def original_of(order: Order) -> str:
    """The payment that an order of REFUND gives back."""
    assert order.terms is not None
    assert order.terms.original_transaction_id is not None
    return order.terms.original_transaction_id


# what the rail says


def _notified(rows: Rows, notice: NotifyPayment, at_ms: int) -> Sequence[Event]:
    """A notice is an answer, once it fits what was asked."""
    asked = _asked(rows, notice)
    if asked is None:
        return (_refuse_notice(notice, Reason.PAYMENT_NOT_FOUND, at_ms),)
    if (notice.amount_minor, notice.currency) != (asked.amount_minor, asked.currency):
        return (_refuse_notice(notice, Reason.INVALID_COMMAND, at_ms),)
    ordered = notice.refund_id != undo_id(notice.payment_id)
    answer = RailAnswered(
        transaction_id=notice.payment_id,
        payment_id=notice.payment_id,
        operation=notice.operation,
        attempt=0,
        outcome=notice.outcome,
        provider_reference=notice.provider_reference,
        detail=notice.detail,
        refund_id=notice.refund_id if ordered else None,
        provider=notice.provider,
        booked_on=notice.booked_on,
    )
    return _answered(rows, answer, at_ms)


def _asked(rows: Rows, notice: NotifyPayment) -> Order | None:
    """The order that the provider was asked for; None: it was not."""
    payment: Payment | None = rows.get(payment_key(notice.payment_id))
    if notice.operation is RailOperation.PAY:
        return payment.order if payment and payment.attempt else None
    if notice.refund_id == undo_id(notice.payment_id):
        return payment.order if payment else None
    refund: Refund | None = rows.get(refund_key(notice.payment_id, notice.refund_id or ""))
    return refund.order if refund else None


def _refuse_notice(notice: NotifyPayment, reason: Reason, at_ms: int) -> ProviderNoticeRefused:
    return ProviderNoticeRefused(
        notice_id=notice.notice_id,
        provider=notice.provider,
        payment_id=notice.payment_id,
        reason=reason,
        at_ms=at_ms,
    )


def _answered(rows: Rows, answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    """The first answer that says something decides; after UNKNOWN the next tick asks again."""
    payment: Payment | None = rows.get(payment_key(answer.payment_id))
    if answer.outcome is RailOutcome.UNKNOWN:
        return ()
    if answer.refund_id is not None:
        return _refund_answered(rows, answer, at_ms)
    if payment is None:
        return ()
    approved = answer.outcome is RailOutcome.APPROVED
    match answer.operation:
        case RailOperation.PAY if payment.status is Status.REQUESTED:
            return (_processed if approved else _failed)(payment, answer, at_ms)
        case RailOperation.PAY if payment.status is Status.FAILED and approved:
            # the rail said no, then yes: the debit is back already, so its money must come back too
            reason = payment.reason or Reason.PAYMENT_DECLINED
            reference = answer.provider_reference
            booked = _booked(payment.order, payment.payment_id, answer, at_ms)
            return (booked, *_ask_back(payment, reason, reference, payment.steps, at_ms))
        case RailOperation.REFUND if payment.status is Status.REFUND_REQUESTED:
            return (_refunded if approved else _refund_failed)(payment, answer, at_ms)
        case RailOperation.PAY | RailOperation.REFUND:
            return ()
        case _:
            assert_never(answer.operation)


def _refund_answered(rows: Rows, answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    refund: Refund | None = rows.get(refund_key(answer.payment_id, answer.refund_id or ""))
    if refund is None or refund.status is not RefundStatus.REQUESTED:
        return ()
    if answer.outcome is RailOutcome.DECLINED:
        return (
            RefundFailed(
                order=refund.order,
                payment_id=refund.payment_id,
                reason=Reason.REFUND_DECLINED,
                balances=refund.balances,
                at_ms=at_ms,
                steps=traced(refund.steps, "payment", SERVICE, Reason.REFUND_DECLINED, at_ms),
            ),
        )
    return (
        RefundProcessed(
            order=refund.order,
            payment_id=refund.payment_id,
            reason=Reason.REFUND_ORDERED,
            balances=refund.balances,
            at_ms=at_ms,
            steps=traced(refund.steps, "payment", SERVICE, "refunded", at_ms),
        ),
        _booked(refund.order, refund.payment_id, answer, at_ms),
    )


def _processed(payment: Payment, answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    return (
        PaymentProcessed(
            order=payment.order,
            payment_id=payment.payment_id,
            provider_reference=answer.provider_reference,
            balances=payment.balances,
            at_ms=at_ms,
            steps=traced(payment.steps, "payment", SERVICE, "processed", at_ms),
        ),
        _booked(payment.order, payment.payment_id, answer, at_ms),
    )


def _failed(payment: Payment, answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    return (
        PaymentFailed(
            order=payment.order,
            payment_id=payment.payment_id,
            reason=Reason.PAYMENT_DECLINED,
            balances=payment.balances,
            at_ms=at_ms,
            steps=traced(payment.steps, "payment", SERVICE, Reason.PAYMENT_DECLINED, at_ms),
        ),
    )


def _booked(order: Order, payment_id: str, answer: RailAnswered, at_ms: int) -> PaymentBooked:
    """For the list of the provider's day: charged is in, paid out or refunded is out, undone is back."""
    day = answer.booked_on or datetime.fromtimestamp(at_ms // 1000, UTC).date().isoformat()
    undone = answer.operation is RailOperation.REFUND and answer.refund_id is None
    comes_in = charges(order) is not undone
    effect_id = undo_id(payment_id) if undone else order.transaction_id
    return PaymentBooked(
        booking_key=key_of(answer.provider, day, order.currency),
        end_to_end_id=end_to_end_id(effect_id),
        payment_id=payment_id,
        amount_minor=order.amount_minor if comes_in else -order.amount_minor,
        provider_reference=answer.provider_reference,
        at_ms=at_ms,
    )


def undo_id(payment_id: str) -> str:
    """Under which the rail is asked to give back a payment that could not be credited."""
    return f"{payment_id}.refund"


def _refund(rows: Rows, fact: CreditRefused, at_ms: int) -> Sequence[Event]:
    payment: Payment | None = rows.get(payment_key(fact.order.transaction_id))
    if payment is None or payment.status is not Status.PROCESSED:
        return ()
    return _ask_back(payment, fact.reason, payment.provider_reference, fact.steps, at_ms)


def _ask_back(
    payment: Payment, reason: Reason, provider_reference: str, steps: tuple[Step, ...], at_ms: int
) -> Sequence[Event]:
    return (
        RefundRequested(
            order=payment.order,
            payment_id=payment.payment_id,
            refund_id=undo_id(payment.payment_id),
            provider_reference=provider_reference,
            attempt=1,
            reason=reason,
            balances=payment.balances,
            at_ms=at_ms,
            steps=steps,
        ),
    )


def _refunded(payment: Payment, answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    return (
        RefundProcessed(
            order=payment.order,
            payment_id=payment.payment_id,
            reason=_refund_reason(payment),
            balances=payment.balances,
            at_ms=at_ms,
            steps=traced(payment.steps, "refund", SERVICE, "processed", at_ms),
        ),
        _booked(payment.order, payment.payment_id, answer, at_ms),
    )


def _refund_failed(payment: Payment, _answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    return (
        RefundFailed(
            order=payment.order,
            payment_id=payment.payment_id,
            reason=_refund_reason(payment),
            balances=payment.balances,
            at_ms=at_ms,
            steps=traced(payment.steps, "refund", SERVICE, "failed", at_ms),
        ),
    )


def _refund_reason(payment: Payment) -> Reason:
    assert payment.reason is not None, "a refund has a reason"
    return payment.reason


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    due = overdue(rows, tick, FORGET, at_ms)
    gone = (PaymentsForgotten(due=due, at_ms=at_ms),) if due else ()
    asked = [_ask_again(rows[due_subject(key)], at_ms) for key in overdue(rows, tick, ASK, at_ms)]
    return (*gone, *asked)


def _ask_again(row: Payment | Refund, at_ms: int) -> PaymentRequested | RefundRequested:
    """The same question under the same id: however often it is asked, the rail acts once."""
    if isinstance(row, Payment) and row.status is Status.REQUESTED:
        return PaymentRequested(
            order=row.order,
            payment_id=row.payment_id,
            attempt=row.attempt + 1,
            balances=row.balances,
            at_ms=at_ms,
            steps=row.steps,
            method_token=row.method_token,
        )
    ordered = isinstance(row, Refund)
    return RefundRequested(
        order=row.order,
        payment_id=row.payment_id,
        refund_id=row.refund_id if isinstance(row, Refund) else undo_id(row.payment_id),
        provider_reference=row.provider_reference,
        attempt=row.attempt + 1,
        reason=Reason.REFUND_ORDERED if ordered else (row.reason or Reason.PAYMENT_DECLINED),
        balances=row.balances,
        at_ms=at_ms,
        steps=row.steps,
    )


def delay_ms(attempt: int) -> int:
    """How long after this attempt the rail is asked again: 15 s, doubling, at most an hour."""
    return min(FIRST_DELAY_MS << (attempt - 1), LAST_DELAY_MS) if attempt < 16 else LAST_DELAY_MS


def evolve(rows: Rows, event: Event) -> Changes:  # noqa: C901 - a case an event
    match event:
        case RefundReserved() | RefundRefused() | RefundWithdrawn():
            return _refund_changed(rows, event)
        case RefundRequested() | RefundProcessed() | RefundFailed() if _is_ordered(event):
            return _refund_changed(rows, event)
        case PaymentRequested():
            return _asking(rows, event, Status.REQUESTED, "", None)
        case RefundRequested():
            reference = event.provider_reference
            return _asking(rows, event, Status.REFUND_REQUESTED, reference, event.reason)
        case PaymentProcessed():
            return _ended(rows, event, Status.PROCESSED, event.provider_reference, None)
        case PaymentCredited():
            return _ended(rows, event, Status.CREDITED, None, None)
        case PaymentFailed():
            return _ended(rows, event, Status.FAILED, "", event.reason)
        case RefundProcessed():
            return _ended(rows, event, Status.REFUNDED, None, event.reason)
        case RefundFailed():
            return _ended(rows, event, Status.REFUND_FAILED, None, event.reason)
        case PaymentsForgotten():
            return _forgotten(rows, event)
        case PaymentMethodAdded():
            return added(rows, event)
        case PaymentMethodRemoved():
            return removed(rows, event)
        case PaymentMethodChecked() | PaymentCancelTooLate() | ProviderNoticeRefused():
            return {}
        case PaymentMethodCommandRefused():
            return {}
        case _:
            return reconciled(rows, event)


def _is_ordered(event: RefundRequested | RefundProcessed | RefundFailed) -> bool:
    """Whether a refund was ordered, or undoes a payment that could not be credited."""
    return refunds(event.order)


def _forgotten(rows: Rows, event: PaymentsForgotten) -> Changes:
    """A due row lists what leaves (Expiry), or names the one row that does."""
    gone: dict[RowKey, None] = {}
    for key in event.due:
        row = rows.get(key)
        listed = row.keys if isinstance(row, Expiry) else (due_subject(key),)
        gone |= dict.fromkeys((key, *listed))
    return gone


Asking: TypeAlias = PaymentRequested | RefundRequested
Ended: TypeAlias = (
    PaymentProcessed | PaymentCredited | PaymentFailed | RefundProcessed | RefundFailed
)


def _asking(
    rows: Rows, event: Asking, status: Status, reference: str, reason: Reason | None
) -> Changes:
    due_ms = event.at_ms + delay_ms(event.attempt)
    key = payment_key(event.order.transaction_id)
    due, due_row_ = due_row(due_ms, ASK, key)
    row = _row(rows.get(key), event, status, event.attempt, reference, reason, due_ms)
    return {**_undue(rows.get(key), key), key: row, due: due_row_}


def _ended(
    rows: Rows, event: Ended, status: Status, reference: str | None, reason: Reason | None
) -> Changes:
    """The row with its outcome; `reference` None: as it was."""
    key = payment_key(event.order.transaction_id)
    row: Payment | None = rows.get(key)
    if reference is None:
        reference = row.provider_reference if row else ""
    kept_ms = KEEP_CREDITED_MS if status is Status.CREDITED else KEEP_FINAL_MS
    due_ms = event.at_ms + kept_ms
    due, due_row_ = due_row(due_ms, FORGET, key)
    attempt = row.attempt if row else 0
    return {
        **_undue(row, key),
        key: _row(row, event, status, attempt, reference, reason, due_ms),
        due: due_row_,
    }


def _row(
    row: Payment | None,
    event: Asking | Ended,
    status: Status,
    attempt: int,
    reference: str,
    reason: Reason | None,
    due_ms: int,
) -> Payment:
    token = event.method_token if isinstance(event, PaymentRequested) else ""
    captured_minor = event.order.amount_minor if status is Status.CREDITED else 0
    return Payment(
        order=event.order,
        payment_id=event.payment_id,
        status=status,
        attempt=attempt,
        provider_reference=reference,
        reason=reason,
        balances=event.balances,
        steps=event.steps,
        due_ms=due_ms,
        version=row.version + 1 if row else 1,
        created_ms=row.created_ms if row else event.at_ms,
        updated_ms=event.at_ms,
        method_token=token or (row.method_token if row else ""),
        captured_minor=captured_minor,
    )


def _undue(row: Payment | Refund | None, key: RowKey) -> dict[RowKey, Any]:
    """The change that takes away what the payment or the refund waited for."""
    if row is None or not row.due_ms:
        return {}
    return {due_key(row.due_ms, ASK if row.status in ASKING else FORGET, key): None}


OrderedRefund: TypeAlias = (
    RefundReserved
    | RefundRefused
    | RefundWithdrawn
    | RefundRequested
    | RefundProcessed
    | RefundFailed
)
REFUND_STATUS: dict[type, RefundStatus] = {
    RefundReserved: RefundStatus.RESERVED,
    RefundRefused: RefundStatus.REFUSED,
    RefundWithdrawn: RefundStatus.FAILED,
    RefundRequested: RefundStatus.REQUESTED,
    RefundProcessed: RefundStatus.REFUNDED,
    RefundFailed: RefundStatus.FAILED,
}


def _refund_changed(rows: Rows, event: OrderedRefund) -> Changes:
    """The refund's row, and what it means to its payment's."""
    key = refund_key(event.payment_id, event.order.transaction_id)
    row: Refund | None = rows.get(key)
    payment: Payment | None = rows.get(payment_key(event.payment_id))  # it may have left
    status = REFUND_STATUS[type(event)]
    due_ms = _refund_due_ms(event, status)
    changes: dict[RowKey, Any] = {
        **_undue(row, key),
        key: _refund_row(row, payment, event, status, due_ms),
    }
    if due_ms:
        due, due_row_ = due_row(due_ms, ASK if status is RefundStatus.REQUESTED else FORGET, key)
        changes[due] = due_row_
    if payment is not None and status not in (RefundStatus.REFUSED, RefundStatus.REQUESTED):
        changes[payment_key(event.payment_id)] = _less_refund(payment, event, status)
    return changes


def _refund_due_ms(event: OrderedRefund, status: RefundStatus) -> int:
    """When something is due for the refund; 0: the account's answer is what it waits for."""
    if isinstance(event, RefundRequested):
        return event.at_ms + delay_ms(event.attempt)
    return 0 if status is RefundStatus.RESERVED else event.at_ms + KEEP_FINAL_MS


def _refund_row(
    row: Refund | None,
    payment: Payment | None,
    event: OrderedRefund,
    status: RefundStatus,
    due_ms: int,
) -> Refund:
    failed = status in (RefundStatus.FAILED, RefundStatus.REFUSED)
    attempt = event.attempt if isinstance(event, RefundRequested) else row.attempt if row else 0
    reference = (
        row.provider_reference if row is not None else payment.provider_reference if payment else ""
    )
    return Refund(
        order=event.order,
        payment_id=event.payment_id,
        refund_id=event.order.transaction_id,
        status=status,
        attempt=attempt,
        provider_reference=reference,
        reason=getattr(event, "reason", None) if failed else None,
        balances=getattr(event, "balances", ()),
        steps=event.steps,
        due_ms=due_ms,
        version=row.version + 1 if row else 1,
        created_ms=row.created_ms if row else event.at_ms,
        updated_ms=event.at_ms,
    )


def _less_refund(payment: Payment, event: OrderedRefund, status: RefundStatus) -> Payment:
    amount_minor = event.order.amount_minor
    reserved = amount_minor if status is RefundStatus.RESERVED else -amount_minor
    done = amount_minor if status is RefundStatus.REFUNDED else 0
    return replace(
        payment,
        refunding_minor=payment.refunding_minor + reserved,
        refunded_minor=payment.refunded_minor + done,
        version=payment.version + 1,
        updated_ms=event.at_ms,
    )


def payment_key(transaction_id: str) -> RowKey:
    return f"payment/{transaction_id}"


def refund_key(payment_id: str, refund_id: str) -> RowKey:
    return f"refund/{payment_id}/{refund_id}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case Tick():
            return tick_keys(message)
        case PaymentsForgotten():
            return message.due
        case RailAnswered() | NotifyPayment():
            refund = refund_key(message.payment_id, message.refund_id or "")
            return (payment_key(message.payment_id), refund)
        case ProviderNoticeRefused():
            return ()
        case (
            AddPaymentMethod()
            | RemovePaymentMethod()
            | PaymentMethodAdded()
            | PaymentMethodRemoved()
            | PaymentMethodCommandRefused()
        ):
            return method_keys(message)
        case (
            PaymentBooked()
            | BookingListed()
            | ReconcileStatement()
            | StatementCompared()
            | StatementPartSwept()
            | StatementReconciled()
            | StatementCommandRefused()
        ):
            return reconciliation_keys(message)
        case _:
            return _saga_keys(message.order)


def _saga_keys(order: Order) -> Sequence[RowKey]:
    """Of the payment, of its method where it names one, or of a refund and its payment."""
    if refunds(order):
        payment_id = original_of(order)
        return (payment_key(payment_id), refund_key(payment_id, order.transaction_id))
    own = payment_key(order.transaction_id)
    method_id = method_of(order)
    return (own, method_key(method_id)) if method_id else (own,)


def aggregate_id(event: Event) -> str:
    """Of a refund that is ordered: its payment; of a method: its user; of a statement: its list."""
    match event:
        case PaymentsForgotten():
            return event.due[0]
        case PaymentMethodAdded() | PaymentMethodRemoved() | PaymentMethodCommandRefused():
            return event.user_id
        case BookingListed() | StatementCompared() | StatementPartSwept() | StatementReconciled():
            return event.booking_key
        case StatementCommandRefused():
            return home_of(event.statement_id)
        case PaymentMethodChecked() | PaymentCancelTooLate():
            return event.order.transaction_id
        case _:
            return event.payment_id


PAYMENT = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(
        Payment,
        Refund,
        PaymentMethod,
        PaymentMethods,
        Bookings,
        Booking,
        Statement,
        StatementBreak,
        Due,
        Expiry,
    ),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
)
