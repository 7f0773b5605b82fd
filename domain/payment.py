r"""Payments: money that leaves through a provider's rail.

    AccountDebited --> REQUESTED --RailAnswered--> PROCESSED | FAILED
                  \--late--> FAILED
    PROCESSED --CreditRefused--> REFUND_REQUESTED --RailAnswered--> REFUNDED | REFUND_FAILED

The rail is asked, never guessed: while its answer is not known, a tick asks the same again under
the same id, at growing distances. An answer that comes twice finds its question answered. The book
rail needs none of this: our own books pay at once, in the debit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain.decider import (
    FORGET,
    KEEP_FINAL_MS,
    Changes,
    Decider,
    Due,
    RowKey,
    Rows,
    Tick,
    due_key,
    due_row,
    due_subject,
    overdue,
    tick_keys,
)
from domain.saga import (
    AccountDebited,
    Balance,
    CreditRefused,
    Order,
    PaymentFailed,
    PaymentProcessed,
    PaymentRequested,
    Reason,
    RefundFailed,
    RefundProcessed,
    RefundRequested,
    Step,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "payment"
ASK = "ask"  # the kind of a due row: ask the rail again
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

    transaction_id: str
    payment_id: str
    operation: RailOperation
    attempt: int
    outcome: RailOutcome
    provider_reference: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentsForgotten:
    """Payments left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


class Status(StrEnum):
    REQUESTED = "requested"
    PROCESSED = "processed"
    FAILED = "failed"
    REFUND_REQUESTED = "refund_requested"
    REFUNDED = "refunded"
    REFUND_FAILED = "refund_failed"


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


Message: TypeAlias = AccountDebited | RailAnswered | CreditRefused | Tick
Event: TypeAlias = (
    PaymentRequested
    | PaymentProcessed
    | PaymentFailed
    | RefundRequested
    | RefundProcessed
    | RefundFailed
    | PaymentsForgotten
)


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case AccountDebited():
            return _request(rows, message, at_ms)
        case RailAnswered():
            return _answered(rows, message, at_ms)
        case CreditRefused():
            return _refund(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _request(rows: Rows, fact: AccountDebited, at_ms: int) -> Sequence[Event]:
    order = fact.order
    if payment_key(order.transaction_id) in rows:
        return ()
    if at_ms > order.deadline_ms:
        return (
            PaymentFailed(
                order=order,
                payment_id=order.transaction_id,
                reason=Reason.DEADLINE_PASSED,
                balances=fact.balances,
                at_ms=at_ms,
                steps=traced(fact.steps, "payment", SERVICE, Reason.DEADLINE_PASSED, at_ms),
            ),
        )
    return (
        PaymentRequested(
            order=order,
            payment_id=order.transaction_id,
            attempt=1,
            balances=fact.balances,
            at_ms=at_ms,
            steps=fact.steps,
        ),
    )


def _answered(rows: Rows, answer: RailAnswered, at_ms: int) -> Sequence[Event]:
    """The first answer that says something decides; after UNKNOWN the next tick asks again."""
    payment: Payment | None = rows.get(payment_key(answer.transaction_id))
    if payment is None or answer.outcome is RailOutcome.UNKNOWN:
        return ()
    approved = answer.outcome is RailOutcome.APPROVED
    match answer.operation:
        case RailOperation.PAY if payment.status is Status.REQUESTED:
            return (_processed if approved else _failed)(payment, answer, at_ms)
        case RailOperation.PAY if payment.status is Status.FAILED and approved:
            # the rail said no, then yes: the debit is back already, so its money must come back too
            reason = payment.reason or Reason.PAYMENT_DECLINED
            reference = answer.provider_reference
            return _ask_back(payment, reason, reference, payment.steps, at_ms)
        case RailOperation.REFUND if payment.status is Status.REFUND_REQUESTED:
            return (_refunded if approved else _refund_failed)(payment, at_ms)
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
            refund_id=f"{payment.payment_id}.refund",
            provider_reference=provider_reference,
            attempt=1,
            reason=reason,
            balances=payment.balances,
            at_ms=at_ms,
            steps=steps,
        ),
    )


def _refunded(payment: Payment, at_ms: int) -> Sequence[Event]:
    return (
        RefundProcessed(
            order=payment.order,
            payment_id=payment.payment_id,
            reason=_refund_reason(payment),
            balances=payment.balances,
            at_ms=at_ms,
            steps=traced(payment.steps, "refund", SERVICE, "processed", at_ms),
        ),
    )


