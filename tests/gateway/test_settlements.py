"""Settlement over HTTP on the real stack: a day is closed, its transfer instructed, the bank's word held against it."""

from __future__ import annotations

import asyncio
import uuid
from datetime import date, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import xmlschema

from gateway.settlements import transfer_of
from settings import Settings
from tests.gateway.stand import until
from tests.gateway.test_payments import card

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Town

SCHEMA = xmlschema.XMLSchema(str(files("sepaxml") / "schemas" / "pain.001.001.09.xsd"))
PAIN = {"p": "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"}
ENTRY = (
    '<Ntry><Amt Ccy="{currency}">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>'
    "<BookgDt><Dt>2026-11-27</Dt></BookgDt><NtryDtls><TxDtls><Refs><EndToEndId>{id}</EndToEndId>"
    "</Refs></TxDtls></NtryDtls></Ntry>"
)


def camt(currency: str, **entries: str) -> bytes:
    """The bank's own account: amounts that came in, by EndToEndId."""
    lines = "".join(
        ENTRY.format(currency=currency, amount=amount, id=name) for name, amount in entries.items()
    )
    return (
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>'
        f"<Stmt><Id>1</Id><Acct><Ccy>{currency}</Ccy></Acct>{lines}</Stmt>"
        "</BkToCstmrStmt></Document>"
    ).encode()


@pytest.mark.parametrize(
    ("closed", "on"),
    [
        ("2026-11-26T17:15:00+00:00", "2026-11-27"),  # by itself, a quarter past six
        ("2026-11-26T09:00:00+00:00", "2026-11-27"),  # by a run
        ("2026-11-25T20:00:00+00:00", "2026-11-27"),  # on the evening that belongs to it
        ("2026-11-27T22:59:59+00:00", "2026-11-30"),  # a day late, over a weekend
        ("2026-11-29T12:00:00+00:00", "2026-11-30"),
        ("2026-12-01T22:59:59+00:00", "2026-12-02"),
        ("2026-12-01T23:00:00+00:00", "2026-12-03"),  # midnight by the bank's clock
    ],
)
def test_a_transfer_is_asked_for_on_a_day_that_is_to_come(closed: str, on: str) -> None:
    row = {
        "batch_id": "sandbox.EUR.2026-11-26",
        "currency": "EUR",
        "day": "2026-11-26",
        "net_minor": 2_500,
        "closed_ms": int(datetime.fromisoformat(closed).timestamp() * 1000),
    }
    assert transfer_of(row, Settings()).on == date.fromisoformat(on)


async def charged(people: Town, operator: Person, currency: str, *amounts: int) -> dict[str, Any]:
    """Cards are charged through the provider; the open settlement that has them."""
    alice = await people.customer("alice")
    account_id, method_id = await alice.open(currency), await card(alice)
    for amount in amounts:
        body = {
            "amount": amount,
            "currency": currency,
            "payment_method_id": method_id,
            "destination_account_id": account_id,
        }
        paid = await alice.post("/api/payments", body, Idempotency_Key=str(uuid.uuid4()))
        assert paid.status == 201, paid.text

    async def there() -> Any:
        found = await operator.get(f"/api/settlements?currency={currency}&status=open")
        settled = found.json["items"]
        return settled[0] if settled and settled[0]["items"] == len(amounts) else None

    found: dict[str, Any] = await until(there, "the charges are in a settlement")
    return found


async def upload(person: Person, settlement_id: str, data: bytes, **headers: str) -> Got:
    given = {"Content_Type": "application/xml", "Prefer": "wait=20", **headers}
    path = f"/api/settlements/{settlement_id}/statement"
    return await person.ask("POST", path, data=data, **given)


