"""Holds: each refusal once, what a capture takes and leaves, and what ends a hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.account import (
    ACCOUNT,
    Account,
    AccountArchived,
    AccountCommandRefused,
    ArchiveAccount,
    CloseAccount,
    FreezeAccount,
    UnfreezeAccount,
)
from domain.decider import KEEP_FINAL_MS, Overlay, Tick, apply, due_key
from domain.holds import (
    EXPIRE,
    HOLD_LIMIT_S,
    Hold,
    HoldExpired,
    HoldPlaced,
    HoldRefused,
    HoldStatus,
    HoldVoided,
    PlaceHold,
    VoidHold,
)
from domain.saga import (
    AccountDebited,
    CancelRequested,
    CreditRefused,
    DebitRefused,
    DebitReversed,
    Order,
    Rail,
    Reason,
    Terms,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import TRANSACTION
from tests.domain.scenario import transfer
from tests.domain.stories import NOON_MS, approved, order, then
from tests.domain.test_account import ada, after, funded

DAY_S = 24 * 3600
PLACE = PlaceHold(
    hold_id="ada.h1",
    account_id="ada",
    owner_id="u-ada",
    amount_minor=1_500,
    currency="USD",
    destination_account_id="bob",
    expires_s=DAY_S,
    description="Hotel",
    reference="room 7",
    actor_id="u-ada",
    request_hash="h",
)
VOID = VoidHold(hold_id="ada.h1", account_id="ada", actor_id="u-ada")
EXPIRES_MS = NOON_MS + DAY_S * 1000
TIME_IS_OVER = Tick(due=(due_key(EXPIRES_MS, EXPIRE, "hold/ada.h1"),))
CLOSE = CloseAccount(account_id="ada", actor_id="ops")
ARCHIVE = ArchiveAccount(account_id="ada", actor_id="ops")
FREEZE = FreezeAccount(account_id="ada", actor_id="ops")


def held(funds_minor: int = 2_000) -> list[Any]:
    """Ada has this much, of which 15.00 are held for Bob."""
    return after(funded(funds_minor), PLACE)


def capture(amount_minor: int = 1_500, **changes: Any) -> Order:
    return order(
        **{
            "type": TransactionType.CAPTURE,
            "amount_minor": amount_minor,
            "terms": Terms(hold_id="ada.h1"),
            **changes,
        }
    )


def captured(amount_minor: int = 1_500) -> list[Any]:
    return after(held(), approved(capture(amount_minor)))


def rows(given: list[Any]) -> tuple[Account, Hold]:
    overlay = Overlay({})
    apply(ACCOUNT, overlay, given)
    return overlay["account/ada"], overlay["hold/ada.h1"]


def test_what_is_held_is_not_available_and_stays_in_the_balance() -> None:
    account, hold = rows(held())
    assert (account.balances["USD"], account.held, account.available("USD")) == (
        2_000,
        {"USD": 1_500},
        600,  # with an overdraft of 1.00
    )
    assert (hold.status, hold.expires_ms, hold.version) == (HoldStatus.OPEN, EXPIRES_MS, 1)
    assert account.version == 3


@pytest.mark.parametrize(
    ("given", "changes", "reason"),
    [
        ([], {}, Reason.ACCOUNT_NOT_FOUND),
        (funded(2_000), {"owner_id": "u-eve"}, Reason.NOT_OWNER),
        (funded(2_000), {"amount_minor": 2_101}, Reason.INSUFFICIENT_FUNDS),
        (held(), {"hold_id": "ada.h2", "amount_minor": 601}, Reason.INSUFFICIENT_FUNDS),
        (funded(2_000), {"currency": "EUR"}, Reason.CURRENCY_NOT_HELD),
        (after(funded(2_000), FREEZE), {}, Reason.ACCOUNT_FROZEN),
        (after(ada(), CLOSE), {}, Reason.ACCOUNT_CLOSED),
        (after(ada(), CLOSE, ARCHIVE), {}, Reason.ACCOUNT_CLOSED),
        (funded(2_000), {"hold_id": "bob.h1"}, Reason.INVALID_COMMAND),
        (funded(2_000), {"hold_id": "ada."}, Reason.INVALID_COMMAND),
        (funded(2_000), {"hold_id": "ada.a/b"}, Reason.INVALID_COMMAND),
        (funded(2_000), {"destination_account_id": "ada"}, Reason.INVALID_COMMAND),
        (funded(2_000), {"amount_minor": 0}, Reason.INVALID_COMMAND),
        (funded(2_000), {"expires_s": 0}, Reason.INVALID_COMMAND),
        (funded(2_000), {"expires_s": HOLD_LIMIT_S + 1}, Reason.INVALID_COMMAND),
    ],
)
def test_not_held_and_remembered(given: list[Any], changes: dict[str, Any], reason: Reason) -> None:
    command = replace(PLACE, **changes)
    (refused,) = then(ACCOUNT, given, command)
    assert isinstance(refused, HoldRefused)
    assert refused.reason is reason
    assert then(ACCOUNT, [*given, refused], command) == []


def test_all_that_is_available_can_be_held() -> None:
    (placed,) = then(ACCOUNT, funded(2_000), replace(PLACE, amount_minor=2_100))
    assert isinstance(placed, HoldPlaced)


def test_placed_twice_is_placed_once_and_an_id_has_one_body() -> None:
    assert then(ACCOUNT, held(), PLACE) == []
    (refused,) = then(ACCOUNT, held(), replace(PLACE, request_hash="other"))
    assert isinstance(refused, AccountCommandRefused)
    assert refused.reason is Reason.IDEMPOTENCY_MISMATCH


def test_other_debits_see_what_is_left() -> None:
    (refused,) = then(ACCOUNT, held(), approved(order(amount_minor=601)))
    assert isinstance(refused, DebitRefused)
    assert refused.reason is Reason.INSUFFICIENT_FUNDS
    (debited,) = then(ACCOUNT, held(), approved(order(amount_minor=600)))
    assert isinstance(debited, AccountDebited)


@pytest.mark.parametrize("amount_minor", [1_500, 400])
def test_a_capture_takes_its_amount_and_lets_go_of_the_rest(amount_minor: int) -> None:
    account, hold = rows(captured(amount_minor))
    assert account.balances["USD"] == 2_000 - amount_minor
    assert account.held == {}
    assert (hold.status, hold.captured_minor, hold.transaction_id) == (
        HoldStatus.CAPTURED,
        amount_minor,
        "t1",
    )


def test_a_capture_needs_no_more_than_what_is_held() -> None:
    """All else was spent, down to the overdraft."""
    spent = after(held(), approved(order(transaction_id="t0", amount_minor=600)))
    (debited,) = then(ACCOUNT, spent, approved(capture()))
    assert isinstance(debited, AccountDebited)
    assert debited.balances[0].after_minor == -100


@pytest.mark.parametrize(
    ("given", "it", "reason"),
    [
        (funded(2_000), capture(), Reason.HOLD_NOT_FOUND),
        (held(), capture(1_501), Reason.HOLD_EXCEEDED),
        (after(held(), VOID), capture(), Reason.HOLD_NOT_OPEN),
        (captured(1), capture(transaction_id="t2"), Reason.HOLD_NOT_OPEN),
        (after(held(), FREEZE), capture(), Reason.ACCOUNT_FROZEN),
        (held(), capture(destination_account_id="eve"), Reason.INVALID_COMMAND),
        (
            held(),
            capture(destination_account_id=None, rail=Rail.EXTERNAL),
            Reason.INVALID_COMMAND,
        ),
        (held(), capture(currency="JPY"), Reason.INVALID_COMMAND),
        (after(funded(2_000), replace(PLACE, amount_minor=2_101)), capture(), Reason.HOLD_NOT_OPEN),
    ],
)
def test_captures_that_are_refused(given: list[Any], it: Order, reason: Reason) -> None:
    (refused,) = then(ACCOUNT, given, approved(it))
    assert isinstance(refused, DebitRefused)
    assert refused.reason is reason


def test_a_refused_capture_leaves_the_hold() -> None:
    given = after(held(), FREEZE, approved(capture()))
    assert rows(given)[1].status is HoldStatus.OPEN
    thawed = after(given, UnfreezeAccount(account_id="ada", actor_id="ops"))
    (debited,) = then(ACCOUNT, thawed, approved(capture(transaction_id="t2")))
    assert isinstance(debited, AccountDebited)


def test_a_cancelled_capture_leaves_the_hold() -> None:
    cancel = CancelRequested(order=capture(), actor_id="u-ada", at_ms=NOON_MS, steps=())
    assert rows(after(held(), cancel))[1].status is HoldStatus.OPEN


def test_a_captured_amount_that_comes_back_is_available_and_the_hold_is_used_up() -> None:
    given = captured(400)
    refusal = CreditRefused(
        order=capture(400), reason=Reason.ACCOUNT_FROZEN, balances=(), at_ms=NOON_MS, steps=()
    )
    (reversed_,) = then(ACCOUNT, given, refusal)
    assert isinstance(reversed_, DebitReversed)
    account, hold = rows([*given, reversed_])
    assert (account.balances["USD"], account.held) == (2_000, {})
    assert (hold.status, hold.captured_minor) == (HoldStatus.RETURNED, 0)


def test_a_void_lets_go_once() -> None:
    (voided,) = then(ACCOUNT, held(), VOID)
    assert isinstance(voided, HoldVoided)
    given = [*held(), voided]
    assert rows(given)[0].available("USD") == 2_100
    assert then(ACCOUNT, given, VOID) == []
    assert then(ACCOUNT, given, TIME_IS_OVER, EXPIRES_MS) == []


@pytest.mark.parametrize(
    ("given", "command", "reason"),
    [
        (funded(2_000), VOID, Reason.HOLD_NOT_FOUND),
        (held(), replace(VOID, account_id="bob"), Reason.HOLD_NOT_FOUND),
        (captured(), VOID, Reason.HOLD_NOT_OPEN),
        (held(), CLOSE, Reason.IN_FLIGHT),
        (ada(), ARCHIVE, Reason.ACCOUNT_NOT_CLOSED),
        ([], ARCHIVE, Reason.ACCOUNT_NOT_FOUND),
        (after(ada(), CLOSE, ARCHIVE), CLOSE, Reason.ACCOUNT_CLOSED),
        (after(ada(), CLOSE, ARCHIVE), FREEZE, Reason.ACCOUNT_CLOSED),
    ],
)
def test_commands_that_are_refused(given: list[Any], command: Any, reason: Reason) -> None:
    (refused,) = then(ACCOUNT, given, command)
    assert isinstance(refused, AccountCommandRefused)
    assert refused.reason is reason


def test_a_hold_expires_when_its_time_is_over_and_not_before() -> None:
    assert then(ACCOUNT, held(), TIME_IS_OVER, EXPIRES_MS - 1) == []
    (expired,) = then(ACCOUNT, held(), TIME_IS_OVER, EXPIRES_MS)
    assert isinstance(expired, HoldExpired)
    account, hold = rows([*held(), expired])
    assert (account.held, hold.status) == ({}, HoldStatus.EXPIRED)
    assert then(ACCOUNT, [*held(), expired], TIME_IS_OVER, EXPIRES_MS) == []


def test_holds_that_expire_together_count_the_account_on() -> None:
    given = after(held(), replace(PLACE, hold_id="ada.h2", amount_minor=100))
    keys = (due_key(EXPIRES_MS, EXPIRE, f"hold/ada.h{n}") for n in (1, 2))
    expired = then(ACCOUNT, given, Tick(due=tuple(keys)), EXPIRES_MS)
    assert [event.version for event in expired] == [5, 6]
    assert rows([*given, *expired])[0].held == {}


def test_an_ended_hold_leaves_the_table_in_time() -> None:
    overlay = Overlay({})
    apply(ACCOUNT, overlay, after(held(), VOID))
    (due,) = (key for key in overlay if key.startswith("due/") and "hold/" not in key)
    assert not any(key.startswith("due/") and EXPIRE in key for key in overlay)
    late = NOON_MS + 2 * KEEP_FINAL_MS
    events = ACCOUNT.decide(overlay, Tick(due=(due,)), late)
    apply(ACCOUNT, overlay, events)
    assert "hold/ada.h1" not in overlay


def test_a_closed_account_is_archived_once() -> None:
    closed = after(ada(), CLOSE)
    (archived,) = then(ACCOUNT, closed, ARCHIVE)
    assert isinstance(archived, AccountArchived)
    assert then(ACCOUNT, [*closed, archived], ARCHIVE) == []


CAPTURE = transfer(
    1_500,
    type=TransactionType.CAPTURE,
    source_account_id="ada",
    destination_account_id="bob",
    terms=Terms(hold_id="ada.h1"),
)


@pytest.mark.parametrize(
    "command",
    [
        replace(CAPTURE, terms=None),
        replace(CAPTURE, terms=Terms()),
        replace(CAPTURE, terms=Terms(hold_id="bob.h1")),
        replace(CAPTURE, type=TransactionType.TRANSFER),
    ],
)
def test_a_capture_names_a_hold_on_its_source_and_nothing_else_does(command: Any) -> None:
    (failed,) = then(TRANSACTION, [], command)
    assert isinstance(failed, TransactionFailed)
    assert failed.reason is Reason.INVALID_COMMAND


@pytest.mark.parametrize(("destination", "rail"), [("bob", Rail.BOOK), (None, Rail.EXTERNAL)])
def test_a_capture_goes_where_its_hold_says(destination: str | None, rail: Rail) -> None:
    (created,) = then(TRANSACTION, [], replace(CAPTURE, destination_account_id=destination))
    assert (created.order.rail, created.order.terms) == (rail, Terms(hold_id="ada.h1"))
