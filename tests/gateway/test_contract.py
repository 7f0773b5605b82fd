"""The contract walked through by its table of routes: tokens, roles, 202 and Location, keys, 404.

Whatever any test of the gateway is answered is held against the OpenAPI document (`as_documented`).
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from domain.user import Role
from gateway.routes import ROUTES, Route
from tests.gateway.stand import PASSWORD, until
from tests.gateway.test_end_to_end import deposit, funded

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Town

OPEN = {  # what the contract lets anyone ask
    "POST /api/users",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/logout",
    "POST /api/auth/password-reset",
    "GET /health",
    "GET /readiness",
    "GET /metrics",
    "GET /docs",
    "GET /docs/{asset}",
    "GET /dashboard",
    "GET /dashboard/{asset}",
    "GET /api/openapi.json",
    "GET /api/asyncapi.json",
    "POST /api/payments/webhooks/{provider}",  # signed, not with a token
}


def name(route: Route) -> str:
    return route.name


def somewhere(route: Route) -> str:
    """The route's path, to what is not there."""
    return re.sub(r"\{\w+\}", str(uuid.uuid4()), route.path)


@pytest.mark.parametrize("route", ROUTES, ids=name)
async def test_who_needs_a_token(people: Town, route: Route) -> None:
    got = await people.stranger.ask(route.method, somewhere(route), {} if route.body else None)
    if route.name in OPEN or route.path.startswith(("/subjects", "/schemas")):
        assert route.roles is None
        assert got.status != 401 or route.name == "POST /api/auth/logout"
        return
    assert (got.status, got.code) == (401, "UNAUTHENTICATED")
    assert got.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "route", [one for one in ROUTES if one.roles and Role.CUSTOMER not in one.roles], ids=name
)
async def test_who_needs_a_role(people: Town, route: Route) -> None:
    customer = await people.customer("carl")
    got = await customer.ask(route.method, somewhere(route), {} if route.body else None)
    assert (got.status, got.code) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    "route", [one for one in ROUTES if "_id}" in one.path and one.roles], ids=name
)
async def test_what_is_not_there_may_come(people: Town, route: Route) -> None:
    admin = await people.admin()
    bodies = {
        "decision": {"decision": "approve"},
        "roles": {"roles": ["customer"]},
        "resolve": {"action": "write_off", "amount": 1, "currency": "USD"},
        "password": {"current_password": PASSWORD, "new_password": "another horse"},
        "kyc": {"full_name": "Zoe", "date_of_birth": "1990-01-01", "country": "FR"},
        "{user_id}": {"name": "Zoe"},
    }
    body = bodies.get(route.path.rpartition("/")[2], {}) if route.body else None
    got = await admin.ask(route.method, somewhere(route), body, Idempotency_Key=str(uuid.uuid4()))
    assert (got.status, got.code) == (404, "NOT_FOUND")
    assert int(got.headers["Retry-After"]) >= 1


def accepted(got: Got, id_name: str, location: str) -> str:
    """A 202 as the contract has it; answers the id."""
    assert got.status == 202, got.text
    resource_id = str(got.json[id_name])
    assert got.json["status"] == "pending"
    assert got.headers["Location"] == location.format(resource_id)
    assert "Preference-Applied" not in got.headers
    return resource_id


async def until_there(person: Person, location: str, **members: Any) -> None:
    """The outcome can be read at its Location, and until then 404 says when to ask again."""

    async def there() -> bool:
        got = await person.get(location)
        if got.status == 404:
            assert int(got.headers["Retry-After"]) >= 1
        return got.status == 200 and members.items() <= got.json.items()

    await until(there, f"{location} shows {members}")


