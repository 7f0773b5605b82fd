r"""Suspense: money that waits for a person, and what that person says of it.

    (absent) --SuspenseOpened--> OPEN --pay--> PAYING --SuspensePaid--> PAID
                                  |  ^-----the account does not take it--/
                                  |--return------> RETURNED      (a debit, to its source)
                                  |--recover-----> RECOVERED     (a loss: the provider gave it back)
                                  \--write off---> WRITTEN_OFF   (a credit or a loss)

An item stands in the partition of the account that it came from, and is decided there, once. The
account that is to be paid may be in another partition: it decides whether it takes the amount, once
for each attempt, and says so. The amount leaves `suspense` in the one event that credits it, so
nothing is in flight meanwhile; an item that was refused is open again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from domain.decider import forget
from domain.ledger import SUSPENSE, WORLD, WRITTEN_OFF, move
from domain.money import BALANCE_LIMIT_MINOR
from domain.saga import Balance, Order, Posting, Reason

if TYPE_CHECKING:
    from domain.account import Account
    from domain.decider import RowKey, Rows

SUSPENDED = "suspense/"  # the prefix of an item's key


class SuspenseKind(StrEnum):
    """Why it is there."""

    CREDIT = "credit"  # came in by a provider; its account did not take it, nor its provider
    DEBIT = "debit"  # left its source, arrived nowhere, and could not be asked back
    LOSS = "loss"  # a provider moved it after its no: the bank's claim


class SuspenseAction(StrEnum):
    """What a person has done with it."""

    PAY = "pay"
    RETURN = "return"
    RECOVER = "recover"
    WRITE_OFF = "write_off"


class SuspenseStatus(StrEnum):
    """How an item stands; all but OPEN and PAYING are ends."""

    OPEN = "open"
    PAYING = "paying"
    PAID = "paid"
    RETURNED = "returned"
    RECOVERED = "recovered"
    WRITTEN_OFF = "written_off"


ACTIONS = {
    SuspenseKind.CREDIT: {SuspenseAction.PAY, SuspenseAction.WRITE_OFF},
    SuspenseKind.DEBIT: {SuspenseAction.RETURN},
    SuspenseKind.LOSS: {SuspenseAction.RECOVER, SuspenseAction.WRITE_OFF},
}
ENDS = {
    SuspenseAction.PAY: SuspenseStatus.PAID,
    SuspenseAction.RETURN: SuspenseStatus.RETURNED,
    SuspenseAction.RECOVER: SuspenseStatus.RECOVERED,
    SuspenseAction.WRITE_OFF: SuspenseStatus.WRITTEN_OFF,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveSuspense:
    """Settle all of an item. An operator's command; arrives under account_id."""

    suspense_id: str  # <account_id>.<transaction_id>
    account_id: str  # that it came from
    resolution_id: str
    action: SuspenseAction
    amount_minor: int  # as the operator sees it: another amount is refused
    currency: str
    to_account_id: str | None  # of PAY; None: the account that the credit was for
    note: str
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseOpened:
    """An amount stands in suspense, for a person."""

    suspense_id: str
    account_id: str
    kind: SuspenseKind
    order: Order
    reason: Reason  # why the amount could not stay where it was, or go where it should
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensePayoutOrdered:
    """An account is to take the amount, and to say whether it does."""

    suspense_id: str
    account_id: str
    resolution_id: str
    attempt: int  # the how-maniest of the item, from 1
    to_account_id: str
    order: Order
    note: str
    actor_id: str
    request_hash: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensePaid:
    """What was in suspense is on an account: an operator had it paid out."""

    order: Order
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    at_ms: int
    suspense_id: str = ""
    account_id: str = ""  # that it came from
    attempt: int = 0  # 0: to that account itself, asked of it directly
    resolution_id: str = ""
    actor_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensePayoutRefused:
    """The account does not take the amount, and never will in this attempt."""

    suspense_id: str
    account_id: str
    attempt: int
    to_account_id: str
    resolution_id: str
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseResolved:
    """The item is settled; its amount is in suspense no more. `postings`: where no other event has them."""

    suspense_id: str
    account_id: str
    kind: SuspenseKind
    resolution_id: str
    action: SuspenseAction
    order: Order
    to_account_id: str | None
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    note: str
    actor_id: str
    request_hash: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseResolutionRefused:
    """Nothing was settled under this id, and never will be. `reopened`: another may settle it."""

    suspense_id: str
    account_id: str
    resolution_id: str
    action: SuspenseAction
    reason: Reason
    reopened: bool  # the item was about to be paid, and is open again
    to_account_id: str | None
    note: str
    actor_id: str
    request_hash: str
    version: int  # of the item; 0: there is none
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseItem:
    """Row `suspense/<suspense_id>`, in the partition of the account that it came from."""

    suspense_id: str
    account_id: str
    kind: SuspenseKind
    status: SuspenseStatus
    order: Order
    reason: Reason
    attempt: int  # payments tried so far
    resolution_id: str | None  # of what is tried, or settled it
    action: SuspenseAction | None
    to_account_id: str | None
    refusal: Reason | None  # of the last payment that was tried
    note: str
    actor_id: str | None  # whose word it was
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseResolution:
    """Row `resolution/<resolution_id>`: the first word on an id stands."""

    suspense_id: str
    request_hash: str
    reason: Reason | None  # of a refusal
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensePayout:
    """Row `payout/<suspense_id>/<attempt>`, where the account is that was to be paid: decided once."""

    reason: Reason | None  # of a refusal
    at_ms: int


