"""A provider's statement held against what we know it moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.decider import KEEP_FINAL_MS, Overlay, apply
from domain.payment import PAYMENT
from domain.reconciliation import (
    LINES_LIMIT,
    SWEEP,
    BookingListed,
    BreakKind,
    PaymentBooked,
    ReconcileStatement,
    StatementBreak,
    StatementCommandRefused,
    StatementLine,
    StatementReconciled,
    StatementStatus,
    statement_key,
)
from domain.saga import Reason
from tests.domain.scenario import Scenario, bank, method, pay_in, refund
from tests.domain.stories import NOON_MS, then

HOME = "sandbox.2026-09-21.USD"


def booked(end_to_end_id: str, amount_minor: int) -> PaymentBooked:
    return PaymentBooked(
        booking_key=HOME,
        end_to_end_id=end_to_end_id,
        payment_id=end_to_end_id,
        amount_minor=amount_minor,
        provider_reference=f"ref-{end_to_end_id}",
        at_ms=NOON_MS,
    )


def line(end_to_end_id: str, amount_minor: int, number: int = 1) -> StatementLine:
    return StatementLine(
        end_to_end_id=end_to_end_id,
        provider_reference=f"ref-{end_to_end_id}",
        amount_minor=amount_minor,
        line=number,
    )


def statement(*lines: StatementLine, unique: str = "s1", **changes: Any) -> ReconcileStatement:
    fields: dict[str, Any] = {
        "statement_id": f"{HOME}.{unique}",
        "provider": "sandbox",
        "day": "2026-09-21",
        "currency": "USD",
        "lines": lines,
        "actor_id": "ops",
        "request_hash": "h1",
        **changes,
    }
    return ReconcileStatement(**fields)


def outcome(town: Scenario) -> tuple[StatementReconciled, list[StatementBreak]]:
    (end,) = [event for event in town.said if isinstance(event, StatementReconciled)]
    rows = town.rows["payment"].values()
    breaks = [row for row in rows if isinstance(row, StatementBreak)]
    town.check()
    return end, sorted(breaks, key=lambda one: one.number)


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def town(request: pytest.FixtureRequest) -> Scenario:
    return bank(request.param)


def test_what_agrees_and_what_does_not(town: Scenario) -> None:
    for end_to_end_id, amount_minor in (("p1", 500), ("p2", -700), ("p3", 900)):
        town.send(booked(end_to_end_id, amount_minor), "payment")
    lines = line("p1", 500, 1), line("p2", -701, 2), line("p9", 40, 3), line("p1", 500, 4)
    town.send(statement(*lines), "payment").run()
    end, breaks = outcome(town)
    counts = (end.lines, end.matched, end.missing_here, end.missing_there, end.amount_differs)
    assert counts == (4, 1, 2, 1, 1)
    told = [(b.kind, b.end_to_end_id, b.ours_minor, b.theirs_minor, b.line) for b in breaks]
    assert told == [
        (BreakKind.AMOUNT_DIFFERS, "p2", -700, -701, 2),
        (BreakKind.MISSING_HERE, "p9", None, 40, 3),
        (BreakKind.MISSING_HERE, "p1", None, 500, 4),
        (BreakKind.MISSING_THERE, "p3", 900, None, None),
    ]


def test_a_day_on_which_nothing_happened(town: Scenario) -> None:
    town.send(statement(), "payment").run()
    end, breaks = outcome(town)
    assert (end.lines, end.matched, breaks) == (0, 0, [])


def test_the_saga_s_payments_and_refunds_are_found(town: Scenario) -> None:
    town.send(method(), "payment").run()
    town.send(pay_in(2_000)).run()
    town.send(refund(500)).run()
    town.send(statement(line("t1", 2_000), line("r1", -500)), "payment").run()
    end, _ = outcome(town)
    assert (end.matched, end.missing_here, end.missing_there) == (2, 0, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3 * SWEEP), st.data())
def test_every_entry_is_looked_at_once(count: int, data: st.DataObject) -> None:
    town = Scenario()
    for number in range(count):
        town.send(booked(f"p{number}", number + 1), "payment")
    told = data.draw(st.sets(st.integers(0, max(count - 1, 0)), max_size=min(count, 50)))
    town.send(statement(*[line(f"p{n}", n + 1, n) for n in sorted(told)]), "payment").run()
    end, breaks = outcome(town)
    assert (end.matched, end.missing_there) == (len(told), count - len(told))
    assert {b.end_to_end_id for b in breaks} == {f"p{n}" for n in range(count) if n not in told}


def test_a_statement_comes_twice_and_a_corrected_one_after_it(town: Scenario) -> None:
    town.send(booked("p1", 500), "payment").run()
    first = statement(line("p1", 400))
    town.send(first, "payment").run()
    said = len(town.said)
    town.send(first, "payment").run()
    assert len(town.said) == said
    town.send(statement(line("p1", 500), unique="s2"), "payment").run()
    assert town.said[-1].matched == 1
    row = town.rows["payment"][statement_key(f"{HOME}.s2")]
    assert row.status is StatementStatus.RECONCILED
    town.check()


def test_a_month_later_it_is_forgotten(town: Scenario) -> None:
    town.send(booked("p1", 500), "payment").run()
    town.send(statement(line("p2", 400)), "payment").run()
    town.wait(KEEP_FINAL_MS // 1000 + 1)
    left = [key for key in town.rows["payment"] if not key.startswith("bookings/")]
    assert left == []
    town.check()


def test_a_booking_told_twice_is_listed_once() -> None:
    (listed,) = then(PAYMENT, [], booked("p1", 500))
    assert isinstance(listed, BookingListed)
    assert then(PAYMENT, [listed], booked("p1", 500)) == []


def compared(command: ReconcileStatement) -> list[Any]:
    return then(PAYMENT, [], command)


@pytest.mark.parametrize(
    ("given_events", "when", "reason"),
    [
        (
            compared(statement()),
            replace(statement(), request_hash="h2"),
            Reason.IDEMPOTENCY_MISMATCH,
        ),
        (compared(statement()), statement(unique="s2"), Reason.IN_FLIGHT),
        ([], statement(day="2026-09-22"), Reason.INVALID_COMMAND),
        ([], statement(currency="usd"), Reason.INVALID_COMMAND),
        (
            [],
            statement(*[line(f"p{n}", 1) for n in range(LINES_LIMIT + 1)]),
            Reason.INVALID_COMMAND,
        ),
        # their sum has to fit 64 bits
        ([], statement(line("p1", 10**18), line("p2", -1)), Reason.INVALID_COMMAND),
    ],
)
def test_refusals(given_events: list[Any], when: Any, reason: Reason) -> None:
    (refused,) = then(PAYMENT, given_events, when)
    assert isinstance(refused, StatementCommandRefused)
    assert refused.reason is reason


def test_a_part_heard_late_says_nothing() -> None:
    (told,) = compared(statement())
    rows = Overlay({})
    apply(PAYMENT, rows, [told])
    events = PAYMENT.decide(rows, told, NOON_MS)
    apply(PAYMENT, rows, events)
    assert PAYMENT.decide(rows, told, NOON_MS) == ()
    assert PAYMENT.decide({}, told, NOON_MS) == ()
