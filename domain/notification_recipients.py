"""Recipients: where a user is reached, over which channels they want what, and their endpoints.

An address comes from the facts of the user service; choices, numbers and webhook endpoints from the
user. Numbers and URLs are private: events say only that they were set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from domain.notification_rows import (
    CHOSEN,
    Channel,
    Choice,
    Endpoint,
    Kind,
    NotificationCommandRefused,
    Recipient,
    endpoint_of,
    recipient_key,
    recipient_of,
    refuse,
)
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.decider import Changes, Rows
    from domain.user import EmailChanged, UserRegistered

ENDPOINTS = 10  # of one user
# until a user chooses; what a transfer causes by default leaves nothing to be sent
DEFAULTS: Mapping[Kind, tuple[Channel, ...]] = {
    Kind.TRANSACTION_COMPLETED: (Channel.IN_APP,),
    Kind.TRANSACTION_FAILED: (Channel.IN_APP,),
    Kind.SECURITY: (Channel.IN_APP, Channel.EMAIL),
    Kind.MESSAGE: (Channel.IN_APP, Channel.EMAIL),
}


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


Command: TypeAlias = SetPreferences | SetEndpoint | RotateSecret | RemoveEndpoint
Event: TypeAlias = (
    RecipientKnown
    | PreferencesSet
    | ContactsSet
    | EndpointSet
    | EndpointUrlSet
    | SecretRotated
    | EndpointDisabled
    | EndpointRemoved
)
Said: TypeAlias = Event | NotificationCommandRefused


def decide(rows: Rows, command: Command, at_ms: int) -> Sequence[Said]:
    match command:
        case SetPreferences():
            return _set_preferences(rows, command, at_ms)
        case SetEndpoint():
            return _set_endpoint(rows, command, at_ms)
        case RotateSecret():
            return _rotate(rows, command, at_ms)
        case RemoveEndpoint():
            return _remove(rows, command, at_ms)
        case _:
            assert_never(command)


def reach(rows: Rows, fact: UserRegistered | EmailChanged, at_ms: int) -> Sequence[Said]:
    """Facts of a user come in their order, but one may come twice."""
    recipient = recipient_of(rows, fact.user_id)
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


def wanted(recipient: Recipient, kind: Kind) -> tuple[Channel, ...]:
    """The channels over which a user wants a kind; security mail can't be turned off."""
    chosen = next((one.channels for one in recipient.choices if one.kind == kind), DEFAULTS[kind])
    if kind is Kind.SECURITY and Channel.EMAIL not in chosen:
        return (*chosen, Channel.EMAIL)
    return chosen


def _set_preferences(rows: Rows, command: SetPreferences, at_ms: int) -> Sequence[Said]:
    kinds = [choice.kind for choice in command.choices]
    bad = len(set(kinds)) < len(kinds) or any(
        channel not in CHOSEN for choice in command.choices for channel in choice.channels
    )
    if bad:
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    recipient = recipient_of(rows, command.user_id)
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
    recipient = recipient_of(rows, command.user_id)
    known = endpoint_of(recipient, command.endpoint_id)
    if known is not None and known.url != command.url:
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    if known is None and len(recipient.endpoints) >= ENDPOINTS:
        return refuse(command, Reason.TOO_MANY_ENDPOINTS, at_ms)
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
    recipient = recipient_of(rows, command.user_id)
    endpoint = endpoint_of(recipient, command.endpoint_id)
    if endpoint is None:
        return refuse(command, Reason.ENDPOINT_NOT_FOUND, at_ms)
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
    recipient = recipient_of(rows, command.user_id)
    if endpoint_of(recipient, command.endpoint_id) is None:
        return refuse(command, Reason.ENDPOINT_NOT_FOUND, at_ms)
    return (
        EndpointRemoved(
            user_id=command.user_id,
            endpoint_id=command.endpoint_id,
            version=recipient.version + 1,
            at_ms=at_ms,
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:
    recipient = recipient_of(rows, event.user_id)
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
            recipient = endpoint_changed(recipient, event.endpoint_id, url=event.url)
        case SecretRotated():
            recipient = endpoint_changed(
                recipient, event.endpoint_id, secret_version=event.secret_version
            )
        case EndpointDisabled():
            off = {"enabled": False, "detail": event.detail}
            recipient = endpoint_changed(recipient, event.endpoint_id, **off)
        case EndpointRemoved():
            left = tuple(one for one in recipient.endpoints if one.endpoint_id != event.endpoint_id)
            recipient = replace(recipient, endpoints=left)
        case _:
            assert_never(event)
    version = getattr(event, "version", recipient.version)
    recipient = replace(recipient, version=version, updated_ms=event.at_ms)
    return {recipient_key(event.user_id): recipient}


def _with_endpoint(recipient: Recipient, event: EndpointSet) -> tuple[Endpoint, ...]:
    if endpoint_of(recipient, event.endpoint_id) is not None:
        changed = {"kinds": event.kinds, "enabled": event.enabled, "detail": ""}
        return endpoint_changed(recipient, event.endpoint_id, **changed).endpoints
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


def endpoint_changed(recipient: Recipient, endpoint_id: str, **fields: Any) -> Recipient:
    endpoints = tuple(
        replace(one, **fields) if one.endpoint_id == endpoint_id else one
        for one in recipient.endpoints
    )
    return replace(recipient, endpoints=endpoints)
