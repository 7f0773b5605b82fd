"""Statements over HTTP: they add up, in each format, from the log and from the stores."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pypdfium2
import pytest

from domain.bank_day import bank_day
from tests.gateway.stand import until
from tests.gateway.test_end_to_end import deposit, funded

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Town


def raw(got: Got) -> bytes:
    return got.text.encode(errors="surrogateescape")


def adds_up(statement: Any) -> None:
    for one in statement["balances"]:
        running = one["opening"]
        for entry in statement["entries"]:
            if entry["currency"] == one["currency"]:
                running += entry["amount"]
                assert entry["balance"] == running
        assert running == one["closing"]
        assert one["opening"] + one["credits"] + one["debits"] == one["closing"]


async def busy(people: Town, name: str = "alice") -> tuple[Person, str, list[str]]:
    """Someone with five entries, and the times between them."""
    person, account_id = await funded(people, name, 5_000)
    other = await person.open("USD")
    times = []
    for number in range(3):
        paid = await person.pay(
            amount=100 + number,
            source_account_id=account_id,
            destination_account_id=other,
            description="=1+1" if number else "Rent",
        )
        assert paid.status == 201, paid.text
        times.append(paid.json["completed_at"])
    await deposit(people, account_id, 70)
    return person, account_id, times


async def statement(person: Person, account_id: str, query: str = "") -> Any:
    got = await person.get(f"/api/accounts/{account_id}/statements{query}")
    assert got.status == 200, got.text
    assert got.headers["Content-Type"] == "application/json"
    adds_up(got.json)
    return got.json


async def test_all_since_the_opening_adds_up(people: Town) -> None:
    alice, account_id, _ = await busy(people)
    whole = await statement(alice, account_id)
    assert [entry["amount"] for entry in whole["entries"]] == [5_000, -100, -101, -102, 70]
    assert whole["balances"] == [
        {
            "currency": "USD",
            "opening": 0,
            "credits": 5_070,
            "debits": -303,
            "closing": 4_767,
            "entries": 5,
        }
    ]
    kinds = [entry["type"] for entry in whole["entries"]]
    assert kinds == ["deposit", "transfer", "transfer", "transfer", "deposit"]
    assert whole["entries"][1]["description"] == "Rent"


async def test_a_period_opens_and_closes_with_the_balances_then(people: Town) -> None:
    alice, account_id, times = await busy(people)
    part = await statement(alice, account_id, f"?from={times[0]}&to={times[2]}")
    assert part["balances"][0]["opening"] == 4_900
    assert part["balances"][0]["closing"] in (4_697, 4_799)  # the last one's own millisecond
    at_ms = int(datetime.fromisoformat(times[2]).timestamp() * 1000)
    today = date(1970, 1, 1) + timedelta(days=bank_day(at_ms))  # not always the day in UTC
    whole = await statement(alice, account_id, f"?to={today}")
    assert len(whole["entries"]) == 5
    empty = await statement(alice, account_id, "?from=2020-01-01&to=2020-01-31")
    assert (empty["entries"], empty["balances"][0]["closing"]) == ([], 0)


@pytest.mark.parametrize(
    "query",
    ["?from=yesterday", "?to=2026-02-30", "?from=2999-01-01", "?format=doc", "?since=2026-01-01"],
)
async def test_a_query_that_makes_no_sense(people: Town, query: str) -> None:
    alice = await people.customer("alice")
    account_id = await alice.open("USD")
    got = await alice.get(f"/api/accounts/{account_id}/statements{query}")
    assert (got.status, got.code) == (400, "BAD_QUERY")


async def test_others_see_none_and_staff_does(people: Town) -> None:
    _, account_id, _ = await busy(people)
    mallory, support = await people.customer("mallory"), await people.staff("support")
    path = f"/api/accounts/{account_id}/statements"
    assert (await mallory.get(path)).status == 404
    assert (await mallory.get(f"{path}?format=pdf")).status == 404
    assert (await people.stranger.get(path)).status == 401
    assert len((await statement(support, account_id))["entries"]) == 5


async def test_files_say_the_same(people: Town) -> None:
    alice, account_id, _ = await busy(people)
    path = f"/api/accounts/{account_id}/statements?format="
    day = (await statement(alice, account_id))["from"][:4]
    for kind, media_type in (
        ("csv", "text/csv; charset=utf-8"),
        ("pdf", "application/pdf"),
        ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ):
        got = await alice.get(f"{path}{kind}")
        assert got.headers["Content-Type"] == media_type
        disposition = got.headers["Content-Disposition"]
        pattern = rf'attachment; filename="statement-{account_id}-{day}-.*\.{kind}"'
        assert re.fullmatch(pattern, disposition)
        assert len(raw(got)) == int(got.headers["Content-Length"])
    rows = [*csv.DictReader(io.StringIO((await alice.get(f"{path}csv")).text))]
    assert [row["Balance"] for row in rows] == [
        *("0.00", "50.00", "49.00", "47.99", "46.97", "47.67", "47.67")
    ]
    assert rows[3]["Details"] == "'=1+1"
    book = zipfile.ZipFile(io.BytesIO(raw(await alice.get(f"{path}xlsx"))))
    sheet = book.read("xl/worksheets/sheet2.xml").decode()
    assert "<v>47.67</v>" in sheet
    assert "<f>" not in sheet
    pages = pypdfium2.PdfDocument(raw(await alice.get(f"{path}pdf")))
    text = pages[0].get_textpage().get_text_range()
    assert all(words in text for words in ("Account statement", "Closing balance", "47.67", "Rent"))


async def test_what_is_held_shows_in_the_past_too(people: Town) -> None:
    alice, account_id = await funded(people, "alice", 1_000)
    body = {"account_id": account_id, "amount": 300, "currency": "USD"}
    placed = await alice.post("/api/holds", body, Idempotency_Key="k")
    await alice.post(f"/api/holds/{placed.json['hold_id']}/void")

    async def held() -> bool:
        got = await alice.get(f"/api/accounts/{account_id}?at={placed.json['created_at']}")
        (one,) = got.json["balances"] if got.status == 200 else ({"held": 0},)
        return bool((one["held"], one.get("available")) == (300, 700))

    await until(held, "it was held then")
