r"""Reporting: what is asked of the bank's books, once or again and again, and the file that answers it.

    RunReport ----------------------> ReportRequested --perform--> ReportAnswered --> COMPLETED | FAILED
    ScheduleReport --tick, each time--^                                                   ^--late--/

A report is computed from the logs as they were at the end of its period (`as_of_ms`, the last
millisecond that counts), so that it says the same whenever it is computed. A scheduled run is named
after its schedule and its time: a restart neither misses one nor runs it twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain.bank_day import bank_day, day_start_ms
from domain.cron import is_cron, next_ms
from domain.decider import (
    DUE,
    Changes,
    Decider,
    Due,
    Expiry,
    RowKey,
    Rows,
    Tick,
    due_at_ms,
    due_key,
    due_row,
    due_subject,
    expired,
    expiry_key,
    forget,
    forgotten,
    overdue,
    tick_keys,
)
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "reporting"
ASK, RUN = "ask", "run"  # kinds of due rows: the answer never came; a schedule's time has come
ASK_MS = 20 * 60 * 1000  # longer than any report takes
ATTEMPTS = 5
NOBODY = "nobody answered"  # the detail of what failed of that alone: a file may yet come
COLUMNS_LIMIT = 30
FILTERS_LIMIT = 20
CLOCK = "clock"  # the actor of a scheduled run
EPOCH = date(1970, 1, 1)


class Source(StrEnum):
    """What a report is made of; which columns each has is told in `reports/sources.py`."""

    TRANSACTIONS = "transactions"
    ENTRIES = "entries"
    PAYMENTS = "payments"
    SETTLEMENTS = "settlements"
    ACCOUNTS = "accounts"


class Operator(StrEnum):
    EQUALS = "eq"
    NOT = "ne"
    LESS = "lt"
    AT_MOST = "le"
    MORE = "gt"
    AT_LEAST = "ge"
    CONTAINS = "contains"


class Period(StrEnum):
    """What a scheduled run reports on: the last whole one before its time, by the bank's clock."""

    DAY = "day"
    WEEK = "week"  # from Monday
    MONTH = "month"


class Status(StrEnum):
    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


