r"""Notifications: who is told what over which channel, until it has arrived or is given up.

    in_app   told --> DELIVERED
    others   told --> REQUESTED --answered--> DELIVERED
                       ^     \---not yet----> WAITING --its time--> REQUESTED
                       |      \--for good---> DEAD --KEEP_FINAL_MS--> forgotten
                       +--RedriveNotification--/

One fact may be told over several channels: each is a notification of its own, `<user_id>.<source>`
in the app and `<user_id>.<source>.<channel>` elsewhere, so that told twice is told once. Everything
is keyed by the user; templates are keyed by their name and copied to every partition. What a
message is filled in with, and where it goes, is private: it leaves by `DeliveryRequested` alone.
Texts are not rendered here: `perform` does, from the sources that the request carries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain.credentials import (
    EmailConfirmationRequested,
    PasswordChanged,
    PasswordResetRequested,
)
from domain.decider import (
    DUE,
    KEEP_FINAL_MS,
    Changes,
    Decider,
    Due,
    Expiry,
    RowKey,
    Rows,
    Tick,
    due_key,
    due_row,
    due_subject,
    expired,
    expiry_key,
    forget,
    forgotten,
    overdue,
    tick_keys,
)
from domain.mailed import Purpose
from domain.notification_texts import BUILT_IN
from domain.saga import Reason, TransactionCompleted, TransactionFailed
from domain.user import EmailChanged, RolesSet, UserRegistered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MINUTE_MS = 60 * 1000
HOUR_MS = 60 * MINUTE_MS
DELIVER = "deliver"  # the kind of a due row: a delivery is to be looked at
KEEP = "keep"  # the same: what was given up was kept long enough
ANSWER_MS = HOUR_MS  # after so long without a word from `perform` a request counts as failed
BUSY_MS = 15 * 1000  # until what found a full line is asked for again
ENDPOINTS = 10  # of one user
TEMPLATE = "template/"  # the prefix of templates in use
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


class Channel(StrEnum):
    IN_APP = "in_app"  # is shown where the user looks for it; nothing leaves the bank
    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    WEBHOOK = "webhook"


class Kind(StrEnum):
    """What it is about: users choose channels by it."""

    TRANSACTION_COMPLETED = "transaction_completed"
    TRANSACTION_FAILED = "transaction_failed"
    SECURITY = "security"
    MESSAGE = "message"  # from the bank's staff


# until a user chooses; what a transfer causes by default leaves nothing to be sent
DEFAULTS: Mapping[Kind, tuple[Channel, ...]] = {
    Kind.TRANSACTION_COMPLETED: (Channel.IN_APP,),
    Kind.TRANSACTION_FAILED: (Channel.IN_APP,),
    Kind.SECURITY: (Channel.IN_APP, Channel.EMAIL),
    Kind.MESSAGE: (Channel.IN_APP, Channel.EMAIL),
}
CHOSEN = (Channel.IN_APP, Channel.EMAIL, Channel.SMS, Channel.PUSH)  # endpoints choose themselves


class Status(StrEnum):
    REQUESTED = "requested"
    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class Outcome(StrEnum):
    """What one attempt came to."""

    DELIVERED = "delivered"
    FAILED = "failed"  # a later one may go better
    BUSY = "busy"  # it was not made: the line was full
    REFUSED = "refused"  # it will never go better
    GONE = "gone"  # the endpoint wants nothing more


# -- commands -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SendNotification:
    """Tell a user something by a template, over one channel."""

    notification_id: str  # `<user_id>.<UUID>`, and `.<channel>` where that is not in_app
    user_id: str
    channel: Channel
    template: str
    data: dict[str, str]
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveNotification:
    """Try once more what was given up, from the start of its schedule."""

    notification_id: str
    user_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The channels over which a user wants one kind."""

    kind: Kind
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPreferences:
    """Replace a user's choices and numbers; a kind without a choice goes by DEFAULTS."""

    user_id: str
    choices: tuple[Choice, ...]
    phone: str | None  # E.164
    device: str | None  # token of the push provider
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEndpoint:
    """Define a webhook endpoint, or change one; no kinds: all."""

    user_id: str
    endpoint_id: str  # `<user_id>.<hash of the URL>`
    url: str
    kinds: tuple[Kind, ...]
    enabled: bool
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateSecret:
    """Sign what goes to an endpoint with another secret from now on."""

    user_id: str
    endpoint_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveEndpoint:
    """Send nothing more to an endpoint and forget it."""

    user_id: str
    endpoint_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveTemplate:
    """Save a new version of a template; jinja2 sources, `variables` are the names they fill in."""

    name: str
    kind: Kind
    subject: str
    text: str
    html: str
    variables: tuple[str, ...]
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAnswered:
    """The result of one attempt, said by `perform` into the notification inbox."""

    notification_id: str
    user_id: str
    attempt: int
    outcome: Outcome
    detail: str


