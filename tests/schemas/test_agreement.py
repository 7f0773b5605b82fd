"""A schema and its dataclass say the same, and a difference is one clear sentence."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from domain.saga import Order, Step
from domain.services import DECIDERS
from schemas.agreement import compare, disagreements, undescribed
from schemas.records import names, records

ORDER = records()[names()[Order]]


def test_all_schemas_agree() -> None:
    assert disagreements() == []


def test_everything_that_services_say_hear_and_keep_is_described() -> None:
    assert undescribed(DECIDERS.values()) == []


def changed(which: str, **field: Any) -> Any:
    schema = copy.deepcopy(ORDER)
    (found,) = (f for f in schema["fields"] if f["name"] == which)
    found.update(field)
    return schema


def without(name: str) -> Any:
    return {**ORDER, "fields": [f for f in ORDER["fields"] if f["name"] != name]}


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (without("rail"), "streambank.saga.Order lacks rail"),
        (changed("rail", name="way"), "streambank.saga.Order has way, which its dataclass lacks"),
        (
            changed("amount_minor", type="string"),
            "streambank.saga.Order.amount_minor is string, its dataclass wants long",
        ),
        (
            changed("source_account_id", type="string"),
            "streambank.saga.Order.source_account_id is string, "
            "its dataclass wants ['null', 'string']",
        ),
        (
            changed("source_account_id", default="x"),
            "streambank.saga.Order.source_account_id may be null and must have the default null",
        ),
    ],
)
def test_a_difference_is_named(schema: Any, sentence: str) -> None:
    assert sentence in list(compare(schema, Order))


def test_the_order_counts() -> None:
    (sentence,) = compare({**ORDER, "fields": ORDER["fields"][::-1]}, Order)
    assert "has its fields in the order ['terms', " in sentence


def test_defaults_count() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Step2:
        step: str
        service: str
        outcome: str
        at_ms: int = 7

    (sentence,) = compare(records()[names()[Step]], Step2)
    assert sentence == "streambank.saga.Step.at_ms must have the default 7, as its dataclass"


def test_every_record_and_every_unit_is_documented() -> None:
    wrong = [name for name, schema in records().items() if not schema.get("doc")]
    for name, schema in records().items():
        for field in schema["fields"]:
            where, doc = f"{name}.{field['name']}", field.get("doc", "")
            if not doc:
                wrong.append(where)
            if field["name"].endswith("_minor") and "minor units" not in doc:
                wrong.append(f"{where} does not say minor units")
            if field["name"].endswith("_ms") and "milliseconds" not in doc:
                wrong.append(f"{where} does not say milliseconds")
            if field["name"].endswith("_s") and "seconds" not in doc:
                wrong.append(f"{where} does not say seconds")
    assert wrong == []
