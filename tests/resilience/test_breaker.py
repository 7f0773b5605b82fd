"""The breaker as a table of what happened and what it says then."""

from __future__ import annotations

import pytest

from resilience.breaker import Breaker, Limits, Rejected, State


def breaker(least_calls: int = 10) -> Breaker:
    return Breaker("rail", Limits(least_calls=least_calls))


def calls(of: Breaker, outcomes: str, now_s: float) -> None:
    """One call for each letter: + went well, - failed."""
    for outcome in outcomes:
        ticket = of.admit(now_s)
        (of.succeeded if outcome == "+" else of.failed)(ticket, now_s)


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("-" * 9, State.CLOSED),  # too few to judge
        ("-" * 10, State.OPEN),
        ("+++++-----", State.CLOSED),  # half is not above half
        ("+++++------", State.OPEN),
    ],
)
def test_opens_above_half_of_enough_calls(outcomes: str, state: State) -> None:
    rail = breaker()
    calls(rail, outcomes, 0.0)
    assert rail.state is state


def test_failures_older_than_the_window_are_forgotten() -> None:
    rail = breaker()
    calls(rail, "-" * 9, 0.0)
    calls(rail, "-" * 9, 60.0)
    assert rail.state is State.CLOSED
    calls(rail, "-", 60.5)
    assert rail.state is State.OPEN


def test_open_rejects_for_30_seconds_then_lets_one_probe_through() -> None:
    rail = breaker()
    calls(rail, "-" * 10, 0.0)
    with pytest.raises(Rejected) as rejected:
        rail.admit(29.0)
    assert rejected.value.retry_after_s == 1.0
    probe = rail.admit(30.0)
    with pytest.raises(Rejected):
        rail.admit(30.0)
    rail.succeeded(probe, 30.1)
    assert rail.state is State.CLOSED
    rail.admit(30.2)


def test_a_failed_probe_opens_again() -> None:
    rail = breaker()
    calls(rail, "-" * 10, 0.0)
    rail.failed(rail.admit(30.0), 31.0)
    with pytest.raises(Rejected):
        rail.admit(60.9)
    rail.admit(61.0)


def test_an_answer_from_before_the_opening_neither_closes_nor_counts() -> None:
    rail = breaker()
    late = rail.admit(0.0)
    calls(rail, "-" * 10, 0.0)
    rail.admit(30.0)
    rail.succeeded(late, 30.0)
    assert rail.state is State.HALF_OPEN


def test_an_abandoned_probe_gives_its_place_back() -> None:
    rail = breaker()
    calls(rail, "-" * 10, 0.0)
    rail.abandoned(rail.admit(30.0))
    rail.admit(30.0)
