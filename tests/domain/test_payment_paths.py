"""Each way that a charge, a refund and a payout to an IBAN can go; each also with messages twice."""

from __future__ import annotations

import pytest

from domain.account import ReturnSuspended, UnfreezeAccount
from domain.payment_methods import MethodStatus, RemovePaymentMethod
from domain.payment_rail import NotifyPayment, ProviderNoticeRefused, RailOperation, RailOutcome
from domain.payment_refunds import refundable_minor
from domain.payment_rows import Payment, Refund, RefundStatus, Status
from domain.saga import (
    AccountDebited,
    PaymentProcessed,
    PaymentRequested,
    Reason,
    RefundReserved,
    RiskApproved,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
)
from domain.suspense import SuspensePaid
from tests.domain.scenario import (
    IBAN,
    Request,
    Scenario,
    bank,
    method,
    pay_in,
    refund,
    withdrawal,
)

DAY_S = 24 * 3600
SURE = RailOutcome.APPROVED


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def town(request: pytest.FixtureRequest) -> Scenario:
    """Ada has $500.00, Bob $100.00 and a card; each message is heard once, or twice."""
    town = bank(request.param).send(method(), "payment").run()
    town.handled.clear()
    return town


def payment(town: Scenario) -> Payment:
    row = town.rows["payment"]["payment/t1"]
    assert isinstance(row, Payment)
    return row


def refund_row(town: Scenario, refund_id: str = "r1") -> Refund:
    row = town.rows["payment"][f"refund/t1/{refund_id}"]
    assert isinstance(row, Refund)
    return row


def failed(town: Scenario, reason: Reason, transaction_id: str = "t1", bob: int = 10_000) -> None:
    town.run()
    town.check()
    final = town.final(transaction_id)
    assert isinstance(final, TransactionFailed)
    assert final.reason is reason
    assert town.balances() == {"ada": 50_000, "bob": bob}


def paid(town: Scenario, amount_minor: int = 2_000) -> Scenario:
    """Bob has paid in so much by card."""
    town.send(pay_in(amount_minor)).run()
    assert isinstance(town.final(), TransactionCompleted)
    town.check()
    return town


def answers(**outcomes: RailOutcome) -> object:
    """A rail that says so of `pay` and of `refund`; approved where nothing is named."""

    def rail(request: Request) -> list[RailOutcome]:
        kind = "pay" if isinstance(request, PaymentRequested) else "refund"
        return [outcomes.get(kind, SURE)]

    return rail


def test_a_charge(town: Scenario) -> None:
    paid(town)
    assert town.balances() == {"ada": 50_000, "bob": 12_000}
    assert town.facts() == [
        "TransactionCreated",
        "RiskApproved",
        *["PaymentMethodChecked"] * town.times,
        "PaymentRequested",
        "PaymentProcessed",
        "AccountCredited",
        "TransactionCompleted",
        "PaymentCredited",
    ]
    assert [step.step for step in town.final().steps] == [
        "validate",
        "risk",
        "payment",
        "credit",
        "complete",
    ]
    assert town.asked[0].method_token == "tok-u-bob.card"
    assert (payment(town).status, payment(town).captured_minor) == (Status.CREDITED, 2_000)
    assert town.rows["account"]["ledger/world/USD"].balance_minor == -62_000


def test_a_declined_card(town: Scenario) -> None:
    town.rail = answers(pay=RailOutcome.DECLINED)
    town.send(pay_in(2_000))
    failed(town, Reason.PAYMENT_DECLINED)


def test_an_unknown_answer_is_asked_for_again(town: Scenario) -> None:
    town.rail = answers(pay=RailOutcome.UNKNOWN)
    town.send(pay_in(2_000)).run()
    assert payment(town).status is Status.REQUESTED
    town.wait(15)
    assert [request.attempt for request in town.asked] == [1, 2]
    assert {request.method_token for request in town.asked} == {"tok-u-bob.card"}
    town.rail = answers()
    town.wait(30)
    assert isinstance(town.final(), TransactionCompleted)
    town.check()


def test_a_frozen_account_gets_no_charge_and_the_card_its_money(town: Scenario) -> None:
    town.freeze("bob").send(pay_in(2_000))
    failed(town, Reason.ACCOUNT_FROZEN)
    assert town.asked[-1].refund_id == "t1.refund"
    assert payment(town).status is Status.REFUNDED


