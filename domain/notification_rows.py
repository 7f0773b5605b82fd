"""What the parts of the notification service share: its words, its rows and their keys."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from domain.saga import Reason

if TYPE_CHECKING:
    from domain.decider import RowKey, Rows

TEMPLATE = "template/"  # the prefix of templates in use


class Channel(StrEnum):
    IN_APP = "in_app"  # is shown where the user looks for it; nothing leaves the bank
    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    WEBHOOK = "webhook"


CHOSEN = (Channel.IN_APP, Channel.EMAIL, Channel.SMS, Channel.PUSH)  # endpoints choose themselves


class Kind(StrEnum):
    """What it is about: users choose channels by it."""

    TRANSACTION_COMPLETED = "transaction_completed"
    TRANSACTION_FAILED = "transaction_failed"
    SECURITY = "security"
    MESSAGE = "message"  # from the bank's staff


class Status(StrEnum):
    REQUESTED = "requested"
    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The channels over which a user wants one kind."""

    kind: Kind
    channels: tuple[Channel, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationCommandRefused:
    """A command was refused; nothing changed. `subject`: the user, or the template's name."""

    subject: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


def refuse(command: Any, reason: Reason, at_ms: int) -> tuple[NotificationCommandRefused, ...]:
    """`command` is one of the service's: it is about a user, or about the template it names."""
    subject = command.user_id if hasattr(command, "user_id") else command.name
    kind = type(command).__name__
    return (NotificationCommandRefused(subject=subject, command=kind, reason=reason, at_ms=at_ms),)


def recipient_of(rows: Rows, user_id: str) -> Recipient:
    recipient: Recipient | None = rows.get(recipient_key(user_id))
    return recipient or Recipient(user_id=user_id, choices=(), endpoints=())


def endpoint_of(recipient: Recipient, endpoint_id: str) -> Endpoint | None:
    return next((one for one in recipient.endpoints if one.endpoint_id == endpoint_id), None)


def target_of(recipient: Recipient, channel: Channel) -> str:
    return {
        Channel.EMAIL: recipient.email,
        Channel.SMS: recipient.phone,
        Channel.PUSH: recipient.device,
    }.get(channel, "")


# -- keys -----------------------------------------------------------------------------------------


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
