"""What the key of an event is made of: asked of an event whose every text says where it stands.

AccountDebited(order=Order(source_account_id="{order.source_account_id}", …), …)
    --aggregate_id--> "{order.source_account_id}"
"""

from __future__ import annotations

import types
import typing
from dataclasses import is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from schemas.generated import hints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Decider


class Named(int):
    """A number that writes itself as where it stands."""

    def __new__(cls, path: str) -> Named:
        made = super().__new__(cls, 0)
        made.path = path
        return made

    path: str

    def __format__(self, _: str) -> str:
        return f"{{{self.path}}}"


def key_of(decider: Decider, event: type) -> str:
    """The path of the field that is the record's key, in braces; fixed text as it is.

    Where that field may be null, the path of what stands in for it behind an "or". Empty: made otherwise.
    """
    found: list[str] = []
    null: list[str] = []
    while True:
        key = decider.aggregate_id(_sample(event, "", null))
        if not key or key in found:
            return " or ".join(found)
        found.append(key)
        null.append(key.strip("{}"))


def _sample(hint: Any, path: str, null: Sequence[str]) -> Any:
    """`null`: paths of texts that are not there, where they may be."""
    if hint is str:
        return f"{{{path}}}"
    if hint is int:
        return Named(path)
    if hint is bool:
        return False
    if hint is bytes:
        return b""
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return next(iter(hint))
    if isinstance(hint, type) and is_dataclass(hint):
        inside = f"{path}." if path else ""
        members = {name: _sample(of, inside + name, null) for name, of in hints(hint).items()}
        return hint(**members)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return (_sample(arguments[0], f"{path}[0]", null),)
    if origin is dict:
        return {}
    assert origin in (types.UnionType, typing.Union), hint
    (arm,) = (one for one in arguments if one is not type(None))
    return None if arm is str and path in null else _sample(arm, path, null)