def test_what_can_neither_be_credited_nor_refunded_is_in_suspense(town: Scenario) -> None:
    town.rail = answers(refund=RailOutcome.DECLINED)
    town.freeze("bob").send(pay_in(2_000))
    failed(town, Reason.ACCOUNT_FROZEN)
    assert town.rows["account"]["ledger/suspense/USD"].balance_minor == 2_000
    command = ReturnSuspended(account_id="bob", transaction_id="t1", actor_id="ops")
    town.send(command, "account").run()
    assert town.said[-1].reason is Reason.ACCOUNT_FROZEN
    town.send(UnfreezeAccount(account_id="bob", actor_id="ops"), "account")
    town.send(command, "account").run()
    assert [type(event) for event in town.said].count(SuspensePaid) == 1
    assert town.rows["account"]["ledger/suspense/USD"].balance_minor == 0
    assert town.balances()["bob"] == 12_000
    town.check()


def test_a_yes_after_a_no_is_asked_back(town: Scenario) -> None:
    town.rail = lambda r: (
        [RailOutcome.DECLINED, SURE] if isinstance(r, PaymentRequested) else [SURE]
    )
    town.send(pay_in(2_000))
    failed(town, Reason.PAYMENT_DECLINED)
    assert payment(town).status is Status.REFUNDED


def test_an_expired_card(town: Scenario) -> None:
    command = method("u-bob.old", expiry_month=9, expiry_year=2026)
    town.send(command, "payment").run()
    town.wait(40 * DAY_S)
    town.send(pay_in(2_000, "u-bob.old"))
    failed(town, Reason.PAYMENT_METHOD_EXPIRED)
    town.send(method("u-bob.older", expiry_month=9, expiry_year=2026), "payment").run()
    assert town.said[-1].reason is Reason.PAYMENT_METHOD_EXPIRED


@pytest.mark.parametrize("method_id", ["u-ada.card", "u-bob.none", "nobody"])
def test_a_method_that_is_not_there(town: Scenario, method_id: str) -> None:
    town.send(pay_in(2_000, method_id))
    failed(town, Reason.PAYMENT_METHOD_NOT_FOUND)
    assert town.asked == []


def test_a_removed_method(town: Scenario) -> None:
    command = RemovePaymentMethod(method_id="u-bob.card", user_id="u-bob", actor_id="u-bob")
    town.send(command, "payment").run()
    town.send(pay_in(2_000))
    failed(town, Reason.PAYMENT_METHOD_NOT_FOUND)
    assert town.rows["payment"]["method/u-bob.card"].status is MethodStatus.REMOVED
    town.wait(31 * DAY_S)
    assert "method/u-bob.card" not in town.rows["payment"]


def test_an_iban_is_not_charged(town: Scenario) -> None:
    town.send(method("u-bob.iban", **IBAN), "payment").run()
    town.send(pay_in(2_000, "u-bob.iban"))
    failed(town, Reason.PAYMENT_METHOD_UNSUITABLE)


def test_a_payout_to_an_iban(town: Scenario) -> None:
    town.send(method("u-ada.iban", **IBAN), "payment").run()
    town.send(withdrawal(700, terms=Terms(payment_method_id="u-ada.iban"))).run()
    assert isinstance(town.final(), TransactionCompleted)
    assert town.balances()["ada"] == 49_300
    assert town.asked[-1].method_token == "tok-u-ada.iban"
    town.check()


def test_a_payout_to_a_card_is_put_back(town: Scenario) -> None:
    town.send(method("u-ada.card"), "payment").run()
    town.send(withdrawal(700, terms=Terms(payment_method_id="u-ada.card")))
    failed(town, Reason.PAYMENT_METHOD_UNSUITABLE)


def test_a_charge_whose_time_is_over(town: Scenario) -> None:
    town.send(pay_in(2_000)).run(until=RiskApproved)
    town.now_ms += 31_000
    failed(town, Reason.DEADLINE_PASSED)
    assert town.asked == []


def test_a_charge_cancelled_before_it_began(town: Scenario) -> None:
    town.send(pay_in(2_000)).run(until=TransactionCreated)
    town.cancel().run()
    assert isinstance(town.final(), TransactionCancelled)
    assert town.asked == []
    town.check()


def test_a_charge_cancelled_too_late(town: Scenario) -> None:
    town.rail = lambda _: []
    town.send(pay_in(2_000)).run()
    town.cancel().run()
    assert town.said[-1].reason is Reason.TOO_LATE
    town.rail = answers()
    town.wait(15)
    assert isinstance(town.final(), TransactionCompleted)


# refunds


