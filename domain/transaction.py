"""Transactions: an order, recorded until it has exactly one end.

(absent) --CreateTransaction--> PENDING --> COMPLETED | FAILED | CANCELLED
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.decider import RowKey
from domain.saga import Balance, Order, Rail, Reason, Step, TransactionType


class Status(StrEnum):
    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTransaction:
    """Order a movement of money. `deadline_s`: seconds from its arrival after which no step may start it."""

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
