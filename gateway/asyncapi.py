"""The AsyncAPI 3.0 document for who subscribes: every public event, made from the tables of topics,
deciders and schemas.

    topics/catalog --> channels    domain/services --> which events, under which key    schemas --> payloads

It is written from the subscriber's side, so that its operations receive. Where brokers are it says only
by the setting that is meant for the outside.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from domain.services import DECIDERS
from gateway.record_keys import key_of
from schemas.records import names, schema_id, whole
from topics.catalog import SCHEMAS, TOPICS, Installation, Kind
from topics.subscriptions import SUBSCRIPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from domain.decider import Decider
    from settings import Settings
    from topics.catalog import Topic

VERSION = "1"
AVRO = "application/vnd.apache.avro;version=1.9.0"
KAFKA = "0.5.0"  # version of AsyncAPI's Kafka bindings
HEADERS = "EventHeaders"
READ_COMMITTED = {"isolation.level": "read_committed"}
ABOUT = """What each service of the bank says, one topic a service, kept for ever.

**Reading.** Consume with `isolation.level=read_committed`: what a service decides commits in one Kafka
transaction, and readers of anything else see what never happened. Order holds per key. Each event is in the
log once; a consumer that may read again tells it by `ce_id`.

**Values.** Five bytes, then Avro: a zero and the schema's id, four bytes big-endian (Confluent's wire format).
`GET /schemas/ids/{id}` of the gateway that serves this document answers the schema that wrote a record, as a
Confluent schema registry does; subjects are named by topic and record. The payloads here are the newest
schemas: a record that bears another id is read with its own schema, resolved to the one here.

**Change.** Fields are added, with defaults, never removed, renamed or given another type; a new kind of event
may come at any time: skip a `ce_type` that you don't know.

