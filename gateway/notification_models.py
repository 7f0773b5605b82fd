"""Notifications at the edge: what a client may send about them, and what it is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from domain.notification_rows import CHOSEN, Channel, Kind, Status
from gateway.answers import Shown
from gateway.models import Body, Id, MetaKey
from outbound.template import SOURCE_CHARACTERS, BadTemplate, variables

NAME = r"^[a-z][a-z0-9_-]{0,63}$"
KINDS = tuple(kind.value for kind in Kind)
CHANNELS = tuple(channel.value for channel in Channel)
CHOICES = tuple(channel.value for channel in CHOSEN)


def _source(text: str) -> str:
    try:
        variables(text)
    except BadTemplate as exc:
        raise PydanticCustomError("BAD_TEMPLATE", "{why}", {"why": str(exc)[:150]}) from exc
    return text


KindName = Literal[KINDS]  # type: ignore[valid-type]
ChannelName = Literal[CHOICES]  # type: ignore[valid-type]
Source = Annotated[str, StringConstraints(max_length=SOURCE_CHARACTERS), AfterValidator(_source)]
Value = Annotated[str, StringConstraints(max_length=2_000)]
Data = Annotated[dict[MetaKey, Value], Field(max_length=50)]
Phone = Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{6,14}$")]
Device = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,500}$")]


class NewNotification(Body):
    user_id: Id
    template: Annotated[str, StringConstraints(pattern=NAME)]
    channel: ChannelName = Channel.IN_APP.value
    data: Data | None = None


class Preferences(Body):
    """All of it is replaced: a kind that is not named goes by the default."""

    preferences: dict[KindName, Annotated[list[ChannelName], Field(max_length=len(CHOSEN))]]
    phone: Phone | None = None
    device: Device | None = None

    @model_validator(mode="after")
    def _fits(self) -> Preferences:
        for kind, channels in self.preferences.items():
            if len(set(channels)) < len(channels):
                raise PydanticCustomError(
                    "DUPLICATE", "names a channel twice", {"pointer": f"/preferences/{kind}"}
                )
        return self


class WebhookEndpoint(Body):
    """By its URL: what is there is changed, else it is new."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
    kinds: Annotated[list[KindName], Field(max_length=len(Kind))] | None = None
    enabled: bool = True


class NotificationTemplate(Body):
    kind: KindName
    subject: Source
    text: Annotated[Source, StringConstraints(min_length=1)]
    html: Source | None = None


class TemplatePreview(Body):
    """Of what is saved, or of what could be: members that are given stand for those of the template."""

    data: Data
    subject: Source | None = None
    text: Source | None = None
    html: Source | None = None


class Notification(Shown):
    notification_id: str
    user_id: str
    channel: Literal[CHANNELS]  # type: ignore[valid-type]
    kind: str
    template: str
    data: dict[str, str]
    status: Literal[tuple(Status)]  # type: ignore[valid-type]
    attempts: int
    detail: str | None = Field(description="why the last try came to nothing")
    next_attempt_at: str | None
    version: int
    created_at: str
    updated_at: str


class Notifications(Shown):
    items: list[Notification]
    next_cursor: str | None


class ShownPreferences(Shown):
    user_id: str
    email: str | None
    phone: str | None
    device: str | None
    preferences: dict[str, list[str]] = Field(description="every kind, the defaults too")
    version: int


class ShownEndpoint(Shown):
    endpoint_id: str
    url: str
    kinds: list[str] = Field(description="empty: all")
    enabled: bool
    detail: str | None = Field(description="why it was disabled")
    secret: str | None = Field(description="whsec_…, for its owner alone")
    created_at: str
    delivered_at: str | None = Field(description="when something last arrived there")


class ShownEndpoints(Shown):
    items: list[ShownEndpoint]


class RemovedEndpoint(Shown):
    endpoint_id: str
    removed: bool


class ShownTemplate(Shown):
    name: str
    version: int = Field(description="0: the bank's own text")
    kind: str
    subject: str
    text: str
    html: str | None
    variables: list[str] = Field(description="names that it fills in; all of them are needed")
    updated_at: str | None


class ShownTemplates(Shown):
    items: list[ShownTemplate]


class Rendered(Shown):
    name: str
    subject: str
    text: str
    html: str | None
