"""The facts that move a transaction from service to service, and what they carry.

    TransactionCreated -> RiskApproved -> AccountDebited -> AccountCredited -> TransactionCompleted

and the ways out of it. Who hears which fact, under which key, is `topics/subscriptions.py`; who
says it is told in each docstring. A fact carries all that the next decider needs: nobody asks
anybody. Amounts are integers in minor units of their ISO 4217 currency, times Unix milliseconds of
the broker.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TransactionType(StrEnum):
    TRANSFER = "transfer"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    CAPTURE = "capture"  # of a hold; without a destination it leaves by the rail
    PAYMENT = "payment"  # for goods: its receiver may refund it; by the rail: a card is charged
    REFUND = "refund"  # by the receiver of a payment; by the rail: of what was charged
    REVERSAL = "reversal"  # by the bank
    EXCHANGE = "exchange"


class Rail(StrEnum):
    """How the money leaves the source: inside our own books, or through a provider."""

    BOOK = "book"
    EXTERNAL = "external"


class Reason(StrEnum):
    """Why something was refused or failed: one cause, one word, stable for clients."""

    ACCOUNT_CLOSED = "ACCOUNT_CLOSED"
    ACCOUNT_FROZEN = "ACCOUNT_FROZEN"
    ACCOUNT_NOT_CLOSED = "ACCOUNT_NOT_CLOSED"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"
    ALREADY_REVERSED = "ALREADY_REVERSED"
    AMOUNT_TOO_LARGE = "AMOUNT_TOO_LARGE"
    AMOUNT_TOO_SMALL = "AMOUNT_TOO_SMALL"
    BALANCE_LIMIT = "BALANCE_LIMIT"
    BALANCE_NOT_ZERO = "BALANCE_NOT_ZERO"
    BLACKLISTED = "BLACKLISTED"
    CANCELLED = "CANCELLED"
    CHANNEL_OFF = "CHANNEL_OFF"
    CURRENCY_NOT_HELD = "CURRENCY_NOT_HELD"
    CURRENCY_UNKNOWN = "CURRENCY_UNKNOWN"
    DAILY_LIMIT = "DAILY_LIMIT"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    EMAIL_TAKEN = "EMAIL_TAKEN"
    ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"
    HOLD_EXCEEDED = "HOLD_EXCEEDED"
    HOLD_NOT_FOUND = "HOLD_NOT_FOUND"
    HOLD_NOT_OPEN = "HOLD_NOT_OPEN"
    IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    INVALID_COMMAND = "INVALID_COMMAND"
    IN_FLIGHT = "IN_FLIGHT"
    KYC_LEVEL_HELD = "KYC_LEVEL_HELD"
    KYC_NOT_PENDING = "KYC_NOT_PENDING"
    KYC_PENDING = "KYC_PENDING"
    NOTIFICATION_NOT_DEAD = "NOTIFICATION_NOT_DEAD"
    NOTIFICATION_NOT_FOUND = "NOTIFICATION_NOT_FOUND"
    NOT_COMPLETED = "NOT_COMPLETED"
    NOT_OWNER = "NOT_OWNER"
    NOT_REVERSIBLE = "NOT_REVERSIBLE"
    NOT_SUSPENDED = "NOT_SUSPENDED"
    NO_ADDRESS = "NO_ADDRESS"
    OWN_CASE = "OWN_CASE"
    PASSWORD_CHANGED = "PASSWORD_CHANGED"
    PAYMENT_DECLINED = "PAYMENT_DECLINED"
    PAYMENT_METHOD_EXPIRED = "PAYMENT_METHOD_EXPIRED"
    PAYMENT_METHOD_LIMIT = "PAYMENT_METHOD_LIMIT"
    PAYMENT_METHOD_NOT_FOUND = "PAYMENT_METHOD_NOT_FOUND"
    PAYMENT_METHOD_UNSUITABLE = "PAYMENT_METHOD_UNSUITABLE"
    PAYMENT_NOT_CREDITED = "PAYMENT_NOT_CREDITED"
    PAYMENT_NOT_FOUND = "PAYMENT_NOT_FOUND"
    QUOTE_EXPIRED = "QUOTE_EXPIRED"
    QUOTE_MISMATCH = "QUOTE_MISMATCH"
    QUOTE_NOT_FOUND = "QUOTE_NOT_FOUND"
    QUOTE_USED = "QUOTE_USED"
    RATES_OUTDATED = "RATES_OUTDATED"
    RATE_NOT_FOUND = "RATE_NOT_FOUND"
    RATE_STALE = "RATE_STALE"
    REFUND_DECLINED = "REFUND_DECLINED"
    REFUND_EXCEEDS_PAYMENT = "REFUND_EXCEEDS_PAYMENT"
    REFUND_ORDERED = "REFUND_ORDERED"
    REVIEW_DECIDED = "REVIEW_DECIDED"
    REVIEW_DECLINED = "REVIEW_DECLINED"
    REVIEW_EXPIRED = "REVIEW_EXPIRED"
    REVIEW_NOT_FOUND = "REVIEW_NOT_FOUND"
    RISK_DECLINED = "RISK_DECLINED"
    SCHEDULE_NOT_FOUND = "SCHEDULE_NOT_FOUND"
    SESSION_ENDED = "SESSION_ENDED"
    SETTLEMENT_NOT_FOUND = "SETTLEMENT_NOT_FOUND"
    SETTLEMENT_OPEN = "SETTLEMENT_OPEN"
    SETTLEMENT_RECONCILED = "SETTLEMENT_RECONCILED"
    SUSPENSE_MISMATCH = "SUSPENSE_MISMATCH"
    SUSPENSE_RESOLVED = "SUSPENSE_RESOLVED"
    TEMPLATE_DATA_MISSING = "TEMPLATE_DATA_MISSING"
    TEMPLATE_NOT_FOUND = "TEMPLATE_NOT_FOUND"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_REUSED = "TOKEN_REUSED"
    TOO_LATE = "TOO_LATE"
    TOO_MANY_ENDPOINTS = "TOO_MANY_ENDPOINTS"
    TRANSACTION_LIMIT = "TRANSACTION_LIMIT"
    TRANSACTION_NOT_FOUND = "TRANSACTION_NOT_FOUND"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    VERSION_PASSED = "VERSION_PASSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What only some orders have. Who adds a member gives it a default: orders are kept for ever."""

    # debited beside the amount, in the order's currency, and posted to `fees`; of a reversal
    # negative: what comes back from there, credited beside the amount
    fee_minor: int = 0
    destination_currency: str | None = None  # what an exchange credits
    destination_amount_minor: int | None = None  # known once the rate is fixed
    rate: str | None = None  # decimal: units of the destination's currency for one of the source's
    quote_id: str | None = None  # the held rate that an exchange uses
    payment_method_id: str | None = None  # what a provider is to charge, or to pay out to
    provider: str | None = None  # whose rail; None: the one of the settings
    hold_id: str | None = None  # the reservation that is captured
    original_transaction_id: str | None = None  # what a refund or a reversal undoes
    spread_minor: int = 0  # of an exchange, in the destination's currency: the bank's, to `fees`
    rounding_minor: int = 0  # likewise: what rounding left over (below zero: took), to `rounding`


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was ordered; every saga fact carries it unchanged (save a review's new deadline)."""

    transaction_id: str
    type: TransactionType
    amount_minor: int
    currency: str
    source_account_id: str | None
    destination_account_id: str | None
    owner_id: str  # user_id of the source account's owner; of the destination's without a source
    actor_id: str  # who ordered it
    privileged: bool  # ordered by operator, service or admin: behaviour rules do not bind
    rail: Rail
    created_ms: int
    deadline_ms: int
    terms: Terms | None = None


def fee_of(order: Order) -> int:
    """What the order costs beside its amount, minor units; negative: what it gives back."""
    return order.terms.fee_minor if order.terms is not None else 0


def debited_minor(order: Order) -> int:
    """What the order takes from its source: amount and fee, minor units of its currency."""
    return order.amount_minor + max(0, fee_of(order))


def credited_minor(order: Order) -> int:
    """What a destination of the same currency gets: the amount, and a fee that comes back."""
    return order.amount_minor - min(0, fee_of(order))


def undoes(order: Order) -> bool:
    """True for an order that needs the grant of the transaction which it undoes, by the book."""
    return (
        order.terms is not None
        and order.terms.original_transaction_id is not None
        and order.rail is Rail.BOOK
    )


def charges(order: Order) -> bool:
    """True when a provider charges a payment method for an account: money comes in by the rail."""
    return order.rail is Rail.EXTERNAL and order.source_account_id is None


def refunds(order: Order) -> bool:
    """True when (part of) what a provider charged is to go back by the rail."""
    return order.rail is Rail.EXTERNAL and order.type is TransactionType.REFUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the trace: validate, grant, rate, risk, review, debit, payment, credit, refund, complete."""

    step: str
    service: str
    outcome: str
    at_ms: int


def traced(
    steps: tuple[Step, ...], step: str, service: str, outcome: str, at_ms: int
) -> tuple[Step, ...]:
    """The trace, one step longer."""
    return (*steps, Step(step=step, service=service, outcome=outcome, at_ms=at_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One side of an entry: `amount_minor` is added to `account` (an id or a system account)."""

    account: str
    currency: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An account's balance in one currency before and after a posting."""

    account_id: str
    currency: str
    before_minor: int
    after_minor: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Whence an order came and where outside the bank it goes, as far as the gateway knows.

    For risk's blacklist alone, so it travels no further; None for what staff and machines order.
    """

    addresses: tuple[str, ...]  # the client's IP address, and the networks that it is in
    iban: str  # keyed hash of the IBAN that is paid out to; empty: none
    countries: tuple[str, ...]  # ISO 3166-1 alpha-2, of the payment method


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionCreated:
    """transaction: the order is valid and known; nothing has moved."""

    order: Order
    description: str
    reference: str
    metadata: dict[str, str]
    request_hash: str
    at_ms: int
    steps: tuple[Step, ...]
    client: Client | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReversalGranted:
    """transaction: the original grants that this order, and no other, puts its money back."""

    order: Order
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateFixed:
    """currency: the exchange has its rate, which its order carries from here on."""

    order: Order
    mid_rate: str  # of the market, before the spread
    spread_ppm: int
    at_ms: int
    steps: tuple[Step, ...]
    client: Client | None = None  # as the order came with, for risk


@dataclass(frozen=True, slots=True, kw_only=True)
class ReversalRefused:
    """transaction: the original can't be undone, or is undone by another order."""

    order: Order
    reason: Reason
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRefused:
    """currency: there is no rate for this exchange; nothing has moved and nothing will."""

    order: Order
    reason: Reason
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskApproved:
    """risk: money may move; the owner's daily limit is reserved."""

    order: Order
    score: int
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskDeclined:
    """risk: money must not move."""

    order: Order
    score: int
    reason: Reason
    rules: tuple[str, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRequested:
    """risk: a person must decide; the deadline rests until then."""

    order: Order
    review_id: str  # <owner_id>.<transaction_id>
    score: int
    rules: tuple[str, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDebited:
    """account: the amount left the source and is in clearing."""

    order: Order
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebitRefused:
    """account: the source was not debited and never will be for this transaction."""

    order: Order
    reason: Reason
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebitReversed:
    """account: the debited amount is back on the source; `reason` is what made it necessary."""

    order: Order
    reason: Reason
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebitSettled:
    """account: the debited amount left the bank through a rail (clearing to world)."""

    order: Order
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebitSuspended:
    """account: a refund failed for good; the amount is in suspense until an operator returns it."""

    order: Order
    reason: Reason  # what made the refund necessary
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditSuspended:
    """account: a payment that could neither be credited nor refunded is in suspense, for a person."""

    order: Order
    reason: Reason  # what made the refund necessary
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSuspended:
    """account: the rail moved a payment after its no, when it was put back, and keeps it: a claim in suspense."""

    order: Order
    postings: tuple[Posting, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCredited:
    """account: the amount is on the destination. `balances`: a debited source's, then its own."""

    order: Order
    postings: tuple[Posting, ...]
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditRefused:
    """account: the destination was not credited and never will be for this transaction."""

    order: Order
    reason: Reason
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTooLate:
    """account: the cancel came after the money had moved; the transaction goes on."""

    order: Order
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentCancelTooLate:
    """payment: the cancel came after the payment began; the transaction goes on."""

    order: Order
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRequested:
    """payment: the rail is to be asked, with `payment_id` as its idempotency key."""

    order: Order
    payment_id: str
    attempt: int
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]
    method_token: str = ""  # the provider's name for what it charges or pays out to; "": none


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentProcessed:
    """payment: the rail moved the money; from here the transaction only goes forward."""

    order: Order
    payment_id: str
    provider_reference: str
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentFailed:
    """payment: the rail did not move the money and will not."""

    order: Order
    payment_id: str
    reason: Reason
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethodChecked:
    """payment: whether a payment method may be used for an order, and what the provider calls it."""

    order: Order
    reason: Reason | None  # why not
    method_token: str
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundReserved:
    """payment: so much of a payment may be refunded; the account that has it is to be debited."""

    order: Order
    payment_id: str
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRefused:
    """payment: nothing of the payment is refunded for this order, and never will be."""

    order: Order
    payment_id: str
    reason: Reason
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRequested:
    """payment: the rail is to give back what it moved, with `refund_id` as its idempotency key."""

    order: Order
    payment_id: str
    refund_id: str
    provider_reference: str
    attempt: int
    reason: Reason  # what made the refund necessary
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundProcessed:
    """payment: the rail gave the money back. An order of REFUND is done, another one is undone."""

    order: Order
    payment_id: str
    reason: Reason  # what made the refund necessary
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFailed:
    """payment: the rail will not give the money back. Save for a REFUND a person must settle it."""

    order: Order
    payment_id: str
    reason: Reason  # what made the refund necessary
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """transaction: a client wants it cancelled; the next decider knows whether that is possible."""

    order: Order
    actor_id: str
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionCompleted:
    """transaction: final; the money is where it was ordered to go."""

    order: Order
    request_hash: str
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionFailed:
    """transaction: final; all money is where it was before, and `reason` says why."""

    order: Order
    request_hash: str
    reason: Reason
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionCancelled:
    """transaction: final; it was cancelled before any money moved."""

    order: Order
    request_hash: str
    balances: tuple[Balance, ...]
    at_ms: int
    steps: tuple[Step, ...]
