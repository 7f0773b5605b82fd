"""May this schema be released: can every version read what every other wrote?

FULL_TRANSITIVE: the candidate reads all released versions (an upgraded reader meets old records)
and all released versions read it (a subscriber that was not upgraded meets new ones). The rules are
those of the Avro 1.11 specification, "Schema Resolution". Aliases are not used, so not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.records import PRIMITIVES, full_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from schemas.records import Schema

PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def breaks(candidate: Schema, released: Iterable[Schema]) -> list[str]:
    """Why a whole schema may not follow the released ones, oldest first; empty when it may."""
    sentences = []
    for version, old in enumerate(released, 1):
        sentences += [f"it can't read version {version}: {why}" for why in unread(old, candidate)]
        sentences += [f"version {version} can't read it: {why}" for why in unread(candidate, old)]
    return sentences


def unread(writer: Schema, reader: Schema) -> list[str]:
    """Why a reader with one schema can't read what the other wrote; empty when it always can."""
    return list(_unread(writer, reader, "", Names(writer), Names(reader), set()))


class Names(dict[str, "Schema"]):
    """The named types of one schema, by full name."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self._collect(schema)

    def _collect(self, schema: Schema) -> None:
        if isinstance(schema, list):
            for arm in schema:
                self._collect(arm)
        elif isinstance(schema, dict):
            if "name" in schema:
                self[full_name(schema)] = schema
            for field in schema.get("fields", ()):
                self._collect(field["type"])
            for part in ("items", "values"):
                self._collect(schema.get(part))

    def resolve(self, schema: Schema) -> Schema:
        """A name's definition; a primitive as its name; anything else as it is."""
        if isinstance(schema, str) and schema not in PRIMITIVES:
            return self[schema]
        if isinstance(schema, dict) and schema["type"] in PRIMITIVES:
            return schema["type"]
        return schema


def _unread(
    writer: Schema,
    reader: Schema,
    at: str,
    written: Names,
    read: Names,
    seen: set[tuple[str, str]],
) -> Iterator[str]:
    writer, reader = written.resolve(writer), read.resolve(reader)
    if isinstance(writer, list):  # every arm may have been written
        for arm in writer:
            yield from _unread(arm, reader, at, written, read, seen)
    elif isinstance(reader, list):  # the first arm that matches is taken
        if all(list(_unread(writer, arm, at, written, read, set(seen))) for arm in reader):
            yield f"{_place(at)} is written as {_kind(writer)}, which no arm of its union reads"
    elif isinstance(writer, str) or isinstance(reader, str):
        if writer != reader and not (
            isinstance(writer, str)
            and isinstance(reader, str)
            and reader in PROMOTIONS.get(writer, ())
        ):
            yield f"{_place(at)} is written as {_kind(writer)} and read as {_kind(reader)}"
    elif writer["type"] != reader["type"]:
        yield f"{_place(at)} is written as {_kind(writer)} and read as {_kind(reader)}"
    else:
        yield from _unread_complex(writer, reader, at, written, read, seen)


def _unread_complex(
    writer: Schema,
    reader: Schema,
    at: str,
    written: Names,
    read: Names,
    seen: set[tuple[str, str]],
) -> Iterator[str]:
    match writer["type"]:
        case "record":
            pair = (full_name(writer), full_name(reader))
            if pair[0].split(".")[-1] != pair[1].split(".")[-1]:
                yield f"{_place(at)} is written as {pair[0]} and read as {pair[1]}"
            elif pair not in seen:
                seen.add(pair)
                yield from _unread_fields(writer, reader, at, written, read, seen)
        case "array":
            items = writer["items"], reader["items"]
            yield from _unread(*items, f"{at}[]", written, read, seen)
        case "map":
            values = writer["values"], reader["values"]
            yield from _unread(*values, f"{at}{{}}", written, read, seen)
        case kind:
            raise ValueError(f"our schemas do not use {kind}")


def _unread_fields(
    writer: Schema,
    reader: Schema,
    at: str,
    written: Names,
    read: Names,
    seen: set[tuple[str, str]],
) -> Iterator[str]:
    fields = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        name = f"{at}.{field['name']}" if at else field["name"]
        if field["name"] in fields:
            types = fields[field["name"]]["type"], field["type"]
            yield from _unread(*types, name, written, read, seen)
        elif "default" not in field:
            yield f"{name} is not written and has no default"


def _place(at: str) -> str:
    return at or "it"


def _kind(schema: Schema) -> str:
    if isinstance(schema, str):
        return schema
    return full_name(schema) if "name" in schema else str(schema["type"])
