"""Any object of any type that has a schema, for hypothesis."""

from __future__ import annotations

import types
import typing
from dataclasses import is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from hypothesis import strategies as st

from schemas.generated import hints

LONGS = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-200, 200),
    st.integers(1_700_000_000_000, 1_900_000_000_000),
)
TEXTS = st.one_of(st.text(max_size=12), st.text("ab-é", min_size=60, max_size=80))
PLAIN = {str: TEXTS, int: LONGS, bool: st.booleans(), bytes: st.binary(max_size=20)}


@cache
def things(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type hint."""
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    if is_dataclass(hint):
        return st.builds(hint, **{name: things(of) for name, of in hints(hint).items()})
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return st.lists(things(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXTS, things(arguments[1]), max_size=3)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if arm is type(None) else things(arm) for arm in arguments))
    raise AssertionError(f"no strategy for {hint}")
