"""A person over HTTP, on the real bank: profile, address, password, sessions, KYC, overview."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from domain.credentials import EmailConfirmationRequested, PasswordResetRequested
from domain.mailed import Purpose, mailed_token
from domain.session import SessionEnded
from settings import Settings
from tests.gateway.stand import PASSWORD, Person, until
from tests.gateway.test_edge import forged
from tests.system.bank import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gateway.stand import Got, Stand, Town

OTHER = "another correct horse"
BASIC = {
    "level": 1,
    "full_name": "Alice Liddell",
    "date_of_birth": "1992-05-04",
    "country": "GB",
}
FULL = {
    **BASIC,
    "level": 2,
    "address": {"street": "Folly Bridge 1", "postal_code": "OX1", "city": "Oxford"},
    "document": {"kind": "passport", "number": "P123456789", "country": "GB"},
    "personal_number": "QQ123456C",
}


@pytest.fixture(scope="module")
def facts(bank: Stand) -> Iterator[Client]:
    """What anyone reads in `user.events`."""
    client = Client(bank.bootstrap, bank.prefix, ["user.events"])
    yield client
    client.close()


def mailed(facts: Client, kind: type, purpose: Purpose, user_id: str, email: str) -> str:
    """The token that the last such mail carries, as whoever sends it computes it."""
    asked = facts.wait(lambda: facts.said(kind, user_id=user_id, email=email), "the mail")
    return mailed_token(Settings().mail_secret, purpose, user_id, asked[-1].mail_id)


async def email_of(person: Person) -> str:
    return str((await person.get(f"/api/users/{person.user_id}")).json["email"])


async def tokens(people: Town, email: str, password: str = PASSWORD) -> Got:
    words = {"email": email, "password": password}
    return await people.stranger.post("/api/auth/login", words, wait=None)


async def works(person: Person) -> bool:
    got = await person.get("/api/accounts")
    assert got.status in (200, 401)
    return got.status == 200


# the profile


async def test_a_profile_is_changed_by_its_owner(people: Town) -> None:
    alice, bob = await people.customer("alice"), await people.customer("bob")
    path = f"/api/users/{alice.user_id}"
    change = {"name": "Alice L.", "phone": "+441865276150", "language": "en-GB"}
    got = await alice.ask("PATCH", path, change, Prefer="wait=10")
    assert got.status == 200, got.text
    assert change.items() <= got.json.items()
    assert got.json["version"] == 2
    assert (await alice.get(path)).json == got.json
    assert (await alice.ask("PATCH", path, {"phone": ""}, Prefer="wait=10")).json["phone"] is None
    assert (await bob.ask("PATCH", path, change)).status == 404
    admin = await people.admin()
    got = await admin.ask("PATCH", path, {"name": "Alice Liddell"}, Prefer="wait=10")
    assert got.json["name"] == "Alice Liddell"
    assert (await admin.ask("PATCH", path, {"email": "x@y.example"})).status == 404


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "", "REQUIRED"),
        ({"name": None}, "/name", "NOT_ALLOWED"),
        ({"name": ""}, "/name", "TOO_SHORT"),
        ({"email": "nobody"}, "/email", "BAD_EMAIL"),
        ({"phone": "0186 5"}, "/phone", "BAD_FORMAT"),
        ({"language": "English"}, "/language", "BAD_FORMAT"),
        ({"roles": ["admin"]}, "/roles", "UNKNOWN_FIELD"),
    ],
)
async def test_a_profile_that_cannot_be(people: Town, body: Any, pointer: str, code: str) -> None:
    admin = await people.admin()
    got = await admin.ask("PATCH", f"/api/users/{admin.user_id}", body)
    assert got.status == 422
    error = got.json["errors"][0]
    assert (error["pointer"], error["code"]) == (pointer, code)


async def test_another_e_mail(people: Town, facts: Client) -> None:
    alice, bob = await people.customer("alice"), await people.customer("bob")
    former, wanted = await email_of(alice), f"New-{uuid.uuid4().hex[:8]}@people.example"
    path = f"/api/users/{alice.user_id}"
    taken = await alice.ask("PATCH", path, {"email": await email_of(bob)}, Prefer="wait=10")
    assert (taken.status, taken.code) == (409, "EMAIL_TAKEN")
    got = await alice.ask("PATCH", path, {"email": wanted}, Prefer="wait=10")
    assert got.status == 200, got.text
    assert (got.json["email"], got.json["email_confirmed"]) == (wanted, False)
    assert (await tokens(people, wanted.lower())).status == 200

    async def free() -> bool:
        return (await tokens(people, former)).status == 401

    await until(free, "nobody logs in by the former e-mail")
    body = {"email": former, "password": PASSWORD, "name": "Eve"}
    assert (await people.stranger.post("/api/users", body)).status == 201

    token = mailed(facts, EmailConfirmationRequested, Purpose.CONFIRM, alice.user_id, wanted)
    old = mailed(facts, EmailConfirmationRequested, Purpose.CONFIRM, alice.user_id, former)
    confirm = f"{path}/email/confirm"
    assert (await alice.post(confirm, {"token": old})).code == "TOKEN_INVALID"
    assert (await bob.post(confirm, {"token": token})).status == 404
    done = await alice.post(confirm, {"token": token})
    assert (done.status, done.json["email_confirmed"]) == (200, True)
    assert (await alice.post(confirm)).json["email_confirmed"] is True


async def test_another_e_mail_needs_a_fresh_login_or_the_password(people: Town) -> None:
    alice = await people.customer("alice")
    path = f"/api/users/{alice.user_id}"
    body = {"email": f"{uuid.uuid4().hex}@people.example"}
    stale = Person(alice.session, alice.url, forged(sub=alice.user_id, roles=["customer"]))
    got = await stale.ask("PATCH", path, body)
    assert (got.status, got.json["errors"][0]["pointer"]) == (422, "/current_password")
    wrong = await stale.ask("PATCH", path, {**body, "current_password": "a wrong one"})
    assert wrong.json["errors"][0]["code"] == "WRONG_PASSWORD"
    right = {**body, "current_password": PASSWORD}
    assert (await stale.ask("PATCH", path, right, Prefer="wait=10")).status == 200


# sessions


async def test_a_refresh_token_is_good_once(people: Town) -> None:
    alice = await people.customer("alice")
    first = (await tokens(people, await email_of(alice))).json
    spare = {"refresh_token": first["refresh_token"]}
    got = await people.stranger.post("/api/auth/refresh", spare, wait=None)
    assert got.status == 200, got.text
    members = {"access_token", "refresh_token", "token_type", "expires_in"}
    assert members <= got.json.keys()
    newest = Person(alice.session, alice.url, got.json["access_token"])
    assert await works(newest)
    reused = await people.stranger.post("/api/auth/refresh", spare, wait=None)
    assert (reused.status, reused.code) == (401, "TOKEN_REUSED")
    again = {"refresh_token": got.json["refresh_token"]}
    assert (await people.stranger.post("/api/auth/refresh", again, wait=None)).status == 401
    await until(lambda: _ended(newest), "the access token is no good either")
    assert await works(alice), "another session goes on"


async def _ended(person: Person) -> bool:
    return not await works(person)


async def test_a_lost_answer_to_a_refresh_is_had_again_by_its_key(people: Town) -> None:
    alice = await people.customer("alice")
    first = (await tokens(people, await email_of(alice))).json
    spare, key = {"refresh_token": first["refresh_token"]}, {"Idempotency_Key": "one"}
    one = await people.stranger.post("/api/auth/refresh", spare, wait=None, **key)
    two = await people.stranger.post("/api/auth/refresh", spare, wait=None, **key)
    assert (one.status, two.status) == (200, 200), two.text
    for got in (one, two):
        alice.token = got.json["access_token"]
        assert await works(alice)
    newest = {"refresh_token": two.json["refresh_token"]}
    assert (await people.stranger.post("/api/auth/refresh", newest, wait=None)).status == 200
    stolen = await people.stranger.post("/api/auth/refresh", spare, wait=None, **key)
    assert stolen.status == 401


async def test_sessions_are_listed_and_ended(people: Town, facts: Client) -> None:
    alice = await people.customer("alice")
    email = await email_of(alice)
    others = [
        Person(alice.session, alice.url, (await tokens(people, email)).json["access_token"])
        for _ in range(3)
    ]

    async def opened() -> Any:
        """A login that took its time is answered before its session is seen."""
        items = (await alice.get("/api/sessions")).json["items"]
        return items if len(items) == 4 else None

    items = await until(opened, "all four sessions")
    assert [one["current"] for one in items] == [False, False, False, True]
    newest = items[0]["session_id"]
    bob = await people.customer("bob")
    assert (await bob.ask("DELETE", f"/api/sessions/{newest}")).status == 404
    ended = await alice.ask("DELETE", f"/api/sessions/{newest}", Prefer="wait=10")
    assert (ended.status, ended.json) == (200, {"status": "ended"})
    assert not await works(others[2])
    assert [await works(one) for one in (alice, *others[:2])] == [True] * 3
    ended = await alice.ask("DELETE", "/api/sessions?others=true", Prefer="wait=10")
    assert ended.status == 200, ended.text
    assert [await works(one) for one in (alice, *others)] == [True, False, False, False]
    assert len((await alice.get("/api/sessions")).json["items"]) == 1
    assert (await alice.ask("DELETE", "/api/sessions", Prefer="wait=10")).status == 200
    assert not await works(alice)
    facts.wait(lambda: facts.said(SessionEnded, session_id=newest), "everybody hears of it")


async def test_a_role_holds_at_once(people: Town) -> None:
    alice, admin = await people.customer("alice"), await people.admin()
    assert (await alice.get("/api/risk/reviews")).status == 403
    path = f"/api/users/{alice.user_id}/roles"
    assert (await admin.post(path, {"roles": ["customer", "compliance"]})).status == 200
    await until(lambda: _reads(alice, 200), "the token that she has")
    assert (await admin.post(path, {"roles": ["customer"]})).status == 200
    await until(lambda: _reads(alice, 403), "and no more")


async def _reads(person: Person, status: int) -> bool:
    return (await person.get("/api/risk/reviews")).status == status


# passwords


async def test_another_password(people: Town) -> None:
    alice, bob = await people.customer("alice"), await people.customer("bob")
    email = await email_of(alice)
    other = Person(alice.session, alice.url, (await tokens(people, email)).json["access_token"])
    path = f"/api/users/{alice.user_id}/password"
    change = {"current_password": PASSWORD, "new_password": OTHER}
    assert (await bob.post(path, change)).status == 404
    assert (await (await people.admin()).post(path, change)).status == 404
    wrong = await alice.post(path, {**change, "current_password": "not hers"})
    assert wrong.json["errors"][0]["code"] == "WRONG_PASSWORD"
    for new, code in (("short", "TOO_SHORT"), (PASSWORD, "SAME_PASSWORD"), ("x" * 300, "TOO_LONG")):
        got = await alice.post(path, {**change, "new_password": new})
        assert (got.status, got.json["errors"][0]["code"]) == (422, code)
    got = await alice.post(path, change)
    assert got.status == 200, got.text
    assert [await works(one) for one in (alice, other)] == [True, False]
    assert (await tokens(people, email)).status == 401
    assert (await tokens(people, email, OTHER)).status == 200


async def test_every_byte_of_a_long_password_counts(people: Town) -> None:
    """bcrypt itself reads 72 bytes."""
    alice = await people.customer("alice")
    email, long = await email_of(alice), "é" * 100
    change = {"current_password": PASSWORD, "new_password": long}
    assert (await alice.post(f"/api/users/{alice.user_id}/password", change)).status == 200
    assert (await tokens(people, email, long)).status == 200
    assert (await tokens(people, email, "é" * 99 + "e")).status == 401


async def test_a_forgotten_password(people: Town, facts: Client) -> None:
    alice = await people.customer("alice")
    email, path = await email_of(alice), "/api/auth/password-reset"
    for one in (email, f"nobody-{email}"):
        got = await people.stranger.post(path, {"email": one}, wait=None)
        assert (got.status, got.json) == (202, {"status": "pending"})
    token = mailed(facts, PasswordResetRequested, Purpose.RESET, alice.user_id, email)
    for bad in ("x", f"{alice.user_id}.{'0' * 64}", f"{uuid.uuid4()}.{'0' * 64}"):
        got = await people.stranger.post(path, {"token": bad, "new_password": OTHER}, wait=None)
        assert (got.status, got.code) == (422, "TOKEN_INVALID")
    done = await people.stranger.post(path, {"token": token, "new_password": OTHER}, wait=None)
    assert done.status == 204, done.text
    again = await people.stranger.post(path, {"token": token, "new_password": PASSWORD}, wait=None)
    assert (again.status, again.code) == (422, "TOKEN_INVALID")
    assert (await tokens(people, email, OTHER)).status == 200
    assert (await tokens(people, email)).status == 401
    await until(lambda: _ended(alice), "her sessions have ended")


@pytest.mark.parametrize("body", [{}, {"email": "a@b.example", "token": "x"}, {"token": "x"}])
async def test_a_reset_that_says_too_little_or_too_much(people: Town, body: Any) -> None:
    got = await people.stranger.post("/api/auth/password-reset", body, wait=None)
    assert (got.status, got.json["errors"][0]["code"]) == (422, "REQUIRED")


async def test_guessing_a_password_is_slow(people: Town) -> None:
    """Right or wrong, known or not: beyond so many wrong ones nothing is looked at."""
    alice = await people.customer("alice")
    email = await email_of(alice)
    for one in (email, f"nobody-{uuid.uuid4()}@people.example"):
        wrong = [(await tokens(people, one, "a wrong one")).status for _ in range(11)]
        assert wrong == [401] * 10 + [429]
        over = await tokens(people, one)
        assert (over.status, over.code) == (429, "RATE_LIMITED")
        assert 1 <= int(over.headers["Retry-After"]) <= 91


# KYC


async def test_an_officer_decides_who_someone_is(people: Town) -> None:
    alice, officer = await people.customer("alice"), await people.staff("compliance")
    path = f"/api/users/{alice.user_id}/kyc"
    nothing = (await alice.get(path)).json
    assert (nothing["level"], nothing["status"], nothing["details"]) == (0, "unverified", None)
    got = await alice.post(path, FULL)
    assert (got.status, got.json["status"], got.json["requested_level"]) == (200, "pending", 2)
    assert got.json["details"] is None
    assert (await alice.get(path)).json["details"]["document_number"] == "******6789"
    assert (await officer.get(path)).json["details"]["document_number"] == "P123456789"
    assert (await alice.post(path, FULL)).code == "KYC_PENDING"
    waiting = await officer.get("/api/kyc?limit=200")
    assert alice.user_id in [one["user_id"] for one in waiting.json["items"]]
    decision = f"{path}/decision"
    rejected = await officer.post(decision, {"decision": "reject", "note": "blurred"})
    assert (rejected.status, rejected.json["status"]) == (200, "rejected")
    assert (await alice.get(path)).json["note"] == "blurred"
    assert (await alice.post(path, FULL)).status == 200
    basic = await officer.post(decision, {"decision": "approve", "level": 1})
    assert (basic.json["status"], basic.json["level"]) == ("verified", 1)
    known = (await alice.get(f"/api/users/{alice.user_id}")).json["kyc"]
    assert known == {"level": 1, "status": "verified"}
    assert (await officer.post(decision, {"decision": "reject"})).code == "KYC_NOT_PENDING"
    assert (await alice.post(path, BASIC)).code == "KYC_LEVEL_HELD"


async def test_who_may_see_and_decide_kyc(people: Town) -> None:
    alice, bob = await people.customer("alice"), await people.customer("bob")
    support, officer = await people.staff("support"), await people.staff("compliance", "customer")
    path = f"/api/users/{alice.user_id}/kyc"
    assert (await alice.post(path, BASIC)).status == 200
    for person in (bob, support):
        assert (await person.get(path)).status == 404
        assert (await person.post(f"{path}/decision", {"decision": "approve"})).status == 403
        assert (await person.get("/api/kyc")).status == 403
    assert (await bob.post(path, BASIC)).status == 404
    own = f"/api/users/{officer.user_id}/kyc"
    assert (await officer.post(own, BASIC)).status == 200
    got = await officer.post(f"{own}/decision", {"decision": "approve"})
    assert (got.status, got.code) == (422, "OWN_CASE")


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"level": 3}, "/level", "TOO_LARGE"),
        ({"level": 2}, "/document", "REQUIRED"),
        ({"date_of_birth": "1992-02-30"}, "/date_of_birth", "BAD_DATE"),
        ({"date_of_birth": "1990-W01-1"}, "/date_of_birth", "BAD_DATE"),
        ({"date_of_birth": "2999-01-01"}, "/date_of_birth", "BAD_DATE"),
        ({"country": "gb"}, "/country", "COUNTRY_UNKNOWN"),
        ({"country": "GB\n"}, "/country", "COUNTRY_UNKNOWN"),
        ({"full_name": "\u0000"}, "/full_name", "CONTROL_CHARACTER"),
        ({"document": {"kind": "card"}}, "/document/kind", "UNKNOWN_VALUE"),
    ],
)
async def test_kyc_that_cannot_be(people: Town, change: Any, pointer: str, code: str) -> None:
    admin = await people.admin()
    got = await admin.post(f"/api/users/{admin.user_id}/kyc", {**BASIC, **change})
    assert got.status == 422
    assert (pointer, code) in [(one["pointer"], one["code"]) for one in got.json["errors"]]


async def test_nothing_personal_of_kyc_is_in_an_event_or_a_log(
    people: Town, bank: Stand, facts: Client
) -> None:
    alice, secret = await people.customer("alice"), f"N{uuid.uuid4().hex[:12]}"
    body = {**FULL, "personal_number": secret, "document": {**FULL["document"], "number": secret}}
    assert (await alice.post(f"/api/users/{alice.user_id}/kyc", body)).status == 200
    facts.read(1.0)
    assert len(facts.seen) > 0
    assert not [one for one in facts.seen if secret.encode() in (one.value() or b"")]
    for child in bank.children.values():
        assert secret not in child.log.read_text()


# all on one page


async def test_an_overview(people: Town) -> None:
    alice, bob = await people.customer("alice"), await people.customer("bob")
    account_id, admin = await alice.open("USD"), await people.admin()
    assert (
        await admin.pay(type="deposit", amount=500, destination_account_id=account_id)
    ).status == 201
    path = f"/api/users/{alice.user_id}/overview"
    got = await alice.get(path)
    assert got.status == 200, got.text
    assert got.json["profile"] == (await alice.get(f"/api/users/{alice.user_id}")).json
    assert [one["account_id"] for one in got.json["accounts"]] == [account_id]
    assert [one["amount"] for one in got.json["transactions"]] == [500]
    assert got.json["permissions"] == ["own"]
    for part in got.json["unavailable"]:
        assert got.json[part] is None
    assert (await bob.get(path)).status == 404
    assert (await admin.get(path)).json["profile"]["name"] == "alice"
