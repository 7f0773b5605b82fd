r"""Accounts: who may hold money, how much, and what moves it.

    (absent) --Open--> OPEN --Freeze--> FROZEN --Unfreeze--> OPEN
                       OPEN --Close (all zero)--> CLOSED --Archive--> ARCHIVED

A transaction meets an account in a leg, one for each side, and each side is decided once:

    source       (absent) --RiskApproved, RefundReserved--> REFUSED | DEBITED | SETTLED (leaves by the book)
                 DEBITED --arrived--> SETTLED
                         --put back--> REVERSED --but the rail keeps it--> LOST
                         --can't be put back--> SUSPENDED --given back later--> REVERSED
    destination  (absent) --AccountDebited, PaymentProcessed, RiskApproved (deposit)--> CREDITED | REFUSED
    either       (absent) --CancelRequested--> REFUSED, so that a later approval meets it

What is debited waits in `clearing` until the other side, or the rail, has taken it. What is held
(domain/holds.py) is part of the balance and is not available. What could neither be credited nor
given back is in `suspense` until an operator says where it belongs (domain/suspense.py).

Types first, then `decide` with a function a message, then `evolve` with one an event; `ACCOUNT`, at the end, is the
service.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, assert_never, get_args

from domain import exchange, holds, suspense
from domain.decider import (
    DUE,
    Changes,
    Decider,
    Due,
    Expiry,
    RowKey,
    Rows,
    Tick,
    expired,
    expiry_key,
    forget,
    forgotten,
    tick_keys,
)
from domain.holds import (
    Hold,
    HoldExpired,
    HoldPlaced,
    HoldRefused,
    HoldStatus,
    HoldVoided,
    PlaceHold,
    VoidHold,
    hold_key,
)
from domain.ledger import (
    CLEARING,
    FEES,
    SUSPENSE,
    SYSTEM_ACCOUNTS,
    WORLD,
    SystemBalance,
    move,
    post_system,
    system_keys,
)
from domain.money import (
    AMOUNT_LIMIT_MINOR,
    BALANCE_LIMIT_MINOR,
    PUT_BACK_LIMIT_MINOR,
    is_currency,
)
from domain.saga import (
    AccountCredited,
    AccountDebited,
    Balance,
    CancelRequested,
    CancelTooLate,
    CreditRefused,
    CreditSuspended,
    DebitRefused,
    DebitReversed,
    DebitSettled,
    DebitSuspended,
    LossSuspended,
    Order,
    PaymentFailed,
    PaymentProcessed,
    Posting,
    Rail,
    Reason,
    RefundFailed,
    RefundProcessed,
    RefundReserved,
    RiskApproved,
    Step,
    TransactionType,
    charges,
    debited_minor,
    fee_of,
    refunds,
    traced,
)
from domain.suspense import (
    SUSPENDED,
    ResolveSuspense,
    SuspenseAction,
    SuspenseItem,
    SuspenseKind,
    SuspenseOpened,
    SuspensePaid,
    SuspensePayout,
    SuspensePayoutOrdered,
    SuspensePayoutRefused,
    SuspenseResolution,
    SuspenseResolutionRefused,
    SuspenseResolved,
    SuspenseStatus,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "account"


class Status(StrEnum):
    OPEN = "open"
    FROZEN = "frozen"
    CLOSED = "closed"
    ARCHIVED = "archived"  # closed, and in no list unless asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAccount:
    """Open an account for `user_id`; overdraft limits in minor units, 0 where not named."""

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
class ArchiveAccount:
    """Take a closed account out of the lists."""

    account_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnSuspended:
    """Take out of suspense, to the account, what could not be given back. An operator's command."""

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
class AccountArchived:
    """The closed account is in no list any more, unless archived ones are asked for."""

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
class SourceLeg:
    """A transfer and the account that it debited."""

    account_id: str
    transaction_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditsGathered:
    """The amounts of these transfers arrived: said of all that one Kafka transaction credited.

    A message of this service to itself, for the partition of the sources.
    """

    legs: tuple[SourceLeg, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LegsClosed:
    """The debited amounts arrived: nothing of these transfers can come back to their sources."""

    legs: tuple[SourceLeg, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LegClosed:
    """The debited amount arrived: nothing of this transaction can come back to the source.

    Said of legs one by one until LegsClosed came: logs have it for ever.
    """

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
    held: dict[str, int] = field(default_factory=dict)  # minor units by currency, where any is

    def available(self, currency: str) -> int:
        """Minor units that can be spent: the balance without what is held, and the overdraft."""
        return (
            self.balances[currency]
            - self.held.get(currency, 0)
            + self.overdraft_limits.get(currency, 0)
        )

    def unusable(self, currency: str) -> Reason | None:
        """Why money of this currency can't move on the account, if so."""
        if self.status is Status.FROZEN:
            return Reason.ACCOUNT_FROZEN
        if self.status is not Status.OPEN:
            return Reason.ACCOUNT_CLOSED
        if currency not in self.balances:
            return Reason.CURRENCY_NOT_HELD
        return None


class Side(StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"


class LegState(StrEnum):
    """How a transaction stands with one account; DEBITED and SUSPENDED wait for one of the ends."""

    REFUSED = "refused"  # a tombstone too: cancelled before anything moved
    DEBITED = "debited"
    SUSPENDED = "suspended"
    REVERSED = "reversed"
    SETTLED = "settled"
    CREDITED = "credited"
    LOST = "lost"  # reversed, and gone by the rail all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Row `leg/<transaction_id>/<side>`: decided once for this account."""

    account_id: str
    state: LegState
    at_ms: int
    suspended: DebitSuspended | None  # what a later return needs


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendedCredit:
    """Row `suspended/<transaction_id>`: a payment in suspense, in its destination's partition."""

    order: Order
    paid: bool  # settled: there is nothing to be paid any more


Message: TypeAlias = (
    RiskApproved
    | RefundReserved
    | AccountDebited
    | CreditsGathered
    | PaymentProcessed
    | PaymentFailed
    | CreditRefused
    | RefundProcessed
    | RefundFailed
    | CancelRequested
    | OpenAccount
    | FreezeAccount
    | UnfreezeAccount
    | CloseAccount
    | ArchiveAccount
    | ReturnSuspended
    | ResolveSuspense
    | SuspensePayoutOrdered
    | SuspensePaid
    | SuspensePayoutRefused
    | PlaceHold
    | VoidHold
    | Tick
)
Event: TypeAlias = (
    AccountDebited
    | AccountCredited
    | LegsClosed
    | LegClosed
    | DebitRefused
    | CreditRefused
    | DebitReversed
    | DebitSettled
    | DebitSuspended
    | CreditSuspended
    | LossSuspended
    | SuspenseOpened
    | SuspensePayoutOrdered
    | SuspensePaid
    | SuspensePayoutRefused
    | SuspenseResolved
    | SuspenseResolutionRefused
    | CancelTooLate
    | AccountOpened
    | AccountFrozen
    | AccountUnfrozen
    | AccountClosed
    | AccountArchived
    | AccountCommandRefused
    | HoldPlaced
    | HoldRefused
    | HoldVoided
    | HoldExpired
    | LegsForgotten
)
Management: TypeAlias = FreezeAccount | UnfreezeAccount | CloseAccount | ArchiveAccount
Command: TypeAlias = (
    OpenAccount | Management | ReturnSuspended | ResolveSuspense | PlaceHold | VoidHold
)


def decide(  # noqa: C901 - a case a message
    rows: Rows, message: Message, at_ms: int
) -> Sequence[Event]:
    match message:
        case RiskApproved():
            if message.order.source_account_id is None:
                return _credit(rows, message, WORLD, (), at_ms)
            return _debit(rows, message, at_ms)
        case RefundReserved():
            return _debit(rows, message, at_ms)
        case AccountDebited():
            return _credit(rows, message, CLEARING, message.balances, at_ms)
        case CreditsGathered():
            return _close_legs(rows, message, at_ms)
        case PaymentProcessed() | RefundProcessed() | RefundFailed():
            return _paid(rows, message, at_ms)
        case PaymentFailed() | CreditRefused():
            return _put_back(rows, message, at_ms)
        case CancelRequested():
            return _cancel(rows, message, at_ms)
        case OpenAccount():
            return _open(rows, message, at_ms)
        case FreezeAccount() | UnfreezeAccount() | CloseAccount() | ArchiveAccount():
            return _manage(rows, message, at_ms)
        case ReturnSuspended():
            return _return_suspended(rows, message, at_ms)
        case ResolveSuspense():
            return _resolve(rows, message, at_ms)
        case SuspensePayoutOrdered():
            return _pay_out(rows, message, at_ms)
        case SuspensePaid() | SuspensePayoutRefused():
            return _paid_out(rows, message, at_ms)
        case PlaceHold():
            return _place_hold(rows, message, at_ms)
        case VoidHold():
            return _void_hold(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _paid(
    rows: Rows, fact: PaymentProcessed | RefundProcessed | RefundFailed, at_ms: int
) -> Sequence[Event]:
    """What the rail did, for each kind of order."""
    order = fact.order
    if charges(order) and isinstance(fact, PaymentProcessed):
        return _credit(rows, fact, WORLD, fact.balances, at_ms)
    if charges(order) and isinstance(fact, RefundFailed):
        return _suspend_credit(rows, fact, at_ms)
    match fact:
        case PaymentProcessed() if order.destination_account_id is None:
            return _settle(rows, fact, at_ms)
        case PaymentProcessed():
            return _credit(rows, fact, CLEARING, fact.balances, at_ms)
        case RefundProcessed() if refunds(order):
            return _settle(rows, fact, at_ms)
        case RefundFailed() if not refunds(order):
            return _suspend(rows, fact, at_ms)
        case RefundProcessed() | RefundFailed():
            return _put_back(rows, fact, at_ms)
        case _:
            assert_never(fact)


def _debit(rows: Rows, fact: RiskApproved | RefundReserved, at_ms: int) -> Sequence[Event]:
    """Debited or never: the source decides once."""
    order = fact.order
    assert order.source_account_id is not None
    if leg_key(order.transaction_id, Side.SOURCE) in rows:
        return ()
    account: Account | None = rows.get(account_key(order.source_account_id))
    if at_ms > order.deadline_ms:
        return _refuse_debit(fact, Reason.DEADLINE_PASSED, at_ms)
    if account is None:
        return _refuse_debit(fact, Reason.ACCOUNT_NOT_FOUND, at_ms)
    if account.user_id != order.owner_id:
        return _refuse_debit(fact, Reason.NOT_OWNER, at_ms)
    if (reason := account.unusable(order.currency)) is not None:
        return _refuse_debit(fact, reason, at_ms)
    available_minor = account.available(order.currency)
    if order.terms is not None and order.terms.hold_id is not None:
        hold: Hold | None = rows.get(hold_key(order.terms.hold_id))
        if (reason := holds.uncapturable(hold, order)) is not None or hold is None:
            return _refuse_debit(fact, reason or Reason.HOLD_NOT_FOUND, at_ms)
        available_minor += hold.amount_minor
    if available_minor < debited_minor(order):
        return _refuse_debit(fact, Reason.INSUFFICIENT_FUNDS, at_ms)
    steps = traced(fact.steps, "debit", SERVICE, "debited", at_ms)
    if order.rail is Rail.BOOK:  # our own books pay at once: no hop, but a step of the trace
        steps = traced(steps, "payment", SERVICE, "book", at_ms)
    return (
        AccountDebited(
            order=order,
            postings=_out(order, account.account_id),
            balances=(_moved(account, order.currency, -debited_minor(order)),),
            at_ms=at_ms,
            steps=steps,
        ),
    )


def _out(order: Order, account_id: str) -> tuple[Posting, ...]:
    """From the source to whoever is on the other side, and what it costs to the fees."""
    into = WORLD if _ends_with_the_debit(order) else CLEARING
    postings = move(order.currency, order.amount_minor, account_id, into)
    fee_minor = fee_of(order)
    if fee_minor <= 0:
        return postings
    return (*postings, *move(order.currency, fee_minor, account_id, FEES))


def _back(order: Order, origin: str, account_id: str) -> tuple[Posting, ...]:
    """The opposite of `_out`; the amount waits in `origin` by now."""
    postings = move(order.currency, order.amount_minor, origin, account_id)
    fee_minor = fee_of(order)
    if fee_minor <= 0:
        return postings
    return (*postings, *move(order.currency, fee_minor, FEES, account_id))


def _into(order: Order, origin: str, account_id: str) -> tuple[Posting, ...]:
    """To the destination, and a fee that comes back with it."""
    if order.type is TransactionType.EXCHANGE:
        return exchange.postings(order)
    postings = move(order.currency, order.amount_minor, origin, account_id)
    fee_minor = -fee_of(order)
    if fee_minor <= 0:
        return postings
    return (*postings, *move(order.currency, fee_minor, FEES, account_id))


def _ends_with_the_debit(order: Order) -> bool:
    """True for money that leaves the bank by the book: nobody is credited, no rail is asked."""
    return order.destination_account_id is None and order.rail is Rail.BOOK


def _credit(
    rows: Rows,
    fact: RiskApproved | AccountDebited | PaymentProcessed,
    origin: str,
    balances: tuple[Balance, ...],
    at_ms: int,
) -> Sequence[Event]:
    """Credited or never: the destination decides once. `origin`: the system account that pays."""
    order = fact.order
    assert order.destination_account_id is not None
    if leg_key(order.transaction_id, Side.DESTINATION) in rows:
        return ()
    account: Account | None = rows.get(account_key(order.destination_account_id))
    if at_ms > order.deadline_ms and not isinstance(fact, PaymentProcessed):
        return _refuse_credit(fact, Reason.DEADLINE_PASSED, balances, at_ms)
    if account is None:
        return _refuse_credit(fact, Reason.ACCOUNT_NOT_FOUND, balances, at_ms)
    currency, amount_minor = exchange.credited(order)
    if (reason := account.unusable(currency)) is not None:
        return _refuse_credit(fact, reason, balances, at_ms)
    if account.balances[currency] + amount_minor > BALANCE_LIMIT_MINOR:
        return _refuse_credit(fact, Reason.BALANCE_LIMIT, balances, at_ms)
    return (
        AccountCredited(
            order=order,
            postings=_into(order, origin, account.account_id),
            balances=(*balances, _moved(account, currency, amount_minor)),
            at_ms=at_ms,
            steps=traced(fact.steps, "credit", SERVICE, "credited", at_ms),
        ),
    )


def _close_legs(rows: Rows, message: CreditsGathered, at_ms: int) -> Sequence[Event]:
    legs = tuple([leg for leg in message.legs if _is_open(rows, leg)])
    return (LegsClosed(legs=legs, at_ms=at_ms),) if legs else ()


def _is_open(rows: Rows, leg: SourceLeg) -> bool:
    row: Leg | None = rows.get(leg_key(leg.transaction_id, Side.SOURCE))
    return row is not None and row.state is LegState.DEBITED


def _settle(rows: Rows, fact: PaymentProcessed | RefundProcessed, at_ms: int) -> Sequence[Event]:
    order = fact.order
    if not _is_leg(rows, order, LegState.DEBITED):
        return ()
    return (
        DebitSettled(
            order=order,
            postings=move(order.currency, order.amount_minor, CLEARING, WORLD),
            balances=fact.balances,
            at_ms=at_ms,
            steps=fact.steps,
        ),
    )


def _put_back(
    rows: Rows, fact: PaymentFailed | CreditRefused | RefundProcessed | RefundFailed, at_ms: int
) -> Sequence[Event]:
    """Never refused: not on a frozen account, and a closed one can have nothing in flight.

    What the account has no room for, because so much came in meanwhile, waits in suspense.
    """
    order = fact.order
    if not _is_leg(rows, order, LegState.DEBITED):
        return ()
    if not _has_room(rows, order):
        return _suspend_debit(fact, at_ms)
    return _reverse(rows, order, fact.reason, CLEARING, fact.steps, at_ms)


def _has_room(rows: Rows, order: Order) -> bool:
    account: Account = rows[account_key(order.source_account_id or "")]
    return account.balances[order.currency] + debited_minor(order) <= PUT_BACK_LIMIT_MINOR


def _reverse(
    rows: Rows, order: Order, reason: Reason, origin: str, steps: tuple[Step, ...], at_ms: int
) -> Sequence[Event]:
    account: Account = rows[account_key(order.source_account_id or "")]
    return (
        DebitReversed(
            order=order,
            reason=reason,
            postings=_back(order, origin, account.account_id),
            balances=(_moved(account, order.currency, debited_minor(order)),),
            at_ms=at_ms,
            steps=traced(steps, "debit", SERVICE, "reversed", at_ms),
        ),
    )


def _suspend(rows: Rows, fact: RefundFailed, at_ms: int) -> Sequence[Event]:
    order = fact.order
    if _is_lost(rows, fact):
        postings = move(order.currency, order.amount_minor, SUSPENSE, WORLD)
        return (
            LossSuspended(order=order, postings=postings, at_ms=at_ms),
            _opened_item(fact, SuspenseKind.LOSS, order.source_account_id, at_ms),
        )
    if not _is_leg(rows, order, LegState.DEBITED):
        return ()
    return _suspend_debit(fact, at_ms)


def _suspend_debit(
    fact: PaymentFailed | CreditRefused | RefundProcessed | RefundFailed, at_ms: int
) -> Sequence[Event]:
    order = fact.order
    return (
        DebitSuspended(
            order=order,
            reason=fact.reason,
            postings=move(order.currency, order.amount_minor, CLEARING, SUSPENSE),
            balances=fact.balances,
            at_ms=at_ms,
            steps=traced(fact.steps, "debit", SERVICE, "suspended", at_ms),
        ),
        _opened_item(fact, SuspenseKind.DEBIT, order.source_account_id, at_ms),
    )


def _opened_item(
    fact: PaymentFailed | CreditRefused | RefundProcessed | RefundFailed,
    kind: SuspenseKind,
    account_id: str | None,
    at_ms: int,
) -> SuspenseOpened:
    return suspense.opened(account_id or "", kind, fact.order, fact.reason, at_ms)


def _is_lost(rows: Rows, fact: RefundFailed) -> bool:
    """It left the bank after the rail had said no and it was put back; the rail keeps it."""
    return (
        fact.reason is Reason.PAYMENT_DECLINED
        and fact.order.destination_account_id is None
        and _is_leg(rows, fact.order, LegState.REVERSED)
    )


def _suspend_credit(rows: Rows, fact: RefundFailed, at_ms: int) -> Sequence[Event]:
    """The provider has given the money to us, its account does not take it: it is nobody's yet."""
    order = fact.order
    if suspended_key(order.transaction_id) in rows:
        return ()
    return (
        CreditSuspended(
            order=order,
            reason=fact.reason,
            postings=move(order.currency, order.amount_minor, WORLD, SUSPENSE),
            balances=fact.balances,
            at_ms=at_ms,
            steps=traced(fact.steps, "credit", SERVICE, "suspended", at_ms),
        ),
        _opened_item(fact, SuspenseKind.CREDIT, order.destination_account_id, at_ms),
    )


def _pay_suspended(
    rows: Rows, command: ReturnSuspended, suspended: SuspendedCredit, at_ms: int
) -> Sequence[Event]:
    order = suspended.order
    account: Account | None = rows.get(account_key(command.account_id))
    if suspended.paid:
        return ()
    if account is None or order.destination_account_id != command.account_id:
        return _refuse(command, Reason.NOT_SUSPENDED, at_ms)
    if (reason := suspense.untakeable(account, order)) is not None:
        return _refuse(command, reason, at_ms)
    return (
        SuspensePaid(
            order=order,
            postings=move(order.currency, order.amount_minor, SUSPENSE, account.account_id),
            balances=(_moved(account, order.currency, order.amount_minor),),
            at_ms=at_ms,
        ),
        *_ended_item(rows, command, SuspenseAction.PAY, at_ms),
    )


def _return_suspended(rows: Rows, command: ReturnSuspended, at_ms: int) -> Sequence[Event]:
    """To the account that it came from, and no questions asked."""
    item: SuspenseItem | None = rows.get(_item_key(command))
    if item is not None and item.status is SuspenseStatus.PAYING:
        return _refuse(command, Reason.IN_FLIGHT, at_ms)
    if item is not None and suspense.went_elsewhere(item):
        return _refuse(command, Reason.SUSPENSE_RESOLVED, at_ms)
    suspended: SuspendedCredit | None = rows.get(suspended_key(command.transaction_id))
    if suspended is not None:
        return _pay_suspended(rows, command, suspended, at_ms)
    leg: Leg | None = rows.get(leg_key(command.transaction_id, Side.SOURCE))
    if leg is not None and leg.state is LegState.REVERSED:
        return ()
    if leg is None or leg.suspended is None or leg.account_id != command.account_id:
        return _refuse(command, Reason.NOT_SUSPENDED, at_ms)
    fact = leg.suspended
    if not _has_room(rows, fact.order):
        return _refuse(command, Reason.BALANCE_LIMIT, at_ms)
    back = _reverse(rows, fact.order, fact.reason, SUSPENSE, fact.steps, at_ms)
    return (*back, *_ended_item(rows, command, SuspenseAction.RETURN, at_ms))


def _item_key(command: ReturnSuspended) -> RowKey:
    return suspense.item_key(suspense.suspense_id_of(command.account_id, command.transaction_id))


def _ended_item(
    rows: Rows, command: ReturnSuspended, action: SuspenseAction, at_ms: int
) -> Sequence[Event]:
    """The item's end by that command; what was suspended before there were items has none."""
    item: SuspenseItem | None = rows.get(_item_key(command))
    if item is None:
        return ()
    word = replace(
        suspense.word_of(replace(item, action=action)),
        resolution_id="",
        to_account_id=None,
        note="",
        actor_id=command.actor_id,
        request_hash="",
    )
    return (suspense.settle(item, word, at_ms),)


def _resolve(rows: Rows, command: ResolveSuspense, at_ms: int) -> Sequence[Event]:
    """Settled or never under this id: the first word on it stands."""
    done: SuspenseResolution | None = rows.get(suspense.resolution_key(command.resolution_id))
    if done is not None:
        same = (done.suspense_id, done.request_hash) == (command.suspense_id, command.request_hash)
        return () if same else _refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    item: SuspenseItem | None = rows.get(suspense.item_key(command.suspense_id))
    if (reason := suspense.unresolvable(item, command)) is not None or item is None:
        return (suspense.refuse(item, command, reason or Reason.NOT_SUSPENDED, at_ms),)
    if command.actor_id in (item.order.owner_id, _owner(rows, item.account_id)):
        return (suspense.refuse(item, command, Reason.OWN_CASE, at_ms),)
    match command.action:
        case SuspenseAction.PAY:
            return (suspense.pay(item, command, at_ms),)
        case SuspenseAction.RETURN:
            return _return(rows, item, command, at_ms)
        case SuspenseAction.RECOVER | SuspenseAction.WRITE_OFF:
            return (suspense.settle(item, command, at_ms),)
        case _:
            assert_never(command.action)


def _owner(rows: Rows, account_id: str) -> str | None:
    account: Account | None = rows.get(account_key(account_id))
    return account.user_id if account is not None else None


def _return(
    rows: Rows, item: SuspenseItem, command: ResolveSuspense, at_ms: int
) -> Sequence[Event]:
    leg: Leg = rows[leg_key(item.order.transaction_id, Side.SOURCE)]
    fact = leg.suspended
    assert fact is not None, f"{item} is open and its leg is not suspended"
    if not _has_room(rows, fact.order):
        return (suspense.refuse(item, command, Reason.BALANCE_LIMIT, at_ms),)
    back = _reverse(rows, fact.order, fact.reason, SUSPENSE, fact.steps, at_ms)
    return (*back, suspense.settle(item, command, at_ms))


def _pay_out(rows: Rows, fact: SuspensePayoutOrdered, at_ms: int) -> Sequence[Event]:
    """Taken or never, in this attempt: the account decides once."""
    if suspense.payout_key(fact.suspense_id, fact.attempt) in rows:
        return ()
    account: Account | None = rows.get(account_key(fact.to_account_id))
    order = fact.order
    if (reason := suspense.untakeable(account, order)) is not None or account is None:
        return (suspense.not_taken(fact, reason or Reason.ACCOUNT_NOT_FOUND, at_ms),)
    if account.user_id == fact.actor_id:
        return (suspense.not_taken(fact, Reason.OWN_CASE, at_ms),)
    balance = _moved(account, order.currency, order.amount_minor)
    return (suspense.taken(fact, balance, at_ms),)


def _paid_out(
    rows: Rows, fact: SuspensePaid | SuspensePayoutRefused, at_ms: int
) -> Sequence[Event]:
    """What the account said that was to take it: the item is settled, or open again."""
    item = suspense.paying(rows, fact)
    if item is None:
        return ()
    word = suspense.word_of(item)
    if isinstance(fact, SuspensePayoutRefused):
        return (suspense.refuse(item, word, fact.reason, at_ms),)
    return (suspense.settle(item, word, at_ms),)


def _cancel(rows: Rows, fact: CancelRequested, at_ms: int) -> Sequence[Event]:
    """Before the money moved its side becomes a tombstone, which a later approval meets."""
    order = fact.order
    side = _deciding_side(order)
    leg: Leg | None = rows.get(leg_key(order.transaction_id, side))
    if leg is not None and leg.state is LegState.REFUSED:
        return ()
    if leg is not None:
        return (CancelTooLate(order=order, at_ms=at_ms),)
    if side is Side.SOURCE:
        return _refuse_debit(fact, Reason.CANCELLED, at_ms)
    return _refuse_credit(fact, Reason.CANCELLED, (), at_ms)


def _open(rows: Rows, command: OpenAccount, at_ms: int) -> Sequence[Event]:
    account: Account | None = rows.get(account_key(command.account_id))
    if account is not None and account.request_hash == command.request_hash:
        return ()
    if account is not None:
        return _refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if not command.currencies or not all(map(is_currency, command.currencies)):
        return _refuse(command, Reason.CURRENCY_UNKNOWN, at_ms)
    if not _is_openable(command):
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    return (
        AccountOpened(
            account_id=command.account_id,
            user_id=command.user_id,
            name=command.name,
            currencies=command.currencies,
            overdraft_limits=command.overdraft_limits,
            request_hash=command.request_hash,
            version=1,
            at_ms=at_ms,
        ),
    )


def _is_openable(command: OpenAccount) -> bool:
    return (
        bool(command.account_id and command.user_id)
        and command.account_id not in SYSTEM_ACCOUNTS
        and len(set(command.currencies)) == len(command.currencies)
        and set(command.overdraft_limits) <= set(command.currencies)
        and all(0 <= limit <= AMOUNT_LIMIT_MINOR for limit in command.overdraft_limits.values())
    )


def _manage(rows: Rows, command: Management, at_ms: int) -> Sequence[Event]:
    account: Account | None = rows.get(account_key(command.account_id))
    if account is None:
        return _refuse(command, Reason.ACCOUNT_NOT_FOUND, at_ms)
    match command:
        case FreezeAccount():
            return _freeze(account, command, at_ms)
        case UnfreezeAccount():
            return _unfreeze(account, command, at_ms)
        case CloseAccount():
            return _close(account, command, at_ms)
        case ArchiveAccount():
            return _archive(account, command, at_ms)
        case _:
            assert_never(command)


def _freeze(account: Account, command: FreezeAccount, at_ms: int) -> Sequence[Event]:
    if account.status is Status.FROZEN:
        return ()
    if account.status is not Status.OPEN:
        return _refuse(command, Reason.ACCOUNT_CLOSED, at_ms)
    return (_managed(AccountFrozen, account, at_ms),)


def _unfreeze(account: Account, command: UnfreezeAccount, at_ms: int) -> Sequence[Event]:
    if account.status is Status.OPEN:
        return ()
    if account.status is not Status.FROZEN:
        return _refuse(command, Reason.ACCOUNT_CLOSED, at_ms)
    return (_managed(AccountUnfrozen, account, at_ms),)


def _close(account: Account, command: CloseAccount, at_ms: int) -> Sequence[Event]:
    if account.status is Status.CLOSED:
        return ()
    if account.status is Status.FROZEN:
        return _refuse(command, Reason.ACCOUNT_FROZEN, at_ms)
    if account.status is not Status.OPEN:
        return _refuse(command, Reason.ACCOUNT_CLOSED, at_ms)
    if account.open_legs or account.held:
        return _refuse(command, Reason.IN_FLIGHT, at_ms)
    if any(account.balances.values()):
        return _refuse(command, Reason.BALANCE_NOT_ZERO, at_ms)
    return (_managed(AccountClosed, account, at_ms),)


def _archive(account: Account, command: ArchiveAccount, at_ms: int) -> Sequence[Event]:
    if account.status is Status.ARCHIVED:
        return ()
    if account.status is not Status.CLOSED:
        return _refuse(command, Reason.ACCOUNT_NOT_CLOSED, at_ms)
    return (_managed(AccountArchived, account, at_ms),)


Managed = TypeVar("Managed", AccountFrozen, AccountUnfrozen, AccountClosed, AccountArchived)


def _managed(event: type[Managed], account: Account, at_ms: int) -> Managed:
    return event(
        account_id=account.account_id,
        user_id=account.user_id,
        version=account.version + 1,
        at_ms=at_ms,
    )


def _place_hold(rows: Rows, command: PlaceHold, at_ms: int) -> Sequence[Event]:
    """Held or never: the first word on an id stands."""
    hold: Hold | None = rows.get(hold_key(command.hold_id))
    if hold is not None and hold.request_hash == command.request_hash:
        return ()
    if hold is not None:
        return _refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    return (holds.place(rows.get(account_key(command.account_id)), command, at_ms),)


def _void_hold(rows: Rows, command: VoidHold, at_ms: int) -> Sequence[Event]:
    hold: Hold | None = rows.get(hold_key(command.hold_id))
    if hold is None or hold.account_id != command.account_id:
        return _refuse(command, Reason.HOLD_NOT_FOUND, at_ms)
    if hold.status is HoldStatus.VOIDED:
        return ()
    if hold.status is not HoldStatus.OPEN:
        return _refuse(command, Reason.HOLD_NOT_OPEN, at_ms)
    account: Account = rows[account_key(hold.account_id)]
    return (holds.void(account, hold, command.actor_id, at_ms),)


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    events: list[Event] = []
    if due := expired(rows, tick, at_ms):
        events.append(LegsForgotten(due=due, at_ms=at_ms))
    earlier: Counter[str] = Counter()
    for hold in holds.expiring(rows, tick, at_ms):
        account: Account = rows[account_key(hold.account_id)]
        events.append(holds.expire(account, hold, earlier[hold.account_id], at_ms))
        earlier[hold.account_id] += 1
    return events


def _is_leg(rows: Rows, order: Order, state: LegState) -> bool:
    """True while the source stands so; false for a fact heard twice, or late."""
    leg: Leg | None = rows.get(leg_key(order.transaction_id, Side.SOURCE))
    return leg is not None and leg.state is state


def _deciding_side(order: Order) -> Side:
    """The side that decides whether money moves at all."""
    return Side.DESTINATION if order.source_account_id is None else Side.SOURCE


def _moved(account: Account, currency: str, amount_minor: int) -> Balance:
    before_minor = account.balances[currency]
    return Balance(
        account_id=account.account_id,
        currency=currency,
        before_minor=before_minor,
        after_minor=before_minor + amount_minor,
        version=account.version + 1,
    )


def _refuse(command: Command, reason: Reason, at_ms: int) -> Sequence[Event]:
    return (
        AccountCommandRefused(
            account_id=command.account_id,
            command=type(command).__name__,
            reason=reason,
            at_ms=at_ms,
        ),
    )


def _refuse_debit(
    fact: RiskApproved | RefundReserved | CancelRequested, reason: Reason, at_ms: int
) -> Sequence[Event]:
    steps = traced(fact.steps, "debit", SERVICE, reason, at_ms)
    return (DebitRefused(order=fact.order, reason=reason, at_ms=at_ms, steps=steps),)


def _refuse_credit(
    fact: RiskApproved | AccountDebited | PaymentProcessed | CancelRequested,
    reason: Reason,
    balances: tuple[Balance, ...],
    at_ms: int,
) -> Sequence[Event]:
    return (
        CreditRefused(
            order=fact.order,
            reason=reason,
            balances=balances,
            at_ms=at_ms,
            steps=traced(fact.steps, "credit", SERVICE, reason, at_ms),
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:  # noqa: C901 - a case an event
    match event:
        case AccountDebited() if _ends_with_the_debit(event.order):
            return _posted(rows, event, Side.SOURCE, LegState.SETTLED, 0)
        case AccountDebited():
            return _debited(rows, event)
        case AccountCredited():
            return _posted(rows, event, Side.DESTINATION, LegState.CREDITED, 0)
        case LegsClosed():
            return _legs_closed(rows, event.legs, event.at_ms)
        case LegClosed():
            leg = SourceLeg(account_id=event.account_id, transaction_id=event.transaction_id)
            return _legs_closed(rows, (leg,), event.at_ms)
        case DebitRefused():
            return _sided(rows, event, Side.SOURCE, LegState.REFUSED)
        case CreditRefused():
            return _sided(rows, event, Side.DESTINATION, LegState.REFUSED)
        case DebitReversed():
            back = holds.returned(rows, event.order, event.at_ms)
            return {**back, **_posted(rows, event, Side.SOURCE, LegState.REVERSED, -1)}
        case DebitSettled():
            return _passed_on(rows, event, LegState.SETTLED, -1)
        case DebitSuspended():
            return _passed_on(rows, event, LegState.SUSPENDED, 0)
        case LossSuspended():
            key = leg_key(event.order.transaction_id, Side.SOURCE)
            lost = replace(rows[key], state=LegState.LOST)  # its leaving was asked for before
            return {key: lost, **post_system(rows, event.postings)}
        case CreditSuspended():
            return _suspended(rows, event, paid=False)
        case SuspensePaid():
            return _suspense_paid(rows, event)
        case SuspenseOpened():
            return suspense.item_of(event)
        case SuspensePayoutOrdered():
            return suspense.ordered(rows, event)
        case SuspensePayoutRefused():
            return suspense.answered(rows, event)
        case SuspenseResolved():
            return _resolved(rows, event)
        case SuspenseResolutionRefused():
            return suspense.refused(rows, event)
        case AccountOpened():
            return {account_key(event.account_id): _opened(event)}
        case AccountFrozen():
            return _managed_row(rows, event, Status.FROZEN)
        case AccountUnfrozen():
            return _managed_row(rows, event, Status.OPEN)
        case AccountClosed():
            return _managed_row(rows, event, Status.CLOSED)
        case AccountArchived():
            return _managed_row(rows, event, Status.ARCHIVED)
        case HoldPlaced():
            return {**_held(rows, event, event.amount_minor), **holds.placed(event)}
        case HoldRefused():
            return holds.refused(rows, event)
        case HoldVoided():
            gone = holds.let_go(rows, event.hold_id, HoldStatus.VOIDED, event.at_ms)
            return {**_held(rows, event, -event.amount_minor), **gone}
        case HoldExpired():
            gone = holds.let_go(rows, event.hold_id, HoldStatus.EXPIRED, event.at_ms)
            return {**_held(rows, event, -event.amount_minor), **gone}
        case LegsForgotten():
            return forgotten(rows, event.due)
        case CancelTooLate() | AccountCommandRefused():
            return {}
        case _:
            assert_never(event)


def _debited(rows: Rows, event: AccountDebited) -> Changes:
    """As `_posted`; a capture ends its hold too, whatever of it was not taken."""
    order = event.order
    changes = _posted(rows, event, Side.SOURCE, LegState.DEBITED, 1)
    if order.terms is None or order.terms.hold_id is None:
        return changes
    hold: Hold = rows[hold_key(order.terms.hold_id)]
    key = account_key(hold.account_id)
    account: Any = changes[key]
    held = holds.held_more(account.held, hold.currency, -hold.amount_minor)
    ended = holds.captured(rows, hold, order, event.at_ms)
    return {**changes, key: replace(account, held=held), **ended}


def _held(rows: Rows, event: HoldPlaced | HoldVoided | HoldExpired, amount_minor: int) -> Changes:
    """The account with so much more held."""
    key = account_key(event.account_id)
    account: Account = rows[key]
    held = holds.held_more(account.held, event.currency, amount_minor)
    return {key: replace(account, held=held, version=event.version, updated_ms=event.at_ms)}


def _posted(
    rows: Rows,
    event: AccountDebited | AccountCredited | DebitReversed,
    side: Side,
    state: LegState,
    legs: int,
) -> Changes:
    """The account with its new balance, its leg, the system accounts; `legs`: how many more."""
    balance = event.balances[-1]
    key = account_key(balance.account_id)
    account: Account = rows[key]
    balances = {**account.balances, balance.currency: balance.after_minor}
    return {
        key: _changed(account, balances, legs, balance.version, event.at_ms),
        **_sided(rows, event, side, state),
        **post_system(rows, event.postings),
    }


def _changed(
    account: Account, balances: dict[str, int], legs: int, version: int, at_ms: int
) -> Account:
    # by hand: `replace` costs three times as much, on the way of every transfer
    return Account(
        account_id=account.account_id,
        user_id=account.user_id,
        name=account.name,
        status=account.status,
        balances=balances,
        overdraft_limits=account.overdraft_limits,
        open_legs=account.open_legs + legs,
        request_hash=account.request_hash,
        version=version,
        created_ms=account.created_ms,
        updated_ms=at_ms,
        held=account.held,
    )


def _passed_on(
    rows: Rows, event: DebitSettled | DebitSuspended, state: LegState, legs: int
) -> Changes:
    """The amount left clearing for another system account: the balance stays as it is."""
    key = account_key(event.order.source_account_id or "")
    account: Account = rows[key]
    return {
        key: _changed(account, account.balances, legs, account.version, event.at_ms),
        **_sided(rows, event, Side.SOURCE, state),
        **post_system(rows, event.postings),
    }


def _suspended(
    rows: Rows, event: CreditSuspended | SuspensePaid, *, paid: bool
) -> dict[RowKey, Any]:
    key = suspended_key(event.order.transaction_id)
    return {
        key: SuspendedCredit(order=event.order, paid=paid),
        **post_system(rows, event.postings),
    }


def _suspense_paid(rows: Rows, event: SuspensePaid) -> Changes:
    """The account with the amount, and that this attempt is over."""
    balance = event.balances[-1]
    account: Account = rows[account_key(balance.account_id)]
    balances = {**account.balances, balance.currency: balance.after_minor}
    changed = _changed(account, balances, 0, balance.version, event.at_ms)
    if event.attempt:
        said = {**suspense.answered(rows, event), **post_system(rows, event.postings)}
        return {**said, account_key(balance.account_id): changed}
    due, expiry = forget(rows, event.at_ms, suspended_key(event.order.transaction_id))
    said = {**_suspended(rows, event, paid=True), due: expiry}
    return {**said, account_key(balance.account_id): changed}


def _resolved(rows: Rows, event: SuspenseResolved) -> Changes:
    """The item at its end, and the credit: a late fact finds that it was suspended before."""
    posted = post_system(rows, event.postings)
    key = suspended_key(event.order.transaction_id)
    credit: SuspendedCredit | None = rows.get(key)
    if credit is None or credit.paid:
        return {**suspense.resolved(rows, event), **posted}
    paid = replace(credit, paid=True)
    return {**suspense.resolved(rows, event, key), key: paid, **posted}


def _legs_closed(rows: Rows, legs: Sequence[SourceLeg], at_ms: int) -> Changes:
    changes: dict[RowKey, Any] = {}
    for account_id, closed in Counter([leg.account_id for leg in legs]).items():
        key = account_key(account_id)
        account: Account = rows[key]
        changes[key] = _changed(account, account.balances, -closed, account.version, at_ms)
    keys = [leg_key(leg.transaction_id, Side.SOURCE) for leg in legs]
    for key, leg in zip(keys, legs, strict=True):
        changes[key] = Leg(
            account_id=leg.account_id, state=LegState.SETTLED, at_ms=at_ms, suspended=None
        )
    due, expiry = forget(rows, at_ms, *keys)
    changes[due] = expiry
    return changes


SagaFact: TypeAlias = (
    AccountDebited
    | AccountCredited
    | DebitRefused
    | CreditRefused
    | DebitReversed
    | DebitSettled
    | DebitSuspended
)


def _sided(rows: Rows, event: SagaFact, side: Side, state: LegState) -> Changes:
    order = event.order
    account_id = (
        order.source_account_id if side is Side.SOURCE else order.destination_account_id
    ) or ""
    key = leg_key(order.transaction_id, side)
    leg = Leg(
        account_id=account_id,
        state=state,
        at_ms=event.at_ms,
        suspended=event if isinstance(event, DebitSuspended) else None,
    )
    if state in (LegState.DEBITED, LegState.SUSPENDED):
        return {key: leg}
    due, expiry = forget(rows, event.at_ms, key)
    return {key: leg, due: expiry}


def _opened(event: AccountOpened) -> Account:
    return Account(
        account_id=event.account_id,
        user_id=event.user_id,
        name=event.name,
        status=Status.OPEN,
        balances=dict.fromkeys(event.currencies, 0),
        overdraft_limits=event.overdraft_limits,
        open_legs=0,
        request_hash=event.request_hash,
        version=event.version,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
    )


def _managed_row(
    rows: Rows,
    event: AccountFrozen | AccountUnfrozen | AccountClosed | AccountArchived,
    status: Status,
) -> Changes:
    key = account_key(event.account_id)
    return {key: replace(rows[key], status=status, version=event.version, updated_ms=event.at_ms)}


def account_key(account_id: str) -> RowKey:
    return f"account/{account_id}"


def leg_key(transaction_id: str, side: Side) -> RowKey:
    return f"leg/{transaction_id}/{side.value}"


def suspended_key(transaction_id: str) -> RowKey:
    return f"suspended/{transaction_id}"


def keys(message: Message | Event) -> Sequence[RowKey]:  # noqa: C901 - a case a kind
    match message:
        case Tick():
            return _tick_keys(message)
        case AccountOpened() | AccountFrozen() | AccountUnfrozen() | AccountClosed():
            return (account_key(message.account_id),)
        case PlaceHold() | VoidHold():
            return (account_key(message.account_id), hold_key(message.hold_id))
        case HoldPlaced() | HoldRefused() | HoldVoided() | HoldExpired():
            account = account_key(message.account_id)
            return (account, hold_key(message.hold_id), expiry_key(message.at_ms))
        case CreditsGathered():
            return [leg_key(leg.transaction_id, Side.SOURCE) for leg in message.legs]
        case LegsClosed():
            accounts = [account_key(leg.account_id) for leg in message.legs]
            return (*accounts, expiry_key(message.at_ms))
        case LegClosed():
            return (account_key(message.account_id), expiry_key(message.at_ms))
        case OpenAccount() | FreezeAccount() | UnfreezeAccount() | CloseAccount():
            return (account_key(message.account_id),)
        case ArchiveAccount() | AccountArchived():
            return (account_key(message.account_id),)
        case ReturnSuspended():
            return (
                account_key(message.account_id),
                leg_key(message.transaction_id, Side.SOURCE),
                suspended_key(message.transaction_id),
                _item_key(message),
            )
        case ResolveSuspense():
            leg = leg_key(suspense.transaction_of(message.suspense_id), Side.SOURCE)
            resolution = suspense.resolution_key(message.resolution_id)
            item = suspense.item_key(message.suspense_id)
            return (account_key(message.account_id), leg, item, resolution)
        case SuspenseOpened():
            return (suspense.item_key(message.suspense_id),)
        case SuspensePayoutOrdered() | SuspensePaid() | SuspensePayoutRefused():
            return _payout_keys(message)
        case SuspenseResolved() | SuspenseResolutionRefused():
            return _resolution_keys(message)
        case LegsForgotten():
            return message.due
        case AccountCommandRefused():
            return ()
        case CancelRequested():
            return _saga_keys(message.order, ())
        case RefundFailed() | CreditSuspended():
            postings = getattr(message, "postings", ())
            suspended = suspended_key(message.order.transaction_id)
            saga_keys = _saga_keys(message.order, postings)
            return (*saga_keys, expiry_key(message.at_ms), suspended)
        case _:
            expiry = expiry_key(message.at_ms)
            return (*_saga_keys(message.order, getattr(message, "postings", ())), expiry)


def _payout_keys(
    message: SuspensePayoutOrdered | SuspensePaid | SuspensePayoutRefused,
) -> Sequence[RowKey]:
    """Of the item and of the account that is to take it: one may be in another partition."""
    item = suspense.item_key(message.suspense_id)
    payout = suspense.payout_key(message.suspense_id, message.attempt)
    common = (item, payout, expiry_key(message.at_ms))
    resolution = suspense.resolution_key(message.resolution_id)
    if not isinstance(message, SuspensePaid):
        return (*common, resolution, account_key(message.to_account_id))
    accounts = (account_key(balance.account_id) for balance in message.balances)
    suspended = suspended_key(message.order.transaction_id)
    return (*common, resolution, suspended, *accounts, *system_keys(message.postings))


def _resolution_keys(event: SuspenseResolved | SuspenseResolutionRefused) -> Sequence[RowKey]:
    item = suspense.item_key(event.suspense_id)
    resolution = suspense.resolution_key(event.resolution_id)
    found = (item, resolution, expiry_key(event.at_ms))
    if isinstance(event, SuspenseResolutionRefused):
        return found
    suspended = suspended_key(event.order.transaction_id)
    return (*found, suspended, *system_keys(event.postings))


def _tick_keys(tick: Tick) -> Sequence[RowKey]:
    """Of a hold that is due its account too."""
    keys = tick_keys(tick)
    held = (key.removeprefix(holds.HOLD) for key in keys if key.startswith(holds.HOLD))
    return (*keys, *(account_key(holds.account_of(hold_id)) for hold_id in held))


def _saga_keys(order: Order, postings: Sequence[Posting]) -> Sequence[RowKey]:
    """Both sides: of most facts one is in another partition, and absent here."""
    found = [*system_keys(postings)]
    if order.terms is not None:
        found += holds.hold_keys(order)
    if order.source_account_id is not None:
        found += (account_key(order.source_account_id), leg_key(order.transaction_id, Side.SOURCE))
    if order.destination_account_id is not None:
        found += (
            account_key(order.destination_account_id),
            leg_key(order.transaction_id, Side.DESTINATION),
        )
    return found


def aggregate_id(event: Event) -> str:
    match event:
        case AccountCredited() | CreditRefused() | CreditSuspended():
            return event.order.destination_account_id or ""
        case CancelTooLate():
            order = event.order
            return order.source_account_id or order.destination_account_id or ""
        case AccountDebited() | DebitRefused() | DebitReversed() | DebitSettled():
            return event.order.source_account_id or ""
        case DebitSuspended() | LossSuspended():
            return event.order.source_account_id or ""
        case LegsForgotten():
            return event.due[0]
        case LegsClosed():
            return event.legs[0].account_id
        case SuspensePaid():
            return event.balances[-1].account_id
        case SuspensePayoutRefused():
            return event.to_account_id
        case _:
            return event.account_id


ACCOUNT = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(
        Account,
        Leg,
        Hold,
        SuspendedCredit,
        SuspenseItem,
        SuspenseResolution,
        SuspensePayout,
        SystemBalance,
        Due,
        Expiry,
    ),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, SUSPENDED),
)
