"""Lines that must lead from one balance to the next."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.statement_lines import Inconsistent, Lines, in_order


def entry(event: str, amount: int, after: int | None, number: int = 0, at_ms: int = 1) -> Any:
    return {
        "event_id": f"account.inbox-0-{event}",
        "number": number,
        "currency": "USD",
        "amount_minor": amount,
        "balance_minor": after,
        "transaction_id": "t",
        "at_ms": at_ms,
    }


def lines(*entries: Any, opening: int = 100) -> Lines:
    made = Lines({"USD": opening})
    for one in entries:
        made.add(one)
    return made


def test_entries_lead_from_opening_to_closing() -> None:
    made = lines(entry("1-0", -30, 70), entry("2-0", 5, 75))
    made.end({"USD": 75})
    assert (made.running, made.credits["USD"], made.debits["USD"]) == ({"USD": 75}, 5, -30)
    assert [line["balance_minor"] for page in made.pages(1) for line in page] == [70, 75]


def test_an_amount_and_its_fee_share_the_balance_behind_both() -> None:
    made = lines(entry("1-0", -30, 68), entry("1-0", -2, 68, number=2), entry("2-0", 1, 69))
    made.end({"USD": 69})
    assert [line["balance_minor"] for page in made.pages(9) for line in page] == [70, 68, 69]


def test_one_that_is_missing_is_noticed() -> None:
    with pytest.raises(Inconsistent):
        lines(entry("1-0", -30, 70), entry("3-0", 5, 80), entry("4-0", 1, 81))


@pytest.mark.parametrize(
    ("entries", "closing"), [((entry("1-0", -30, 70),), 75), ((), 99), ((entry("1-0", 1, 7),), 101)]
)
def test_a_closing_balance_must_be_reached(entries: Any, closing: int) -> None:
    with pytest.raises(Inconsistent):
        lines(*entries).end({"USD": closing})


def test_entries_of_a_millisecond_are_in_the_order_of_their_events() -> None:
    names = ["9-0", "10-0", "10-1", "100-0"]
    shuffled = [entry(name, 1, None) for name in sorted(names)]
    assert [one["event_id"].partition("-0-")[2] for one in in_order(shuffled)] == names
