"""Short retries: when they come, of what, and how they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.retry import CAP_S, RETRIES, pause_s, retrying


class Away(Exception):
    """The downstream is."""


class Calls:
    """A downstream that fails a few times with what it is told, then answers."""

    def __init__(self, failures: int, error: type[Exception] = Away) -> None:
        self.failures = failures
        self.error = error
        self.made = 0
        self.idle_s = 0.0

    async def through(self) -> str:
        async for attempt in retrying(Away, chance=lambda: 0.5):
            with attempt:
                self.idle_s = attempt.retry_state.idle_for
                self.made += 1
                if self.made <= self.failures:
                    raise self.error(self.made)
                answer = f"answer {self.made}"
        return answer


def test_pauses_double_with_ten_percent_either_way_and_a_cap() -> None:
    assert [pause_s(n, 0.5) for n in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert pause_s(1, 0.0) == pytest.approx(0.09)
    assert pause_s(1, 1.0) == pytest.approx(0.11)
    assert pause_s(20, 1.0) == CAP_S


@given(st.integers(1, 50), st.floats(0, 1))
def test_no_pause_is_further_than_ten_percent_off_or_above_the_cap(
    tries: int, chance: float
) -> None:
    meant = min(0.1 * 2 ** (tries - 1), CAP_S)
    assert 0.9 * meant <= pause_s(tries, chance) + 1e-9
    assert pause_s(tries, chance) <= min(1.1 * meant + 1e-9, CAP_S)


@pytest.mark.parametrize(("failures", "idle_s"), [(0, 0.0), (1, 0.1), (3, 0.7)])
async def test_a_blink_is_ridden_out(failures: int, idle_s: float) -> None:
    calls = Calls(failures)
    assert await calls.through() == f"answer {failures + 1}"
    assert calls.idle_s == pytest.approx(idle_s)


async def test_the_last_failure_is_raised_as_it_is() -> None:
    calls = Calls(RETRIES + 1)
    with pytest.raises(Away, match="4"):
        await calls.through()
    assert calls.made == 4


async def test_another_error_is_not_tried_again() -> None:
    calls = Calls(1, ValueError)
    with pytest.raises(ValueError, match="1"):
        await calls.through()
    assert calls.made == 1
