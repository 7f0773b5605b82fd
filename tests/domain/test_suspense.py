"""What waits for a person: each word on it, each refusal, each once however often it is heard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from domain.account import (
    AccountCommandRefused,
    CloseAccount,
    LegState,
    ReturnSuspended,
    UnfreezeAccount,
)
from domain.decider import KEEP_FINAL_MS
from domain.money import BALANCE_LIMIT_MINOR, PUT_BACK_LIMIT_MINOR
from domain.payment_rail import RailOutcome
from domain.saga import (
    CreditSuspended,
    DebitReversed,
    DebitSuspended,
    LossSuspended,
    PaymentRequested,
    Rail,
    Reason,
    TransactionFailed,
)
from domain.suspense import (
    ResolveSuspense,
    SuspenseAction,
    SuspenseItem,
    SuspenseKind,
    SuspenseOpened,
    SuspensePaid,
    SuspensePayoutOrdered,
    SuspensePayoutRefused,
    SuspenseResolutionRefused,
    SuspenseResolved,
    SuspenseStatus,
)
from stores.catalog import entries
from tests.domain.scenario import Scenario, bank, method, opening, pay_in, transfer, withdrawal

if TYPE_CHECKING:
    from collections.abc import Callable

YES, NO = RailOutcome.APPROVED, RailOutcome.DECLINED
PAY = ResolveSuspense(
    suspense_id="bob.t1",
    account_id="bob",
    resolution_id="res-1",
    action=SuspenseAction.PAY,
    amount_minor=2_000,
    currency="USD",
    to_account_id="ada",
    note="his other account",
    actor_id="ops",
    request_hash="h1",
)
WRITE_OFF = replace(PAY, action=SuspenseAction.WRITE_OFF, to_account_id=None)
RETURN = replace(
    PAY,
    suspense_id="ada.t1",
    account_id="ada",
    action=SuspenseAction.RETURN,
    to_account_id=None,
)
RECOVER = replace(RETURN, action=SuspenseAction.RECOVER)


def keeps_what_it_has(town: Scenario) -> None:
    """The provider moves money and gives none back."""
    town.rail = lambda asked: [YES if isinstance(asked, PaymentRequested) else NO]


def credit(town: Scenario) -> Scenario:
    """Bob's charge finds his account closed, and the provider keeps what it got."""
    keeps_what_it_has(town)
    town.send(method(), "payment").run()
    town.send(withdrawal(10_000, source_account_id="bob", owner_id="u-bob", transaction_id="w"))
    town.run()
    town.send(pay_in(2_000)).run(until=PaymentRequested)
    town.queue.rotate(1)
    held, town.queue = [*town.queue], town.queue.__class__()
    town.send(CloseAccount(account_id="bob", actor_id="ops"), "account").run()
    town.queue.extend(held)
    town.run()
    assert isinstance(town.final(), TransactionFailed)
    assert town.final().reason is Reason.ACCOUNT_CLOSED
    return town


def debit(town: Scenario) -> Scenario:
    """Ada's transfer by the rail finds Bob frozen, and the provider keeps what it got."""
    keeps_what_it_has(town)
    return town.freeze("bob").run().send(transfer(2_000, rail=Rail.EXTERNAL)).run()


def loss(town: Scenario) -> Scenario:
    """The provider said no to Ada's withdrawal, paid it all the same, and keeps it."""
    town.rail = lambda asked: [NO, YES] if isinstance(asked, PaymentRequested) else [NO]
    return town.send(withdrawal(2_000)).run()


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def town(request: pytest.FixtureRequest) -> Scenario:
    """Ada has $500.00, Bob $100.00; each message is heard once, or twice."""
    return bank(request.param)


def item(town: Scenario, suspense_id: str = "bob.t1") -> SuspenseItem:
    row = town.rows["account"][f"suspense/{suspense_id}"]
    assert isinstance(row, SuspenseItem)
    return row


def ledger(town: Scenario, account: str) -> int:
    row = town.rows["account"].get(f"ledger/{account}/USD")
    return row.total_minor if row is not None else 0


def told(town: Scenario, kind: type) -> list[Any]:
    return [event for event in town.said if isinstance(event, kind)]


def resolve(town: Scenario, command: ResolveSuspense) -> Scenario:
    town.send(command, "account").run().check()
    return town


def refused(town: Scenario, command: ResolveSuspense, reason: Reason) -> None:
    before = (town.balances(), ledger(town, "suspense"))
    resolve(town, command)
    (said,) = told(town, SuspenseResolutionRefused)[-1:]
    assert (said.resolution_id, said.reason) == (command.resolution_id, reason)
    assert (town.balances(), ledger(town, "suspense")) == before