async def test_a_day_is_closed_instructed_and_reconciled(people: Town) -> None:
    operator = await people.staff("operator")
    first = await charged(people, operator, "NOK", 1000, 2500)
    second = await charged(people, operator, "SEK", 700)
    one, other = first["settlement_id"], second["settlement_id"]
    assert (first["received"], first["paid"], first["net"]) == (3500, 0, 3500)
    path = f"/api/settlements/{one}"
    early = await operator.get(f"{path}/instruction")
    assert (early.status, early.code) == (422, "SETTLEMENT_OPEN")
    early = await upload(operator, one, camt("NOK", rent="1"))
    assert (early.status, early.code) == (422, "SETTLEMENT_OPEN")

    # a run closes what is open, and what is closed stays as it is however often it is run
    body = {"day": first["day"]}
    tomorrow = await operator.post("/api/settlements/run", {"day": "2999-01-01"})
    assert (tomorrow.status, tomorrow.code) == (422, "INVALID_COMMAND")
    runs = [
        await operator.post("/api/settlements/run", body, Idempotency_Key=name)
        for name in ("end of day", "end of day", "again")
    ]
    assert [run.status for run in runs] == [200, 200, 200], runs[0].text
    assert {one, other} <= {*runs[0].json["closed"]}
    assert (runs[1].json, runs[2].json["closed"]) == (runs[0].json, [])
    assert (await operator.get(runs[0].headers["Location"])).json == runs[0].json
    closed = (await operator.get(path)).json
    assert (closed["status"], closed["run_id"]) == ("closed", runs[0].json["run_id"])
    items = await operator.get(f"{path}/items?limit=1")
    assert [item["amount"] for item in items.json["items"]] == [1000]
    more = await operator.get(f"{path}/items?limit=1&cursor={items.json['next_cursor']}")
    assert ([item["amount"] for item in more.json["items"]], more.json["next_cursor"]) == (
        [2500],
        None,
    )

    # the provider's bank is told to pay us
    told = await operator.get(f"{path}/instruction")
    assert (told.status, told.headers["Content-Type"]) == (200, "application/xml")
    SCHEMA.validate(told.text)
    order = ET.fromstring(told.text)
    assert order.findtext(".//p:InstdAmt", namespaces=PAIN) == "35.00"
    assert order.findtext(".//p:EndToEndId", namespaces=PAIN) == closed["transfer_id"]
    assert order.findtext(".//p:DbtrAcct/p:Id/p:IBAN", namespaces=PAIN) == "NL91ABNA0417164300"
    assert (await operator.get(f"{path}/instruction")).text == told.text

    # the bank says what came: of one it agrees, of the other it does not, until it does
    agreed = await upload(
        operator, one, camt("NOK", **{closed["transfer_id"]: "35.00", "rent": "1"})
    )
    assert (agreed.status, agreed.json["status"], agreed.json["breaks"]) == (200, "reconciled", [])
    assert (await upload(operator, one, camt("NOK", rent="1"))).code == "SETTLEMENT_RECONCILED"
    wrong = camt("SEK", **{second["transfer_id"]: "6.99", "sandbox.SEK.2019-12-30": "5"})
    for data in (b"<Document>", b"a,b\n1,2\n", b"", camt("NOK"), camt("NOK", rent="1")):
        broken = await upload(operator, other, data)
        assert (broken.status, broken.code) == (422, "STATEMENT_UNREADABLE"), data
    assert (await operator.get(f"/api/settlements/{other}")).json["status"] == "closed"
    differs = await upload(operator, other, wrong, Idempotency_Key="s1")
    assert (differs.status, differs.json["status"]) == (200, "broken")
    kinds = [(one["kind"], one["ours"], one["theirs"]) for one in differs.json["breaks"]]
    assert kinds == [("amount_differs", 700, 699), ("missing_here", None, 500)]
    seen = await operator.get(f"/api/settlements/{other}?limit=1")
    assert (len(seen.json["breaks"]), seen.json["break_count"]) == (1, 2)
    again = await upload(operator, other, wrong, Idempotency_Key="s1")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    missing = await upload(operator, other, camt("SEK", rent="1"), Idempotency_Key="s2")
    assert [one["kind"] for one in missing.json["breaks"]] == ["missing_there"]
    right = await upload(operator, other, camt("SEK", **{second["transfer_id"]: "7.00"}))
    assert (right.json["status"], right.json["break_count"]) == ("reconciled", 0)
    listed = await operator.get("/api/settlements?currency=SEK&status=reconciled")
    assert [one["settlement_id"] for one in listed.json["items"]] == [other]

    # what comes now is in the next business day's
    later = await charged(people, operator, "NOK", 100)
    assert later["day"] > first["day"]


async def test_who_may_and_what_is_no_run(people: Town) -> None:
    operator, analyst, alice = await asyncio.gather(
        people.staff("operator"), people.staff("analyst", "support"), people.customer("alice")
    )
    nowhere = "/api/settlements/sandbox.XAF.2026-01-02"
    for person in (analyst, alice):
        asked = [
            await person.get("/api/settlements"),
            await person.get(nowhere),
            await person.post("/api/settlements/run", {}),
            await upload(person, "sandbox.XAF.2026-01-02", camt("XAF")),
        ]
        assert {got.code for got in asked} == {"FORBIDDEN"}
    for path in (nowhere, f"{nowhere}/items", f"{nowhere}/instruction"):
        assert (await operator.get(path)).code == "NOT_FOUND"
    for body in (
        {"day": "2026-02-30"},
        {"day": "20260301"},
        {"day": 1},
        {"day": None, "all": True},
    ):
        got = await operator.post("/api/settlements/run", body)
        assert got.status == 422, got.text
    assert (await operator.post("/api/settlements/run", [])).status == 422
    assert (await operator.get("/api/settlements?status=lost")).code == "BAD_QUERY"
