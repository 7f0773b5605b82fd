"""Who hears which fact: the whole saga on one page.

A service says a fact once into `<service>.events`, for the world, and once into the inbox of each
row below, in the same Kafka transaction. `key` is the path to what the target is keyed by; EVERY
is one copy to each partition. A row with `when` is written only if that holds. `relay` rows are off
the money path: `agents/relay.py` copies them from `<service>.events` in transactions of its own.
What is `gathered` of the facts of one transaction goes to each partition in one message.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, Final, TypeAlias

from domain.account import AccountOpened, CreditsGathered, SourceLeg
from domain.audit import HeadTold
from domain.blacklist import BlacklistEntryAdded, BlacklistEntryRemoved, OwnerBarred
from domain.credentials import (
    EmailConfirmationRequested,
    PasswordChanged,
    PasswordResetRequested,
)
from domain.currency import RatesRequested, RatesSet
from domain.kyc import KycLevelSet
from domain.notification_delivery import DeliveryRequested
from domain.notification_rows import Channel
from domain.notification_templates import TemplateSaved
from domain.person import normalised
from domain.prices import PriceListSet
from domain.reconciliation import PaymentBooked, StatementCompared, StatementPartSwept
from domain.reporting import ReportRequested
from domain.risk_config import RiskConfigSet
from domain.saga import (
    AccountCredited,
    AccountDebited,
    CancelRequested,
    CancelTooLate,
    CreditRefused,
    CreditSuspended,
    DebitRefused,
    DebitReversed,
    PaymentCancelTooLate,
    PaymentFailed,
    PaymentMethodChecked,
    PaymentProcessed,
    PaymentRequested,
    Rail,
    RateFixed,
    RateRefused,
    Reason,
    RefundFailed,
    RefundProcessed,
    RefundRefused,
    RefundRequested,
    RefundReserved,
    ReversalGranted,
    ReversalRefused,
    ReviewRequested,
    RiskApproved,
    RiskDeclined,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
    charges,
    refunds,
    undoes,
)
from domain.settlement import SettlementRunRequested
from domain.suspense import SuspensePaid, SuspensePayoutOrdered, SuspensePayoutRefused
from domain.user import AddressClaimed, AddressReserved, EmailChanged, RolesSet, UserRegistered


class Every(Enum):
    EVERY = "every"


EVERY: Final = Every.EVERY
Key: TypeAlias = str | Every
Route: TypeAlias = tuple[str, Key]  # topic; key, or EVERY for one copy to each partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """One message instead of a copy of each fact: `message` of the tuple of what `part` makes of each."""

    name: bytes  # of the message's type
    part: Callable[[Any], Any]
    message: Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One kind of fact that one topic gets. `key`: a dotted path into the event, or EVERY."""

    event: type
    topic: str
    key: Key
    when: Callable[[Any], bool] | None = None
    relay: bool = False
    gathered: Gathered | None = None

    @property
    def service(self) -> str:
        """Who reads the topic."""
        return self.topic.split(".")[0]


USER = "user.inbox"
ACCOUNT = "account.inbox"
TRANSACTION = "transaction.inbox"
PAYMENT = "payment.inbox"
NOTIFICATION = "notification.inbox"
RISK = "risk.inbox"
AUDIT = "audit.inbox"
CURRENCY = "currency.inbox"
FEED = "rates.inbox"  # read by agents/perform.py, which answers with RatesFetched
SETTLEMENT = "settlement.inbox"
REPORTS = "reports.inbox"  # read by agents/perform.py, which answers with ReportAnswered
RAIL = "rail.inbox"  # read by agents/perform.py, which answers with RailAnswered
# read by agents/perform.py too, which answers with DeliveryAnswered
EMAIL, SMS, PUSH, WEBHOOK = "email.inbox", "sms.inbox", "push.inbox", "webhook.inbox"

OWNER = "order.owner_id"
RISK_SERVICE = RISK.partition(".")[0]
SOURCE = "order.source_account_id"
DESTINATION = "order.destination_account_id"
ORDER = "order.transaction_id"
ORIGINAL = "order.terms.original_transaction_id"  # of a refund or a reversal: what it undoes
QUOTE = "order.terms.quote_id"

# reasons for which nothing of the owner's daily limit was reserved, so that none is to be freed
NOT_RESERVED = {
    Reason.ALREADY_REVERSED,
    Reason.AMOUNT_TOO_LARGE,
    Reason.AMOUNT_TOO_SMALL,
    Reason.BLACKLISTED,
    Reason.CURRENCY_UNKNOWN,
    Reason.DAILY_LIMIT,
    Reason.INVALID_COMMAND,
    Reason.NOT_COMPLETED,
    Reason.NOT_REVERSIBLE,
    Reason.QUOTE_EXPIRED,
    Reason.QUOTE_MISMATCH,
    Reason.QUOTE_NOT_FOUND,
    Reason.QUOTE_USED,
    Reason.RATE_NOT_FOUND,
    Reason.RATE_STALE,
    Reason.REVIEW_DECLINED,
    Reason.REVIEW_EXPIRED,
    Reason.RISK_DECLINED,
    Reason.TRANSACTION_LIMIT,
    Reason.TRANSACTION_NOT_FOUND,
}


