"""Notifications: what is to be told to whom, decided from the facts of other services."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRequested:
    """A user is to be told something: template and its data, over a channel."""

    notification_id: str
    user_id: str
    channel: str
    template: str
    data: dict[str, str]
    at_ms: int
