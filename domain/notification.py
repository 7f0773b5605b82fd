"""Notifications: what is to be told to whom, decided from the facts of other services."""

from __future__ import annotations

from dataclasses import dataclass

from domain.decider import RowKey


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRequested:
    """A user is to be told something: template and its data, over a channel."""

    notification_id: str
    user_id: str
    channel: str
    template: str
    data: dict[str, str]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationsForgotten:
    """Notifications left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Row `notification/<notification_id>`: requested once, never again."""

    user_id: str
    template: str
    at_ms: int
