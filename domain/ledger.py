"""The ledger: double entry, and the bank's own accounts.

Every event that moves money carries its postings; per event and currency they sum to zero. A debit
and its credit lie in different partitions, so the debit posts to `clearing` and the credit takes it
from there: the sum of clearing over all partitions is exactly what is in flight, and zero when
nothing is.

An account's balance has a limit, a system account's has none: nobody could be refused for what the
world owes the bank, least of all a credit whose debit is done. So a row counts beyond 64 bits: what
does not fit `balance_minor` goes on in `carried`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain.money import CARRY_MINOR, LONG_MAX
from domain.saga import Posting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from domain.decider import Changes, RowKey, Rows
    from domain.saga import Balance

CLEARING = "clearing"  # left a source, not yet at its destination
WORLD = "world"  # what is outside the bank
FEES = "fees"
POSITION = "position"  # the bank's own currency position
ROUNDING = "rounding"  # what an exchange leaves below a minor unit
SUSPENSE = "suspense"  # a person must find out where it belongs
CUSTOMERS = "customers"  # in a trial balance: all accounts that are not the bank's own
WRITTEN_OFF = "written_off"  # what a person gave up: above zero the bank keeps it, below it lost it
SYSTEM_ACCOUNTS = frozenset({CLEARING, WORLD, FEES, POSITION, ROUNDING, SUSPENSE, WRITTEN_OFF})


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemBalance:
    """Row `ledger/<system account>/<currency>`: this partition's share, never read to decide."""

    account: str
    currency: str
    balance_minor: int
    postings: int  # how many made it
    carried: int = 0  # times CARRY_MINOR, beside `balance_minor`: 0 while that holds all

    @property
    def total_minor(self) -> int:
        """All of it, minor units."""
        return self.carried * CARRY_MINOR + self.balance_minor


def balances_of(event: Any) -> Sequence[Balance]:
    """Of the accounts that a fact moves; one of system accounts alone has none."""
    found: Sequence[Balance] = getattr(event, "balances", ())
    return found


def move(currency: str, amount_minor: int, source: str, destination: str) -> tuple[Posting, ...]:
    """The entry that takes an amount from one account to another."""
    return (
        Posting(account=source, currency=currency, amount_minor=-amount_minor),
        Posting(account=destination, currency=currency, amount_minor=amount_minor),
    )


def sums(postings: Iterable[Posting]) -> Mapping[str, int]:
    """What the postings add up to by currency: zero each, or the books are wrong."""
    totals: defaultdict[str, int] = defaultdict(int)
    for posting in postings:
        totals[posting.currency] += posting.amount_minor
    return totals


def system_key(account: str, currency: str) -> RowKey:
    return f"ledger/{account}/{currency}"


def system_keys(postings: Iterable[Posting]) -> tuple[RowKey, ...]:
    """The rows that `post_system` reads."""
    return tuple(
        [system_key(p.account, p.currency) for p in postings if p.account in SYSTEM_ACCOUNTS]
    )


def post_system(rows: Rows, postings: Sequence[Posting]) -> Changes:
    """Post to the system accounts of this partition. Postings that do not sum to zero are a bug."""
    assert _is_balanced(postings), f"postings do not sum to zero: {postings}"
    changes: dict[RowKey, SystemBalance] = {}
    for posting in postings:
        if posting.account in SYSTEM_ACCOUNTS:
            key = system_key(posting.account, posting.currency)
            changes[key] = _posted(changes.get(key) or rows.get(key), posting)
    return changes


def _is_balanced(postings: Sequence[Posting]) -> bool:
    if len(postings) == 2:  # almost all are
        out, into = postings
        return out.currency == into.currency and out.amount_minor + into.amount_minor == 0
    return not any(sums(postings).values())


def _posted(row: SystemBalance | None, posting: Posting) -> SystemBalance:
    balance_minor = (row.balance_minor if row else 0) + posting.amount_minor
    carried = row.carried if row else 0
    if not -LONG_MAX <= balance_minor <= LONG_MAX:
        more, balance_minor = divmod(balance_minor, CARRY_MINOR)
        carried += more
    return SystemBalance(
        account=posting.account,
        currency=posting.currency,
        balance_minor=balance_minor,
        postings=(row.postings if row else 0) + 1,
        carried=carried,
    )


def trial_balance(rows: Iterable[Any]) -> dict[tuple[str, str], int]:
    """Minor units by (system account or `customers`, currency) over rows of all partitions.

    Rows other than accounts and system balances are passed over. Per currency it sums to zero.
    """
    totals: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        if isinstance(row, SystemBalance):
            totals[row.account, row.currency] += row.total_minor
        else:
            for currency, balance_minor in getattr(row, "balances", {}).items():
                totals[CUSTOMERS, currency] += balance_minor
    return dict(totals)
