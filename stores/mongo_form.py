"""How a document lies in MongoDB: its JSON as it is, with our own fields beside it.

    {"user_id": "u1", "version": 3, …}  -->  {"_id": "u1", "_version": 3, "user_id": "u1", …}

A name that MongoDB would understand is written so that it can't: a dot, a leading $ or _, NUL, % and
the empty name become % and their number, at every depth. All others stay readable, and names that
begin with _ are ours alone. Values need no such care: they are never part of a command.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from bson.int64 import Int64

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stores.catalog import Document

Stored: TypeAlias = dict[str, Any]

VERSION = "_version"  # a document with a higher one replaces it
ACCOUNTS = "_accounts"  # of a transaction: both sides, so that one index finds either
GONE = "_gone"  # when a deleted document was deleted: what is left of it, for a day
SCORE = "_score"  # of a search

_UNSAFE = re.compile(r"[.%\0]|^[$_]")
_ESCAPED = re.compile(r"%(?:([0-9A-F]{2})|$)")


def stored(document: Document) -> Stored:
    """The fields of a document as MongoDB keeps them."""
    return {field(name): _stored(value) for name, value in document.items()}


def read(found: Mapping[str, Any]) -> Document:
    """The document that was stored, without the fields that are ours."""
    return {_name(key): _read(value) for key, value in found.items() if not key.startswith("_")}


@lru_cache(maxsize=4096)
def field(name: str) -> str:
    """A name as MongoDB may see it: in a document, and in a path."""
    if not name:
        return "%"
    return _UNSAFE.sub(lambda found: f"%{ord(found.group()):02X}", name)


@lru_cache(maxsize=4096)
def _name(key: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", key)


def _stored(value: Any) -> Any:
    if type(value) is dict:
        return stored(value)
    if type(value) is list:
        return [_stored(item) for item in value]
    return value


def _read(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {_name(key): _read(item) for key, item in value.items()}
    if kind is list:
        return [_read(item) for item in value]
    return int(value) if kind is Int64 else value
