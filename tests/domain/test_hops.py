"""What each way of a transaction costs, counted, and that docs/saga.md says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from domain.currency import RateSource, SetRates
from domain.payment_rail import RailOutcome
from domain.reconciliation import PaymentBooked
from domain.saga import Rail, Terms, TransactionCreated, TransactionType
from tests.domain.scenario import (
    FINAL,
    IBAN,
    Scenario,
    bank,
    deposit,
    method,
    opening,
    pay_in,
    refund,
    transfer,
    withdrawal,
)
from tests.domain.test_reversals import undoing

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.transaction import CreateTransaction

PAGE = Path(__file__).parents[2] / "docs" / "saga.md"


def book(town: Scenario) -> None:
    town.send(transfer(5))


def rail(town: Scenario) -> None:
    town.send(transfer(5, rail=Rail.EXTERNAL))


def paid_in(town: Scenario) -> None:
    town.send(deposit("bob", 5, transaction_id="t1"))


def paid_out(town: Scenario) -> None:
    town.send(withdrawal(5))


def exchanged(town: Scenario) -> None:
    rates = SetRates(
        base="EUR",
        rates={"USD": "1.1"},
        source=RateSource.OPERATOR,
        as_of_ms=None,
        max_age_s=60,
        spread_ppm=0,
        actor_id="ops",
        request_id="r1",
    )
    town.send(opening("eva", "u-eva", currencies=("EUR",)), "account")
    town.send(rates, "currency").run()
    town.handled.clear()
    without_a_rate(town)


def without_a_rate(town: Scenario) -> None:
    terms, kind = Terms(destination_currency="EUR"), TransactionType.EXCHANGE
    town.send(transfer(500, type=kind, destination_account_id="eva", terms=terms))


def declined(town: Scenario) -> None:
    town.send(transfer(200_000))


def no_funds(town: Scenario) -> None:
    town.send(transfer(50_001))


def frozen_recipient(town: Scenario) -> None:
    town.freeze("bob").run()
    town.handled.clear()
    book(town)


def rail_says_no(town: Scenario) -> None:
    town.rail = lambda _: [RailOutcome.DECLINED]
    paid_out(town)


def refunded(town: Scenario) -> None:
    town.freeze("bob").run()
    town.handled.clear()
    rail(town)


def cancelled(town: Scenario) -> None:
    book(town)
    town.run(until=TransactionCreated)
    town.cancel()
    town.queue.rotate(1)


def undone(town: Scenario, original: CreateTransaction, **changes: Any) -> None:
    town.send(original).run()
    town.handled.clear()
    town.send(undoing(original, transaction_id="t1", **changes))


def reversed_(town: Scenario) -> None:
    undone(town, transfer(5, transaction_id="t0"))


def reversed_deposit(town: Scenario) -> None:
    undone(town, deposit("bob", 5, transaction_id="t0"))


def not_granted(town: Scenario) -> None:
    undone(town, transfer(5, transaction_id="t0"), amount_minor=6)


def charged(town: Scenario) -> None:
    town.send(method(), "payment").run()
    town.handled.clear()
    town.send(pay_in(5))


def charge_declined(town: Scenario) -> None:
    town.rail = lambda _: [RailOutcome.DECLINED]
    charged(town)


def charge_undone(town: Scenario) -> None:
    town.freeze("bob").run()
    charged(town)


def refunded_by_order(town: Scenario) -> None:
    town.send(method(), "payment").run()
    town.send(pay_in(5, transaction_id="t0")).run()
    town.handled.clear()
    town.send(refund(5, "t1", terms=Terms(original_transaction_id="t0")))


def paid_to_iban(town: Scenario) -> None:
    town.send(method("u-ada.iban", **IBAN), "payment").run()
    town.handled.clear()
    town.send(withdrawal(5, terms=Terms(payment_method_id="u-ada.iban")))


PATHS: dict[str, Callable[[Scenario], None]] = {
    "transfer, book": book,
    "transfer, rail": rail,
    "deposit": paid_in,
    "withdrawal": paid_out,
    "exchange": exchanged,
    "exchange: no rate": without_a_rate,
    "declined by risk": declined,
    "debit refused": no_funds,
    "transfer, book: credit refused": frozen_recipient,
    "withdrawal: rail declines": rail_says_no,
    "transfer, rail: credit refused, refunded": refunded,
    "cancelled before the debit": cancelled,
    "reversal, refund": reversed_,
    "reversal of a deposit": reversed_deposit,
    "reversal, not granted": not_granted,
    "charge": charged,
    "charge: the card is declined": charge_declined,
    "charge: credit refused, refunded": charge_undone,
    "refund of a charge": refunded_by_order,
    "withdrawal to an IBAN": paid_to_iban,
}


def counted(path: str) -> tuple[int, int]:
    """Messages handled until the transaction's end is said, and in all; what is relayed left out."""
    town = bank()
    PATHS[path](town)
    until = 0
    while town.queue:
        town.deliver()
        if not until and any(
            isinstance(e, FINAL) and e.order.transaction_id == "t1" for e in town.said
        ):
            until = saga_messages(town)
    return until, saga_messages(town)


def saga_messages(town: Scenario) -> int:
    beside = ("notification", PaymentBooked)
    return sum(1 for service, kind in town.handled if not {service, kind} & {*beside})


@pytest.mark.parametrize("path", PATHS)
def test_the_page_tells_what_a_path_costs(path: str) -> None:
    until, in_all = counted(path)
    row = re.search(rf"^\| {re.escape(path)} \|.*\| (\d+) \| (\d+) \|$", PAGE.read_text(), re.M)
    assert row is not None, f"not in {PAGE.name}: {path}: {until}, {in_all}"
    assert (int(row[1]), int(row[2])) == (until, in_all)
