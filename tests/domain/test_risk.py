"""Risk: each rule at its edge, reviews, the blacklist and the daily limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.blacklist import (
    AddToBlacklist,
    BlacklistApplied,
    BlacklistEntryAdded,
    BlacklistEntryRemoved,
    BlacklistKind,
    RemoveFromBlacklist,
)
from domain.risk import (
    RISK,
    DecideReview,
    ReviewDecided,
    ReviewStatus,
    RiskCommandRefused,
    RiskReleased,
)
from domain.saga import (
    Reason,
    ReviewRequested,
    RiskApproved,
    RiskDeclined,
    TransactionCancelled,
    TransactionFailed,
)
from tests.domain.stories import NOON_MS, created, order, then

DAY_MS = 24 * 3600 * 1000


def ordered(n: int, amount_minor: int = 1, **changes: Any) -> list[Any]:
    """So many orders of Ada, approved by what they were."""
    given: list[Any] = []
    for i in range(n):
        it = created(transaction_id=f"o{i}", amount_minor=amount_minor, **changes)
        given += then(RISK, given, it)
    return given


@pytest.mark.parametrize(
    ("given", "changes", "verdict", "rules"),
    [
        ([], {"amount_minor": 79_999}, RiskApproved, ()),
        (ordered(1), {"amount_minor": 80_000}, ReviewRequested, ("amount",)),
        ([], {"amount_minor": 80_000}, ReviewRequested, ("amount", "new_recipient")),
        ([], {"amount_minor": 100_001}, RiskDeclined, ("daily_limit", "amount", "new_recipient")),
        ([], {"amount_minor": 10**15, "privileged": True}, RiskApproved, ()),
        (ordered(29), {}, RiskApproved, ()),
        (ordered(30), {}, ReviewRequested, ("velocity",)),
        (ordered(60), {}, RiskDeclined, ("velocity",)),
        (ordered(60), {"privileged": True}, RiskApproved, ()),
        (ordered(60, privileged=True), {}, RiskApproved, ()),
        (ordered(30), {"amount_minor": 80_000}, RiskDeclined, ("velocity", "amount")),
        (ordered(1, 60_000), {"amount_minor": 40_000}, RiskApproved, ()),
        (ordered(1, 60_000), {"amount_minor": 40_001}, RiskDeclined, ("daily_limit",)),
        (ordered(1, 60_000), {"amount_minor": 70_000, "currency": "EUR"}, RiskApproved, ()),
    ],
)
def test_the_rules(
    given: list[Any], changes: dict[str, Any], verdict: type, rules: tuple[str, ...]
) -> None:
    said, *_ = then(RISK, given, created(**changes))
    assert isinstance(said, verdict)
    assert getattr(said, "rules", ()) == rules


@pytest.mark.parametrize(
    ("given", "changes", "reason"),
    [
        (ordered(60), {}, Reason.RISK_DECLINED),
        ([], {"amount_minor": 100_001}, Reason.DAILY_LIMIT),
        ([], {"deadline_ms": NOON_MS - 1}, Reason.DEADLINE_PASSED),
    ],
)
def test_the_reason(given: list[Any], changes: dict[str, Any], reason: Reason) -> None:
    said, *_ = then(RISK, given, created(**changes))
    assert said.reason is reason
    assert then(RISK, [*given, said], created(**changes)) == []


def test_a_new_minute_a_new_count() -> None:
    said, *_ = then(RISK, ordered(60), created(), NOON_MS + 60_000 - NOON_MS % 60_000)
    assert isinstance(said, RiskDeclined | RiskApproved)
    late = NOON_MS + 120_000
    (said,) = then(RISK, ordered(60), created(deadline_ms=late), late)
    assert isinstance(said, RiskApproved)


def test_a_new_day_a_new_limit() -> None:
    tomorrow = {"created_ms": NOON_MS + DAY_MS, "amount_minor": 79_000}
    (said,) = then(RISK, ordered(1, 79_000), created(**tomorrow))
    assert isinstance(said, RiskApproved)


def test_what_came_to_nothing_frees_the_limit_once() -> None:
    given = ordered(1, 79_000)
    failure = TransactionFailed(
        order=given[0].order,
        request_hash="",
        reason=Reason.ACCOUNT_CLOSED,
        balances=(),
        at_ms=NOON_MS,
        steps=(),
    )
    (said,) = then(RISK, given, failure)
    assert said == RiskReleased(owner_id="u-ada", transaction_id="o0", at_ms=NOON_MS)
    assert then(RISK, [*given, said], failure) == []
    again = then(RISK, [*given, said], created(amount_minor=79_000))
    assert isinstance(again[0], RiskApproved)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (BlacklistKind.USER, "u-ada"),
        (BlacklistKind.ACCOUNT, "ada"),
        (BlacklistKind.ACCOUNT, "bob"),
    ],
)
@pytest.mark.parametrize("privileged", [True, False])
def test_the_blacklist_binds_everybody(kind: BlacklistKind, value: str, privileged: bool) -> None:
    command = AddToBlacklist(kind=kind, value=value, note="fraud", actor_id="eve")
    (added,) = then(RISK, [], command)
    assert isinstance(added, BlacklistEntryAdded)
    (applied,) = then(RISK, [], added)
    assert isinstance(applied, BlacklistApplied)
    assert then(RISK, [applied], added) == []
    said, *_ = then(RISK, [applied], created(privileged=privileged))
    assert said.reason is Reason.BLACKLISTED
    off = RemoveFromBlacklist(kind=kind, value=value, actor_id="eve")
    (removed,) = then(RISK, [applied], off)
    assert isinstance(removed, BlacklistEntryRemoved)
    gone = then(RISK, [applied], removed)
    (said,) = then(RISK, [applied, *gone], created(privileged=privileged))
    assert isinstance(said, RiskApproved)


IN_REVIEW = then(RISK, [], created(amount_minor=90_000))
APPROVE = DecideReview(
    review_id="u-ada.t1", approve=True, deadline_s=60, actor_id="eve", note="known"
)


def test_an_approved_review_carries_a_new_deadline() -> None:
    at_ms = NOON_MS + 5 * 3600 * 1000
    word, said = then(RISK, IN_REVIEW, APPROVE, at_ms)
    assert isinstance(word, ReviewDecided)
    assert word.status is ReviewStatus.APPROVED
    assert isinstance(said, RiskApproved)
    assert said.order.deadline_ms == at_ms + 60_000
    assert then(RISK, [*IN_REVIEW, word, said], APPROVE, at_ms) == []


def test_an_approved_review_meets_the_daily_limit() -> None:
    given = IN_REVIEW + then(RISK, IN_REVIEW, created(transaction_id="t2", amount_minor=20_000))
    _, said = then(RISK, given, APPROVE)
    assert said.reason is Reason.DAILY_LIMIT


@pytest.mark.parametrize(
    ("given", "command", "reason"),
    [
        ([], APPROVE, Reason.REVIEW_NOT_FOUND),
        (IN_REVIEW, replace(APPROVE, actor_id="u-ada"), Reason.OWN_CASE),
        (IN_REVIEW, replace(APPROVE, deadline_s=0), Reason.INVALID_COMMAND),
        (
            IN_REVIEW + then(RISK, IN_REVIEW, replace(APPROVE, approve=False)),
            APPROVE,
            Reason.REVIEW_DECIDED,
        ),
    ],
)
def test_a_refused_decision(given: list[Any], command: DecideReview, reason: Reason) -> None:
    assert then(RISK, given, command) == [
        RiskCommandRefused(
            review_id="u-ada.t1", command="DecideReview", reason=reason, at_ms=NOON_MS
        )
    ]


def test_a_cancelled_transaction_withdraws_its_review() -> None:
    cancelled = TransactionCancelled(
        order=order(amount_minor=90_000), request_hash="", balances=(), at_ms=NOON_MS, steps=()
    )
    (word,) = then(RISK, IN_REVIEW, cancelled)
    assert word.status is ReviewStatus.WITHDRAWN
    (refusal,) = then(RISK, [*IN_REVIEW, word], APPROVE)
    assert refusal.reason is Reason.REVIEW_DECIDED
