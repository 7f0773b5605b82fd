"""The AsyncAPI document: valid, whole, true of real records, and enough to write a consumer from."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import jsonschema_rs
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from agents.envelope import CARRIED, Envelope, Input
from domain.account import AccountFrozen
from domain.services import DECIDERS
from gateway.asyncapi import document
from schemas.records import names, schema_id, whole
from schemas.registry import Registry
from settings import Settings
from tests.gateway.test_end_to_end import funded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gateway.stand import Stand, Town

SCHEMA = jsonschema_rs.validator_for(
    (Path(__file__).parents[1] / "asyncapi" / "3.0.0.json").read_text()
)
SECURED = Settings(
    kafka_bootstrap="inside:9092",
    kafka_security_protocol="SASL_SSL",
    kafka_sasl_username="the bank itself",
    kafka_sasl_password="the bank's password",
    kafka_public=("kafka-1.bank.example:9094", "kafka-2.bank.example:9094"),
    public_url="https://bank.example",
    prefix="live-",
    replication=3,
)
DOCUMENT = document(SECURED)
EVENTS = [(decider.service, event) for decider in DECIDERS.values() for event in decider.events]


def found(described: Any, one: Any) -> Any:
    """What a reference stands for."""
    while "$ref" in one:
        at = described
        for part in one["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        one = at
    return one


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        SECURED,
        Settings(kafka_security_protocol="SSL", kafka_ssl_certificate=__file__),
        replace(
            SECURED,
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_mechanism="SCRAM-SHA-256",
        ),
        replace(SECURED, kafka_sasl_mechanism="PLAIN"),
    ],
    ids=["plain", "secured", "certificates", "scram-256", "password"],
)
def test_it_is_valid(settings: Settings) -> None:
    SCHEMA.validate(document(settings))


def test_what_is_not_valid_is_found() -> None:
    broken = {**DOCUMENT, "channels": {}, "servers": {"kafka": {"host": "somewhere"}}}
    with pytest.raises(jsonschema_rs.ValidationError):
        SCHEMA.validate(broken)


def test_every_reference_leads_somewhere() -> None:
    refs = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(DOCUMENT)))
    assert len(refs) > len(EVENTS)
    for ref in refs:
        assert found(DOCUMENT, {"$ref": ref})


def test_every_event_of_every_service_stands_in_it_and_nothing_else() -> None:
    said = {f"{service}.events/{event.__name__}" for service, event in EVENTS}
    described = {
        f"{channel}/{message}"
        for channel, one in DOCUMENT["channels"].items()
        for message in one["messages"]
    }
    assert described == said | {"schemas/Schema"}
    assert DOCUMENT["components"]["messages"].keys() == {names()[event] for _, event in EVENTS}
    received = {found(DOCUMENT, one["channel"])["address"] for one in operations(DOCUMENT)}
    assert received == {f"live-{name}" for name in DOCUMENT["channels"]}


def operations(described: Any) -> Iterator[Any]:
    for one in described["operations"].values():
        assert one["action"] == "receive"
        yield one


@pytest.mark.parametrize(
    ("service", "event"), EVENTS, ids=lambda one: getattr(one, "__name__", one)
)
def test_a_message_is_its_schema(service: str, event: type) -> None:
    channel = DOCUMENT["channels"][f"{service}.events"]
    message = found(DOCUMENT, channel["messages"][event.__name__])
    schema = message["payload"]["schema"]
    fastavro.parse_schema(schema)
    assert schema == whole(names()[event])
    assert message["x-schema-id"] == schema_id(schema)
    assert message["x-subject"] in Registry().subjects
    for field in schema["fields"]:
        assert field["doc"], field["name"]
    own = message["headers"]["allOf"][1]["properties"]
    assert own == {"ce_type": {"const": message["name"]}, "ce_source": {"const": f"/{service}"}}
    assert {"name": service} in message["tags"]
    assert message["bindings"]["kafka"]["key"]["description"]


def test_headers_are_those_that_events_have() -> None:
    given = dict.fromkeys(CARRIED, b"-")
    source = Input("account.inbox", 0, 7, 1_700_000_000_000, given)
    envelope = Envelope("account")
    said, _ = envelope.event(
        envelope.shared(source), source.place, 0, AccountFrozen, b"the account's id"
    )
    described = DOCUMENT["components"]["schemas"]["EventHeaders"]
    assert {name for name, _ in said} == described["properties"].keys()
    bare, _ = envelope.event(
        envelope.shared(Input("account.inbox", 0, 7, 1_700_000_000_000, {})),
        source.place,
        0,
        AccountFrozen,
        b"the account's id",
    )
    assert {name for name, _ in bare} == set(described["required"])


def test_where_brokers_are_it_says_by_the_public_setting_alone() -> None:
    servers = DOCUMENT["servers"]
    assert [one["host"] for one in servers.values()] == [*SECURED.kafka_public]
    assert {one["protocol"] for one in servers.values()} == {"kafka-secure"}
    (security,) = servers["kafka"]["security"]
    assert found(DOCUMENT, security)["type"] == "scramSha512"
    assert servers["kafka"]["bindings"]["kafka"]["schemaRegistryUrl"] == "https://bank.example"
    text = json.dumps(DOCUMENT)
    for secret in (
        "inside:9092",
        SECURED.kafka_sasl_username,
        SECURED.kafka_sasl_password,
        SECURED.jwt_secret,
        SECURED.internal_token,
    ):
        assert secret not in text
    assert "127.0.0.1" not in json.dumps(document(Settings()))


def test_topics_are_as_they_are_applied() -> None:
    binding = DOCUMENT["channels"]["account.events"]["bindings"]["kafka"]
    assert (binding["topic"], binding["partitions"], binding["replicas"]) == (
        "live-account.events",
        3,
        3,
    )
    config = binding["topicConfiguration"]
    assert (config["cleanup.policy"], config["retention.ms"]) == (["delete"], -1)
    schemas = DOCUMENT["channels"]["schemas"]["bindings"]["kafka"]
    assert (schemas["partitions"], schemas["topicConfiguration"]["cleanup.policy"]) == (
        1,
        ["compact"],
    )


def test_keys_are_told() -> None:
    messages = DOCUMENT["components"]["messages"]

    def key(name: str) -> Any:
        return messages[f"streambank.{name}"]["bindings"]["kafka"]["key"]

    assert (
        key("account.AccountDebited")["description"] == "`{order.source_account_id}` of the payload"
    )
    assert (
        "{order.source_account_id} or {order.destination_account_id}"
        in (key("account.CancelTooLate")["description"])
    )
    assert key("currency.RatesSet")["const"] == "rates"


# a subscriber, written from nothing but the document


@dataclass(frozen=True)
class Read:
    """A record as the document says it is."""

    message: str
    key: str
    headers: dict[str, str]
    payload: Any


def subscribe(described: Any, channel: str) -> Iterator[Read]:
    """All that a channel has now, each record held against its message."""
    server = next(iter(described["servers"].values()))
    (operation,) = (
        one for one in operations(described) if one["channel"]["$ref"] == f"#/channels/{channel}"
    )
    topic = described["channels"][channel]
    kinds = {
        message["name"]: Kind(described, name, message)
        for name, one in topic["messages"].items()
        for message in (found(described, one),)
    }
    partitions = range(topic["bindings"]["kafka"]["partitions"])
    consumer = Consumer(
        {
            "bootstrap.servers": server["host"],
            "group.id": "downstream",
            "enable.partition.eof": True,
            **operation["bindings"]["kafka"]["x-consumer"],
        }
    )
    consumer.assign(
        [TopicPartition(topic["address"], number, OFFSET_BEGINNING) for number in partitions]
    )
    ends: set[int] = set()
    deadline_s = time.monotonic() + 60
    while len(ends) < len(partitions):
        assert time.monotonic() < deadline_s
        record = consumer.poll(1.0)
        if record is None:
            continue
        if record.error():
            ends.add(record.partition())
            continue
        yield kinds[dict(record.headers())["ce_type"].decode()].read(record)
    consumer.close()


class Kind:
    """One message of the document: what reads its records."""

    def __init__(self, described: Any, name: str, message: Any) -> None:
        self.name, self.id = name, message["x-schema-id"]
        self.key = message["bindings"]["kafka"]["key"]
        assert message["bindings"]["kafka"]["schemaIdPayloadEncoding"] == "confluent"
        self.schema = fastavro.parse_schema(message["payload"]["schema"])
        parts = [found(described, part) for part in message["headers"]["allOf"]]
        self.headers = jsonschema_rs.validator_for({"allOf": parts})

    def read(self, record: Any) -> Read:
        headers = {name: value.decode() for name, value in record.headers()}
        self.headers.validate(headers)
        value = record.value()
        assert (value[0], int.from_bytes(value[1:5], "big")) == (0, self.id)
        body = io.BytesIO(value[5:])
        payload = fastavro.schemaless_reader(body, self.schema)
        assert not body.read()
        key = record.key().decode()
        assert headers["ce_subject"] == key
        if told := expected_keys(self.key, payload):
            assert key in told, self.name
        return Read(self.name, key, headers, payload)


def paths(told: Any) -> list[str]:
    return re.findall(r"\{([^}]+)\}", told["description"])


def expected_keys(told: Any, payload: Any) -> set[Any]:
    """What the description of the key says it is of this payload; empty: nothing exact."""
    if "const" in told:
        return {told["const"]}
    fixed = told["description"].partition("`")[2].partition("{")[0]
    return {f"{fixed}{at(payload, path)}" for path in paths(told)}


def at(payload: Any, path: str) -> Any:
    for part in path.replace("[0]", ".0").split("."):
        payload = payload[int(part)] if part.isdigit() else (payload or {}).get(part)
    return payload


async def test_a_consumer_can_be_written_from_it_alone(people: Town, bank: Stand) -> None:
    ada, source = await funded(people, "ada", 10_000)
    _, destination = await funded(people, "bob", 1)
    got = await ada.pay(amount=1_050, source_account_id=source, destination_account_id=destination)
    answered = await people.stranger.get("/api/asyncapi.json")
    assert (answered.status, answered.headers["Content-Type"]) == (200, "application/json")
    assert "max-age" in answered.headers["Cache-Control"]
    described = answered.json
    assert bank.bootstrap in {one["host"] for one in described["servers"].values()}
    records = await asyncio.to_thread(lambda: [*subscribe(described, "account.events")])
    (debited,) = (
        one
        for one in records
        if one.message == "AccountDebited"
        and one.payload["order"]["transaction_id"] == got.json["transaction_id"]
    )
    assert debited.key == source
    assert debited.payload["order"]["amount_minor"] == 1_050
    assert sum(one["amount_minor"] for one in debited.payload["postings"]) == 0
    others = [name for name in described["channels"] if name not in ("account.events", "schemas")]
    asked = (asyncio.to_thread(lambda name=one: [*subscribe(described, name)]) for one in others)
    assert sum(len(found) for found in await asyncio.gather(*asked)) > 10
