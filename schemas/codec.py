"""Objects of the domain ↔ bytes: Avro behind Confluent's five bytes.

    0 | schema id, 4 bytes, big endian | Avro body

A body of the schema that this version of the code writes goes through functions made for it
(`generated`). A body of any other schema of the same record, older or newer, is resolved to ours by
fastavro after the rules of the Avro specification.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import fastavro
from fastavro.schema import SchemaParseException

from schemas import generated, released
from schemas.errors import SchemaMistake, UnknownSchema, Unreadable
from schemas.records import Schema, full_name, names, records, schema_id, types, whole

MAGIC = 0
HEADER = 5  # bytes in front of the body

# what reading bytes that are no body of a schema raises, in `generated` and in fastavro
NOT_A_BODY = (EOFError, LookupError, OverflowError, TypeError, ValueError, struct.error)

Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
Lookup: TypeAlias = Callable[[int], str | None]


def header(id_: int) -> bytes:
    """The five bytes in front of a body."""
    return struct.pack(">bI", MAGIC, id_)


@cache
def _ids() -> Mapping[bytes, str]:
    """The header of each record of this code, and its name."""
    return {header(schema_id(whole(name))): name for name in records()}


class Codec:
    """Encodes and decodes every message and row; not for use by two threads at once.

    `lookup` answers the JSON text of schemas that are newer than this code, or None: a worker asks
    its copy of the topic `schemas`. Schemas are parsed once, functions made at their first use.
    """

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup
        self._write: dict[type, generated.Encode] = {}
        self._read: dict[bytes, Read] = {}
        self._ids = _ids()

    def encode(self, value: Any) -> bytes:
        """The bytes of a message or a row; TypeError for an object that no schema describes."""
        write = self._write.get(type(value)) or self._writer(type(value))
        return write(value)

    def decode(self, data: bytes) -> Any:
        """The object in these bytes. Raises Unreadable."""
        read = self._read.get(data[:HEADER]) if data else None
        if read is None:
            read = self._reader(data)
        try:
            value, end = read(data, HEADER)
        except NOT_A_BODY as error:
            what = f"the body is no {self.type_of(data).__name__}: {error!r}"
            raise Unreadable(what) from error
        if end != len(data):
            how = "ends too early" if end > len(data) else f"has {len(data) - end} bytes too many"
            raise Unreadable(f"the body of {type(value).__name__} {how}")
        return value

    def type_of(self, data: bytes) -> type:
        """The type of the object in these bytes, told by the schema id alone. Raises Unreadable."""
        return types()[self._named(data)[0]]

    def id_of(self, record: type) -> int:
        """The id under which this code writes a type; KeyError for a type without schema."""
        return schema_id(whole(names()[record]))

    def _writer(self, record: type) -> generated.Encode:
        if record not in names():
            raise TypeError(f"no schema describes {record.__module__}.{record.__qualname__}")
        name = names()[record]
        first = header(schema_id(whole(name)))
        write = generated.encoder(records()[name], record, records(), first)
        self._write[record] = write
        return write

    def _reader(self, data: bytes) -> Read:
        name, written = self._named(data)
        read = self._own_reader(name) if written is None else self._foreign_reader(name, written)
        self._read[data[:HEADER]] = read
        return read

    def _named(self, data: bytes) -> tuple[str, Schema | None]:
        """The record that these bytes hold, and the schema that wrote them when it is not ours."""
        if not data:
            raise Unreadable("there are no bytes")
        if len(data) < HEADER or data[0] != MAGIC:
            raise Unreadable(f"{data[:HEADER]!r} is not a zero and a schema id")
        name = self._ids.get(data[:HEADER])
        if name is not None:
            return name, None
        id_ = int.from_bytes(data[1:HEADER], "big")
        text = released.text(id_) or (self._lookup(id_) if self._lookup else None)
        if text is None:
            raise UnknownSchema(id_)
        written = json.loads(text)
        name = full_name(written)
        if name not in records():
            raise Unreadable(f"{name} is no record of ours")
        return name, written

    def _own_reader(self, name: str) -> Read:
        return generated.decoder(records()[name], types()[name], records())

    def _foreign_reader(self, name: str, written: Schema) -> Read:
        """Resolves to our schema through fastavro's dict: few messages, during an upgrade."""
        try:
            writer, reader = fastavro.parse_schema(written), fastavro.parse_schema(whole(name))
        except SchemaParseException as error:
            raise SchemaMistake(f"the schema that wrote a {name} is none: {error}") from error
        own = self._own_reader(name)

        def read(data: bytes, at: int) -> tuple[Any, int]:
            body, resolved = io.BytesIO(data), io.BytesIO()
            body.seek(at)
            record = fastavro.schemaless_reader(body, writer, reader)
            fastavro.schemaless_writer(resolved, reader, record)
            value, _ = own(resolved.getvalue(), 0)
            return value, body.tell()

        return read
