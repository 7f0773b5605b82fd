"""What is heard without decoding is what decoding would give: the same bytes come of it."""

from __future__ import annotations

from typing import Any

import pytest

from agents.recent import LIMIT, Recent
from domain.saga import Rail
from tests.agents.memory import Bank, bank_with_money, order


class Counting(Recent):
    """Counts what it knew."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        super().__init__()
        self.known = 0

    def get(self, data: bytes) -> Any:
        fact = super().get(data)
        self.known += fact is not None
        return fact


def day(recent: Recent | None) -> Bank:
    """Transfers that pass, that lack funds, that need a person, and one through the rail."""
    bank = bank_with_money(recent)
    orders = [
        order("T1", "A-ann", "A-bob", 700),
        order("T2", "A-ann", "A-bob", 1_000_000),
        order("T3", "A-ann", "A-bob", 90_000, privileged=False),
        order("T4", "A-ann", "A-nobody", 5),
        order("T5", "A-ann", "A-bob", 100, rail=Rail.EXTERNAL),
    ]
    for command in orders:
        bank.command("transaction", command.transaction_id, command)
        bank.run()
    return bank


def test_the_same_bytes_are_written_with_and_without() -> None:
    recent = Counting()
    one, apart = day(recent), day(None)
    assert recent.known > 20
    assert one.logs == apart.logs
    assert one.rows == apart.rows
    assert not one.differences()


@pytest.mark.parametrize("age", [1, LIMIT])
def test_it_keeps_the_last_facts(age: int) -> None:
    recent = Recent()
    for n in range(5 * LIMIT):
        recent.add(b"%d" % n, n)
    assert recent.get(b"%d" % (5 * LIMIT - age)) == 5 * LIMIT - age
    assert recent.get(b"1") is None
    assert len(recent._new) + len(recent._old) <= 2 * LIMIT
