"""Amounts as people and files write them, into minor units and never through a float."""

from __future__ import annotations

import re

from iso4217 import Currency

DECIMAL = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,5})?", re.ASCII)
LIMIT_MINOR = 10**18  # it fits 64 bits
EXPONENTS: dict[str, int] = {one.code: one.exponent for one in Currency if one.exponent is not None}


def minor_of(text: str, currency: str) -> int:
    """10.50, EUR → 1050. Raises ValueError for what is no amount of this currency."""
    exponent = EXPONENTS.get(currency)
    if exponent is None:
        raise ValueError(f"{currency[:10]!r} is no ISO 4217 currency")
    if not DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:30]!r} is no decimal amount")
    whole, _, rest = text.lstrip("+-").partition(".")
    if len(rest.rstrip("0")) > exponent:
        raise ValueError(f"{text[:30]!r} has more decimals than {currency}")
    minor: int = int(whole) * 10**exponent + int(rest[:exponent].ljust(exponent, "0") or "0")
    if minor > LIMIT_MINOR:
        raise ValueError(f"{text} {currency} is more than can be booked")
    return -minor if text.startswith("-") else minor


def decimal_of(amount_minor: int, currency: str) -> str:
    """1050, EUR → 10.50, of an amount that is not below zero."""
    exponent = EXPONENTS[currency]
    whole, rest = divmod(amount_minor, 10**exponent)
    return f"{whole}.{rest:0{exponent}d}" if exponent else str(whole)