@pytest.mark.parametrize(
    ("made", "suspense_id", "kind", "fact", "minor"),
    [
        (credit, "bob.t1", SuspenseKind.CREDIT, CreditSuspended, 2_000),
        (debit, "ada.t1", SuspenseKind.DEBIT, DebitSuspended, 2_000),
        (loss, "ada.t1", SuspenseKind.LOSS, LossSuspended, -2_000),
    ],
)
def test_what_comes_to_suspense_is_listed(
    town: Scenario,
    made: Callable[[Scenario], Scenario],
    suspense_id: str,
    kind: SuspenseKind,
    fact: type,
    minor: int,
) -> None:
    made(town).check()
    assert len(told(town, fact)) == len(told(town, SuspenseOpened)) == 1
    row = item(town, suspense_id)
    assert (row.kind, row.status, row.version) == (kind, SuspenseStatus.OPEN, 1)
    assert (row.order.amount_minor, row.order.currency) == (2_000, "USD")
    assert ledger(town, "suspense") == minor
    booked = [(one.account, one.amount_minor) for one in entries("e", told(town, fact)[0])]
    assert ("suspense", minor) in booked


def test_a_closed_account_s_credit_is_paid_to_another(town: Scenario) -> None:
    resolve(credit(town), PAY)
    assert town.balances() == {"ada": 52_000, "bob": 0}
    assert ledger(town, "suspense") == 0
    row = item(town)
    assert (row.status, row.to_account_id, row.actor_id) == (SuspenseStatus.PAID, "ada", "ops")
    assert (row.resolution_id, row.note, row.attempt) == ("res-1", "his other account", 1)
    (paid,), (end,) = told(town, SuspensePaid), told(town, SuspenseResolved)
    assert (paid.actor_id, paid.account_id, paid.attempt) == ("ops", "bob", 1)
    assert [posting.account for posting in paid.postings] == ["suspense", "ada"]
    assert (end.actor_id, end.action, end.postings) == ("ops", SuspenseAction.PAY, ())


def test_without_a_name_it_goes_to_the_account_that_it_was_for(town: Scenario) -> None:
    keeps_what_it_has(town)
    town.send(method(), "payment").run()
    town.freeze("bob").send(pay_in(2_000)).run()
    own = replace(PAY, to_account_id=None)
    refused(town, own, Reason.ACCOUNT_FROZEN)
    assert item(town).refusal is Reason.ACCOUNT_FROZEN
    town.send(UnfreezeAccount(account_id="bob", actor_id="ops"), "account")
    resolve(town, own)  # the first word on an id stands
    assert item(town).status is SuspenseStatus.OPEN
    resolve(town, replace(own, resolution_id="res-2"))
    assert town.balances() == {"ada": 50_000, "bob": 12_000}
    assert (item(town).status, item(town).to_account_id) == (SuspenseStatus.PAID, "bob")
    assert item(town).refusal is None


def test_a_credit_is_written_off(town: Scenario) -> None:
    resolve(credit(town), WRITE_OFF)
    assert (ledger(town, "suspense"), ledger(town, "written_off")) == (0, 2_000)
    assert item(town).status is SuspenseStatus.WRITTEN_OFF
    assert town.balances() == {"ada": 50_000, "bob": 0}


def test_a_debit_goes_back_to_its_source(town: Scenario) -> None:
    resolve(debit(town), RETURN)
    assert town.balances() == {"ada": 50_000, "bob": 10_000}
    assert ledger(town, "suspense") == 0
    assert item(town, "ada.t1").status is SuspenseStatus.RETURNED
    assert len(told(town, DebitReversed)) == 1
    assert town.final().reason is Reason.ACCOUNT_FROZEN
    assert town.account("ada").open_legs == 0


@pytest.mark.parametrize(
    ("command", "status", "lost"),
    [
        (RECOVER, SuspenseStatus.RECOVERED, 0),
        (replace(RECOVER, action=SuspenseAction.WRITE_OFF), SuspenseStatus.WRITTEN_OFF, -2_000),
    ],
    ids=["recovered", "written off"],
)
def test_a_loss_is_settled(
    town: Scenario, command: ResolveSuspense, status: SuspenseStatus, lost: int
) -> None:
    outside = ledger(loss(town), "world")
    resolve(town, command)
    assert item(town, "ada.t1").status is status
    assert (ledger(town, "suspense"), ledger(town, "written_off")) == (0, lost)
    assert ledger(town, "world") == outside - 2_000 - lost
    assert town.balances() == {"ada": 50_000, "bob": 10_000}


