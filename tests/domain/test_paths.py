"""Each way that a transaction can go, from order to end; every one also with each message twice."""

from __future__ import annotations

import pytest

from domain.account import (
    CloseAccount,
    LegsClosed,
    LegState,
    ReturnSuspended,
    UnfreezeAccount,
)
from domain.blacklist import AddToBlacklist, BlacklistKind
from domain.payment_rail import RailOutcome
from domain.risk import DecideReview
from domain.saga import (
    AccountCredited,
    AccountDebited,
    Balance,
    DebitSuspended,
    PaymentProcessed,
    PaymentRequested,
    Rail,
    Reason,
    RefundRequested,
    RiskApproved,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
)
from tests.domain.scenario import Request, Scenario, bank, deposit, opening, transfer, withdrawal

HOUR_S = 3600


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def town(request: pytest.FixtureRequest) -> Scenario:
    """Ada has $500.00, Bob $100.00; each message is heard once, or twice."""
    return bank(request.param)


def failed(town: Scenario, reason: Reason) -> None:
    """Failed for this reason, all money where it was."""
    town.run()
    town.check()
    final = town.final()
    assert isinstance(final, TransactionFailed)
    assert final.reason is reason
    assert town.balances() == {"ada": 50_000, "bob": 10_000}
    assert town.account("ada").open_legs == 0


def completed(town: Scenario, ada: int, bob: int) -> None:
    town.run()
    town.check()
    assert isinstance(town.final(), TransactionCompleted)
    assert town.balances() == {"ada": ada, "bob": bob}
    assert town.account("ada").open_legs == 0


def steps(town: Scenario) -> list[tuple[str, str]]:
    return [(step.step, step.outcome) for step in town.final().steps]


def test_a_transfer(town: Scenario) -> None:
    town.send(transfer(2_000)).run()
    completed(town, ada=48_000, bob=12_000)
    assert town.facts() == [
        "TransactionCreated",
        "RiskApproved",
        "AccountDebited",
        "AccountCredited",
        "TransactionCompleted",
    ]
    (closed,) = [event for event in town.said if isinstance(event, LegsClosed)]
    assert [leg.transaction_id for leg in closed.legs] == ["t1"]
    assert steps(town) == [
        ("validate", "accepted"),
        ("risk", "approved"),
        ("debit", "debited"),
        ("payment", "book"),
        ("credit", "credited"),
        ("complete", "completed"),
    ]
    before_and_after = [
        (b.account_id, b.before_minor, b.after_minor) for b in town.final().balances
    ]
    assert before_and_after == [("ada", 50_000, 48_000), ("bob", 10_000, 12_000)]


def test_a_deposit(town: Scenario) -> None:
    town.send(deposit("bob", 700, transaction_id="t1")).run()
    completed(town, ada=50_000, bob=10_700)
    assert town.facts() == [
        "TransactionCreated",
        "RiskApproved",
        "AccountCredited",
        "TransactionCompleted",
    ]


def test_a_withdrawal(town: Scenario) -> None:
    town.send(withdrawal(700)).run()
    completed(town, ada=49_300, bob=10_000)
    assert [b.account_id for b in town.final().balances] == ["ada"]
    assert town.rows["account"]["ledger/world/USD"].balance_minor == -59_300


def test_a_transfer_by_the_rail(town: Scenario) -> None:
    town.send(transfer(700, rail=Rail.EXTERNAL)).run()
    completed(town, ada=49_300, bob=10_700)
    assert ("payment", "processed") in steps(town)


def test_an_order_that_makes_no_sense_fails_at_once(town: Scenario) -> None:
    town.send(transfer(2_000, destination_account_id="ada"))
    failed(town, Reason.INVALID_COMMAND)
    assert town.facts() == ["TransactionFailed"]


def test_refused_by_risk(town: Scenario) -> None:
    entry = AddToBlacklist(kind=BlacklistKind.ACCOUNT, value="bob", note="", actor_id="eve")
    town.send(entry, "risk").run()
    town.send(transfer(2_000, privileged=True))
    failed(town, Reason.BLACKLISTED)
    assert "AccountDebited" not in town.facts()


def review(town: Scenario, approve: bool) -> Scenario:
    word = DecideReview(
        review_id="u-ada.t1", approve=approve, deadline_s=30, actor_id="eve", note=""
    )
    return town.send(word, "risk").run()


def test_review_then_approved_hours_later(town: Scenario) -> None:
    rich(town)
    town.send(transfer(90_000)).run()
    assert town.facts()[-2:] == ["ReviewRequested", "TransactionHeld"]
    review(town.wait(5 * HOUR_S), approve=True)
    completed(town, ada=60_000, bob=10_000 + 90_000)
    assert ("review", "approved") in steps(town)