class Outcome(StrEnum):
    """What one attempt came to."""

    COMPLETED = "completed"
    REFUSED = "refused"  # asking again does not help
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Only rows whose `column` is so. `value` as text; numbers are minor units or counts."""

    column: str
    operator: Operator
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a report shows. With `group_by` one row a group, of counts and sums of amounts."""

    title: str
    source: Source
    columns: tuple[str, ...]
    filters: tuple[Filter, ...]
    group_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Make a report of a period. Arrives under `report_id`."""

    report_id: str
    definition: Definition
    from_ms: int
    to_ms: int  # not in the period any more
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleReport:
    """Make a report of the last period at each time of a cron expression. Arrives under `schedule_id`."""

    schedule_id: str
    definition: Definition
    cron: str
    period: Period
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnscheduleReport:
    """Run a schedule no more; what it made stays."""

    schedule_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnswered:
    """What became of one attempt at a report, said by `perform`."""

    report_id: str
    attempt: int
    outcome: Outcome
    rows: int
    bytes: int
    sha256: str  # of the file, hex
    detail: str  # why it failed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequested:
    """The report is to be computed; `attempt` counts from 1."""

    report_id: str
    schedule_id: str  # "": asked for by a person
    definition: Definition
    from_ms: int
    to_ms: int
    as_of_ms: int  # the last millisecond whose events count
    attempt: int
    actor_id: str
    request_hash: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCompleted:
    """The report's file is there."""

    report_id: str
    rows: int
    bytes: int
    sha256: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFailed:
    """There will be no file; `detail` says why, for people."""

    report_id: str
    detail: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportScheduled:
    """The schedule runs next at `next_ms`."""

    schedule_id: str
    definition: Definition
    cron: str
    period: Period
    next_ms: int
    actor_id: str
    request_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleAdvanced:
    """A run was asked for; the next one comes at `next_ms`."""

    schedule_id: str
    report_id: str
    next_ms: int
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportUnscheduled:
    """The schedule has ended."""

    schedule_id: str
    actor_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingCommandRefused:
    """A command was refused; nothing changed."""

    subject_id: str  # of the report or the schedule
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportsForgotten:
    """Reports left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Row `report/<report_id>`."""

    report_id: str
    schedule_id: str
    definition: Definition
    from_ms: int
    to_ms: int
    as_of_ms: int
    status: Status
    attempt: int
    rows: int
    bytes: int
    sha256: str
    detail: str
    due_ms: int  # when it is asked for again
    actor_id: str
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Row `schedule/<schedule_id>`."""

    schedule_id: str
    definition: Definition
    cron: str
    period: Period
    active: bool
    next_ms: int
    runs: int
    last_report_id: str  # "": none yet
    actor_id: str
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int


Command: TypeAlias = RunReport | ScheduleReport | UnscheduleReport
Message: TypeAlias = Command | ReportAnswered | Tick
Event: TypeAlias = (
    ReportRequested
    | ReportCompleted
    | ReportFailed
    | ReportScheduled
    | ScheduleAdvanced
    | ReportUnscheduled
    | ReportingCommandRefused
    | ReportsForgotten
)


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case RunReport():
            return _run(rows, message, at_ms)
        case ScheduleReport():
            return _schedule(rows, message, at_ms)
        case UnscheduleReport():
            return _unschedule(rows, message, at_ms)
        case ReportAnswered():
            return _answered(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _run(rows: Rows, command: RunReport, at_ms: int) -> Sequence[Event]:
    report: Report | None = rows.get(report_key(command.report_id))
    if report is not None and report.request_hash == command.request_hash:
        return ()
    if report is not None:
        return _refuse(command, command.report_id, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if not is_readable(command.definition) or not 0 <= command.from_ms < command.to_ms:
        return _refuse(command, command.report_id, Reason.INVALID_COMMAND, at_ms)
    return (
        ReportRequested(
            report_id=command.report_id,
            schedule_id="",
            definition=command.definition,
            from_ms=command.from_ms,
            to_ms=command.to_ms,
            as_of_ms=min(command.to_ms - 1, at_ms),
            attempt=1,
            actor_id=command.actor_id,
            request_hash=command.request_hash,
            version=1,
            at_ms=at_ms,
        ),
    )


def is_readable(definition: Definition) -> bool:
    """What any program that reads it may rely on; whether the columns exist the gateway checks."""
    return (
        bool(definition.title)
        and 0 < len(definition.columns) + len(definition.group_by) <= COLUMNS_LIMIT
        and len(definition.filters) <= FILTERS_LIMIT
        and len({*definition.columns}) == len(definition.columns)
        and len({*definition.group_by}) == len(definition.group_by)
    )


def _schedule(rows: Rows, command: ScheduleReport, at_ms: int) -> Sequence[Event]:
    schedule: Schedule | None = rows.get(schedule_key(command.schedule_id))
    if schedule is not None and schedule.request_hash == command.request_hash:
        return ()
    if schedule is not None:
        return _refuse(command, command.schedule_id, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if not is_readable(command.definition) or not is_cron(command.cron):
        return _refuse(command, command.schedule_id, Reason.INVALID_COMMAND, at_ms)
    return (
        ReportScheduled(
            schedule_id=command.schedule_id,
            definition=command.definition,
            cron=command.cron,
            period=command.period,
            next_ms=next_ms(command.cron, at_ms),
            actor_id=command.actor_id,
            request_hash=command.request_hash,
            at_ms=at_ms,
        ),
    )


def _unschedule(rows: Rows, command: UnscheduleReport, at_ms: int) -> Sequence[Event]:
    schedule: Schedule | None = rows.get(schedule_key(command.schedule_id))
    if schedule is None:
        return _refuse(command, command.schedule_id, Reason.SCHEDULE_NOT_FOUND, at_ms)
    if not schedule.active:
        return ()
    return (
        ReportUnscheduled(
            schedule_id=command.schedule_id,
            actor_id=command.actor_id,
            version=schedule.version + 1,
            at_ms=at_ms,
        ),
    )


def _answered(rows: Rows, answer: ReportAnswered, at_ms: int) -> Sequence[Event]:
    """The first answer that says something decides; after another the next tick asks again."""
    report: Report | None = rows.get(report_key(answer.report_id))
    if report is None or not _is_open(report, answer):
        return ()
    if answer.outcome is Outcome.COMPLETED:
        return (
            ReportCompleted(
                report_id=answer.report_id,
                rows=answer.rows,
                bytes=answer.bytes,
                sha256=answer.sha256,
                version=report.version + 1,
                at_ms=at_ms,
            ),
        )
    if answer.outcome is Outcome.REFUSED or answer.attempt >= ATTEMPTS:
        return (_failed(report, answer.detail, at_ms),)
    return ()


def _is_open(report: Report, answer: ReportAnswered) -> bool:
    """True while the answer may change what became of the report: late, a file still ends the wait."""
    if report.status is Status.FAILED:
        return report.detail == NOBODY and answer.outcome is Outcome.COMPLETED
    return report.status is Status.PENDING


def _failed(report: Report, detail: str, at_ms: int) -> ReportFailed:
    return ReportFailed(
        report_id=report.report_id, detail=detail, version=report.version + 1, at_ms=at_ms
    )


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    events: list[Event] = []
    if due := expired(rows, tick, at_ms):
        events.append(ReportsForgotten(due=due, at_ms=at_ms))
    for key in overdue(rows, tick, ASK, at_ms):
        report: Report = rows[due_subject(key)]
        if report.attempt >= ATTEMPTS:
            events.append(_failed(report, NOBODY, at_ms))
        else:
            events.append(_again(report, at_ms))
    for key in overdue(rows, tick, RUN, at_ms):
        schedule: Schedule = rows[due_subject(key)]
        events += _scheduled_run(schedule, due_at_ms(key), at_ms)
    return events


def _again(report: Report, at_ms: int) -> ReportRequested:
    return ReportRequested(
        report_id=report.report_id,
        schedule_id=report.schedule_id,
        definition=report.definition,
        from_ms=report.from_ms,
        to_ms=report.to_ms,
        as_of_ms=report.as_of_ms,
        attempt=report.attempt + 1,
        actor_id=report.actor_id,
        request_hash=report.request_hash,
        version=report.version + 1,
        at_ms=at_ms,
    )


def _scheduled_run(schedule: Schedule, time_ms: int, at_ms: int) -> Sequence[Event]:
    """The run of this time, however late; the times that passed meanwhile have runs of their own."""
    from_ms, to_ms = period_before(schedule.period, time_ms)
    report_id = run_id(schedule.schedule_id, time_ms)
    return (
        ReportRequested(
            report_id=report_id,
            schedule_id=schedule.schedule_id,
            definition=schedule.definition,
            from_ms=from_ms,
            to_ms=to_ms,
            as_of_ms=to_ms - 1,
            attempt=1,
            actor_id=CLOCK,
            request_hash=schedule.request_hash,
            version=1,
            at_ms=at_ms,
        ),
        ScheduleAdvanced(
            schedule_id=schedule.schedule_id,
            report_id=report_id,
            next_ms=next_ms(schedule.cron, time_ms),
            version=schedule.version + 1,
            at_ms=at_ms,
        ),
    )


def period_before(period: Period, time_ms: int) -> tuple[int, int]:
    """The last whole period before a time, by the bank's clock: from, and to, which is not in it."""
    today = EPOCH + timedelta(days=bank_day(time_ms))
    match period:
        case Period.DAY:
            start, end = today - timedelta(days=1), today
        case Period.WEEK:
            end = today - timedelta(days=today.weekday())
            start = end - timedelta(days=7)
        case Period.MONTH:
            end = today.replace(day=1)
            start = (end - timedelta(days=1)).replace(day=1)
        case _:
            assert_never(period)
    return day_start_ms((start - EPOCH).days), day_start_ms((end - EPOCH).days)


