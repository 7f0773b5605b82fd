"""Prices: what an order costs beside its amount, by type and currency.

    SetPriceList --> PriceListSet --a copy to each partition--> PriceListApplied

A price list is set whole and counted by its version. Each partition of the transaction service keeps
it in one row and reads it when an order is created; what the order costs is fixed there, in its
terms, whatever the list says later. The command arrives under PRICE_LIST, so that one partition
counts the versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from domain.money import AMOUNT_LIMIT_MINOR, is_currency
from domain.saga import Reason, TransactionType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from domain.decider import Changes, RowKey, Rows

PRICE_LIST: RowKey = "price-list"  # the key of the row, and of what arrives about it
PRICES_LIMIT = 1_000  # of one list
MILLION = 1_000_000
# what is paid in is booked whole, and what undoes another transaction costs nothing
FREE = frozenset({TransactionType.DEPOSIT, TransactionType.REFUND, TransactionType.REVERSAL})
PRICED = tuple(kind for kind in TransactionType if kind not in FREE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What orders of one type in one currency cost: flat, and parts per million of the amount."""

    type: TransactionType
    currency: str
    flat_minor: int
    rate_ppm: int
    minimum_minor: int = 0
    maximum_minor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPriceList:
    """Let these prices hold for orders created from now on, and no others. An operator's command."""

    prices: tuple[Price, ...]
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceListSet:
    """The price list is this from here on; each partition hears it."""

    version: int
    prices: tuple[Price, ...]
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceListApplied:
    """Orders of one partition cost what this list says from here on."""

    version: int
    prices: tuple[Price, ...]
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceListRefused:
    """A price list makes no sense; the prices are as they were."""

    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Row `price-list`, in each partition."""

    prices: dict[str, Price]  # by `<type>/<currency>`
    actor_id: str  # who set it
    version: int
    updated_ms: int


def fee_minor(price: Price, amount_minor: int) -> int:
    """What an amount costs, in minor units of its currency; the part of it is rounded half to even."""
    part_minor, rest = divmod(amount_minor * price.rate_ppm, MILLION)
    part_minor += 2 * rest > MILLION or (2 * rest == MILLION and part_minor % 2)
    fee = max(price.flat_minor + part_minor, price.minimum_minor)
    return fee if price.maximum_minor is None else min(fee, price.maximum_minor)


def fee_of(rows: Rows, kind: TransactionType, currency: str, amount_minor: int) -> int:
    """What such an order costs by this partition's price list; nothing without one."""
    listed: PriceList | None = rows.get(PRICE_LIST)
    price = listed.prices.get(_name(kind, currency)) if listed is not None else None
    return fee_minor(price, amount_minor) if price is not None else 0


def set_list(
    rows: Rows, command: SetPriceList, at_ms: int
) -> Sequence[PriceListSet | PriceListRefused]:
    row: PriceList | None = rows.get(PRICE_LIST)
    if row is not None and row.prices == _by_name(command.prices):
        return ()
    if not _makes_sense(command.prices):
        return (PriceListRefused(reason=Reason.INVALID_COMMAND, at_ms=at_ms),)
    return (
        PriceListSet(
            version=row.version + 1 if row else 1,
            prices=command.prices,
            actor_id=command.actor_id,
            at_ms=at_ms,
        ),
    )


def apply_list(rows: Rows, fact: PriceListSet, at_ms: int) -> Sequence[PriceListApplied]:
    """Where it was set it holds already."""
    row: PriceList | None = rows.get(PRICE_LIST)
    if row is not None and row.version >= fact.version:
        return ()
    return (
        PriceListApplied(
            version=fact.version, prices=fact.prices, actor_id=fact.actor_id, at_ms=at_ms
        ),
    )


def listed(event: PriceListSet | PriceListApplied) -> Changes:
    row = PriceList(
        prices=_by_name(event.prices),
        actor_id=event.actor_id,
        version=event.version,
        updated_ms=event.at_ms,
    )
    return {PRICE_LIST: row}


def _by_name(prices: Iterable[Price]) -> dict[str, Price]:
    return {_name(price.type, price.currency): price for price in prices}


def _name(kind: TransactionType, currency: str) -> str:
    return f"{kind.value}/{currency}"


def _makes_sense(prices: Sequence[Price]) -> bool:
    once = len(_by_name(prices)) == len(prices) <= PRICES_LIMIT
    return once and all(map(_is_price, prices))


def _is_price(price: Price) -> bool:
    maximum_minor = AMOUNT_LIMIT_MINOR if price.maximum_minor is None else price.maximum_minor
    return (
        price.type in PRICED
        and is_currency(price.currency)
        and 0 <= price.flat_minor <= AMOUNT_LIMIT_MINOR
        and 0 <= price.rate_ppm <= MILLION
        and 0 <= price.minimum_minor <= maximum_minor <= AMOUNT_LIMIT_MINOR
    )
