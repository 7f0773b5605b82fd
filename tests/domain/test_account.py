"""Accounts: each refusal once, and what a yes looks like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.account import (
    ACCOUNT,
    AccountClosed,
    AccountCommandRefused,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    CloseAccount,
    CreditsGathered,
    FreezeAccount,
    LegClosed,
    LegsClosed,
    OpenAccount,
    ReturnSuspended,
    SourceLeg,
    UnfreezeAccount,
)
from domain.money import BALANCE_LIMIT_MINOR
from domain.saga import (
    AccountCredited,
    AccountDebited,
    CancelRequested,
    CancelTooLate,
    CreditRefused,
    DebitRefused,
    DebitReversed,
    Posting,
    Reason,
    TransactionType,
)
from tests.domain.stories import NOON_MS, approved, debited, deposit_order, order, then

LATE_MS = NOON_MS + 30_001
OPEN_ADA = OpenAccount(
    account_id="ada",
    user_id="u-ada",
    name="Savings",
    currencies=("USD", "JPY"),
    overdraft_limits={"USD": 100},
    actor_id="u-ada",
    request_hash="h",
)


def ada() -> list[Any]:
    return then(ACCOUNT, [], OPEN_ADA)


def bob() -> list[Any]:
    opening = replace(OPEN_ADA, account_id="bob", user_id="u-bob", currencies=("USD",))
    return then(ACCOUNT, [], opening)


def funded(amount_minor: int, name: str = "ada") -> list[Any]:
    """The account with this much in it."""
    given = ada() if name == "ada" else bob()
    it = deposit_order(transaction_id="d", amount_minor=amount_minor, destination_account_id=name)
    return given + then(ACCOUNT, given, approved(it))


def after(given: list[Any], *commands: Any) -> list[Any]:
    for command in commands:
        given = given + then(ACCOUNT, given, command)
    return given


FREEZE = FreezeAccount(account_id="ada", actor_id="ops")
UNFREEZE = UnfreezeAccount(account_id="ada", actor_id="ops")
CLOSE = CloseAccount(account_id="ada", actor_id="ops")


def test_opened_with_zero_in_each_currency() -> None:
    assert ada() == [
        AccountOpened(
            account_id="ada",
            user_id="u-ada",
            name="Savings",
            currencies=("USD", "JPY"),
            overdraft_limits={"USD": 100},
            request_hash="h",
            version=1,
            at_ms=NOON_MS,
        )
    ]


@pytest.mark.parametrize(
    ("given", "command", "reason"),
    [
        ([], FREEZE, Reason.ACCOUNT_NOT_FOUND),
        ([], UNFREEZE, Reason.ACCOUNT_NOT_FOUND),
        ([], CLOSE, Reason.ACCOUNT_NOT_FOUND),
        ([], replace(OPEN_ADA, currencies=("USD", "XXX")), Reason.CURRENCY_UNKNOWN),
        ([], replace(OPEN_ADA, currencies=()), Reason.CURRENCY_UNKNOWN),
        ([], replace(OPEN_ADA, currencies=("USD", "USD")), Reason.INVALID_COMMAND),
        ([], replace(OPEN_ADA, account_id="clearing"), Reason.INVALID_COMMAND),
        ([], replace(OPEN_ADA, overdraft_limits={"USD": -1}), Reason.INVALID_COMMAND),
        ([], replace(OPEN_ADA, overdraft_limits={"EUR": 1}), Reason.INVALID_COMMAND),
        (ada(), replace(OPEN_ADA, request_hash="other"), Reason.IDEMPOTENCY_MISMATCH),
        (after(ada(), CLOSE), FREEZE, Reason.ACCOUNT_CLOSED),
        (after(ada(), CLOSE), UNFREEZE, Reason.ACCOUNT_CLOSED),
        (after(ada(), FREEZE), CLOSE, Reason.ACCOUNT_FROZEN),
        (funded(1), CLOSE, Reason.BALANCE_NOT_ZERO),
        (after(funded(2_000), approved()), CLOSE, Reason.IN_FLIGHT),
        (
            ada(),
            ReturnSuspended(account_id="ada", transaction_id="t1", actor_id="ops"),
            Reason.NOT_SUSPENDED,
        ),
    ],
)
def test_a_refused_command(given: list[Any], command: Any, reason: Reason) -> None:
    assert then(ACCOUNT, given, command) == [
        AccountCommandRefused(
            account_id=command.account_id,
            command=type(command).__name__,
            reason=reason,
            at_ms=NOON_MS,
        )
    ]


@pytest.mark.parametrize(
    ("given", "command", "event", "version"),
    [
        (ada(), FREEZE, AccountFrozen, 2),
        (after(ada(), FREEZE), UNFREEZE, AccountUnfrozen, 3),
        (ada(), CLOSE, AccountClosed, 2),
        (after(ada(), FREEZE, UNFREEZE), CLOSE, AccountClosed, 4),
    ],
)
def test_a_life(given: list[Any], command: Any, event: type, version: int) -> None:
    said = event(account_id="ada", user_id="u-ada", version=version, at_ms=NOON_MS)
    assert then(ACCOUNT, given, command) == [said]


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (ada(), OPEN_ADA),
        (after(ada(), FREEZE), FREEZE),
        (ada(), UNFREEZE),
        (after(ada(), CLOSE), CLOSE),
    ],
)
def test_what_is_done_is_not_done_again(given: list[Any], command: Any) -> None:
    assert then(ACCOUNT, given, command) == []


@pytest.mark.parametrize(
    ("given", "changes", "at_ms", "reason"),
    [
        ([], {}, NOON_MS, Reason.ACCOUNT_NOT_FOUND),
        (funded(9_000), {"owner_id": "u-eve"}, NOON_MS, Reason.NOT_OWNER),
        (after(funded(9_000), FREEZE), {}, NOON_MS, Reason.ACCOUNT_FROZEN),
        (after(ada(), CLOSE), {}, NOON_MS, Reason.ACCOUNT_CLOSED),
        (funded(9_000), {"currency": "EUR"}, NOON_MS, Reason.CURRENCY_NOT_HELD),
        (funded(1_899), {}, NOON_MS, Reason.INSUFFICIENT_FUNDS),
        (funded(9_000), {}, LATE_MS, Reason.DEADLINE_PASSED),
    ],
)
def test_a_debit_refused(
    given: list[Any], changes: dict[str, Any], at_ms: int, reason: Reason
) -> None:
    (said,) = then(ACCOUNT, given, approved(order(**changes)), at_ms)
    assert isinstance(said, DebitRefused)
    assert said.reason is reason
    assert then(ACCOUNT, [*given, said], approved(order(**changes))) == []


def test_a_debit_goes_to_clearing_down_to_the_overdraft_limit() -> None:
    (said,) = then(ACCOUNT, funded(1_900), approved())
    assert isinstance(said, AccountDebited)
    assert said.postings == (
        Posting(account="ada", currency="USD", amount_minor=-2_000),
        Posting(account="clearing", currency="USD", amount_minor=2_000),
    )
    assert said.balances[0].after_minor == -100


@pytest.mark.parametrize(
    ("given", "changes", "at_ms", "reason"),
    [
        ([], {}, NOON_MS, Reason.ACCOUNT_NOT_FOUND),
        (after(bob(), replace(FREEZE, account_id="bob")), {}, NOON_MS, Reason.ACCOUNT_FROZEN),
        (after(bob(), replace(CLOSE, account_id="bob")), {}, NOON_MS, Reason.ACCOUNT_CLOSED),
        (bob(), {"currency": "JPY"}, NOON_MS, Reason.CURRENCY_NOT_HELD),
        (funded(BALANCE_LIMIT_MINOR - 1_999, "bob"), {}, NOON_MS, Reason.BALANCE_LIMIT),
        (bob(), {}, LATE_MS, Reason.DEADLINE_PASSED),
    ],
)
def test_a_credit_refused(
    given: list[Any], changes: dict[str, Any], at_ms: int, reason: Reason
) -> None:
    (said,) = then(ACCOUNT, given, debited(order(**changes)), at_ms)
    assert isinstance(said, CreditRefused)
    assert said.reason is reason
    assert then(ACCOUNT, [*given, said], debited(order(**changes))) == []


def test_a_credit_comes_from_clearing_up_to_the_balance_limit() -> None:
    given = funded(BALANCE_LIMIT_MINOR - 2_000, "bob")
    (said,) = then(ACCOUNT, given, debited())
    assert isinstance(said, AccountCredited)
    assert said.postings[0] == Posting(account="clearing", currency="USD", amount_minor=-2_000)
    assert said.balances[-1].after_minor == BALANCE_LIMIT_MINOR


def credit_refused(reason: Reason = Reason.ACCOUNT_CLOSED) -> CreditRefused:
    return CreditRefused(order=order(), reason=reason, balances=(), at_ms=NOON_MS, steps=())


def test_a_put_back_is_not_refused_on_a_frozen_account() -> None:
    given = after(funded(2_000), approved(), FREEZE)
    (said,) = then(ACCOUNT, given, credit_refused())
    assert isinstance(said, DebitReversed)
    assert said.balances[0].after_minor == 2_000
    assert then(ACCOUNT, [*given, said], credit_refused()) == []


def test_nothing_is_put_back_that_was_not_taken() -> None:
    assert then(ACCOUNT, funded(2_000), credit_refused()) == []


def cancel(changes: dict[str, Any]) -> CancelRequested:
    return CancelRequested(order=order(**changes), actor_id="u-ada", at_ms=NOON_MS, steps=())


def test_a_cancel_leaves_a_tombstone() -> None:
    (said,) = then(ACCOUNT, funded(9_000), cancel({}))
    assert isinstance(said, DebitRefused)
    assert said.reason is Reason.CANCELLED
    given = [*funded(9_000), said]
    assert then(ACCOUNT, given, approved()) == []
    assert then(ACCOUNT, given, cancel({})) == []


def test_a_cancel_after_the_debit_is_too_late() -> None:
    given = after(funded(9_000), approved())
    assert then(ACCOUNT, given, cancel({})) == [CancelTooLate(order=order(), at_ms=NOON_MS)]


def test_a_deposit_is_cancelled_at_its_destination() -> None:
    changes = {"type": TransactionType.DEPOSIT, "source_account_id": None}
    (said,) = then(ACCOUNT, bob(), cancel(changes))
    assert isinstance(said, CreditRefused)
    assert said.reason is Reason.CANCELLED


def test_legs_close_when_the_money_arrived() -> None:
    given = after(funded(2_000), approved())
    leg = SourceLeg(account_id="ada", transaction_id="t1")
    stranger = SourceLeg(account_id="ada", transaction_id="never debited")
    done = CreditsGathered(legs=(leg, stranger))
    (said,) = then(ACCOUNT, given, done)
    assert said == LegsClosed(legs=(leg,), at_ms=NOON_MS)
    alone = LegClosed(account_id="ada", transaction_id="t1", at_ms=NOON_MS)  # as in old logs
    for closed in (said, alone):
        assert then(ACCOUNT, [*given, closed], done) == []
        assert isinstance(then(ACCOUNT, [*given, closed], CLOSE)[0], AccountClosed)


def test_legs_of_one_account_close_together() -> None:
    legs = tuple(SourceLeg(account_id="ada", transaction_id=f"t{n}") for n in range(3))
    given = funded(6_000)
    for leg in legs:
        given = after(given, approved(order(transaction_id=leg.transaction_id)))
    assert then(ACCOUNT, given, CLOSE)[0].reason is Reason.IN_FLIGHT
    given = after(given, CreditsGathered(legs=legs[:2]))
    assert then(ACCOUNT, given, CLOSE)[0].reason is Reason.IN_FLIGHT
    given = after(given, CreditsGathered(legs=legs))
    assert isinstance(then(ACCOUNT, given, CLOSE)[0], AccountClosed)
