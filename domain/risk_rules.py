"""The rules of risk: small functions from a case to a finding.

A finding is points of a hundred. The sum of an order's points is its score; from `review_from` on a
person decides, from `decline_from` on nobody needs to. A new rule is a function in one of the lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from domain import behaviour
from domain.anomaly import Features
from domain.bank_day import bank_day, bank_hour
from domain.behaviour import Customer
from domain.risk_config import DEFAULT, MILLION, POINTS, Level, RiskConfig
from domain.saga import Order, Reason, debited_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule holds against an order: points of a hundred, and the reason of a decline."""

    rule: str
    points: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the rules look at."""

    order: Order
    at_ms: int
    blacklisted: bool = False
    config: RiskConfig = DEFAULT
    reserved_minor: int = 0  # of the owner's limit of the order's day
    in_minute: int = 0  # orders of the owner before this one
    customer: Customer | None = None
    is_new_recipient: bool = False
    features: Features = ()
    anomaly: int = 0  # the model's word, 0 … 100
    level: Level = field(default=DEFAULT.levels[0])


def blacklist(case: Case) -> Finding | None:
    if not case.blacklisted:
        return None
    return Finding(rule="blacklist", points=POINTS, reason=Reason.BLACKLISTED)


def daily_limit(case: Case) -> Finding | None:
    """What the owner ordered on the order's day, with this order, stays within the limit."""
    if case.reserved_minor + debited_minor(case.order) <= case.level.day_minor:
        return None
    return Finding(rule="daily_limit", points=POINTS, reason=Reason.DAILY_LIMIT)


def transaction_limit(case: Case) -> Finding | None:
    """One order stays within its limit. What is above a whole day's the other rule says."""
    if not case.level.transaction_minor < debited_minor(case.order) <= case.level.day_minor:
        return None
    return Finding(rule="transaction_limit", points=POINTS, reason=Reason.TRANSACTION_LIMIT)


def velocity(case: Case) -> Finding | None:
    """Orders in this minute, hour and day, this one too."""
    config, customer, at_ms = case.config, case.customer, case.at_ms
    counts = (
        (case.in_minute, config.minute_review, config.minute_decline),
        (
            behaviour.orders_in_hour(customer, at_ms),
            config.hour_review,
            config.hour_decline,
        ),
        (behaviour.orders_in_day(customer, at_ms), config.day_review, config.day_decline),
    )
    if any(orders + 1 > decline for orders, _, decline in counts):
        return _against("velocity", POINTS)
    if any(orders + 1 > review for orders, review, _ in counts):
        return _against("velocity", config.review_from)
    return None


def amount(case: Case) -> Finding | None:
    if case.order.amount_minor < case.level.review_minor:
        return None
    return _against("amount", case.config.amount_points)


def structuring(case: Case) -> Finding | None:
    """Just below the amount that a person looks at; again and again in a day is on purpose."""
    config = case.config
    if not is_near_limit(case.order, case.level, config):
        return None
    orders = behaviour.near_limit_in_day(case.customer, case.at_ms) + 1
    repeated = orders >= config.structuring_orders
    return _against("structuring", config.review_from if repeated else config.structuring_points)


def is_near_limit(order: Order, level: Level, config: RiskConfig) -> bool:
    low = level.review_minor * (MILLION - config.structuring_ppm)
    return low <= order.amount_minor * MILLION < level.review_minor * MILLION


def new_recipient(case: Case) -> Finding | None:
    return _against("new_recipient", case.config.recipient_points * case.is_new_recipient)


def night(case: Case) -> Finding | None:
    """Between two hours of the bank's clock, which may lie around midnight."""
    start, end = case.config.night_from, case.config.night_to
    hour = bank_hour(case.at_ms)
    at_night = start <= hour < end if start <= end else hour >= start or hour < end
    return _against("night", case.config.night_points * at_night)


def deviation(case: Case) -> Finding | None:
    """Far above what the customer orders in this currency."""
    config, order = case.config, case.order
    if case.customer is None or not _has_history(case):
        return None
    amounts = case.customer.amounts.get(order.currency)
    if amounts is None or amounts.orders < config.deviation_orders:
        return None
    if not behaviour.is_far_above(amounts, order.amount_minor, config.deviation_milli):
        return None
    return _against("deviation", config.deviation_points)


def anomaly(case: Case) -> Finding | None:
    """The model has not seen the like of it from this customer."""
    if case.anomaly < case.config.anomaly_from or not _has_history(case):
        return None
    return _against("anomaly", case.config.anomaly_points)


def _has_history(case: Case) -> bool:
    """Many orders of one morning are no habit yet."""
    return case.customer is not None and case.customer.days >= case.config.history_days


def _against(rule: str, points: int) -> Finding | None:
    """A rule of no weight says nothing."""
    return Finding(rule=rule, points=points, reason=Reason.RISK_DECLINED) if points else None


Rule: TypeAlias = Callable[[Case], Finding | None]
RULES_FOR_ALL: tuple[Rule, ...] = (blacklist,)
# bind what customers order
RULES_OF_BEHAVIOUR: tuple[Rule, ...] = (
    daily_limit,
    transaction_limit,
    velocity,
    amount,
    structuring,
    new_recipient,
    night,
    deviation,
    anomaly,
)


def findings(case: Case) -> list[Finding]:
    """What the rules hold against an order, in the order of the rules."""
    rules = RULES_FOR_ALL if case.order.privileged else RULES_FOR_ALL + RULES_OF_BEHAVIOUR
    return [finding for rule in rules if (finding := rule(case)) is not None]


def score_of(found: Sequence[Finding]) -> int:
    return min(POINTS, sum(finding.points for finding in found))


def reason_of(found: Sequence[Finding]) -> Reason:
    """Of the weightiest finding, the first of them."""
    return max(found, key=lambda finding: finding.points).reason


def day_key(order: Order) -> str:
    """What of an owner's reservations an order counts against."""
    return f"{bank_day(order.created_ms)}/{order.currency}"
