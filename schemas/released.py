"""What was released: every version of every schema that may stand in some topic.

`ids.lock.json` holds id and fingerprint of each version by full name; its text is
`released/<full name>/<version>.avsc`. Both are written by `python -m schemas.lock` alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
LOCK = HERE / "ids.lock.json"
TEXTS = HERE / "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One version of one record."""

    name: str
    version: int  # from 1
    id: int
    fingerprint: str

    @property
    def path(self) -> Path:
        return TEXTS / self.name / f"{self.version}.avsc"

    def text(self) -> str:
        """The whole schema, one line of JSON."""
        return self.path.read_text().strip()


@cache
def releases() -> Mapping[str, tuple[Release, ...]]:
    """All versions by full name, oldest first."""
    if not LOCK.exists():
        return {}
    return {
        name: tuple(Release(name=name, **version) for version in versions)
        for name, versions in json.loads(LOCK.read_text()).items()
    }


@cache
def by_id() -> Mapping[int, Release]:
    return {release.id: release for versions in releases().values() for release in versions}


def text(id_: int) -> str | None:
    """The schema that was released under this id, if any."""
    release = by_id().get(id_)
    return release.text() if release else None
