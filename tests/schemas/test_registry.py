"""Confluent's own client and deserialiser work against our answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.codec import Codec
from schemas.records import fingerprint, names, schema_id, whole
from schemas.registry import CONTENT_TYPE, Registry
from tests.schemas.test_codec import DEBITED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAME = names()[type(DEBITED)]
SUBJECT = f"account.events-{NAME}"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    registry = Registry()

    async def answer(request: web.Request) -> web.Response:
        status, body = registry.answer(request.path)
        return web.Response(
            status=status, body=json.dumps(body).encode(), content_type=CONTENT_TYPE
        )

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def test_confluents_deserialiser_reads_our_bytes(url: str) -> None:
    """It looks schemas up by the id in front of the body."""

    def read() -> Any:
        deserialise = AvroDeserializer(SchemaRegistryClient({"url": url}))
        context = SerializationContext("account.events", MessageField.VALUE)
        return deserialise(Codec().encode(DEBITED), context)

    found = await asyncio.to_thread(read)
    wanted = asdict(DEBITED)
    assert {**found, **{k: tuple(found[k]) for k in ("postings", "balances", "steps")}} == wanted


async def test_confluents_client_finds_subjects_and_versions(url: str) -> None:
    client = SchemaRegistryClient({"url": url})
    assert SUBJECT in await asyncio.to_thread(client.get_subjects)
    versions = await asyncio.to_thread(client.get_versions, SUBJECT)
    assert versions == list(range(1, len(versions) + 1))
    latest = await asyncio.to_thread(client.get_latest_version, SUBJECT)
    assert latest.schema_id == schema_id(whole(NAME))
    assert latest.version == versions[-1]
    # what it means: docs may be written better after a release, and the release keeps its own
    assert fingerprint(json.loads(latest.schema.schema_str)) == fingerprint(whole(NAME))
    one = await asyncio.to_thread(client.get_version, SUBJECT, 1)
    assert (one.subject, one.version) == (SUBJECT, 1)


async def test_confluents_client_gets_its_error_codes(url: str) -> None:
    client = SchemaRegistryClient({"url": url})
    for call, code in [
        (lambda: client.get_versions("nobody"), 40401),
        (lambda: client.get_version(SUBJECT, 99), 40402),
        (lambda: client.get_schema(7), 40403),
    ]:
        with pytest.raises(SchemaRegistryError) as caught:
            await asyncio.to_thread(call)
        assert (caught.value.http_status_code, caught.value.error_code) == (404, code)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/subjects/nobody/versions/latest", 404, 40401),
        (f"/subjects/{SUBJECT}/versions/0", 422, 42202),
        (f"/subjects/{SUBJECT}/versions/first", 422, 42202),
        (f"/subjects/{SUBJECT}/versions/99999999999", 422, 42202),
        ("/schemas/ids/x", 404, 40403),
        ("/schemas/ids/-1", 404, 40403),
        ("/schemas/ids/٣", 404, 40403),
        ("/nothing", 404, 404),
    ],
)
def test_errors(path: str, status: int, code: int) -> None:
    found, body = Registry().answer(path)
    assert (found, body["error_code"]) == (status, code)
    assert body["message"]


def test_what_else_is_answered() -> None:
    registry, id_ = Registry(), schema_id(whole(NAME))
    assert registry.answer("/schemas/types") == (200, ["AVRO"])
    status, schema = registry.answer(f"/schemas/ids/{id_}/schema")
    assert (status, fingerprint(schema)) == (200, fingerprint(whole(NAME)))
    _, subjects = registry.answer(f"/schemas/ids/{id_}/subjects")
    assert {SUBJECT, f"account.inbox-{NAME}", f"payment.inbox-{NAME}"} <= set(subjects)
    _, versions = registry.answer(f"/schemas/ids/{id_}/versions")
    assert {
        "subject": SUBJECT,
        "version": registry.answer(f"/subjects/{SUBJECT}/versions")[1][-1],
    } in versions


def test_secrets_have_no_subject() -> None:
    _, subjects = Registry().answer("/subjects")
    assert not [s for s in subjects if "CredentialsSet" in s or "AddressReserved" in s]
