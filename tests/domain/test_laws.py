"""Money, the ledger, the bank's day, the clockwork of deciders and the subscription table."""

from __future__ import annotations

import dataclasses
import typing
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import saga
from domain.bank_day import bank_day, day_start_ms
from domain.decider import (
    EXPIRY_MS,
    KEEP_FINAL_MS,
    Due,
    Expiry,
    Overlay,
    Tick,
    due_at_ms,
    due_key,
    due_subject,
    expiry_key,
)
from domain.ledger import CLEARING, SYSTEM_ACCOUNTS, move, post_system, sums, system_key
from domain.money import EXPONENTS, decimal, is_amount, is_currency
from domain.notification import NOTIFICATION
from domain.payment import PAYMENT
from domain.payment_rail import LAST_DELAY_MS, delay_ms
from domain.saga import Posting, Reason, TransactionCompleted, TransactionFailed
from domain.services import DECIDERS
from tests.domain.scenario import Scenario, bank, transfer
from tests.domain.stories import NOON_MS, approved, debited, deposit_order, order, then
from topics.subscriptions import EVERY, SUBSCRIPTIONS, relays, route

amounts = st.integers(1, 10**15)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (1050, "USD", "10.50"),
        (1050, "JPY", "1050"),
        (1050, "BHD", "1.050"),
        (5, "USD", "0.05"),
        (-105, "USD", "-1.05"),
        (10**15, "EUR", "10000000000000.00"),
    ],
)
def test_money_as_people_write_it(amount_minor: int, currency: str, text: str) -> None:
    assert decimal(amount_minor, currency) == text


@given(st.integers(), st.sampled_from(sorted(EXPONENTS)))
def test_no_minor_unit_is_lost_in_writing(amount_minor: int, currency: str) -> None:
    assert int(decimal(amount_minor, currency).replace(".", "")) == amount_minor


def test_what_money_is() -> None:
    assert [is_amount(n) for n in (0, 1, 10**15, 10**15 + 1)] == [False, True, True, False]
    assert is_currency("USD")
    assert not any(map(is_currency, ("usd", "XXX", "XAU", "", "DOLLAR")))


@given(amounts)
def test_a_move_sums_to_zero(amount_minor: int) -> None:
    assert sums(move("USD", amount_minor, "ada", CLEARING)) == {"USD": 0}


@given(st.lists(st.tuples(amounts, st.booleans()), max_size=20))
def test_system_accounts_are_the_sum_of_their_postings(moves: list[tuple[int, bool]]) -> None:
    rows, expected = Overlay({}), 0
    for amount_minor, out in moves:
        pair = ("ada", CLEARING) if out else (CLEARING, "ada")
        rows.changes.update(post_system(rows, move("USD", amount_minor, *pair)))
        expected += amount_minor if out else -amount_minor
    row = rows.get(system_key(CLEARING, "USD"))
    assert (row.balance_minor if row else 0) == expected
    assert [key for key in rows if "ada" in key] == []


def test_postings_that_do_not_sum_to_zero_are_a_bug() -> None:
    crooked = (
        Posting(account="ada", currency="USD", amount_minor=-5),
        Posting(account=CLEARING, currency="EUR", amount_minor=5),
    )
    with pytest.raises(AssertionError, match="sum to zero"):
        post_system({}, crooked)
    assert "ada" not in SYSTEM_ACCOUNTS