# -- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRequested:
    """A user is told something: template and its data, over a channel.

    `number`: its place in the user's list; None: a transaction's end in the app, which has none.
    """

    notification_id: str
    user_id: str
    channel: str
    template: str
    data: dict[str, str]
    at_ms: int
    kind: str = ""
    number: int | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationsForgotten:
    """Notifications left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientKnown:
    """Where a user is reached by mail from now on."""

    user_id: str
    email: str
    user_version: int  # of the user's row that says so
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencesSet:
    """A user's choices were replaced."""

    user_id: str
    choices: tuple[Choice, ...]
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactsSet:
    """Private: where a user is reached besides e-mail; empty: nowhere."""

    user_id: str
    phone: str
    device: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSet:
    """A webhook endpoint was defined or changed. Its URL may hold a token: it is private."""

    user_id: str
    endpoint_id: str
    slot: int  # 0 … ENDPOINTS - 1
    host: str
    kinds: tuple[Kind, ...]
    enabled: bool
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointUrlSet:
    """Private: where an endpoint is."""

    user_id: str
    endpoint_id: str
    url: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRotated:
    """An endpoint's signatures are made with another secret."""

    user_id: str
    endpoint_id: str
    secret_version: int
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDisabled:
    """An endpoint gets nothing more until its owner enables it; `detail` says why."""

    user_id: str
    endpoint_id: str
    detail: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRemoved:
    """An endpoint is no more."""

    user_id: str
    endpoint_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSaved:
    """A template has a new version; each partition hears it."""

    name: str
    version: int
    kind: Kind
    subject: str
    text: str
    html: str
    variables: tuple[str, ...]
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateApplied:
    """One partition uses a template's version from here on."""

    template: Template
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationCommandRefused:
    """A command was refused; nothing changed. `subject`: the user, or the template's name."""

    subject: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


# -- rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Row `notification/<notification_id>`: what a user was told, and what became of it."""

    user_id: str
    template: str
    at_ms: int
    notification_id: str = ""
    channel: Channel = Channel.IN_APP
    kind: str = ""
    data: dict[str, str]
    status: Status = Status.DELIVERED
    attempt: int = 0  # tries asked of `perform`, ever
    tries_before: int = 0  # those that its schedule does not count
    detail: str = ""  # of the last one that failed
    due_ms: int | None = None  # when it is looked at again; None: never
    number: int | None = None
    version: int = 1
    updated_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Row `delivery/<notification_id>`: what is sent, kept until it has arrived or is forgotten."""

    notification_id: str
    user_id: str
    to: str
    endpoint_id: str
    template_version: int
    subject: str
    text: str
    html: str
    data: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A webhook endpoint, in its owner's row."""

    endpoint_id: str
    slot: int
    url: str
    host: str
    kinds: tuple[Kind, ...]
    enabled: bool
    detail: str  # why it was disabled
    secret_version: int
    delivered_ms: int  # when something last arrived there; 0: never
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Row `recipient/<user_id>`: how a user wants to be told, and where."""

    user_id: str
    email: str = ""
    user_version: int = 0
    phone: str = ""
    device: str = ""
    choices: tuple[Choice, ...]
    endpoints: tuple[Endpoint, ...]  # at most ENDPOINTS
    version: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Row `listing/<user_id>`: how many notifications were listed, `listed/<user_id>/<0 …>`."""

    listed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedNotification:
    """Row `listed/<user_id>/<number>`."""

    notification_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Row `template/<name>` in each partition, `template-version/<name>/<version>` in its own."""

    name: str
    version: int  # 0: the bank's own text
    kind: Kind
    subject: str
    text: str
    html: str
    variables: tuple[str, ...]
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateHead:
    """Row `template-head/<name>` in the partition of its name: the last version."""

    version: int


Fact: TypeAlias = (
    TransactionCompleted
    | TransactionFailed
    | RolesSet
    | EmailChanged
    | PasswordChanged
    | EmailConfirmationRequested
    | PasswordResetRequested
)
Command: TypeAlias = (
    SendNotification
    | RedriveNotification
    | SetPreferences
    | SetEndpoint
    | RotateSecret
    | RemoveEndpoint
    | SaveTemplate
)
Message: TypeAlias = (
    TransactionCompleted
    | TransactionFailed
    | RolesSet
    | EmailChanged
    | PasswordChanged
    | EmailConfirmationRequested
    | PasswordResetRequested
    | UserRegistered
    | TemplateSaved
    | SendNotification
    | RedriveNotification
    | SetPreferences
    | SetEndpoint
    | RotateSecret
    | RemoveEndpoint
    | SaveTemplate
    | DeliveryAnswered
    | Tick
)
Event: TypeAlias = (
    NotificationRequested
    | NotificationDelivered
    | DeliveryFailed
    | NotificationDied
    | NotificationRedriven
    | DeadNotificationForgotten
    | NotificationsForgotten
    | RecipientKnown
    | PreferencesSet
    | EndpointSet
    | SecretRotated
    | EndpointDisabled
    | EndpointRemoved
    | TemplateSaved
    | TemplateApplied
    | NotificationCommandRefused
)
PrivateEvent: TypeAlias = DeliveryRequested | ContactsSet | EndpointUrlSet
Said: TypeAlias = Event | PrivateEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What a user is to be told, before channels are chosen."""

    source: str  # with the user's id it names the notifications
    user_id: str
    kind: Kind
    template: str
    data: dict[str, str]
    listed: bool  # in the app too
    only: Channel | None = None  # whatever the user chose
    to: str = ""  # an address for this alone


