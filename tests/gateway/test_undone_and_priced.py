"""Reversals, refunds, fees, dry runs and bulks over HTTP, on a running bank."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.forked import command
from tests.gateway.stand import until
from tests.gateway.test_end_to_end import deposit, funded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateway.stand import Got, Person, Stand, Town

LIST = "/api/price-list"


def key() -> str:
    return str(uuid.uuid4())


async def undo(person: Person, transaction_id: str, body: Any = None, **more: Any) -> Got:
    more.setdefault("Idempotency_Key", key())
    return await person.post(f"/api/transactions/{transaction_id}/reverse", body, **more)


async def paid(people: Town, amount: int = 700, **more: Any) -> tuple[Person, Person, str, Got]:
    """Alice pays Bob; also the id of her account and of what she ordered."""
    alice, source = await funded(people, "alice", 5_000)
    bob = await people.customer("bob")
    shop = await bob.open("USD")
    got = await alice.pay(
        type="payment", amount=amount, source_account_id=source, destination_account_id=shop, **more
    )
    assert got.status == 201, got.text
    return alice, bob, source, got


async def test_an_operator_reverses_once(people: Town) -> None:
    alice, bob, source, got = await paid(people)
    operator = await people.staff("operator")
    transaction_id, shop = got.json["transaction_id"], got.json["destination_account_id"]
    refused = await undo(alice, transaction_id)
    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    once = key()
    back = await undo(operator, transaction_id, {"reference": "error"}, Idempotency_Key=once)
    assert back.status == 201, back.text
    assert back.json["type"] == "reversal"
    assert back.json["original_transaction_id"] == transaction_id
    assert (back.json["source_account_id"], back.json["destination_account_id"]) == (shop, source)
    assert [(b["before"], b["after"]) for b in back.json["balances"]] == [(700, 0), (4_300, 5_000)]
    assert back.headers["Location"] == f"/api/transactions/{back.json['transaction_id']}"
    again = await undo(operator, transaction_id, {"reference": "error"}, Idempotency_Key=once)
    assert (again.status, again.json) == (201, back.json)
    other = await undo(operator, transaction_id)
    assert (other.status, other.code) == (422, "ALREADY_REVERSED")
    assert (await alice.get(got.headers["Location"])).json == got.json, "never edited"
    assert await alice.balance(source) == 5_000
    mine = await alice.get(back.headers["Location"])
    assert [b["after"] for b in mine.json["balances"]] == [5_000]
    listed = await operator.get(f"/api/transactions?type=reversal&user_id={bob.user_id}")
    assert [one["transaction_id"] for one in listed.json["items"]] == [back.json["transaction_id"]]


async def test_the_receiver_refunds_a_payment(people: Town) -> None:
    alice, bob, source, got = await paid(people)
    transaction_id = got.json["transaction_id"]
    eve = await people.customer("eve")
    assert (await undo(eve, transaction_id)).status == 404
    back = await undo(bob, transaction_id)
    assert back.status == 201, back.text
    assert back.json["type"] == "refund"
    assert await alice.balance(source) == 5_000
    moved = await alice.pay(
        amount=5,
        source_account_id=source,
        destination_account_id=got.json["destination_account_id"],
    )
    refused = await undo(bob, moved.json["transaction_id"])
    assert (refused.status, refused.code) == (403, "FORBIDDEN"), "only payments"


async def test_what_cannot_be_reversed(people: Town) -> None:
    _, bob, _, got = await paid(people)
    admin = await people.admin()
    missing = await admin.post(f"{got.headers['Location']}/reverse", {})
    assert (missing.status, missing.code) == (400, "IDEMPOTENCY_KEY_MISSING")
    wrong = await undo(admin, got.json["transaction_id"], {"amount": 5})
    assert (wrong.status, wrong.json["errors"][0]["pointer"]) == (422, "/amount")
    other = await bob.open("USD")
    spent = await bob.pay(
        amount=700, source_account_id=got.json["destination_account_id"],
        destination_account_id=other,
    )  # fmt: skip
    assert spent.status == 201, spent.text
    poor = await undo(admin, got.json["transaction_id"])
    assert (poor.status, poor.code) == (422, "INSUFFICIENT_FUNDS")
    failed = await undo(admin, poor.json["transaction_id"])
    assert (failed.status, failed.code) == (422, "NOT_COMPLETED")
    reversed_ = await undo(admin, spent.json["transaction_id"])
    assert reversed_.status == 201, reversed_.text
    back = await undo(admin, got.json["transaction_id"])
    assert back.status == 201, "what came to nothing may be asked for again"
    twice = await undo(admin, back.json["transaction_id"])
    assert (twice.status, twice.code) == (422, "NOT_REVERSIBLE")


async def test_deposits_and_withdrawals_are_reversed_too(people: Town) -> None:
    alice, source = await funded(people, "alice", 5_000)
    admin = await people.admin()
    out = await alice.pay(type="withdrawal", amount=40, source_account_id=source)
    back = await undo(admin, out.json["transaction_id"])
    assert back.status == 201, back.text
    assert await alice.balance(source) == 5_000
    put = await admin.pay(type="deposit", amount=60, destination_account_id=source)
    back = await undo(admin, put.json["transaction_id"])
    assert back.status == 201, back.text
    assert [(b["before"], b["after"]) for b in back.json["balances"]] == [(5_060, 5_000)]


@pytest.fixture
async def priced(people: Town) -> AsyncIterator[Person]:
    """A payment costs 25 cents and 1 %; afterwards nothing costs anything again."""
    operator = await people.staff("operator")
    price = {"type": "payment", "currency": "USD", "flat": 25, "rate_ppm": 10_000}
    got = await operator.ask("PUT", LIST, {"prices": [price]}, Prefer="wait=20")
    assert got.status == 200, got.text
    yield operator
    got = await operator.ask("PUT", LIST, {"prices": []}, Prefer="wait=20")
    assert got.status == 200, got.text


async def test_what_a_payment_costs(people: Town, priced: Person) -> None:
    alice, bob, source, got = await paid(people)
    assert got.json["fee"] == 32
    assert got.json["balances"] == [
        {"account_id": source, "currency": "USD", "before": 5_000, "after": 4_268}
    ]
    assert await alice.balance(source) == 4_268
    received = await bob.get(got.headers["Location"])
    assert [(b["before"], b["after"]) for b in received.json["balances"]] == [(0, 700)]
    back = await undo(priced, got.json["transaction_id"])
    assert back.json["fee"] == -32
    assert await alice.balance(source) == 5_000
    kept = await alice.pay(
        type="payment", amount=700, source_account_id=source,
        destination_account_id=got.json["destination_account_id"],
    )  # fmt: skip
    refund = await undo(bob, kept.json["transaction_id"])
    assert (refund.status, refund.json["fee"]) == (201, 0)
    assert await alice.balance(source) == 4_968


async def test_the_price_list(people: Town, priced: Person) -> None:
    got = await priced.get(LIST)
    assert got.json["prices"] == [
        {"type": "payment", "currency": "USD", "flat": 25, "rate_ppm": 10_000,
         "minimum": 0, "maximum": None}
    ]  # fmt: skip
    assert got.json["updated_by"] == priced.user_id
    again = await priced.ask("PUT", LIST, {"prices": [_without_bounds(got)]}, Prefer="wait=20")
    assert again.json["version"] == got.json["version"], "the same list is no new version"
    customer = await people.customer("carl")
    assert (await customer.get(LIST)).status == 403
    assert (await customer.ask("PUT", LIST, {"prices": []})).status == 403
    support = await people.staff("support")
    assert (await support.get(LIST)).status == 200
    assert (await support.ask("PUT", LIST, {"prices": []})).status == 403


def _without_bounds(got: Got) -> dict[str, Any]:
    return {name: got.json["prices"][0][name] for name in ("type", "currency", "flat", "rate_ppm")}


PRICE = {"type": "transfer", "currency": "USD", "flat": 1}


@pytest.mark.parametrize(
    ("prices", "pointer"),
    [
        ([PRICE | {"type": "deposit"}], "/prices/0/type"),
        ([PRICE | {"currency": "usd"}], "/prices/0/currency"),
        ([PRICE | {"flat": 1.5}], "/prices/0/flat"),
        ([PRICE | {"rate_ppm": 1_000_001}], "/prices/0/rate_ppm"),
        ([PRICE | {"minimum": 5, "maximum": 4}], "/prices/0/maximum"),
        ([PRICE, PRICE], "/prices/1"),
        ("none", "/prices"),
    ],
)
async def test_a_price_list_that_makes_no_sense(people: Town, prices: Any, pointer: str) -> None:
    admin = await people.admin()
    got = await admin.ask("PUT", LIST, {"prices": prices})
    assert (got.status, got.code) == (422, "INVALID_BODY")
    assert got.json["errors"][0]["pointer"] == pointer


async def test_a_dry_run_tells_and_does_nothing(people: Town, priced: Person) -> None:
    alice, source = await funded(people, "alice", 90_000)
    bob = await people.customer("bob")
    shop = await bob.open("USD")
    order = {"type": "payment", "source_account_id": source, "destination_account_id": shop}
    got = await alice.pay(amount=700, dry_run=True, key="k", **order)
    assert got.status == 200, got.text
    assert got.json == {
        "dry_run": True,
        "type": "payment",
        "status": "completed",
        "reason": None,
        "amount": 700,
        "currency": "USD",
        "fee": 32,
        "source_account_id": source,
        "destination_account_id": shop,
        "original_transaction_id": None,
        "balances": [{"account_id": source, "currency": "USD", "before": 90_000, "after": 89_268}],
    }
    poor = await alice.pay(
        amount=5, dry_run=True, source_account_id=shop, destination_account_id=source
    )
    assert (poor.status, poor.code) == (422, "ACCOUNT_NOT_FOUND")
    for amount, status, reason in (
        (85_000, "pending", None),
        (99_900, "failed", "DAILY_LIMIT"),
        (79_000, "completed", None),
    ):
        got = await alice.pay(amount=amount, dry_run=True, **order)
        assert (got.json["status"], got.json["reason"]) == (status, reason), got.text
    admin = await people.admin()
    got = await admin.pay(amount=95_000, dry_run=True, **order)
    assert (got.json["status"], got.json["reason"]) == ("failed", "INSUFFICIENT_FUNDS")
    out = await alice.pay(type="withdrawal", amount=5, dry_run=True, source_account_id=source)
    assert (out.status, out.json["status"]) == (200, "completed")
    listed = await alice.get("/api/transactions")
    assert [one["type"] for one in listed.json["items"]] == ["deposit"]
    assert await alice.balance(source) == 90_000
    real = await alice.pay(amount=700, key="k", **order)
    assert real.status == 201, "a dry run leaves its key free"
    undone = await undo(priced, real.json["transaction_id"], {"dry_run": True})
    assert (undone.status, undone.json["status"], undone.json["fee"]) == (200, "completed", -32)
    assert await bob.balance(shop) == 700


async def test_a_bulk_is_many_orders(people: Town) -> None:
    alice, source = await funded(people, "alice", 5_000)
    other = await alice.open("USD")
    order = {
        "type": "transfer", "amount": 10, "currency": "USD",
        "source_account_id": source, "destination_account_id": other,
    }  # fmt: skip
    stranger, _ = await funded(people, "mallory", 1)
    keys = [key() for _ in range(5)]
    single = await alice.pay(key=keys[4], **{name: order[name] for name in order if name != "type"})
    items: list[Any] = [
        order | {"idempotency_key": keys[0]},
        order | {"idempotency_key": keys[1], "amount": 1.5},
        order | {"idempotency_key": keys[0]},
        order | {"idempotency_key": keys[0], "amount": 11},
        order,
        order | {"idempotency_key": keys[2], "source_account_id": key()},
        7,
        order | {"idempotency_key": keys[3], "amount": 4_000},
        order | {"idempotency_key": keys[4]},
        order | {"idempotency_key": key(), "amount": 6_000},
    ]
    got = await alice.post("/api/transactions/bulk", items)
    assert got.status == 200, got.text
    results = got.json["items"]
    assert [one["index"] for one in results] == [*range(10)]
    assert [(one["status"], one["code"]) for one in results] == [
        ("completed", None),
        ("refused", "INVALID_BODY"),
        ("completed", None),
        ("refused", "IDEMPOTENCY_MISMATCH"),
        ("refused", "IDEMPOTENCY_KEY_MISSING"),
        ("refused", "ACCOUNT_NOT_FOUND"),
        ("refused", "INVALID_BODY"),
        ("completed", None),
        ("completed", None),
        ("failed", "INSUFFICIENT_FUNDS"),
    ]
    assert results[0]["transaction_id"] == results[2]["transaction_id"]
    assert results[8]["transaction_id"] == single.json["transaction_id"], "the scope of one alone"
    assert results[1]["errors"][0]["pointer"] == "/amount"
    assert await alice.balance(source) == 5_000 - 10 - 10 - 4_000
    seen = await alice.get(f"/api/transactions/{results[7]['transaction_id']}")
    assert seen.json["status"] == "completed"
    theirs = await stranger.post("/api/transactions/bulk", items[:1])
    assert [one["code"] for one in theirs.json["items"]] == ["ACCOUNT_NOT_FOUND"]


async def test_a_thousand_lines_that_nobody_waits_for(people: Town) -> None:
    alice, source = await funded(people, "alice", 100_000)
    admin, other = await people.admin(), await alice.open("USD")
    await deposit(people, source, 900_000)
    lines = [
        orjson.dumps(
            {
                "idempotency_key": key(), "type": "transfer", "amount": 3, "currency": "USD",
                "source_account_id": source, "destination_account_id": other,
            }
        )
        for _ in range(998)
    ]  # fmt: skip
    data = b"\n".join([*lines[:500], b'{"broken', b"", *lines[500:], b"[]"])
    got = await admin.ask(
        "POST", "/api/transactions/bulk", data=data, Content_Type="application/x-ndjson"
    )
    assert got.status == 202, got.text
    results = got.json["items"]
    assert len(results) == 1_000
    assert [one["code"] for one in results if one["status"] != "pending"] == [
        "MALFORMED_JSON",
        "INVALID_BODY",
    ]
    assert results[500]["code"] == "MALFORMED_JSON"

    async def done() -> bool:
        return await alice.balance(other) == 3 * 998

    await until(done, "all are booked")
    again = await admin.ask(
        "POST", "/api/transactions/bulk", data=data, Content_Type="application/x-ndjson"
    )
    ids = [one["transaction_id"] for one in results]
    assert [one["transaction_id"] for one in again.json["items"]] == ids
    assert await alice.balance(other) == 3 * 998


@pytest.mark.parametrize(
    ("data", "kind", "status", "code"),
    [
        (b"[]", "application/json", 422, "INVALID_BODY"),
        (b"{}", "application/json", 422, "INVALID_BODY"),
        (b"[", "application/json", 400, "MALFORMED_JSON"),
        (b"\n\n", "application/x-ndjson", 422, "INVALID_BODY"),
        (b"[" + b"0," * 1000 + b"0]", "application/json", 422, "INVALID_BODY"),
        (b"[]", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"[" + b" " * (8 << 20) + b"]", "application/json", 413, "BODY_TOO_LARGE"),
    ],
    ids=["none", "no list", "no JSON", "no lines", "too many", "no type", "too large"],
)
async def test_a_bulk_that_is_none(
    people: Town, data: bytes, kind: str, status: int, code: str
) -> None:
    admin = await people.admin()
    got = await admin.ask("POST", "/api/transactions/bulk", data=data, Content_Type=kind)
    assert (got.status, got.code) == (status, code)


async def test_more_than_a_mebibyte_is_for_bulks_alone(people: Town) -> None:
    admin = await people.admin()
    large = [{"idempotency_key": key(), "type": "transfer", "description": "x" * 2_000_000}]
    got = await admin.post("/api/transactions/bulk", large)
    assert got.json["items"][0]["status"] == "refused"
    got = await admin.post("/api/transactions", large[0], Idempotency_Key=key())
    assert (got.status, got.code) == (413, "BODY_TOO_LARGE")


async def test_the_books_prove_it_all(bank: Stand) -> None:
    done = await asyncio.to_thread(command, "verify", "--decide", environment=bank.environment)
    assert done.returncode == 0, done.stdout + done.stderr
