"""The blacklist: whatever takes part in an order, and the accounts of a user who is on it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from domain.account import AccountOpened
from domain.blacklist import (
    AddToBlacklist,
    BlacklistApplied,
    BlacklistEntryAdded,
    BlacklistEntryRemoved,
    BlacklistKind,
    HeldAccountKept,
    OwnerBarred,
    RemoveFromBlacklist,
)
from domain.risk import RISK
from domain.saga import Client, Reason, RiskApproved, RiskDeclined
from tests.domain.scenario import bank, deposit, opening, transfer
from tests.domain.stories import NOON_MS, created, rows_of, then

CLIENT = Client(
    addresses=("203.0.113.9", "203.0.113.0/24"), iban="DE89370400440532013000", countries=("DE",)
)


def listed(kind: BlacklistKind, value: str) -> BlacklistApplied:
    return BlacklistApplied(kind=kind, value=value, note="", present=True, at_ms=NOON_MS)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (BlacklistKind.ADDRESS, "203.0.113.9"),
        (BlacklistKind.ADDRESS, "203.0.113.0/24"),
        (BlacklistKind.IBAN, "DE89370400440532013000"),
        (BlacklistKind.COUNTRY, "DE"),
    ],
)
def test_what_the_gateway_knows_of_the_client(kind: BlacklistKind, value: str) -> None:
    given = [listed(kind, value)]
    said, *_ = then(RISK, given, replace(created(), client=CLIENT))
    assert isinstance(said, RiskDeclined)
    assert said.reason is Reason.BLACKLISTED
    said, *_ = then(RISK, given, created())
    assert isinstance(said, RiskApproved)
    other = Client(addresses=("198.51.100.1",), iban="", countries=("FR",))
    said, *_ = then(RISK, given, replace(created(), client=other))
    assert isinstance(said, RiskApproved)


def opened(account_id: str, user_id: str = "u-bob") -> AccountOpened:
    return AccountOpened(
        account_id=account_id,
        user_id=user_id,
        name="",
        currencies=("USD",),
        overdraft_limits={},
        request_hash="",
        version=1,
        at_ms=NOON_MS,
    )


class Partition:
    """Bob's own partition of risk, which hears all that is said to each."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def hear(self, *messages: Any) -> Partition:
        queue = deque(messages)
        while queue:
            said = then(RISK, self.events, queue.popleft())
            self.events += said
            heard = (BlacklistEntryAdded, BlacklistEntryRemoved, OwnerBarred)
            queue += [event for event in said if isinstance(event, heard)]
        return self

    def barred(self) -> set[str]:
        rows = rows_of(RISK, self.events)
        return {key.removeprefix("blacklist/") for key in rows if key.startswith("blacklist/")}


ADD = AddToBlacklist(kind=BlacklistKind.USER, value="u-bob", note="fraud", actor_id="eve")
REMOVE = RemoveFromBlacklist(kind=BlacklistKind.USER, value="u-bob", actor_id="eve")
OF_BOB = {"user/u-bob", "account/b1", "account/b2", "account/b3"}


def test_all_accounts_of_a_listed_user_are_barred() -> None:
    town = Partition().hear(opened("b1"), opened("b2"), opened("b3"), opened("c1", "u-cleo"))
    assert town.hear(ADD).barred() == OF_BOB
    said, *_ = then(RISK, town.events, created(destination_account_id="b2"))
    assert said.reason is Reason.BLACKLISTED
    assert town.hear(REMOVE).barred() == set()
    assert town.hear(REMOVE).barred() == set()


def test_an_account_that_a_listed_user_opens_is_barred_at_once() -> None:
    town = Partition().hear(ADD).hear(opened("b1")).hear(opened("b2"))
    assert town.barred() == OF_BOB - {"account/b3"}


def test_an_account_is_kept_once() -> None:
    town = Partition().hear(opened("b1"), opened("b2"), opened("b1"), opened("b2"))
    kept = [event for event in town.events if isinstance(event, HeldAccountKept)]
    assert [(event.account_id, event.before) for event in kept] == [("b1", None), ("b2", "b1")]


def test_an_account_that_is_listed_by_itself_stays_so() -> None:
    by_itself = replace(ADD, kind=BlacklistKind.ACCOUNT, value="b2")
    town = Partition().hear(opened("b1"), opened("b2"), ADD, by_itself, REMOVE)
    assert town.barred() == {"account/b2"}
    off = RemoveFromBlacklist(kind=BlacklistKind.ACCOUNT, value="b2", actor_id="eve")
    assert town.hear(off).barred() == set()
    town.hear(by_itself, ADD, off)
    assert town.barred() == OF_BOB - {"account/b3"}


def test_a_new_note_bars_nothing_twice() -> None:
    town = Partition().hear(opened("b1"), ADD)
    said = len(town.events)
    assert [type(event) for event in town.hear(ADD).events[said:]] == [BlacklistEntryAdded]
    town.hear(replace(ADD, note="convicted"))
    assert rows_of(RISK, town.events)["blacklist/user/u-bob"].note == "convicted"
    assert town.barred() == {"user/u-bob", "account/b1"}


def test_bars_that_cross_end_as_the_user_is() -> None:
    """Removed while the accounts are still being barred: the walk goes on as the user is now."""
    given = Partition().hear(opened("b1"), opened("b2")).events
    (added,) = then(RISK, given, ADD)
    given = [*given, added]
    applied, bar = then(RISK, given, added)
    given += [applied, bar]
    (removed,) = then(RISK, given, REMOVE)
    off, unbar = then(RISK, [*given, removed], removed)
    town = Partition()
    town.events = [*given, removed, off, unbar]
    assert town.hear(bar).barred() == {"account/b2"}  # and not the one before it
    assert town.hear(unbar).barred() == set()


def test_a_listed_user_can_not_receive() -> None:
    town = bank()
    town.send(opening("bob2", "u-bob"), "account").run()
    town.send(replace(ADD), "risk").run()
    town.send(transfer(500)).run()
    assert town.final().reason is Reason.BLACKLISTED
    town.send(transfer(500, transaction_id="t2", destination_account_id="bob2")).run()
    assert town.final("t2").reason is Reason.BLACKLISTED
    town.send(deposit("bob2", 5)).run()
    assert town.final("d-bob2").reason is Reason.BLACKLISTED
    town.send(REMOVE, "risk").run()
    town.send(transfer(500, transaction_id="t3")).run()
    assert town.balances()["bob"] == 10_500
    town.check()
