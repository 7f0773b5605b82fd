"""Reports over HTTP: ask for one, plan one by cron, look, take it along as a file."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, assert_never

from domain.money import EXPONENTS
from domain.reporting import (
    Definition,
    Filter,
    Operator,
    Period,
    ReportCompleted,
    ReportFailed,
    ReportingCommandRefused,
    ReportScheduled,
    ReportUnscheduled,
    RunReport,
    ScheduleReport,
    Source,
    Status,
    UnscheduleReport,
    home_of,
    report_key,
    schedule_key,
)
from gateway import files, scans, statements, views
from gateway.answer import Answer, answer
from gateway.errors import Problem, not_found, state_unavailable
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.reads import REPORTS, SCHEDULES
from gateway.reports_models import NewReport, NewSchedule
from rendering import MEDIA_TYPES, WRITERS, Bars, Column, Document, Format, Money, Table
from rendering import Kind as Set
from reports.files import file_of, rows
from reports.make import Order, Unmade, progress
from reports.sources import COUNT, Kind, Undefined
from reports.sources import shown as columns_of
from travel.errors import Refused, TooLarge, TooLong

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aiohttp import web

    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard
    from rendering import Value

SERVICE = "reporting"
FORMATS = tuple(kind.value for kind in Format)
PAPER = 20_000  # rows of a PDF
BARS = 12  # of a chart
CELL_KINDS = {
    Kind.TEXT: Set.TEXT,
    Kind.MONEY: Set.MONEY,
    Kind.COUNT: Set.NUMBER,
    Kind.TIME: Set.TIME,
}
SHORT = frozenset({"currency", "status", "type", "reason", "day", "provider"})


async def create(call: Call) -> Answer:
    """202, or 201 with the report when the client waits until its file is there."""
    body = call.body
    assert isinstance(body, NewReport)
    now_ms = time.time_ns() // 1_000_000
    from_ms = statements.moment_of("from", body.from_, 0)
    to_ms = now_ms if body.to is None else statements.moment_of("to", body.to, 1)
    if from_ms >= to_ms:
        raise Problem("BAD_QUERY", "`from` lies before `to`")

    async def first(identity: Identity) -> Answer:
        command = RunReport(
            report_id=identity.resource_id,
            definition=body.definition(),
            from_ms=max(0, from_ms),
            to_ms=to_ms,
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )
        return await pursue(call, identity, _Running(call, identity, command))

    return await once(call, identify(call), first)


class _Running:
    """RunReport on its way: it ends when the file is there, or there will be none."""

    service = SERVICE

    def __init__(self, call: Call, identity: Identity, command: RunReport) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.key = self.aggregate_id = command.report_id
        self.location = f"/api/reports/{self.key}"
        self.named = {"report_id": self.key}

    def heard(self, heard: Heard) -> Answer | Look | None:
        if isinstance(heard.event, ReportingCommandRefused):
            ours = heard.answers(self.identity.command_id)
            return refused(self.call, heard.event.reason, self.named) if ours else None
        return LOOK if isinstance(heard.event, ReportCompleted | ReportFailed) else None

    async def looked(self) -> Answer | None:
        row = await _row(self.call, self.key)
        if row is None or row["status"] == Status.PENDING:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, "IDEMPOTENCY_MISMATCH", self.named)
        if row["status"] == Status.FAILED:
            return refused(self.call, "REPORT_FAILED", self.named, report=shown(row))
        return answer(shown(row), 201)


async def schedule(call: Call) -> Answer:
    """202, or 201 with the schedule."""
    body = call.body
    assert isinstance(body, NewSchedule)

    async def first(identity: Identity) -> Answer:
        command = ScheduleReport(
            schedule_id=identity.resource_id,
            definition=body.definition(),
            cron=" ".join(body.cron.split()),
            period=Period(body.period),
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )
        return await pursue(call, identity, _Planning(call, identity, command))

    return await once(call, identify(call), first)


async def unschedule(call: Call) -> Answer:
    """202, or 200 with the schedule as it ended."""
    schedule_id = call.names["schedule_id"]
    if await _schedule(call, schedule_id) is None:
        raise not_found("no such schedule, or not yet")
    command = UnscheduleReport(schedule_id=schedule_id, actor_id=call.caller.user_id)

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Planning(call, identity, command))

    return await once(call, identify(call), first)


class _Planning:
    """A schedule begun or ended, on its way."""

    service = SERVICE

    def __init__(
        self, call: Call, identity: Identity, command: ScheduleReport | UnscheduleReport
    ) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.key = self.aggregate_id = command.schedule_id
        self.location = f"/api/report-schedules/{self.key}"
        self.named = {"schedule_id": self.key}
        self.active = isinstance(command, ScheduleReport)

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, ReportingCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        return LOOK if isinstance(heard.event, ReportScheduled | ReportUnscheduled) else None

    async def looked(self) -> Answer | None:
        row = await _schedule(self.call, self.key)
        if row is None or row["active"] is not self.active:
            return None
        if self.active and row["request_hash"] != self.identity.request_hash:
            return refused(self.call, "IDEMPOTENCY_MISMATCH", self.named)
        return answer(shown_schedule(row), 201 if self.active else 200)


async def _row(call: Call, report_id: str) -> Row | None:
    home = home_of(report_id)
    return await call.gateway.queries.row(SERVICE, home, report_key(report_id))


async def _schedule(call: Call, schedule_id: str) -> Row | None:
    return await call.gateway.queries.row(SERVICE, schedule_id, schedule_key(schedule_id))


async def get(call: Call) -> Answer:
    row = await _report(call)
    return answer(views.picked(_progressing(call, row), call.query.get("fields")))


async def _report(call: Call) -> Row:
    row = await call.gateway.reads.row(call, REPORTS, call.names["report_id"])
    if row is None:
        raise not_found("no such report, or not yet")
    return row


def _progressing(call: Call, row: Row) -> dict[str, Any]:
    """With how far its making is, where this machine sees it."""
    found = shown(row)
    if row["status"] == Status.PENDING:
        found["progress"] = progress(call.gateway.reports.directory, row["report_id"])
    return found


async def get_schedule(call: Call) -> Answer:
    row = await call.gateway.reads.row(call, SCHEDULES, call.names["schedule_id"])
    if row is None:
        raise not_found("no such schedule, or not yet")
    return answer(views.picked(shown_schedule(row), call.query.get("fields")))


async def listing(call: Call) -> Answer:
    """One partition after another, each in the order of its keys."""
    status = call.query.get("status")
    found = await scans.page(call, SERVICE, "report/", lambda row: status in (None, row["status"]))
    return scans.shown(call, map(shown, found.rows), found.following)


async def schedules(call: Call) -> Answer:
    found = await scans.page(call, SERVICE, "schedule/", lambda _: True)
    return scans.shown(call, map(shown_schedule, found.rows), found.following)


async def download(call: Call, request: web.Request) -> web.StreamResponse:
    """The report as a file: CSV, XLSX, or a PDF with a chart where it is grouped."""
    row = await _report(call)
    report_id = row["report_id"]
    if row["status"] != Status.COMPLETED:
        raise Problem("REPORT_NOT_READY", f"it is {row['status']}")
    kind = Format(call.query.get("format", Format.PDF))
    if kind is Format.PDF and row["rows"] > PAPER:
        raise Problem("FILE_TOO_LARGE", f"{row['rows']:,} rows; {PAPER:,} fit into a PDF")
    file = await _file(call, row)
    with tempfile.SpooledTemporaryFile(files.MEMORY) as spooled:
        made: BinaryIO = spooled  # type: ignore[assignment]  # it is one in all but name
        await call.gateway.past.aside(lambda: WRITERS[kind](document(row, file), made))
        name = f"{row['definition']['title']}-{report_id}.{kind}"
        return await files.send(call, request, made, MEDIA_TYPES[kind], name)


async def _file(call: Call, row: Row) -> Path:
    """What was computed; made again where it is not kept: the logs say the same."""
    maker = call.gateway.reports
    order = Order(
        report_id=row["report_id"],
        definition=_definition(row["definition"]),
        from_ms=row["from_ms"],
        to_ms=row["to_ms"],
        as_of_ms=row["as_of_ms"],
    )
    file = file_of(maker.directory, order)
    if await asyncio.to_thread(file.is_file):
        return file
    try:
        return await call.gateway.past.aside(lambda: maker.make(order))
    except (Unmade, TooLong) as exc:
        raise state_unavailable("its file is gone, and can't be made again just now") from exc
    except (Refused, TooLarge, Undefined) as exc:
        raise Problem("REPORT_FAILED", str(exc)) from exc


def document(row: Row, file: Path) -> Document:
    """A report as it is written down; its rows are read as the writer takes them."""
    definition = _definition(row["definition"])
    columns = columns_of(definition)
    return Document(
        title=definition.title,
        issuer="Streambank",
        facts=(
            ("Report", row["report_id"]),
            ("Of", definition.source.value),
            ("Period", f"{_minute(row['from_ms'])} to {_minute(row['to_ms'])} UTC"),
            *[("Only", f"{one.column} {one.operator} {one.value}") for one in definition.filters],
            ("As of", f"{_minute(row['as_of_ms'] + 1)} UTC"),  # its last millisecond counts
            ("Rows", f"{row['rows']:,}"),
        ),
        chart=_chart(definition, file) if definition.group_by and row["rows"] <= PAPER else None,
        tables=[
            Table(
                title=definition.title,
                columns=[_column(name, kind) for name, kind in columns.items()],
                rows=_cells(columns, file),
            )
        ],
        footer="Amounts are of the row's currency; times are UTC.",
    )


def _minute(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M}"


def _definition(fields: Row) -> Definition:
    return Definition(
        title=fields["title"],
        source=Source(fields["source"]),
        columns=tuple(fields["columns"]),
        filters=tuple(
            Filter(column=one["column"], operator=Operator(one["operator"]), value=one["value"])
            for one in fields["filters"]
        ),
        group_by=tuple(fields["group_by"]),
    )


def _column(name: str, kind: Kind) -> Column:
    title = name.replace("_", " ").capitalize()
    if name.endswith("_id"):
        return Column(title=title, kind=Set.CODE, width=14)
    width = 8 if name in SHORT or kind is Kind.COUNT else 14
    return Column(title=title, kind=CELL_KINDS[kind], width=width)


def _cells(columns: dict[str, Kind], file: Path) -> Iterator[Sequence[Value]]:
    for row in rows(file):
        yield [_cell(row, name, kind) for name, kind in columns.items()]


def _cell(row: dict[str, Any], name: str, kind: Kind) -> Value:
    value = row[name]
    if value is None:
        return None
    match kind:
        case Kind.MONEY:
            currency = row["currency"]
            return Money(int(value), currency, EXPONENTS.get(currency, 0))
        case Kind.TIME:
            at: datetime = value.replace(tzinfo=UTC)
            return at
        case Kind.COUNT:
            return int(value)
        case Kind.TEXT:
            return str(value)
        case _:
            assert_never(kind)


def _chart(definition: Definition, file: Path) -> Bars:
    """How many there are by the first of the groups: sums of several currencies can't be compared."""
    first = definition.group_by[0]
    counts: Counter[str] = Counter()
    for row in rows(file):
        counts["–" if row[first] is None else str(row[first])] += row[COUNT]
    most = sorted(counts.most_common(BARS))
    title = f"{definition.source.value.capitalize()} by {first.replace('_', ' ')}"
    if len(counts) > BARS:
        title += f", the {BARS} largest"
    return Bars(
        title=title,
        labels=[label for label, _ in most],
        values=[count for _, count in most],
        shown=[f"{count:,}" for _, count in most],
    )