def suspense_id_of(account_id: str, transaction_id: str) -> str:
    return f"{account_id}.{transaction_id}"


def home_of(suspense_id: str) -> str:
    """The id of the account that an item came from."""
    return suspense_id.rpartition(".")[0]


def transaction_of(suspense_id: str) -> str:
    """The id of the transaction that an item is of."""
    return suspense_id.rpartition(".")[2]


def item_key(suspense_id: str) -> RowKey:
    return f"{SUSPENDED}{suspense_id}"


def resolution_key(resolution_id: str) -> RowKey:
    return f"resolution/{resolution_id}"


def payout_key(suspense_id: str, attempt: int) -> RowKey:
    return f"payout/{suspense_id}/{attempt}"


# what is decided


def opened(
    account_id: str, kind: SuspenseKind, order: Order, reason: Reason, at_ms: int
) -> SuspenseOpened:
    return SuspenseOpened(
        suspense_id=suspense_id_of(account_id, order.transaction_id),
        account_id=account_id,
        kind=kind,
        order=order,
        reason=reason,
        version=1,
        at_ms=at_ms,
    )


def unresolvable(item: SuspenseItem | None, command: ResolveSuspense) -> Reason | None:
    """Why this command can't settle the item, if so."""
    if not _makes_sense(command):
        return Reason.INVALID_COMMAND
    if item is None:
        return Reason.NOT_SUSPENDED
    if item.status is SuspenseStatus.PAYING:
        return Reason.IN_FLIGHT
    if item.status is not SuspenseStatus.OPEN:
        return Reason.SUSPENSE_RESOLVED
    seen = (command.amount_minor, command.currency)
    if command.action not in ACTIONS[item.kind] or seen != _amount(item):
        return Reason.SUSPENSE_MISMATCH
    return None


def _amount(item: SuspenseItem) -> tuple[int, str]:
    return item.order.amount_minor, item.order.currency


def _makes_sense(command: ResolveSuspense) -> bool:
    return (
        bool(command.resolution_id)
        and home_of(command.suspense_id) == command.account_id
        and (command.action is SuspenseAction.PAY or command.to_account_id is None)
    )


def pay(item: SuspenseItem, command: ResolveSuspense, at_ms: int) -> SuspensePayoutOrdered:
    return SuspensePayoutOrdered(
        suspense_id=item.suspense_id,
        account_id=item.account_id,
        resolution_id=command.resolution_id,
        attempt=item.attempt + 1,
        to_account_id=command.to_account_id or item.account_id,
        order=item.order,
        note=command.note,
        actor_id=command.actor_id,
        request_hash=command.request_hash,
        version=item.version + 1,
        at_ms=at_ms,
    )


