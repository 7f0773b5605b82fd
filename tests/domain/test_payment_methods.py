"""Payment methods: given what was said, when a command comes, then what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.decider import Overlay, apply
from domain.payment import PAYMENT
from domain.payment_methods import (
    METHODS_LIMIT,
    PaymentMethodAdded,
    PaymentMethodCommandRefused,
    PaymentMethodRemoved,
    PaymentMethods,
    RemovePaymentMethod,
    methods_key,
)
from domain.saga import Reason
from tests.domain.scenario import IBAN, method
from tests.domain.stories import NOON_MS, then

REMOVE = RemovePaymentMethod(method_id="u-bob.card", user_id="u-bob", actor_id="u-bob")


def had(*methods: Any) -> list[Any]:
    """What was said when these were added."""
    rows, said = Overlay({}), []
    for command in methods:
        events = PAYMENT.decide(rows, command, NOON_MS)
        apply(PAYMENT, rows, events)
        said += events
    return said


def test_a_card_is_kept_without_its_number() -> None:
    (added,) = then(PAYMENT, [], method())
    assert isinstance(added, PaymentMethodAdded)
    assert (added.brand, added.last_four, added.token) == ("visa", "4242", "tok-u-bob.card")


def test_an_iban_is_kept() -> None:
    (added,) = then(PAYMENT, [], method("u-bob.iban", **IBAN))
    assert (added.country, added.expiry_month) == ("DE", 0)


def test_asked_twice_is_asked_once() -> None:
    assert then(PAYMENT, had(method()), method()) == []
    removed = then(PAYMENT, had(method()), REMOVE)
    assert then(PAYMENT, [*had(method()), *removed], REMOVE) == []


def test_a_removed_one_is_listed_no_more() -> None:
    given = had(method(), method("u-bob.other"))
    (removed,) = then(PAYMENT, given, REMOVE)
    assert isinstance(removed, PaymentMethodRemoved)
    rows = Overlay({})
    apply(PAYMENT, rows, [*given, removed])
    listed = PaymentMethods(user_id="u-bob", method_ids=("u-bob.other",))
    assert rows[methods_key("u-bob")] == listed


MANY = [method(f"u-bob.{number}") for number in range(METHODS_LIMIT)]


@pytest.mark.parametrize(
    ("given", "when", "reason"),
    [
        ([method()], replace(method(), request_hash="h2"), Reason.IDEMPOTENCY_MISMATCH),
        ([], method(user_id="u-ada"), Reason.INVALID_COMMAND),
        ([], method(token=""), Reason.INVALID_COMMAND),
        ([], method(last_four="4242424242424242"), Reason.INVALID_COMMAND),
        ([], method(expiry_month=13), Reason.INVALID_COMMAND),
        ([], method("u-bob.iban", **{**IBAN, "expiry_month": 1}), Reason.INVALID_COMMAND),
        ([], method(expiry_year=2026, expiry_month=8), Reason.PAYMENT_METHOD_EXPIRED),
        (MANY, method(), Reason.PAYMENT_METHOD_LIMIT),
        ([], REMOVE, Reason.PAYMENT_METHOD_NOT_FOUND),
        ([method()], replace(REMOVE, user_id="u-ada"), Reason.PAYMENT_METHOD_NOT_FOUND),
    ],
)
def test_refusals(given: list[Any], when: Any, reason: Reason) -> None:
    (refused,) = then(PAYMENT, had(*given), when)
    assert isinstance(refused, PaymentMethodCommandRefused)
    assert refused.reason is reason


def test_a_card_is_good_to_the_end_of_its_month() -> None:
    command = method(expiry_year=2026, expiry_month=9)  # noon is in September 2026
    assert isinstance(then(PAYMENT, [], command)[0], PaymentMethodAdded)
