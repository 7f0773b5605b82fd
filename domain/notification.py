"""Notifications: what is to be told to whom, decided from the ends of transactions.

TransactionCompleted | TransactionFailed --> NotificationRequested, once
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never, get_args

from domain.decider import (
    Changes,
    Decider,
    Expiry,
    RowKey,
    Rows,
    Tick,
    expired,
    expiry_key,
    forget,
    forgotten,
    tick_keys,
)
from domain.saga import TransactionCompleted, TransactionFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNEL = "log"


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


Message: TypeAlias = TransactionCompleted | TransactionFailed | Tick
Event: TypeAlias = NotificationRequested | NotificationsForgotten


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case TransactionCompleted():
            return _request(rows, message, "transaction_completed", {}, at_ms)
        case TransactionFailed():
            reason = {"reason": str(message.reason)}
            return _request(rows, message, "transaction_failed", reason, at_ms)
        case Tick():
            due = expired(rows, message, at_ms)
            return (NotificationsForgotten(due=due, at_ms=at_ms),) if due else ()
        case _:
            assert_never(message)


def _request(
    rows: Rows,
    fact: TransactionCompleted | TransactionFailed,
    template: str,
    data: dict[str, str],
    at_ms: int,
) -> Sequence[Event]:
    """A transaction ends once, so its id is the notification's: told twice is told once."""
    order = fact.order
    if notification_key(order.transaction_id) in rows:
        return ()
    return (
        NotificationRequested(
            notification_id=order.transaction_id,
            user_id=order.owner_id,
            channel=CHANNEL,
            template=template,
            data={
                "transaction_id": order.transaction_id,
                "type": str(order.type),
                "amount_minor": str(order.amount_minor),
                "currency": order.currency,
                **data,
            },
            at_ms=at_ms,
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case NotificationRequested():
            key = notification_key(event.notification_id)
            due, expiry = forget(rows, event.at_ms, key)
            row = Notification(user_id=event.user_id, template=event.template, at_ms=event.at_ms)
            return {key: row, due: expiry}
        case NotificationsForgotten():
            return forgotten(rows, event.due)
        case _:
            assert_never(event)


def notification_key(notification_id: str) -> RowKey:
    return f"notification/{notification_id}"


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case TransactionCompleted() | TransactionFailed():
            return (notification_key(message.order.transaction_id),)
        case Tick():
            return tick_keys(message)
        case NotificationRequested():
            return (expiry_key(message.at_ms),)
        case NotificationsForgotten():
            return message.due
        case _:
            assert_never(message)


def aggregate_id(event: Event) -> str:
    match event:
        case NotificationRequested():
            return event.user_id
        case NotificationsForgotten():
            return event.due[0]
        case _:
            assert_never(event)


NOTIFICATION = Decider(
    service="notification",
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Notification, Expiry),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
)
