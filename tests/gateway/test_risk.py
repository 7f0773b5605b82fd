"""Risk over HTTP: orders that are only scored, the configuration, and who may not receive."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from gateway.client import addresses_of, listed_address
from tests.gateway.test_end_to_end import funded

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Town

SCORE, CONFIG, BLACKLIST = "/api/risk/score", "/api/risk/config", "/api/risk/blacklist"


def order(source: str, destination: str, amount: int = 500, **more: Any) -> dict[str, Any]:
    return {
        "type": "transfer",
        "amount": amount,
        "currency": "USD",
        "source_account_id": source,
        "destination_account_id": destination,
        **more,
    }


def spoke(got: Got) -> dict[str, int]:
    """The points of each rule that spoke, but the night's, which comes and goes."""
    assert got.status == 200, got.text
    return {one["rule"]: one["points"] for one in got.json["rules"] if one["rule"] != "night"}


async def test_an_order_is_scored_and_nothing_is_written(people: Town) -> None:
    alice, source = await funded(people, "alice", 90_000)
    other = await (await people.customer("bob")).open("USD")
    officer = await people.staff("compliance")
    first = await officer.post(SCORE, order(source, other))
    assert spoke(first) == {"new_recipient": 5}
    assert (first.json["decision"], first.json["reason"]) == ("approve", None)
    assert (first.json["user_id"], first.json["level"]) == (alice.user_id, 0)
    limits = {"transaction": 100_000, "day": 100_000, "day_left": 100_000, "review": 80_000}
    assert first.json["limits"] == limits
    looked_at = await officer.post(SCORE, order(source, other, 80_000))
    assert spoke(looked_at) == {"amount": 50, "new_recipient": 5}
    assert looked_at.json["decision"] == "review"
    too_much = await officer.post(SCORE, order(source, other, 100_001))
    assert (too_much.json["decision"], too_much.json["reason"]) == ("decline", "DAILY_LIMIT")
    free = await officer.post(SCORE, order(source, other, 100_001, privileged=True))
    assert (free.json["decision"], free.json["score"]) == ("approve", 0)
    listed = await alice.get("/api/transactions")
    assert [one["type"] for one in listed.json["items"]] == ["deposit"]
    again = await officer.post(SCORE, order(source, other))
    assert spoke(again) == spoke(first)

    paid = await alice.pay(amount=500, source_account_id=source, destination_account_id=other)
    assert paid.status == 201, paid.text
    known = await officer.post(SCORE, order(source, other))
    assert spoke(known) == {}
    assert known.json["limits"]["day_left"] == 99_500
    assert known.json["features"]["new_recipient"] == 0


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"amount": 0}, "/amount"),
        ({"amount": "5"}, "/amount"),
        ({"currency": "usd"}, "/currency"),
        ({"type": "gift"}, "/type"),
        ({"address": "no address"}, "/address"),
        ({"address": "203.0.113.0/20"}, "/address"),
        ({"iban": "DE1"}, "/iban"),
        ({"country": "de"}, "/country"),
        ({"colour": "red"}, "/colour"),
        ({"source_account_id": None}, "/source_account_id"),
        ({"source_account_id": "nobody's"}, "/source_account_id"),
    ],
)
async def test_what_can_not_be_scored(people: Town, changes: dict[str, Any], pointer: str) -> None:
    admin = await people.admin()
    got = await admin.post(SCORE, {**order("a", "b"), **changes})
    assert got.status == 422, got.text
    assert pointer in [error["pointer"] for error in got.json["errors"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "roles"),
    [
        ("POST", SCORE, order("a", "b"), ("customer", "analyst")),
        ("GET", CONFIG, None, ("customer", "operator", "analyst")),
        ("PUT", CONFIG, {}, ("customer", "operator", "support", "analyst")),
    ],
)
async def test_who_may_not(
    people: Town, method: str, path: str, body: Any, roles: tuple[str, ...]
) -> None:
    assert (await people.stranger.ask(method, path, body)).code == "UNAUTHENTICATED"
    for role in roles:
        someone = await people.staff(role)
        assert (await someone.ask(method, path, body)).code == "FORBIDDEN"