def _is_deposit(fact: RiskApproved | CancelRequested | CreditRefused) -> bool:
    """From outside to an account, booked by an operator."""
    return fact.order.source_account_id is None and fact.order.rail is Rail.BOOK


def _source_decides(fact: RiskApproved | CancelRequested) -> bool:
    return fact.order.source_account_id is not None and not refunds(fact.order)


def _has_source(fact: PaymentFailed | RefundProcessed | RefundFailed) -> bool:
    return fact.order.source_account_id is not None


def _has_destination(fact: PaymentProcessed) -> bool:
    return fact.order.destination_account_id is not None


def _between_accounts(fact: AccountCredited) -> bool:
    """From account to account, as a transfer."""
    order = fact.order
    return order.source_account_id is not None and order.destination_account_id is not None


def _goes_out(fact: PaymentProcessed) -> bool:
    """From an account to outside, as a withdrawal."""
    return fact.order.destination_account_id is None


def _at_market(fact: TransactionCreated) -> bool:
    return fact.order.type is TransactionType.EXCHANGE and not fact.order.terms.quote_id  # type: ignore[union-attr]


def _by_quote(fact: TransactionCreated) -> bool:
    return fact.order.type is TransactionType.EXCHANGE and bool(fact.order.terms.quote_id)  # type: ignore[union-attr]


def _charges(fact: Any) -> bool:
    return charges(fact.order)


def _refunds(fact: Any) -> bool:
    return refunds(fact.order)


def _ends_by_rail(fact: RefundProcessed) -> bool:
    return charges(fact.order) or refunds(fact.order)


def _by_book(fact: AccountDebited) -> bool:
    return fact.order.rail is Rail.BOOK and fact.order.destination_account_id is not None


def _out_by_book(fact: AccountDebited) -> bool:
    """It left the bank with the debit: nobody is to be credited."""
    return fact.order.destination_account_id is None and fact.order.rail is Rail.BOOK


def _by_rail(fact: AccountDebited) -> bool:
    """To whom the rail knows, not to a payment method."""
    order = fact.order
    return order.rail is Rail.EXTERNAL and not (_names_method(fact) or refunds(order))


def _names_method(fact: AccountDebited) -> bool:
    terms = fact.order.terms
    return terms is not None and terms.payment_method_id is not None


def _booked(fact: CreditRefused) -> bool:
    """A debit of our own books is to be put back."""
    return fact.order.source_account_id is not None and fact.order.rail is Rail.BOOK


def _paid(fact: CreditRefused) -> bool:
    """What the rail moved is to be asked back."""
    return fact.order.rail is Rail.EXTERNAL


def _was_ordered(fact: SuspensePaid) -> bool:
    """Paid elsewhere than where it stood."""
    return fact.attempt > 0


def _is_going_on(fact: StatementPartSwept) -> bool:
    return not fact.done


def _undoes(fact: TransactionCreated | TransactionFailed | TransactionCancelled) -> bool:
    """It needs the grant of another transaction."""
    return undoes(fact.order)


def _needs_nothing_first(fact: TransactionCreated) -> bool:
    """Neither a rate nor the grant of another transaction."""
    order = fact.order
    if order.terms is None:
        return True
    return order.type is not TransactionType.EXCHANGE and not undoes(order)


def _may_have_reserved(fact: TransactionFailed) -> bool:
    """An order may make no sense at once, or to its hold or its payment, which are asked later."""
    if fact.order.privileged:
        return False
    if fact.reason is Reason.INVALID_COMMAND:
        return any(step.service == RISK_SERVICE for step in fact.steps)
    return fact.reason not in NOT_RESERVED


def _by_customer(fact: TransactionCancelled) -> bool:
    return not fact.order.privileged


def _has_moved(fact: EmailChanged) -> bool:
    return normalised(fact.email) != fact.former_address


def _over(channel: Channel) -> Callable[[DeliveryRequested], bool]:
    return lambda request: request.channel is channel


def _on(
    event: type, topic: str, key: Key, when: Callable[[Any], bool] | None = None
) -> Subscription:
    return Subscription(event=event, topic=topic, key=key, when=when)


def _relayed(event: type, topic: str, key: Key) -> Subscription:
    return Subscription(event=event, topic=topic, key=key, relay=True)


def _gathered(
    event: type, topic: str, key: str, when: Callable[[Any], bool], gathered: Gathered
) -> Subscription:
    return Subscription(event=event, topic=topic, key=key, when=when, gathered=gathered)


