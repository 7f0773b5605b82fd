"""Settlement: batches of what providers moved. Statements arrive under the book, a run under its own id."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.settlement import SETTLEMENT, ReconcileBatch, RunSettlement, home_of

SERVICE = Service(
    decider=SETTLEMENT,
    command_keys={
        RunSettlement: attrgetter("run_id"),
        ReconcileBatch: lambda command: home_of(command.batch_id),
    },
)
