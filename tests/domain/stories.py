"""given events, when a message, then events: a service asked one question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.decider import Decider, Overlay, apply, handle
from domain.saga import (
    AccountDebited,
    Order,
    Rail,
    RiskApproved,
    TransactionCreated,
    TransactionType,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON_MS = 1_790_000_000_000


def then(decider: Decider, given: Sequence[Any], when: Any, at_ms: int = NOON_MS) -> list[Any]:
    """What the service says to a message after these events of its own."""
    rows = Overlay({})
    apply(decider, rows, given)
    events, _ = handle(decider, rows, when, at_ms)
    return list(events)


def rows_of(decider: Decider, given: Sequence[Any]) -> dict[str, Any]:
    """The service's rows after these events of its own."""
    rows = Overlay({})
    apply(decider, rows, given)
    return dict(rows)


def order(**changes: Any) -> Order:
    """Ada orders $20.00 to Bob, at noon, to start within 30 s."""
    fields: dict[str, Any] = {
        "transaction_id": "t1",
        "type": TransactionType.TRANSFER,
        "amount_minor": 2_000,
        "currency": "USD",
        "source_account_id": "ada",
        "destination_account_id": "bob",
        "owner_id": "u-ada",
        "actor_id": "u-ada",
        "privileged": False,
        "rail": Rail.BOOK,
        "created_ms": NOON_MS,
        "deadline_ms": NOON_MS + 30_000,
        **changes,
    }
    return Order(**fields)


def deposit_order(**changes: Any) -> Order:
    return order(type=TransactionType.DEPOSIT, source_account_id=None, **changes)


def created(**changes: Any) -> TransactionCreated:
    return TransactionCreated(
        order=order(**changes),
        description="",
        reference="",
        metadata={},
        request_hash="h1",
        at_ms=NOON_MS,
        steps=(),
    )


def approved(it: Order | None = None) -> RiskApproved:
    return RiskApproved(order=it or order(), score=0, at_ms=NOON_MS, steps=())


def debited(it: Order | None = None, at_ms: int = NOON_MS) -> AccountDebited:
    return AccountDebited(order=it or order(), postings=(), balances=(), at_ms=at_ms, steps=())
