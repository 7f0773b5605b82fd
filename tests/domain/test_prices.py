"""The price list, what orders cost by it, and that fees are posted, put back and given back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.prices import (
    FREE,
    Price,
    PriceListApplied,
    PriceListRefused,
    PriceListSet,
    SetPriceList,
    fee_minor,
)
from domain.risk import DecideReview
from domain.risk_config import DEFAULT
from domain.saga import (
    AccountCredited,
    AccountDebited,
    Reason,
    Terms,
    TransactionCompleted,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import TRANSACTION
from stores.catalog import entries
from tests.domain.scenario import Scenario, bank, deposit, opening, transfer, withdrawal
from tests.domain.stories import NOON_MS, then
from tests.domain.test_reversals import refund, undoing

PRICE = Price(type=TransactionType.TRANSFER, currency="USD", flat_minor=25, rate_ppm=1_000)


def prices(*listed: Price) -> SetPriceList:
    return SetPriceList(prices=listed, actor_id="ops")


@pytest.mark.parametrize(
    ("price", "amount_minor", "fee"),
    [
        (PRICE, 2_000, 27),
        (PRICE, 500, 25),  # a half, to even
        (PRICE, 1_500, 27),  # a half, to even
        (PRICE, 1_501, 27),
        (replace(PRICE, flat_minor=0), 499, 0),
        (replace(PRICE, minimum_minor=100), 2_000, 100),
        (replace(PRICE, maximum_minor=26), 2_000, 26),
        (replace(PRICE, flat_minor=0, rate_ppm=1_000_000), 10**15, 10**15),
    ],
)
def test_what_an_amount_costs(price: Price, amount_minor: int, fee: int) -> None:
    assert fee_minor(price, amount_minor) == fee


@given(st.integers(1, 10**15), st.integers(0, 10**6), st.integers(0, 500), st.integers(500, 10**6))
def test_a_fee_stays_within_its_bounds(amount: int, ppm: int, least: int, most: int) -> None:
    price = replace(PRICE, rate_ppm=ppm, minimum_minor=least, maximum_minor=most)
    assert least <= fee_minor(price, amount) <= most
    free = replace(PRICE, flat_minor=0, rate_ppm=ppm)
    assert abs(fee_minor(free, amount) * 10**6 - amount * ppm) <= 500_000


def test_a_list_is_set_whole_counted_and_heard_by_each_partition() -> None:
    (first,) = then(TRANSACTION, [], prices(PRICE))
    assert isinstance(first, PriceListSet)
    assert first.version == 1
    (applied,) = then(TRANSACTION, [], first)
    assert isinstance(applied, PriceListApplied)
    assert then(TRANSACTION, [first], first) == then(TRANSACTION, [applied], first) == []
    assert then(TRANSACTION, [first], prices(PRICE)) == [], "the same list is no new version"
    (second,) = then(TRANSACTION, [first], prices())
    assert (second.version, second.prices) == (2, ())
    assert then(TRANSACTION, [second], first) == [], "an older list changes nothing"


@pytest.mark.parametrize(
    "changes",
    [
        {"currency": "usd"},
        {"flat_minor": -1},
        {"rate_ppm": -1},
        {"rate_ppm": 1_000_001},
        {"minimum_minor": -1},
        {"minimum_minor": 2, "maximum_minor": 1},
        {"maximum_minor": 10**15 + 1},
        *({"type": kind} for kind in sorted(FREE)),
    ],
)
def test_a_list_that_makes_no_sense_changes_nothing(changes: dict[str, Any]) -> None:
    (said,) = then(TRANSACTION, [], prices(replace(PRICE, **changes)))
    assert said == PriceListRefused(reason=Reason.INVALID_COMMAND, at_ms=NOON_MS)


def test_a_price_that_stands_twice_makes_no_sense() -> None:
    (said,) = then(TRANSACTION, [], prices(PRICE, replace(PRICE, flat_minor=1)))
    assert isinstance(said, PriceListRefused)


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def town(request: pytest.FixtureRequest) -> Scenario:
    """Ada has $500.00, Bob $100.00; a transfer costs 25 cents and a thousandth, a withdrawal $1."""
    town = bank(request.param)
    cash = Price(type=TransactionType.WITHDRAWAL, currency="USD", flat_minor=100, rate_ppm=0)
    town.send(prices(PRICE, cash, replace(PRICE, type=TransactionType.PAYMENT))).run()
    return town


def fees(town: Scenario) -> int:
    row = town.rows["account"].get("ledger/fees/USD")
    return row.balance_minor if row else 0


def test_a_plain_transfer_has_no_terms_and_costs_nothing() -> None:
    town = bank()
    town.send(transfer(2_000)).run()
    assert town.final().order.terms is None
    town.send(prices(replace(PRICE, currency="EUR"))).run()
    town.send(transfer(2_000, transaction_id="t2")).run()
    assert town.final("t2").order.terms is None
    assert fees(town) == 0


def test_a_fee_is_debited_beside_the_amount_and_posted(town: Scenario) -> None:
    town.send(transfer(2_000)).run()
    town.check()
    final = town.final()
    assert isinstance(final, TransactionCompleted)
    assert final.order.terms == Terms(fee_minor=27)
    assert town.balances() == {"ada": 47_973, "bob": 12_000}
    assert fees(town) == 27
    moved = [(b.account_id, b.before_minor, b.after_minor) for b in final.balances]
    assert moved == [("ada", 50_000, 47_973), ("bob", 10_000, 12_000)]
    (debit,) = [event for event in town.said if isinstance(event, AccountDebited)]
    assert [(p.account, p.amount_minor) for p in debit.postings] == [
        ("ada", -2_000),
        ("clearing", 2_000),
        ("ada", -27),
        ("fees", 27),
    ]


def test_amount_and_fee_are_two_entries_of_the_account(town: Scenario) -> None:
    town.send(transfer(2_000)).run()
    (debit,) = [event for event in town.said if isinstance(event, AccountDebited)]
    found = [(entry.amount_minor, entry.balance_minor) for entry in entries("e", debit)]
    assert found == [(-2_000, 48_000), (2_000, None), (-27, 47_973), (27, None)]


def test_what_it_costs_is_fixed_when_it_is_created(town: Scenario) -> None:
    town.send(transfer(2_000)).run(until=type(then(TRANSACTION, [], transfer(1))[0]))
    on_its_way = town.queue.copy()
    town.queue.clear()
    town.send(prices()).run()
    town.queue.extend(on_its_way)
    town.run().check()
    assert town.balances() == {"ada": 47_973, "bob": 12_000}


def test_a_withdrawal_costs_too_and_the_fee_stays_when_it_settles(town: Scenario) -> None:
    town.send(withdrawal(700)).run()
    town.check()
    assert town.balances() == {"ada": 49_200, "bob": 10_000}
    assert fees(town) == 100


def test_a_fee_is_put_back_with_the_amount(town: Scenario) -> None:
    town.freeze("bob").run()
    town.send(transfer(2_000)).run()
    town.check()
    assert isinstance(town.final(), TransactionFailed)
    assert town.balances() == {"ada": 50_000, "bob": 10_000}
    assert fees(town) == 0
    (balance,) = town.final().balances
    assert (balance.before_minor, balance.after_minor) == (47_973, 50_000)


def test_a_balance_must_cover_amount_and_fee(town: Scenario) -> None:
    town.send(transfer(49_926)).run()  # costs 75
    assert town.final().reason is Reason.INSUFFICIENT_FUNDS
    town.send(transfer(49_925, transaction_id="t2")).run()
    assert town.balances()["ada"] == 0


def test_an_overdraft_must_cover_amount_and_fee(town: Scenario) -> None:
    town.send(opening("eve", "u-eve", overdraft_limits={"USD": 527}), "account").run()
    order = transfer(501, source_account_id="eve", owner_id="u-eve")
    town.send(order).run()
    assert town.balances()["eve"] == -527
    town.send(transfer(1, transaction_id="t2", source_account_id="eve", owner_id="u-eve")).run()
    assert town.final("t2").reason is Reason.INSUFFICIENT_FUNDS


def test_the_daily_limit_sees_amount_and_fee(town: Scenario) -> None:
    town.send(deposit("ada", 200_000, transaction_id="more")).run()
    for n, amount_minor in enumerate((50_000, 49_850)):  # these cost 75 each
        town.send(transfer(amount_minor, transaction_id=f"t{n}")).run()
    (reserved,) = town.rows["risk"]["owner/u-ada"].reserved.values()
    assert reserved == DEFAULT.levels[0].day_minor
    town.send(transfer(1, transaction_id="t9")).run()
    assert town.final("t9").reason is Reason.DAILY_LIMIT
    town.check()


def test_a_reversal_gives_the_fee_back_and_a_refund_keeps_it(town: Scenario) -> None:
    town.send(transfer(2_000)).run()
    terms = Terms(original_transaction_id="t1", fee_minor=-27)
    town.send(undoing(transfer(2_000), terms=terms)).run()
    town.check()
    assert town.balances() == {"ada": 50_000, "bob": 10_000}
    assert fees(town) == 0
    credit = [event for event in town.said if isinstance(event, AccountCredited)][-1]
    assert (credit.balances[-1].before_minor, credit.balances[-1].after_minor) == (47_973, 50_000)
    paid = transfer(2_000, transaction_id="t2", type=TransactionType.PAYMENT)
    town.send(paid).run()
    town.send(refund(paid)).run()
    town.check()
    assert town.balances() == {"ada": 49_973, "bob": 10_000}
    assert fees(town) == 27


def test_a_deposit_is_booked_whole(town: Scenario) -> None:
    town.send(deposit("bob", 500, transaction_id="t1")).run()
    assert town.final().order.terms is None
    assert town.balances()["bob"] == 10_500


def test_a_fee_waits_out_a_review(town: Scenario) -> None:
    town.send(deposit("ada", 100_000, transaction_id="more")).run()
    town.send(transfer(90_000)).run()
    word = DecideReview(review_id="u-ada.t1", approve=True, deadline_s=30, actor_id="eve", note="")
    town.send(word, "risk").run()
    town.check()
    assert fees(town) == 115