# -- decide -------------------------------------------------------------------------------------


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Said]:
    match message:
        case TransactionCompleted() | TransactionFailed():
            return tuple(_tell(rows, _of_transaction(message), at_ms))
        case (
            RolesSet() | PasswordChanged() | EmailConfirmationRequested() | PasswordResetRequested()
        ):
            return tuple(_tell(rows, _of_user(message), at_ms))
        case EmailChanged():
            return (*_reach(rows, message, at_ms), *_tell(rows, _of_user(message), at_ms))
        case UserRegistered():
            return _reach(rows, message, at_ms)
        case TemplateSaved():
            return _apply_template(rows, message, at_ms)
        case DeliveryAnswered():
            return _answered(rows, message, at_ms)
        case Tick():
            return tuple(_tick(rows, message, at_ms))
        case _:
            return _obey(rows, message, at_ms)


def _obey(rows: Rows, command: Command, at_ms: int) -> Sequence[Said]:
    match command:
        case SendNotification():
            return _send(rows, command, at_ms)
        case RedriveNotification():
            return _redrive(rows, command, at_ms)
        case SetPreferences():
            return _set_preferences(rows, command, at_ms)
        case SetEndpoint():
            return _set_endpoint(rows, command, at_ms)
        case RotateSecret():
            return _rotate(rows, command, at_ms)
        case RemoveEndpoint():
            return _remove(rows, command, at_ms)
        case SaveTemplate():
            return _save_template(rows, command, at_ms)
        case _:
            assert_never(command)


def _matter(fact: Fact) -> Matter:
    if isinstance(fact, TransactionCompleted | TransactionFailed):
        return _of_transaction(fact)
    return _of_user(fact)


def _of_transaction(fact: TransactionCompleted | TransactionFailed) -> Matter:
    order = fact.order
    failed = isinstance(fact, TransactionFailed)
    kind = Kind.TRANSACTION_FAILED if failed else Kind.TRANSACTION_COMPLETED
    return Matter(
        source=order.transaction_id,
        user_id=order.owner_id,
        kind=kind,
        template=kind.value,
        data={
            "transaction_id": order.transaction_id,
            "type": str(order.type),
            "amount_minor": str(order.amount_minor),
            "currency": order.currency,
            **({"reason": str(fact.reason)} if isinstance(fact, TransactionFailed) else {}),
        },
        listed=False,
    )


def _of_user(
    fact: RolesSet
    | EmailChanged
    | PasswordChanged
    | EmailConfirmationRequested
    | PasswordResetRequested,
) -> Matter:
    match fact:
        case RolesSet():
            return _security(fact, f"roles-{fact.version}", roles=", ".join(fact.roles))
        case PasswordChanged():
            return _security(fact, f"password-{fact.at_ms}")
        case EmailChanged():  # told where mail went until now, for whoever reads that did it or not
            mail = _security(fact, f"email-{fact.version}", email=fact.email)
            return replace(mail, only=Channel.EMAIL, to=fact.former_email)
        case EmailConfirmationRequested():
            return _with_token(fact, Purpose.CONFIRM)
        case PasswordResetRequested():
            return _with_token(fact, Purpose.RESET)
        case _:
            assert_never(fact)


TEMPLATES_OF: Mapping[type, str] = {
    RolesSet: "roles_changed",
    PasswordChanged: "password_changed",
    EmailChanged: "email_changed",
    EmailConfirmationRequested: "email_confirmation",
    PasswordResetRequested: "password_reset",
}


