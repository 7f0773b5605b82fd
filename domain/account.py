"""Accounts: who may hold money, how much, and what moves it.

(absent) --OpenAccount--> OPEN --Freeze--> FROZEN --Unfreeze--> OPEN --Close (all zero)--> CLOSED
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.decider import RowKey
from domain.saga import DebitSuspended, Reason


class Status(StrEnum):
    OPEN = "open"
    FROZEN = "frozen"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAccount:
    """Open an account for `user_id`; overdraft limits are minor units by currency, 0 where not named."""

    account_id: str
    user_id: str
    name: str
    currencies: tuple[str, ...]
    overdraft_limits: dict[str, int]
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeAccount:
    """Let nothing but put-backs move on the account."""

    account_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfreezeAccount:
    """Let money move again."""

    account_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseAccount:
    """Close for good: only at zero in all currencies and with nothing in flight."""

    account_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnSuspended:
    """Put back a debit whose refund failed: suspense to account. An operator's command."""

    account_id: str
    transaction_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOpened:
    """The account exists, with zero in each of its currencies."""

    account_id: str
    user_id: str
    name: str
    currencies: tuple[str, ...]
    overdraft_limits: dict[str, int]
    request_hash: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFrozen:
    """Nothing but put-backs moves on the account now."""

    account_id: str
    user_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUnfrozen:
    """Money moves on the account again."""

    account_id: str
    user_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountClosed:
    """The account is closed for good."""

    account_id: str
    user_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCommandRefused:
    """A command on an account was refused; nothing changed."""

    account_id: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LegClosed:
    """The debited amount arrived: nothing of this transaction can come back to the source."""

    account_id: str
    transaction_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LegsForgotten:
    """Legs left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Row `account/<account_id>`."""

    account_id: str
    user_id: str
    name: str
    status: Status
    balances: dict[str, int]  # minor units by currency, all currencies held
    overdraft_limits: dict[str, int]  # minor units by currency, 0 where not named
    open_legs: int  # debits of which the end is not known yet
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int


class Side(StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"


class LegState(StrEnum):
    """How a transaction stands with one account; all but DEBITED and SUSPENDED are ends."""

    REFUSED = "refused"  # a tombstone too: cancelled before anything moved
    DEBITED = "debited"
    SUSPENDED = "suspended"
    REVERSED = "reversed"
    SETTLED = "settled"
    CREDITED = "credited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Row `leg/<transaction_id>/<side>`: decided once for this account."""

    account_id: str
    state: LegState
    at_ms: int
    suspended: DebitSuspended | None  # what a later return needs
