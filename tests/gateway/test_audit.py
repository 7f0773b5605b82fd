"""Audit over HTTP: who did what, from where; chains that hold; an export that proves itself."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import orjson
import pytest

from proof.chain import WATCHED
from tests.gateway.stand import until
from tests.gateway.test_end_to_end import funded
from travel.export import check

if TYPE_CHECKING:
    from tests.gateway.stand import Person, Town


@pytest.fixture
async def auditor(people: Town) -> Person:
    return await people.staff("compliance")


async def test_a_fact_says_who_did_what_from_where(people: Town, auditor: Person) -> None:
    ada, account_id = await funded(people, "ada", 10_000)
    request_id = uuid.uuid4().hex
    operator = await people.staff("operator")
    path = f"/api/accounts/{account_id}/freeze"
    got = await operator.post(path, {}, X_Request_Id=request_id)
    assert got.status == 200, got.text
    got = await auditor.get(f"/api/audit?entity={account_id}")
    assert got.status == 200, got.text
    opened, credited, frozen = got.json["items"]
    assert [one["type"] for one in (opened, credited, frozen)] == [
        "AccountOpened",
        "AccountCredited",
        "AccountFrozen",
    ]
    assert opened["actor"] == ada.user_id
    assert (frozen["actor"], frozen["address"]) == (operator.user_id, "127.0.0.1")
    assert (frozen["request_id"], frozen["entity"]) == (request_id, account_id)
    assert frozen["data"]["account_id"] == account_id
    assert opened["at"] <= credited["at"] <= frozen["at"]


async def test_the_request_reaches_every_event_of_its_saga(people: Town, auditor: Person) -> None:
    ada, source = await funded(people, "ada", 10_000)
    _, destination = await funded(people, "bob", 0 + 5)
    request_id = uuid.uuid4().hex
    body = {
        "type": "transfer",
        "amount": 700,
        "currency": "USD",
        "source_account_id": source,
        "destination_account_id": destination,
    }
    got = await ada.post(
        "/api/transactions", body, X_Request_Id=request_id, Idempotency_Key=request_id
    )
    assert got.status == 201, got.text
    got = await auditor.get(f"/api/audit?actor={ada.user_id}&limit=200")
    mine = [one for one in got.json["items"] if one["request_id"] == request_id]
    assert {one["service"] for one in mine} >= {"transaction", "risk", "account"}
    assert {one["type"] for one in mine} >= {
        "TransactionCreated",
        "RiskApproved",
        "AccountDebited",
        "AccountCredited",
        "TransactionCompleted",
    }
    assert {one["actor"] for one in mine} == {ada.user_id}
    assert {one["address"] for one in mine} == {"127.0.0.1"}


async def test_a_list_goes_on_and_is_bounded_by_time(people: Town, auditor: Person) -> None:
    _, account_id = await funded(people, "ada", 10_000)
    whole = (await auditor.get(f"/api/audit?entity={account_id}")).json["items"]
    first = await auditor.get(f"/api/audit?entity={account_id}&limit=1")
    assert first.json["items"] == whole[:1]
    cursor = first.json["next_cursor"]
    rest = await auditor.get(f"/api/audit?entity={account_id}&cursor={cursor}")
    assert (rest.json["items"], rest.json["next_cursor"]) == (whole[1:], None)
    path = f"/api/audit?entity={account_id}&from={whole[1]['at']}"
    assert (await auditor.get(path)).json["items"] == whole[1:]
    path = f"/api/audit?entity={account_id}&to={whole[1]['at']}"
    assert (await auditor.get(path)).json["items"] == whole[:1]


@pytest.mark.parametrize("role", ["support", "operator", "analyst"])
@pytest.mark.parametrize("path", ["", "/verify", "/export"])
async def test_other_roles_are_refused(people: Town, role: str, path: str) -> None:
    got = await (await people.staff(role)).get(f"/api/audit{path}")
    assert (got.status, got.code) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    "query",
    [
        "?from=yesterday",
        "?to=2026-01-01",
        "?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "?entity=",
        "?entity=" + "x" * 201,
        "?who=me",
        "?limit=0",
        "?cursor=!",
    ],
)
async def test_malformed_queries(people: Town, query: str) -> None:
    got = await (await people.admin()).get(f"/api/audit{query}")
    assert (got.status, got.code) == (400, "BAD_QUERY")


async def test_the_chains_hold(people: Town, auditor: Person) -> None:
    _, account_id = await funded(people, "ada", 10_000)

    async def intact() -> bool:
        got = await auditor.get("/api/audit/verify")
        assert got.status == 200, got.text
        assert got.json["intact"], got.text
        return bool(got.json["entries"] and not got.json["waiting"])

    await until(intact, "all is chained", 60)
    got = await auditor.get(f"/api/audit/export?entity={account_id}")
    assert got.status == 200
    assert got.headers["Content-Type"] == "application/x-ndjson"
    lines = got.text.encode().splitlines()
    done = check(lines)
    assert done.wrong == []
    assert done.entries == 2
    chains = {orjson.loads(line).get("chain", "-").rpartition("-")[0] for line in lines}
    assert chains - {""} <= set(WATCHED)
    assert check(lines[:-1]).wrong
    other = [line.replace(b'"AccountOpened"', b'"AccountClosed"') for line in lines]
    assert check(other).wrong == [], "the decoded event is for people: the value is the proof"
    other = [line.replace(b'"actor":"', b'"actor":"x', 1) for line in lines]
    assert len(check(other).wrong) == 2
