"""The past and SQL over HTTP: right, bounded, for those who may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from domain.user import Role
from tests.gateway.test_end_to_end import deposit, funded

if TYPE_CHECKING:
    from tests.gateway.stand import Town


async def test_an_account_at_a_past_time(people: Town) -> None:
    ann, account_id = await funded(people, "ann", 700)
    before = (await ann.ask("GET", f"/api/accounts/{account_id}")).json
    await asyncio.sleep(0.05)
    await deposit(people, account_id, 300)
    path = f"/api/accounts/{account_id}?at="
    then = await ann.ask("GET", path + before["updated_at"])
    assert then.status == 200
    assert then.json == before
    now = (await ann.ask("GET", f"/api/accounts/{account_id}")).json
    assert now["balances"][0]["amount"] == 1_000
    assert (await ann.ask("GET", path + now["updated_at"])).json == now
    assert (await ann.ask("GET", path + "2001-01-01T00:00:00Z")).status == 404
    for wrong in ("yesterday", "2999-01-01T00:00:00Z", ""):
        got = await ann.ask("GET", path + wrong)
        assert (got.status, got.code) == (400, "BAD_QUERY")
    bob = await people.customer("bob")
    assert (await bob.ask("GET", path + before["updated_at"])).status == 404


async def test_a_row_of_a_table(people: Town) -> None:
    ann, account_id = await funded(people, "ann", 700)
    analyst = await people.staff(Role.ANALYST)
    path = f"/api/tables/accounts/{account_id}"
    now = await analyst.ask("GET", path)
    assert now.json["row"]["balances"] == {"USD": 700}
    then = await analyst.ask("GET", f"{path}?at=2001-01-01T00:00:00Z")
    assert then.status == 404
    money = (await analyst.ask("GET", "/api/tables/ledger/world%2FUSD")).json["row"]
    assert money["account"] == "world"
    assert (await analyst.ask("GET", "/api/tables/credentials/x")).status == 404
    assert (
        await analyst.ask("GET", f"/api/tables/users/..%2Fcredentials%2F{ann.user_id}")
    ).status == 404
    assert (await ann.ask("GET", path)).status == 403


async def test_sql(people: Town) -> None:
    ann, account_id = await funded(people, "ann", 700)
    analyst = await people.staff(Role.ANALYST)
    sql = f"SELECT amount_minor, currency FROM balances WHERE account_id = '{account_id}'"
    got = await analyst.ask("POST", "/api/query", {"sql": sql})
    assert got.json == {
        "columns": [
            {"name": "amount_minor", "type": "BIGINT"},
            {"name": "currency", "type": "VARCHAR"},
        ],
        "rows": [[700, "USD"]],
        "truncated": False,
    }
    then = await analyst.ask("POST", "/api/query", {"sql": sql, "at": "2001-01-01T00:00:00Z"})
    assert then.json["rows"] == []
    assert (await ann.ask("POST", "/api/query", {"sql": sql})).status == 403


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"sql": "DROP TABLE accounts"}, "SQL_REFUSED"),
        ({"sql": "SELECT * FROM read_text('/etc/passwd')"}, "SQL_REFUSED"),
        ({"sql": "SELECT"}, "SQL_REFUSED"),
        ({"sql": "SELECT 1", "at": "2999-01-01T00:00:00Z"}, "INVALID_BODY"),
        ({"sql": "SELECT 1", "limit": 5}, "INVALID_BODY"),
        ({"sql": 5}, "INVALID_BODY"),
    ],
)
async def test_what_sql_may_not(people: Town, body: dict[str, object], code: str) -> None:
    analyst = await people.staff(Role.ANALYST)
    got = await analyst.ask("POST", "/api/query", body)
    assert (got.status, got.code) == (422, code)


async def test_too_much_at_once(people: Town) -> None:
    analyst = await people.staff(Role.ANALYST)
    slow = {"sql": "SELECT count(*) FROM range(300000000) a, range(2) b WHERE hash(a.range) = 1"}
    got = await asyncio.gather(*[analyst.ask("POST", "/api/query", slow) for _ in range(14)])
    away = [one for one in got if one.status == 503]
    assert len(away) == 4
    assert all(one.headers["Retry-After"] for one in away)
    assert all(one.code == "OVERLOADED" for one in away)
    assert {one.status for one in got} <= {200, 422, 503}
