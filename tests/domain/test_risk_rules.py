"""Rules that look at a customer's own past, and the configuration that they obey."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given as when_given
from hypothesis import strategies as st

from domain import behaviour
from domain.behaviour import COSINES, FEATURES, MEMORY, SINES, Amounts, Customer, is_far_above
from domain.kyc import KycLevelSet
from domain.risk import RISK, FeaturesExtracted, KycLevelKept
from domain.risk_config import (
    DEFAULT,
    RiskConfig,
    RiskConfigApplied,
    RiskConfigRefused,
    RiskConfigSet,
    SetRiskConfig,
)
from domain.saga import Reason, ReviewRequested, RiskApproved, RiskDeclined
from tests.domain.stories import NOON_MS, approved, created, order, rows_of, then

DAY_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000
MIDNIGHT_MS = NOON_MS + 7 * HOUR_MS + 46 * 60_000 + 40_000  # on the bank's clock


def configured(version: int = 1, **changes: Any) -> RiskConfigApplied:
    return RiskConfigApplied(
        version=version, config=replace(DEFAULT, **changes), actor_id="eve", at_ms=NOON_MS
    )


def level(number: int) -> KycLevelKept:
    return KycLevelKept(user_id="u-ada", level=number, version=number + 1, at_ms=NOON_MS)


def at(at_ms: int, **changes: Any) -> Any:
    return created(created_ms=at_ms, deadline_ms=at_ms + 60_000, **changes)


def verdict(given: list[Any], it: Any, at_ms: int = NOON_MS) -> tuple[type, dict[str, int]]:
    """What is decided, and the points of each rule that spoke."""
    asked = [*given, configured(99, **_shown(given))]
    said, told = then(RISK, asked, it, at_ms)
    assert isinstance(told, FeaturesExtracted)
    return type(said), told.points


def _shown(given: list[Any]) -> dict[str, Any]:
    """The configuration that holds, saying every vector."""
    set_ = [event.config for event in given if isinstance(event, RiskConfigApplied)]
    config = set_[-1] if set_ else DEFAULT
    named = {name: getattr(config, name) for name in RiskConfig.__dataclass_fields__}
    return {**named, "features_from": 0}


def days(count: int, **changes: Any) -> list[Any]:
    """An approved order a day, at noon, the last of them yesterday."""
    given: list[Any] = []
    for n in range(count):
        at_ms = NOON_MS - (count - n) * DAY_MS
        changes = {"amount_minor": 2_000 + n % 5 * 10, **changes}
        it = order(transaction_id=f"d{n}", created_ms=at_ms, deadline_ms=at_ms, **changes)
        given.append(replace(approved(it), at_ms=at_ms))
    return given


KNOWN = days(1)  # Bob was paid before
TIGHT = configured(structuring_ppm=900_000)  # from 8,000 on is just below 80,000


@pytest.mark.parametrize(
    ("given", "it", "at_ms", "said", "points"),
    [
        ([], created(), NOON_MS, RiskApproved, {"new_recipient": 5}),
        (KNOWN, created(), NOON_MS, RiskApproved, {}),
        (
            KNOWN,
            created(destination_account_id="cleo"),
            NOON_MS,
            RiskApproved,
            {"new_recipient": 5},
        ),
        (KNOWN, created(destination_account_id=None), NOON_MS, RiskApproved, {}),
        (KNOWN, created(amount_minor=71_999), NOON_MS, RiskApproved, {}),
        (KNOWN, created(amount_minor=72_000), NOON_MS, RiskApproved, {"structuring": 10}),
        (KNOWN, created(amount_minor=79_999), NOON_MS, RiskApproved, {"structuring": 10}),
        (KNOWN, at(MIDNIGHT_MS - 30_000), MIDNIGHT_MS - 30_000, RiskApproved, {}),
        (KNOWN, at(MIDNIGHT_MS), MIDNIGHT_MS, RiskApproved, {"night": 5}),
        (KNOWN, at(MIDNIGHT_MS + 5 * HOUR_MS), MIDNIGHT_MS + 5 * HOUR_MS, RiskApproved, {}),
        (
            [*KNOWN, configured(night_from=12, night_to=2)],
            created(),
            NOON_MS,
            RiskApproved,
            {"night": 5},
        ),
        ([*KNOWN, configured(night_from=3, night_to=3)], created(), NOON_MS, RiskApproved, {}),
        (
            [*KNOWN, configured(night_from=3, night_to=3)],
            at(MIDNIGHT_MS),
            MIDNIGHT_MS,
            RiskApproved,
            {},
        ),
        (
            [*KNOWN, configured(recipient_points=100)],
            created(destination_account_id="cleo"),
            NOON_MS,
            RiskDeclined,
            {"new_recipient": 100},
        ),
        # levels: each its limits for one order, for a day, and for a person's look
        ([*KNOWN, level(1)], created(amount_minor=700_000), NOON_MS, RiskApproved, {}),
        (
            [*KNOWN, level(1)],
            created(amount_minor=800_000),
            NOON_MS,
            ReviewRequested,
            {"amount": 50},
        ),
        (
            [*KNOWN, level(1)],
            created(amount_minor=1_000_001),
            NOON_MS,
            RiskDeclined,
            {"transaction_limit": 100, "amount": 50},
        ),
        (
            [*KNOWN, level(1)],
            created(amount_minor=2_000_001),
            NOON_MS,
            RiskDeclined,
            {"daily_limit": 100, "amount": 50},
        ),
        ([*KNOWN, level(2)], created(amount_minor=7_000_000), NOON_MS, RiskApproved, {}),
        ([*KNOWN, level(9)], created(amount_minor=7_000_000), NOON_MS, RiskApproved, {}),
        # of 20 orders and more: far above what they were
        (days(19), created(amount_minor=60_000), NOON_MS, RiskApproved, {}),
        (days(20), created(amount_minor=2_100), NOON_MS, RiskApproved, {}),
        (
            [*days(20), configured(anomaly_points=0)],
            created(amount_minor=60_000),
            NOON_MS,
            RiskApproved,
            {"deviation": 25},
        ),
        (
            [*days(20), configured(anomaly_points=0)],
            created(amount_minor=60_000, currency="EUR"),
            NOON_MS,
            RiskApproved,
            {},
        ),
    ],
)
def test_a_rule_speaks(
    given: list[Any], it: Any, at_ms: int, said: type, points: dict[str, int]
) -> None:
    assert verdict(given, it, at_ms) == (said, points)


def test_the_reason_of_an_order_that_is_too_large_at_once() -> None:
    said, *_ = then(RISK, [level(1)], created(amount_minor=1_000_001))
    assert said.reason is Reason.TRANSACTION_LIMIT


@pytest.mark.parametrize("privileged", [True, False])
def test_rules_of_behaviour_bind_customers_alone(privileged: bool) -> None:
    given = [configured(recipient_points=100)]
    (said, *_) = then(RISK, given, created(privileged=privileged))
    assert isinstance(said, RiskApproved) is privileged


def test_orders_of_staff_leave_no_trace_of_behaviour() -> None:
    before = rows_of(RISK, KNOWN)["customer/u-ada"]
    after = rows_of(RISK, [*KNOWN, approved(order(privileged=True))])
    assert after["customer/u-ada"] == before


def repeated(n: int, **changes: Any) -> list[Any]:
    given = [*KNOWN, TIGHT, level(2), configured(2, structuring_ppm=900_000)]
    for i in range(n):
        given += then(RISK, given, created(transaction_id=f"r{i}", amount_minor=900_000, **changes))
    return given


def test_structuring_again_and_again_needs_a_person() -> None:
    it = created(amount_minor=900_000)
    assert verdict(repeated(1), it) == (RiskApproved, {"structuring": 10})
    assert verdict(repeated(2), it) == (ReviewRequested, {"structuring": 50})
    tomorrow = NOON_MS + DAY_MS
    it = at(tomorrow, amount_minor=900_000)
    assert verdict(repeated(2), it, tomorrow) == (RiskApproved, {"structuring": 10})


@pytest.mark.parametrize(
    ("changes", "orders", "said", "later_ms"),
    [
        ({"hour_review": 2}, 2, ReviewRequested, HOUR_MS),
        ({"hour_review": 1, "hour_decline": 2}, 2, RiskDeclined, HOUR_MS),
        ({"day_review": 2}, 2, ReviewRequested, DAY_MS),
        ({"day_review": 1, "day_decline": 2}, 2, RiskDeclined, DAY_MS),
    ],
)
def test_velocity_by_hour_and_day(
    changes: dict[str, Any], orders: int, said: type, later_ms: int
) -> None:
    given: list[Any] = [configured(**changes)]
    assert verdict([*given, *days(0)], created())[0] is RiskApproved
    for n in range(orders):
        it = order(transaction_id=f"v{n}")
        given.append(approved(it))
    assert verdict(given, created())[0] is said
    later = NOON_MS + later_ms
    assert verdict(given, at(later), later)[0] is RiskApproved


def test_a_recipient_is_known_while_paid_now_and_then() -> None:
    """A payment is remembered for 15 to 30 days; then its row leaves."""
    for days_later in (0, 14):
        later = NOON_MS + days_later * DAY_MS
        assert "new_recipient" not in verdict(KNOWN, at(later), later)[1]
    later = NOON_MS + 40 * DAY_MS
    assert "new_recipient" in verdict(KNOWN, at(later), later)[1]
    between = NOON_MS + 14 * DAY_MS
    again = approved(order(transaction_id="again", created_ms=between))
    kept = [*KNOWN, replace(again, at_ms=between)]
    later = NOON_MS + 26 * DAY_MS
    assert "new_recipient" not in verdict(kept, at(later), later)[1]


def test_the_clock_is_a_circle() -> None:
    assert len(COSINES) == len(SINES) == 24
    assert (COSINES[0], SINES[0], COSINES[6], SINES[6]) == (1000, 0, 0, 1000)
    assert (COSINES[12], SINES[12], COSINES[18], SINES[18]) == (-1000, 0, 0, -1000)
    assert all(abs(c * c + s * s - 10**6) < 1_000 for c, s in zip(COSINES, SINES, strict=True))


@when_given(
    st.lists(st.integers(1, 10**15), min_size=1, max_size=20),
    st.integers(1, 10**15),
    st.integers(0, 10_000),
)
def test_far_above_is_exact(amounts: list[int], amount: int, deviations_milli: int) -> None:
    seen = Amounts(
        orders=len(amounts), sum_minor=sum(amounts), squares=str(sum(a * a for a in amounts))
    )
    mean = Fraction(sum(amounts), len(amounts))
    variance = sum((a - mean) ** 2 for a in amounts) / len(amounts)
    k = Fraction(deviations_milli, 1000)
    variance = max(variance, Fraction(sum(amounts) ** 2 // 100, len(amounts) ** 2))
    wanted = amount > mean and (amount - mean) ** 2 > k * k * variance
    assert is_far_above(seen, amount, deviations_milli) is wanted


def test_amounts_fade_and_stay_small() -> None:
    customer = Customer(user_id="u-ada", amounts={})
    for _ in range(3 * MEMORY):
        customer = behaviour.learnt_from({}, customer, order(amount_minor=10**15), NOON_MS)
    amounts = customer.amounts["USD"]
    assert int(amounts.squares) == amounts.orders * 10**30
    assert MEMORY // 2 <= amounts.orders <= MEMORY
    assert amounts.sum_minor == amounts.orders * 10**15 < 2**63


# the level


def test_a_level_is_kept_once_and_the_last_said_holds() -> None:
    basic = KycLevelSet(user_id="u-ada", level=1, version=2, at_ms=NOON_MS)
    (kept,) = then(RISK, [], basic)
    assert kept == KycLevelKept(user_id="u-ada", level=1, version=2, at_ms=NOON_MS)
    assert then(RISK, [kept], basic) == []
    full = replace(basic, level=2, version=4)
    (fuller,) = then(RISK, [kept], full)
    assert then(RISK, [kept, fuller], basic) == []
    assert rows_of(RISK, [kept, fuller])["customer/u-ada"].level == 2


# the configuration


def setting(version: int = 0, **changes: Any) -> SetRiskConfig:
    return SetRiskConfig(config=replace(DEFAULT, **changes), version=version, actor_id="eve")


def test_a_configuration_is_set_applied_and_counted() -> None:
    (first,) = then(RISK, [], setting(minute_review=5))
    assert isinstance(first, RiskConfigSet)
    assert first.version == 1
    assert then(RISK, [first], first) == []  # where it was set it holds already
    (applied,) = then(RISK, [], first)
    assert isinstance(applied, RiskConfigApplied)
    assert then(RISK, [applied], first) == []
    assert then(RISK, [first], setting(minute_review=5)) == []  # the same again
    (second,) = then(RISK, [first], setting(1, minute_review=6))
    assert second.version == 2
    assert then(RISK, [second], first) == []  # overtaken
    given = [first, *[approved(order(transaction_id=f"c{n}")) for n in range(5)]]
    said, *_ = then(RISK, given, created())
    assert isinstance(said, ReviewRequested)


LEVEL = DEFAULT.levels[0]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (setting(1, minute_review=5), Reason.VERSION_PASSED),
        (setting(levels=DEFAULT.levels[:2]), Reason.INVALID_COMMAND),
        (setting(levels=(*DEFAULT.levels, LEVEL)), Reason.INVALID_COMMAND),
        (
            setting(levels=(replace(LEVEL, day_minor=1), *DEFAULT.levels[1:])),
            Reason.INVALID_COMMAND,
        ),
        (
            setting(levels=(replace(LEVEL, day_minor=10**15 + 1), *DEFAULT.levels[1:])),
            Reason.INVALID_COMMAND,
        ),
        (
            setting(levels=(replace(LEVEL, review_minor=0), *DEFAULT.levels[1:])),
            Reason.INVALID_COMMAND,
        ),
        (setting(amount_points=101), Reason.INVALID_COMMAND),
        (setting(night_points=-1), Reason.INVALID_COMMAND),
        (setting(minute_review=61), Reason.INVALID_COMMAND),
        (setting(hour_review=0), Reason.INVALID_COMMAND),
        (setting(review_from=0), Reason.INVALID_COMMAND),
        (setting(decline_from=101), Reason.INVALID_COMMAND),
        (setting(structuring_ppm=1_000_001), Reason.INVALID_COMMAND),
        (setting(structuring_orders=0), Reason.INVALID_COMMAND),
        (setting(night_to=25), Reason.INVALID_COMMAND),
        (setting(deviation_orders=0), Reason.INVALID_COMMAND),
        (setting(deviation_milli=-1), Reason.INVALID_COMMAND),
        (setting(anomaly_from=0), Reason.INVALID_COMMAND),
        (setting(features_from=102), Reason.INVALID_COMMAND),
        (setting(features_ppm=-1), Reason.INVALID_COMMAND),
    ],
)
def test_a_refused_configuration(command: SetRiskConfig, reason: Reason) -> None:
    assert then(RISK, [], command) == [RiskConfigRefused(reason=reason, at_ms=NOON_MS)]


# the vector


@pytest.mark.parametrize(
    ("changes", "it", "told"),
    [
        ({}, created(), False),
        ({}, created(amount_minor=80_000), True),
        ({}, created(amount_minor=200_000), True),
        ({"features_from": 5}, created(), True),
        ({"features_from": 101}, created(amount_minor=200_000), False),
        ({"features_ppm": 1_000_000}, created(), True),
        ({"features_ppm": 1_000_000}, created(privileged=True), False),
    ],
)
def test_when_the_vector_is_said(changes: dict[str, Any], it: Any, told: bool) -> None:
    said = then(RISK, [configured(**changes)], it)
    assert [type(event) for event in said[1:]] == [FeaturesExtracted] * told


def test_the_vector() -> None:
    said, told = then(RISK, KNOWN, created(amount_minor=80_000))
    assert isinstance(told, FeaturesExtracted)
    assert tuple(told.features) == FEATURES
    assert told.features["size"] == 16_220  # 2^16 < 80,000: thousandths, straight between powers
    assert told.features["new_recipient"] == 0
    assert (told.score, told.verdict, told.points) == (50, "in_review", {"amount": 50})
    assert (told.owner_id, told.transaction_id) == ("u-ada", said.order.transaction_id)


def test_a_part_of_the_vectors_is_the_same_part_each_time() -> None:
    config = configured(features_ppm=300_000)
    told = [len(then(RISK, [config], created(transaction_id=f"s{n}"))) == 2 for n in range(200)]
    assert 30 < sum(told) < 90
    assert told[:20] == [
        len(then(RISK, [config], created(transaction_id=f"s{n}"))) == 2 for n in range(20)
    ]