def settle(item: SuspenseItem, word: ResolveSuspense, at_ms: int) -> SuspenseResolved:
    """The item at its end. What was paid, or put back, is posted by the event that did it."""
    credits = word.action in (SuspenseAction.PAY, SuspenseAction.RETURN)
    return SuspenseResolved(
        suspense_id=item.suspense_id,
        account_id=item.account_id,
        kind=item.kind,
        resolution_id=word.resolution_id,
        action=word.action,
        order=item.order,
        to_account_id=(word.to_account_id or item.account_id) if credits else None,
        postings=_postings(item, word.action),
        balances=(),
        note=word.note,
        actor_id=word.actor_id,
        request_hash=word.request_hash,
        version=item.version + 1,
        at_ms=at_ms,
    )


def _postings(item: SuspenseItem, action: SuspenseAction) -> tuple[Posting, ...]:
    amount_minor, currency = _amount(item)
    if action is SuspenseAction.RECOVER:
        return move(currency, amount_minor, WORLD, SUSPENSE)
    if action is not SuspenseAction.WRITE_OFF:
        return ()
    if item.kind is SuspenseKind.LOSS:
        return move(currency, amount_minor, WRITTEN_OFF, SUSPENSE)
    return move(currency, amount_minor, SUSPENSE, WRITTEN_OFF)


def refuse(
    item: SuspenseItem | None, word: ResolveSuspense, reason: Reason, at_ms: int
) -> SuspenseResolutionRefused:
    """Of an item that this word was about to pay: it is open again."""
    reopened = (
        item is not None
        and item.status is SuspenseStatus.PAYING
        and item.resolution_id == word.resolution_id
    )
    return SuspenseResolutionRefused(
        suspense_id=word.suspense_id,
        account_id=word.account_id,
        resolution_id=word.resolution_id,
        action=word.action,
        reason=reason,
        reopened=reopened,
        to_account_id=word.to_account_id,
        note=word.note,
        actor_id=word.actor_id,
        request_hash=word.request_hash,
        version=item.version + reopened if item is not None else 0,
        at_ms=at_ms,
    )


def word_of(item: SuspenseItem) -> ResolveSuspense:
    """The word by which an item is being paid."""
    amount_minor, currency = _amount(item)
    assert item.action is not None, f"nobody pays {item}"
    return ResolveSuspense(
        suspense_id=item.suspense_id,
        account_id=item.account_id,
        resolution_id=item.resolution_id or "",
        action=item.action,
        amount_minor=amount_minor,
        currency=currency,
        to_account_id=item.to_account_id,
        note=item.note,
        actor_id=item.actor_id or "",
        request_hash=item.request_hash,
    )


def paying(rows: Rows, fact: SuspensePaid | SuspensePayoutRefused) -> SuspenseItem | None:
    """The item that waits for this answer; None when it was heard before."""
    item: SuspenseItem | None = rows.get(item_key(fact.suspense_id))
    if item is None or item.status is not SuspenseStatus.PAYING or item.attempt != fact.attempt:
        return None
    return item


def went_elsewhere(item: SuspenseItem) -> bool:
    """True for one that is settled, and not by giving its account the amount."""
    return item.status in ENDS.values() and item.to_account_id != item.account_id


def untakeable(account: Account | None, order: Order) -> Reason | None:
    """Why the account does not take the amount, if so: as it takes any other credit."""
    if account is None:
        return Reason.ACCOUNT_NOT_FOUND
    if (reason := account.unusable(order.currency)) is not None:
        return reason
    if account.balances[order.currency] + order.amount_minor > BALANCE_LIMIT_MINOR:
        return Reason.BALANCE_LIMIT
    return None


def taken(fact: SuspensePayoutOrdered, balance: Balance, at_ms: int) -> SuspensePaid:
    order = fact.order
    return SuspensePaid(
        order=order,
        postings=move(order.currency, order.amount_minor, SUSPENSE, fact.to_account_id),
        balances=(balance,),
        at_ms=at_ms,
        suspense_id=fact.suspense_id,
        account_id=fact.account_id,
        attempt=fact.attempt,
        resolution_id=fact.resolution_id,
        actor_id=fact.actor_id,
    )


