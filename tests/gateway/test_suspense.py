"""Suspense over HTTP on the real stack: listed, paid to another account, written off; each refusal."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from tests.forked import command
from tests.gateway.stand import until
from tests.gateway.test_payments import card, charge, key

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Stand, Town

KEEPS_IT = "4000000000000341"  # what this card was charged is not given back


async def stranded(people: Town, amount: int) -> tuple[Person, str, str]:
    """Alice, her closed account, and the id of what it did not take."""
    alice, admin = await people.customer("alice"), await people.admin()
    closed = await alice.open("USD")
    assert (await alice.post(f"/api/accounts/{closed}/close")).status == 200
    failed = await charge(alice, closed, await card(alice, KEEPS_IT), amount)
    assert (failed.status, failed.code) == (422, "ACCOUNT_CLOSED"), failed.text
    suspense_id = f"{closed}.{failed.json['payment_id']}"

    async def listed() -> bool:
        return (await admin.get(f"/api/suspense/{suspense_id}")).status == 200

    await until(listed, "it is in suspense")
    return alice, closed, suspense_id


async def word(person: Person, suspense_id: str, amount: int = 2000, **more: object) -> Got:
    body = {"action": "pay", "amount": amount, "currency": "USD", **more}
    return await person.post(f"/api/suspense/{suspense_id}/resolve", body, **key())


async def all_of(person: Person, query: str) -> list[str]:
    """The ids of the whole list, a page of two at a time."""
    found: list[str] = []
    cursor = ""
    while True:
        got = await person.get(f"/api/suspense?limit=2{query}{cursor}")
        assert got.status == 200, got.text
        found += [one["suspense_id"] for one in got.json["items"]]
        if got.json["next_cursor"] is None:
            return found
        cursor = f"&cursor={got.json['next_cursor']}"


async def test_what_a_closed_account_did_not_take_is_paid_to_another(
    people: Town, bank: Stand
) -> None:
    alice, closed, suspense_id = await stranded(people, 2000)
    operator = await people.staff("operator")
    item = (await operator.get(f"/api/suspense/{suspense_id}")).json
    assert (item["kind"], item["status"], item["reason"]) == ("credit", "open", "ACCOUNT_CLOSED")
    assert (item["amount"], item["currency"], item["account_id"]) == (2000, "USD", closed)
    assert item["user_id"] == alice.user_id
    assert suspense_id in await all_of(operator, "")
    assert suspense_id in await all_of(operator, "&status=open&kind=credit&currency=USD")
    assert suspense_id not in await all_of(operator, "&kind=loss")
    assert suspense_id not in await all_of(operator, "&currency=JPY")

    other, frozen, yen = [await alice.open(code) for code in ("USD", "USD", "JPY")]
    await operator.post(f"/api/accounts/{frozen}/freeze")
    for to, reason in (
        (closed, "ACCOUNT_CLOSED"),
        (frozen, "ACCOUNT_FROZEN"),
        (yen, "CURRENCY_NOT_HELD"),
        (str(uuid.uuid4()), "ACCOUNT_NOT_FOUND"),
    ):
        got = await word(operator, suspense_id, account_id=to)
        assert (got.status, got.code) == (422, reason), got.text
    got = await word(operator, suspense_id, 1999, account_id=other)
    assert (got.status, got.code) == (422, "SUSPENSE_MISMATCH")
    got = await word(operator, suspense_id, action="recover")
    assert (got.status, got.code) == (422, "SUSPENSE_MISMATCH")
    seen = (await operator.get(f"/api/suspense/{suspense_id}")).json
    assert (seen["status"], seen["refusal"]) == ("open", "ACCOUNT_NOT_FOUND")

    path, once = f"/api/suspense/{suspense_id}/resolve", {"Idempotency_Key": "once"}
    body = {"action": "pay", "amount": 2000, "currency": "USD", "account_id": other, "note": "hers"}
    paid, again = await asyncio.gather(
        operator.post(path, body, **once), word(operator, suspense_id, account_id=other)
    )
    assert sorted((paid.status, again.status)) == [200, 422], (paid.text, again.text)
    assert await alice.balance(other) == 2000
    end = (await operator.get(f"/api/suspense/{suspense_id}")).json
    assert (end["status"], end["to_account_id"], end["action"]) == ("paid", other, "pay")
    assert end["resolved_by"] == operator.user_id
    repeated = await operator.post(path, body, **once)
    assert (repeated.status, repeated.headers["Idempotent-Replayed"]) == (paid.status, "true")
    mismatch = await operator.post(path, {**body, "amount": 1}, **once)
    assert (mismatch.status, mismatch.code) == (422, "IDEMPOTENCY_MISMATCH")
    late = await word(operator, suspense_id, action="write_off")
    assert (late.status, late.code) == (422, "SUSPENSE_RESOLVED")
    assert await alice.balance(other) == 2000
    entries = (await alice.get(f"/api/accounts/{other}/statements")).json["entries"]
    assert [(one["amount"], one["balance"]) for one in entries] == [(2000, 2000)]
    assert entries[0]["counterparty_account_id"] == closed
    assert suspense_id not in await all_of(operator, "")
    assert suspense_id in await all_of(operator, "&status=paid")
    verified(bank)


async def test_it_is_written_off(people: Town) -> None:
    _, _, suspense_id = await stranded(people, 700)
    operator = await people.staff("operator")
    body = {"action": "write_off", "amount": 700, "currency": "USD"}
    path = f"/api/suspense/{suspense_id}"
    got = await operator.post(f"{path}/resolve", body, wait=None, **key())
    assert (got.status, got.json) == (202, {"suspense_id": suspense_id, "status": "pending"})
    assert got.headers["Location"] == path

    async def written_off() -> bool:
        return bool((await operator.get(path)).json["status"] == "written_off")

    await until(written_off, "it is written off")


async def test_who_may_and_what_is_no_word(people: Town) -> None:
    alice, _, suspense_id = await stranded(people, 500)
    support, operator = await people.staff("support"), await people.staff("operator")
    path = f"/api/suspense/{suspense_id}"
    assert (await alice.get("/api/suspense")).status == 403
    assert (await alice.get(path)).status == 403
    assert (await word(alice, suspense_id, 500)).status == 403
    assert (await support.get(path)).status == 200
    assert (await word(support, suspense_id, 500)).status == 403
    assert (await operator.get("/api/suspense/nobody.none")).status == 404
    assert (await word(operator, "nobody.none", 500)).status == 404
    assert (await operator.get("/api/suspense?status=lost")).status == 400
    good = {"action": "write_off", "amount": 500, "currency": "USD"}
    without = await operator.post(f"{path}/resolve", good)
    assert (without.status, without.code) == (400, "IDEMPOTENCY_KEY_MISSING")
    for change, pointer in (
        ({"action": "steal"}, "/action"),
        ({"amount": 5.0}, "/amount"),
        ({"amount": 0}, "/amount"),
        ({"currency": "usd"}, "/currency"),
        ({"account_id": "someone"}, "/account_id"),
        ({"to": "me"}, "/to"),
    ):
        got = await operator.post(f"{path}/resolve", {**good, **change}, **key())
        assert (got.status, got.json["errors"][0]["pointer"]) == (422, pointer), got.text
    assert (await operator.get(path)).json["status"] == "open"


def verified(bank: Stand) -> None:
    done = command("verify", "--service", "account", "--decide", environment=bank.environment)
    assert done.returncode == 0, done.stdout + done.stderr