CLOSE_LEGS = Gathered(
    name=CreditsGathered.__name__.encode(),
    part=lambda fact: SourceLeg(
        account_id=fact.order.source_account_id, transaction_id=fact.order.transaction_id
    ),
    message=lambda legs: CreditsGathered(legs=legs),
)

SUBSCRIPTIONS: tuple[Subscription, ...] = (
    # the way of a transfer
    _on(TransactionCreated, RISK, OWNER, _needs_nothing_first),
    _on(RiskApproved, ACCOUNT, SOURCE, _source_decides),
    _on(RiskApproved, ACCOUNT, DESTINATION, _is_deposit),
    _on(AccountDebited, ACCOUNT, DESTINATION, _by_book),
    _on(AccountDebited, TRANSACTION, ORDER, _out_by_book),
    _on(AccountDebited, PAYMENT, ORDER, _by_rail),
    _on(AccountCredited, TRANSACTION, ORDER),
    _gathered(AccountCredited, ACCOUNT, SOURCE, _between_accounts, CLOSE_LEGS),
    # what undoes another transaction needs its grant; when it comes to nothing that is free again
    _on(TransactionCreated, TRANSACTION, ORIGINAL, _undoes),
    _on(ReversalGranted, RISK, OWNER),
    _on(ReversalRefused, TRANSACTION, ORDER),
    _on(TransactionFailed, TRANSACTION, ORIGINAL, _undoes),
    _on(TransactionCancelled, TRANSACTION, ORIGINAL, _undoes),
    # an exchange gets its rate first, that of its quote where it has one; then it goes that way
    _on(TransactionCreated, CURRENCY, ORDER, _at_market),
    _on(TransactionCreated, CURRENCY, QUOTE, _by_quote),
    _on(RateFixed, RISK, OWNER),
    _on(RateRefused, TRANSACTION, ORDER),
    # risk says no, or asks a person
    _on(RiskDeclined, TRANSACTION, ORDER),
    _on(ReviewRequested, TRANSACTION, ORDER),
    # an account says no: what moved is put back
    _on(DebitRefused, TRANSACTION, ORDER),
    _on(CreditRefused, TRANSACTION, ORDER, _is_deposit),
    _on(CreditRefused, ACCOUNT, SOURCE, _booked),
    _on(CreditRefused, PAYMENT, ORDER, _paid),
    _on(DebitReversed, TRANSACTION, ORDER),
    # a payment through the rail, and its refund
    _on(PaymentRequested, RAIL, ORDER),
    _on(PaymentProcessed, ACCOUNT, DESTINATION, _has_destination),
    _on(PaymentProcessed, TRANSACTION, ORDER, _goes_out),
    _on(PaymentProcessed, ACCOUNT, SOURCE, _goes_out),
    _on(PaymentFailed, ACCOUNT, SOURCE, _has_source),
    _on(RefundRequested, RAIL, ORDER),
    _on(RefundProcessed, ACCOUNT, SOURCE, _has_source),
    _on(RefundFailed, ACCOUNT, SOURCE, _has_source),
    # a payment method is asked first: to be charged, or to be paid out to
    _on(RiskApproved, PAYMENT, OWNER, _charges),
    _on(AccountDebited, PAYMENT, OWNER, _names_method),
    _on(PaymentMethodChecked, PAYMENT, ORDER),
    # money comes in by a charge; what can't be credited goes back, or to suspense
    _on(AccountCredited, PAYMENT, ORDER, _charges),
    _on(PaymentFailed, TRANSACTION, ORDER, _charges),
    _on(RefundProcessed, TRANSACTION, ORDER, _ends_by_rail),
    _on(RefundFailed, ACCOUNT, DESTINATION, _charges),
    _on(CreditSuspended, TRANSACTION, ORDER),
    # what is in suspense is to be paid to an account, which answers where it stands
    _on(SuspensePayoutOrdered, ACCOUNT, "to_account_id"),
    _on(SuspensePaid, ACCOUNT, "account_id", _was_ordered),
    _on(SuspensePayoutRefused, ACCOUNT, "account_id"),
    # a refund that is ordered: reserved of its payment, debited, then asked of the rail
    _on(RiskApproved, PAYMENT, ORIGINAL, _refunds),
    _on(RefundReserved, ACCOUNT, SOURCE),
    _on(RefundRefused, TRANSACTION, ORDER),
    _on(AccountDebited, PAYMENT, ORIGINAL, _refunds),
    _on(DebitRefused, PAYMENT, ORIGINAL, _refunds),
    # a client cancels: who decides whether money moves answers
    _on(CancelRequested, ACCOUNT, SOURCE, _source_decides),
    _on(CancelRequested, ACCOUNT, DESTINATION, _is_deposit),
    _on(CancelRequested, PAYMENT, ORDER, _charges),
    _on(CancelRequested, PAYMENT, ORIGINAL, _refunds),
    _on(CancelTooLate, TRANSACTION, ORDER),
    _on(PaymentCancelTooLate, TRANSACTION, ORDER),
    # what came to nothing frees the owner's daily limit, or withdraws the review
    _on(TransactionFailed, RISK, OWNER, _may_have_reserved),
    _on(TransactionCancelled, RISK, OWNER, _by_customer),
    # a provider's statement is held against what it was seen to move that day
    _relayed(PaymentBooked, PAYMENT, "booking_key"),
    # what a provider moved is settled by book, provider and currency
    _relayed(PaymentBooked, SETTLEMENT, "book"),
    _on(SettlementRunRequested, SETTLEMENT, EVERY),
    _on(StatementCompared, PAYMENT, "booking_key"),
    _on(StatementPartSwept, PAYMENT, "booking_key", _is_going_on),
    # beside the saga
    _on(PriceListSet, TRANSACTION, EVERY),
    _on(BlacklistEntryAdded, RISK, EVERY),
    _on(BlacklistEntryRemoved, RISK, EVERY),
    _on(OwnerBarred, RISK, EVERY),
    _on(RiskConfigSet, RISK, EVERY),
    _on(AccountOpened, RISK, "user_id"),
    _on(KycLevelSet, RISK, "user_id"),
    _on(RatesSet, CURRENCY, EVERY),
    _on(RatesRequested, FEED, "fetch_id"),
    _on(ReportRequested, REPORTS, "report_id"),
    _on(AddressReserved, USER, "user_id"),
    _on(AddressClaimed, USER, "user_id"),
    _on(EmailChanged, USER, "former_address", _has_moved),
    _on(AccountOpened, USER, "user_id"),
    _on(HeadTold, AUDIT, "checkpoint_id"),
    # users are told
    _relayed(TransactionCompleted, NOTIFICATION, OWNER),
    _relayed(TransactionFailed, NOTIFICATION, OWNER),
    _relayed(UserRegistered, NOTIFICATION, "user_id"),
    _relayed(EmailChanged, NOTIFICATION, "user_id"),
    _relayed(RolesSet, NOTIFICATION, "user_id"),
    _relayed(PasswordChanged, NOTIFICATION, "user_id"),
    _relayed(EmailConfirmationRequested, NOTIFICATION, "user_id"),
    _relayed(PasswordResetRequested, NOTIFICATION, "user_id"),
    _on(TemplateSaved, NOTIFICATION, EVERY),
    _on(DeliveryRequested, EMAIL, "user_id", _over(Channel.EMAIL)),
    _on(DeliveryRequested, SMS, "user_id", _over(Channel.SMS)),
    _on(DeliveryRequested, PUSH, "user_id", _over(Channel.PUSH)),
    _on(DeliveryRequested, WEBHOOK, "user_id", _over(Channel.WEBHOOK)),
)


