"""The payment rail of development: each row of its table, and one key acted on once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from deploy.local.rail import ERRORS, application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(application())) as client:
        yield client


def asking(amount: int, key: str = "p1") -> dict[str, Any]:
    return {
        "json": {"payment_id": key, "amount": amount, "currency": "EUR"},
        "headers": {"Idempotency-Key": key},
    }


async def ask(client: Client, path: str, amount: int, key: str = "p1") -> tuple[int, Any]:
    async with client.post(path, **asking(amount, key)) as response:
        return response.status, await response.json()


async def test_an_ordinary_amount_is_approved_and_can_be_asked_for(client: Client) -> None:
    status, answer = await ask(client, "/payments", 5000)
    assert (status, answer["status"]) == (200, "approved")
    assert answer["reference"].startswith("rail-")
    assert await (await client.get("/payments/p1")).json() == answer
    assert (await client.get("/refunds/p1")).status == 404
    assert (await client.get("/health")).status == 200


async def test_13_is_declined_again_and_again(client: Client) -> None:
    first = await ask(client, "/payments", 1013)
    assert first[1]["status"] == "declined"
    assert await ask(client, "/payments", 1013) == first


@pytest.mark.parametrize("digits", ERRORS)
async def test_errors_end_and_then_it_is_approved(client: Client, digits: int) -> None:
    for _ in range(ERRORS[digits]):
        assert (await ask(client, "/payments", digits))[0] == 503
    assert (await ask(client, "/payments", digits))[1]["status"] == "approved"


async def test_31_is_pending_first(client: Client) -> None:
    status, answer = await ask(client, "/payments", 31)
    assert (status, answer["status"]) == (202, "pending")
    assert (await ask(client, "/payments", 31))[1]["status"] == "approved"


async def test_41_loses_its_first_answer_and_repeats_it(client: Client) -> None:
    with pytest.raises(aiohttp.ClientError):
        await client.post("/payments", **asking(41))
    status, answer = await ask(client, "/payments", 41)
    assert (status, answer["status"]) == (200, "approved")


async def test_22_is_answered_at_once_when_asked_again(client: Client) -> None:
    """The first answer takes longer than a caller waits; the payment is made all the same."""
    with pytest.raises(TimeoutError):
        await client.post("/payments", **asking(22), timeout=aiohttp.ClientTimeout(total=0.2))
    async with asyncio.timeout(2):
        assert (await ask(client, "/payments", 22))[1]["status"] == "approved"


async def test_91_pays_but_does_not_refund(client: Client) -> None:
    assert (await ask(client, "/payments", 91))[1]["status"] == "approved"
    assert (await ask(client, "/refunds", 91, "r1"))[1]["status"] == "declined"
    assert (await ask(client, "/refunds", 90, "r2"))[1]["status"] == "approved"


async def test_one_key_for_something_else_is_refused(client: Client) -> None:
    await ask(client, "/payments", 100)
    assert (await ask(client, "/payments", 200))[0] == 422


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b'{"payment_id": "p", "amount": 1}'),
        ({"Idempotency-Key": "p"}, b"{"),
        ({"Idempotency-Key": "p"}, b"[]"),
        ({"Idempotency-Key": "p"}, b'{"payment_id": "p", "amount": 1.5}'),
        ({"Idempotency-Key": "p"}, b'{"payment_id": "p", "amount": -1}'),
        ({"Idempotency-Key": "p"}, b'{"payment_id": "p", "amount": true}'),
    ],
)
async def test_what_it_cannot_read_is_400(
    client: Client, headers: dict[str, str], body: bytes
) -> None:
    async with client.post("/payments", data=body, headers=headers) as response:
        assert response.status == 400


async def test_a_restarted_rail_knows_what_it_did(tmp_path: Path) -> None:
    file = tmp_path / "decisions"
    async with TestClient(TestServer(application(file))) as client:
        first = await ask(client, "/payments", 5000)
    file.write_text(file.read_text() + '{"key": "half')
    async with TestClient(TestServer(application(file))) as client:
        assert await ask(client, "/payments", 5000) == first
        await ask(client, "/payments", 6000, "p2")
    async with TestClient(TestServer(application(file))) as client:
        assert (await client.get("/payments/p2")).status == 200
        assert (await client.get("/payments/half")).status == 404