def test_refunds_in_parts_never_above_what_was_captured(town: Scenario) -> None:
    paid(town)
    town.send(refund(500)).run()
    assert isinstance(town.final("r1"), TransactionCompleted)
    assert [step.step for step in town.final("r1").steps] == [
        "validate",
        "risk",
        "refund",
        "debit",
        "payment",
        "complete",
    ]
    town.send(refund(1_501, "r2", request_hash="h2"))
    failed(town, Reason.REFUND_EXCEEDS_PAYMENT, "r2", bob=11_500)
    town.send(refund(1_500, "r3", request_hash="h3")).run()
    assert isinstance(town.final("r3"), TransactionCompleted)
    assert refundable_minor(payment(town)) == 0
    assert payment(town).refunded_minor == 2_000
    assert town.balances()["bob"] == 10_000
    assert [r.refund_id for r in town.asked[1:]] == ["r1", "r3"]
    assert {r.reason for r in town.asked[1:]} == {Reason.REFUND_ORDERED}
    town.check()


def test_what_is_under_way_counts_too(town: Scenario) -> None:
    paid(town)
    town.rail = answers(refund=RailOutcome.UNKNOWN)
    town.send(refund(1_500)).run()
    assert refund_row(town).status is RefundStatus.REQUESTED
    town.send(refund(600, "r2", request_hash="h2")).run()
    assert town.final("r2").reason is Reason.REFUND_EXCEEDS_PAYMENT
    town.rail = answers()
    town.wait(15)
    assert isinstance(town.final("r1"), TransactionCompleted)
    assert (payment(town).refunding_minor, payment(town).refunded_minor) == (0, 1_500)
    town.check()


def test_a_declined_refund_is_put_back(town: Scenario) -> None:
    paid(town)
    town.rail = answers(refund=RailOutcome.DECLINED)
    town.send(refund(500))
    failed(town, Reason.REFUND_DECLINED, "r1", bob=12_000)
    assert refundable_minor(payment(town)) == 2_000


def test_a_refund_of_money_that_is_gone(town: Scenario) -> None:
    paid(town)
    town.freeze("bob").send(refund(500))
    failed(town, Reason.ACCOUNT_FROZEN, "r1", bob=12_000)
    assert refundable_minor(payment(town)) == 2_000
    assert refund_row(town).status is RefundStatus.FAILED


def test_a_refund_of_what_is_no_payment(town: Scenario) -> None:
    town.send(refund(500))
    failed(town, Reason.PAYMENT_NOT_FOUND, "r1")


def test_a_refund_of_a_payment_under_way(town: Scenario) -> None:
    town.rail = lambda _: []
    town.send(pay_in(2_000)).run()
    town.send(refund(500)).run()
    assert town.final("r1").reason is Reason.PAYMENT_NOT_CREDITED


@pytest.mark.parametrize("changes", [{"source_account_id": "ada"}, {"currency": "EUR"}])
def test_a_refund_from_elsewhere(town: Scenario, changes: dict[str, str]) -> None:
    paid(town)
    town.send(refund(500, **changes)).run()
    assert town.final("r1").reason is Reason.INVALID_COMMAND


def test_a_refund_whose_time_is_over(town: Scenario) -> None:
    paid(town)
    town.send(refund(500)).run(until=RiskApproved)
    town.now_ms += 31_000
    failed(town, Reason.DEADLINE_PASSED, "r1", bob=12_000)


def test_a_reserved_refund_whose_time_is_over(town: Scenario) -> None:
    paid(town)
    town.send(refund(500)).run(until=RefundReserved)
    town.now_ms += 31_000
    failed(town, Reason.DEADLINE_PASSED, "r1", bob=12_000)
    assert refundable_minor(payment(town)) == 2_000


def test_a_refund_cancelled_before_it_began(town: Scenario) -> None:
    paid(town)
    town.send(refund(500)).run(until=TransactionCreated)
    town.cancel("r1")
    town.queue.rotate(town.times)  # it overtakes risk
    town.run()
    assert isinstance(town.final("r1"), TransactionCancelled)
    assert refundable_minor(payment(town)) == 2_000


def test_a_refund_cancelled_too_late(town: Scenario) -> None:
    paid(town)
    town.send(refund(500)).run(until=RefundReserved)
    town.cancel("r1").run()
    assert isinstance(town.final("r1"), TransactionCompleted)
    town.check()


def test_a_refund_is_asked_for_under_its_own_id_until_it_is_known(town: Scenario) -> None:
    paid(town)
    town.rail = lambda _: []
    town.send(refund(500)).run()
    town.wait(15).wait(30)
    assert [(r.refund_id, r.attempt) for r in town.asked[1:]] == [("r1", 1), ("r1", 2), ("r1", 3)]