def _security(fact: Any, source: str, **data: str) -> Matter:
    return Matter(
        source=source,
        user_id=fact.user_id,
        kind=Kind.SECURITY,
        template=TEMPLATES_OF[type(fact)],
        data=data,
        listed=True,
    )


def _with_token(
    fact: EmailConfirmationRequested | PasswordResetRequested, purpose: Purpose
) -> Matter:
    """A mail with a token, which its sender computes from `mail_id`: nobody else is to know it."""
    minutes = str((fact.expires_ms - fact.at_ms) // MINUTE_MS)
    mail = _security(
        fact,
        f"mail-{fact.mail_id}",
        name=fact.name,
        mail_id=fact.mail_id,
        purpose=purpose.value,
        minutes=minutes,
    )
    return replace(mail, only=Channel.EMAIL, to=fact.email)


def _tell(rows: Rows, matter: Matter, at_ms: int) -> Iterator[Said]:
    """One notification for each channel that the user wants and can be reached by."""
    recipient = _recipient(rows, matter.user_id)
    number = _listed(rows, matter.user_id)
    for channel in (matter.only,) if matter.only else wanted(recipient, matter.kind):
        notification_id = name(matter.user_id, matter.source, channel)
        if notification_key(notification_id) in rows:
            continue
        if channel is not Channel.IN_APP and not (matter.to or _target(recipient, channel)):
            continue
        listed = matter.listed or channel is not Channel.IN_APP
        yield from _request(
            rows, matter, notification_id, channel, None, number if listed else None, at_ms
        )
        number += listed
    for endpoint in () if matter.only else recipient.endpoints:
        if not endpoint.enabled or (endpoint.kinds and matter.kind not in endpoint.kinds):
            continue
        notification_id = name(matter.user_id, matter.source, Channel.WEBHOOK, endpoint.slot)
        if notification_key(notification_id) in rows:
            continue
        yield from _request(rows, matter, notification_id, Channel.WEBHOOK, endpoint, number, at_ms)
        number += 1


def wanted(recipient: Recipient, kind: Kind) -> tuple[Channel, ...]:
    """The channels over which a user wants a kind; security mail can't be turned off."""
    chosen = next((one.channels for one in recipient.choices if one.kind == kind), DEFAULTS[kind])
    if kind is Kind.SECURITY and Channel.EMAIL not in chosen:
        return (*chosen, Channel.EMAIL)
    return chosen


def _request(
    rows: Rows,
    matter: Matter,
    notification_id: str,
    channel: Channel,
    endpoint: Endpoint | None,
    number: int | None,
    at_ms: int,
) -> Iterator[Said]:
    yield NotificationRequested(
        notification_id=notification_id,
        user_id=matter.user_id,
        channel=channel,
        template=matter.template,
        data=matter.data,
        at_ms=at_ms,
        kind=matter.kind,
        number=number,
    )
    if channel is Channel.IN_APP:
        return
    template = _template(rows, matter.template)
    assert template is not None
    recipient = _recipient(rows, matter.user_id)
    yield DeliveryRequested(
        notification_id=notification_id,
        user_id=matter.user_id,
        channel=channel,
        attempt=1,
        target=endpoint.url if endpoint else matter.to or _target(recipient, channel),
        to=matter.to,
        endpoint_id=endpoint.endpoint_id if endpoint else "",
        secret_version=endpoint.secret_version if endpoint else 0,
        kind=matter.kind,
        template=matter.template,
        template_version=template.version,
        subject="" if endpoint else template.subject,
        text="" if endpoint else template.text,
        html=template.html if channel is Channel.EMAIL else "",
        data=matter.data,
        requested_ms=at_ms,
        at_ms=at_ms,
    )


def _send(rows: Rows, command: SendNotification, at_ms: int) -> Sequence[Said]:
    there: Notification | None = rows.get(notification_key(command.notification_id))
    if there is not None and (there.template, there.channel, there.data) != (
        command.template,
        command.channel,
        command.data,
    ):
        return _refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if there is not None:
        return ()
    recipient: Recipient | None = rows.get(recipient_key(command.user_id))
    if recipient is None or not recipient.email:
        return _refuse(command, Reason.USER_NOT_FOUND, at_ms)
    template = _template(rows, command.template)
    if template is None:
        return _refuse(command, Reason.TEMPLATE_NOT_FOUND, at_ms)
    if template.kind is not Kind.MESSAGE:  # what else is said, facts say
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    if not set(template.variables) <= command.data.keys():
        return _refuse(command, Reason.TEMPLATE_DATA_MISSING, at_ms)
    if command.channel not in wanted(recipient, template.kind):
        return _refuse(command, Reason.CHANNEL_OFF, at_ms)
    if command.channel is not Channel.IN_APP and not _target(recipient, command.channel):
        return _refuse(command, Reason.NO_ADDRESS, at_ms)
    matter = Matter(
        source="",
        user_id=command.user_id,
        kind=template.kind,
        template=command.template,
        data=command.data,
        listed=True,
    )
    number = _listed(rows, command.user_id)
    return tuple(
        _request(rows, matter, command.notification_id, command.channel, None, number, at_ms)
    )


def _redrive(rows: Rows, command: RedriveNotification, at_ms: int) -> Sequence[Said]:
    notification: Notification | None = rows.get(notification_key(command.notification_id))
    if notification is None or notification.user_id != command.user_id:
        return _refuse(command, Reason.NOTIFICATION_NOT_FOUND, at_ms)
    if notification.status != Status.DEAD:
        return _refuse(command, Reason.NOTIFICATION_NOT_DEAD, at_ms)
    delivery: Delivery = rows[delivery_key(command.notification_id)]
    recipient = _recipient(rows, command.user_id)
    if _blocked(recipient, notification, delivery):
        return _refuse(command, Reason.NO_ADDRESS, at_ms)
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
    endpoint = _endpoint(recipient, delivery.endpoint_id)
    return DeliveryRequested(
        notification_id=notification.notification_id,
        user_id=notification.user_id,
        channel=channel,
        attempt=notification.attempt + 1,
        target=endpoint.url if endpoint else delivery.to or _target(recipient, channel),
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
        there = delivery.to or _target(recipient, Channel(notification.channel))
        return "" if there else "there is no address any more"
    endpoint = _endpoint(recipient, delivery.endpoint_id)
    if endpoint is None:
        return "the endpoint is no more"
    return "" if endpoint.enabled else "the endpoint is disabled"


def _answered(rows: Rows, answer: DeliveryAnswered, at_ms: int) -> Sequence[Said]:
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
    endpoint = _endpoint(_recipient(rows, notification.user_id), delivery.endpoint_id)
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
    recipient = _recipient(rows, notification.user_id)
    endpoint = _endpoint(recipient, delivery.endpoint_id)
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


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Iterator[Said]:
    due = expired(rows, tick, at_ms)
    if due:
        yield NotificationsForgotten(due=due, at_ms=at_ms)
    for kind in (DELIVER, KEEP):
        for key in overdue(rows, tick, kind, at_ms):
            yield from _look(rows, due_subject(key), at_ms)


def _look(rows: Rows, notification_id: str, at_ms: int) -> Iterator[Said]:
    """A delivery's time has come: the next attempt, or its end."""
    notification: Notification = rows[notification_key(notification_id)]
    delivery: Delivery = rows[delivery_key(notification_id)]
    match Status(notification.status):
        case Status.WAITING:
            recipient = _recipient(rows, notification.user_id)
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


def _reach(rows: Rows, fact: UserRegistered | EmailChanged, at_ms: int) -> Sequence[Said]:
    """Facts of a user come in their order, but one may come twice."""
    recipient = _recipient(rows, fact.user_id)
    if recipient.user_version >= fact.version:
        return ()
    return (
        RecipientKnown(
            user_id=fact.user_id,
            email=fact.email,
            user_version=fact.version,
            version=recipient.version + 1,
            at_ms=at_ms,
        ),
    )


def _set_preferences(rows: Rows, command: SetPreferences, at_ms: int) -> Sequence[Said]:
    kinds = [choice.kind for choice in command.choices]
    bad = len(set(kinds)) < len(kinds) or any(
        channel not in CHOSEN for choice in command.choices for channel in choice.channels
    )
    if bad:
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    recipient = _recipient(rows, command.user_id)
    phone, device = command.phone or "", command.device or ""
    if (recipient.choices, recipient.phone, recipient.device) == (command.choices, phone, device):
        return ()
    preferences = PreferencesSet(
        user_id=command.user_id,
        choices=command.choices,
        version=recipient.version + 1,
        at_ms=at_ms,
    )
    if (recipient.phone, recipient.device) == (phone, device):
        return (preferences,)
    contacts = ContactsSet(user_id=command.user_id, phone=phone, device=device, at_ms=at_ms)
    return (contacts, preferences)


def _set_endpoint(rows: Rows, command: SetEndpoint, at_ms: int) -> Sequence[Said]:
    recipient = _recipient(rows, command.user_id)
    known = _endpoint(recipient, command.endpoint_id)
    if known is not None and known.url != command.url:
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    if known is None and len(recipient.endpoints) >= ENDPOINTS:
        return _refuse(command, Reason.TOO_MANY_ENDPOINTS, at_ms)
    if known is not None and (known.kinds, known.enabled) == (command.kinds, command.enabled):
        return ()
    taken = {endpoint.slot for endpoint in recipient.endpoints}
    free = next((slot for slot in range(ENDPOINTS) if slot not in taken), 0)
    said = EndpointSet(
        user_id=command.user_id,
        endpoint_id=command.endpoint_id,
        slot=known.slot if known else free,
        host=host(command.url),
        kinds=command.kinds,
        enabled=command.enabled,
        version=recipient.version + 1,
        at_ms=at_ms,
    )
    if known is not None:
        return (said,)
    url = EndpointUrlSet(
        user_id=command.user_id,
        endpoint_id=command.endpoint_id,
        url=command.url,
        at_ms=at_ms,
    )
    return (said, url)


def host(url: str) -> str:
    """Host and port of a URL, which may be shown."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]


def _rotate(rows: Rows, command: RotateSecret, at_ms: int) -> Sequence[Said]:
    recipient = _recipient(rows, command.user_id)
    endpoint = _endpoint(recipient, command.endpoint_id)
    if endpoint is None:
        return _refuse(command, Reason.ENDPOINT_NOT_FOUND, at_ms)
    return (
        SecretRotated(
            user_id=command.user_id,
            endpoint_id=command.endpoint_id,
            secret_version=endpoint.secret_version + 1,
            version=recipient.version + 1,
            at_ms=at_ms,
        ),
    )


def _remove(rows: Rows, command: RemoveEndpoint, at_ms: int) -> Sequence[Said]:
    recipient = _recipient(rows, command.user_id)
    if _endpoint(recipient, command.endpoint_id) is None:
        return _refuse(command, Reason.ENDPOINT_NOT_FOUND, at_ms)
    return (
        EndpointRemoved(
            user_id=command.user_id,
            endpoint_id=command.endpoint_id,
            version=recipient.version + 1,
            at_ms=at_ms,
        ),
    )


def _save_template(rows: Rows, command: SaveTemplate, at_ms: int) -> Sequence[Said]:
    if not (command.name and command.text):
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    own = built_in(command.name)
    if own is not None and own.kind is not command.kind:
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    if own is not None and not set(command.variables) <= set(own.variables):
        return _refuse(command, Reason.TEMPLATE_DATA_MISSING, at_ms)
    head: TemplateHead | None = rows.get(template_head_key(command.name))
    return (
        TemplateSaved(
            name=command.name,
            version=head.version + 1 if head else 1,
            kind=command.kind,
            subject=command.subject,
            text=command.text,
            html=command.html,
            variables=command.variables,
            actor_id=command.actor_id,
            at_ms=at_ms,
        ),
    )


def _apply_template(rows: Rows, fact: TemplateSaved, at_ms: int) -> Sequence[Said]:
    applied: Template | None = rows.get(template_key(fact.name))
    if applied is not None and applied.version >= fact.version:
        return ()
    return (TemplateApplied(template=_saved(fact), at_ms=at_ms),)


def _saved(fact: TemplateSaved) -> Template:
    return Template(
        name=fact.name,
        version=fact.version,
        kind=fact.kind,
        subject=fact.subject,
        text=fact.text,
        html=fact.html,
        variables=fact.variables,
        updated_ms=fact.at_ms,
    )


def _refuse(command: Command, reason: Reason, at_ms: int) -> Sequence[Said]:
    subject = command.name if isinstance(command, SaveTemplate) else command.user_id
    return (
        NotificationCommandRefused(
            subject=subject, command=type(command).__name__, reason=reason, at_ms=at_ms
        ),
    )


def _recipient(rows: Rows, user_id: str) -> Recipient:
    recipient: Recipient | None = rows.get(recipient_key(user_id))
    return recipient or Recipient(user_id=user_id, choices=(), endpoints=())


def _listed(rows: Rows, user_id: str) -> int:
    listing: Listing | None = rows.get(listing_key(user_id))
    return listing.listed if listing else 0


def _endpoint(recipient: Recipient, endpoint_id: str) -> Endpoint | None:
    return next((one for one in recipient.endpoints if one.endpoint_id == endpoint_id), None)


def _target(recipient: Recipient, channel: Channel) -> str:
    return {
        Channel.EMAIL: recipient.email,
        Channel.SMS: recipient.phone,
        Channel.PUSH: recipient.device,
    }.get(channel, "")


def _template(rows: Rows, template: str) -> Template | None:
    found: Template | None = rows.get(template_key(template))
    return found or built_in(template)


def built_in(template: str) -> Template | None:
    """The bank's own text of that name."""
    text = BUILT_IN.get(template)
    if text is None:
        return None
    return Template(
        name=template,
        version=0,
        kind=Kind(text.kind),
        subject=text.subject,
        text=text.text,
        html=text.html,
        variables=text.variables,
        updated_ms=0,
    )


# -- evolve -------------------------------------------------------------------------------------


def evolve(rows: Rows, event: Said) -> Changes:
    match event:
        case NotificationRequested():
            return _requested(rows, event)
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
        case NotificationsForgotten():
            return forgotten(rows, event.due)
        case TemplateSaved():
            version = template_version_key(event.name, event.version)
            head = TemplateHead(version=event.version)
            return {version: _saved(event), template_head_key(event.name): head}
        case TemplateApplied():
            return {template_key(event.template.name): event.template}
        case NotificationCommandRefused():
            return {}
        case _:
            return _evolve_recipient(rows, event)


def _evolve_recipient(
    rows: Rows,
    event: RecipientKnown
    | PreferencesSet
    | ContactsSet
    | EndpointSet
    | EndpointUrlSet
    | SecretRotated
    | EndpointDisabled
    | EndpointRemoved,
) -> Changes:
    recipient = _recipient(rows, event.user_id)
    match event:
        case RecipientKnown():
            recipient = replace(recipient, email=event.email, user_version=event.user_version)
        case PreferencesSet():
            recipient = replace(recipient, choices=event.choices)
        case ContactsSet():
            recipient = replace(recipient, phone=event.phone, device=event.device)
        case EndpointSet():
            recipient = replace(recipient, endpoints=_with_endpoint(recipient, event))
        case EndpointUrlSet():
            recipient = _changed(recipient, event.endpoint_id, url=event.url)
        case SecretRotated():
            recipient = _changed(recipient, event.endpoint_id, secret_version=event.secret_version)
        case EndpointDisabled():
            off = {"enabled": False, "detail": event.detail}
            recipient = _changed(recipient, event.endpoint_id, **off)
        case EndpointRemoved():
            left = tuple(one for one in recipient.endpoints if one.endpoint_id != event.endpoint_id)
            recipient = replace(recipient, endpoints=left)
        case _:
            assert_never(event)
    version = getattr(event, "version", recipient.version)
    recipient = replace(recipient, version=version, updated_ms=event.at_ms)
    return {recipient_key(event.user_id): recipient}


def _with_endpoint(recipient: Recipient, event: EndpointSet) -> tuple[Endpoint, ...]:
    if _endpoint(recipient, event.endpoint_id) is not None:
        changed = {"kinds": event.kinds, "enabled": event.enabled, "detail": ""}
        return _changed(recipient, event.endpoint_id, **changed).endpoints
    new = Endpoint(
        endpoint_id=event.endpoint_id,
        slot=event.slot,
        url="",
        host=event.host,
        kinds=event.kinds,
        enabled=event.enabled,
        detail="",
        secret_version=1,
        delivered_ms=0,
        created_ms=event.at_ms,
    )
    return (*recipient.endpoints, new)


def _changed(recipient: Recipient, endpoint_id: str, **fields: Any) -> Recipient:
    endpoints = tuple(
        replace(one, **fields) if one.endpoint_id == endpoint_id else one
        for one in recipient.endpoints
    )
    return replace(recipient, endpoints=endpoints)


def _requested(rows: Rows, event: NotificationRequested) -> Changes:
    key = notification_key(event.notification_id)
    outside = event.channel in (Channel.EMAIL, Channel.SMS, Channel.PUSH, Channel.WEBHOOK)
    row = Notification(
        notification_id=event.notification_id,
        user_id=event.user_id,
        template=event.template,
        channel=Channel(event.channel),
        kind=event.kind,
        data=event.data,
        status=Status.REQUESTED if outside else Status.DELIVERED,
        number=event.number,
        at_ms=event.at_ms,
        updated_ms=event.at_ms,
    )
    changes: dict[RowKey, Any] = {key: row}
    if not outside:
        due, expiry = forget(rows, event.at_ms, *_final_keys(row))
        changes[due] = expiry
    if event.number is not None:
        entry = ListedNotification(notification_id=event.notification_id, at_ms=event.at_ms)
        changes[listed_key(event.user_id, event.number)] = entry
        changes[listing_key(event.user_id)] = Listing(listed=event.number + 1)
    return changes


def _final_keys(row: Notification) -> tuple[RowKey, ...]:
    """The rows that leave the table with a notification that has arrived."""
    key = notification_key(row.notification_id)
    return (key,) if row.number is None else (key, listed_key(row.user_id, row.number))


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
    due, expiry = forget(rows, event.at_ms, *_final_keys(row))
    changes = {**_due(row, after, None), delivery_key(event.notification_id): None, due: expiry}
    recipient = _recipient(rows, event.user_id)
    if _endpoint(recipient, event.endpoint_id) is not None:
        arrived = _changed(recipient, event.endpoint_id, delivered_ms=event.at_ms)
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
        **dict.fromkeys(_final_keys(row)),
        delivery_key(event.notification_id): None,
        due_key(row.due_ms, KEEP, event.notification_id): None,
    }


# -- keys ---------------------------------------------------------------------------------------


def name(user_id: str, source: str, channel: Channel, slot: int | None = None) -> str:
    """The id of what is told of `source` over a channel, to an endpoint by its slot."""
    if channel is Channel.IN_APP:
        return f"{user_id}.{source}"
    return f"{user_id}.{source}.{channel}" + ("" if slot is None else f"-{slot}")


def source(notification_id: str) -> str:
    """What it tells of: the id of a transaction, or a name that it alone has."""
    return notification_id.split(".")[1] if "." in notification_id else notification_id


def owner(notification_id: str) -> str:
    """The user whose notification it is."""
    return notification_id.partition(".")[0]


def notification_key(notification_id: str) -> RowKey:
    return f"notification/{notification_id}"


def delivery_key(notification_id: str) -> RowKey:
    return f"delivery/{notification_id}"


def recipient_key(user_id: str) -> RowKey:
    return f"recipient/{user_id}"


def listing_key(user_id: str) -> RowKey:
    return f"listing/{user_id}"


def listed_key(user_id: str, number: int) -> RowKey:
    return f"listed/{user_id}/{number:010d}"


def template_key(template: str) -> RowKey:
    return f"{TEMPLATE}{template}"


def template_head_key(template: str) -> RowKey:
    return f"template-head/{template}"


def template_version_key(template: str, version: int) -> RowKey:
    return f"template-version/{template}/{version}"


def _matter_keys(matter: Matter) -> tuple[RowKey, ...]:
    user_id, source = matter.user_id, matter.source
    names = [name(user_id, source, channel) for channel in CHOSEN]
    names += [name(user_id, source, Channel.WEBHOOK, slot) for slot in range(ENDPOINTS)]
    return (
        recipient_key(user_id),
        listing_key(user_id),
        template_key(matter.template),
        *(notification_key(one) for one in names),
    )


def _delivery_keys(notification_id: str) -> tuple[RowKey, ...]:
    return (
        notification_key(notification_id),
        delivery_key(notification_id),
        recipient_key(owner(notification_id)),
    )


def keys(message: Message | Said) -> Sequence[RowKey]:
    match message:
        case (
            TransactionCompleted()
            | TransactionFailed()
            | RolesSet()
            | EmailChanged()
            | PasswordChanged()
            | EmailConfirmationRequested()
            | PasswordResetRequested()
        ):
            return _matter_keys(_matter(message))
        case SendNotification():
            return (
                notification_key(message.notification_id),
                recipient_key(message.user_id),
                listing_key(message.user_id),
                template_key(message.template),
            )
        case RedriveNotification() | DeliveryAnswered():
            return _delivery_keys(message.notification_id)
        case SaveTemplate():
            return (template_head_key(message.name),)
        case TemplateSaved():
            return (template_key(message.name),)
        case Tick():
            subjects = [due_subject(key) for key in message.due]
            of_deliveries = [key for one in subjects if one for key in _delivery_keys(one)]
            return (*tick_keys(message), *dict.fromkeys(of_deliveries))
        case NotificationRequested():
            return (expiry_key(message.at_ms),)
        case NotificationDelivered():
            return (*_delivery_keys(message.notification_id), expiry_key(message.at_ms))
        case (
            DeliveryRequested()
            | DeliveryFailed()
            | NotificationDied()
            | NotificationRedriven()
            | DeadNotificationForgotten()
        ):
            return (notification_key(message.notification_id),)
        case NotificationsForgotten():
            return message.due
        case TemplateApplied() | NotificationCommandRefused():
            return ()
        case _:
            return (recipient_key(message.user_id),)


def aggregate_id(event: Said) -> str:
    match event:
        case NotificationsForgotten():
            return event.due[0]
        case NotificationCommandRefused():
            return event.subject
        case TemplateSaved():
            return event.name
        case TemplateApplied():
            return event.template.name
        case _:
            return event.user_id


NOTIFICATION = Decider(
    service="notification",
    messages=get_args(Message),
    events=get_args(Event),
    private_events=get_args(PrivateEvent),
    rows=(
        Notification,
        Delivery,
        Recipient,
        Listing,
        ListedNotification,
        Template,
        TemplateHead,
        Due,
        Expiry,
    ),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, TEMPLATE),
)