@pytest.mark.parametrize("command", [PAY, WRITE_OFF], ids=["pay", "write off"])
def test_it_is_settled_once(town: Scenario, command: ResolveSuspense) -> None:
    resolve(credit(town), command)
    said = len(town.said)
    resolve(town, command)
    assert len(town.said) == said
    refused(town, replace(command, resolution_id="res-2"), Reason.SUSPENSE_RESOLVED)
    town.send(replace(command, request_hash="another"), "account").run()
    last = town.said[-1]
    assert isinstance(last, AccountCommandRefused)
    assert last.reason is Reason.IDEMPOTENCY_MISMATCH
    assert len(told(town, SuspenseResolved)) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"suspense_id": "bob.t9"}, Reason.NOT_SUSPENDED),
        ({"suspense_id": "ada.t1"}, Reason.INVALID_COMMAND),
        ({"resolution_id": ""}, Reason.INVALID_COMMAND),
        ({"action": SuspenseAction.WRITE_OFF}, Reason.INVALID_COMMAND),
        ({"amount_minor": 1_999}, Reason.SUSPENSE_MISMATCH),
        ({"currency": "EUR"}, Reason.SUSPENSE_MISMATCH),
        ({"action": SuspenseAction.RETURN, "to_account_id": None}, Reason.SUSPENSE_MISMATCH),
        ({"action": SuspenseAction.RECOVER, "to_account_id": None}, Reason.SUSPENSE_MISMATCH),
        ({"to_account_id": "nobody"}, Reason.ACCOUNT_NOT_FOUND),
        ({"to_account_id": "clearing"}, Reason.ACCOUNT_NOT_FOUND),
        ({"to_account_id": "bob"}, Reason.ACCOUNT_CLOSED),
        ({"to_account_id": "yen"}, Reason.CURRENCY_NOT_HELD),
        ({"to_account_id": "ice"}, Reason.ACCOUNT_FROZEN),
        ({"to_account_id": "rich"}, Reason.BALANCE_LIMIT),
        ({"actor_id": "u-bob"}, Reason.OWN_CASE),  # it came from his account
        ({"actor_id": "u-ada"}, Reason.OWN_CASE),  # it would go to hers
    ],
)
def test_a_word_that_settles_nothing(
    town: Scenario, changes: dict[str, Any], reason: Reason
) -> None:
    credit(town)
    for name in ("yen", "ice", "rich"):
        currencies = ("JPY",) if name == "yen" else ("USD",)
        town.send(opening(name, "u-bob", currencies=currencies), "account").run()
    town.freeze("ice").run()
    command = replace(PAY, **changes)
    if changes.get("to_account_id") == "rich":
        full(town, "rich", BALANCE_LIMIT_MINOR - 1_999)
    town.send(command, "account").run()
    (said,) = told(town, SuspenseResolutionRefused)
    assert said.reason is reason
    assert told(town, SuspensePaid) == told(town, SuspenseResolved) == []
    assert (item(town).status, ledger(town, "suspense")) == (SuspenseStatus.OPEN, 2_000)


def full(town: Scenario, account_id: str, minor: int) -> None:
    """As if so much had come in over the years."""
    key = f"account/{account_id}"
    row = town.rows["account"][key]
    town.rows["account"][key] = replace(row, balances={"USD": minor})


@pytest.mark.parametrize("command", [PAY, WRITE_OFF, RECOVER], ids=["pay", "write off", "recover"])
def test_a_debit_can_only_go_back(town: Scenario, command: ResolveSuspense) -> None:
    refused(debit(town), replace(command, **HOME_OF_ADA), Reason.SUSPENSE_MISMATCH)


HOME_OF_ADA = {"suspense_id": "ada.t1", "account_id": "ada"}


@pytest.mark.parametrize("command", [replace(PAY, **HOME_OF_ADA), RETURN], ids=["pay", "return"])
def test_a_loss_can_be_paid_to_nobody(town: Scenario, command: ResolveSuspense) -> None:
    refused(loss(town), command, Reason.SUSPENSE_MISMATCH)