**Units.** `…_minor` are integers in minor units of the currency beside them, `…_ms` Unix milliseconds; each
field's `doc` says what it is. Events that move money carry their postings, which sum to zero by currency. A
transaction ends with exactly one of TransactionCompleted, TransactionFailed, TransactionCancelled."""

# name, what it is, whether each event has it
EVENT_HEADERS: tuple[tuple[str, str, bool], ...] = (
    ("ce_specversion", "CloudEvents, binary content mode: always 1.0", True),
    ("ce_id", "`<input topic>-<partition>-<offset>-<n>`: unique; a replay says the same", True),
    ("ce_source", "`/<service>`: who said it", True),
    ("ce_type", "`streambank.<service>.<EventName>`, without a version", True),
    ("ce_time", "RFC 3339, UTC: the broker's time of the message that led to it", True),
    ("ce_subject", "the aggregate's id, as the record's key", True),
    ("content-type", "application/avro", True),
    (
        "traceparent",
        "W3C trace context of the request that led to it; of its own where none did",
        True,
    ),
    ("causation_id", "id of the command or event that it was decided from", True),
    (
        "correlation_id",
        "id of the command that led to it: the order, a person's decision, or a tick",
        True,
    ),
    ("actor", "user_id of who ordered it", False),
    ("origin", "address and request id of the client that ordered it", False),
    ("code", "names the code that decided it", True),
)


def document(settings: Settings) -> dict[str, Any]:
    installation = Installation.of(settings)
    servers, schemes = _servers(settings)
    events = [topic for topic in TOPICS if topic.kind is Kind.EVENTS]
    (schemas,) = (topic for topic in TOPICS if topic.name == SCHEMAS)
    refs = [{"$ref": f"#/servers/{name}"} for name in servers]
    channels = {topic.name: _channel(topic, installation, refs) for topic in events}
    channels[SCHEMAS] = _channel_of_schemas(schemas, installation, refs)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Streambank events",
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": service, "description": _about(service)} for service in DECIDERS],
        },
        "defaultContentType": "application/avro",
        "servers": servers,
        "channels": channels,
        "operations": {_operation_name(name): _operation(name, settings) for name in channels},
        "components": {
            "messages": dict(_messages()),
            "schemas": {HEADERS: _headers()},
            "securitySchemes": schemes,
        },
    }


def _servers(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """One for each broker that outsiders may know, and how they log in."""
    protocol = settings.kafka_security_protocol
    schemes: dict[str, Any] = {}
    if protocol.startswith("SASL"):
        kind = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}
        schemes["sasl"] = {
            "type": kind[settings.kafka_sasl_mechanism],
            "description": "a name and a password of the subscriber's own, with the right to read",
        }
    elif settings.kafka_ssl_certificate:
        about = "a certificate of the subscriber's own, with the right to read"
        schemes["certificate"] = {"type": "X509", "description": about}
    server: dict[str, Any] = {
        "protocol": "kafka-secure" if protocol.endswith("SSL") else "kafka",
        "description": f"`security.protocol={protocol}`",
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in schemes],
    }
    if settings.public_url:
        registry = {"schemaRegistryUrl": settings.public_url, "schemaRegistryVendor": "confluent"}
        server["bindings"] = {"kafka": {**registry, "bindingVersion": KAFKA}}
    if not settings.kafka_public:
        told = {"description": "`host:port` of a broker: whoever runs this installation tells it"}
        return {"kafka": {"host": "{broker}", "variables": {"broker": told}, **server}}, schemes
    servers = {
        "kafka" if number == 1 else f"kafka-{number}": {"host": host, **server}
        for number, host in enumerate(settings.kafka_public, 1)
    }
    return servers, schemes


def _channel(topic: Topic, installation: Installation, servers: list[Any]) -> dict[str, Any]:
    service = topic.name.partition(".")[0]
    events = DECIDERS[service].events
    return {
        "address": f"{installation.namespace}{topic.name}",
        "title": f"What {service} says",
        "description": f"{_about(service)} The key is the aggregate's id, see each message.",
        "servers": servers,
        "messages": {one.__name__: _ref("components", "messages", names()[one]) for one in events},
        "tags": [{"name": service}],
        "bindings": {"kafka": _topic_binding(topic, installation)},
    }


def _channel_of_schemas(
    topic: Topic, installation: Installation, servers: list[Any]
) -> dict[str, Any]:
    key = {"type": "string", "pattern": "^[0-9]+$", "description": topic.key}
    about = (
        "An Avro schema, its text: what `GET /schemas/ids/{id}` answers, for who has Kafka alone."
    )
    message = {
        "name": "Schema",
        "title": "Schema",
        "summary": about,
        "contentType": "application/json",
        "payload": {"type": "object", "required": ["type", "name", "fields"]},
        "bindings": {"kafka": {"key": key, "bindingVersion": KAFKA}},
    }
    return {
        "address": f"{installation.namespace}{topic.name}",
        "title": "Schemas by id",
        "description": about,
        "servers": servers,
        "messages": {"Schema": message},
        "bindings": {"kafka": _topic_binding(topic, installation)},
    }


def _topic_binding(topic: Topic, installation: Installation) -> dict[str, Any]:
    config: dict[str, Any] = topic.config(installation)
    numbers = ("retention.ms", "delete.retention.ms", "max.message.bytes", "min.insync.replicas")
    config |= {name: int(config[name]) for name in numbers if name in config}
    config["cleanup.policy"] = [config["cleanup.policy"]]
    return {
        "topic": f"{installation.namespace}{topic.name}",
        "partitions": topic.partitions_in(installation),
        "replicas": installation.replication,
        "topicConfiguration": config,
        "bindingVersion": KAFKA,
    }


def _operation_name(channel: str) -> str:
    return "receive" + "".join(part.capitalize() for part in channel.split("."))


def _operation(channel: str, settings: Settings) -> dict[str, Any]:
    about = "one of your own; those that begin with a service's name are the bank's"
    if settings.prefix:
        about = f"one of your own; those that begin with `{settings.prefix}` are the bank's"
    group = {"type": "string", "description": about}
    return {
        "action": "receive",
        "channel": _ref("channels", channel),
        "summary": f"Read {channel}, from the beginning if need be",
        "bindings": {
            "kafka": {"groupId": group, "bindingVersion": KAFKA, "x-consumer": READ_COMMITTED}
        },
    }


def _messages() -> Iterator[tuple[str, dict[str, Any]]]:
    heard: dict[type, set[str]] = {}
    for row in SUBSCRIPTIONS:
        heard.setdefault(row.event, set()).add(row.service)
    for decider in DECIDERS.values():
        for event in decider.events:
            yield names()[event], _message(decider, event, sorted(heard.get(event, ())))


def _message(decider: Decider, event: type, heard_by: list[str]) -> dict[str, Any]:
    name, schema = names()[event], whole(names()[event])
    moves = any(field["name"] == "postings" for field in schema["fields"])
    tags = [{"name": decider.service}, *([{"name": "moves money"}] if moves else [])]
    return {
        "name": name,
        "title": event.__name__,
        "summary": schema["doc"],
        "tags": tags,
        "headers": {
            "allOf": [
                _ref("components", "schemas", HEADERS),
                {
                    "type": "object",
                    "properties": {
                        "ce_type": {"const": name},
                        "ce_source": {"const": f"/{decider.service}"},
                    },
                },
            ]
        },
        "correlationId": {"location": "$message.header#/correlation_id"},
        "contentType": "application/avro",
        "payload": {"schemaFormat": AVRO, "schema": schema},
        "bindings": {
            "kafka": {
                "key": _key(decider, event),
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "schemaLookupStrategy": "TopicRecordNameStrategy",
                "bindingVersion": KAFKA,
            }
        },
        "x-schema-id": schema_id(schema),
        "x-subject": f"{decider.service}.events-{name}",
        "x-heard-by": heard_by,
    }


def _key(decider: Decider, event: type) -> Mapping[str, str]:
    """The key's schema: UTF-8, and what of the payload it is."""
    made_of = key_of(decider, event)
    if not made_of:
        return {"type": "string", "description": "the aggregate's id, as in `ce_subject`"}
    if "{" not in made_of:
        return {"type": "string", "const": made_of, "description": "one aggregate for all"}
    return {"type": "string", "description": f"`{made_of}` of the payload"}


def _headers() -> dict[str, Any]:
    about = "CloudEvents 1.0, Kafka binding, binary content mode; each value is UTF-8."
    return {
        "type": "object",
        "description": about,
        "properties": {
            name: {"type": "string", "description": text} for name, text, _ in EVENT_HEADERS
        },
        "required": [name for name, _, always in EVENT_HEADERS if always],
    }


def _about(service: str) -> str:
    """The first sentence of the module that decides."""
    text = sys.modules[f"domain.{service}"].__doc__ or ""
    first = text.partition("\n")[0].partition(": ")[2]
    return first[:1].upper() + first[1:]


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}
