"""What a handler answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Answer:
    """Status, bytes, headers."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    private: bool = False  # has a secret: kept in this process alone

    @property
    def size(self) -> int:
        """About how much memory it takes to keep, in bytes."""
        return len(self.body) + 500


def answer(value: Any, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer in JSON; a `version` in it is its ETag."""
    given = dict(headers or {})
    if isinstance(value, dict) and isinstance(value.get("version"), int):
        given["ETag"] = f'"{value["version"]}"'
    return Answer(status, orjson.dumps(value), given)


def problem_answer(problem: Problem, path: str, trace_id: str) -> Answer:
    """A problem as an answer."""
    body = orjson.dumps(problem.body(path, trace_id))
    return Answer(problem.status, body, dict(problem.headers), MEDIA_TYPE)
