r"""Holds: money that is reserved on an account, then taken or let go.

    (absent) --PlaceHold--> OPEN --AccountDebited--> CAPTURED --DebitReversed--> RETURNED
           \--> REFUSED      |\--VoidHold--> VOIDED
                              \--its time is over--> EXPIRED

What is held stays in the balance and can't be spent by anything else. A capture is a transaction of
type `capture` that names the hold: its debit, decided where the hold is, takes all or a part, once,
and lets go of the rest in the same fact. A capture that is refused leaves the hold as it is; one
whose money came back has used it up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from domain.decider import due_key, due_row, due_subject, forget, overdue
from domain.money import is_amount
from domain.saga import Order, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from domain.account import Account
    from domain.decider import RowKey, Rows, Tick

HOLD = "hold/"  # the prefix of its row's key
EXPIRE = "expire"  # the kind of a due row: the hold's time is over
HOLD_LIMIT_S = 31 * 24 * 3600  # how long a hold may last


class HoldStatus(StrEnum):
    """How a hold stands; all but OPEN are ends (a returned one was captured first)."""

    OPEN = "open"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"
    RETURNED = "returned"  # captured, and the money came back to the account
    REFUSED = "refused"  # never held anything


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceHold:
    """Reserve an amount on an account for `expires_s` seconds. Arrives under account_id."""

    hold_id: str  # <account_id>.<derived from the request>
    account_id: str
    owner_id: str  # user_id of the account's owner
    amount_minor: int
    currency: str
    destination_account_id: str | None  # who gets what is captured; None: it leaves by the rail
    expires_s: int
    description: str
    reference: str
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VoidHold:
    """Let go of what is held. Arrives under account_id."""

    hold_id: str
    account_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlaced:
    """The amount is held until `expires_ms` at the latest. `version`: the account's."""

    hold_id: str
    account_id: str
    user_id: str
    amount_minor: int
    currency: str
    destination_account_id: str | None
    expires_ms: int
    description: str
    reference: str
    actor_id: str
    request_hash: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRefused:
    """Nothing is held, and never will be under this id."""

    hold_id: str
    account_id: str
    user_id: str  # whose account it was said to be
    amount_minor: int
    currency: str
    destination_account_id: str | None
    description: str
    reference: str
    actor_id: str
    request_hash: str
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldVoided:
    """Nothing is held any more: someone let go of it. `version`: the account's."""

    hold_id: str
    account_id: str
    user_id: str
    amount_minor: int  # that was held
    currency: str
    actor_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldExpired:
    """Nothing is held any more: the time was over. `version`: the account's."""

    hold_id: str
    account_id: str
    user_id: str
    amount_minor: int  # that was held
    currency: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Row `hold/<hold_id>`."""

    hold_id: str
    account_id: str
    user_id: str  # the account's owner
    amount_minor: int
    currency: str
    destination_account_id: str | None
    status: HoldStatus
    reason: Reason | None  # of a refusal
    captured_minor: int  # 0 until it is captured, and again once that came back
    transaction_id: str | None  # of the capture
    description: str
    reference: str
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int
    expires_ms: int


def hold_key(hold_id: str) -> RowKey:
    return f"{HOLD}{hold_id}"


def account_of(hold_id: str) -> str:
    """The id of the account that a hold is on."""
    return hold_id.rpartition(".")[0]


def captured_hold(order: Order) -> str | None:
    """The hold that this order captures, if any."""
    return order.terms.hold_id if order.terms is not None else None


# what is decided


def place(account: Account | None, command: PlaceHold, at_ms: int) -> HoldPlaced | HoldRefused:
    """Hold the amount, if the account has it to spend."""
    if (reason := _refusal(account, command)) is not None or account is None:
        return _refused(command, reason or Reason.ACCOUNT_NOT_FOUND, at_ms)
    return HoldPlaced(
        hold_id=command.hold_id,
        account_id=command.account_id,
        user_id=account.user_id,
        amount_minor=command.amount_minor,
        currency=command.currency,
        destination_account_id=command.destination_account_id,
        expires_ms=at_ms + command.expires_s * 1000,
        description=command.description,
        reference=command.reference,
        actor_id=command.actor_id,
        request_hash=command.request_hash,
        version=account.version + 1,
        at_ms=at_ms,
    )


def _refusal(account: Account | None, command: PlaceHold) -> Reason | None:
    if not _is_placeable(command):
        return Reason.INVALID_COMMAND
    if account is None:
        return Reason.ACCOUNT_NOT_FOUND
    if account.user_id != command.owner_id:
        return Reason.NOT_OWNER
    if (reason := account.unusable(command.currency)) is not None:
        return reason
    if account.available(command.currency) < command.amount_minor:
        return Reason.INSUFFICIENT_FUNDS
    return None


def _is_placeable(command: PlaceHold) -> bool:
    account_id, _, name = command.hold_id.rpartition(".")
    return (
        bool(name)
        and "/" not in command.hold_id
        and account_id == command.account_id != command.destination_account_id
        and is_amount(command.amount_minor)
        and 0 < command.expires_s <= HOLD_LIMIT_S
    )


def _refused(command: PlaceHold, reason: Reason, at_ms: int) -> HoldRefused:
    return HoldRefused(
        hold_id=command.hold_id,
        account_id=command.account_id,
        user_id=command.owner_id,
        amount_minor=command.amount_minor,
        currency=command.currency,
        destination_account_id=command.destination_account_id,
        description=command.description,
        reference=command.reference,
        actor_id=command.actor_id,
        request_hash=command.request_hash,
        reason=reason,
        at_ms=at_ms,
    )


def void(account: Account, hold: Hold, actor_id: str, at_ms: int) -> HoldVoided:
    return HoldVoided(
        hold_id=hold.hold_id,
        account_id=hold.account_id,
        user_id=hold.user_id,
        amount_minor=hold.amount_minor,
        currency=hold.currency,
        actor_id=actor_id,
        version=account.version + 1,
        at_ms=at_ms,
    )


def expire(account: Account, hold: Hold, earlier: int, at_ms: int) -> HoldExpired:
    """`earlier`: how many holds of this account the same tick lets go before it."""
    return HoldExpired(
        hold_id=hold.hold_id,
        account_id=hold.account_id,
        user_id=hold.user_id,
        amount_minor=hold.amount_minor,
        currency=hold.currency,
        version=account.version + 1 + earlier,
        at_ms=at_ms,
    )


def expiring(rows: Rows, tick: Tick, at_ms: int) -> Iterator[Hold]:
    """The holds whose time is over. A due row is there while its hold is open."""
    for key in overdue(rows, tick, EXPIRE, at_ms):
        yield rows[due_subject(key)]


def uncapturable(hold: Hold | None, order: Order) -> Reason | None:
    """Why this order can't take from the hold, if so."""
    if hold is None:
        return Reason.HOLD_NOT_FOUND
    if hold.status is not HoldStatus.OPEN:
        return Reason.HOLD_NOT_OPEN
    sides = (hold.account_id, hold.destination_account_id, hold.currency)
    if sides != (order.source_account_id, order.destination_account_id, order.currency):
        return Reason.INVALID_COMMAND
    return Reason.HOLD_EXCEEDED if order.amount_minor > hold.amount_minor else None


