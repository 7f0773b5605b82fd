"""Audit: what all services said, in chains. It has no commands; `agents/observe.py` reads for it."""

from __future__ import annotations

from agents.transact import Service
from domain.audit import AUDIT

SERVICE = Service(
    decider=AUDIT,
    command_keys={},
)
