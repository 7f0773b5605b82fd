"""Python functions made from a schema, one pair a record: object → Avro body, Avro body → object.

fastavro needs a dict of dicts between a dataclass and its bytes; these functions go straight, and
are two to four times faster than fastavro's C with that dict (`bench/codec.py`). They write what
fastavro writes, byte for byte, and read what it reads: `tests/schemas/test_codec.py` holds both.
They know the part of Avro that our schemas use: string, boolean, long, bytes, array, map, record,
["null", T].
"""

from __future__ import annotations

import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeAlias

Schema: TypeAlias = Any  # parsed JSON: a name, a list (union) or an object
Encode: TypeAlias = Callable[[Any], bytes]
Decode: TypeAlias = Callable[[bytes, int], tuple[Any, int]]  # body, position → object, position

TIME_SIZE = 6
LONG_MIN, LONG_MAX = -(1 << 63), (1 << 63) - 1


class Longs(dict[int, bytes]):
    """Integers as Avro longs (zigzag, base 128), each made once: times and sizes repeat."""

    LIMIT = 50_000

    def __missing__(self, value: int) -> bytes:
        if not LONG_MIN <= value <= LONG_MAX:
            raise OverflowError(f"{value} does not fit 64 bits")
        rest = operator.index(value) << 1 ^ value >> 63
        out = bytearray()
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
        if len(self) >= self.LIMIT:
            self.clear()
        encoded = self[value] = bytes(out)
        return encoded


LONGS = Longs()
# what a first byte says when it is the only one; None: ask read_long / read_size
SMALL = tuple((byte >> 1) ^ -(byte & 1) if byte < 128 else None for byte in range(256))
SIZES = tuple(byte >> 1 if byte < 128 and not byte & 1 else None for byte in range(256))
BOOLEANS = {0: False, 1: True}
TIMES: dict[bytes, int] = {}  # read_time's memory


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """The long at this position and the position after it."""
    byte = data[at]
    value = byte & 127
    shift = 7
    while byte > 127:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        shift += 7
    if value >> 64:
        raise ValueError("a long has more than 64 bits")
    return (value >> 1) ^ -(value & 1), at + 1


def read_time(data: bytes, at: int) -> tuple[int, int]:
    """As read_long, and remembers one of TIME_SIZE bytes, as the milliseconds of 1978 to 2039 have.

    No varint begins another: six bytes that were a long once are that long wherever they stand.
    """
    value, end = read_long(data, at)
    if end - at == TIME_SIZE:
        if len(TIMES) >= Longs.LIMIT:
            TIMES.clear()
        TIMES[data[at:end]] = value
    return value, end


def read_size(data: bytes, at: int) -> tuple[int, int]:
    """The length of what follows, and where it starts."""
    size, at = read_long(data, at)
    if size < 0:
        raise ValueError("a length is negative")
    return size, at


def read_block(data: bytes, at: int) -> tuple[int, int]:
    """How many items the next block of an array or map has; after a negative count is its size."""
    count, at = read_long(data, at)
    if count < 0:
        _, at = read_size(data, at)
    if abs(count) > len(data) - at:  # each item of ours takes a byte or more
        raise ValueError("a block has more items than bytes")
    return abs(count), at


def twin(record: type) -> type:
    """A class laid out like this frozen one, whose attributes can be set.

    Setting the fields of a twin and then its `__class__` makes the same object as calling the
    frozen class, in a third of the time: that one sets each field by `object.__setattr__`.
    """
    return type(record.__name__, record.__bases__, {"__slots__": record.__slots__})  # type: ignore[attr-defined]


