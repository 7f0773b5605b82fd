"""Payments over HTTP on the real stack: cards, refunds, notices, statements, and the provider's bad days."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.gateway.stand import SECRET, until

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Stand, Town

VISA = "4242424242424242"
IBAN = "DE89370400440532013000"


def key() -> dict[str, str]:
    return {"Idempotency_Key": str(uuid.uuid4())}


async def card(person: Person, number: str = VISA) -> str:
    body = {"type": "card", "number": number, "exp_month": 12, "exp_year": 2035, "cvc": "123"}
    got = await person.post("/api/payment-methods", body)
    assert got.status == 201, got.text
    return str(got.json["payment_method_id"])


async def charge(
    person: Person, account_id: str, method_id: str, amount: int, wait: int | None = 20
) -> Got:
    body = {
        "amount": amount,
        "currency": "USD",
        "payment_method_id": method_id,
        "destination_account_id": account_id,
    }
    return await person.post("/api/payments", body, wait=wait, **key())


async def somebody(people: Town) -> tuple[Person, str, str]:
    """A customer, their account and their card."""
    alice = await people.customer("alice")
    return alice, await alice.open("USD"), await card(alice)


async def test_a_card_is_charged_and_refunded_in_parts(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    paid = await charge(alice, account_id, method_id, 2000)
    assert paid.status == 201, paid.text
    payment_id = paid.json["payment_id"]
    assert paid.headers["Location"] == f"/api/payments/{payment_id}"
    assert (paid.json["status"], paid.json["provider_status"]) == ("completed", "credited")
    assert await alice.balance(account_id) == 2000
    trace = await alice.get(f"/api/transactions/{payment_id}/trace")
    steps = [step["step"] for step in trace.json["steps"]]
    assert steps == ["validate", "risk", "payment", "credit", "complete"]
    path = f"/api/payments/{payment_id}/refunds"
    part = await alice.post(path, {"amount": 500}, **key())
    assert (part.status, part.json["amount"]) == (201, 500), part.text
    assert (await alice.get(part.headers["Location"])).json == part.json
    more = await alice.post(path, {"amount": 1501}, **key())
    assert (more.status, more.code) == (422, "REFUND_EXCEEDS_PAYMENT")
    rest = await alice.post(path, {}, **key())
    assert (rest.status, rest.json["amount"]) == (201, 1500), rest.text
    seen = (await alice.get(f"/api/payments/{payment_id}")).json
    assert (seen["captured"], seen["refunding"], seen["refunded"]) == (2000, 0, 2000)
    assert await alice.balance(account_id) == 0
    none = await alice.post(path, {}, **key())
    assert (none.status, none.code) == (422, "REFUND_EXCEEDS_PAYMENT")


async def test_asked_twice_is_charged_once(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    body = {
        "amount": 700,
        "currency": "USD",
        "payment_method_id": method_id,
        "destination_account_id": account_id,
    }
    first = await alice.post("/api/payments", body, Idempotency_Key="once")
    again = await alice.post("/api/payments", body, Idempotency_Key="once")
    assert (first.status, again.json) == (201, first.json)
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await alice.post("/api/payments", {**body, "amount": 1}, Idempotency_Key="once")
    assert (other.status, other.code) == (422, "IDEMPOTENCY_MISMATCH")
    without = await alice.post("/api/payments", body)
    assert (without.status, without.code) == (400, "IDEMPOTENCY_KEY_MISSING")
    assert await alice.balance(account_id) == 700


async def test_a_declined_card_leaves_all_as_it_was(people: Town) -> None:
    alice, account_id, _ = await somebody(people)
    declined = await charge(alice, account_id, await card(alice, "4000000000000002"), 2000)
    assert (declined.status, declined.code) == (422, "PAYMENT_DECLINED")
    assert declined.json["payment"]["provider_status"] == "failed"
    assert await alice.balance(account_id) == 0


@pytest.mark.parametrize(
    "amount",
    [
        pytest.param(121, id="2 s late"),
        pytest.param(141, id="the answer is lost"),
        pytest.param(151, id="down twice"),
        pytest.param(171, id="a notice alone says it"),
        pytest.param(172, id="the notice comes thrice"),
        pytest.param(173, id="notices out of order"),
        pytest.param(174, id="forged and unknown notices first"),
    ],
)
async def test_the_provider_has_a_bad_day_and_the_card_is_charged_once(
    people: Town, amount: int
) -> None:
    alice, account_id, method_id = await somebody(people)
    paid = await charge(alice, account_id, method_id, amount)
    assert paid.status == 201, paid.text
    assert await alice.balance(account_id) == amount


async def test_an_answer_later_than_anybody_waits_is_asked_for_again(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    paid = await charge(alice, account_id, method_id, 122, wait=30)
    assert paid.status == 201, paid.text
    assert await alice.balance(account_id) == 122


async def test_a_yes_after_a_no_gives_the_card_its_money_back(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    declined = await charge(alice, account_id, method_id, 175)
    assert (declined.status, declined.code) == (422, "PAYMENT_DECLINED")
    path = f"/api/payments/{declined.json['payment_id']}"

    async def given_back() -> bool:
        return bool((await alice.get(path)).json["provider_status"] == "refunded")

    await until(given_back, "the charge is refunded")
    assert await alice.balance(account_id) == 0


async def test_a_frozen_account_gets_nothing_and_the_card_its_money(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    admin = await people.admin()
    assert (await admin.post(f"/api/accounts/{account_id}/freeze")).status == 200
    refused = await charge(alice, account_id, method_id, 300)
    assert (refused.status, refused.code) == (422, "ACCOUNT_FROZEN")
    seen = await alice.get(f"/api/payments/{refused.json['payment_id']}")
    assert seen.json["provider_status"] == "refunded"


async def test_a_declined_refund_is_put_back(people: Town) -> None:
    alice, account_id, _ = await somebody(people)
    paid = await charge(alice, account_id, await card(alice, "4000000000000341"), 900)
    assert paid.status == 201, paid.text
    path = f"/api/payments/{paid.json['payment_id']}/refunds"
    refused = await alice.post(path, {"amount": 400}, **key())
    assert (refused.status, refused.code) == (422, "REFUND_DECLINED")
    assert await alice.balance(account_id) == 900


async def test_a_withdrawal_to_an_iban(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    await charge(alice, account_id, method_id, 900)
    kept = await alice.post("/api/payment-methods", {"type": "iban", "iban": IBAN})
    assert (kept.json["last4"], kept.json["country"]) == ("3000", "DE")
    out = {"type": "withdrawal", "amount": 300, "source_account_id": account_id}
    got = await alice.pay(**out, payment_method_id=kept.json["payment_method_id"])
    assert got.status == 201, got.text
    assert await alice.balance(account_id) == 600
    to_card = await alice.pay(**out, payment_method_id=method_id)
    assert (to_card.status, to_card.code) == (422, "PAYMENT_METHOD_UNSUITABLE")
    assert await alice.balance(account_id) == 600


async def test_methods_are_listed_and_removed(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    mallory, *_ = await somebody(people)
    listed = (await alice.get("/api/payment-methods")).json["items"]
    assert [one["payment_method_id"] for one in listed] == [method_id]
    assert (listed[0]["brand"], listed[0]["last4"]) == ("visa", "4242")
    path = f"/api/payment-methods/{method_id}"
    assert (await alice.get(path)).json == listed[0]
    for method in ("GET", "DELETE"):
        assert (await mallory.ask(method, path)).code == "NOT_FOUND"
    gone = await alice.ask("DELETE", path, Prefer="wait=20")
    assert (gone.status, gone.json["removed"]) == (200, True)
    assert (await alice.get(path)).status == 404
    assert (await alice.get("/api/payment-methods")).json["items"] == []
    late = await charge(alice, account_id, method_id, 100)
    assert (late.status, late.code) == (422, "PAYMENT_METHOD_NOT_FOUND")


async def test_the_same_number_has_the_same_fingerprint_and_is_nowhere_in_clear(
    people: Town, bank: Stand
) -> None:
    alice, *_ = await somebody(people)
    await card(alice)
    first, second = (await alice.get("/api/payment-methods")).json["items"]
    assert first["fingerprint"] == second["fingerprint"]
    for child in bank.children.values():
        assert VISA not in child.log.read_text(errors="replace"), child.name


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": "card"}, "/number"),
        (
            {"type": "card", "number": "4242424242424241", "exp_month": 1, "exp_year": 2035},
            "/number",
        ),
        ({"type": "card", "number": "4242", "exp_month": 1, "exp_year": 2035}, "/number"),
        ({"type": "card", "number": VISA, "exp_month": 13, "exp_year": 2035}, "/exp_month"),
        ({"type": "iban", "iban": "DE89370400440532013001"}, "/iban"),
        ({"type": "iban", "iban": IBAN, "number": VISA}, "/number"),
        ({"type": "cash"}, "/type"),
    ],
)
async def test_what_is_no_method(people: Town, body: dict[str, Any], pointer: str) -> None:
    admin = await people.admin()
    got = await admin.post("/api/payment-methods", body)
    assert got.status == 422, got.text
    assert pointer in [error["pointer"] for error in got.json["errors"]]
    assert VISA not in got.text


async def test_an_expired_card(people: Town) -> None:
    admin = await people.admin()
    body = {"type": "card", "number": VISA, "exp_month": 1, "exp_year": 2020}
    got = await admin.post("/api/payment-methods", body)
    assert (got.status, got.code) == (422, "PAYMENT_METHOD_EXPIRED")


async def test_what_is_not_yours(people: Town) -> None:
    alice, account_id, method_id = await somebody(people)
    mallory, own, other_method = await somebody(people)
    paid = await charge(alice, account_id, method_id, 500)
    path = f"/api/payments/{paid.json['payment_id']}"
    assert (await mallory.get(path)).code == "NOT_FOUND"
    assert (await mallory.post(f"{path}/refunds", {}, **key())).code == "NOT_FOUND"
    for account, method in ((account_id, other_method), (own, method_id)):
        got = await charge(mallory, account, method, 500)
        assert got.status == 422, got.text
    support = await people.staff("support")
    assert (await support.get(path)).status == 200
    assert (await support.post(f"{path}/refunds", {}, **key())).code == "NOT_FOUND"
    by_book = await alice.get(f"/api/payments/{uuid.uuid4()}")
    assert by_book.status == 404


# notices


def signed(body: bytes, at_s: int | None = None, secret: str = SECRET) -> dict[str, str]:
    at_s = int(time.time()) if at_s is None else at_s
    digest = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return {"Provider_Signature": f"t={at_s},v1={digest}"}


def notice(**data: Any) -> bytes:
    told = {
        "payment_id": str(uuid.uuid4()),
        "status": "approved",
        "amount": 100,
        "currency": "USD",
        **data,
    }
    return json.dumps({"id": "evt-1", "type": "payment.approved", "data": told}).encode()


HOOK = "/api/payments/webhooks/sandbox"


async def test_a_notice_of_an_unknown_payment_is_taken_and_changes_nothing(people: Town) -> None:
    body = notice()
    for _ in range(2):
        got = await people.stranger.ask("POST", HOOK, data=body, **signed(body))
        assert (got.status, got.json["taken"]) == (200, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Provider_Signature": "v1=00"}, 401),
        (signed(notice(payment_id="p"), secret="another"), 401),
        (signed(notice(payment_id="p"), at_s=int(time.time()) - 3600), 401),
        (signed(notice(payment_id="q")), 401),
    ],
)
async def test_a_notice_that_nobody_signed(
    people: Town, headers: dict[str, str], status: int
) -> None:
    got = await people.stranger.ask("POST", HOOK, data=notice(payment_id="p"), **headers)
    assert (got.status, got.code) == (status, "BAD_SIGNATURE")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"id": 1}',
        notice(amount=1.5),
        notice(status="maybe"),
        notice(payment_id=""),
    ],
)
async def test_garbage_that_is_signed(people: Town, body: bytes) -> None:
    got = await people.stranger.ask("POST", HOOK, data=body, **signed(body))
    assert (got.status, got.code) == (400, "BAD_REQUEST")


async def test_another_provider_has_no_door(people: Town) -> None:
    body = notice()
    path = "/api/payments/webhooks/nobody"
    assert (await people.stranger.ask("POST", path, data=body, **signed(body))).status == 404


# statements


async def provider_statement(bank: Stand, currency: str) -> bytes:
    url = bank.environment["STREAMBANK_RAIL_URL"]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/statement", params={"currency": currency}) as response,
    ):
        assert response.status == 200
        return await response.read()


async def upload(person: Person, data: bytes, kind: str = "application/xml") -> Got:
    headers = {"Content_Type": kind, "Prefer": "wait=20", **key()}
    return await person.ask("POST", "/api/payments/statements", data=data, **headers)


async def test_the_provider_s_statement_agrees_until_it_is_changed(
    people: Town, bank: Stand
) -> None:
    alice = await people.customer("alice")
    account_id, method_id = await alice.open("CHF"), await card(alice)
    body = {
        "currency": "CHF",
        "payment_method_id": method_id,
        "destination_account_id": account_id,
    }
    ids = []
    for amount in (1000, 2000, 3000):
        paid = await alice.post("/api/payments", {**body, "amount": amount}, **key())
        assert paid.status == 201, paid.text
        ids.append(paid.json["payment_id"])
    await alice.post(f"/api/payments/{ids[0]}/refunds", {"amount": 400}, **key())
    operator = await people.staff("operator")

    async def agrees() -> Any:
        got = await upload(operator, await provider_statement(bank, "CHF"))
        assert got.status == 201, got.text
        return got if not got.json["breaks"] else None

    agreed = await until(agrees, "the statement agrees")
    assert (agreed.json["lines"], agreed.json["matched"], agreed.json["total"]) == (4, 4, 5600)
    assert (await operator.get(agreed.headers["Location"])).json["status"] == "reconciled"
    text = (await provider_statement(bank, "CHF")).decode()
    changed = text.replace(">20.00<", ">20.01<", 1)
    entry = re.search(r"<Ntry><Amt Ccy=\"CHF\">30.00.*?</Ntry>", changed)
    assert entry is not None
    changed = changed.replace(entry[0], entry[0].replace(ids[2].replace("-", ""), "elsewhere"))
    broken = await upload(operator, changed.encode())
    assert broken.status == 201, broken.text
    kinds = sorted(one["kind"] for one in broken.json["breaks"])
    assert kinds == ["amount_differs", "missing_here", "missing_there"]
    assert broken.json["matched"] == 2
    page = await operator.get(f"{broken.headers['Location']}?limit=2")
    assert len(page.json["breaks"]) == 2
    more = f"{broken.headers['Location']}?limit=2&cursor={page.json['next_cursor']}"
    assert len((await operator.get(more)).json["breaks"]) == 1


async def test_a_broken_statement_says_what_is_wrong_where(people: Town) -> None:
    operator = await people.staff("operator")
    head = b"booked_on,end_to_end_id,reference,amount,currency\n"
    got = await upload(operator, head + b"2026-09-21,e1,r1,ten,EUR\n", "text/csv")
    assert (got.status, got.code) == (422, "STATEMENT_UNREADABLE")
    assert got.json["errors"][0]["pointer"] == "/2"
    got = await upload(operator, b"<Document>")
    assert (got.status, got.code) == (422, "STATEMENT_UNREADABLE")
    csv = await upload(operator, head + b"2020-01-02,e1,r1,1.50,EUR\n", "text/csv")
    assert (csv.status, csv.json["missing_here"]) == (201, 1), csv.text
    alice = await people.customer("alice")
    assert (await upload(alice, head)).code == "FORBIDDEN"
