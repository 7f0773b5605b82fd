"""System accounts have no limit: what 64 bits do not hold is carried, and their partition goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from domain.account import Account
from domain.ledger import (
    FEES,
    WORLD,
    SystemBalance,
    move,
    post_system,
    system_key,
    trial_balance,
)
from domain.money import AMOUNT_LIMIT_MINOR, BALANCE_LIMIT_MINOR, LONG_MAX
from domain.saga import Order, Rail, RiskApproved, TransactionType
from schemas.codec import Codec
from streaming import partition_of
from tests.agents.memory import PARTITIONS, START_MS, Bank, open_account, order

if TYPE_CHECKING:
    from collections.abc import Iterator

CODEC = Codec()
DEPOSITS = 9_300  # of AMOUNT_LIMIT_MINOR: more than 64 bits hold


def neighbours() -> Iterator[str]:
    """Accounts of one partition."""
    for n in range(1_000):
        account_id = f"A-{n}"
        if partition_of(account_id.encode(), PARTITIONS) == 0:
            yield account_id


def approved(n: int, account_id: str) -> RiskApproved:
    deposit = Order(
        transaction_id=f"D{n}",
        type=TransactionType.DEPOSIT,
        amount_minor=AMOUNT_LIMIT_MINOR,
        currency="USD",
        source_account_id=None,
        destination_account_id=account_id,
        owner_id="U-ann",
        actor_id="U-ops",
        privileged=True,
        rail=Rail.BOOK,
        created_ms=START_MS,
        deadline_ms=START_MS * 2,
    )
    return RiskApproved(order=deposit, score=0, at_ms=START_MS, steps=())


def test_more_deposits_than_64_bits_hold_and_the_partition_goes_on() -> None:
    bank, accounts = Bank(), neighbours()
    each = BALANCE_LIMIT_MINOR // AMOUNT_LIMIT_MINOR
    for n in range(DEPOSITS):
        if n % each == 0:
            account_id = next(accounts)
            bank.command("account", account_id, open_account(account_id))
        value = bank.codec.encode(approved(n, account_id))
        bank.write("account.inbox", account_id.encode(), value, {"ce_source": b"/risk"})
    bank.run()
    rows = bank.rows["account", 0]
    world = rows[system_key(WORLD, "USD")]
    assert world.total_minor == -DEPOSITS * AMOUNT_LIMIT_MINOR < -LONG_MAX
    assert world.postings == DEPOSITS
    for row in rows.values():  # what its changelog holds
        assert bank.codec.decode(bank.codec.encode(row)) == row
    ours = sum(row.balances["USD"] for row in rows.values() if isinstance(row, Account))
    assert ours == DEPOSITS * AMOUNT_LIMIT_MINOR
    out = order("T-out", account_id, None, 50, kind=TransactionType.WITHDRAWAL)
    bank.command("transaction", "T-out", out)
    bank.command("transaction", "T-in", order("T-in", account_id, "A-0", 70))
    bank.run()
    every = [
        row for place in bank.rows if place[0] == "account" for row in bank.rows[place].values()
    ]
    assert sum(trial_balance(every).values()) == 0
    assert bank.differences(decide=True) == []


@given(
    amounts=st.lists(
        st.sampled_from([10**18, -(10**18), LONG_MAX // 2, -LONG_MAX // 2, 1, -1]), max_size=60
    )
)
def test_whatever_is_posted_a_row_fits_64_bits_and_is_the_sum(amounts: list[int]) -> None:
    rows: dict[str, SystemBalance] = {}
    for amount_minor in amounts:
        rows.update(post_system(rows, move("USD", amount_minor, WORLD, FEES)))
        for row in rows.values():
            assert CODEC.decode(CODEC.encode(row)) == row
        assert (
            rows[system_key(FEES, "USD")].total_minor == -rows[system_key(WORLD, "USD")].total_minor
        )
    fees = rows.get(system_key(FEES, "USD"))
    assert (fees.total_minor if fees else 0) == sum(amounts)
