"""Does each schema say what its dataclass says: names, order, types, defaults, null or not?

str, StrEnum  string        int  long        bool  boolean        bytes  bytes
tuple[T, ...] array         dict[str, T]  map        T | None  ["null", T], default null
dataclass     its record
"""

from __future__ import annotations

import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from schemas.generated import hints, optional
from schemas.records import full_name, names, records, types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from domain.decider import Decider
    from schemas.records import Schema

PLAIN: dict[type, str] = {str: "string", int: "long", bool: "boolean", bytes: "bytes"}


def disagreements() -> list[str]:
    """A sentence for each way in which a schema and its dataclass differ."""
    return [
        sentence
        for name, record in types().items()
        for sentence in compare(records()[name], record)
    ]


def undescribed(deciders: Iterable[Decider]) -> list[str]:
    """A sentence for each message, event or row that has no schema, or one under a wrong name."""
    sentences = []
    for decider in deciders:
        said = {*decider.events, *decider.private_events}
        for record in dict.fromkeys((*decider.messages, *said, *decider.rows)):
            where = f"{record.__module__}.{record.__qualname__}"
            if record not in names():
                sentences.append(f"{where} has no schema")
            elif record in said and names()[record] != (
                wanted := f"streambank.{decider.service}.{record.__name__}"
            ):
                sentences.append(f"{where} is said by {decider.service}: its name is {wanted}")
    return sentences


def compare(schema: Schema, record: type) -> Iterator[str]:
    """What differs between a record and a dataclass."""
    name, described = full_name(schema), [field["name"] for field in schema["fields"]]
    declared = [field.name for field in fields(record)]
    if missing := [field for field in declared if field not in described]:
        yield f"{name} lacks {', '.join(missing)}"
    if extra := [field for field in described if field not in declared]:
        yield f"{name} has {', '.join(extra)}, which its dataclass lacks"
    if not missing and not extra and described != declared:
        yield f"{name} has its fields in the order {described}, its dataclass {declared}"
    found = {field.name: field for field in fields(record)}
    for field in schema["fields"]:
        if field["name"] in found:
            hint = hints(record)[field["name"]]
            yield from _compare_field(f"{name}.{field['name']}", field, hint, found[field["name"]])


def _compare_field(where: str, field: Schema, hint: Any, declared: Field[Any]) -> Iterator[str]:
    wanted = avro(hint)
    if field["type"] != wanted:
        yield f"{where} is {field['type']}, its dataclass wants {wanted}"
    if isinstance(wanted, list) and field.get("default", MISSING) is not None:
        yield f"{where} may be null and must have the default null"
    elif not isinstance(wanted, list) and declared.default is not MISSING:
        default = declared.default
        if field.get("default", MISSING) != default:
            yield f"{where} must have the default {default!r}, as its dataclass"


def avro(hint: Any) -> Schema:
    """The Avro type of a Python type; ValueError for one that has none."""
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return "string"
    if is_dataclass(hint):
        return names()[hint]  # type: ignore[index]
    if (inner := optional(hint)) is not None:
        return ["null", avro(inner)]
    match typing.get_origin(hint), typing.get_args(hint):
        case (origin, (item, rest)) if origin is tuple and rest is ...:
            return {"type": "array", "items": avro(item)}
        case (origin, (key, value)) if origin is dict and key is str:
            return {"type": "map", "values": avro(value)}
    raise ValueError(f"{hint} has no Avro type here")
