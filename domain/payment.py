"""Payments: money that leaves through a provider's rail.

AccountDebited (external) --> REQUESTED --RailAnswered--> PROCESSED | FAILED
                                  \\--tick: asked again until the rail's answer is known
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.decider import RowKey
from domain.saga import Balance, Order, Reason, Step


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