class Source:
    """Python text under construction, and the objects that it names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "LONGS": LONGS,
            "SMALL": SMALL,
            "SIZES": SIZES,
            "BOOLEANS": BOOLEANS,
            "read_long": read_long,
            "read_time": read_time,
            "time_of": TIMES.get,
            "read_size": read_size,
            "read_block": read_block,
            "new": object.__new__,
            "join": b"".join,
        }
        self.count = 0

    def name(self, stem: str, value: Any = None) -> str:
        """A name that is not used yet, for a local or, with a value, a global."""
        self.count += 1
        name = f"{stem}{self.count}"
        if value is not None:
            self.names[name] = value
        return name

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def function(self, name: str) -> Any:
        """Compile what was added and answer the function of that name."""
        exec(
            compile("\n".join(self.lines), f"<{name} of schemas/generated.py>", "exec"), self.names
        )
        return self.names[name]


def encoder(
    schema: Schema, record: type, named: Mapping[str, Schema], first: bytes = b""
) -> Encode:
    """A function from an object of this dataclass to its Avro body, with `first` in front of it."""
    source = Source()
    source.add(0, "def encode(value):")
    parts = _write(source, 1, "value", schema, record, named)
    source.add(1, f"return join(({first!r}, {', '.join(parts)}))")
    function: Encode = source.function("encode")
    return function


def decoder(schema: Schema, record: type, named: Mapping[str, Schema]) -> Decode:
    """A function from bytes and the position of an Avro body to the object and the position after.

    Raises IndexError, KeyError or ValueError for bytes that are not such a body. Bytes that end in
    the midst of a string give a position beyond their end: the caller compares.
    """
    source = Source()
    source.add(0, "def decode(data, at):")
    value = _read(source, 1, schema, record, named)
    source.add(1, f"return {value}, at")
    function: Decode = source.function("decode")
    return function


def hints(record: type) -> dict[str, Any]:
    """The types of a dataclass's fields by name, in order."""
    found = typing.get_type_hints(record)
    return {field.name: found[field.name] for field in fields(record)}


def optional(hint: Any) -> Any:
    """T of `T | None`, else None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        if len(arms) == 1:
            return arms[0]
    return None


def _write(
    source: Source, depth: int, value: str, schema: Schema, hint: Any, named: Mapping[str, Schema]
) -> list[str]:
    """Add what prepares the value; answer the expressions whose bytes, joined, are its encoding."""
    schema = _resolved(schema, named)
    match schema:
        case "string":
            text = source.name("text")
            source.add(depth, f"{text} = {value}.encode()")
            return [f"LONGS[len({text})]", text]
        case "bytes":
            return [f"LONGS[len({value})]", value]
        case "long":
            return [f"LONGS[{value}]"]
        case "boolean":
            return [f"(b'\\1' if {value} else b'\\0')"]
        case ["null", inner]:
            part = source.name("part")
            source.add(depth, f"if {value} is None:", f"    {part} = b'\\0'", "else:")
            parts = _write(source, depth + 1, value, inner, optional(hint), named)
            source.add(depth + 1, f"{part} = join((b'\\2', {', '.join(parts)}))")
            return [part]
        case {"type": "record"}:
            local, parts, types_ = source.name("record"), [], hints(hint)
            source.add(depth, f"{local} = {value}")
            for field in schema["fields"]:
                attribute = source.name("field")
                source.add(depth, f"{attribute} = {local}.{field['name']}")
                parts += _write(
                    source, depth, attribute, field["type"], types_[field["name"]], named
                )
            return parts
        case {"type": "array", "items": items}:
            part, item = source.name("items"), source.name("item")
            (item_hint, *_) = typing.get_args(hint)
            source.add(depth, f"if {value}:", f"    {part} = [LONGS[len({value})]]")
            source.add(depth, f"    for {item} in {value}:")
            parts = _write(source, depth + 2, item, items, item_hint, named)
            source.add(depth + 2, f"{part} += ({', '.join(parts)},)")
            source.add(depth, f"    {part}.append(b'\\0')", f"    {part} = join({part})")
            source.add(depth, "else:", f"    {part} = b'\\0'")
            return [part]
        case {"type": "map", "values": values}:
            part, key, item = source.name("items"), source.name("key"), source.name("item")
            _, item_hint = typing.get_args(hint)
            source.add(depth, f"if {value}:", f"    {part} = [LONGS[len({value})]]")
            source.add(depth, f"    for {key}, {item} in {value}.items():")
            parts = [
                *_write(source, depth + 2, key, "string", str, named),
                *_write(source, depth + 2, item, values, item_hint, named),
            ]
            source.add(depth + 2, f"{part} += ({', '.join(parts)},)")
            source.add(depth, f"    {part}.append(b'\\0')", f"    {part} = join({part})")
            source.add(depth, "else:", f"    {part} = b'\\0'")
            return [part]
    raise ValueError(f"our schemas do not use {schema!r}")


def _read(
    source: Source,
    depth: int,
    schema: Schema,
    hint: Any,
    named: Mapping[str, Schema],
    field: str = "",
) -> str:
    """Add what reads one value at `at` and moves `at`; answer the name that holds it."""
    schema = _resolved(schema, named)
    value = source.name("value")
    match schema:
        case "string" | "bytes":
            source.add(depth, "end = SIZES[data[at]]", "at += 1", "if end is None:")
            source.add(depth, "    end, at = read_size(data, at - 1)", "end += at")
            source.add(depth, f"{value} = {_text(source, schema, hint)}", "at = end")
        case "long" if field.endswith("_ms"):
            source.add(depth, f"{value} = time_of(data[at : at + {TIME_SIZE}])")
            source.add(depth, f"if {value} is None:", f"    {value}, at = read_time(data, at)")
            source.add(depth, "else:", f"    at += {TIME_SIZE}")
        case "long":
            source.add(depth, f"{value} = SMALL[data[at]]", f"if {value} is None:")
            source.add(depth, f"    {value}, at = read_long(data, at)", "else:", "    at += 1")
        case "boolean":
            source.add(depth, f"{value} = BOOLEANS[data[at]]", "at += 1")
        case ["null", inner]:
            source.add(depth, "arm = data[at]", "at += 1", "if arm == 2:")
            held = _read(source, depth + 1, inner, optional(hint), named)
            source.add(depth + 1, f"{value} = {held}")
            source.add(depth, "elif arm:", "    raise ValueError('no such arm of a union')")
            source.add(depth, "else:", f"    {value} = None")
        case {"type": "record"}:
            _read_record(source, depth, value, schema, hint, named)
        case {"type": "array", "items": items}:
            (item_hint, *_) = typing.get_args(hint)
            _open_blocks(source, depth, value, "[]")
            item = _read(source, depth + 2, items, item_hint, named)
            source.add(depth + 2, f"{value}.append({item})")
            _close_blocks(source, depth, value)
            source.add(depth, f"{value} = tuple({value})")
        case {"type": "map", "values": values}:
            _, item_hint = typing.get_args(hint)
            _open_blocks(source, depth, value, "{}")
            key = _read(source, depth + 2, "string", str, named)
            item = _read(source, depth + 2, values, item_hint, named)
            source.add(depth + 2, f"{value}[{key}] = {item}")
            _close_blocks(source, depth, value)
        case _:
            raise ValueError(f"our schemas do not use {schema!r}")
    return value


def _text(source: Source, schema: Schema, hint: Any) -> str:
    """The expression that makes a value of its bytes; a StrEnum's members are found by them."""
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        members = source.name("members", {member.value.encode(): member for member in hint})
        return f"{members}[data[at:end]]"
    return "data[at:end].decode()" if schema == "string" else "data[at:end]"