def rich(town: Scenario) -> None:
    town.send(deposit("ada", 100_000, transaction_id="d-more")).run()


def test_review_then_declined(town: Scenario) -> None:
    town.send(transfer(90_000)).run()
    review(town, approve=False)
    failed(town, Reason.REVIEW_DECLINED)


def test_review_never_decided(town: Scenario) -> None:
    town.send(transfer(90_000)).run()
    town.wait(23 * HOUR_S)
    assert "TransactionFailed" not in town.facts()
    town.wait(1 * HOUR_S)
    failed(town, Reason.REVIEW_EXPIRED)


def test_cancelled_while_in_review(town: Scenario) -> None:
    town.send(transfer(90_000)).run()
    town.cancel().run()
    assert isinstance(town.final(), TransactionCancelled)
    review(town, approve=True)
    assert "AccountDebited" not in town.facts()
    town.check()


def test_no_funds(town: Scenario) -> None:
    town.send(transfer(50_001))
    failed(town, Reason.INSUFFICIENT_FUNDS)
    assert town.rows["risk"]["owner/u-ada"].reserved.popitem()[1] == 0


def test_down_to_the_overdraft_limit() -> None:
    town = Scenario()
    town.send(opening("ada", "u-ada", overdraft_limits={"USD": 500}), "account")
    town.send(opening("bob", "u-bob"), "account").run()
    town.send(transfer(500)).run()
    assert town.balances() == {"ada": -500, "bob": 500}
    town.send(transfer(1, transaction_id="t2")).run()
    assert town.final("t2").reason is Reason.INSUFFICIENT_FUNDS


def test_frozen_source(town: Scenario) -> None:
    town.freeze("ada").run()
    town.send(transfer(2_000))
    failed(town, Reason.ACCOUNT_FROZEN)
    assert "AccountDebited" not in town.facts()


def test_source_of_another(town: Scenario) -> None:
    town.send(transfer(2_000, owner_id="u-mallory", actor_id="u-mallory"))
    failed(town, Reason.NOT_OWNER)


def put_back(town: Scenario, reason: Reason) -> None:
    failed(town, reason)
    assert town.facts()[-5:] == [
        "AccountDebited",
        "CreditRefused",
        "DebitReversed",
        "TransactionFailed",
        "RiskReleased",
    ]
    assert town.final().balances == (
        Balance(
            account_id="ada", currency="USD", before_minor=48_000, after_minor=50_000, version=4
        ),
    )
    assert ("debit", "reversed") in steps(town)


def test_frozen_recipient(town: Scenario) -> None:
    town.freeze("bob").run()
    town.send(transfer(2_000))
    put_back(town, Reason.ACCOUNT_FROZEN)


def test_missing_recipient(town: Scenario) -> None:
    town.send(transfer(2_000, destination_account_id="nobody"))
    put_back(town, Reason.ACCOUNT_NOT_FOUND)


def test_recipient_without_the_currency(town: Scenario) -> None:
    town.send(opening("eur", "u-eur", currencies=("EUR", "USD")), "account").run()
    town.send(transfer(2_000, currency="EUR", source_account_id="ada"))
    town.run()
    assert town.final().reason is Reason.CURRENCY_NOT_HELD


def test_closed_recipient(town: Scenario) -> None:
    town.send(opening("carol", "u-carol"), "account").run()
    close(town, "carol")
    town.send(transfer(2_000, destination_account_id="carol")).run()
    assert town.final().reason is Reason.ACCOUNT_CLOSED
    assert town.balances() == {"ada": 50_000, "bob": 10_000, "carol": 0}
    town.check()


def close(town: Scenario, account_id: str) -> None:
    town.send(CloseAccount(account_id=account_id, actor_id="ops"), "account").run()


def test_the_put_back_reaches_a_source_frozen_meanwhile(town: Scenario) -> None:
    town.freeze("bob").run()
    town.send(transfer(2_000)).run(until=AccountDebited)
    credit_on_its_way = town.queue.copy()
    town.queue.clear()
    town.freeze("ada").run()
    town.queue.extend(credit_on_its_way)
    failed(town, Reason.ACCOUNT_FROZEN)
    assert town.account("ada").status == "frozen"


def test_an_account_with_money_in_flight_does_not_close() -> None:
    town = bank()
    town.send(transfer(50_000)).run(until=AccountDebited)
    in_flight = town.queue.copy()
    town.queue.clear()
    close(town, "ada")
    assert town.said[-1].reason is Reason.IN_FLIGHT
    town.queue.extend(in_flight)
    completed(town, ada=0, bob=60_000)
    close(town, "ada")
    assert town.account("ada").status == "closed"
    town.send(transfer(5, transaction_id="t2")).run()
    assert town.final("t2").reason is Reason.ACCOUNT_CLOSED
    town.send(deposit("ada", 5, transaction_id="t3")).run()
    assert town.final("t3").reason is Reason.ACCOUNT_CLOSED


