"""Settlement: each payment in one batch, each batch closed once, each statement held against it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.decider import FORGET, KEEP_FINAL_MS, Tick, due_key, due_kind
from domain.money import LONG_MAX
from domain.reconciliation import PaymentBooked
from domain.saga import Reason
from domain.settlement import (
    BY_CLOCK,
    CLOSE,
    LATE_MS,
    SETTLEMENT,
    BankEntry,
    Batch,
    BatchClosed,
    BatchReconciled,
    BreakKind,
    ItemSettled,
    ReconcileBatch,
    RunSettlement,
    SettlementCommandRefused,
    SettlementRunRequested,
    SettlementsForgotten,
    Status,
    batch_key,
    break_key,
)
from tests.domain.stories import rows_of, then

THURSDAY_MS = 1_795_690_800_000  # 2026-11-26 11:00 UTC
DAY_MS = 24 * 3600 * 1000
CUT_OFF_MS = THURSDAY_MS + 6 * 3600 * 1000
BATCH = "sandbox.EUR.2026-11-26"


def booked(n: int = 1, amount_minor: int = 1_000, book: str = "sandbox.EUR") -> PaymentBooked:
    provider, _, currency = book.rpartition(".")
    return PaymentBooked(
        booking_key=f"{provider}.2026-11-26.{currency}",
        end_to_end_id=f"e{n}",
        payment_id=f"p{n}",
        amount_minor=amount_minor,
        provider_reference=f"r{n}",
        at_ms=THURSDAY_MS,
    )


def day_of(*messages: Any, at_ms: int = THURSDAY_MS) -> list[Any]:
    """What was said when these messages had come."""
    given: list[Any] = []
    for message in messages:
        given += then(SETTLEMENT, given, message, at_ms)
    return given


def run(day: str = "", run_id: str = "run", request_hash: str = "h") -> RunSettlement:
    return RunSettlement(run_id=run_id, day=day, actor_id="ops", request_hash=request_hash)


def statement(*entries: tuple[str, int], **changes: Any) -> ReconcileBatch:
    fields: dict[str, Any] = {
        "batch_id": BATCH,
        "statement_id": "s1",
        "currency": "EUR",
        "entries": tuple(
            BankEntry(end_to_end_id=name, amount_minor=amount_minor, line=n)
            for n, (name, amount_minor) in enumerate(entries, 1)
        ),
        "actor_id": "ops",
        "request_hash": "h1",
        **changes,
    }
    return ReconcileBatch(**fields)


def batch_of(given: list[Any], batch_id: str = BATCH) -> Batch:
    batch = rows_of(SETTLEMENT, given)[batch_key(batch_id)]
    assert isinstance(batch, Batch)
    return batch


@pytest.fixture
def closed() -> list[Any]:
    """Two payments in and a refund, closed by a run: 2,500 for us."""
    given = day_of(booked(1), booked(2, 2_000), booked(3, -500))
    (asked,) = then(SETTLEMENT, given, run(), THURSDAY_MS)
    return [*given, asked, *then(SETTLEMENT, [*given, asked], asked, THURSDAY_MS)]


def test_what_is_booked_is_summed_up() -> None:
    batch = batch_of(day_of(booked(1), booked(2, 2_000), booked(3, -500)))
    assert (batch.status, batch.items) == (Status.OPEN, 3)
    assert (batch.in_minor, batch.out_minor, batch.net_minor) == (3_000, 500, 2_500)


def test_told_twice_is_settled_once() -> None:
    assert then(SETTLEMENT, day_of(booked()), booked(), THURSDAY_MS) == []


def test_books_do_not_mix() -> None:
    given = day_of(booked(1), booked(2, 5, "sandbox.USD"), booked(3, 7, "other.EUR"))
    assert {event.batch_id for event in given} == {
        BATCH,
        "sandbox.USD.2026-11-26",
        "other.EUR.2026-11-26",
    }


def test_what_comes_after_the_cut_off_is_of_the_next_day_and_closes_what_is_over() -> None:
    given = day_of(booked(1))
    said = then(SETTLEMENT, given, booked(2), CUT_OFF_MS)
    assert [type(one) for one in said] == [BatchClosed, ItemSettled]
    assert said[0].batch_id == BATCH
    assert said[1].batch_id == "sandbox.EUR.2026-11-27"


def test_the_clock_closes_a_batch_once() -> None:
    given = day_of(booked(1))
    due = due_key(CUT_OFF_MS + LATE_MS, CLOSE, batch_key(BATCH))
    assert due in rows_of(SETTLEMENT, given)
    tick = Tick(due=(due,))
    assert then(SETTLEMENT, given, tick, CUT_OFF_MS + LATE_MS - 1) == []
    (closed,) = then(SETTLEMENT, given, tick, CUT_OFF_MS + LATE_MS)
    assert (closed.net_minor, closed.closed_by) == (1_000, BY_CLOCK)
    assert then(SETTLEMENT, [*given, closed], tick, CUT_OFF_MS + LATE_MS) == []


def test_a_run_closes_each_batch_once_however_often_it_runs(closed: list[Any]) -> None:
    assert batch_of(closed).status is Status.CLOSED
    assert then(SETTLEMENT, closed, run(), THURSDAY_MS) == []
    (again,) = then(SETTLEMENT, closed, run(run_id="second"), THURSDAY_MS)
    assert then(SETTLEMENT, [*closed, again], again, THURSDAY_MS) == []


def test_a_run_leaves_later_days_open() -> None:
    given = day_of(booked(1), at_ms=CUT_OFF_MS)
    asked = SettlementRunRequested(
        run_id="r", day="2026-11-26", actor_id="ops", request_hash="h", at_ms=CUT_OFF_MS
    )
    assert then(SETTLEMENT, given, asked, CUT_OFF_MS) == []


def test_what_comes_after_a_run_is_of_the_next_business_day(closed: list[Any]) -> None:
    (item,) = then(SETTLEMENT, closed, booked(9), THURSDAY_MS)
    assert item.batch_id == "sandbox.EUR.2026-11-27"
    assert item.number == 0


@pytest.mark.parametrize(
    ("entries", "breaks", "others"),
    [
        ([(BATCH, 2_500)], [], 0),
        ([(BATCH, 2_500), ("rent", -9)], [], 1),
        ([(BATCH, 2_499)], [(BreakKind.AMOUNT_DIFFERS, 2_500, 2_499)], 0),
        ([], [(BreakKind.MISSING_THERE, 2_500, None)], 0),
        ([(BATCH, 2_500), (BATCH, 2_500)], [(BreakKind.TWICE, 2_500, 2_500)], 0),
        (
            [(BATCH, 2_500), ("sandbox.EUR.2026-11-20", 3)],
            [(BreakKind.MISSING_HERE, None, 3)],
            0,
        ),
        ([(BATCH, 2_500), ("sandbox.USD.2026-11-20", 3)], [], 1),
    ],
)
def test_statements(
    closed: list[Any], entries: list[tuple[str, int]], breaks: list[Any], others: int
) -> None:
    (said,) = then(SETTLEMENT, closed, statement(*entries), THURSDAY_MS)
    assert [(one.kind, one.ours_minor, one.theirs_minor) for one in said.breaks] == breaks
    assert (said.others, [one.number for one in said.breaks]) == (others, [*range(len(breaks))])
    wanted = Status.BROKEN if breaks else Status.RECONCILED
    assert batch_of([*closed, said]).status is wanted


def test_a_better_statement_takes_the_breaks_away(closed: list[Any]) -> None:
    broken = [*closed, *then(SETTLEMENT, closed, statement(), THURSDAY_MS)]
    assert break_key(BATCH, 0) in rows_of(SETTLEMENT, broken)
    better = statement((BATCH, 2_500), statement_id="s2", request_hash="h2")
    mended = [*broken, *then(SETTLEMENT, broken, better, THURSDAY_MS)]
    assert batch_of(mended).status is Status.RECONCILED
    assert break_key(BATCH, 0) not in rows_of(SETTLEMENT, mended)


def test_what_came_to_nothing_needs_no_transfer() -> None:
    given = day_of(booked(1), booked(2, -1_000))
    (asked,) = then(SETTLEMENT, given, run(), THURSDAY_MS)
    given = [*given, asked, *then(SETTLEMENT, [*given, asked], asked, THURSDAY_MS)]
    (said,) = then(SETTLEMENT, given, statement(), THURSDAY_MS)
    assert said.breaks == ()


def test_refusals(closed: list[Any]) -> None:
    open_ = day_of(booked())
    agreed = [*closed, *then(SETTLEMENT, closed, statement((BATCH, 2_500)), THURSDAY_MS)]
    again = statement((BATCH, 2_500))
    many = statement(*[("x", 1)] * 2_001)
    table: list[tuple[list[Any], Any, Reason]] = [
        ([], statement(), Reason.SETTLEMENT_NOT_FOUND),
        (open_, statement(), Reason.SETTLEMENT_OPEN),
        (agreed, statement(statement_id="s2"), Reason.SETTLEMENT_RECONCILED),
        (closed, statement(currency="USD"), Reason.INVALID_COMMAND),
        (closed, many, Reason.INVALID_COMMAND),
        (closed, run("2026-11-27"), Reason.IDEMPOTENCY_MISMATCH),
        ([], run("2026-11-27"), Reason.INVALID_COMMAND),
        ([], run("26.11.2026"), Reason.INVALID_COMMAND),
    ]
    for given, when, reason in table:
        if reason is Reason.IDEMPOTENCY_MISMATCH:
            when = replace(when, request_hash="other")
        (said,) = then(SETTLEMENT, given, when, THURSDAY_MS)
        assert isinstance(said, SettlementCommandRefused), when
        assert said.reason is reason, when
    assert then(SETTLEMENT, agreed, again, THURSDAY_MS) == []


def test_items_leave_in_time_and_batches_stay(closed: list[Any]) -> None:
    rows = rows_of(SETTLEMENT, closed)
    due = tuple(key for key in rows if key.startswith("due/") and due_kind(key) == FORGET)
    late_ms = THURSDAY_MS + KEEP_FINAL_MS + DAY_MS
    (gone,) = then(SETTLEMENT, closed, Tick(due=due), late_ms)
    assert isinstance(gone, SettlementsForgotten)
    left = rows_of(SETTLEMENT, [*closed, gone])
    assert not [key for key in left if key.startswith(("item/", "settled/", "run/", "due/"))]
    assert batch_key(BATCH) in left


def test_events_say_what_they_are_about(closed: list[Any]) -> None:
    said = then(SETTLEMENT, closed, statement((BATCH, 2_500)), THURSDAY_MS)
    assert isinstance(said[0], BatchReconciled)
    assert SETTLEMENT.aggregate_id(said[0]) == BATCH
    assert SETTLEMENT.aggregate_id(closed[-1]) == BATCH


def test_a_batch_that_64_bits_do_not_hold_is_closed_and_the_next_day_s_goes_on() -> None:
    nearly = day_of(booked(1), booked(2, LONG_MAX - 1_000))
    (close, item) = then(SETTLEMENT, nearly, booked(3, 1), THURSDAY_MS)
    assert isinstance(close, BatchClosed)
    assert (close.batch_id, close.in_minor, close.items) == (BATCH, LONG_MAX, 2)
    assert (item.batch_id, item.number) == ("sandbox.EUR.2026-11-27", 0)
    (another,) = then(SETTLEMENT, [*nearly, close, item], booked(4, 5), THURSDAY_MS)
    assert (another.batch_id, another.number) == ("sandbox.EUR.2026-11-27", 1)