def test_nobody_else_settles_what_is_being_paid(town: Scenario) -> None:
    credit(town).send(PAY, "account").run(until=SuspensePayoutOrdered)
    assert item(town).status is SuspenseStatus.PAYING
    town.send(replace(WRITE_OFF, resolution_id="res-2"), "account")
    back = ReturnSuspended(account_id="bob", transaction_id="t1", actor_id="ops")
    town.send(back, "account").run().check()
    (said,) = told(town, SuspenseResolutionRefused)
    assert said.reason is Reason.IN_FLIGHT
    assert item(town).status is SuspenseStatus.PAID
    assert town.balances() == {"ada": 52_000, "bob": 0}


def test_refused_by_one_account_it_is_paid_to_the_next(town: Scenario) -> None:
    credit(town).freeze("ada").run()
    refused(town, PAY, Reason.ACCOUNT_FROZEN)
    assert (item(town).attempt, item(town).refusal) == (1, Reason.ACCOUNT_FROZEN)
    late = told(town, SuspensePayoutOrdered)[0]
    town.send(UnfreezeAccount(account_id="ada", actor_id="ops"), "account").run()
    town.send(opening("bob-2", "u-bob"), "account").run()
    resolve(town, replace(PAY, resolution_id="res-2", to_account_id="bob-2", request_hash="h2"))
    resolve(town.send(late, "account"), PAY)
    assert town.balances() == {"ada": 50_000, "bob": 0, "bob-2": 2_000}
    assert len(told(town, SuspensePaid)) == len(told(town, SuspensePayoutRefused)) == 1


@pytest.mark.parametrize(
    ("made", "account_id", "status"),
    [(credit, "bob", None), (debit, "ada", SuspenseStatus.RETURNED)],
)
def test_the_older_command_settles_the_item_too(
    town: Scenario,
    made: Callable[[Scenario], Scenario],
    account_id: str,
    status: SuspenseStatus | None,
) -> None:
    made(town)
    back = ReturnSuspended(account_id=account_id, transaction_id="t1", actor_id="ops")
    town.send(back, "account").run().check()
    assert item(town, f"{account_id}.t1").status is (status or SuspenseStatus.OPEN)
    assert ledger(town, "suspense") == (0 if status else 2_000)


def test_what_was_written_off_is_not_given_back(town: Scenario) -> None:
    resolve(credit(town), WRITE_OFF)
    back = ReturnSuspended(account_id="bob", transaction_id="t1", actor_id="ops")
    town.send(back, "account").run().check()
    assert town.said[-1].reason is Reason.SUSPENSE_RESOLVED


def test_a_refusal_that_is_heard_late_suspends_nothing_again(town: Scenario) -> None:
    credit(town)
    (fact,) = [event for event in town.said if type(event).__name__ == "RefundFailed"]
    resolve(town, WRITE_OFF)
    town.send(fact, "account").run().check()
    assert ledger(town, "suspense") == 0
    assert len(told(town, SuspenseOpened)) == 1


def test_a_put_back_that_its_account_has_no_room_for_waits_in_suspense(town: Scenario) -> None:
    town.rail = lambda _: [NO]
    town.send(withdrawal(2_000)).run(until=PaymentRequested)
    full(town, "ada", PUT_BACK_LIMIT_MINOR - 1_999)
    town.run()
    assert item(town, "ada.t1").kind is SuspenseKind.DEBIT
    assert ledger(town, "suspense") == 2_000
    for command in (RETURN, ReturnSuspended(account_id="ada", transaction_id="t1", actor_id="o")):
        town.send(command, "account").run()
        assert town.said[-1].reason is Reason.BALANCE_LIMIT
    full(town, "ada", 7)
    town.send(replace(RETURN, resolution_id="res-2"), "account").run()
    assert town.balances()["ada"] == 2_007
    assert (ledger(town, "suspense"), ledger(town, "clearing")) == (0, 0)
    assert town.final().reason is Reason.PAYMENT_DECLINED


def test_a_month_later_what_is_settled_has_left_and_what_is_open_has_not(town: Scenario) -> None:
    credit(town).freeze("ada").run()
    refused(town, PAY, Reason.ACCOUNT_FROZEN)
    town.wait(KEEP_FINAL_MS // 1000 + 1)
    assert item(town).status is SuspenseStatus.OPEN
    resolve(town, replace(WRITE_OFF, resolution_id="res-2"))
    town.wait(KEEP_FINAL_MS // 1000 + 1)
    left = ("suspense/", "suspended/", "resolution/", "payout/", "leg/t1")
    assert [key for key in town.rows["account"] if key.startswith(left)] == []
    town.check()


def test_a_leg_that_is_lost_stays_so(town: Scenario) -> None:
    resolve(loss(town), RECOVER)
    assert town.rows["account"]["leg/t1/source"].state is LegState.LOST
