"""The payment provider of development: each row of its table, and one key acted on once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from deploy.local.notices import signature
from deploy.local.provider import ERRORS, application

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


async def test_what_was_decided_before_days_were_noted_is_known_too(tmp_path: Path) -> None:
    file = tmp_path / "decisions"
    async with TestClient(TestServer(application(file))) as client:
        first = await ask(client, "/payments", 5000)
    kept = json.loads(file.read_text())
    old = {name: kept[name] for name in kept if name not in ("booked_on", "magic")}
    file.write_text(json.dumps(old) + "\n")
    async with TestClient(TestServer(application(file))) as client:
        status, answered = await ask(client, "/payments", 5000)
        assert (status, answered) == (first[0], {**first[1], "booked_on": ""})


async def test_a_card_decides_what_happens_to_it(client: Client) -> None:
    asked = {"type": "card", "number": "4000000000000002"}
    async with client.post("/tokens", json=asked) as response:
        token = (await response.json())["token"]
    assert asked["number"] not in token
    body = {"payment_id": "p1", "amount": 100, "currency": "EUR", "method": token}
    headers = {"Idempotency-Key": "p1"}
    async with client.post("/payments", json=body, headers=headers) as response:
        assert (await response.json())["status"] == "declined"


async def test_one_key_is_one_token(client: Client) -> None:
    made = []
    for key in ("k1", "k1", "k2"):
        asked = {"type": "iban", "iban": "DE89370400440532013000"}
        async with client.post("/tokens", json=asked, headers={"Idempotency-Key": key}) as response:
            made.append((await response.json())["token"])
    assert made[0] == made[1] != made[2]
    async with client.post("/tokens", json={"type": "card"}) as response:
        assert response.status == 400


async def test_it_is_out_of_order_for_a_while(client: Client) -> None:
    await client.post("/settings", json={"errors": 2})
    statuses = [(await ask(client, "/payments", 100))[0] for _ in range(3)]
    assert statuses == [500, 500, 200]


async def test_its_statement_has_what_moved_money(client: Client) -> None:
    await ask(client, "/payments", 5000)
    await ask(client, "/payments", 1013, "declined")
    await ask(client, "/refunds", 2000, "r1")
    async with client.get("/statement", params={"currency": "EUR"}) as response:
        text = await response.text()
    assert text.count("<Ntry>") == 2
    assert "declined" not in text
    async with client.get("/statement", params={"currency": "USD"}) as response:
        assert (await response.text()).count("<Ntry>") == 0


@pytest.mark.parametrize(("amount", "told"), [(100, 1), (172, 3), (173, 2), (174, 3), (175, 2)])
async def test_its_notices_are_signed_and_come_as_the_table_says(amount: int, told: int) -> None:
    heard: list[tuple[str, bytes]] = []
    all_told = asyncio.Event()

    async def hook(request: web.Request) -> web.Response:
        heard.append((request.headers["Provider-Signature"], await request.read()))
        if len(heard) == told:
            all_told.set()
        return web.Response(status=200)

    receiver = web.Application()
    receiver.router.add_post("/", hook)
    async with TestServer(receiver) as server:
        app = application(None, str(server.make_url("/")), "secret")
        async with TestClient(TestServer(app)) as client:
            await ask(client, "/payments", amount)
            async with asyncio.timeout(10):
                await all_told.wait()
    at_s = int(heard[0][0].split(",")[0][2:])
    forged = amount == 174
    assert (heard[0][0] == signature("secret", heard[0][1], at_s)) is not forged
    assert heard[-1][0].startswith("t=")
