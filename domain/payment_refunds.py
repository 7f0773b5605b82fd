r"""Refunds: money that goes back to where a provider took it from.

    ordered   RiskApproved --> RESERVED --AccountDebited--> REQUESTED --> REFUNDED | FAILED
                          \--> REFUSED    \--DebitRefused--> FAILED
    undoing   PROCESSED --CreditRefused--> REFUND_REQUESTED --> REFUNDED | REFUND_FAILED

An ordered refund has a row of its own, decided under the key of its payment: what is reserved and
done is never more than what was captured. What undoes a payment is a part of that payment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from domain.decider import FORGET, KEEP_FINAL_MS, due_row
from domain.payment_rail import RailAnswered, RailOutcome, booked, delay_ms
from domain.payment_rows import (
    ASK,
    SERVICE,
    Payment,
    Refund,
    RefundStatus,
    Status,
    original_of,
    payment_key,
    refund_key,
    undo_id,
    undue,
)
from domain.reconciliation import PaymentBooked
from domain.saga import (
    Order,
    Reason,
    RefundFailed,
    RefundProcessed,
    RefundRefused,
    RefundRequested,
    RefundReserved,
    Step,
    charges,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Changes, RowKey, Rows
    from domain.saga import (
        AccountDebited,
        CancelRequested,
        CreditRefused,
        DebitRefused,
        RiskApproved,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundWithdrawn:
    """The account could not be debited: what was reserved of the payment is free again."""

    order: Order
    payment_id: str
    reason: Reason
    at_ms: int
    steps: tuple[Step, ...]


OrderedRefund: TypeAlias = (
    RefundReserved
    | RefundRefused
    | RefundWithdrawn
    | RefundRequested
    | RefundProcessed
    | RefundFailed
)
Said: TypeAlias = OrderedRefund | PaymentBooked


# ordered: deciding


def reserve(rows: Rows, fact: RiskApproved, at_ms: int) -> Sequence[Said]:
    """Reserved and done are never more than what was captured."""
    order, payment_id = fact.order, original_of(fact.order)
    payment: Payment | None = rows.get(payment_key(payment_id))
    if refund_key(payment_id, order.transaction_id) in rows:
        return ()
    if at_ms > order.deadline_ms:
        return (refuse_refund(fact, Reason.DEADLINE_PASSED, at_ms),)
    if payment is None or not charges(payment.order):
        return (refuse_refund(fact, Reason.PAYMENT_NOT_FOUND, at_ms),)
    if payment.status is not Status.CREDITED:
        return (refuse_refund(fact, Reason.PAYMENT_NOT_CREDITED, at_ms),)
    if payment.order.destination_account_id != order.source_account_id:
        return (refuse_refund(fact, Reason.INVALID_COMMAND, at_ms),)
    if payment.order.currency != order.currency:
        return (refuse_refund(fact, Reason.INVALID_COMMAND, at_ms),)
    if order.amount_minor > refundable_minor(payment):
        return (refuse_refund(fact, Reason.REFUND_EXCEEDS_PAYMENT, at_ms),)
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


def refuse_refund(
    fact: RiskApproved | CancelRequested, reason: Reason, at_ms: int
) -> RefundRefused:
    return RefundRefused(
        order=fact.order,
        payment_id=original_of(fact.order),
        reason=reason,
        at_ms=at_ms,
        steps=traced(fact.steps, "refund", SERVICE, reason, at_ms),
    )


def withdraw(rows: Rows, fact: DebitRefused, at_ms: int) -> Sequence[Said]:
    refund = refund_of(rows, fact.order)
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


def request(rows: Rows, fact: AccountDebited, at_ms: int) -> Sequence[Said]:
    """The money is off the account: from here the rail decides, however late it is asked."""
    refund = refund_of(rows, fact.order)
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


def refund_of(rows: Rows, order: Order) -> Refund | None:
    refund: Refund | None = rows.get(refund_key(original_of(order), order.transaction_id))
    return refund


def answered(rows: Rows, answer: RailAnswered, at_ms: int) -> Sequence[Said]:
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
        booked(refund.order, refund.payment_id, answer, at_ms),
    )


# ordered: rows


REFUND_STATUS: dict[type, RefundStatus] = {
    RefundReserved: RefundStatus.RESERVED,
    RefundRefused: RefundStatus.REFUSED,
    RefundWithdrawn: RefundStatus.FAILED,
    RefundRequested: RefundStatus.REQUESTED,
    RefundProcessed: RefundStatus.REFUNDED,
    RefundFailed: RefundStatus.FAILED,
}


def changed(rows: Rows, event: OrderedRefund) -> Changes:
    """The refund's row, and what it means to its payment's."""
    key = refund_key(event.payment_id, event.order.transaction_id)
    row: Refund | None = rows.get(key)
    payment: Payment | None = rows.get(payment_key(event.payment_id))  # it may have left
    status = REFUND_STATUS[type(event)]
    due_ms = _refund_due_ms(event, status)
    changes: dict[RowKey, Any] = {
        **undue(row, key),
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


# undoing a payment


def undo(rows: Rows, fact: CreditRefused, at_ms: int) -> Sequence[Said]:
    payment: Payment | None = rows.get(payment_key(fact.order.transaction_id))
    if payment is None or payment.status is not Status.PROCESSED:
        return ()
    return ask_back(payment, fact.reason, payment.provider_reference, fact.steps, at_ms)


def ask_back(
    payment: Payment, reason: Reason, provider_reference: str, steps: tuple[Step, ...], at_ms: int
) -> Sequence[Said]:
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


def undone(payment: Payment, answer: RailAnswered, at_ms: int) -> Sequence[Said]:
    return (
        RefundProcessed(
            order=payment.order,
            payment_id=payment.payment_id,
            reason=_reason(payment),
            balances=payment.balances,
            at_ms=at_ms,
            steps=traced(payment.steps, "refund", SERVICE, "processed", at_ms),
        ),
        booked(payment.order, payment.payment_id, answer, at_ms),
    )


def undo_failed(payment: Payment, _answer: RailAnswered, at_ms: int) -> Sequence[Said]:
    return (
        RefundFailed(
            order=payment.order,
            payment_id=payment.payment_id,
            reason=_reason(payment),
            balances=payment.balances,
            at_ms=at_ms,
            steps=traced(payment.steps, "refund", SERVICE, "failed", at_ms),
        ),
    )


def _reason(payment: Payment) -> Reason:
    assert payment.reason is not None, "a refund has a reason"
    return payment.reason
