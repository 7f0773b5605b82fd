"""What the parts of the payment service share: a payment, a refund of it, and their keys."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from domain.decider import FORGET, due_key
from domain.saga import Balance, Order, Reason, Step

if TYPE_CHECKING:
    from typing import Any

    from domain.decider import RowKey

SERVICE = "payment"
ASK = "ask"  # the kind of a due row: ask the rail again


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


def payment_key(transaction_id: str) -> RowKey:
    return f"payment/{transaction_id}"


def refund_key(payment_id: str, refund_id: str) -> RowKey:
    return f"refund/{payment_id}/{refund_id}"


def undo_id(payment_id: str) -> str:
    """Under which the rail is asked to give back a payment that could not be credited."""
    return f"{payment_id}.refund"


def original_of(order: Order) -> str:
    """The payment that an order of REFUND gives back."""
    assert order.terms is not None
    assert order.terms.original_transaction_id is not None
    return order.terms.original_transaction_id


def undue(row: Payment | Refund | None, key: RowKey) -> dict[RowKey, Any]:
    """The change that takes away what the payment or the refund waited for."""
    if row is None or not row.due_ms:
        return {}
    return {due_key(row.due_ms, ASK if row.status in ASKING else FORGET, key): None}
