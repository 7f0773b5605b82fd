"""Transactions: what an order must be, and that it ends once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.saga import (
    AccountCredited,
    CancelRequested,
    DebitRefused,
    Rail,
    Reason,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import (
    TRANSACTION,
    CancelTransaction,
    CreateTransaction,
    TransactionCommandRefused,
)
from tests.domain.scenario import deposit, transfer, withdrawal
from tests.domain.stories import NOON_MS, then

CREATED = then(TRANSACTION, [], transfer(2_000))
ORDER = CREATED[0].order
CANCEL = CancelTransaction(transaction_id="t1", actor_id="u-ada")
CREDITED = AccountCredited(order=ORDER, postings=(), balances=(), at_ms=NOON_MS, steps=())
REFUSED = DebitRefused(order=ORDER, reason=Reason.INSUFFICIENT_FUNDS, at_ms=NOON_MS, steps=())


@pytest.mark.parametrize("command", [transfer(1), deposit("bob", 10**15), withdrawal(7)])
def test_an_order_is_taken_and_its_deadline_set(command: CreateTransaction) -> None:
    (said,) = then(TRANSACTION, [], command)
    assert isinstance(said, TransactionCreated)
    assert said.order.deadline_ms == NOON_MS + 30_000
    assert said.order.created_ms == NOON_MS
    assert then(TRANSACTION, [said], command) == []


def test_a_withdrawal_leaves_by_the_rail_whatever_was_asked_for() -> None:
    (said,) = then(TRANSACTION, [], withdrawal(7, rail=Rail.BOOK))
    assert said.order.rail is Rail.EXTERNAL


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (transfer(0), Reason.INVALID_COMMAND),
        (transfer(-1), Reason.INVALID_COMMAND),
        (transfer(10**15 + 1), Reason.INVALID_COMMAND),
        (transfer(1, currency="usd"), Reason.CURRENCY_UNKNOWN),
        (transfer(1, currency="XAU"), Reason.CURRENCY_UNKNOWN),
        (transfer(1, destination_account_id="ada"), Reason.INVALID_COMMAND),
        (transfer(1, destination_account_id=None), Reason.INVALID_COMMAND),
        (transfer(1, source_account_id=None), Reason.INVALID_COMMAND),
        (deposit("bob", 1, source_account_id="ada"), Reason.INVALID_COMMAND),
        (withdrawal(1, destination_account_id="bob"), Reason.INVALID_COMMAND),
        (transfer(1, deadline_s=0), Reason.INVALID_COMMAND),
        (transfer(1, deadline_s=10**9), Reason.INVALID_COMMAND),
        (transfer(1, deadline_s=2**63 - 1), Reason.INVALID_COMMAND),
        (transfer(1, owner_id=""), Reason.INVALID_COMMAND),
        (transfer(1, transaction_id="u.t1"), Reason.INVALID_COMMAND),
        (transfer(1, terms=Terms(quote_id="q1")), Reason.INVALID_COMMAND),
    ],
)
def test_an_order_that_makes_no_sense_fails_at_once(
    command: CreateTransaction, reason: Reason
) -> None:
    (said,) = then(TRANSACTION, [], command)
    assert isinstance(said, TransactionFailed)
    assert said.reason is reason
    assert said.order.deadline_ms < 2**63
    assert then(TRANSACTION, [said], command) == []


@pytest.mark.parametrize(
    ("given", "command", "reason"),
    [
        (CREATED, transfer(3, request_hash="other"), Reason.IDEMPOTENCY_MISMATCH),
        ([], CANCEL, Reason.TRANSACTION_NOT_FOUND),
        (CREATED + then(TRANSACTION, CREATED, CREDITED), CANCEL, Reason.TOO_LATE),
        (CREATED + then(TRANSACTION, CREATED, REFUSED), CANCEL, Reason.TOO_LATE),
    ],
)
def test_a_refused_command(given: list[Any], command: Any, reason: Reason) -> None:
    (said,) = then(TRANSACTION, given, command)
    assert isinstance(said, TransactionCommandRefused)
    assert (said.reason, said.command) == (reason, type(command).__name__)


def test_a_cancel_asks_who_decides() -> None:
    (said,) = then(TRANSACTION, CREATED, CANCEL)
    assert isinstance(said, CancelRequested)
    cancelled = then(TRANSACTION, CREATED, replace(REFUSED, reason=Reason.CANCELLED))
    assert isinstance(cancelled[0], TransactionCancelled)
    assert then(TRANSACTION, CREATED + cancelled, CANCEL) == []


@pytest.mark.parametrize("first", [CREDITED, REFUSED])
@pytest.mark.parametrize("second", [CREDITED, REFUSED])
def test_it_ends_once(first: Any, second: Any) -> None:
    (end,) = then(TRANSACTION, CREATED, first)
    assert isinstance(end, TransactionCompleted | TransactionFailed)
    assert then(TRANSACTION, [*CREATED, end], second) == []


def test_a_fact_of_a_transaction_forgotten_or_never_known_says_nothing() -> None:
    assert then(TRANSACTION, [], CREDITED) == []


def test_the_types_are_all_there() -> None:
    money_in_and_out = {"transfer", "deposit", "withdrawal", "payment", "exchange"}
    assert {*TransactionType} >= {*money_in_and_out, "refund", "reversal"}
