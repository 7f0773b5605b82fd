"""Money: integers in minor units of an ISO 4217 currency, and their limits.

`1050` in USD is $10.50, in JPY ¥1,050, in BHD 1.050 dinars: the exponent comes from the ISO table.
"""

from __future__ import annotations

from iso4217 import Currency

# precious metals, test codes and the like have no minor unit: nothing to count in
EXPONENTS: dict[str, int] = {
    currency.code: currency.exponent for currency in Currency if currency.exponent is not None
}

AMOUNT_LIMIT_MINOR = 10**15  # of a single amount
BALANCE_LIMIT_MINOR = 10**18  # of an account: no credit takes it above; a put-back may
PUT_BACK_LIMIT_MINOR = 9 * 10**18  # what a put-back would take above it waits in suspense
LONG_MAX = 2**63 - 1  # the most that 64 bits hold, which is Avro's long
CARRY_MINOR = 10**18  # of what a system account has beyond 64 bits: counted in so many at once


def is_currency(code: str) -> bool:
    """True for an ISO 4217 code, upper case, that has a minor unit."""
    return code in EXPONENTS


def is_amount(amount_minor: int) -> bool:
    """True for an amount that may be ordered: 1 … 10^15 minor units."""
    return 1 <= amount_minor <= AMOUNT_LIMIT_MINOR


def decimal(amount_minor: int, currency: str) -> str:
    """The amount as people write it, without grouping: 1050, USD → 10.50."""
    exponent = EXPONENTS[currency]
    sign = "-" if amount_minor < 0 else ""
    if not exponent:
        return f"{sign}{abs(amount_minor)}"
    whole, rest = divmod(abs(amount_minor), 10**exponent)
    return f"{sign}{whole}.{rest:0{exponent}d}"
