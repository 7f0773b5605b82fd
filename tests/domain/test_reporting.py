"""Reports: asked once, answered once; schedules that miss no run and repeat none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.decider import FORGET, KEEP_FINAL_MS, Tick, due_kind
from domain.reporting import (
    ASK,
    ASK_MS,
    ATTEMPTS,
    CLOCK,
    REPORTING,
    RUN,
    Definition,
    Filter,
    Operator,
    Outcome,
    Period,
    Report,
    ReportAnswered,
    ReportCompleted,
    ReportFailed,
    ReportingCommandRefused,
    ReportRequested,
    ReportsForgotten,
    RunReport,
    Schedule,
    ScheduleAdvanced,
    ScheduleReport,
    Source,
    Status,
    UnscheduleReport,
    home_of,
    period_before,
    report_key,
    schedule_key,
)
from domain.saga import Reason
from tests.domain.stories import NOON_MS, rows_of, then

DAY_MS = 24 * 3600 * 1000
DEFINITION = Definition(
    title="Transfers",
    source=Source.TRANSACTIONS,
    columns=("transaction_id", "amount_minor"),
    filters=(Filter(column="status", operator=Operator.EQUALS, value="completed"),),
    group_by=(),
)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def run(**changes: Any) -> RunReport:
    fields: dict[str, Any] = {
        "report_id": "r1",
        "definition": DEFINITION,
        "from_ms": NOON_MS - DAY_MS,
        "to_ms": NOON_MS,
        "actor_id": "ana",
        "request_hash": "h",
        **changes,
    }
    return RunReport(**fields)


def schedule(**changes: Any) -> ScheduleReport:
    fields: dict[str, Any] = {
        "schedule_id": "s1",
        "definition": DEFINITION,
        "cron": "0 6 * * *",
        "period": Period.DAY,
        "actor_id": "ana",
        "request_hash": "h",
        **changes,
    }
    return ScheduleReport(**fields)


def answer(report_id: str = "r1", **changes: Any) -> ReportAnswered:
    fields: dict[str, Any] = {
        "report_id": report_id,
        "attempt": 1,
        "outcome": Outcome.COMPLETED,
        "rows": 7,
        "bytes": 99,
        "sha256": "ab",
        "detail": "",
        **changes,
    }
    return ReportAnswered(**fields)


def due(given: list[Any], kind: str) -> Tick:
    rows = rows_of(REPORTING, given)
    return Tick(due=tuple(k for k in sorted(rows) if k.startswith("due/") and due_kind(k) == kind))


def report_of(given: list[Any], report_id: str = "r1") -> Report:
    report = rows_of(REPORTING, given)[report_key(report_id)]
    assert isinstance(report, Report)
    return report


def test_a_report_is_asked_for_and_answered_once() -> None:
    given = then(REPORTING, [], run())
    assert isinstance(given[0], ReportRequested)
    assert (given[0].attempt, given[0].as_of_ms) == (1, NOON_MS - 1)
    assert then(REPORTING, given, run()) == []
    done = then(REPORTING, given, answer())
    assert isinstance(done[0], ReportCompleted)
    report = report_of([*given, *done])
    assert (report.status, report.rows, report.version) == (Status.COMPLETED, 7, 2)
    assert then(REPORTING, [*given, *done], answer(rows=9)) == []


def test_a_period_that_is_not_over_is_reported_as_of_now() -> None:
    (asked,) = then(REPORTING, [], run(to_ms=NOON_MS + DAY_MS))
    assert asked.as_of_ms == NOON_MS


def unanswered() -> tuple[list[Any], int]:
    """A report that was asked for ATTEMPTS times in vain, and when it was given up."""
    given, at_ms = then(REPORTING, [], run()), NOON_MS
    for _ in range(ATTEMPTS):
        at_ms += ASK_MS
        given += then(REPORTING, given, due(given, ASK), at_ms)
    assert isinstance(given[-1], ReportFailed)
    return given, at_ms


def test_a_file_that_comes_after_all_completes_the_report() -> None:
    given, at_ms = unanswered()
    (done,) = then(REPORTING, given, answer(attempt=ATTEMPTS), at_ms + 1)
    assert isinstance(done, ReportCompleted)
    assert done.version == report_of(given).version + 1
    report = report_of([*given, done])
    assert (report.status, report.rows, report.detail) == (Status.COMPLETED, 7, "")
    assert then(REPORTING, [*given, done], answer(attempt=2), at_ms + 2) == []
    assert due([*given, done], ASK).due == ()


def test_a_late_answer_without_a_file_says_nothing_new() -> None:
    given, at_ms = unanswered()
    for outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
        late = answer(attempt=ATTEMPTS, outcome=outcome, detail="too large")
        assert then(REPORTING, given, late, at_ms + 1) == []


def test_what_was_refused_stays_failed() -> None:
    given = then(REPORTING, [], run())
    given += then(REPORTING, given, answer(outcome=Outcome.REFUSED, detail="too large"))
    assert then(REPORTING, given, answer(attempt=2)) == []


def test_a_report_that_was_completed_late_leaves_once() -> None:
    """Thirty days after it was given up: should it be asked for anew then, the new one stays."""
    given, at_ms = unanswered()
    given += then(REPORTING, given, answer(attempt=ATTEMPTS), at_ms + DAY_MS)
    gone_ms = at_ms + KEEP_FINAL_MS + 1_000
    given += then(REPORTING, given, due(given, FORGET), gone_ms)
    assert rows_of(REPORTING, given) == {}
    given += then(REPORTING, given, run(), gone_ms)
    assert then(REPORTING, given, due(given, FORGET), gone_ms + 2 * DAY_MS) == []
    assert report_of(given).status is Status.PENDING


def test_what_was_not_answered_is_asked_again_and_given_up_in_the_end() -> None:
    given = then(REPORTING, [], run())
    at_ms = NOON_MS
    for attempt in range(2, ATTEMPTS + 1):
        at_ms += ASK_MS
        assert then(REPORTING, given, due(given, ASK), at_ms - 1) == []
        (again,) = then(REPORTING, given, due(given, ASK), at_ms)
        assert (again.attempt, again.report_id) == (attempt, "r1")
        given += [again]
    (failed,) = then(REPORTING, given, due(given, ASK), at_ms + ASK_MS)
    assert isinstance(failed, ReportFailed)
    assert report_of([*given, failed]).status is Status.FAILED
    assert due([*given, failed], ASK).due == ()


def test_an_answer_that_asking_again_does_not_help_is_the_end() -> None:
    given = then(REPORTING, [], run())
    assert then(REPORTING, given, answer(outcome=Outcome.UNKNOWN, detail="away")) == []
    (failed,) = then(REPORTING, given, answer(outcome=Outcome.REFUSED, detail="too large"))
    assert report_of([*given, failed]).detail == "too large"


def test_a_schedule_misses_no_run_and_repeats_none() -> None:
    """It was down for three mornings: each has its run, of its own day, named after its time."""
    start_ms = ms("2026-11-23T12:00")
    given = then(REPORTING, [], schedule(), start_ms)
    late_ms = ms("2026-11-26T10:00")
    found: list[ReportRequested] = []
    while said := then(REPORTING, given, due(given, RUN), late_ms):
        asked, advanced = said
        assert isinstance(asked, ReportRequested)
        assert isinstance(advanced, ScheduleAdvanced)
        found.append(asked)
        assert then(REPORTING, [*given, *said], Tick(due=due(given, RUN).due), late_ms) == []
        given += said
    assert [one.report_id for one in found] == [
        "s1.20261124T0500Z",
        "s1.20261125T0500Z",
        "s1.20261126T0500Z",
    ]
    assert [one.from_ms for one in found] == [
        ms("2026-11-22T23:00"),
        ms("2026-11-23T23:00"),
        ms("2026-11-24T23:00"),
    ]
    assert [one.as_of_ms - one.to_ms for one in found] == [-1, -1, -1]
    assert {home_of(one.report_id) for one in found} == {"s1"}
    assert {one.actor_id for one in found} == {CLOCK}
    row = rows_of(REPORTING, given)[schedule_key("s1")]
    assert isinstance(row, Schedule)
    assert (row.runs, row.next_ms) == (3, ms("2026-11-27T05:00"))


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        (Period.DAY, "2026-11-26T10:00", "2026-11-24T23:00", "2026-11-25T23:00"),
        (Period.DAY, "2026-11-25T23:30", "2026-11-24T23:00", "2026-11-25T23:00"),
        (Period.DAY, "2026-03-30T06:00", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
        (Period.WEEK, "2026-11-26T10:00", "2026-11-15T23:00", "2026-11-22T23:00"),
        (Period.MONTH, "2026-11-26T10:00", "2026-09-30T22:00", "2026-10-31T23:00"),
        (Period.MONTH, "2026-01-05T10:00", "2025-11-30T23:00", "2025-12-31T23:00"),
    ],
)
def test_periods(period: Period, at: str, start: str, end: str) -> None:
    assert period_before(period, ms(at)) == (ms(start), ms(end))


def test_a_schedule_that_ended_runs_no_more() -> None:
    given = then(REPORTING, [], schedule())
    tick = due(given, RUN)
    ended = then(REPORTING, given, UnscheduleReport(schedule_id="s1", actor_id="ana"))
    given += ended
    assert then(REPORTING, given, tick, NOON_MS + 2 * DAY_MS) == []
    assert then(REPORTING, given, UnscheduleReport(schedule_id="s1", actor_id="ana")) == []


def test_refusals() -> None:
    asked, planned = then(REPORTING, [], run()), then(REPORTING, [], schedule())
    no_title = replace(DEFINITION, title="")
    twice = replace(DEFINITION, columns=("a", "a"))
    nothing = replace(DEFINITION, columns=())
    table: list[tuple[list[Any], Any, Reason]] = [
        (asked, run(request_hash="other"), Reason.IDEMPOTENCY_MISMATCH),
        (planned, schedule(request_hash="other"), Reason.IDEMPOTENCY_MISMATCH),
        ([], run(definition=no_title), Reason.INVALID_COMMAND),
        ([], run(definition=twice), Reason.INVALID_COMMAND),
        ([], run(definition=nothing), Reason.INVALID_COMMAND),
        ([], run(from_ms=NOON_MS), Reason.INVALID_COMMAND),
        ([], schedule(cron="61 * * * *"), Reason.INVALID_COMMAND),
        ([], schedule(definition=twice), Reason.INVALID_COMMAND),
        ([], UnscheduleReport(schedule_id="s1", actor_id="ana"), Reason.SCHEDULE_NOT_FOUND),
    ]
    for given, when, reason in table:
        (said,) = then(REPORTING, given, when)
        assert isinstance(said, ReportingCommandRefused), when
        assert said.reason is reason, when


def test_reports_leave_in_time() -> None:
    given = then(REPORTING, [], run())
    given += then(REPORTING, given, answer())
    (gone,) = then(REPORTING, given, due(given, FORGET), NOON_MS + KEEP_FINAL_MS + DAY_MS)
    assert isinstance(gone, ReportsForgotten)
    assert rows_of(REPORTING, [*given, gone]) == {}
