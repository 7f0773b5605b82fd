"""Reports: computed from the logs as of the end of their period, and kept as a file.

    ReportRequested --> reports/make.py, one at a time: each takes a core --> ReportAnswered

A report asked for twice is computed once: its file answers, and says the same.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import duckdb

from agents.effect import Effect
from domain.reporting import Outcome, ReportAnswered, ReportRequested, home_of
from reports.files import count, sha256
from reports.make import DECIDED_S, LIMITS, Maker, Order, Unmade
from reports.sources import Undefined
from resilience.downstream import Away
from topics.subscriptions import REPORTS
from travel.errors import Refused, TooLarge, TooLong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from settings import Settings


def effect(settings: Settings) -> Effect:
    """Reports, computed by this process into a directory that the gateways read."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Computed]:
        yield Computed(Maker(settings))

    return Effect(
        name="reports",
        owner="reporting",
        requests=REPORTS,
        types=(ReportRequested,),
        key=lambda answered: home_of(answered.report_id),
        open=opened,
        timeout_s=LIMITS.seconds + DECIDED_S + 30,
        at_once=1,
    )


class Computed:
    """The way to reports: this machine is the downstream."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker

    def downstream(self, _request: ReportRequested) -> str:
        return "reports"

    async def call(self, request: ReportRequested, _headers: Mapping[str, str]) -> ReportAnswered:
        return await asyncio.to_thread(self._made, request)

    def unanswered(self, request: ReportRequested, why: Exception) -> ReportAnswered:
        return _answer(request, Outcome.UNKNOWN, str(why) or type(why).__name__)

    def _made(self, request: ReportRequested) -> ReportAnswered:
        order = Order(
            report_id=request.report_id,
            definition=request.definition,
            from_ms=request.from_ms,
            to_ms=request.to_ms,
            as_of_ms=request.as_of_ms,
        )
        try:
            return _answer(request, Outcome.COMPLETED, "", self.maker.make(order))
        except (Unmade, OSError, duckdb.IOException) as exc:
            raise Away(str(exc)) from exc
        except TooLong as exc:
            # another try at once would hold up all others as long: the service asks again later
            return _answer(request, Outcome.UNKNOWN, str(exc))
        except (Refused, TooLarge, Undefined) as exc:
            return _answer(request, Outcome.REFUSED, str(exc))


def _answer(
    request: ReportRequested, outcome: Outcome, detail: str, file: Path | None = None
) -> ReportAnswered:
    return ReportAnswered(
        report_id=request.report_id,
        attempt=request.attempt,
        outcome=outcome,
        rows=count(file) if file else 0,
        bytes=file.stat().st_size if file else 0,
        sha256=sha256(file) if file else "",
        detail=detail[:500],
    )