def not_taken(fact: SuspensePayoutOrdered, reason: Reason, at_ms: int) -> SuspensePayoutRefused:
    return SuspensePayoutRefused(
        suspense_id=fact.suspense_id,
        account_id=fact.account_id,
        attempt=fact.attempt,
        to_account_id=fact.to_account_id,
        resolution_id=fact.resolution_id,
        reason=reason,
        at_ms=at_ms,
    )


# what it changes


def item_of(event: SuspenseOpened) -> dict[RowKey, Any]:
    item = SuspenseItem(
        suspense_id=event.suspense_id,
        account_id=event.account_id,
        kind=event.kind,
        status=SuspenseStatus.OPEN,
        order=event.order,
        reason=event.reason,
        attempt=0,
        resolution_id=None,
        action=None,
        to_account_id=None,
        refusal=None,
        note="",
        actor_id=None,
        request_hash="",
        version=event.version,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
    )
    return {item_key(event.suspense_id): item}


def ordered(rows: Rows, event: SuspensePayoutOrdered) -> dict[RowKey, Any]:
    key = item_key(event.suspense_id)
    item = replace(
        rows[key],
        status=SuspenseStatus.PAYING,
        attempt=event.attempt,
        resolution_id=event.resolution_id,
        action=SuspenseAction.PAY,
        to_account_id=event.to_account_id,
        refusal=None,
        note=event.note,
        actor_id=event.actor_id,
        request_hash=event.request_hash,
        version=event.version,
        updated_ms=event.at_ms,
    )
    return {key: item, resolution_key(event.resolution_id): _word(event, None)}


def _word(
    event: SuspensePayoutOrdered | SuspenseResolved | SuspenseResolutionRefused,
    reason: Reason | None,
) -> SuspenseResolution:
    return SuspenseResolution(
        suspense_id=event.suspense_id,
        request_hash=event.request_hash,
        reason=reason,
        at_ms=event.at_ms,
    )


def resolved(rows: Rows, event: SuspenseResolved, *leaving: RowKey) -> dict[RowKey, Any]:
    """The item at its end; one that came back by `ReturnSuspended` has no id of its own.

    `leaving`: other rows that are final with it.
    """
    key = item_key(event.suspense_id)
    item = replace(
        rows[key],
        status=ENDS[event.action],
        resolution_id=event.resolution_id or None,
        action=event.action,
        to_account_id=event.to_account_id,
        refusal=None,
        note=event.note,
        actor_id=event.actor_id,
        request_hash=event.request_hash,
        version=event.version,
        updated_ms=event.at_ms,
    )
    if not event.resolution_id:
        due, expiry = forget(rows, event.at_ms, key, *leaving)
        return {key: item, due: expiry}
    resolution = resolution_key(event.resolution_id)
    due, expiry = forget(rows, event.at_ms, key, resolution, *leaving)
    return {key: item, resolution: _word(event, None), due: expiry}


def refused(rows: Rows, event: SuspenseResolutionRefused) -> dict[RowKey, Any]:
    resolution = resolution_key(event.resolution_id)
    due, expiry = forget(rows, event.at_ms, resolution)
    changes: dict[RowKey, Any] = {resolution: _word(event, event.reason), due: expiry}
    if event.reopened:
        key = item_key(event.suspense_id)
        changes[key] = replace(
            rows[key],
            status=SuspenseStatus.OPEN,
            refusal=event.reason,
            version=event.version,
            updated_ms=event.at_ms,
        )
    return changes


def answered(rows: Rows, event: SuspensePaid | SuspensePayoutRefused) -> dict[RowKey, Any]:
    """That the account has answered this attempt."""
    key = payout_key(event.suspense_id, event.attempt)
    refusal = event.reason if isinstance(event, SuspensePayoutRefused) else None
    due, expiry = forget(rows, event.at_ms, key)
    return {key: SuspensePayout(reason=refusal, at_ms=event.at_ms), due: expiry}