# what it changes


def held_more(held: Mapping[str, int], currency: str, amount_minor: int) -> dict[str, int]:
    """What an account holds by currency, changed by an amount; nothing held is no entry."""
    left_minor = held.get(currency, 0) + amount_minor
    rest = {other: minor for other, minor in held.items() if other != currency}
    return {**rest, currency: left_minor} if left_minor else rest


def placed(event: HoldPlaced) -> dict[RowKey, Any]:
    """The open hold, and the row that lets it expire."""
    key = hold_key(event.hold_id)
    due, row = due_row(event.expires_ms, EXPIRE, key)
    return {key: _row(event, HoldStatus.OPEN, None, event.expires_ms), due: row}


def refused(rows: Rows, event: HoldRefused) -> dict[RowKey, Any]:
    key = hold_key(event.hold_id)
    due, expiry = forget(rows, event.at_ms, key)
    return {key: _row(event, HoldStatus.REFUSED, event.reason, event.at_ms), due: expiry}


def _row(
    event: HoldPlaced | HoldRefused, status: HoldStatus, reason: Reason | None, expires_ms: int
) -> Hold:
    return Hold(
        hold_id=event.hold_id,
        account_id=event.account_id,
        user_id=event.user_id,
        amount_minor=event.amount_minor,
        currency=event.currency,
        destination_account_id=event.destination_account_id,
        status=status,
        reason=reason,
        captured_minor=0,
        transaction_id=None,
        description=event.description,
        reference=event.reference,
        request_hash=event.request_hash,
        version=1,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
        expires_ms=expires_ms,
    )


def let_go(rows: Rows, hold_id: str, status: HoldStatus, at_ms: int) -> dict[RowKey, Any]:
    """The hold at its end, nothing captured."""
    hold: Hold = rows[hold_key(hold_id)]
    return _ended(rows, replace(hold, status=status), at_ms)


def captured(rows: Rows, hold: Hold, order: Order, at_ms: int) -> dict[RowKey, Any]:
    """The hold at its end, the order's amount taken."""
    taken = replace(
        hold,
        status=HoldStatus.CAPTURED,
        captured_minor=order.amount_minor,
        transaction_id=order.transaction_id,
    )
    return _ended(rows, taken, at_ms)


def _ended(rows: Rows, hold: Hold, at_ms: int) -> dict[RowKey, Any]:
    key = hold_key(hold.hold_id)
    due, expiry = forget(rows, at_ms, key)
    return {
        key: replace(hold, version=hold.version + 1, updated_ms=at_ms),
        due_key(hold.expires_ms, EXPIRE, key): None,
        due: expiry,
    }


def returned(rows: Rows, order: Order, at_ms: int) -> dict[RowKey, Any]:
    """The captured hold whose money came back. It may have left the table by then."""
    hold_id = captured_hold(order)
    hold: Hold | None = rows.get(hold_key(hold_id)) if hold_id is not None else None
    if hold is None:
        return {}
    back = replace(
        hold,
        status=HoldStatus.RETURNED,
        captured_minor=0,
        version=hold.version + 1,
        updated_ms=at_ms,
    )
    return {hold_key(hold.hold_id): back}


def hold_keys(order: Order) -> Sequence[RowKey]:
    hold_id = captured_hold(order)
    return () if hold_id is None else (hold_key(hold_id),)