def says(*outcomes: RailOutcome) -> object:
    return lambda _: outcomes


def test_the_rail_says_no(town: Scenario) -> None:
    town.rail = says(RailOutcome.DECLINED)
    town.send(transfer(2_000, rail=Rail.EXTERNAL))
    failed(town, Reason.PAYMENT_DECLINED)


def test_the_rail_is_late(town: Scenario) -> None:
    """Unknown is asked again, at growing distances, long after the deadline, and never guessed."""
    town.rail = says(RailOutcome.UNKNOWN)
    town.send(withdrawal(2_000)).run()
    assert [request.attempt for request in town.asked] == [1]
    town.wait(14)
    assert len(town.asked) == 1
    town.wait(1)
    town.wait(30)
    assert [request.attempt for request in town.asked] == [1, 2, 3]
    assert len({request.payment_id for request in town.asked}) == 1
    town.cancel().run()
    assert town.said[-1].reason is Reason.TOO_LATE
    town.rail = says(RailOutcome.APPROVED)
    town.wait(60)
    completed(town, ada=48_000, bob=10_000)
    town.wait(HOUR_S)
    assert len(town.asked) == 4


def test_the_rail_never_answered_and_is_asked_again(town: Scenario) -> None:
    town.rail = says()
    town.send(withdrawal(2_000)).run()
    town.rail = says(RailOutcome.APPROVED)
    town.wait(15)
    completed(town, ada=48_000, bob=10_000)


def test_the_rail_answers_twice() -> None:
    town = bank()
    town.rail = says(RailOutcome.APPROVED, RailOutcome.APPROVED)
    town.send(withdrawal(2_000))
    completed(town, ada=48_000, bob=10_000)


def test_a_no_after_a_yes_changes_nothing() -> None:
    town = bank()
    town.rail = says(RailOutcome.APPROVED, RailOutcome.DECLINED)
    town.send(withdrawal(2_000))
    completed(town, ada=48_000, bob=10_000)


def test_a_yes_after_a_no_is_asked_back(town: Scenario) -> None:
    def rail(request: Request) -> list[RailOutcome]:
        if isinstance(request, PaymentRequested):
            return [RailOutcome.DECLINED, RailOutcome.APPROVED]
        return [RailOutcome.APPROVED]

    town.rail = rail
    town.send(withdrawal(2_000))
    failed(town, Reason.PAYMENT_DECLINED)
    assert [type(request) for request in town.asked] == [PaymentRequested, RefundRequested]


def test_credit_refused_after_the_payment_is_refunded(town: Scenario) -> None:
    town.freeze("bob").run()
    town.send(transfer(2_000, rail=Rail.EXTERNAL))
    failed(town, Reason.ACCOUNT_FROZEN)
    assert steps(town)[-3:] == [
        ("refund", "processed"),
        ("debit", "reversed"),
        ("complete", "failed"),
    ]


def test_a_refund_that_fails_for_good_waits_in_suspense_for_an_operator(town: Scenario) -> None:
    town.rail = lambda request: [
        RailOutcome.APPROVED if isinstance(request, PaymentRequested) else RailOutcome.DECLINED
    ]
    town.freeze("bob").run()
    town.send(transfer(2_000, rail=Rail.EXTERNAL)).run()
    assert any(isinstance(event, DebitSuspended) for event in town.said)
    assert town.rows["account"]["ledger/suspense/USD"].balance_minor == 2_000
    assert town.balances()["ada"] == 48_000
    command = ReturnSuspended(account_id="ada", transaction_id="t1", actor_id="ops")
    town.send(command, "account")
    failed(town, Reason.ACCOUNT_FROZEN)
    assert town.rows["account"]["ledger/suspense/USD"].balance_minor == 0


def test_deadline_passed_before_risk(town: Scenario) -> None:
    town.send(transfer(2_000)).run(until=TransactionCreated)
    late(town, Reason.DEADLINE_PASSED)


def late(town: Scenario, reason: Reason) -> None:
    town.now_ms += 31_000
    failed(town, reason)


def test_deadline_passed_before_the_debit(town: Scenario) -> None:
    town.send(transfer(2_000)).run(until=RiskApproved)
    late(town, Reason.DEADLINE_PASSED)
    assert "AccountDebited" not in town.facts()