@given(st.integers(1_585_530_000, 4_102_000_000))  # April 2020 to the end of 2099
def test_the_bank_s_day_is_the_day_in_zurich(at_s: int) -> None:
    local = datetime.fromtimestamp(at_s, ZoneInfo("Europe/Zurich"))
    days = (local.date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days
    assert bank_day(at_s * 1000) == days
    start_ms = day_start_ms(days)
    assert (bank_day(start_ms - 1), bank_day(start_ms)) == (days - 1, days)


@given(st.integers(0, 10**13 - 1), st.integers(0, 10**13 - 1))
def test_due_keys_sort_by_time(first_ms: int, second_ms: int) -> None:
    first, second = (due_key(at, "forget", "leg/t1/source") for at in (first_ms, second_ms))
    assert (first < second) == (first_ms < second_ms)
    assert due_at_ms(first) == first_ms
    assert due_subject(first) == "leg/t1/source"


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_ends_in_one_moment_leaves_together_and_never_early(one_ms: int, two_ms: int) -> None:
    one, two = due_at_ms(expiry_key(one_ms)), due_at_ms(expiry_key(two_ms))
    assert one_ms + KEEP_FINAL_MS < one <= one_ms + KEEP_FINAL_MS + EXPIRY_MS
    assert (one == two) == (one_ms // EXPIRY_MS == two_ms // EXPIRY_MS)


@given(st.integers(1, 10_000))
def test_the_rail_is_asked_at_growing_distances(attempt: int) -> None:
    assert 0 < delay_ms(attempt) <= delay_ms(attempt + 1) <= LAST_DELAY_MS


@pytest.mark.parametrize("service", DECIDERS)
def test_a_tick_for_nothing_says_nothing(service: str) -> None:
    decider = DECIDERS[service]
    gone = (due_key(1, "forget", "leg/t1/source"), due_key(1, "expire", "review/u.t1"))
    assert then(decider, [], Tick(due=gone)) == []
    assert {Due, Expiry} & set(decider.rows)
    assert Tick in decider.messages


def test_a_tick_before_its_time_changes_nothing() -> None:
    asked = then(PAYMENT, [], debited(order(rail=saga.Rail.EXTERNAL)))
    due = due_key(NOON_MS + 15_000, "ask", "payment/t1")
    assert then(PAYMENT, asked, Tick(due=(due,)), NOON_MS + 14_999) == []
    assert len(then(PAYMENT, asked, Tick(due=(due,)), NOON_MS + 15_000)) == 1


def test_all_types_can_be_asked_for_their_fields() -> None:
    for decider in DECIDERS.values():
        for kind in decider.messages + decider.events + decider.private_events + decider.rows:
            assert typing.get_type_hints(kind).keys() == {
                field.name for field in dataclasses.fields(kind)
            }
            assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
            assert kind.__doc__


def test_who_hears_a_fact_takes_it_and_who_says_it_says_it() -> None:
    said = {kind for d in DECIDERS.values() for kind in d.events + d.private_events}
    for row in SUBSCRIPTIONS:
        assert row.event in said
        heard = row.event
        if row.gathered is not None:
            heard = type(row.gathered.message(()))
            assert heard.__name__.encode() == row.gathered.name
        if row.topic.endswith(".inbox") and row.service in DECIDERS:
            assert heard in DECIDERS[row.service].messages, row


def test_every_fact_that_a_service_takes_is_routed_to_it() -> None:
    says = {kind for d in DECIDERS.values() for kind in d.events + d.private_events}
    for service, decider in DECIDERS.items():
        for kind in decider.messages:
            if kind in says:
                assert any(r.event is kind and r.service == service for r in SUBSCRIPTIONS), kind


@pytest.mark.parametrize(
    ("event", "routes"),
    [
        (approved(), {("account.inbox", "ada")}),
        (approved(deposit_order()), {("account.inbox", "bob")}),
        (debited(), {("account.inbox", "bob")}),
        (debited(order(rail=saga.Rail.EXTERNAL)), {("payment.inbox", "t1")}),
    ],
)
def test_routes(event: object, routes: set[tuple[str, str]]) -> None:
    assert set(route(event)) == routes


def failure(reason: Reason, privileged: bool = False) -> TransactionFailed:
    return TransactionFailed(
        order=order(privileged=privileged),
        request_hash="",
        reason=reason,
        balances=(),
        at_ms=NOON_MS,
        steps=(),
    )


def test_risk_hears_only_of_failures_that_may_have_reserved() -> None:
    assert route(failure(Reason.ACCOUNT_FROZEN)) == (("risk.inbox", "u-ada"),)
    assert route(failure(Reason.ACCOUNT_FROZEN, privileged=True)) == ()
    assert route(failure(Reason.DAILY_LIMIT)) == ()
    assert relays(failure(Reason.DAILY_LIMIT)) == (("notification.inbox", "u-ada"),)


def test_every_partition_hears_of_the_blacklist() -> None:
    keys = {row.key for row in SUBSCRIPTIONS if row.event.__name__.startswith("Blacklist")}
    assert keys == {EVERY}


def test_a_notification_is_requested_once() -> None:
    done = TransactionCompleted(
        order=order(), request_hash="", balances=(), at_ms=NOON_MS, steps=()
    )
    (said,) = then(NOTIFICATION, [], done)
    assert (said.user_id, said.template) == ("u-ada", "transaction_completed")
    assert said.channel == "in_app"
    assert then(NOTIFICATION, [said], done) == []
    (said,) = then(NOTIFICATION, [], failure(Reason.ACCOUNT_FROZEN))
    assert said.data["reason"] == "ACCOUNT_FROZEN"


people = st.sampled_from(("ada", "bob", "carol"))


@given(
    st.lists(
        st.tuples(people, people, st.integers(1, 60_000), st.sampled_from(saga.Rail)), max_size=12
    ),
    st.integers(1, 3),
)
def test_money_is_conserved_and_asked_often_is_asked_once(
    orders: list[tuple[str, str, int, saga.Rail]], times: int
) -> None:
    """However often each message is heard, the balances are those of hearing it once."""
    once, often = bank(), bank(times)
    for town in (once, often):
        for n, (source, destination, amount_minor, rail) in enumerate(orders):
            command = transfer(
                amount_minor,
                transaction_id=f"t{n}",
                source_account_id=source,
                destination_account_id=destination,
                owner_id=f"u-{source}",
                privileged=True,
                rail=rail,
            )
            town.send(command).run()
        town.check()
        assert sum(town.balances().values()) == 60_000
    assert often.balances() == once.balances()
    assert [type(event) for event in often.said] == [type(event) for event in once.said]


def test_every_reason_has_its_test() -> None:
    tables = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert not [reason for reason in Reason if f"Reason.{reason}" not in tables]


def hops(town: Scenario) -> int:
    """Messages handled up to the end of t1, the command among them."""
    names = [kind for kind in town.handled if kind[0] != "notification"]
    return len(names)


def test_a_book_transfer_takes_five_messages_to_its_end_and_one_after_it() -> None:
    town = bank()
    town.send(transfer(5)).run(until=TransactionCompleted)
    assert hops(town) == 5
    town.run()
    assert hops(town) == 6
