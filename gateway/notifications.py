"""Notifications over HTTP: send one, read and put back, choose channels, endpoints and templates."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Any

from domain.notification import NotificationRequested, SendNotification
from domain.notification_delivery import NotificationRedriven, RedriveNotification
from domain.notification_recipients import (
    DEFAULTS,
    EndpointRemoved,
    EndpointSet,
    PreferencesSet,
    RemoveEndpoint,
    RotateSecret,
    SecretRotated,
    SetEndpoint,
    SetPreferences,
)
from domain.notification_rows import (
    TEMPLATE,
    Channel,
    Choice,
    Kind,
    NotificationCommandRefused,
    Status,
    name,
    notification_key,
    owner,
    recipient_key,
    template_key,
    template_version_key,
)
from domain.notification_templates import SaveTemplate, TemplateSaved, built_in
from domain.notification_texts import BUILT_IN
from gateway import auth, lists, pages, views
from gateway.answer import Answer, answer
from gateway.errors import Problem, invalid, not_found
from gateway.notification_models import (
    NAME,
    NewNotification,
    NotificationTemplate,
    Preferences,
    TemplatePreview,
    WebhookEndpoint,
)
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.reads import NOTIFICATIONS
from outbound import signature
from outbound.address import refusal, resolved
from outbound.template import BadTemplate, one_line, render, variables
from stores.questions import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard

SERVICE = "notification"
TEMPLATES = 200  # that are listed


class _Change:
    """A command on its way; `is_done` recognises the event that is its end."""

    service = SERVICE
    ends: type

    def __init__(self, call: Call, identity: Identity, command: Any, key: str) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.key = self.aggregate_id = key
        self.location = ""
        self.named: dict[str, str] = {}

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, NotificationCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        return LOOK if isinstance(heard.event, self.ends) else None

    async def looked(self) -> Answer | None:
        raise NotImplementedError


async def _pursue(call: Call, change: Callable[[Identity], _Change]) -> Answer:
    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, change(identity))

    return await once(call, identify(call), first)


# -- notifications ------------------------------------------------------------------------------


async def send(call: Call) -> Answer:
    """202, or 201 with the notification when the client waits; 422 with why not."""
    body = call.body
    assert isinstance(body, NewNotification)
    return await _pursue(call, lambda identity: _Sending(call, identity, body))


class _Sending(_Change):
    ends = NotificationRequested

    def __init__(self, call: Call, identity: Identity, body: NewNotification) -> None:
        channel = Channel(body.channel)
        self.notification_id = name(body.user_id, identity.resource_id, channel)
        command = SendNotification(
            notification_id=self.notification_id,
            user_id=body.user_id,
            channel=channel,
            template=body.template,
            data=dict(body.data or {}),
            actor_id=call.caller.user_id,
        )
        super().__init__(call, identity, command, body.user_id)
        self.location = f"/api/notifications/{self.notification_id}"
        self.named = {"notification_id": self.notification_id}

    async def looked(self) -> Answer | None:
        row = await _row(self.call, self.notification_id)
        if row is None:
            return None
        self.call.gateway.reads.told(self.call, NOTIFICATIONS, self.notification_id, row["version"])
        return answer(shown(row), 201)


async def _row(call: Call, notification_id: str) -> Row | None:
    return await call.gateway.queries.row(
        SERVICE, owner(notification_id), notification_key(notification_id)
    )


async def get(call: Call) -> Answer:
    row = await _mine(call)
    return answer(views.picked(shown(row), call.query.get("fields")))


async def _mine(call: Call) -> Row:
    notification_id = call.names["notification_id"]
    if not _may_see(call, owner(notification_id)):
        raise not_found("no such notification, or not yet")
    row = await call.gateway.reads.row(call, NOTIFICATIONS, notification_id)
    if row is None:
        raise not_found("no such notification, or not yet")
    return {**row, "notification_id": notification_id}


def _may_see(call: Call, user_id: str) -> bool:
    return user_id == call.caller.user_id or call.caller.may(auth.STAFF_READS)


async def listing(call: Call) -> Answer:
    """The newest first. Staff may ask for those of another user."""
    status, channel = call.query.get("status"), call.query.get("channel")
    wanted = Wanted(status=status, channel=channel)

    def is_wanted(row: Row) -> bool:
        return status in (None, row["status"]) and channel in (None, row["channel"])

    listed = await lists.notifications(call, await pages.user_of(call), wanted, is_wanted)
    items = [views.picked(shown(row), call.query.get("fields")) for row in listed.rows]
    return answer({"items": items, "next_cursor": listed.next_cursor})


def shown(row: Row) -> dict[str, Any]:
    waits = row["status"] == Status.WAITING
    return {
        "notification_id": row["notification_id"],
        "user_id": row["user_id"],
        "channel": row["channel"] if row["channel"] in tuple(Channel) else Channel.IN_APP,
        "kind": row["kind"],
        "template": row["template"],
        "data": row["data"],
        "status": row["status"],
        "attempts": row["attempt"],
        "detail": row["detail"] or None,
        "next_attempt_at": views.time_of(row["due_ms"]) if waits else None,
        "version": row["version"],
        "created_at": views.time_of(row["at_ms"]),
        "updated_at": views.time_of(row["updated_ms"] or row["at_ms"]),
    }


async def redrive(call: Call) -> Answer:
    """202, or 200 with the notification; 422 NOTIFICATION_NOT_DEAD."""
    notification_id = call.names["notification_id"]
    user_id = owner(notification_id)
    if not (user_id == call.caller.user_id or call.caller.may(auth.TELLERS)):
        raise not_found("no such notification, or not yet")
    if await _row(call, notification_id) is None:
        raise not_found("no such notification, or not yet")
    return await _pursue(call, lambda identity: _Redriving(call, identity, notification_id))


class _Redriving(_Change):
    ends = NotificationRedriven

    def __init__(self, call: Call, identity: Identity, notification_id: str) -> None:
        self.notification_id, user_id = notification_id, owner(notification_id)
        command = RedriveNotification(
            notification_id=notification_id, user_id=user_id, actor_id=call.caller.user_id
        )
        super().__init__(call, identity, command, user_id)
        self.location = f"/api/notifications/{notification_id}"
        self.named = {"notification_id": notification_id}
        self._version: int | None = None

    def heard(self, heard: Heard) -> Answer | Look | None:
        said = super().heard(heard)
        if said is LOOK:
            self._version = heard.event.version
        return said

    async def looked(self) -> Answer | None:
        """Only once it was heard: a row does not tell one redrive from another."""
        row = await _row(self.call, self.notification_id)
        if row is None or self._version is None or row["version"] < self._version:
            return None
        self.call.gateway.reads.told(self.call, NOTIFICATIONS, self.notification_id, row["version"])
        return answer(shown(row))


# -- preferences --------------------------------------------------------------------------------


async def preferences(call: Call) -> Answer:
    user_id = await pages.user_of(call)
    return answer(_preferences(call, user_id, await _recipient(call, user_id)))


async def _recipient(call: Call, user_id: str) -> Row | None:
    return await call.gateway.queries.row(SERVICE, user_id, recipient_key(user_id))


def _preferences(call: Call, user_id: str, row: Row | None) -> dict[str, Any]:
    """What holds, the defaults too; numbers and devices are shown to the user alone."""
    chosen = {one["kind"]: one["channels"] for one in (row["choices"] if row else ())}
    own = row if row and user_id == call.caller.user_id else None
    return {
        "user_id": user_id,
        "email": (row["email"] if row else None) or None,
        "phone": (own["phone"] if own else None) or None,
        "device": (own["device"] if own else None) or None,
        "preferences": {kind.value: chosen.get(kind, DEFAULTS[kind]) for kind in Kind},
        "version": row["version"] if row else 0,
    }


async def set_preferences(call: Call) -> Answer:
    """202, or 200 with the preferences when the client waits."""
    body = call.body
    assert isinstance(body, Preferences)
    return await _pursue(call, lambda identity: _Choosing(call, identity, body))


class _Choosing(_Change):
    ends = PreferencesSet

    def __init__(self, call: Call, identity: Identity, body: Preferences) -> None:
        user_id = call.caller.user_id
        choices = tuple(
            Choice(kind=Kind(kind), channels=tuple(Channel(one) for one in channels))
            for kind, channels in body.preferences.items()
        )
        command = SetPreferences(
            user_id=user_id,
            choices=choices,
            phone=body.phone,
            device=body.device,
            actor_id=user_id,
        )
        super().__init__(call, identity, command, user_id)
        self.location = "/api/notification-preferences"
        self.named = {"user_id": user_id}

    async def looked(self) -> Answer | None:
        row = await _recipient(self.call, self.key)
        command = self.command
        if row is None or row["choices"] != views.plain(list(command.choices)):
            return None
        if (row["phone"], row["device"]) != (command.phone or "", command.device or ""):
            return None
        return answer(_preferences(self.call, self.key, row))


# -- webhook endpoints --------------------------------------------------------------------------


async def endpoints(call: Call) -> Answer:
    user_id = await pages.user_of(call)
    row = await _recipient(call, user_id)
    items = [_endpoint(call, user_id, one) for one in (row["endpoints"] if row else ())]
    return answer({"items": items})


def _endpoint(call: Call, user_id: str, one: Row) -> dict[str, Any]:
    own = user_id == call.caller.user_id
    key = call.gateway.settings.webhook_keys[0]
    return {
        "endpoint_id": one["endpoint_id"],
        "url": one["url"] if own else f"https://{one['host']}/…",
        "kinds": one["kinds"],
        "enabled": one["enabled"],
        "detail": one["detail"] or None,
        "secret": (
            signature.secret(key, one["endpoint_id"], one["secret_version"]) if own else None
        ),
        "created_at": views.time_of(one["created_ms"]),
        "delivered_at": views.time_of(one["delivered_ms"] or None),
    }


def _with_secret(call: Call, user_id: str, one: Row) -> Answer:
    given = answer(_endpoint(call, user_id, one))
    given.private = True
    return given


async def set_endpoint(call: Call) -> Answer:
    """202, or 200 with the endpoint and its secret when the client waits."""
    body = call.body
    assert isinstance(body, WebhookEndpoint)
    allowed = call.gateway.settings.webhook_private
    why = refusal(body.url, private_allowed=allowed)
    if why is None:
        why = await resolved(body.url, private_allowed=allowed)
    if why is not None:
        raise invalid("/url", "BAD_URL", why)
    return await _pursue(call, lambda identity: _Defining(call, identity, body))


class _EndpointChange(_Change):
    """A command on one endpoint, whose row is in its owner's."""

    def __init__(self, call: Call, identity: Identity, command: Any) -> None:
        super().__init__(call, identity, command, command.user_id)
        self.location = "/api/webhook-endpoints"
        self.named = {"endpoint_id": command.endpoint_id}

    async def row(self) -> Row | None:
        return await _one_endpoint(self.call, self.command.endpoint_id)


