"""Analytics: what ended, counted. It has no commands; `agents/observe.py` reads for it."""

from __future__ import annotations

from agents.transact import Service
from domain.analytics import ANALYTICS

SERVICE = Service(
    decider=ANALYTICS,
    command_keys={},
)