async def put(officer: Person, body: Any) -> Got:
    return await officer.ask("PUT", CONFIG, body, Prefer="wait=20")


async def test_the_configuration_is_set_and_binds(people: Town) -> None:
    _alice, source = await funded(people, "alice", 1_000)
    other = await (await people.customer("bob")).open("USD")
    officer = await people.staff("compliance")
    before = (await officer.get(CONFIG)).json
    given = {"recipient_points": 6, "features_from": 6}
    set_ = await put(officer, given)
    assert set_.status == 200, set_.text
    assert set_.json["version"] == before["version"] + 1
    assert set_.json["updated_by"] == officer.user_id
    assert (await officer.get(CONFIG)).json == set_.json
    same = await put(officer, given)
    assert (same.status, same.json["version"]) == (200, set_.json["version"])
    late = await put(officer, {"version": before["version"], "recipient_points": 7})
    assert (late.status, late.code) == (422, "VERSION_PASSED")
    assert spoke(await officer.post(SCORE, order(source, other))) == {"new_recipient": 6}
    huge = await put(officer, {"version": 2**63})
    assert (huge.status, huge.code) == (422, "INVALID_BODY")
    crossed = await put(officer, {"minute_review": 70})
    assert (crossed.status, crossed.code) == (422, "INVALID_COMMAND")
    wrong = await put(officer, {"levels": [], "night_points": -1, "colour": 1})
    pointers = [error["pointer"] for error in wrong.json["errors"]]
    assert sorted(pointers) == ["/colour", "/levels", "/night_points"]
    assert (await put(officer, {})).status == 200
    assert spoke(await officer.post(SCORE, order(source, other))) == {"new_recipient": 5}


async def entry(officer: Person, method: str, kind: str, value: str) -> Got:
    body = {"kind": kind, "value": value}
    return await officer.ask(method, BLACKLIST, body, Prefer="wait=20")