Compiled: TypeAlias = tuple[str, Callable[[Any], Any], Callable[[Any], bool] | None]


def _compiled(row: Subscription) -> Compiled:
    """Topic, key of an event, condition."""
    key = (lambda _: EVERY) if isinstance(row.key, Every) else attrgetter(row.key)
    return row.topic, key, row.when


def _of(rows: Iterable[Subscription]) -> dict[type, tuple[Compiled, ...]]:
    table: defaultdict[type, list[Compiled]] = defaultdict(list)
    for row in rows:
        table[row.event].append(_compiled(row))
    return {event: tuple(rows) for event, rows in table.items()}


_ROUTED = _of(row for row in SUBSCRIPTIONS if not row.relay and row.gathered is None)
_RELAYED = _of(row for row in SUBSCRIPTIONS if row.relay)
_GATHERED = {row.event: (_compiled(row), row.gathered) for row in SUBSCRIPTIONS if row.gathered}


def route(event: Any) -> tuple[Route, ...]:
    """Where the sayer writes copies of this fact, in its own transaction."""
    rows = _ROUTED.get(type(event))
    if rows is None:
        return ()
    return tuple([(topic, key(event)) for topic, key, when in rows if when is None or when(event)])


def gathers(event: Any) -> tuple[Route, Gathered] | None:
    """Where this fact's part of a gathered message goes, if it has one."""
    found = _GATHERED.get(type(event))
    if found is None:
        return None
    (topic, key, when), gathered = found
    if when is not None and not when(event):
        return None
    return (topic, key(event)), gathered


def relays(event: Any) -> tuple[Route, ...]:
    """Where the relay copies this fact to."""
    rows = _RELAYED.get(type(event))
    if rows is None:
        return ()
    return tuple([(topic, key(event)) for topic, key, when in rows if when is None or when(event)])
