"""The read-only half of Confluent's schema registry, as answers: no HTTP here, the gateway mounts it.

Subjects are named by topic and record (TopicRecordNameStrategy): `account.events-streambank.account
.AccountDebited`. Every released version is there; so is what this code writes and did not release
yet, as the next version, so that a development system can be read too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from domain.services import DECIDERS
from schemas import released
from schemas.records import fingerprint, names, records, schema_id, text, whole
from topics.subscriptions import SUBSCRIPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Answer: TypeAlias = tuple[int, Any]  # HTTP status, JSON body
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"

SUBJECT_NOT_FOUND = 40401
VERSION_NOT_FOUND = 40402
SCHEMA_NOT_FOUND = 40403
INVALID_VERSION = 42202


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a record."""

    version: int
    id: int
    text: str


class Registry:
    """Answers by path. Private topics and changelogs have no subjects, but ids of all are known."""

    @cached_property
    def subjects(self) -> Mapping[str, str]:
        """The record of each subject."""
        return {f"{topic}-{name}": name for topic, kinds in _public().items() for name in kinds}

    @cached_property
    def _versions(self) -> Mapping[str, Sequence[Version]]:
        return {name: _versions(name) for name in records()}

    @cached_property
    def _by_id(self) -> Mapping[int, tuple[str, Version]]:
        return {v.id: (name, v) for name, found in self._versions.items() for v in found}

    def answer(self, path: str) -> Answer:
        """The answer to a GET of this path; its query, already split off, changes nothing."""
        match path.strip("/").split("/"):
            case ["subjects"]:
                return 200, sorted(self.subjects)
            case ["subjects", subject, "versions"]:
                return self._of_subject(subject, lambda found: (200, [v.version for v in found]))
            case ["subjects", subject, "versions", version]:
                return self._version(subject, version, with_text=False)
            case ["subjects", subject, "versions", version, "schema"]:
                return self._version(subject, version, with_text=True)
            case ["schemas", "types"]:
                return 200, ["AVRO"]
            case ["schemas", "ids", id_]:
                return self._schema(id_, lambda _, found: {"schema": found.text})
            case ["schemas", "ids", id_, "schema"]:
                return self._schema(id_, lambda _, found: json.loads(found.text))
            case ["schemas", "ids", id_, "subjects"]:
                return self._schema(id_, lambda name, _: self._subjects_of(name))
            case ["schemas", "ids", id_, "versions"]:
                return self._schema(
                    id_,
                    lambda name, found: [
                        {"subject": subject, "version": found.version}
                        for subject in self._subjects_of(name)
                    ],
                )
        return _error(404, 404, "HTTP 404 Not Found")

    def _subjects_of(self, name: str) -> list[str]:
        return sorted(subject for subject, record in self.subjects.items() if record == name)

    def _of_subject(self, subject: str, then: Callable[[Sequence[Version]], Answer]) -> Answer:
        name = self.subjects.get(subject)
        if name is None:
            return _error(404, SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
        return then(self._versions[name])

    def _version(self, subject: str, version: str, *, with_text: bool) -> Answer:
        def chosen(found: Sequence[Version]) -> Answer:
            if version not in ("latest", "-1") and not _is_version(version):
                return _error(
                    422,
                    INVALID_VERSION,
                    f"The specified version '{version}' is not a valid version id. Allowed values "
                    'are between [1, 2^31-1] and the string "latest"',
                )
            number = len(found) if version in ("latest", "-1") else int(version)
            if number > len(found):
                return _error(404, VERSION_NOT_FOUND, f"Version {version} not found.")
            one = found[number - 1]
            if with_text:
                return 200, json.loads(one.text)
            return 200, {
                "subject": subject,
                "version": one.version,
                "id": one.id,
                "schemaType": "AVRO",
                "schema": one.text,
            }

        return self._of_subject(subject, chosen)

    def _schema(self, id_: str, then: Callable[[str, Version], Any]) -> Answer:
        found = self._by_id.get(int(id_)) if id_.isascii() and id_.isdigit() else None
        if found is None:
            return _error(404, SCHEMA_NOT_FOUND, f"Schema {id_} not found")
        name, version = found
        return 200, then(name, version)


def _error(status: int, code: int, message: str) -> Answer:
    return status, {"error_code": code, "message": message}


def _is_version(version: str) -> bool:
    return version.isascii() and version.isdigit() and 1 <= int(version) < 1 << 31


def _versions(name: str) -> Sequence[Version]:
    """The released versions and, where it differs from the last of them, what this code writes."""
    found = [
        Version(version=release.version, id=release.id, text=release.text())
        for release in released.releases().get(name, ())
    ]
    last = released.releases().get(name, ())[-1:]
    if not last or last[0].fingerprint != fingerprint(whole(name)):
        now = Version(version=len(found) + 1, id=schema_id(whole(name)), text=text(name))
        found.append(now)
    return found


@cache
def _public() -> Mapping[str, Sequence[str]]:
    """The records that stand in each topic which others than its service read or write."""
    found: dict[str, list[str]] = {}
    for decider in DECIDERS.values():
        private = frozenset(decider.private_events)
        found[f"{decider.service}.events"] = [names()[kind] for kind in decider.events]
        found[f"{decider.service}.inbox"] = [
            names()[kind] for kind in decider.messages if kind not in private
        ]
    for row in SUBSCRIPTIONS:
        kinds = found.setdefault(row.topic, [])
        if row.topic not in {f"{service}.inbox" for service in DECIDERS}:
            kinds.append(names()[row.event])
    return found
