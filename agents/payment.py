"""Payment: money that leaves through a rail. It has no commands; `perform` asks the rail for it."""

from __future__ import annotations

from agents.transact import Service
from domain.payment import PAYMENT, RailAnswered

SERVICE = Service(
    decider=PAYMENT,
    command_keys={},
    results=(RailAnswered,),
)
