"""Every type of order, disturbed before each of its messages: whatever happens, the books are right.

An order is cancelled, runs out of time, loses an account or is heard again between any two messages;
the rail says yes, no, or no and then yes.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from domain import exchange
from domain.account import Account, CloseAccount, LegState
from domain.currency import RateSource, SetRates
from domain.holds import PlaceHold, VoidHold
from domain.payment_rail import RailOutcome
from domain.prices import PRICED, Price, SetPriceList
from domain.reconciliation import PaymentBooked
from domain.saga import (
    PaymentRequested,
    Rail,
    Terms,
    TransactionCompleted,
    TransactionType,
    debited_minor,
)
from domain.transaction import CancelTransaction, CreateTransaction
from tests.domain.scenario import (
    FINAL,
    IBAN,
    Scenario,
    deposit,
    method,
    opening,
    pay_in,
    refund,
    transfer,
    withdrawal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

YES, NO = RailOutcome.APPROVED, RailOutcome.DECLINED
FEE_MINOR = 30
ANSWERS = {"yes": (YES,), "no": (NO,), "no, then yes": (NO, YES), "nothing, then yes": ()}
HOLD = PlaceHold(
    hold_id="ada.h1",
    account_id="ada",
    owner_id="u-ada",
    amount_minor=1_500,
    currency="USD",
    destination_account_id="bob",
    expires_s=3600,
    description="",
    reference="",
    actor_id="u-ada",
    request_hash="h",
)


def undoing(original_id: str, kind: TransactionType, fee_minor: int = 0) -> CreateTransaction:
    return transfer(
        900,
        transaction_id="x",
        type=kind,
        source_account_id="bob",
        destination_account_id="ada",
        owner_id="u-bob",
        terms=Terms(original_transaction_id=original_id, fee_minor=fee_minor),
    )


def capture(destination_account_id: str | None, hold_id: str) -> CreateTransaction:
    return transfer(
        700,
        transaction_id="x",
        type=TransactionType.CAPTURE,
        destination_account_id=destination_account_id,
        terms=Terms(hold_id=hold_id),
    )


ORDERS: dict[str, CreateTransaction] = {
    "transfer": transfer(900, transaction_id="x"),
    "transfer by the rail": transfer(900, transaction_id="x", rail=Rail.EXTERNAL),
    "withdrawal": withdrawal(900, transaction_id="x"),
    "payout": withdrawal(900, transaction_id="x", terms=Terms(payment_method_id="u-ada.iban")),
    "deposit": deposit("bob", 900, transaction_id="x", privileged=False),
    "charge": pay_in(900, transaction_id="x"),
    "refund of a charge": refund(400, "x", privileged=False),
    "reversal": undoing("paid", TransactionType.REVERSAL, -FEE_MINOR),
    "refund": undoing("paid", TransactionType.REFUND),
    "reversal of a withdrawal": replace(
        undoing("out", TransactionType.REVERSAL, -FEE_MINOR),
        source_account_id=None,
        owner_id="u-ada",
    ),
    "reversal of a deposit": replace(
        undoing("in", TransactionType.REVERSAL), destination_account_id=None
    ),
    "exchange": transfer(
        900,
        transaction_id="x",
        type=TransactionType.EXCHANGE,
        terms=Terms(destination_currency="JPY"),
    ),
    "exchange on one account": transfer(
        900,
        transaction_id="x",
        type=TransactionType.EXCHANGE,
        destination_account_id="ada",
        terms=Terms(destination_currency="JPY"),
    ),
    "capture": capture("bob", "ada.h1"),
    "capture to outside": capture(None, "ada.h2"),
}


def town() -> Scenario:
    """Ada and Bob hold dollars and yen, a card, an IBAN, holds; all orders cost 30 cents."""
    said = Scenario()
    for name in ("ada", "bob"):
        said.send(opening(name, f"u-{name}", currencies=("USD", "JPY")), "account").run()
        said.send(deposit(name, 20_000)).run()
    said.send(method(), "payment").send(method("u-ada.iban", **IBAN), "payment").run()
    rates = SetRates(
        base="EUR",
        rates={"USD": "1.25", "JPY": "160"},
        source=RateSource.OPERATOR,
        as_of_ms=None,
        max_age_s=86_400,
        spread_ppm=10_000,
        actor_id="ops",
        request_id="r1",
    )
    prices = tuple(
        Price(type=kind, currency="USD", flat_minor=FEE_MINOR, rate_ppm=0) for kind in PRICED
    )
    said.send(rates, "currency").send(SetPriceList(prices=prices, actor_id="ops")).run()
    out = replace(HOLD, hold_id="ada.h2", destination_account_id=None, request_hash="h2")
    said.send(HOLD, "account").send(out, "account").run()
    given = transfer(900, transaction_id="paid", type=TransactionType.PAYMENT, request_hash="p")
    for order in (
        pay_in(700),
        given,
        withdrawal(900, transaction_id="out"),
        deposit("bob", 900, transaction_id="in"),
    ):
        said.send(order).run()
    assert all(isinstance(end, TransactionCompleted) for end in said.said if isinstance(end, FINAL))
    return said


TOWN = town()


def cancel(it: Scenario) -> None:
    it.send(CancelTransaction(transaction_id="x", actor_id="u-ada"))


def lose_time(it: Scenario) -> None:
    it.now_ms += 31_000


def close(it: Scenario) -> None:
    for name in ("ada", "bob"):
        it.send(CloseAccount(account_id=name, actor_id="ops"), "account")


def hear_again(it: Scenario) -> None:
    """The next message comes once more behind all others, and once more after the end."""
    if it.queue:
        it.queue.append(it.queue[0])


def cancel_first(it: Scenario) -> None:
    cancel(it)
    it.queue.rotate(1)


def freeze(name: str) -> Callable[[Scenario], None]:
    def frozen(it: Scenario) -> None:
        it.freeze(name)
        it.queue.rotate(1)

    return frozen


def void(it: Scenario) -> None:
    for hold_id in ("ada.h1", "ada.h2"):
        it.send(VoidHold(hold_id=hold_id, account_id="ada", actor_id="u-ada"), "account")


DISTURBANCES: dict[str, Callable[[Scenario], None]] = {
    "cancelled": cancel,
    "cancelled first": cancel_first,
    "too late": lose_time,
    "source frozen": freeze("ada"),
    "destination frozen": freeze("bob"),
    "closing": close,
    "heard again": hear_again,
    "let go": void,
}


def start() -> Scenario:
    it = copy.copy(TOWN)
    it.queue = copy.copy(TOWN.queue)
    it.rows = {service: dict(rows) for service, rows in TOWN.rows.items()}
    it.said, it.asked, it.handled = list(TOWN.said), list(TOWN.asked), []
    it.events = {service: list(events) for service, events in TOWN.events.items()}
    return it


def came_in(it: Scenario) -> int:
    """What came into the bank, less what left it: by the rail as the provider says, else by the book.

    What the rail moves from account to account does neither.
    """
    within = {
        event.order.transaction_id
        for event in it.said
        if isinstance(event, PaymentRequested)
        and event.order.source_account_id
        and event.order.destination_account_id
    }
    net_minor = 0
    for event in it.said:
        if isinstance(event, PaymentBooked):
            net_minor += event.amount_minor * (event.payment_id not in within)
        elif isinstance(event, TransactionCompleted) and event.order.rail is Rail.BOOK:
            order = event.order
            net_minor += order.amount_minor * (order.source_account_id is None)
            net_minor -= order.amount_minor * (order.destination_account_id is None)
    return net_minor


def check(it: Scenario) -> None:
    it.check()
    wanted: Counter[tuple[str | None, str]] = Counter()
    reserved: Counter[tuple[str, str]] = Counter()
    for event in it.said:
        if isinstance(event, TransactionCompleted):
            order = event.order
            wanted[order.source_account_id, order.currency] -= debited_minor(order)
            currency, amount_minor = exchange.credited(order)
            wanted[order.destination_account_id, currency] += amount_minor
            if not order.privileged:
                reserved[order.owner_id, order.currency] += debited_minor(order)
    for row in it.rows["account"].values():
        if isinstance(row, Account):
            for currency, minor in row.balances.items():
                assert minor == wanted[row.account_id, currency], row
            assert row.open_legs == 0
        assert getattr(row, "state", None) not in (LegState.DEBITED, LegState.SUSPENDED), row
    for key, row in it.rows["risk"].items():
        if key.startswith("owner/"):
            for day, minor in row.reserved.items():
                assert minor == reserved[row.user_id, day.partition("/")[2]], row
    assert it.rows["account"]["ledger/world/USD"].balance_minor == -came_in(it)
    charged = it.rows["payment"]["payment/t1"]
    assert charged.refunding_minor == 0
    assert 0 <= charged.refunded_minor <= charged.captured_minor


@pytest.mark.parametrize("said", ANSWERS)
@pytest.mark.parametrize("order", ORDERS)
def test_disturbed_before_each_message_it_ends_once_and_the_books_are_right(
    order: str, said: str
) -> None:
    for name, disturb in DISTURBANCES.items():
        for step in range(30):
            it = start()
            asked_before = len(it.asked)
            it.rail = lambda _, it=it, n=asked_before: (  # type: ignore[misc]
                ANSWERS[said] or (YES,) * (len(it.asked) > n + 1)
            )
            it.send(ORDERS[order])
            for _ in range(step):
                if it.queue:
                    it.deliver()
            over = not it.queue
            disturb(it)
            it.run()
            for _ in range(3):
                it.wait(3_600 * 2)
            try:
                it.final("x")
                check(it)
            except AssertionError as error:
                pytest.fail(f"{name} before message {step}: {error}")
            if over:
                break