def _read_record(
    source: Source, depth: int, value: str, schema: Schema, hint: Any, named: Mapping[str, Schema]
) -> None:
    types_ = hints(hint)
    class_, like = source.name("record", hint), source.name("twin", twin(hint))
    held = {
        (name := field["name"]): _read(source, depth, field["type"], types_[name], named, name)
        for field in schema["fields"]
    }
    source.add(depth, f"{value} = new({like})")
    source.add(depth, *(f"{value}.{name} = {local}" for name, local in held.items()))
    source.add(depth, f"{value}.__class__ = {class_}")


def _open_blocks(source: Source, depth: int, value: str, empty: str) -> None:
    """Arrays and maps come in blocks, each with a count before it; a count of 0 ends them."""
    count = f"{value}_count"
    source.add(depth, f"{value} = {empty}")
    _count_block(source, depth, count)
    source.add(depth, f"while {count}:", f"    for _ in range({count}):")


def _close_blocks(source: Source, depth: int, value: str) -> None:
    _count_block(source, depth + 1, f"{value}_count")


def _count_block(source: Source, depth: int, count: str) -> None:
    """A count of one byte, the usual one, without a call; read_block knows all others."""
    source.add(depth, f"{count} = SIZES[data[at]]")
    source.add(depth, f"if {count} is None or {count} > len(data) - at:")
    source.add(depth, f"    {count}, at = read_block(data, at)", "else:", "    at += 1")


def _resolved(schema: Schema, named: Mapping[str, Schema]) -> Schema:
    """The definition of a named record, the name of a primitive, anything else as it is."""
    if isinstance(schema, str) and schema in named:
        return named[schema]
    if isinstance(schema, dict) and schema["type"] in ("string", "long", "boolean", "bytes"):
        return schema["type"]
    return schema
