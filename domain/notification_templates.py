"""Templates: what users are told, in versions, and the bank's own texts until there is one.

    SaveTemplate --> TemplateSaved --each partition--> TemplateApplied

A version is saved in the partition of the template's name and copied to every other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from domain.notification_rows import (
    Kind,
    Template,
    TemplateHead,
    refuse,
    template_head_key,
    template_key,
    template_version_key,
)
from domain.notification_texts import BUILT_IN
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Changes, Rows
    from domain.notification_rows import NotificationCommandRefused


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


def save(
    rows: Rows, command: SaveTemplate, at_ms: int
) -> Sequence[TemplateSaved | NotificationCommandRefused]:
    if not (command.name and command.text):
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    own = built_in(command.name)
    if own is not None and own.kind is not command.kind:
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    if own is not None and not set(command.variables) <= set(own.variables):
        return refuse(command, Reason.TEMPLATE_DATA_MISSING, at_ms)
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


def apply(rows: Rows, fact: TemplateSaved, at_ms: int) -> Sequence[TemplateApplied]:
    applied: Template | None = rows.get(template_key(fact.name))
    if applied is not None and applied.version >= fact.version:
        return ()
    return (TemplateApplied(template=_saved(fact), at_ms=at_ms),)


def evolve(event: TemplateSaved | TemplateApplied) -> Changes:
    if isinstance(event, TemplateApplied):
        return {template_key(event.template.name): event.template}
    head = TemplateHead(version=event.version)
    version = template_version_key(event.name, event.version)
    return {version: _saved(event), template_head_key(event.name): head}


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


def template_of(rows: Rows, template: str) -> Template | None:
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
