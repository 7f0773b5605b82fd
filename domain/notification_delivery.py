r"""Deliveries: attempts to reach a user outside the bank, until one arrives or all are given up.

    DeliveryRequested --DeliveryAnswered--> NotificationDelivered
       ^      \--failed, busy, no word--> DeliveryFailed --its time--> DeliveryRequested
       |       \--refused, gone, last try--> NotificationDied --KEEP_FINAL_MS--> forgotten
       +--RedriveNotification--------------------/

The pauses between attempts are a schedule of the channel. A pause is decided once, in the event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from domain.decider import KEEP_FINAL_MS, due_key, due_row, due_subject, forget, overdue
from domain.notification_recipients import EndpointDisabled, endpoint_changed
from domain.notification_rows import (
    Channel,
    Delivery,
    Notification,
    NotificationCommandRefused,
    Recipient,
    Status,
    delivery_key,
    endpoint_of,
    listed_key,
    notification_key,
    owner,
    recipient_key,
    recipient_of,
    refuse,
    target_of,
)
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from domain.decider import Changes, RowKey, Rows, Tick

MINUTE_MS = 60 * 1000
HOUR_MS = 60 * MINUTE_MS
DELIVER = "deliver"  # the kind of a due row: a delivery is to be looked at
KEEP = "keep"  # the same: what was given up was kept long enough
ANSWER_MS = HOUR_MS  # after so long without a word from `perform` a request counts as failed
BUSY_MS = 15 * 1000  # until what found a full line is asked for again
# pauses behind the first, second, … try; Standard Webhooks' schedule, and a shorter one for people
WEBHOOK_PAUSES_MS = (
    5 * 1000,
    5 * MINUTE_MS,
    30 * MINUTE_MS,
    2 * HOUR_MS,
    5 * HOUR_MS,
    10 * HOUR_MS,
    14 * HOUR_MS,
    20 * HOUR_MS,
    24 * HOUR_MS,
)
PAUSES_MS = (30 * 1000, 2 * MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS, 12 * HOUR_MS)
JITTER_PERCENT = 10  # so that what failed together does not come again together


class Outcome(StrEnum):
    """What one attempt came to."""

    DELIVERED = "delivered"
    FAILED = "failed"  # a later one may go better
    BUSY = "busy"  # it was not made: the line was full
    REFUSED = "refused"  # it will never go better
    GONE = "gone"  # the endpoint wants nothing more


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveNotification:
    """Try once more what was given up, from the start of its schedule."""

    notification_id: str
    user_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAnswered:
    """The result of one attempt, said by `perform` into the notification inbox."""

    notification_id: str
    user_id: str
    attempt: int
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRequested:
    """Private: one attempt to reach a user outside, with all that `perform` needs for it."""

    notification_id: str
    user_id: str
    channel: Channel
    attempt: int
    target: str  # address, number, token or URL
    to: str  # where it goes whatever the user's address is by then; empty: nothing of that kind
    endpoint_id: str
    secret_version: int
    kind: str
    template: str
    template_version: int
    subject: str
    text: str
    html: str
    data: dict[str, str]
    requested_ms: int  # when the user was to be told
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationDelivered:
    """It has arrived where it was sent."""

    notification_id: str
    user_id: str
    channel: str
    attempt: int
    endpoint_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed:
    """An attempt came to nothing; the next is at `next_ms`. Not `counted`: none was made."""

    notification_id: str
    user_id: str
    channel: str
    attempt: int
    detail: str
    counted: bool
    next_ms: int
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationDied:
    """It was given up: a dead letter that can be put back."""

    notification_id: str
    user_id: str
    channel: str
    attempt: int
    detail: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRedriven:
    """What was given up is tried again."""

    notification_id: str
    user_id: str
    channel: str
    actor_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadNotificationForgotten:
    """What was given up, and never put back, left the table."""

    notification_id: str
    user_id: str
    at_ms: int


Event: TypeAlias = (
    DeliveryRequested
    | NotificationDelivered
    | DeliveryFailed
    | NotificationDied
    | NotificationRedriven
    | DeadNotificationForgotten
)
Said: TypeAlias = Event | EndpointDisabled | NotificationCommandRefused


def redrive(rows: Rows, command: RedriveNotification, at_ms: int) -> Sequence[Said]:
    notification: Notification | None = rows.get(notification_key(command.notification_id))
    if notification is None or notification.user_id != command.user_id:
        return refuse(command, Reason.NOTIFICATION_NOT_FOUND, at_ms)
    if notification.status != Status.DEAD:
        return refuse(command, Reason.NOTIFICATION_NOT_DEAD, at_ms)
    delivery: Delivery = rows[delivery_key(command.notification_id)]
    recipient = recipient_of(rows, command.user_id)
    if _blocked(recipient, notification, delivery):
        return refuse(command, Reason.NO_ADDRESS, at_ms)
    redriven = NotificationRedriven(
        notification_id=command.notification_id,
        user_id=command.user_id,
        channel=notification.channel,
        actor_id=command.actor_id,
        version=notification.version + 1,
        at_ms=at_ms,
    )
    return (redriven, _again(recipient, notification, delivery, at_ms))


def _again(
    recipient: Recipient, notification: Notification, delivery: Delivery, at_ms: int
) -> DeliveryRequested:
    """The next attempt, to where the user is reached now."""
    channel = Channel(notification.channel)
    endpoint = endpoint_of(recipient, delivery.endpoint_id)
    return DeliveryRequested(
        notification_id=notification.notification_id,
        user_id=notification.user_id,
        channel=channel,
        attempt=notification.attempt + 1,
        target=endpoint.url if endpoint else delivery.to or target_of(recipient, channel),
        to=delivery.to,
        endpoint_id=delivery.endpoint_id,
        secret_version=endpoint.secret_version if endpoint else 0,
        kind=notification.kind,
        template=notification.template,
        template_version=delivery.template_version,
        subject=delivery.subject,
        text=delivery.text,
        html=delivery.html,
        data=delivery.data,
        requested_ms=notification.at_ms,
        at_ms=at_ms,
    )


def _blocked(recipient: Recipient, notification: Notification, delivery: Delivery) -> str:
    """Why there is nowhere to send it now; empty: there is."""
    if notification.channel != Channel.WEBHOOK:
        there = delivery.to or target_of(recipient, Channel(notification.channel))
        return "" if there else "there is no address any more"
    endpoint = endpoint_of(recipient, delivery.endpoint_id)
    if endpoint is None:
        return "the endpoint is no more"
    return "" if endpoint.enabled else "the endpoint is disabled"


def answered(rows: Rows, answer: DeliveryAnswered, at_ms: int) -> Sequence[Said]:
    notification: Notification | None = rows.get(notification_key(answer.notification_id))
    if notification is None or notification.status != Status.REQUESTED:
        return ()
    if answer.attempt != notification.attempt:
        return ()
    delivery: Delivery = rows[delivery_key(answer.notification_id)]
    match answer.outcome:
        case Outcome.DELIVERED:
            return (
                NotificationDelivered(
                    notification_id=answer.notification_id,
                    user_id=notification.user_id,
                    channel=notification.channel,
                    attempt=answer.attempt,
                    endpoint_id=delivery.endpoint_id,
                    version=notification.version + 1,
                    at_ms=at_ms,
                ),
            )
        case Outcome.FAILED:
            return tuple(_failed(rows, notification, delivery, answer.detail, at_ms))
        case Outcome.BUSY:
            return (_later(notification, answer.detail, at_ms + BUSY_MS, at_ms, counted=False),)
        case Outcome.REFUSED:
            return (_died(notification, answer.detail, at_ms),)
        case Outcome.GONE:
            gone = _disabled(rows, notification, delivery, "the endpoint answered 410", at_ms)
            return (*gone, _died(notification, answer.detail, at_ms))
        case _:
            assert_never(answer.outcome)


def _failed(
    rows: Rows, notification: Notification, delivery: Delivery, detail: str, at_ms: int
) -> Iterator[Said]:
    """Again later; after the last try it is dead, and so is an endpoint that took nothing meanwhile."""
    webhook = notification.channel == Channel.WEBHOOK
    pauses = WEBHOOK_PAUSES_MS if webhook else PAUSES_MS
    tries = notification.attempt - notification.tries_before
    if tries <= len(pauses):
        pause_ms = jittered(pauses[tries - 1], notification.notification_id, tries)
        yield _later(notification, detail, at_ms + pause_ms, at_ms, counted=True)
        return
    endpoint = endpoint_of(recipient_of(rows, notification.user_id), delivery.endpoint_id)
    if endpoint is not None and endpoint.delivered_ms < notification.at_ms:
        why = "nothing has arrived there for as long as tries last"
        yield from _disabled(rows, notification, delivery, why, at_ms)
    yield _died(notification, detail, at_ms)


def jittered(pause_ms: int, notification_id: str, tries: int) -> int:
    """The pause, ±JITTER_PERCENT by a hash: the same for the same try whenever it is decided."""
    digest = sha256(f"{notification_id}/{tries}".encode()).digest()
    percent = int.from_bytes(digest[:4], "big") % (2 * JITTER_PERCENT + 1) - JITTER_PERCENT
    return pause_ms + pause_ms * percent // 100


def _later(
    notification: Notification, detail: str, next_ms: int, at_ms: int, *, counted: bool
) -> DeliveryFailed:
    return DeliveryFailed(
        notification_id=notification.notification_id,
        user_id=notification.user_id,
        channel=notification.channel,
        attempt=notification.attempt,
        detail=detail,
        counted=counted,
        next_ms=next_ms,
        version=notification.version + 1,
        at_ms=at_ms,
    )


def _died(notification: Notification, detail: str, at_ms: int) -> NotificationDied:
    return NotificationDied(
        notification_id=notification.notification_id,
        user_id=notification.user_id,
        channel=notification.channel,
        attempt=notification.attempt,
        detail=detail,
        version=notification.version + 1,
        at_ms=at_ms,
    )


def _disabled(
    rows: Rows, notification: Notification, delivery: Delivery, why: str, at_ms: int
) -> Sequence[Said]:
    recipient = recipient_of(rows, notification.user_id)
    endpoint = endpoint_of(recipient, delivery.endpoint_id)
    if endpoint is None or not endpoint.enabled:
        return ()
    return (
        EndpointDisabled(
            user_id=recipient.user_id,
            endpoint_id=endpoint.endpoint_id,
            detail=why,
            version=recipient.version + 1,
            at_ms=at_ms,
        ),
    )


def look(rows: Rows, tick: Tick, at_ms: int) -> Iterator[Said]:
    """Deliveries whose time has come: the next attempt of each, or its end."""
    for kind in (DELIVER, KEEP):
        for key in overdue(rows, tick, kind, at_ms):
            yield from _look(rows, due_subject(key), at_ms)


def _look(rows: Rows, notification_id: str, at_ms: int) -> Iterator[Said]:
    notification: Notification = rows[notification_key(notification_id)]
    delivery: Delivery = rows[delivery_key(notification_id)]
    match Status(notification.status):
        case Status.WAITING:
            recipient = recipient_of(rows, notification.user_id)
            if why := _blocked(recipient, notification, delivery):
                yield _died(notification, why, at_ms)
            else:
                yield _again(recipient, notification, delivery, at_ms)
        case Status.REQUESTED:
            yield from _failed(rows, notification, delivery, "no word of the attempt", at_ms)
        case Status.DEAD:
            yield DeadNotificationForgotten(
                notification_id=notification_id, user_id=notification.user_id, at_ms=at_ms
            )
        case Status.DELIVERED:
            raise AssertionError("what has arrived is not due")


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case DeliveryRequested():
            return _attempted(rows, event)
        case NotificationDelivered():
            return _delivered(rows, event)
        case DeliveryFailed():
            return _waiting(rows, event)
        case NotificationDied():
            return _dead(rows, event)
        case NotificationRedriven():
            key = notification_key(event.notification_id)
            row: Notification = rows[key]
            return {key: _as_of(replace(row, tries_before=row.attempt), event)}
        case DeadNotificationForgotten():
            return _forgotten(rows, event)
        case _:
            assert_never(event)


def _attempted(rows: Rows, event: DeliveryRequested) -> Changes:
    key = notification_key(event.notification_id)
    row: Notification = rows[key]
    delivery = Delivery(
        notification_id=event.notification_id,
        user_id=event.user_id,
        to=event.to,
        endpoint_id=event.endpoint_id,
        template_version=event.template_version,
        subject=event.subject,
        text=event.text,
        html=event.html,
        data=event.data,
    )
    asked = replace(row, status=Status.REQUESTED, attempt=event.attempt, updated_ms=event.at_ms)
    return {
        delivery_key(event.notification_id): delivery,
        **_due(row, asked, event.at_ms + ANSWER_MS),
    }


def _as_of(
    row: Notification,
    event: NotificationDelivered | DeliveryFailed | NotificationDied | NotificationRedriven,
) -> Notification:
    return replace(row, version=event.version, updated_ms=event.at_ms)


def _due(before: Notification, after: Notification, due_ms: int | None) -> dict[RowKey, Any]:
    """The notification, due at another time than before."""
    after = replace(after, due_ms=due_ms)
    changes: dict[RowKey, Any] = {notification_key(after.notification_id): after}
    if before.due_ms is not None:
        changes[due_key(before.due_ms, _due_kind(before), after.notification_id)] = None
    if due_ms is not None:
        key, row = due_row(due_ms, _due_kind(after), after.notification_id)
        changes[key] = row
    return changes


def _due_kind(row: Notification) -> str:
    return KEEP if row.status == Status.DEAD else DELIVER


def _delivered(rows: Rows, event: NotificationDelivered) -> Changes:
    row: Notification = rows[notification_key(event.notification_id)]
    after = _as_of(replace(row, status=Status.DELIVERED, detail=""), event)
    due, expiry = forget(rows, event.at_ms, *final_keys(row))
    changes = {**_due(row, after, None), delivery_key(event.notification_id): None, due: expiry}
    recipient = recipient_of(rows, event.user_id)
    if endpoint_of(recipient, event.endpoint_id) is not None:
        arrived = endpoint_changed(recipient, event.endpoint_id, delivered_ms=event.at_ms)
        changes[recipient_key(event.user_id)] = arrived
    return changes


def _waiting(rows: Rows, event: DeliveryFailed) -> Changes:
    row: Notification = rows[notification_key(event.notification_id)]
    before = row.tries_before + (0 if event.counted else 1)
    after = replace(row, status=Status.WAITING, tries_before=before, detail=event.detail)
    return _due(row, _as_of(after, event), event.next_ms)


def _dead(rows: Rows, event: NotificationDied) -> Changes:
    row: Notification = rows[notification_key(event.notification_id)]
    after = _as_of(replace(row, status=Status.DEAD, detail=event.detail), event)
    return _due(row, after, event.at_ms + KEEP_FINAL_MS)


def _forgotten(rows: Rows, event: DeadNotificationForgotten) -> Changes:
    row: Notification = rows[notification_key(event.notification_id)]
    assert row.due_ms is not None
    return {
        **dict.fromkeys(final_keys(row)),
        delivery_key(event.notification_id): None,
        due_key(row.due_ms, KEEP, event.notification_id): None,
    }


def final_keys(row: Notification) -> tuple[RowKey, ...]:
    """The rows that leave the table with a notification that has arrived."""
    key = notification_key(row.notification_id)
    return (key,) if row.number is None else (key, listed_key(row.user_id, row.number))


def delivery_keys(notification_id: str) -> tuple[RowKey, ...]:
    return (
        notification_key(notification_id),
        delivery_key(notification_id),
        recipient_key(owner(notification_id)),
    )
