"""Reversals and refunds: a new order that undoes a completed one, granted once by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.blacklist import AddToBlacklist, BlacklistKind
from domain.decider import KEEP_FINAL_MS
from domain.saga import (
    AccountDebited,
    DebitReversed,
    Reason,
    ReversalGranted,
    ReversalRefused,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import TRANSACTION, CreateTransaction, ReversalReleased
from tests.domain.scenario import Scenario, bank, deposit, transfer, withdrawal
from tests.domain.stories import then


def payment(amount_minor: int, **changes: Any) -> CreateTransaction:
    """Ada pays Bob for something."""
    return transfer(amount_minor, **{"type": TransactionType.PAYMENT, **changes})


def undoing(original: CreateTransaction, **changes: Any) -> CreateTransaction:
    """An operator reverses it."""
    source = original.destination_account_id
    command = replace(
        original,
        transaction_id=f"r-{original.transaction_id}",
        type=TransactionType.REVERSAL,
        source_account_id=source,
        destination_account_id=original.source_account_id,
        owner_id=f"u-{source or original.source_account_id}",
        actor_id="ops",
        privileged=True,
        request_hash="r1",
        terms=Terms(original_transaction_id=original.transaction_id),
    )
    return replace(command, **changes)


def refund(original: CreateTransaction, **changes: Any) -> CreateTransaction:
    """Bob, who was paid, gives it back."""
    changes = {"actor_id": "u-bob", "privileged": False, **changes}
    return undoing(original, type=TransactionType.REFUND, **changes)


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def town(request: pytest.FixtureRequest) -> Scenario:
    """Ada has $500.00, Bob $100.00; each message is heard once, or twice."""
    return bank(request.param)


def done(town: Scenario, command: CreateTransaction) -> Any:
    town.send(command).run()
    town.check()
    return town.final(command.transaction_id)


def test_a_payment_moves_as_a_transfer_does(town: Scenario) -> None:
    assert isinstance(done(town, payment(2_000)), TransactionCompleted)
    assert town.balances() == {"ada": 48_000, "bob": 12_000}


@pytest.mark.parametrize("order", [transfer(2_000), payment(2_000)])
def test_a_reversal_brings_the_money_back(town: Scenario, order: CreateTransaction) -> None:
    first = done(town, order)
    assert isinstance(done(town, undoing(order)), TransactionCompleted)
    assert town.balances() == {"ada": 50_000, "bob": 10_000}
    assert town.rows["transaction"]["transaction/t1"].version == 2, "the original is not edited"
    assert town.final() == first
    moved = [(b.account_id, b.before_minor, b.after_minor) for b in town.final("r-t1").balances]
    assert moved == [("bob", 12_000, 10_000), ("ada", 48_000, 50_000)]
    names = [step.step for step in town.final("r-t1").steps]
    assert names == ["validate", "grant", "risk", "debit", "payment", "credit", "complete"]


def test_a_refund_of_a_payment_by_its_receiver(town: Scenario) -> None:
    done(town, payment(2_000))
    assert isinstance(done(town, refund(payment(2_000))), TransactionCompleted)
    assert town.balances() == {"ada": 50_000, "bob": 10_000}


def test_a_reversed_deposit_leaves_the_bank_with_the_debit(town: Scenario) -> None:
    order = deposit("bob", 700, transaction_id="t1")
    done(town, order)
    final = done(town, undoing(order))
    assert isinstance(final, TransactionCompleted)
    assert town.balances() == {"ada": 50_000, "bob": 10_000}
    assert town.rows["account"]["ledger/world/USD"].balance_minor == -60_000
    assert [b.account_id for b in final.balances] == ["bob"]
    assert town.account("bob").open_legs == 0


def test_a_reversed_withdrawal_comes_back_from_the_world(town: Scenario) -> None:
    done(town, withdrawal(700))
    final = done(town, undoing(withdrawal(700)))
    assert isinstance(final, TransactionCompleted)
    assert town.balances() == {"ada": 50_000, "bob": 10_000}
    assert town.rows["account"]["ledger/world/USD"].balance_minor == -60_000


def test_it_is_granted_once_and_asked_twice_is_asked_once(town: Scenario) -> None:
    done(town, payment(2_000))
    done(town, undoing(payment(2_000)))
    said = len(town.said)
    town.send(undoing(payment(2_000))).run()
    assert len(town.said) == said
    other = undoing(payment(2_000), transaction_id="r2", request_hash="r2")
    assert done(town, other).reason is Reason.ALREADY_REVERSED
    assert done(town, refund(payment(2_000), transaction_id="r3")).reason is Reason.ALREADY_REVERSED
    assert town.balances() == {"ada": 50_000, "bob": 10_000}


def test_one_that_came_to_nothing_can_be_asked_for_again(town: Scenario) -> None:
    done(town, transfer(2_000))
    done(town, transfer(11_000, transaction_id="t2", source_account_id="bob", owner_id="u-bob",
                        destination_account_id="ada"))  # fmt: skip
    final = done(town, undoing(transfer(2_000)))
    assert isinstance(final, TransactionFailed)
    assert final.reason is Reason.INSUFFICIENT_FUNDS
    town.send(undoing(transfer(2_000))).run()  # the same again is still the same
    assert town.final("r-t1") == final
    done(town, deposit("bob", 5_000, transaction_id="d2"))
    assert isinstance(
        done(town, undoing(transfer(2_000), transaction_id="r2")), TransactionCompleted
    )
    assert sum(isinstance(event, ReversalReleased) for event in town.said) == 1


def test_one_refused_by_risk_frees_the_original(town: Scenario) -> None:
    done(town, transfer(2_000))
    entry = AddToBlacklist(kind=BlacklistKind.ACCOUNT, value="ada", note="", actor_id="eve")
    town.send(entry, "risk").run()
    assert done(town, undoing(transfer(2_000))).reason is Reason.BLACKLISTED
    assert town.rows["transaction"]["reversal/t1"].reversal_id is None


def test_a_cancelled_one_frees_the_original() -> None:
    town = bank()
    done(town, transfer(2_000))
    town.send(undoing(transfer(2_000))).run(until=ReversalGranted)
    on_its_way = town.queue.copy()
    town.queue.clear()
    cancel = replace(town.cancel().queue.pop()[1], transaction_id="r-t1")
    town.send(cancel).run()
    town.queue.extend(on_its_way)
    town.run().check()
    assert isinstance(town.final("r-t1"), TransactionCancelled)
    assert town.rows["transaction"]["reversal/t1"].reversal_id is None


def test_a_reversal_that_its_destination_refuses_is_put_back(town: Scenario) -> None:
    done(town, transfer(2_000))
    town.freeze("ada").run()
    assert done(town, undoing(transfer(2_000))).reason is Reason.ACCOUNT_FROZEN
    assert any(isinstance(event, DebitReversed) for event in town.said)
    assert town.balances() == {"ada": 48_000, "bob": 12_000}


CREATED = then(TRANSACTION, [], payment(2_000))
DONE = [
    *CREATED,
    TransactionCompleted(order=CREATED[0].order, request_hash="h1", balances=(), at_ms=0, steps=()),
]


@pytest.mark.parametrize(
    ("given", "changes", "reason"),
    [
        ([], {}, Reason.TRANSACTION_NOT_FOUND),
        (CREATED, {}, Reason.NOT_COMPLETED),
        (DONE, {"amount_minor": 1_999}, Reason.INVALID_COMMAND),
        (DONE, {"currency": "EUR"}, Reason.INVALID_COMMAND),
        (DONE, {"source_account_id": "carol"}, Reason.INVALID_COMMAND),
        (DONE, {"destination_account_id": "carol"}, Reason.INVALID_COMMAND),
        (DONE, {"fee_minor": -1}, Reason.INVALID_COMMAND),
    ],
)
def test_what_an_original_refuses(
    given: list[Any], changes: dict[str, Any], reason: Reason
) -> None:
    fee_minor = changes.get("fee_minor", 0)
    changes = {name: value for name, value in changes.items() if name != "fee_minor"}
    terms = Terms(original_transaction_id="t1", fee_minor=fee_minor)
    (asked,) = then(TRANSACTION, [], undoing(payment(2_000), terms=terms, **changes))
    assert isinstance(asked, TransactionCreated)
    (said,) = then(TRANSACTION, given, asked)
    assert isinstance(said, ReversalRefused)
    assert said.reason is reason


def test_what_undoes_is_not_undone_and_a_refund_is_of_a_payment_alone(town: Scenario) -> None:
    done(town, transfer(2_000))
    assert done(town, refund(transfer(2_000))).reason is Reason.NOT_REVERSIBLE
    done(town, undoing(transfer(2_000), transaction_id="r2"))
    again = undoing(undoing(transfer(2_000), transaction_id="r2"), transaction_id="r3")
    assert done(town, again).reason is Reason.NOT_REVERSIBLE


@pytest.mark.parametrize(
    "terms", [None, Terms(), Terms(original_transaction_id="")], ids=["none", "empty", "no id"]
)
def test_a_reversal_of_nothing_fails_at_once(terms: Terms | None) -> None:
    (said,) = then(TRANSACTION, [], undoing(payment(2_000), terms=terms))
    assert isinstance(said, TransactionFailed)
    assert said.reason is Reason.INVALID_COMMAND


def test_the_grant_leaves_the_table_in_time(town: Scenario) -> None:
    done(town, transfer(2_000))
    done(town, undoing(transfer(2_000)))
    town.wait(KEEP_FINAL_MS // 1000 + 1)
    assert not any(
        key.startswith(("reversal/", "transaction/")) for key in town.rows["transaction"]
    )
    assert done(town, undoing(transfer(2_000), transaction_id="r9")).reason is (
        Reason.TRANSACTION_NOT_FOUND
    )


def test_nothing_moves_before_the_grant() -> None:
    town = bank()
    done(town, transfer(2_000))
    town.send(undoing(transfer(2_000))).run(until=ReversalGranted)
    assert not any(isinstance(e, AccountDebited) and e.order.transaction_id == "r-t1"
                   for e in town.said)  # fmt: skip


def test_an_order_is_granted_or_refused_once_however_late_it_asks_again() -> None:
    """The second word would move money for an order that has failed."""
    (asked,) = then(TRANSACTION, [], undoing(payment(2_000)))
    refused = then(TRANSACTION, CREATED, asked)
    completed = [*CREATED, *refused, DONE[-1]]
    assert then(TRANSACTION, completed, asked) == []


def test_a_grant_that_was_taken_back_is_not_given_to_the_same_order_again(town: Scenario) -> None:
    done(town, transfer(2_000))
    town.freeze("ada").run()
    done(town, undoing(transfer(2_000)))
    (asked,) = [
        event
        for event in town.said
        if isinstance(event, TransactionCreated) and event.order.transaction_id == "r-t1"
    ]
    town.send(asked).run().check()
    assert town.rows["transaction"]["reversal/t1"].reversal_id is None


def test_what_was_cancelled_before_it_asked_is_not_granted() -> None:
    """It comes late where its message was put aside and given again."""
    town = bank()
    done(town, transfer(2_000))
    town.send(undoing(transfer(2_000))).run(until=TransactionCreated)
    put_aside = town.queue.copy()
    town.queue.clear()
    cancel = replace(town.cancel().queue.pop()[1], transaction_id="r-t1")
    town.send(cancel).run()
    town.queue.extend(put_aside)
    town.run().check()
    assert isinstance(town.final("r-t1"), TransactionCancelled)
    assert isinstance(
        done(town, undoing(transfer(2_000), transaction_id="r2")), TransactionCompleted
    )
