"""The rail: what a provider was asked, and what it said, as an answer or as a notice of its own.

The same is asked again under the same id, at growing distances, until one answer says something.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from domain.payment_rows import Payment, Refund, Status, payment_key, refund_key, undo_id
from domain.reconciliation import PaymentBooked, end_to_end_id, key_of
from domain.saga import PaymentRequested, Reason, RefundRequested, charges

if TYPE_CHECKING:
    from domain.decider import Rows
    from domain.saga import Order

FIRST_DELAY_MS = 15_000  # longer than one attempt of `perform` with its short retries
LAST_DELAY_MS = 3600 * 1000


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


def answer_of(
    rows: Rows, notice: NotifyPayment, at_ms: int
) -> RailAnswered | ProviderNoticeRefused:
    """A notice is an answer, once it fits what was asked."""
    asked = _asked(rows, notice)
    if asked is None:
        return _refuse_notice(notice, Reason.PAYMENT_NOT_FOUND, at_ms)
    if (notice.amount_minor, notice.currency) != (asked.amount_minor, asked.currency):
        return _refuse_notice(notice, Reason.INVALID_COMMAND, at_ms)
    ordered = notice.refund_id != undo_id(notice.payment_id)
    return RailAnswered(
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


def ask_again(row: Payment | Refund, at_ms: int) -> PaymentRequested | RefundRequested:
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


def booked(order: Order, payment_id: str, answer: RailAnswered, at_ms: int) -> PaymentBooked:
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