async def _one_endpoint(call: Call, endpoint_id: str) -> Row | None:
    row = await _recipient(call, owner(endpoint_id))
    found = row["endpoints"] if row else ()
    return next((one for one in found if one["endpoint_id"] == endpoint_id), None)


class _Defining(_EndpointChange):
    ends = EndpointSet

    def __init__(self, call: Call, identity: Identity, body: WebhookEndpoint) -> None:
        user_id = call.caller.user_id
        command = SetEndpoint(
            user_id=user_id,
            endpoint_id=f"{user_id}.{hashlib.sha256(body.url.encode()).hexdigest()[:16]}",
            url=body.url,
            kinds=tuple(Kind(kind) for kind in dict.fromkeys(body.kinds or ())),
            enabled=body.enabled,
            actor_id=user_id,
        )
        super().__init__(call, identity, command)

    async def looked(self) -> Answer | None:
        one = await self.row()
        if one is None or one["kinds"] != list(self.command.kinds):
            return None
        if one["url"] != self.command.url or one["enabled"] is not self.command.enabled:
            return None
        return _with_secret(self.call, self.key, one)


async def rotate_secret(call: Call) -> Answer:
    """202, or 200 with the endpoint and its new secret; the old one signs nothing more."""
    endpoint_id = await _my_endpoint(call)
    return await _pursue(call, lambda identity: _Rotating(call, identity, endpoint_id))


