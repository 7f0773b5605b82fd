"""Notification: what is to be told to whom. It has no commands; its facts are relayed to it."""

from __future__ import annotations

from agents.transact import Service
from domain.notification import NOTIFICATION

SERVICE = Service(
    decider=NOTIFICATION,
    command_keys={},
)
