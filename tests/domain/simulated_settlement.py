"""Settlement and reporting in the simulated bank: days are closed, statements come, reports are planned."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from domain.reconciliation import PaymentBooked
from domain.reporting import (
    Definition,
    Outcome,
    Period,
    ReportAnswered,
    ReportRequested,
    RunReport,
    Schedule,
    ScheduleReport,
    Source,
    UnscheduleReport,
    home_of,
)
from domain.reporting import Status as ReportStatus
from domain.settlement import (
    BankEntry,
    Batch,
    BatchClosed,
    ItemSettled,
    ReconcileBatch,
    RunSettlement,
    Status,
    transfer_id,
)
from domain.settlement import home_of as book_of

if TYPE_CHECKING:
    from tests.domain.simulator import Bank

Expect = Callable[[bool, str], None]
STAY = ("batch/", "book/", "open-batches", "break/", "schedule/")
SHOWN = Definition(
    title="Transactions", source=Source.TRANSACTIONS, columns=("type",), filters=(), group_by=()
)


def act(bank: Bank) -> None:
    chance = bank.chance
    number = bank.delivered
    match chance.randrange(4):
        case 0:
            run_id = f"run-{chance.randrange(3)}"
            command = RunSettlement(run_id=run_id, day="", actor_id="ops", request_hash=run_id)
            bank.send("settlement", run_id, command)
        case 1 if batches := _batches(bank):
            _reconcile(bank, chance.choice(batches), number)
        case 2:
            schedule_id = f"plan{chance.randrange(2)}"
            bank.send("reporting", schedule_id, _planned(schedule_id))
        case _:
            report_id = f"report{chance.randrange(5)}"
            bank.send("reporting", report_id, _asked(report_id, bank.now_ms))


def _planned(schedule_id: str) -> ScheduleReport:
    return ScheduleReport(
        schedule_id=schedule_id,
        definition=SHOWN,
        cron="*/20 * * * *",
        period=Period.DAY,
        actor_id="ops",
        request_hash=schedule_id,
    )


def _asked(report_id: str, now_ms: int) -> RunReport:
    return RunReport(
        report_id=report_id,
        definition=SHOWN,
        from_ms=0,
        to_ms=now_ms + 1,
        actor_id="ops",
        request_hash=report_id,
    )


def _batches(bank: Bank) -> list[Batch]:
    return [row for _, row in bank.all_rows("settlement") if isinstance(row, Batch)]


def _reconcile(bank: Bank, batch: Batch, number: int) -> None:
    """The bank's statement, that is wrong now and then."""
    amount_minor = batch.net_minor + bank.chance.choice((0, 0, 1))
    entry = BankEntry(end_to_end_id=transfer_id(batch.batch_id), amount_minor=amount_minor, line=1)
    command = ReconcileBatch(
        batch_id=batch.batch_id,
        statement_id=f"statement-{number}",
        currency=batch.currency,
        entries=(entry,),
        actor_id="ops",
        request_hash=str(amount_minor),
    )
    bank.send("settlement", book_of(batch.batch_id), command)


def answer(bank: Bank, request: ReportRequested) -> None:
    """A report is made; now and then nobody says so, or it can't be."""
    chance = bank.chance.random()
    if chance < 0.1:
        return
    outcome = Outcome.COMPLETED if chance < 0.8 else Outcome.UNKNOWN
    outcome = Outcome.REFUSED if chance > 0.95 else outcome
    answered = ReportAnswered(
        report_id=request.report_id,
        attempt=request.attempt,
        outcome=outcome,
        rows=1,
        bytes=1,
        sha256="",
        detail="",
    )
    bank.send("reporting", home_of(request.report_id), answered)


def end(bank: Bank) -> None:
    """Schedules run for ever: none does any more."""
    for schedule_id in ("plan0", "plan1"):
        command = UnscheduleReport(schedule_id=schedule_id, actor_id="ops")
        bank.send("reporting", schedule_id, command)


def check(bank: Bank, expect: Expect) -> None:
    """What a provider moved is in one batch, a batch is its items, and is closed once."""
    booked = Counter(
        event.end_to_end_id
        for event in bank.all_events("payment")
        if isinstance(event, PaymentBooked)
    )
    items: dict[str, list[ItemSettled]] = defaultdict(list)
    closed: list[BatchClosed] = []
    for event in bank.all_events("settlement"):
        if isinstance(event, ItemSettled):
            items[event.batch_id].append(event)
        elif isinstance(event, BatchClosed):
            closed.append(event)
    settled = Counter(item.end_to_end_id for some in items.values() for item in some)
    expect(settled == booked, f"settled {settled}, booked {booked}")
    for batch in _batches(bank):
        some = items.pop(batch.batch_id)
        expect([item.number for item in some] == [*range(batch.items)], f"numbers: {batch}")
        net = sum(item.amount_minor for item in some)
        expect(batch.net_minor == net == batch.in_minor - batch.out_minor, f"sums: {batch}")
    expect(not items, f"items of no batch: {items}")
    times = Counter(event.batch_id for event in closed)
    expect(set(times.values()) <= {1}, f"closed more than once: {times}")
    known = {batch.batch_id for batch in _batches(bank) if batch.status is not Status.OPEN}
    expect(known == {*times}, f"closed {times}, rows {known}")
    _check_reports(bank, expect)


def _check_reports(bank: Bank, expect: Expect) -> None:
    first = Counter(
        event.report_id
        for event in bank.all_events("reporting")
        if isinstance(event, ReportRequested) and event.attempt == 1
    )
    expect(set(first.values()) <= {1}, f"run more than once: {first}")
    rows: list[Any] = [row for _, row in bank.all_rows("reporting")]
    for row in rows:
        if isinstance(row, Schedule):
            runs = sum(one.partition(".")[0] == row.schedule_id for one in first)
            expect(row.runs == runs, f"{runs} runs of {row}")
            expect(not row.active, f"runs for ever: {row}")
        elif hasattr(row, "attempt"):
            expect(row.status is not ReportStatus.PENDING, f"never made: {row}")