async def _my_endpoint(call: Call) -> str:
    endpoint_id = call.names["endpoint_id"]
    if owner(endpoint_id) != call.caller.user_id or not await _one_endpoint(call, endpoint_id):
        raise not_found("no such endpoint, or not yet")
    return endpoint_id


class _Rotating(_EndpointChange):
    ends = SecretRotated

    def __init__(self, call: Call, identity: Identity, endpoint_id: str) -> None:
        user_id = call.caller.user_id
        command = RotateSecret(user_id=user_id, endpoint_id=endpoint_id, actor_id=user_id)
        super().__init__(call, identity, command)
        self._version: int | None = None

    def heard(self, heard: Heard) -> Answer | Look | None:
        said = super().heard(heard)
        if said is LOOK:
            self._version = heard.event.secret_version
        return said

    async def looked(self) -> Answer | None:
        one = await self.row()
        if one is None or self._version is None or one["secret_version"] < self._version:
            return None
        return _with_secret(self.call, self.key, one)


async def remove_endpoint(call: Call) -> Answer:
    """202, or 200 when the client waits."""
    endpoint_id = await _my_endpoint(call)
    return await _pursue(call, lambda identity: _Removing(call, identity, endpoint_id))


class _Removing(_EndpointChange):
    ends = EndpointRemoved

    def __init__(self, call: Call, identity: Identity, endpoint_id: str) -> None:
        user_id = call.caller.user_id
        command = RemoveEndpoint(user_id=user_id, endpoint_id=endpoint_id, actor_id=user_id)
        super().__init__(call, identity, command)

    async def looked(self) -> Answer | None:
        if await self.row() is not None:
            return None
        return answer({"endpoint_id": self.command.endpoint_id, "removed": True})


