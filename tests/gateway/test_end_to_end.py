"""The gateway on a running bank: what a client sees of users, accounts and money."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.gateway.stand import PASSWORD, until

if TYPE_CHECKING:
    from tests.gateway.stand import Person, Town


async def funded(people: Town, name: str, amount: int) -> tuple[Person, str]:
    """A customer and their account with money on it."""
    person = await people.customer(name)
    account_id = await person.open("USD")
    await deposit(people, account_id, amount)
    return person, account_id


async def deposit(people: Town, account_id: str, amount: int) -> None:
    admin = await people.admin()
    got = await admin.pay(type="deposit", amount=amount, destination_account_id=account_id)
    assert got.status == 201, got.text


async def test_a_transfer_from_registration_to_trace(people: Town) -> None:
    alice, source = await funded(people, "alice", 5000)
    bob = await people.customer("bob")
    destination = await bob.open("USD")
    paid = await alice.pay(
        amount=1050, source_account_id=source, destination_account_id=destination, reference="rent"
    )
    assert paid.status == 201, paid.text
    assert paid.headers["Preference-Applied"] == "wait=20"
    transaction_id = paid.json["transaction_id"]
    assert paid.headers["Location"] == f"/api/transactions/{transaction_id}"
    assert paid.json["status"] == "completed"
    assert paid.json["reference"] == "rent"
    assert paid.json["balances"] == [
        {"account_id": source, "currency": "USD", "before": 5000, "after": 3950}
    ]
    assert (await alice.balance(source), await bob.balance(destination)) == (3950, 1050)
    seen = await alice.get(paid.headers["Location"])
    assert seen.json == paid.json
    assert seen.headers["ETag"] == f'"{paid.json["version"]}"'
    unchanged = await alice.get(paid.headers["Location"], If_None_Match=seen.headers["ETag"])
    assert (unchanged.status, unchanged.text) == (304, "")
    picked = await alice.get(f"{paid.headers['Location']}?fields=status,amount")
    assert picked.json == {"status": "completed", "amount": 1050}
    trace = await alice.get(f"/api/transactions/{transaction_id}/trace")
    steps = [step["step"] for step in trace.json["steps"]]
    assert steps == ["validate", "risk", "debit", "payment", "credit", "complete"]
    received = await bob.get(paid.headers["Location"])
    assert received.json["balances"] == [
        {"account_id": destination, "currency": "USD", "before": 0, "after": 1050}
    ]


async def test_without_a_wait_the_answer_is_202_and_location_tells_the_end(people: Town) -> None:
    alice, source = await funded(people, "alice", 5000)
    other = await alice.open("USD")
    got = await alice.pay(
        amount=100, source_account_id=source, destination_account_id=other, wait=None
    )
    assert got.status == 202
    assert "Preference-Applied" not in got.headers
    assert got.json == {"transaction_id": got.json["transaction_id"], "status": "pending"}

    async def completed() -> bool:
        seen = await alice.get(got.headers["Location"])
        return seen.status == 200 and seen.json["status"] == "completed"

    await until(completed, "the transfer completes")


async def test_a_wait_that_passes_answers_202(people: Town) -> None:
    alice, source = await funded(people, "alice", 90_000)
    other = await alice.open("USD")
    got = await alice.pay(  # goes to review, which nobody decides
        amount=80_000, source_account_id=source, destination_account_id=other, wait=1
    )
    assert (got.status, got.headers["Preference-Applied"]) == (202, "wait=1")


async def test_a_refused_transfer_is_422_with_reason_and_id(people: Town) -> None:
    alice, source = await funded(people, "alice", 100)
    other = await alice.open("USD")
    got = await alice.pay(amount=101, source_account_id=source, destination_account_id=other)
    assert (got.status, got.code) == (422, "INSUFFICIENT_FUNDS")
    assert got.json["transaction"]["status"] == "failed"
    seen = await alice.get(f"/api/transactions/{got.json['transaction_id']}")
    assert (seen.json["status"], seen.json["reason"]) == ("failed", "INSUFFICIENT_FUNDS")
    assert await alice.balance(source) == 100


async def test_money_to_nowhere_comes_back(people: Town) -> None:
    alice, source = await funded(people, "alice", 100)
    got = await alice.pay(
        amount=40, source_account_id=source, destination_account_id=str(uuid.uuid4())
    )
    assert (got.status, got.code) == (422, "ACCOUNT_NOT_FOUND")
    assert await alice.balance(source) == 100


async def test_a_withdrawal_leaves_by_the_rail(people: Town) -> None:
    alice, source = await funded(people, "alice", 1000)
    got = await alice.pay(type="withdrawal", amount=300, source_account_id=source)
    assert got.status == 201, got.text
    assert await alice.balance(source) == 700
    declined = await alice.pay(type="withdrawal", amount=113, source_account_id=source)
    assert (declined.status, declined.code) == (422, "PAYMENT_DECLINED")
    assert await alice.balance(source) == 700


async def test_what_is_not_yours_looks_like_what_is_not_there(people: Town) -> None:
    alice, source = await funded(people, "alice", 1000)
    mallory, own = await funded(people, "mallory", 10)
    nowhere = str(uuid.uuid4())
    paid = await alice.pay(
        amount=1, source_account_id=source, destination_account_id=await alice.open("USD")
    )
    transaction = paid.headers["Location"]
    for theirs, none in (
        (f"/api/accounts/{source}", f"/api/accounts/{nowhere}"),
        (transaction, f"/api/transactions/{nowhere}"),
        (f"{transaction}/trace", f"/api/transactions/{nowhere}/trace"),
        (f"{transaction}/events", f"/api/transactions/{nowhere}/events"),
        (f"/api/users/{alice.user_id}", f"/api/users/{nowhere}"),
    ):
        answers = [await mallory.get(path) for path in (theirs, none)]
        assert [got.code for got in answers] == ["NOT_FOUND", "NOT_FOUND"], theirs
        assert answers[0].json["detail"] == answers[1].json["detail"]
    for path in (f"{transaction}/cancel", f"/api/accounts/{source}/close"):
        assert (await mallory.post(path)).status == 404
    for account_id in (source, nowhere):
        stolen = await mallory.pay(
            amount=1, source_account_id=account_id, destination_account_id=own
        )
        assert (stolen.status, stolen.code) == (422, "ACCOUNT_NOT_FOUND")
        assert stolen.json["errors"][0]["pointer"] == "/source_account_id"
    assert (await mallory.get(f"/api/accounts?user_id={alice.user_id}")).status == 403
    assert await alice.balance(source) == 999


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/accounts/{account}/freeze", None),
        ("POST", "/api/accounts/{account}/unfreeze", None),
        ("POST", "/api/accounts", {"currencies": ["USD"], "overdraft_limits": {"USD": 5}}),
        ("POST", "/api/accounts", {"currencies": ["USD"], "user_id": "someone"}),
        ("POST", "/api/users/{user}/roles", {"roles": ["admin"]}),
        ("GET", "/api/risk/reviews", None),
        ("POST", "/api/risk/reviews/a.b/decision", {"decision": "approve"}),
        ("GET", "/api/risk/blacklist", None),
        ("POST", "/api/risk/blacklist", {"kind": "user", "value": "x"}),
        ("DELETE", "/api/risk/blacklist", {"kind": "user", "value": "x"}),
    ],
)
async def test_what_customers_may_not(people: Town, method: str, path: str, body: object) -> None:
    alice = await people.customer("alice")
    account_id = await alice.open("USD")
    there = path.format(account=account_id, user=alice.user_id)
    got = await alice.ask(method, there, body)
    assert (got.status, got.code) == (403, "FORBIDDEN")
    stranger = await people.stranger.ask(method, there, body)
    assert (stranger.status, stranger.code) == (401, "UNAUTHENTICATED")


async def test_a_customer_may_not_deposit(people: Town) -> None:
    alice = await people.customer("alice")
    account_id = await alice.open("USD")
    got = await alice.pay(type="deposit", amount=5, destination_account_id=account_id)
    assert (got.status, got.code) == (403, "FORBIDDEN")


async def test_the_same_key_and_body_pays_once(people: Town) -> None:
    alice, source = await funded(people, "alice", 1000)
    other = await alice.open("USD")
    order = {"amount": 10, "source_account_id": source, "destination_account_id": other}
    first = await alice.pay(key="k1", **order)
    repeated = await alice.pay(key='"k1"', **order)
    assert (first.status, repeated.status) == (201, 201)
    assert repeated.json == first.json
    assert repeated.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert "Preference-Applied" not in (await alice.pay(key="k1", wait=None, **order)).headers
    for member, value in (("amount", 11), ("source_account_id", "nowhere")):
        changed = await alice.pay(key="k1", **{**order, member: value})
        assert (changed.status, changed.code) == (422, "IDEMPOTENCY_MISMATCH")
        assert changed.json["errors"][0]["code"] == "IDEMPOTENCY_MISMATCH"
    bob, own = await funded(people, "bob", 1000)
    elsewhere = await bob.pay(key="k1", **{**order, "source_account_id": own})
    assert elsewhere.json["transaction_id"] != first.json["transaction_id"]
    assert await alice.balance(source) == 990


async def test_a_repeat_of_a_202_tells_the_present_state(people: Town) -> None:
    alice, source = await funded(people, "alice", 1000)
    other = await alice.open("USD")
    order = {"amount": 10, "source_account_id": source, "destination_account_id": other}
    first = await alice.pay(key="k", wait=None, **order)
    again = await alice.pay(key="k", wait=20, **order)
    assert (first.status, again.status) == (202, 201)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json["transaction_id"] == first.json["transaction_id"]
    third = await alice.pay(key="k", wait=None, **order)
    assert (third.status, third.json) == (201, again.json)
    assert await alice.balance(source) == 990


async def test_twenty_at_once_with_one_key_are_one_transfer(people: Town) -> None:
    alice, source = await funded(people, "alice", 1000)
    other = await alice.open("USD")
    order = {"amount": 10, "source_account_id": source, "destination_account_id": other}
    answers = await asyncio.gather(*(alice.pay(key="k", **order) for _ in range(20)))
    assert {got.status for got in answers} <= {201, 409}
    assert sum(got.status == 201 for got in answers) >= 1
    assert {got.code for got in answers if got.status == 409} <= {"IDEMPOTENCY_IN_PROGRESS"}
    assert await alice.balance(source) == 990


async def test_a_money_post_needs_a_key(people: Town) -> None:
    alice = await people.customer("alice")
    body = {"type": "withdrawal", "amount": 1, "currency": "USD", "source_account_id": "x"}
    for key, code in (
        (None, "IDEMPOTENCY_KEY_MISSING"),
        ("", "IDEMPOTENCY_KEY_INVALID"),
        ('""', "IDEMPOTENCY_KEY_INVALID"),
        ("k" * 256, "IDEMPOTENCY_KEY_INVALID"),
        ("naïve", "IDEMPOTENCY_KEY_INVALID"),
    ):
        headers = {"Idempotency_Key": key} if key is not None else {}
        got = await alice.post("/api/transactions", body, **headers)
        assert (got.status, got.code) == (400, code), key


async def test_registering_twice(people: Town) -> None:
    email = f"Eve-{uuid.uuid4().hex[:8]}@people.example"
    body = {"email": email, "password": PASSWORD, "name": "Eve"}
    first = await people.stranger.post("/api/users", body, Idempotency_Key="r1")
    again = await people.stranger.post("/api/users", body, Idempotency_Key="r1")
    assert (first.status, again.status) == (201, 201)
    assert first.json["user_id"] == again.json["user_id"]
    assert "password" not in first.text
    taken = await people.stranger.post("/api/users", {**body, "email": email.upper()})
    assert (taken.status, taken.code) == (409, "EMAIL_TAKEN")
    person = await people.login(email.lower())
    assert person.user_id == first.json["user_id"]


async def test_logging_in_and_out(people: Town) -> None:
    alice = await people.customer("alice")
    email = (await alice.get(f"/api/users/{alice.user_id}")).json["email"]
    for wrong in (
        {"email": email, "password": "not her password"},
        {"email": f"no-{email}", "password": PASSWORD},
    ):
        got = await people.stranger.post("/api/auth/login", wrong)
        assert (got.status, got.code) == (401, "INVALID_CREDENTIALS")
    tokens = await people.stranger.post("/api/auth/login", {"email": email, "password": PASSWORD})
    spare = {"refresh_token": tokens.json["refresh_token"]}
    fresh = await people.stranger.post("/api/auth/refresh", spare)
    assert fresh.status == 200
    alice.token = fresh.json["access_token"]
    assert (await alice.get(f"/api/users/{alice.user_id}")).status == 200
    assert (await people.stranger.post("/api/auth/logout", spare)).status == 204
    assert (await people.stranger.post("/api/auth/refresh", spare)).status == 401
    alice.token = tokens.json["refresh_token"]
    assert (await alice.get(f"/api/users/{alice.user_id}")).status == 401
    alice.token = fresh.json["access_token"]
    assert (await alice.post("/api/auth/logout", wait=None)).status == 204
    assert (await alice.get(f"/api/users/{alice.user_id}")).status == 401
    nothing = await people.stranger.post("/api/auth/logout", wait=None)
    assert (nothing.status, nothing.json["errors"][0]["code"]) == (422, "REQUIRED")


async def test_freeze_unfreeze_close(people: Town) -> None:
    alice, account_id = await funded(people, "alice", 500)
    operator = await people.staff("operator")
    path = f"/api/accounts/{account_id}"
    frozen = await operator.post(f"{path}/freeze")
    assert (frozen.status, frozen.json["status"]) == (200, "frozen")
    again = await operator.post(f"{path}/freeze")
    assert (again.status, again.json["status"]) == (200, "frozen")
    other = await alice.open("USD")
    paid = await alice.pay(amount=1, source_account_id=account_id, destination_account_id=other)
    assert (paid.status, paid.code) == (422, "ACCOUNT_FROZEN")
    assert (await operator.post(f"{path}/unfreeze")).json["status"] == "open"
    kept = await alice.post(f"{path}/close")
    assert (kept.status, kept.code) == (422, "BALANCE_NOT_ZERO")
    closed = await alice.post(f"/api/accounts/{other}/close")
    assert (closed.status, closed.json["status"]) == (200, "closed")


async def test_an_operator_opens_for_a_customer_with_overdraft(people: Town) -> None:
    alice, operator = await people.customer("alice"), await people.staff("operator")
    account_id = await operator.open(
        "USD", user_id=alice.user_id, overdraft_limits={"USD": 500}, name="current"
    )
    account = (await alice.get(f"/api/accounts/{account_id}")).json
    assert account["balances"] == [
        {"currency": "USD", "amount": 0, "available": 500, "held": 0, "overdraft_limit": 500}
    ]
    other = await alice.open("USD")
    paid = await alice.pay(amount=500, source_account_id=account_id, destination_account_id=other)
    assert paid.status == 201
    nobody = await operator.post("/api/accounts", {"currencies": ["USD"], "user_id": "nobody"})
    assert (nobody.status, nobody.code) == (422, "USER_NOT_FOUND")


async def test_lists_go_on_where_they_stopped(people: Town) -> None:
    alice, source = await funded(people, "alice", 1000)
    accounts = [source, *[await alice.open("USD") for _ in range(4)]]
    paid = []
    for amount in range(1, 6):
        got = await alice.pay(
            amount=amount, source_account_id=source, destination_account_id=accounts[1]
        )
        paid.append(got.json["transaction_id"])

    async def pages(path: str) -> list[dict[str, object]]:
        items, more = [], ""
        while True:
            page = (await alice.get(f"{path}{more}")).json
            assert len(page["items"]) <= 2
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            more = f"&cursor={page['next_cursor']}"

    # an account that was answered is in the list, too
    assert [one["account_id"] for one in await pages("/api/accounts?limit=2")] == accounts
    found = [one["transaction_id"] for one in await pages("/api/transactions?limit=2")]
    assert found[:5] == paid[::-1]
    none = await alice.get("/api/transactions?status=failed")
    assert none.json == {"items": [], "next_cursor": None}
    for bad in ("limit=0", "limit=201", "limit=x", "cursor=!!"):
        assert (await alice.get(f"/api/transactions?{bad}")).code == "BAD_QUERY"


async def test_a_review_is_found_and_decided(people: Town) -> None:
    alice, source = await funded(people, "alice", 100_000)
    other = await alice.open("USD")
    officer = await people.staff("compliance")
    order = {"amount": 85_000, "source_account_id": source, "destination_account_id": other}
    got = await alice.pay(wait=None, **order)
    transaction_id = got.json["transaction_id"]

    async def review() -> str | None:
        page = await officer.get("/api/risk/reviews?status=open&limit=200")
        found = [one for one in page.json["items"] if one["transaction_id"] == transaction_id]
        return found[0]["review_id"] if found else None

    review_id = await until(review, "the review is in the queue")
    path = f"/api/risk/reviews/{review_id}"
    decided = await officer.post(f"{path}/decision", {"decision": "approve", "note": "known"})
    assert (decided.status, decided.json["status"]) == (200, "approved")
    late = await officer.post(f"{path}/decision", {"decision": "decline"})
    assert (late.status, late.code) == (422, "REVIEW_DECIDED")

    async def completed() -> bool:
        seen = await alice.get(f"/api/transactions/{transaction_id}")
        return bool(seen.json["status"] == "completed")

    await until(completed, "the approved transfer completes")
    steps = (await alice.get(f"/api/transactions/{transaction_id}/trace")).json["steps"]
    assert "review" in [step["step"] for step in steps]


async def test_the_trace_of_what_waits_for_the_rail_goes_as_far_as_it_came(people: Town) -> None:
    alice, source = await funded(people, "alice", 100_000)
    # answered 8 s late
    sent = await alice.pay(wait=None, type="withdrawal", amount=122, source_account_id=source)
    assert sent.status == 202, sent.text
    path = f"/api/transactions/{sent.json['transaction_id']}"

    async def debited() -> bool:
        steps = (await alice.get(f"{path}/trace")).json.get("steps", [])
        return [step["step"] for step in steps] == ["validate", "risk", "debit"]

    await until(debited, "the trace shows the debit")
    assert (await alice.get(path)).json["status"] == "pending"


async def test_cancel_before_and_after_the_money_moved(people: Town) -> None:
    alice, source = await funded(people, "alice", 100_000)
    other = await alice.open("USD")
    order = {"source_account_id": source, "destination_account_id": other}
    held = await alice.pay(amount=85_000, wait=None, **order)

    async def pending() -> bool:
        return (await alice.get(held.headers["Location"])).status == 200

    await until(pending, "the transfer is known")
    cancelled = await alice.post(f"{held.headers['Location']}/cancel")
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    paid = await alice.pay(amount=10, **order)
    late = await alice.post(f"{paid.headers['Location']}/cancel")
    assert (late.status, late.code) == (422, "TOO_LATE")
    assert await alice.balance(source) == 99_990


async def test_the_blacklist_binds_at_once(people: Town) -> None:
    alice, source = await funded(people, "alice", 1000)
    other = await alice.open("USD")
    officer = await people.staff("compliance")
    entry = {"kind": "account", "value": other}
    added = await officer.post("/api/risk/blacklist", {**entry, "note": "fraud"})
    assert (added.status, added.json["value"]) == (201, other)
    listed = await officer.get("/api/risk/blacklist?kind=account&limit=200")
    assert other in [one["value"] for one in listed.json["items"]]
    order = {"amount": 5, "source_account_id": source, "destination_account_id": other}
    refused = await alice.pay(**order)
    assert (refused.status, refused.code) == (422, "BLACKLISTED")
    path = f"/api/risk/blacklist?kind=account&value={other}"
    removed = await officer.ask("DELETE", path, Prefer="wait=20")
    assert removed.status == 200
    assert (await alice.pay(**order)).status == 201


async def test_events_are_streamed_until_the_end(people: Town) -> None:
    alice, source = await funded(people, "alice", 100_000)
    other = await alice.open("USD")
    got = await alice.pay(
        amount=85_000, source_account_id=source, destination_account_id=other, wait=None
    )

    async def known() -> bool:
        return (await alice.get(got.headers["Location"])).status == 200

    await until(known, "the transfer is known")

    async def follow() -> str:
        followed = await alice.get(f"{got.headers['Location']}/events", X_Request_Id="mine")
        assert followed.headers["X-Request-Id"] == "mine"
        assert followed.headers["X-Content-Type-Options"] == "nosniff"
        assert "traceparent" in followed.headers
        return followed.text

    following = asyncio.create_task(follow())
    await alice.post(f"{got.headers['Location']}/cancel")
    text = await following
    data = [orjson.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert [one["status"] for one in data][-1] == "cancelled"
    assert [one["version"] for one in data] == sorted({one["version"] for one in data})