def _refund_failed(payment: Payment, at_ms: int) -> Sequence[Event]:
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


def _ask_again(payment: Payment, at_ms: int) -> PaymentRequested | RefundRequested:
    """The same question under the same id: however often it is asked, the rail acts once."""
    if payment.status is Status.REQUESTED:
        return PaymentRequested(
            order=payment.order,
            payment_id=payment.payment_id,
            attempt=payment.attempt + 1,
            balances=payment.balances,
            at_ms=at_ms,
            steps=payment.steps,
        )
    return RefundRequested(
        order=payment.order,
        payment_id=payment.payment_id,
        refund_id=f"{payment.payment_id}.refund",
        provider_reference=payment.provider_reference,
        attempt=payment.attempt + 1,
        reason=_refund_reason(payment),
        balances=payment.balances,
        at_ms=at_ms,
        steps=payment.steps,
    )


def delay_ms(attempt: int) -> int:
    """How long after this attempt the rail is asked again: 15 s, doubling, at most an hour."""
    return min(FIRST_DELAY_MS << (attempt - 1), LAST_DELAY_MS) if attempt < 16 else LAST_DELAY_MS


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case PaymentRequested():
            return _asking(rows, event, Status.REQUESTED, "", None)
        case RefundRequested():
            reference = event.provider_reference
            return _asking(rows, event, Status.REFUND_REQUESTED, reference, event.reason)
        case PaymentProcessed():
            return _ended(rows, event, Status.PROCESSED, event.provider_reference, None)
        case PaymentFailed():
            return _ended(rows, event, Status.FAILED, "", event.reason)
        case RefundProcessed():
            return _ended(rows, event, Status.REFUNDED, None, event.reason)
        case RefundFailed():
            return _ended(rows, event, Status.REFUND_FAILED, None, event.reason)
        case PaymentsForgotten():
            return {gone: None for key in event.due for gone in (key, due_subject(key))}
        case _:
            assert_never(event)


def _asking(
    rows: Rows,
    event: PaymentRequested | RefundRequested,
    status: Status,
    reference: str,
    reason: Reason | None,
) -> Changes:
    due_ms = event.at_ms + delay_ms(event.attempt)
    key = payment_key(event.order.transaction_id)
    due, due_row_ = due_row(due_ms, ASK, key)
    row = _row(rows.get(key), event, status, event.attempt, reference, reason, due_ms)
    return {**_undue(rows.get(key), key), key: row, due: due_row_}


def _ended(
    rows: Rows,
    event: PaymentProcessed | PaymentFailed | RefundProcessed | RefundFailed,
    status: Status,
    reference: str | None,
    reason: Reason | None,
) -> Changes:
    """The row with its outcome; `reference` None: as it was."""
    key = payment_key(event.order.transaction_id)
    row: Payment | None = rows.get(key)
    if reference is None:
        reference = row.provider_reference if row else ""
    due_ms = event.at_ms + KEEP_FINAL_MS
    due, due_row_ = due_row(due_ms, FORGET, key)
    attempt = row.attempt if row else 0
    return {
        **_undue(row, key),
        key: _row(row, event, status, attempt, reference, reason, due_ms),
        due: due_row_,
    }


def _row(
    row: Payment | None,
    event: PaymentRequested
    | RefundRequested
    | PaymentProcessed
    | PaymentFailed
    | RefundProcessed
    | RefundFailed,
    status: Status,
    attempt: int,
    reference: str,
    reason: Reason | None,
    due_ms: int,
) -> Payment:
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
    )


def _undue(row: Payment | None, key: RowKey) -> dict[RowKey, Any]:
    """The change that takes away what the payment waited for."""
    if row is None:
        return {}
    asking = row.status in (Status.REQUESTED, Status.REFUND_REQUESTED)
    return {due_key(row.due_ms, ASK if asking else FORGET, key): None}


def payment_key(transaction_id: str) -> RowKey:
    return f"payment/{transaction_id}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case Tick():
            return tick_keys(message)
        case PaymentsForgotten():
            return ()
        case RailAnswered():
            return (payment_key(message.transaction_id),)
        case _:
            return (payment_key(message.order.transaction_id),)


def aggregate_id(event: Event) -> str:
    if isinstance(event, PaymentsForgotten):
        return event.due[0]
    return event.order.transaction_id


PAYMENT = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Payment, Due),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
)
