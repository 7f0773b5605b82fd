"""The model: exact, bounded, learns from events only, and its word changes a decision."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import given as when_given
from hypothesis import settings
from hypothesis import strategies as st

from domain.anomaly import FAR, LIMIT, MEMORY, MODEL, RIDGE, WARM, Learnt, log2
from domain.behaviour import FEATURES
from domain.risk import RISK, FeaturesExtracted
from domain.risk_config import DEFAULT, RiskConfigApplied
from domain.saga import ReviewRequested, RiskApproved
from schemas.codec import Codec
from tests.domain.stories import NOON_MS, approved, created, order, rows_of, then

DAY_MS = 24 * 3600 * 1000
Vector = tuple[int, ...]
vectors = st.tuples(*[st.integers(-2 * LIMIT, 2 * LIMIT)] * len(FEATURES))


def learnt(history: list[Vector]) -> Learnt:
    state: Learnt | None = None
    for vector in history:
        state = MODEL.update(state, vector)
    assert state is not None
    return state


def distance(state: Learnt, vector: Vector) -> Fraction:
    """d², by Gauss over fractions."""
    n, at = len(vector), 0
    away = [Fraction((x << 10) - m) for x, m in zip(vector, state.means, strict=True)]
    matrix = [[Fraction(0)] * n for _ in range(n)]
    for i in range(n):
        for j in range(i, n):
            matrix[i][j] = matrix[j][i] = Fraction(state.covariances[at])
            at += 1
        matrix[i][i] += RIDGE
    rows = [[*row, v] for row, v in zip(matrix, away, strict=True)]
    for k in range(n):
        for i in range(n):
            if i != k:
                by = rows[i][k] / rows[k][k]
                rows[i] = [a - by * b for a, b in zip(rows[i], rows[k], strict=True)]
    return sum((v * rows[i][n] / rows[i][i] for i, v in enumerate(away)), Fraction(0))


@settings(max_examples=30, deadline=None)
@when_given(st.lists(st.tuples(*[st.integers(-LIMIT, LIMIT)] * 6), min_size=WARM, max_size=40))
def test_the_score_is_the_distance(history: list[Vector]) -> None:
    state = learnt(history)
    for vector in (history[0], (LIMIT,) * 6, (0, 9_000, 0, 0, 1_000, 50)):
        d2 = distance(state, vector)
        assert MODEL.score(state, vector) == 100 * d2 // (d2 + FAR)


@settings(max_examples=30, deadline=None)
@when_given(st.lists(vectors, min_size=1, max_size=3), vectors)
def test_whatever_comes_it_stays_in_its_bounds(pattern: list[Vector], last: Vector) -> None:
    state = learnt(pattern * MEMORY)
    assert 0 <= MODEL.score(state, last) <= 100
    assert all(abs(x) < 2**63 for x in (*state.means, *state.covariances))
    assert Codec().decode(Codec().encode(state)) == state
    assert len(state.covariances) == 21


def test_it_says_nothing_before_it_knows_something() -> None:
    assert MODEL.score(None, (0,) * 6) == 0
    assert MODEL.score(learnt([(0,) * 6] * (WARM - 1)), (LIMIT,) * 6) == 0
    assert MODEL.score(learnt([(0,) * 6] * WARM), (LIMIT,) * 6) == 99


def test_features_that_never_came_together_lie_far_out() -> None:
    """Large by day, small by night: each value is common, large by night is not."""
    by_day, by_night = (17_000, 10_000, -1000, 0, 0, 0), (8_000, 10_000, 1000, 0, 0, 0)
    jitter = [(n % 7 * 100, n % 5 * 100, 0, 0, 0, 0) for n in range(60)]
    history = [
        tuple(a + b for a, b in zip(by_day if n % 2 else by_night, jitter[n], strict=True))
        for n in range(60)
    ]
    state = learnt(history)
    assert MODEL.score(state, by_day) < 40
    assert MODEL.score(state, by_night) < 40
    assert MODEL.score(state, (17_000, 10_000, 1000, 0, 0, 0)) > 75


def test_older_orders_fade() -> None:
    before = learnt([(8_000, 0, 0, 0, 0, 0)] * 200)
    unlike = (14_000, 0, 0, 0, 0, 0)
    assert MODEL.score(before, unlike) > 90
    state = before
    for _ in range(200):
        state = MODEL.update(state, unlike)
    assert MODEL.score(state, unlike) < 20


@when_given(st.integers(1, 2**60))
def test_log2_grows(n: int) -> None:
    assert log2(n) <= log2(n + 1)
    assert log2(2 * n) == log2(n) + 1000


def test_log2_of_powers() -> None:
    assert [log2(2**n) for n in range(4)] == [0, 1000, 2000, 3000]
    assert all(a < b for a, b in pairwise(log2(n) for n in (1, 2, 3, 4, 5, 6, 8)))


# in risk


def history() -> list[Any]:
    """Ada pays Bob some $20 at noon, day after day."""
    given: list[Any] = []
    for n in range(40):
        at_ms = NOON_MS - (40 - n) * DAY_MS
        it = order(
            transaction_id=f"d{n}",
            amount_minor=2_000 + n % 7 * 30,
            created_ms=at_ms,
            deadline_ms=at_ms,
        )
        given.append(replace(approved(it), at_ms=at_ms))
    return given


def configured(**changes: Any) -> RiskConfigApplied:
    config = replace(DEFAULT, features_from=0, **changes)
    return RiskConfigApplied(version=1, config=config, actor_id="eve", at_ms=NOON_MS)


UNLIKE = created(amount_minor=30_000, destination_account_id="cleo")


def test_its_word_changes_a_decision() -> None:
    alone = {"deviation_points": 0, "recipient_points": 0}
    given = [*history(), configured(**alone, anomaly_points=50)]
    said, told = then(RISK, given, UNLIKE)
    assert isinstance(said, ReviewRequested)
    assert said.rules == ("anomaly",)
    assert isinstance(told, FeaturesExtracted)
    assert told.anomaly >= DEFAULT.anomaly_from
    said, _ = then(RISK, given, created(amount_minor=2_050))
    assert isinstance(said, RiskApproved)
    said, told = then(RISK, [*history(), configured(**alone, anomaly_points=0)], UNLIKE)
    assert isinstance(said, RiskApproved)
    assert told.anomaly >= DEFAULT.anomaly_from  # it is said all the same


def test_by_default_it_needs_the_amount_to_agree() -> None:
    said, *_ = then(RISK, history(), UNLIKE)
    assert isinstance(said, ReviewRequested)
    assert said.rules == ("new_recipient", "deviation", "anomaly")


def test_a_replay_of_the_events_gives_the_same_score() -> None:
    codec = Codec()
    given = [*history(), configured()]
    first = then(RISK, given, UNLIKE)
    replayed = [codec.decode(codec.encode(event)) for event in given]
    assert rows_of(RISK, replayed) == rows_of(RISK, given)
    assert then(RISK, replayed, UNLIKE) == first
    again = [*given, *first]
    assert rows_of(RISK, [codec.decode(codec.encode(event)) for event in again]) == rows_of(
        RISK, again
    )


def test_what_was_not_approved_teaches_nothing() -> None:
    given = [*history(), configured()]
    before = rows_of(RISK, given)["customer/u-ada"].learnt
    said, *_ = then(RISK, given, UNLIKE)
    assert isinstance(said, ReviewRequested)
    assert rows_of(RISK, [*given, said])["customer/u-ada"].learnt == before
