"""The schemas as written in `avro/*.avsc`, and the dataclass that each of them describes.

A file is a list of records; a record may name records of its own file, of `saga.avsc`, or of any
other. `streambank.account.…` stands in `account.avsc` and its dataclass in `domain/account.py`;
what services share is found in `domain/saga.py`, `decider.py` and `ledger.py` (MODULES). Rows have `rows` in
their namespace, so that a row and a message may have the same short name.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from schemas.errors import SchemaMistake

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Schema: TypeAlias = Any  # parsed JSON: a name, a list (union) or an object

ROOT = "streambank"
SHARED = "saga"
MODULES = {  # of what stands in more files than the one that is named like it
    SHARED: ("saga", "decider", "ledger"),
    "account": ("account", "suspense"),
    "notification": (
        "notification",
        "notification_rows",
        "notification_delivery",
        "notification_recipients",
        "notification_templates",
    ),
    "payment": (
        "payment",
        "payment_rows",
        "payment_rail",
        "payment_refunds",
        "payment_methods",
        "reconciliation",
    ),
    "transaction": ("transaction", "prices"),
    "user": ("user", "person", "credentials", "session", "kyc"),
    "risk": ("risk", "risk_config", "blacklist", "behaviour", "anomaly"),
}
AVRO = Path(__file__).parent / "avro"
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
MEANING = ("type", "name", "fields", "items", "values", "symbols", "size", "default", "logicalType")


def full_name(schema: Schema) -> str:
    """Name with namespace of a record as it stands in a file, or inlined."""
    name: str = schema["name"]
    return f"{schema['namespace']}.{name}" if schema.get("namespace") else name


@cache
def records() -> Mapping[str, Schema]:
    """All records by full name, in the order of their files."""
    found: dict[str, Schema] = {}
    for path in sorted(AVRO.glob("*.avsc")):
        for schema in json.loads(path.read_text()):
            name = full_name(schema)
            if name in found:
                raise SchemaMistake(f"{path.name}: {name} is described twice")
            if schema["namespace"].split(".")[:2] != [ROOT, path.stem]:
                raise SchemaMistake(f"{path.name}: {name} belongs in another file")
            found[name] = schema
    return found


@cache
def types() -> Mapping[str, type]:
    """The dataclass of each record by full name."""
    return {name: _dataclass(name) for name in records()}


@cache
def names() -> Mapping[type, str]:
    """The full name of each dataclass: `ce_type` of a message."""
    found = {record: name for name, record in types().items()}
    if len(found) < len(types()):
        raise SchemaMistake("two records describe the same dataclass")
    return found


def _dataclass(name: str) -> type:
    service, short = name.split(".")[1], name.split(".")[-1]
    for module in MODULES.get(service, (service,)):
        found = getattr(import_module(f"domain.{module}"), short, None)
        if isinstance(found, type):
            return found
    raise SchemaMistake(f"{service}.avsc: {name} has no dataclass {short} in domain/")


@cache
def whole(name: str) -> Schema:
    """The record with every record that it names written out where it is first named."""
    return _written_out(records()[name], set())


def _written_out(schema: Schema, seen: set[str]) -> Schema:
    if isinstance(schema, list):
        return [_written_out(arm, seen) for arm in schema]
    if isinstance(schema, str):
        if schema in PRIMITIVES or schema in seen:
            return schema
        if schema not in records():
            raise SchemaMistake(f"no record is named {schema}")
        return _written_out(records()[schema], seen)
    if schema["type"] == "record":
        seen.add(full_name(schema))
        fields = [
            {**field, "type": _written_out(field["type"], seen)} for field in schema["fields"]
        ]
        return {**schema, "fields": fields}
    written = dict(schema)
    for part in ("items", "values"):
        if part in written:
            written[part] = _written_out(written[part], seen)
    return written


def text(name: str) -> str:
    """The whole record as one line of JSON, as the registry answers it."""
    return json.dumps(whole(name), ensure_ascii=False, separators=(",", ":"))


def fingerprint(schema: Schema) -> str:
    """SHA-256, hex, of what a whole record means: names, types, order and defaults, not its docs.

    Avro's own canonical form leaves out defaults, which readers depend on.
    """
    canonical = json.dumps(_meaning(schema, ""), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def schema_id(schema: Schema) -> int:
    """The id in front of each message: 31 bits of the fingerprint.

    So the same schema has the same id wherever it is released. That no two schemas have the same id
    is checked at release.
    """
    return int(fingerprint(schema)[:8], 16) & 0x7FFFFFFF


def _meaning(schema: Schema, namespace: str) -> Schema:
    if isinstance(schema, list):
        return [_meaning(arm, namespace) for arm in schema]
    if isinstance(schema, str):
        plain = schema in PRIMITIVES or "." in schema or not namespace
        return schema if plain else f"{namespace}.{schema}"
    found = {part: schema[part] for part in MEANING if part in schema}
    if "name" in schema:
        namespace = schema.get("namespace", namespace)
        found["name"] = full_name({"namespace": namespace, **schema})
    if "fields" in schema:
        found["fields"] = [
            {
                **{part: field[part] for part in ("name", "default") if part in field},
                "type": _meaning(field["type"], namespace),
            }
            for field in schema["fields"]
        ]
    for part in ("items", "values"):
        if part in schema:
            found[part] = _meaning(schema[part], namespace)
    return found


def definitions(schema: Schema) -> Iterator[Schema]:
    """Every record defined in a schema, outermost first."""
    if isinstance(schema, list):
        for arm in schema:
            yield from definitions(arm)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            yield schema
            for field in schema["fields"]:
                yield from definitions(field["type"])
        for part in ("items", "values"):
            yield from definitions(schema.get(part))
