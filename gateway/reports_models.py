"""Bodies and answers of reports."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from domain.cron import LENGTH_LIMIT, is_cron
from domain.reporting import (
    COLUMNS_LIMIT,
    FILTERS_LIMIT,
    Definition,
    Filter,
    Operator,
    Source,
)
from gateway.answers import Shown
from gateway.models import Body, Plain
from reports.sources import Undefined, check

Name = Annotated[str, StringConstraints(min_length=1, max_length=50), Plain]
# the values of the service's own types, as a test holds them
SourceName = Literal["transactions", "entries", "payments", "settlements", "accounts"]
OperatorName = Literal["eq", "ne", "lt", "le", "gt", "ge", "contains"]
PeriodName = Literal["day", "week", "month"]


class NewFilter(Body):
    column: Name
    operator: OperatorName = "eq"
    value: Annotated[str, StringConstraints(max_length=200), Plain]


class NewDefinition(Body):
    """What a report shows: rows, or one row a group with counts and sums of the money columns."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=140), Plain]
    source: SourceName
    columns: list[Name] = Field(max_length=COLUMNS_LIMIT)
    filters: list[NewFilter] = Field(default_factory=list, max_length=FILTERS_LIMIT)
    group_by: list[Name] = Field(default_factory=list, max_length=COLUMNS_LIMIT)

    def definition(self) -> Definition:
        return Definition(
            title=self.title,
            source=Source(self.source),
            columns=tuple(self.columns),
            filters=tuple(
                Filter(column=one.column, operator=Operator(one.operator), value=one.value)
                for one in self.filters
            ),
            group_by=tuple(self.group_by),
        )

    @model_validator(mode="after")
    def _exists(self) -> NewDefinition:
        for name in ("columns", "group_by"):
            if len({*getattr(self, name)}) < len(getattr(self, name)):
                raise PydanticCustomError(
                    "INVALID", "names a column twice", {"pointer": f"/{name}"}
                )
        if not self.columns and not self.group_by:
            raise PydanticCustomError("INVALID", "names no column", {"pointer": "/columns"})
        try:
            check(self.definition())
        except Undefined as exc:
            raise PydanticCustomError("INVALID", "{why}", {"why": str(exc), "pointer": exc.where}) from exc  # fmt: skip
        return self


class NewReport(NewDefinition):
    from_: str = Field(alias="from", description="RFC 3339, or a day of the bank: its beginning")
    to: str | None = Field(default=None, description="likewise, a day to its end; not said: now")


class NewSchedule(NewDefinition):
    cron: Annotated[str, StringConstraints(min_length=9, max_length=LENGTH_LIMIT)] = Field(
        description="minute, hour, day of month, month, day of week, by the bank's clock"
    )
    period: PeriodName = Field(description="what each run is about: the last whole one before it")

    @model_validator(mode="after")
    def _recurs(self) -> NewSchedule:
        if not is_cron(self.cron):
            raise PydanticCustomError(
                "INVALID", "is no cron expression of five fields with a next time", {"pointer": "/cron"}
            )  # fmt: skip
        return self


class ShownFilter(Shown):
    column: str
    operator: str
    value: str


class Progress(Shown):
    phase: Literal["waiting", "reading", "computing"]
    records: int = Field(description="read so far")


class Report(Shown):
    report_id: str
    schedule_id: str | None
    title: str
    source: str
    columns: list[str]
    filters: list[ShownFilter]
    group_by: list[str]
    from_: str = Field(alias="from")
    to: str = Field(description="the first moment behind the period")
    as_of: str = Field(description="the books as they were then, that millisecond with them")
    status: Literal["pending", "completed", "failed"]
    detail: str | None = Field(description="why it failed")
    progress: Progress | None = Field(description="of one that is pending, where it can be seen")
    attempt: int
    rows: int | None
    sha256: str | None = Field(description="of what was computed, hex")
    requested_by: str
    version: int
    created_at: str
    updated_at: str


class Reports(Shown):
    items: list[Report]
    next_cursor: str | None


class Schedule(Shown):
    schedule_id: str
    title: str
    source: str
    columns: list[str]
    filters: list[ShownFilter]
    group_by: list[str]
    cron: str
    period: str
    active: bool
    next_at: str | None
    runs: int
    last_report_id: str | None
    requested_by: str
    version: int
    created_at: str
    updated_at: str


class Schedules(Shown):
    items: list[Schedule]
    next_cursor: str | None