def _refuse(command: Command, subject_id: str, reason: Reason, at_ms: int) -> Sequence[Event]:
    return (
        ReportingCommandRefused(
            subject_id=subject_id, command=type(command).__name__, reason=reason, at_ms=at_ms
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case ReportRequested():
            return _requested(rows, event)
        case ReportCompleted():
            found = {"rows": event.rows, "bytes": event.bytes, "sha256": event.sha256}
            return _ended(rows, event, Status.COMPLETED, {**found, "detail": ""})
        case ReportFailed():
            return _ended(rows, event, Status.FAILED, {"detail": event.detail})
        case ReportScheduled():
            return _scheduled(event)
        case ScheduleAdvanced():
            return _advanced(rows, event)
        case ReportUnscheduled():
            return _unscheduled(rows, event)
        case ReportsForgotten():
            return forgotten(rows, event.due)
        case ReportingCommandRefused():
            return {}
        case _:
            assert_never(event)


def _requested(rows: Rows, event: ReportRequested) -> Changes:
    key = report_key(event.report_id)
    before: Report | None = rows.get(key)
    report = Report(
        report_id=event.report_id,
        schedule_id=event.schedule_id,
        definition=event.definition,
        from_ms=event.from_ms,
        to_ms=event.to_ms,
        as_of_ms=event.as_of_ms,
        status=Status.PENDING,
        attempt=event.attempt,
        rows=0,
        bytes=0,
        sha256="",
        detail="",
        due_ms=event.at_ms + ASK_MS,
        actor_id=event.actor_id,
        request_hash=event.request_hash,
        version=event.version,
        created_ms=before.created_ms if before else event.at_ms,
        updated_ms=event.at_ms,
    )
    due, row = due_row(report.due_ms, ASK, key)
    undue = {due_key(before.due_ms, ASK, key): None} if before else {}
    return {**undue, key: report, due: row}


def _ended(
    rows: Rows, event: ReportCompleted | ReportFailed, status: Status, found: dict[str, Any]
) -> Changes:
    key = report_key(event.report_id)
    report: Report = rows[key]
    ended = replace(report, status=status, version=event.version, updated_ms=event.at_ms, **found)
    if report.status is not Status.PENDING:  # when it leaves is said already, and not said twice
        return {key: ended}
    due, expiry = forget(rows, event.at_ms, key)
    return {due_key(report.due_ms, ASK, key): None, key: ended, due: expiry}


def _scheduled(event: ReportScheduled) -> Changes:
    key = schedule_key(event.schedule_id)
    due, row = due_row(event.next_ms, RUN, key)
    schedule = Schedule(
        schedule_id=event.schedule_id,
        definition=event.definition,
        cron=event.cron,
        period=event.period,
        active=True,
        next_ms=event.next_ms,
        runs=0,
        last_report_id="",
        actor_id=event.actor_id,
        request_hash=event.request_hash,
        version=1,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
    )
    return {key: schedule, due: row}


def _advanced(rows: Rows, event: ScheduleAdvanced) -> Changes:
    key = schedule_key(event.schedule_id)
    schedule: Schedule = rows[key]
    due, row = due_row(event.next_ms, RUN, key)
    advanced = replace(
        schedule,
        next_ms=event.next_ms,
        runs=schedule.runs + 1,
        last_report_id=event.report_id,
        version=event.version,
        updated_ms=event.at_ms,
    )
    return {due_key(schedule.next_ms, RUN, key): None, key: advanced, due: row}


def _unscheduled(rows: Rows, event: ReportUnscheduled) -> Changes:
    key = schedule_key(event.schedule_id)
    schedule: Schedule = rows[key]
    ended = replace(schedule, active=False, version=event.version, updated_ms=event.at_ms)
    return {due_key(schedule.next_ms, RUN, key): None, key: ended}


REPORT, SCHEDULE = "report/", "schedule/"


def report_key(report_id: str) -> RowKey:
    return f"{REPORT}{report_id}"


def schedule_key(schedule_id: str) -> RowKey:
    return f"{SCHEDULE}{schedule_id}"


def run_id(schedule_id: str, time_ms: int) -> str:
    """The report of one time of a schedule: `<schedule_id>.<UTC time>`, in the schedule's partition."""
    return f"{schedule_id}.{datetime.fromtimestamp(time_ms // 1000, UTC):%Y%m%dT%H%MZ}"


def home_of(report_id: str) -> str:
    """Under which key a report lives."""
    return report_id.partition(".")[0]


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case Tick():
            return tick_keys(message)
        case RunReport() | ReportAnswered() | ReportRequested():
            return (report_key(message.report_id),)
        case ReportCompleted() | ReportFailed():
            return (report_key(message.report_id), expiry_key(message.at_ms))
        case ScheduleReport() | UnscheduleReport() | ScheduleAdvanced() | ReportUnscheduled():
            return (schedule_key(message.schedule_id),)
        case ReportsForgotten():
            return message.due
        case ReportScheduled() | ReportingCommandRefused():
            return ()
        case _:
            assert_never(message)


def aggregate_id(event: Event) -> str:
    match event:
        case ReportScheduled() | ScheduleAdvanced() | ReportUnscheduled():
            return event.schedule_id
        case ReportingCommandRefused():
            return event.subject_id
        case ReportsForgotten():
            return event.due[0]
        case _:
            return event.report_id


REPORTING = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Report, Schedule, Due, Expiry),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, REPORT, SCHEDULE),
)