async def test_commands_that_nobody_waits_for(people: Town) -> None:
    admin, officer = await people.admin(), await people.staff("compliance")
    words = {"email": f"{uuid.uuid4().hex}@people.example", "password": PASSWORD, "name": "Zoe"}
    got = await people.stranger.post("/api/users", words, wait=None)
    user_id = accepted(got, "user_id", "/api/users/{}")
    await until_there(admin, f"/api/users/{user_id}", name="Zoe")
    zoe = await people.login(words["email"])

    roles = f"/api/users/{user_id}/roles"
    got = await admin.post(roles, {"roles": ["customer", "support"]}, wait=None)
    accepted(got, "user_id", "/api/users/{}")
    await until_there(zoe, f"/api/users/{user_id}", roles=["customer", "support"])

    got = await zoe.post("/api/accounts", {"currencies": ["USD"]}, wait=None)
    account_id = accepted(got, "account_id", "/api/accounts/{}")
    await until_there(zoe, f"/api/accounts/{account_id}", status="open")
    for verb, status in (("freeze", "frozen"), ("unfreeze", "open"), ("close", "closed")):
        got = await admin.post(f"/api/accounts/{account_id}/{verb}", wait=None)
        accepted(got, "account_id", "/api/accounts/{}")
        await until_there(zoe, f"/api/accounts/{account_id}", status=status)

    source, other = await zoe.open("USD"), await zoe.open("USD")
    await deposit(people, source, 100_000)
    order = {"amount": 85_000, "source_account_id": source, "destination_account_id": other}
    held = accepted(await zoe.pay(wait=None, **order), "transaction_id", "/api/transactions/{}")
    await until_there(zoe, f"/api/transactions/{held}", status="pending")

    review_id = f"{user_id}.{held}"
    await until_there(officer, f"/api/risk/reviews/{review_id}", status="open")
    path = f"/api/risk/reviews/{review_id}/decision"
    got = await officer.post(path, {"decision": "decline"}, wait=None)
    accepted(got, "review_id", "/api/risk/reviews/{}")
    await until_there(officer, f"/api/risk/reviews/{review_id}", status="declined")
    await until_there(zoe, f"/api/transactions/{held}", status="failed", reason="REVIEW_DECLINED")

    held = accepted(await zoe.pay(wait=None, **order), "transaction_id", "/api/transactions/{}")
    await until_there(zoe, f"/api/transactions/{held}", status="pending")
    got = await zoe.post(f"/api/transactions/{held}/cancel", wait=None)
    accepted(got, "transaction_id", "/api/transactions/{}")
    await until_there(zoe, f"/api/transactions/{held}", status="cancelled", reason="CANCELLED")
    steps = (await zoe.get(f"/api/transactions/{held}/trace")).json["steps"]
    assert (steps[0]["step"], steps[-1]["outcome"]) == ("validate", "cancelled")

    entry = {"kind": "account", "value": other}
    got = await officer.post("/api/risk/blacklist", entry, wait=None)
    accepted(got, "value", "/api/risk/blacklist")
    got = await officer.ask("DELETE", "/api/risk/blacklist", entry)
    accepted(got, "value", "/api/risk/blacklist")


async def test_a_key_on_any_command(people: Town) -> None:
    alice, source = await funded(people, "alice", 100_000)
    admin, officer = await people.admin(), await people.staff("compliance")
    other = await alice.open("USD")
    order = {"amount": 85_000, "source_account_id": source, "destination_account_id": other}
    held = (await alice.pay(wait=None, **order)).headers["Location"]
    await until_there(alice, held, status="pending")
    commands: list[tuple[Person, str, Any, int]] = [
        (alice, "/api/accounts", {"currencies": ["EUR"]}, 201),
        (admin, f"/api/users/{alice.user_id}/roles", {"roles": ["customer"]}, 200),
        (admin, f"/api/accounts/{other}/freeze", {}, 200),
        (admin, f"/api/accounts/{other}/unfreeze", {}, 200),
        (alice, f"{held}/cancel", {}, 200),
        (officer, "/api/risk/blacklist", {"kind": "user", "value": str(uuid.uuid4())}, 201),
    ]
    for person, path, body, status in commands:
        first = await person.post(path, body, Idempotency_Key="once")
        assert first.status == status, first.text
        assert "Idempotent-Replayed" not in first.headers
        again = await person.post(path, body, Idempotency_Key="once")
        assert (again.status, again.json) == (status, first.json), path
        assert again.headers["Idempotent-Replayed"] == "true"
    changed = await alice.post("/api/accounts", {"currencies": ["USD"]}, Idempotency_Key="once")
    assert (changed.status, changed.code) == (422, "IDEMPOTENCY_MISMATCH")


async def test_the_stream_of_what_is_final_ends_at_once(people: Town) -> None:
    alice, source = await funded(people, "alice", 100)
    got = await alice.pay(type="withdrawal", amount=40, source_account_id=source)
    streamed = await alice.get(f"{got.headers['Location']}/events")
    assert streamed.headers["Content-Type"] == "text/event-stream"
    assert streamed.text.count("event: transaction\n") == 1
    assert f"id: {got.json['version']}\n" in streamed.text
