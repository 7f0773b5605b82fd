"""Conversion: exact ratios, one rounding, and what of an amount is whose."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.exchange import (
    Ratio,
    convert,
    credited,
    customer_rate,
    half_even,
    is_rate,
    postings,
    priced,
    ratio,
    written,
)
from domain.ledger import sums
from domain.money import EXPONENTS
from domain.saga import Posting, Terms, TransactionType
from tests.domain.stories import order

rates = st.decimals("0.000001", "999999", places=6, allow_nan=False).map(lambda rate: f"{rate:f}")
codes = st.sampled_from(("USD", "EUR", "JPY", "KWD", "CLF"))


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (1, 3, 0), (2, 3, 1), (0, 7, 0), (8, 4, 2)],
)
def test_half_goes_to_the_even_neighbour(numerator: int, denominator: int, rounded: int) -> None:
    assert half_even(numerator, denominator) == rounded


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9))
def test_rounding_is_that_of_decimal(numerator: int, denominator: int) -> None:
    assert half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("1.0845", True),
        ("0.0000000001", True),
        ("162", True),
        ("0", False),
        ("0.000", False),
        ("-1", False),
        ("01.5", False),
        (".5", False),
        ("1.", False),
        ("1e3", False),
        ("NaN", False),
        ("１", False),
        ("1" * 13, False),
        ("0." + "0" * 15 + "1", False),
        ("", False),
        ("1.5\n", False),
    ],
)
def test_what_a_rate_is(text: str, usable: bool) -> None:
    assert is_rate(text) is usable


@given(rates.filter(lambda text: Decimal(text) > 0))
def test_a_rate_that_is_written_is_the_one_that_was_read(text: str) -> None:
    assert Decimal(written(ratio(text))) == Decimal(text)


@given(st.integers(1, 10**27), st.integers(1, 10**27))
def test_a_rate_of_others_has_fifteen_significant_digits(one: int, other: int) -> None:
    text = written(Ratio(one, other))
    exact = Fraction(one, other)
    assert abs(Fraction(text) - exact) <= exact * Fraction(5, 10**15)
    assert "e" not in text.lower()
    assert not text.endswith(".")


@pytest.mark.parametrize(
    ("amount_minor", "rate", "source", "destination", "comes_to"),
    [
        (10_000, "0.9221", "USD", "EUR", 9_221),
        (10_000, "162.35", "EUR", "JPY", 16_235),  # 100.00 EUR
        (16_235, "0.0061595", "JPY", "EUR", 10_000),
        (1_000, "0.2834", "USD", "KWD", 2_834),  # 10.00 USD, 2.834 KWD
        (25, "0.1", "USD", "EUR", 2),  # 2.5 to the even 2
        (35, "0.1", "USD", "EUR", 4),
        (1, "0.001", "USD", "EUR", 0),
    ],
)
def test_amounts(
    amount_minor: int, rate: str, source: str, destination: str, comes_to: int
) -> None:
    assert convert(amount_minor, ratio(rate), source, destination) == comes_to


@given(st.integers(1, 10**15), rates.filter(lambda text: Decimal(text) > 0), codes, codes)
def test_an_amount_is_that_of_decimal(amount: int, rate: str, source: str, to: str) -> None:
    value = Decimal(amount).scaleb(-EXPONENTS[source]) * Decimal(rate)
    wanted = value.scaleb(EXPONENTS[to]).quantize(Decimal(1), ROUND_HALF_EVEN)
    if abs(wanted) < 10**26:  # what decimal's context holds exactly
        assert convert(amount, ratio(rate), source, to) == int(wanted)


def test_a_customer_s_rate_is_below_the_market_s() -> None:
    assert customer_rate("1.0845", 5_000) == "1.0790775"
    assert customer_rate("1.0845", 0) == "1.0845"


def test_what_of_an_amount_is_whose() -> None:
    found = priced(10_050, "0.9221", 5_000, "USD", "EUR")
    assert (found.rate, found.amount_minor) == ("0.9174895", 9_221)  # 9,220.77
    assert (found.spread_minor, found.rounding_minor) == (46, 0)  # 46.34, of 9,267.1
    found = priced(
        99, "0.9221", 5_000, "USD", "EUR"
    )  # 91.29 at the market's, 90.83 for the customer
    assert (found.amount_minor, found.spread_minor, found.rounding_minor) == (91, 0, 0)
    found = priced(150, "1.01", 10_000, "USD", "EUR")  # 151.5: 149.985 + 1.515
    assert (found.amount_minor, found.spread_minor, found.rounding_minor) == (150, 2, 0)


def exchanged(amount_minor: int, mid: str, spread_ppm: int, source: str, to: str) -> object:
    found = priced(amount_minor, mid, spread_ppm, source, to)
    terms = Terms(
        destination_currency=to,
        destination_amount_minor=found.amount_minor,
        rate=found.rate,
        spread_minor=found.spread_minor,
        rounding_minor=found.rounding_minor,
    )
    kind = TransactionType.EXCHANGE
    return order(type=kind, amount_minor=amount_minor, currency=source, terms=terms)


@given(
    st.integers(1, 10**15),
    rates.filter(lambda text: Decimal(text) > 0),
    st.integers(0, 999_999),
    codes,
    codes,
)
def test_each_currency_sums_to_zero_and_little_is_rounded(
    amount: int, mid: str, spread_ppm: int, source: str, to: str
) -> None:
    it = exchanged(amount, mid, spread_ppm, source, to)
    made = postings(it)  # type: ignore[arg-type]
    assert not any(sums(made).values())
    assert all(posting.amount_minor for posting in made if posting.account != "position")
    assert it.terms.spread_minor >= 0  # type: ignore[attr-defined]
    net = convert(amount, ratio(mid), source, to) - it.terms.spread_minor  # type: ignore[attr-defined]
    assert credited(it) == (to, net - it.terms.rounding_minor)  # type: ignore[arg-type, attr-defined]


@given(st.integers(1, 10**12), st.integers(0, 50_000))
def test_rounding_is_of_single_minor_units(amount: int, spread_ppm: int) -> None:
    assert abs(priced(amount, "1.0845", spread_ppm, "EUR", "USD").rounding_minor) <= 1


def test_the_entries_of_an_exchange() -> None:
    assert postings(exchanged(10_050, "0.9221", 5_000, "USD", "EUR")) == (  # type: ignore[arg-type]
        Posting(account="clearing", currency="USD", amount_minor=-10_050),
        Posting(account="position", currency="USD", amount_minor=10_050),
        Posting(account="position", currency="EUR", amount_minor=-9_267),
        Posting(account="bob", currency="EUR", amount_minor=9_221),
        Posting(account="fees", currency="EUR", amount_minor=46),
    )


def test_any_other_order_gives_what_it_takes() -> None:
    assert credited(order()) == ("USD", 2_000)
