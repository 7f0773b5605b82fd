r"""Payments: money that a provider moves, out of the bank or into it.

    out     AccountDebited --> REQUESTED --RailAnswered--> PROCESSED | FAILED
    in      RiskApproved --> REQUESTED --RailAnswered--> PROCESSED --AccountCredited--> CREDITED
    undone  PROCESSED --CreditRefused--> REFUND_REQUESTED --> REFUNDED | REFUND_FAILED

The rail is asked, never guessed: while its answer is not known, a tick asks the same again under
the same id, at growing distances. An answer may come as one, as a notice of the provider, twice, or
late: it finds its question answered. The book rail needs none of this: our own books pay at once,
in the debit. An order that names a payment method asks the method first (`payment_methods.py`).

Here stands how a payment goes; what goes back in `payment_refunds`, what the provider is asked and
says in `payment_rail`, what they share, rows and keys, in `payment_rows`. What the provider moved is
told to the list of its day (`reconciliation.py`). All is one service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never, get_args

from domain import payment_refunds
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
from domain.payment_rail import (
    NotifyPayment,
    ProviderNoticeRefused,
    RailAnswered,
    RailOperation,
    RailOutcome,
    answer_of,
    ask_again,
    booked,
    delay_ms,
)
from domain.payment_refunds import RefundWithdrawn
from domain.payment_rows import (
    ASK,
    SERVICE,
    Payment,
    Refund,
    Status,
    original_of,
    payment_key,
    refund_key,
    undue,
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
    home_of,
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
    refunds,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

KEEP_CREDITED_MS = 180 * 24 * 3600 * 1000  # for so long a payment can be refunded


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentCredited:
    """The money of a payment is on its account: (part of) it can be refunded from now on."""

    order: Order
    payment_id: str
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentsForgotten:
    """Payments left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


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
            return payment_refunds.withdraw(rows, message, at_ms)
        case AccountCredited():
            return _credited(rows, message, at_ms)
        case CreditRefused():
            return payment_refunds.undo(rows, message, at_ms)
        case CancelRequested():
            return _cancel(rows, message, at_ms)
        case RailAnswered():
            return _answered(rows, message, at_ms)
        case NotifyPayment():
            answer = answer_of(rows, message, at_ms)
            if isinstance(answer, ProviderNoticeRefused):
                return (answer,)
            return _answered(rows, answer, at_ms)
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
            return payment_refunds.reserve(rows, fact, at_ms)
        case AccountDebited() if refunds(fact.order):
            return payment_refunds.request(rows, fact, at_ms)
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
        refund = payment_refunds.refund_of(rows, order)
        if refund is None:
            return (payment_refunds.refuse_refund(fact, Reason.CANCELLED, at_ms),)
        if refund.reason is Reason.CANCELLED:
            return ()
        return (PaymentCancelTooLate(order=order, at_ms=at_ms),)
    payment: Payment | None = rows.get(payment_key(order.transaction_id))
    if payment is None:
        return (_never(order, Reason.CANCELLED, (), fact.steps, at_ms),)
    if payment.reason is Reason.CANCELLED:
        return ()
    return (PaymentCancelTooLate(order=order, at_ms=at_ms),)


def _answered(rows: Rows, answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    """The first answer that says something decides; after UNKNOWN the next tick asks again."""
    payment: Payment | None = rows.get(payment_key(answer.payment_id))
    if answer.outcome is RailOutcome.UNKNOWN:
        return ()
    if answer.refund_id is not None:
        return payment_refunds.answered(rows, answer, at_ms)
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
            back = payment_refunds.ask_back(payment, reason, reference, payment.steps, at_ms)
            return (booked(payment.order, payment.payment_id, answer, at_ms), *back)
        case RailOperation.REFUND if payment.status is Status.REFUND_REQUESTED:
            undo = payment_refunds.undone if approved else payment_refunds.undo_failed
            return undo(payment, answer, at_ms)
        case RailOperation.PAY | RailOperation.REFUND:
            return ()
        case _:
            assert_never(answer.operation)


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
        booked(payment.order, payment.payment_id, answer, at_ms),
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


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    due = overdue(rows, tick, FORGET, at_ms)
    gone = (PaymentsForgotten(due=due, at_ms=at_ms),) if due else ()
    asked = [ask_again(rows[due_subject(key)], at_ms) for key in overdue(rows, tick, ASK, at_ms)]
    return (*gone, *asked)


def evolve(rows: Rows, event: Event) -> Changes:  # noqa: C901 - a case an event
    match event:
        case RefundReserved() | RefundRefused() | RefundWithdrawn():
            return payment_refunds.changed(rows, event)
        case RefundRequested() | RefundProcessed() | RefundFailed() if _is_ordered(event):
            return payment_refunds.changed(rows, event)
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
    return {**undue(rows.get(key), key), key: row, due: due_row_}


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
        **undue(row, key),
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
