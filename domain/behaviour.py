"""Behaviour: what risk remembers of a customer's orders, and how a new one looks beside them.

All of it is one row of fixed size, and a row for each recipient that is forgotten in time. Orders that
staff or machines give for a customer leave no trace here: they are not the customer's behaviour.

Amounts are compared exactly. Of each currency the row has the number of orders, their sum and the sum
of their squares, as whole numbers; an amount `a` lies more than k deviations above the mean of n
orders with sum S and squares Q when

    n·a > S  and  (n·a − S)² > k² · (n·Q − S²)

so neither a mean nor a deviation is ever rounded (Welford's method, which floating-point numbers
would need, has nothing to add to exact sums). At MEMORY orders all three are halved: old ones fade.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from domain.anomaly import MODEL, Features, Learnt, log2
from domain.bank_day import bank_day, bank_hour

if TYPE_CHECKING:
    from domain.decider import Changes, RowKey, Rows
    from domain.saga import Order

MEMORY = 1024  # orders in one currency, before they are halved
HOUR_MS = 3600 * 1000
GAP_LIMIT_S = 30 * 24 * 3600  # longer ago is long ago
RECIPIENT_DAYS = 15  # a recipient is known for one to two of these after a payment
# the hour as a place on a clock's face, in thousandths: 23 and 0 are neighbours
QUARTER = (1000, 966, 866, 707, 500, 259)
HALF = (*QUARTER, *(-x for x in (0, *QUARTER[:0:-1])))
COSINES = (*HALF, *(-x for x in HALF))
SINES = (*COSINES[18:], *COSINES[:18])
FEATURES = ("size", "gap", "hour_cosine", "hour_sine", "new_recipient", "orders_in_hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Of a customer's approved orders in one currency. `squares`: decimal, it passes 64 bits."""

    orders: int
    sum_minor: int
    squares: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Row `customer/<user_id>`: a user as one who orders. Hours and days are the bank's."""

    user_id: str
    level: int = 0  # how far the bank knows them: 0 unverified, 1 basic, 2 full
    level_version: int = 0  # of the user, when that was said
    hour: int = 0  # of the last order, hours since 1970
    in_hour: int = 0  # orders in it
    day: int = 0  # of the last order, see bank_day
    in_day: int = 0
    near_limit: int = 0  # of them just below the amount that a person looks at
    last_ms: int = 0  # when the last order came
    days: int = 0  # on which they ordered
    amounts: dict[str, Amounts]  # by currency
    learnt: Learnt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Row `recipient/<owner_id>/<period>/<account_id>`: was paid in these RECIPIENT_DAYS."""

    account_id: str
    at_ms: int  # of the first payment in the period


def customer_key(user_id: str) -> RowKey:
    return f"customer/{user_id}"


def recipient_keys(order: Order) -> tuple[RowKey, ...]:
    """Of the order's period, then of the one before; none for an order without a recipient."""
    account_id = order.destination_account_id
    if order.source_account_id is None or account_id is None:
        return ()
    period = bank_day(order.created_ms) // RECIPIENT_DAYS
    return (
        f"recipient/{order.owner_id}/{period}/{account_id}",
        f"recipient/{order.owner_id}/{period - 1}/{account_id}",
    )


def is_new_recipient(rows: Rows, order: Order) -> bool:
    keys = recipient_keys(order)
    return bool(keys) and not any(key in rows for key in keys)


def features(customer: Customer | None, order: Order, is_new: bool, at_ms: int) -> Features:
    """An order as a model sees it, in thousandths; see FEATURES."""
    hour = bank_hour(at_ms)
    return (
        log2(order.amount_minor),
        log2(_gap_s(customer, at_ms) + 1),
        COSINES[hour],
        SINES[hour],
        1000 * is_new,
        log2(orders_in_hour(customer, at_ms) + 1),
    )


def _gap_s(customer: Customer | None, at_ms: int) -> int:
    if customer is None or not customer.last_ms:
        return GAP_LIMIT_S
    return min(GAP_LIMIT_S, max(0, at_ms - customer.last_ms) // 1000)


def orders_in_hour(customer: Customer | None, at_ms: int) -> int:
    """Before this one."""
    return customer.in_hour if customer is not None and customer.hour == at_ms // HOUR_MS else 0


def orders_in_day(customer: Customer | None, at_ms: int) -> int:
    """Before this one."""
    return customer.in_day if customer is not None and customer.day == bank_day(at_ms) else 0


def near_limit_in_day(customer: Customer | None, at_ms: int) -> int:
    """Before this one."""
    return customer.near_limit if customer is not None and customer.day == bank_day(at_ms) else 0


def is_far_above(amounts: Amounts, amount_minor: int, deviations_milli: int) -> bool:
    """More than so many thousandths of a deviation above the mean.

    A deviation is at least a tenth of the mean: who always pays the same may pay a little more.
    """
    n, total, squares = amounts.orders, amounts.sum_minor, int(amounts.squares)
    above = n * amount_minor - total
    if above <= 0:
        return False
    spread = max(n * squares - total * total, total * total // 100)
    return above * above * 1_000_000 > deviations_milli * deviations_milli * spread


# what is remembered


def counted(rows: Rows, order: Order, near: bool, at_ms: int) -> Customer:
    """The customer with one order more, whatever was decided of it."""
    before: Customer | None = rows.get(customer_key(order.owner_id))
    customer = before or Customer(user_id=order.owner_id, amounts={})
    day = bank_day(at_ms)
    return replace(
        customer,
        hour=at_ms // HOUR_MS,
        in_hour=orders_in_hour(before, at_ms) + 1,
        day=day,
        in_day=orders_in_day(before, at_ms) + 1,
        near_limit=near_limit_in_day(before, at_ms) + near,
        last_ms=at_ms,
        days=customer.days + (day != customer.day),
    )


def learnt_from(rows: Rows, customer: Customer, order: Order, at_ms: int) -> Customer:
    """The customer after an approved order; `rows` are those of before it."""
    before: Customer | None = rows.get(customer_key(order.owner_id))
    seen = features(before, order, is_new_recipient(rows, order), at_ms)
    amounts = _added(customer.amounts.get(order.currency), order.amount_minor)
    return replace(
        customer,
        amounts={**customer.amounts, order.currency: amounts},
        learnt=MODEL.update(customer.learnt, seen),
    )


def _added(before: Amounts | None, amount_minor: int) -> Amounts:
    n, total, squares = (
        (before.orders, before.sum_minor, int(before.squares)) if before is not None else (0, 0, 0)
    )
    if n >= MEMORY:
        n, total, squares = n // 2, total // 2, squares // 2
    total, squares = total + amount_minor, squares + amount_minor**2
    return Amounts(orders=n + 1, sum_minor=total, squares=str(squares))


def paid(rows: Rows, order: Order, at_ms: int) -> Changes:
    """The recipient's row, if this period has none yet."""
    keys = recipient_keys(order)
    if not keys or keys[0] in rows:
        return {}
    return {keys[0]: Recipient(account_id=order.destination_account_id or "", at_ms=at_ms)}
