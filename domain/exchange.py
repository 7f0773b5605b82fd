"""Exchange: rates as exact ratios, and the one place where money changes its currency.

    amount --convert(rate of the customer)--> what the destination gets
           --convert(rate of the market)----> what the bank's position gives
                                              the rest: spread (fees) and rounding

A rate is a decimal text: units of one currency for one unit of another, not minor units. All
arithmetic is on integers; `half_even` alone rounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from domain.ledger import CLEARING, FEES, POSITION, ROUNDING, move
from domain.money import EXPONENTS
from domain.saga import Order, Posting, credited_minor

MILLION = 10**6
DIGITS = 15  # significant ones of a rate that is made of others
RATE = re.compile(r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,15})?")


class Ratio(NamedTuple):
    """A rate, exactly; the denominator is above zero."""

    numerator: int
    denominator: int

    @property
    def inverse(self) -> Ratio:
        return Ratio(self.denominator, self.numerator)

    def times(self, other: Ratio) -> Ratio:
        return Ratio(self.numerator * other.numerator, self.denominator * other.denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What an amount comes to; minor units of the destination's currency."""

    rate: str  # of the customer
    amount_minor: int
    spread_minor: int
    rounding_minor: int


def is_rate(text: str) -> bool:
    """True for a rate that may be set: above zero, at most 12 digits before the point and 15 behind."""
    return bool(RATE.fullmatch(text)) and bool(ratio(text).numerator)


def ratio(text: str) -> Ratio:
    """A decimal text, exactly."""
    whole, _, part = text.partition(".")
    return Ratio(int(whole + part), 10 ** len(part))


def half_even(numerator: int, denominator: int) -> int:
    """The nearest integer; of two as near the even one. All rounding of money is here."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return whole + (twice > denominator or (twice == denominator and whole & 1))


def written(rate: Ratio) -> str:
    """A rate as a decimal text of DIGITS significant digits, zeros at its end left out."""
    numerator, denominator = rate
    places = max(0, DIGITS - len(str(numerator)) + len(str(denominator)))
    digits = half_even(numerator * 10**places, denominator)
    if places and len(str(digits)) > DIGITS:
        places -= 1
        digits = half_even(numerator * 10**places, denominator)
    text = str(digits).zfill(places + 1)
    if not places:
        return text
    return f"{text[:-places]}.{text[-places:]}".rstrip("0").rstrip(".")


def convert(amount_minor: int, rate: Ratio, source: str, destination: str) -> int:
    """An amount of one currency in another, rounded half-even to its minor unit."""
    numerator, denominator = amount_minor * rate.numerator, rate.denominator
    shift = EXPONENTS[destination] - EXPONENTS[source]
    if shift >= 0:
        return half_even(numerator * 10**shift, denominator)
    return half_even(numerator, denominator * 10**-shift)


def customer_rate(mid: str, spread_ppm: int) -> str:
    """What a customer gets of the market's rate, the spread taken off."""
    return written(ratio(mid).times(Ratio(MILLION - spread_ppm, MILLION)))


def priced(
    amount_minor: int, mid: str, spread_ppm: int, source: str, destination: str
) -> Conversion:
    """What an amount comes to at the market's rate `mid`, and what of it is the bank's."""
    rate, market = customer_rate(mid, spread_ppm), ratio(mid)
    net_minor = convert(amount_minor, ratio(rate), source, destination)
    gross_minor = convert(amount_minor, market, source, destination)
    share = market.times(Ratio(spread_ppm, MILLION))
    spread_minor = convert(amount_minor, share, source, destination)
    return Conversion(
        rate=rate,
        amount_minor=net_minor,
        spread_minor=spread_minor,
        rounding_minor=gross_minor - net_minor - spread_minor,
    )


def credited(order: Order) -> tuple[str, int]:
    """Currency and amount that the destination of an order gets."""
    terms = order.terms
    if terms is None or terms.destination_currency is None:
        return order.currency, credited_minor(order)
    assert terms.destination_amount_minor is not None, "no rate was fixed"
    return terms.destination_currency, terms.destination_amount_minor


def postings(order: Order) -> tuple[Posting, ...]:
    """The entries of an exchange's credit: the source's currency comes in, the other goes out."""
    currency, amount_minor = credited(order)
    terms = order.terms
    assert terms is not None
    assert order.destination_account_id is not None
    given = (
        (order.destination_account_id, amount_minor),
        (FEES, terms.spread_minor),
        (ROUNDING, terms.rounding_minor),
    )
    parts = [(account, minor) for account, minor in given if minor]
    return (
        *move(order.currency, order.amount_minor, CLEARING, POSITION),
        Posting(
            account=POSITION,
            currency=currency,
            amount_minor=-sum(minor for _, minor in parts),
        ),
        *(
            Posting(account=account, currency=currency, amount_minor=minor)
            for account, minor in parts
        ),
    )