def test_deadline_passed_after_the_debit(town: Scenario) -> None:
    town.send(transfer(2_000)).run(until=AccountDebited)
    late(town, Reason.DEADLINE_PASSED)
    assert "DebitReversed" in town.facts()


def test_deadline_passed_before_the_payment_starts(town: Scenario) -> None:
    town.send(withdrawal(2_000)).run(until=AccountDebited)
    late(town, Reason.DEADLINE_PASSED)
    assert town.asked == []


def test_deadline_passed_after_the_payment_goes_forward(town: Scenario) -> None:
    town.send(transfer(2_000, rail=Rail.EXTERNAL)).run(until=PaymentProcessed)
    town.now_ms += 31_000
    completed(town, ada=48_000, bob=12_000)


def test_cancelled_before_the_debit(town: Scenario) -> None:
    town.send(transfer(2_000)).run(until=TransactionCreated)
    approval_on_its_way = town.queue.copy()
    town.queue.clear()
    town.cancel().run()
    assert isinstance(town.final(), TransactionCancelled)
    town.queue.extend(approval_on_its_way)
    town.run()
    town.check()
    assert "RiskApproved" in town.facts()
    assert "AccountDebited" not in town.facts()
    assert town.balances() == {"ada": 50_000, "bob": 10_000}


def test_cancelled_after_the_debit(town: Scenario) -> None:
    town.send(transfer(2_000)).run(until=AccountDebited)
    town.cancel()
    completed(town, ada=48_000, bob=12_000)
    refusals = [event for event in town.said if type(event).__name__.endswith("CommandRefused")]
    assert {refusal.reason for refusal in refusals} == {Reason.TOO_LATE}


def test_a_deposit_cancelled_before_its_credit(town: Scenario) -> None:
    town.send(deposit("bob", 5, transaction_id="t1")).run(until=TransactionCreated)
    approval_on_its_way = town.queue.copy()
    town.queue.clear()
    town.cancel().run()
    town.queue.extend(approval_on_its_way)
    town.run()
    town.check()
    assert isinstance(town.final(), TransactionCancelled)
    assert town.balances() == {"ada": 50_000, "bob": 10_000}


def test_a_deposit_cancelled_after_its_credit(town: Scenario) -> None:
    town.send(deposit("bob", 5, transaction_id="t1")).run(until=AccountCredited)
    town.cancel()
    completed(town, ada=50_000, bob=10_005)
    assert Reason.TOO_LATE in {getattr(event, "reason", None) for event in town.said}


def test_two_transactions_on_the_same_accounts_interleave() -> None:
    """There and back again at once, and only one of two can be paid: each is decided on its own."""
    town = bank(ada=1_000, bob=0 + 1)
    there = transfer(1_000)
    too_much = transfer(600, transaction_id="t2")
    back = transfer(
        1_001,
        transaction_id="t3",
        source_account_id="bob",
        destination_account_id="ada",
        owner_id="u-bob",
    )
    for command in (there, too_much, back):
        town.send(command)
    town.run()
    town.check()
    assert isinstance(town.final("t1"), TransactionCompleted)
    assert town.final("t2").reason is Reason.INSUFFICIENT_FUNDS
    assert sum(town.balances().values()) == 1_001


def test_the_same_order_again_and_another_under_its_id(town: Scenario) -> None:
    town.send(transfer(2_000)).run()
    said = len(town.said)
    town.send(transfer(2_000)).run()
    assert len(town.said) == said
    town.send(transfer(9_999, request_hash="h2")).run()
    assert town.said[-1].reason is Reason.IDEMPOTENCY_MISMATCH
    completed(town, ada=48_000, bob=12_000)


def test_all_is_forgotten_in_time_but_the_money(town: Scenario) -> None:
    town.send(transfer(2_000)).run()
    town.wait(30 * 24 * HOUR_S + 1)
    town.check()
    left = [key for rows in town.rows.values() for key in rows]
    assert not [key for key in left if key.startswith(("leg/", "transaction/", "score/", "due/"))]
    assert town.balances() == {"ada": 48_000, "bob": 12_000}


def test_a_leg_stays_until_its_end_is_known() -> None:
    town = bank()
    town.rail = says()
    town.send(withdrawal(2_000)).run()
    town.now_ms += 60 * 24 * HOUR_S * 1000
    leg = town.rows["account"]["leg/t1/source"]
    assert leg.state is LegState.DEBITED
    assert not [
        key for key in town.rows["account"] if key.endswith("leg/t1/source") and "due" in key
    ]


def test_unfrozen_it_goes_again(town: Scenario) -> None:
    town.freeze("ada").run()
    town.send(UnfreezeAccount(account_id="ada", actor_id="ops"), "account").run()
    town.send(transfer(2_000))
    completed(town, ada=48_000, bob=12_000)
