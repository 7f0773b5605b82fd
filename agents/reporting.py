"""Reporting: reports once or by cron. `perform` computes them (reports/).

Commands arrive under the id of the report or of the schedule.
"""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.reporting import (
    REPORTING,
    ReportAnswered,
    RunReport,
    ScheduleReport,
    UnscheduleReport,
)

SERVICE = Service(
    decider=REPORTING,
    command_keys={
        RunReport: attrgetter("report_id"),
        ScheduleReport: attrgetter("schedule_id"),
        UnscheduleReport: attrgetter("schedule_id"),
    },
    results=(ReportAnswered,),
)