def shown(row: Row) -> dict[str, Any]:
    done = row["status"] == Status.COMPLETED
    return {
        "report_id": row["report_id"],
        "schedule_id": row["schedule_id"] or None,
        **_defined(row["definition"]),
        "from": views.time_of(row["from_ms"]),
        "to": views.time_of(row["to_ms"]),
        "as_of": views.time_of(row["as_of_ms"]),
        "status": row["status"],
        "detail": row["detail"] or None,
        "progress": None,
        "attempt": row["attempt"],
        "rows": row["rows"] if done else None,
        "sha256": row["sha256"] if done else None,
        "requested_by": row["actor_id"],
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
        "updated_at": views.time_of(row["updated_ms"]),
    }


def shown_schedule(row: Row) -> dict[str, Any]:
    return {
        "schedule_id": row["schedule_id"],
        **_defined(row["definition"]),
        "cron": row["cron"],
        "period": row["period"],
        "active": row["active"],
        "next_at": views.time_of(row["next_ms"]) if row["active"] else None,
        "runs": row["runs"],
        "last_report_id": row["last_report_id"] or None,
        "requested_by": row["actor_id"],
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
        "updated_at": views.time_of(row["updated_ms"]),
    }


def _defined(definition: Row) -> dict[str, Any]:
    return {
        name: definition[name] for name in ("title", "source", "columns", "filters", "group_by")
    }
