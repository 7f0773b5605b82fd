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

Here stands who is told what; how it arrives in `notification_delivery`, who wants what and where in
`notification_recipients`, what it says in `notification_templates`; what they share, rows and words,
in `notification_rows`. All is one service.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain import notification_delivery as delivery
from domain import notification_recipients as recipients
from domain import notification_templates as templates
from domain.credentials import EmailConfirmationRequested, PasswordChanged, PasswordResetRequested
from domain.decider import (
    DUE,
    Changes,
    Decider,
    Due,
    Expiry,
    RowKey,
    Rows,
    Tick,
    due_subject,
    expired,
    expiry_key,
    forget,
    forgotten,
    tick_keys,
)
from domain.mailed import Purpose
from domain.notification_delivery import (
    DeadNotificationForgotten,
    DeliveryAnswered,
    DeliveryFailed,
    DeliveryRequested,
    NotificationDelivered,
    NotificationDied,
    NotificationRedriven,
    RedriveNotification,
    delivery_keys,
    final_keys,
)
from domain.notification_recipients import (
    ENDPOINTS,
    ContactsSet,
    EndpointDisabled,
    EndpointRemoved,
    EndpointSet,
    EndpointUrlSet,
    PreferencesSet,
    RecipientKnown,
    RemoveEndpoint,
    RotateSecret,
    SecretRotated,
    SetEndpoint,
    SetPreferences,
    wanted,
)
from domain.notification_rows import (
    CHOSEN,
    TEMPLATE,
    Channel,
    Delivery,
    Endpoint,
    Kind,
    ListedNotification,
    Listing,
    Notification,
    NotificationCommandRefused,
    Recipient,
    Status,
    Template,
    TemplateHead,
    listed_key,
    listing_key,
    name,
    notification_key,
    recipient_key,
    recipient_of,
    refuse,
    target_of,
    template_head_key,
    template_key,
)
from domain.notification_templates import SaveTemplate, TemplateApplied, TemplateSaved, template_of
from domain.saga import Reason, TransactionCompleted, TransactionFailed
from domain.user import EmailChanged, RolesSet, UserRegistered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MINUTE_MS = 60 * 1000
LOGGED = "log"  # the one channel of the first events


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
class NotificationsForgotten:
    """Notifications left the table, their time being over: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


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


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Said]:
    match message:
        case TransactionCompleted() | TransactionFailed():
            return tuple(_tell(rows, _of_transaction(message), at_ms))
        case (
            RolesSet() | PasswordChanged() | EmailConfirmationRequested() | PasswordResetRequested()
        ):
            return tuple(_tell(rows, _of_user(message), at_ms))
        case EmailChanged():
            return (*recipients.reach(rows, message, at_ms), *_tell(rows, _of_user(message), at_ms))
        case UserRegistered():
            return recipients.reach(rows, message, at_ms)
        case TemplateSaved():
            return templates.apply(rows, message, at_ms)
        case DeliveryAnswered():
            return delivery.answered(rows, message, at_ms)
        case Tick():
            return tuple(_tick(rows, message, at_ms))
        case _:
            return _obey(rows, message, at_ms)


def _obey(rows: Rows, command: Command, at_ms: int) -> Sequence[Said]:
    match command:
        case SendNotification():
            return _send(rows, command, at_ms)
        case RedriveNotification():
            return delivery.redrive(rows, command, at_ms)
        case SetPreferences() | SetEndpoint() | RotateSecret() | RemoveEndpoint():
            return recipients.decide(rows, command, at_ms)
        case SaveTemplate():
            return templates.save(rows, command, at_ms)
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
    recipient = recipient_of(rows, matter.user_id)
    number = _listed(rows, matter.user_id)
    for channel in (matter.only,) if matter.only else wanted(recipient, matter.kind):
        notification_id = name(matter.user_id, matter.source, channel)
        if notification_key(notification_id) in rows:
            continue
        if channel is not Channel.IN_APP and not (matter.to or target_of(recipient, channel)):
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
    template = template_of(rows, matter.template)
    assert template is not None
    recipient = recipient_of(rows, matter.user_id)
    yield DeliveryRequested(
        notification_id=notification_id,
        user_id=matter.user_id,
        channel=channel,
        attempt=1,
        target=endpoint.url if endpoint else matter.to or target_of(recipient, channel),
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
        return refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if there is not None:
        return ()
    recipient: Recipient | None = rows.get(recipient_key(command.user_id))
    if recipient is None or not recipient.email:
        return refuse(command, Reason.USER_NOT_FOUND, at_ms)
    template = template_of(rows, command.template)
    if template is None:
        return refuse(command, Reason.TEMPLATE_NOT_FOUND, at_ms)
    if template.kind is not Kind.MESSAGE:  # what else is said, facts say
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    if not set(template.variables) <= command.data.keys():
        return refuse(command, Reason.TEMPLATE_DATA_MISSING, at_ms)
    if command.channel not in wanted(recipient, template.kind):
        return refuse(command, Reason.CHANNEL_OFF, at_ms)
    if command.channel is not Channel.IN_APP and not target_of(recipient, command.channel):
        return refuse(command, Reason.NO_ADDRESS, at_ms)
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


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Iterator[Said]:
    due = expired(rows, tick, at_ms)
    if due:
        yield NotificationsForgotten(due=due, at_ms=at_ms)
    yield from delivery.look(rows, tick, at_ms)


def _listed(rows: Rows, user_id: str) -> int:
    listing: Listing | None = rows.get(listing_key(user_id))
    return listing.listed if listing else 0


def evolve(rows: Rows, event: Said) -> Changes:
    if isinstance(event, delivery.Event):
        return delivery.evolve(rows, event)
    match event:
        case NotificationRequested():
            return _requested(rows, event)
        case NotificationsForgotten():
            return forgotten(rows, event.due)
        case TemplateSaved() | TemplateApplied():
            return templates.evolve(event)
        case NotificationCommandRefused():
            return {}
        case _:
            return recipients.evolve(rows, event)


def _requested(rows: Rows, event: NotificationRequested) -> Changes:
    key = notification_key(event.notification_id)
    outside = event.channel in (Channel.EMAIL, Channel.SMS, Channel.PUSH, Channel.WEBHOOK)
    row = Notification(
        notification_id=event.notification_id,
        user_id=event.user_id,
        template=event.template,
        channel=_channel(event.channel),
        kind=event.kind,
        data=event.data,
        status=Status.REQUESTED if outside else Status.DELIVERED,
        number=event.number,
        at_ms=event.at_ms,
        updated_ms=event.at_ms,
    )
    changes: dict[RowKey, Any] = {key: row}
    if not outside:
        due, expiry = forget(rows, event.at_ms, *final_keys(row))
        changes[due] = expiry
    if event.number is not None:
        entry = ListedNotification(notification_id=event.notification_id, at_ms=event.at_ms)
        changes[listed_key(event.user_id, event.number)] = entry
        changes[listing_key(event.user_id)] = Listing(listed=event.number + 1)
    return changes


def _channel(name: str) -> Channel:
    """What was only logged, before there were channels, is shown in the app."""
    return Channel.IN_APP if name == LOGGED else Channel(name)


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
            return delivery_keys(message.notification_id)
        case SaveTemplate():
            return (template_head_key(message.name),)
        case TemplateSaved():
            return (template_key(message.name),)
        case Tick():
            subjects = [due_subject(key) for key in message.due]
            of_deliveries = [key for one in subjects if one for key in delivery_keys(one)]
            return (*tick_keys(message), *dict.fromkeys(of_deliveries))
        case NotificationRequested():
            return (expiry_key(message.at_ms),)
        case NotificationDelivered():
            return (*delivery_keys(message.notification_id), expiry_key(message.at_ms))
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
