"""Release the schemas: `python -m schemas.lock`.

Each schema that differs from its last version in more than its docs becomes the next version, if it
is compatible with all versions before it. Refused schemas are named and nothing is written. With
`--check` nothing is ever written: it fails when there is something to release.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas import released
from schemas.agreement import disagreements
from schemas.compatibility import breaks
from schemas.records import fingerprint, records, schema_id, text, whole
from schemas.released import Release

if TYPE_CHECKING:
    from collections.abc import Mapping

Releases = dict[str, tuple[Release, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a release would do."""

    new: Sequence[Release] = ()
    refused: Sequence[str] = field(default_factory=list)


def plan() -> Plan:
    """What is to be released now, and why some of it may not be."""
    refused, new = list(disagreements()), []
    for name in records():
        versions, schema = released.releases().get(name, ()), whole(name)
        print_ = fingerprint(schema)
        if versions and versions[-1].fingerprint == print_:
            continue
        if print_ in {version.fingerprint for version in versions}:
            refused.append(
                f"{name} went back to an earlier version of its own: go on from the last"
            )
        old = [json.loads(version.text()) for version in versions]
        refused += [f"{name}: {why}" for why in breaks(schema, old)]
        new.append(
            Release(name=name, version=len(versions) + 1, id=schema_id(schema), fingerprint=print_)
        )
    refused += [
        f"{name} was released and is gone" for name in released.releases() if name not in records()
    ]
    return Plan(new=new, refused=[*refused, *_collisions(new)])


def _collisions(new: Sequence[Release]) -> list[str]:
    """Schemas whose fingerprints begin alike; one of them then takes another name."""
    taken = dict(released.by_id().items())
    sentences = []
    for release in new:
        other = taken.setdefault(release.id, release)
        if other.fingerprint != release.fingerprint:
            sentences.append(f"{release.name} and {other.name} have the same id {release.id}")
    return sentences


def write(new: Sequence[Release]) -> None:
    """Add versions to the lock file, their texts beside it."""
    releases: Releases = dict(released.releases())
    for release in new:
        releases[release.name] = (*releases.get(release.name, ()), release)
        release.path.parent.mkdir(parents=True, exist_ok=True)
        release.path.write_text(text(release.name) + "\n")
    released.LOCK.write_text(_dump(releases))
    released.releases.cache_clear()
    released.by_id.cache_clear()


def _dump(releases: Mapping[str, Sequence[Release]]) -> str:
    """One version a line, so that a merge of two branches shows what both released."""
    entries = [
        f"  {json.dumps(name)}: [\n"
        + ",\n".join(f"    {json.dumps(_version(release))}" for release in versions)
        + "\n  ]"
        for name, versions in sorted(releases.items())
    ]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _version(release: Release) -> dict[str, Any]:
    return {
        "version": release.version,
        "id": release.id,
        "fingerprint": release.fingerprint,
    }


def main(arguments: Sequence[str]) -> int:
    """0: nothing to do, or done. 1: refused, or (with --check) something is to be released."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m schemas.lock [--check]\n")
        return 2
    planned = plan()
    for sentence in planned.refused:
        sys.stderr.write(f"refused: {sentence}\n")
    if planned.refused:
        return 1
    if not arguments:
        write(planned.new)
    for release in planned.new:
        verb = "to be released" if arguments else "released"
        sys.stdout.write(f"{release.name} version {release.version} {verb}, id {release.id}\n")
    return int(bool(arguments and planned.new))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