def test_half_a_year_later_all_is_forgotten(town: Scenario) -> None:
    paid(town)
    town.send(refund(500)).run()
    town.wait(31 * DAY_S)
    assert "refund/t1/r1" not in town.rows["payment"]
    assert "payment/t1" in town.rows["payment"]
    town.wait(150 * DAY_S)
    assert "payment/t1" not in town.rows["payment"]
    town.check()


def test_a_refund_that_outlives_its_payment_s_row(town: Scenario) -> None:
    paid(town)
    town.rail = lambda _: []
    town.send(refund(500)).run(until=AccountDebited)
    town.run()
    town.wait(181 * DAY_S)
    town.rail = answers()
    town.wait(3600)
    assert isinstance(town.final("r1"), TransactionCompleted)
    town.check()


# notices of the provider


def notice(**changes: object) -> NotifyPayment:
    fields: dict[str, object] = {
        "notice_id": "evt-1",
        "provider": "sandbox",
        "payment_id": "t1",
        "refund_id": None,
        "operation": RailOperation.PAY,
        "outcome": SURE,
        "amount_minor": 2_000,
        "currency": "USD",
        "provider_reference": "ref-1",
        "booked_on": "2026-09-21",
        "detail": "",
        **changes,
    }
    return NotifyPayment(**fields)


def test_a_notice_is_an_answer_however_often_it_comes(town: Scenario) -> None:
    town.rail = lambda _: [RailOutcome.UNKNOWN]
    town.send(pay_in(2_000)).run()
    town.send(notice(outcome=RailOutcome.UNKNOWN), "payment").run()
    for _ in range(3):
        town.send(notice(), "payment").run()
    town.send(notice(outcome=RailOutcome.UNKNOWN), "payment").run()
    town.send(notice(outcome=RailOutcome.DECLINED), "payment").run()
    assert isinstance(town.final(), TransactionCompleted)
    assert [type(event) for event in town.said].count(PaymentProcessed) == 1
    town.check()


def test_notices_of_refunds(town: Scenario) -> None:
    paid(town)
    town.rail = lambda _: []
    town.send(refund(500)).run()
    told = notice(operation=RailOperation.REFUND, refund_id="r1", amount_minor=500)
    town.send(told, "payment").run()
    assert isinstance(town.final("r1"), TransactionCompleted)
    town.check()


def test_a_notice_of_a_payment_that_is_given_back(town: Scenario) -> None:
    town.rail = lambda r: [SURE] if isinstance(r, PaymentRequested) else []
    town.freeze("bob").send(pay_in(2_000)).run()
    town.send(notice(operation=RailOperation.REFUND, refund_id="t1.refund"), "payment")
    failed(town, Reason.ACCOUNT_FROZEN)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payment_id": "t9"}, Reason.PAYMENT_NOT_FOUND),
        ({"operation": RailOperation.REFUND, "refund_id": "r9"}, Reason.PAYMENT_NOT_FOUND),
        ({"amount_minor": 1_999}, Reason.INVALID_COMMAND),
        ({"currency": "EUR"}, Reason.INVALID_COMMAND),
    ],
)
def test_a_notice_that_fits_nothing(
    town: Scenario, changes: dict[str, object], reason: Reason
) -> None:
    town.rail = lambda _: []
    town.send(pay_in(2_000)).run()
    town.send(notice(**changes), "payment").run()
    refused = town.said[-1]
    assert isinstance(refused, ProviderNoticeRefused)
    assert refused.reason is reason
    assert payment(town).status is Status.REQUESTED


def test_a_card_of_someone_else_is_not_charged(town: Scenario) -> None:
    """It is there, where both users share a partition."""
    town.send(method("u-ada.card", actor_id="u-ada"), "payment").run()
    town.send(pay_in(700, "u-ada.card")).run().check()
    assert town.final().reason is Reason.PAYMENT_METHOD_NOT_FOUND
    assert not town.asked


def test_a_refund_that_does_not_fit_its_payment_frees_the_daily_limit(town: Scenario) -> None:
    town.send(pay_in(700)).run()
    before = dict(town.rows["risk"]["owner/u-bob"].reserved)
    wrong = refund(500, currency="JPY", privileged=False)
    town.send(wrong).run().check()
    assert town.final("r1").reason is Reason.INVALID_COMMAND
    assert sum(town.rows["risk"]["owner/u-bob"].reserved.values()) == sum(before.values())