async def test_a_blacklisted_user_can_not_receive(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    bob = await people.customer("bob")
    accounts = [await bob.open("USD"), await bob.open("USD")]
    officer, admin = await people.staff("compliance"), await people.admin()
    assert (await entry(officer, "POST", "user", bob.user_id)).status == 201
    accounts.append(await bob.open("USD"))
    for account_id in accounts:
        to = {"source_account_id": source, "destination_account_id": account_id}
        assert (await alice.pay(amount=5, **to)).code == "BLACKLISTED"
        assert (await admin.pay(amount=5, **to)).code == "BLACKLISTED"
    listed = await officer.get(f"{BLACKLIST}?kind=account&limit=200")
    mine = [one for one in listed.json["items"] if one["value"] in accounts]
    assert [(one["owner_id"], one["listed"]) for one in mine] == [(bob.user_id, False)] * 3
    scored = await officer.post(SCORE, order(source, accounts[0]))
    assert scored.json["reason"] == "BLACKLISTED"
    assert (await entry(officer, "DELETE", "user", bob.user_id)).status == 200
    paid = await alice.pay(amount=5, source_account_id=source, destination_account_id=accounts[2])
    assert paid.status == 201, paid.text


async def test_a_blacklisted_address_orders_nothing(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    other = await alice.open("USD")
    officer = await people.staff("compliance")
    to = {"source_account_id": source, "destination_account_id": other}
    listed = await entry(officer, "POST", "address", "127.0.0.0/24")
    assert (listed.status, listed.json["value"]) == (201, "127.0.0.0/24")
    try:
        assert (await alice.pay(amount=5, **to)).code == "BLACKLISTED"
        admin = await people.admin()
        assert (await admin.pay(amount=5, **to)).status == 201  # from the bank's own networks
    finally:
        await entry(officer, "DELETE", "address", "127.0.0.0/24")
    assert (await alice.pay(amount=5, **to)).status == 201


@pytest.mark.parametrize(
    ("kind", "value", "asked"),
    [
        ("iban", "de89 3704 0044 0532 0130 00", {"iban": "DE89370400440532013000"}),
        ("country", "KP", {"country": "KP"}),
        ("country", "IR", {"iban": "IR580540105180021273113007"}),
        ("address", "2001:db8:0:1::/64", {"address": "2001:db8:0:1::77"}),
        ("address", "2001:DB8::5", {"address": "2001:db8::5"}),
    ],
)
async def test_what_may_be_listed(
    people: Town, kind: str, value: str, asked: dict[str, str]
) -> None:
    _, source = await funded(people, "alice", 1_000)
    other = await (await people.customer("bob")).open("USD")
    officer = await people.staff("compliance")
    assert (await entry(officer, "POST", kind, value)).status == 201
    scored = await officer.post(SCORE, order(source, other, **asked))
    assert (scored.json["decision"], scored.json["reason"]) == ("decline", "BLACKLISTED")
    assert (await entry(officer, "DELETE", kind, value)).status == 200
    scored = await officer.post(SCORE, order(source, other, **asked))
    assert scored.json["decision"] == "approve"


async def test_nothing_is_paid_out_to_a_listed_iban(people: Town) -> None:
    alice, source = await funded(people, "alice", 1_000)
    officer, admin = await people.staff("compliance"), await people.admin()
    iban = "GB82 WEST 1234 5698 7654 32"
    kept = await alice.post("/api/payment-methods", {"type": "iban", "iban": iban})
    assert kept.status == 201, kept.text
    order = {"type": "withdrawal", "amount": 5, "source_account_id": source}
    order["payment_method_id"] = kept.json["payment_method_id"]
    listed = await entry(officer, "POST", "iban", iban)
    assert (listed.status, listed.json["value"]) == (201, kept.json["fingerprint"])
    assert (await alice.pay(**order)).code == "BLACKLISTED"
    assert (await admin.pay(**order)).code == "BLACKLISTED"
    assert (await entry(officer, "DELETE", "iban", listed.json["value"])).status == 200
    assert (await entry(officer, "POST", "country", "GB")).status == 201
    assert (await alice.pay(**order)).code == "BLACKLISTED"
    assert (await entry(officer, "DELETE", "country", "GB")).status == 200
    assert (await alice.pay(**order)).status == 201


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("iban", "DE"),
        ("country", "Iran"),
        ("address", "10.0.0.0/8"),
        ("address", "10.0.0.1/24"),
        ("address", "localhost"),
        ("colour", "red"),
        ("user", "a/b"),
    ],
)
async def test_what_may_not_be_listed(people: Town, kind: str, value: str) -> None:
    officer = await people.staff("compliance")
    got = await entry(officer, "POST", kind, value)
    assert (got.status, got.code) == (422, "INVALID_BODY")
    assert got.json["errors"][0]["pointer"] in ("/kind", "/value")


async def test_nobody_decides_their_own_review(people: Town) -> None:
    officer = await people.staff("compliance")
    admin = await people.admin()
    source, other = await officer.open("USD"), await officer.open("USD")
    await admin.pay(type="deposit", amount=90_000, destination_account_id=source)
    to = {"source_account_id": source, "destination_account_id": other}
    held = await officer.pay(amount=85_000, wait=1, **to)
    review_id = f"{officer.user_id}.{held.json['transaction_id']}"
    path = f"/api/risk/reviews/{review_id}/decision"
    own = await officer.post(path, {"decision": "approve"})
    assert (own.status, own.code) == (422, "OWN_CASE")
    colleague = await people.staff("compliance")
    assert (await colleague.post(path, {"decision": "decline"})).status == 200


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("203.0.113.9", ("203.0.113.9", "203.0.113.0/24", "203.0.0.0/16")),
        ("::ffff:203.0.113.9", ("203.0.113.9", "203.0.113.0/24", "203.0.0.0/16")),
        ("2001:DB8::5", ("2001:db8::5", "2001:db8::/64", "2001:db8::/48")),
        ("-", ()),
        ("", ()),
    ],
)
def test_an_address_and_its_networks(text: str, addresses: tuple[str, ...]) -> None:
    assert addresses_of(text) == addresses
    assert all(listed_address(one) == one for one in addresses)


def test_ids_are_no_addresses() -> None:
    assert listed_address(str(uuid.uuid4())) is None