# -- templates ----------------------------------------------------------------------------------


async def templates(call: Call) -> Answer:
    """The bank's own and those that were saved, by name."""
    rows, _ = await call.gateway.queries.listed(SERVICE, 0, TEMPLATE, "", TEMPLATES)
    found = {one: views.plain(built_in(one)) for one in BUILT_IN}
    found |= {row["name"]: row for _, row in rows}
    return answer({"items": [_template(row) for _, row in sorted(found.items())]})


def _template(row: Row) -> dict[str, Any]:
    return {
        "name": row["name"],
        "version": row["version"],
        "kind": row["kind"],
        "subject": row["subject"],
        "text": row["text"],
        "html": row["html"] or None,
        "variables": sorted(row["variables"]),
        "updated_at": views.time_of(row["updated_ms"] or None),
    }


async def template(call: Call) -> Answer:
    """The one in use, or `?version=` of it."""
    return answer(_template(await _named(call)))


async def _named(call: Call) -> Row:
    template, version = call.names["name"], call.query.get("version")
    if version is not None and not (version.isascii() and version.isdecimal() and len(version) < 9):
        raise Problem("BAD_QUERY", "version is a number")
    row: Row | None = None
    queries = call.gateway.queries
    if version is None:
        row = await queries.row(SERVICE, template, template_key(template), versioned=False)
    elif version != "0":
        key = template_version_key(template, int(version))
        row = await queries.row(SERVICE, template, key, versioned=False)
    if row is None and version in (None, "0") and (own := built_in(template)) is not None:
        row = views.plain(own)
    if row is None:
        raise not_found("no such template, or not yet")
    return row


async def save_template(call: Call) -> Answer:
    """202, or 200 with the template once every partition uses it."""
    body = call.body
    assert isinstance(body, NotificationTemplate)
    if not re.fullmatch(NAME, call.names["name"]):
        raise invalid("/name", "BAD_FORMAT", f"is none of the form {NAME}")
    return await _pursue(call, lambda identity: _Saving(call, identity, body))


class _Saving(_Change):
    ends = TemplateSaved

    def __init__(self, call: Call, identity: Identity, body: NotificationTemplate) -> None:
        template = call.names["name"]
        names = [variables(text) for text in (body.subject, body.text, body.html or "")]
        command = SaveTemplate(
            name=template,
            kind=Kind(body.kind),
            subject=body.subject,
            text=body.text,
            html=body.html or "",
            variables=tuple(sorted(frozenset().union(*names))),
            actor_id=call.caller.user_id,
        )
        super().__init__(call, identity, command, template)
        self.location = f"/api/notification-templates/{template}"
        self.named = {"name": template}

    async def looked(self) -> Answer | None:
        queries, key = self.call.gateway.queries, template_key(self.key)
        asked = (queries.rows(SERVICE, one, (key,)) for one in range(queries.partitions))
        rows = [found[key] for found in await asyncio.gather(*asked)]
        command = self.command
        wanted = (command.kind, command.subject, command.text, command.html)
        for row in rows:
            if row is None or (row["kind"], row["subject"], row["text"], row["html"]) != wanted:
                return None
        assert rows[0] is not None
        return answer(_template(rows[0]))


async def preview(call: Call) -> Answer:
    """What a template makes of this data; nothing is saved or sent."""
    body = call.body
    assert isinstance(body, TemplatePreview)
    row = await _named(call)
    made = {"name": row["name"]}
    for part in ("subject", "text", "html"):
        given = getattr(body, part)
        source = row[part] if given is None else given
        try:
            text = render(source, body.data, html=part == "html")
        except BadTemplate as exc:
            raise invalid(f"/{part}", "BAD_TEMPLATE", str(exc)[:200]) from exc
        made[part] = one_line(text) if part == "subject" else text
    return answer({**made, "html": made["html"] or None})
