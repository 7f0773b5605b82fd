"""Holds over HTTP, on a running bank."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.forked import command
from tests.gateway.stand import until
from tests.gateway.test_end_to_end import funded

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Stand, Town


async def hold(
    person: Person, *, key: str | None = None, wait: int | None = 20, **body: Any
) -> Got:
    headers = {"Idempotency_Key": key or str(uuid.uuid4())}
    return await person.post("/api/holds", {"currency": "USD", **body}, wait=wait, **headers)


async def capture(person: Person, hold_id: str, *, key: str | None = None, **body: Any) -> Got:
    headers = {"Idempotency_Key": key or str(uuid.uuid4())}
    return await person.post(f"/api/holds/{hold_id}/capture", body, **headers)


async def amounts(person: Person, account_id: str) -> tuple[int, int, int]:
    """Balance, available, held."""
    (one,) = (await person.get(f"/api/accounts/{account_id}")).json["balances"]
    return one["amount"], one["available"], one["held"]


async def test_held_then_captured_in_part(people: Town) -> None:
    alice, source = await funded(people, "alice", 5_000)
    bob = await people.customer("bob")
    destination = await bob.open("USD")
    placed = await hold(
        alice, account_id=source, amount=2_000, destination_account_id=destination, reference="r7"
    )
    assert placed.status == 201, placed.text
    hold_id = placed.json["hold_id"]
    assert hold_id.startswith(f"{source}.")
    assert placed.headers["Location"] == f"/api/holds/{hold_id}"
    assert (placed.json["status"], placed.json["reference"]) == ("open", "r7")
    assert await amounts(alice, source) == (5_000, 3_000, 2_000)
    refused = await alice.pay(
        amount=3_001, source_account_id=source, destination_account_id=destination
    )
    assert (refused.status, refused.code) == (422, "INSUFFICIENT_FUNDS")
    closing = await alice.post(f"/api/accounts/{source}/close")
    assert (closing.status, closing.code) == (422, "IN_FLIGHT")
    taken = await capture(alice, hold_id, amount=1_500)
    assert taken.status == 200, taken.text
    assert (taken.json["status"], taken.json["captured_amount"]) == ("captured", 1_500)
    assert await amounts(alice, source) == (3_500, 3_500, 0)
    assert await bob.balance(destination) == 1_500
    transaction = await alice.get(f"/api/transactions/{taken.json['transaction_id']}")
    assert (transaction.json["type"], transaction.json["status"]) == ("capture", "completed")
    assert transaction.headers["ETag"]
    again = await capture(alice, hold_id, amount=500)
    assert (again.status, again.code) == (422, "HOLD_NOT_OPEN")
    seen = await alice.get(f"/api/holds/{hold_id}")
    assert seen.json == taken.json


async def test_a_capture_without_destination_leaves_by_the_rail(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    hold_id = (await hold(alice, account_id=source, amount=300)).json["hold_id"]
    taken = await capture(alice, hold_id)
    assert (taken.status, taken.json["captured_amount"]) == (200, 300), taken.text
    assert await amounts(alice, source) == (700, 700, 0)
    declined = (await hold(alice, account_id=source, amount=113)).json["hold_id"]  # by the rail
    failed = await capture(alice, declined)
    assert (failed.status, failed.code) == (422, "PAYMENT_DECLINED")
    assert (await alice.get(f"/api/holds/{declined}")).json["status"] == "returned"
    assert await amounts(alice, source) == (700, 700, 0)


async def test_voided_once_and_expired_by_itself(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    voided = (await hold(alice, account_id=source, amount=300)).json["hold_id"]
    expiring = (await hold(alice, account_id=source, amount=200, expires_in=1)).json["hold_id"]
    for _ in range(2):
        got = await alice.post(f"/api/holds/{voided}/void")
        assert (got.status, got.json["status"]) == (200, "voided"), got.text
    assert (await capture(alice, voided)).code == "HOLD_NOT_OPEN"

    async def expired() -> bool:
        got = await alice.get(f"/api/holds/{expiring}")
        return bool(got.json["status"] == "expired")

    await until(expired, "the hold expires")
    assert await amounts(alice, source) == (1_000, 1_000, 0)
    assert (await alice.post(f"/api/holds/{expiring}/void")).code == "HOLD_NOT_OPEN"


async def test_a_refusal_is_readable_and_a_key_asks_once(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    key = str(uuid.uuid4())
    refused = await hold(alice, key=key, account_id=source, amount=1_001)
    assert (refused.status, refused.code) == (422, "INSUFFICIENT_FUNDS")
    seen = await alice.get(f"/api/holds/{refused.json['hold_id']}")
    assert (seen.json["status"], seen.json["reason"]) == ("refused", "INSUFFICIENT_FUNDS")
    other = await hold(alice, key=key, account_id=source, amount=1)
    assert (other.status, other.code) == (422, "IDEMPOTENCY_MISMATCH")
    first = await hold(alice, key="one", account_id=source, amount=400)
    again = await hold(alice, key="one", account_id=source, amount=400)
    assert (again.json, again.headers["Idempotent-Replayed"]) == (first.json, "true")
    hold_id = first.json["hold_id"]
    taken = await capture(alice, hold_id, key="two")
    assert (await capture(alice, hold_id, key="two")).json == taken.json
    assert await amounts(alice, source) == (600, 600, 0)


async def test_without_a_wait_the_outcome_is_at_the_location(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    got = await hold(alice, wait=None, account_id=source, amount=1)
    assert (got.status, got.json["status"]) == (202, "pending")

    async def there() -> bool:
        seen = await alice.get(got.headers["Location"])
        return seen.status == 200 and seen.json["status"] == "open"

    await until(there, "the hold is placed")


async def test_others_see_nothing_and_staff_may_read(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    mallory = await people.customer("mallory")
    support = await people.staff("support")
    hold_id = (await hold(alice, account_id=source, amount=100)).json["hold_id"]
    path = f"/api/holds/{hold_id}"
    assert (await mallory.get(path)).status == 404
    assert (await mallory.post(f"{path}/void")).status == 404
    assert (await capture(mallory, hold_id)).status == 404
    theirs = await hold(mallory, account_id=source, amount=1)
    assert (theirs.status, theirs.code) == (422, "ACCOUNT_NOT_FOUND")
    assert (await support.get(path)).status == 200
    assert (await support.post(f"{path}/void")).status == 404
    assert (await people.stranger.get(path)).status == 401
    assert (await alice.get("/api/holds/nothing")).status == 404
    admin = await people.admin()
    assert (await capture(admin, hold_id)).status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"amount": 0}, "/amount"),
        ({"amount": 1.5}, "/amount"),
        ({"amount": True}, "/amount"),
        ({"currency": "usd"}, "/currency"),
        ({"currency": None}, "/currency"),
        ({"account_id": 5}, "/account_id"),
        ({"expires_in": 0}, "/expires_in"),
        ({"expires_in": 31 * 24 * 3600 + 1}, "/expires_in"),
        ({"destination_account_id": "x"}, "/destination_account_id"),
        ({"unknown": 1}, "/unknown"),
    ],
)
async def test_a_body_that_makes_no_sense(people: Town, body: Any, pointer: str) -> None:
    admin = await people.admin()
    got = await hold(admin, **{"account_id": "x", "amount": 1, **body})
    assert got.status == 422
    assert [error["pointer"] for error in got.json["errors"]] == [pointer]


async def test_money_needs_a_key_and_a_capture_stays_within_its_hold(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    body = {"account_id": source, "amount": 100, "currency": "USD"}
    assert (await alice.post("/api/holds", body)).code == "IDEMPOTENCY_KEY_MISSING"
    hold_id = (await hold(alice, **body)).json["hold_id"]
    assert (await alice.post(f"/api/holds/{hold_id}/capture")).code == "IDEMPOTENCY_KEY_MISSING"
    more = await capture(alice, hold_id, amount=101)
    assert (more.status, more.code) == (422, "HOLD_EXCEEDED")
    assert more.json["errors"][0]["pointer"] == "/amount"
    nowhere = await hold(
        alice, account_id=source, amount=1, destination_account_id=str(uuid.uuid4())
    )
    assert nowhere.json["errors"][0]["pointer"] == "/destination_account_id"


async def test_an_archived_account_is_in_its_own_list_alone(people: Town) -> None:
    alice = await people.customer("alice")
    kept, gone = await alice.open("USD"), await alice.open("USD")
    path = f"/api/accounts/{gone}"
    early = await alice.post(f"{path}/archive")
    assert (early.status, early.code) == (422, "ACCOUNT_NOT_CLOSED")
    assert (await alice.post(f"{path}/close")).status == 200
    mallory = await people.customer("mallory")
    assert (await mallory.post(f"{path}/archive")).status == 404
    got = await alice.post(f"{path}/archive")
    assert (got.status, got.json["status"]) == (200, "archived")
    listed = (await alice.get("/api/accounts")).json["items"]
    assert [one["account_id"] for one in listed] == [kept]
    archived = (await alice.get("/api/accounts?status=archived")).json["items"]
    assert [one["account_id"] for one in archived] == [gone]
    assert (await alice.get(path)).json["status"] == "archived"
    assert (await alice.post(f"{path}/close")).code == "ACCOUNT_CLOSED"


def test_the_books_are_right_behind_all_this(bank: Stand) -> None:
    """Each account holds what its open holds say; tables are the fold of their events."""
    done = command("verify", environment=bank.environment)
    assert done.returncode == 0, done.stdout + done.stderr
