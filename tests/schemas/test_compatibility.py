"""The checker says what fastavro does: a pair that it lets pass can be read, one that it refuses fails."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import released
from schemas.compatibility import breaks, unread
from schemas.records import records, whole


def record(*fields: dict[str, Any], name: str = "Account") -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "streambank.test", "fields": list(fields)}


ID = {"name": "account_id", "type": "string"}
BALANCE = {"name": "balance_minor", "type": "long"}
NOTE = {"name": "note", "type": ["null", "string"], "default": None}


@pytest.mark.parametrize("name", sorted(records()))
def test_every_schema_is_compatible_with_all_that_were_released(name: str) -> None:
    versions = released.releases().get(name, ())
    assert breaks(whole(name), [json.loads(version.text()) for version in versions]) == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (record(ID), record(ID, NOTE), None),
        (record(ID, NOTE), record(ID), None),
        (record(ID, BALANCE), record(BALANCE, ID), None),  # order is free, names are not
        (record(ID), record(ID, BALANCE), "it can't read version 1: balance_minor is not written"),
        (record(ID, BALANCE), record(ID), "version 1 can't read it: balance_minor is not written"),
        (record(ID), record({**ID, "name": "id"}), "account_id is not written"),
        (record(BALANCE), record({**BALANCE, "type": "string"}), "as long and read as string"),
        (record(BALANCE), record({**BALANCE, "type": "double"}), "as double and read as long"),
        (record(BALANCE), record({**BALANCE, "type": ["null", "long"]}), "as null and read as"),
        (record(ID), record(ID, name="Customer"), "written as streambank.test.Account"),
        (
            record({"name": "steps", "type": {"type": "array", "items": record(ID, name="Step")}}),
            record(
                {
                    "name": "steps",
                    "type": {"type": "array", "items": record(ID, BALANCE, name="Step")},
                }
            ),
            r"steps\[\]\.balance_minor is not written",
        ),
        (
            record({"name": "limits", "type": {"type": "map", "values": "long"}}),
            record({"name": "limits", "type": {"type": "map", "values": "string"}}),
            r"limits\{\} is written as long",
        ),
    ],
)
def test_what_breaks(old: Any, new: Any, sentence: str | None) -> None:
    found = "; ".join(breaks(new, [old]))
    if sentence is None:
        assert found == ""
    else:
        assert __import__("re").search(sentence, found), found


def test_all_versions_count_not_the_last_alone() -> None:
    first, second = record(ID, BALANCE), record(ID, {**BALANCE, "default": 0})
    assert breaks(second, [first]) == []
    assert breaks(record(ID), [second]) == []
    assert breaks(record(ID), [first, second]) == [
        "version 1 can't read it: balance_minor is not written and has no default"
    ]


PRIMITIVES = st.sampled_from(["string", "long", "boolean", "int", "double"])
TYPES = st.recursive(
    PRIMITIVES,
    lambda inner: st.one_of(
        st.builds(lambda t: {"type": "array", "items": t}, inner),
        st.builds(lambda t: {"type": "map", "values": t}, inner),
        PRIMITIVES.map(lambda t: ["null", t]),
    ),
    max_leaves=3,
)
DEFAULTS = {"string": "", "long": 0, "boolean": False, "int": 0, "double": 0.0}
SAMPLES: dict[str, list[Any]] = {
    "string": ["", "alice"],
    "long": [0, -(1 << 60)],
    "boolean": [True, False],
    "int": [0, 7],
    "double": [0.5],
    "null": [None],
}


def default_of(kind: Any) -> Any:
    if isinstance(kind, list):
        return None
    if isinstance(kind, dict):
        return [] if kind["type"] == "array" else {}
    return DEFAULTS[kind]


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(TYPES)
    field = {"name": draw(st.sampled_from("abc")), "type": kind}
    return {**field, "default": default_of(kind)} if draw(st.booleans()) else field


SCHEMAS = st.lists(fields(), max_size=3, unique_by=lambda f: f["name"]).map(lambda f: record(*f))


def samples(kind: Any) -> list[Any]:
    """Values of a type that between them take every arm of its unions."""
    if isinstance(kind, list):
        return [value for arm in kind for value in samples(arm)]
    if isinstance(kind, str):
        return SAMPLES[kind]
    if kind["type"] == "array":
        return [samples(kind["items"])]
    if kind["type"] == "map":
        return [{str(n): value for n, value in enumerate(samples(kind["values"]))}]
    columns = {field["name"]: samples(field["type"]) for field in kind["fields"]}
    rows = max([len(column) for column in columns.values()], default=1)
    return [
        {name: column[n % len(column)] for name, column in columns.items()} for n in range(rows)
    ]


def readable(writer: Any, reader: Any) -> bool:
    """Whether fastavro reads every sample; its samples take every arm, so it must fail where we do."""
    written, read = fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    for value in samples(writer):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, written, value)
        out.seek(0)
        try:
            fastavro.schemaless_reader(out, written, read)
        except (fastavro.read.SchemaResolutionError, ValueError, TypeError, KeyError, EOFError):
            return False
    return True


@settings(
    max_examples=600,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(SCHEMAS, SCHEMAS)
def test_it_agrees_with_fastavro(writer: Any, reader: Any) -> None:
    assert (unread(writer, reader) == []) is readable(writer, reader)
