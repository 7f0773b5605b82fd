"""Reports over HTTP on the real stack: asked for once or by cron, taken along as CSV, XLSX and PDF."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from zipfile import ZipFile

import pypdfium2
import pytest

from domain.reporting import Operator, Period, Source
from gateway import reports_models
from reports.files import rows

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Stand, Town

TODAY = {"from": "2026-01-01T00:00:00Z"}
FORMULA = '=HYPERLINK("http://evil.example","pay")'


def entries_of(*accounts: str, **more: Any) -> dict[str, Any]:
    return {
        "title": "Entries",
        "source": "accounts",
        "columns": ["account_id", "name", "currency", "balance", "opened_at"],
        "filters": [{"column": "account_id", "value": account} for account in accounts],
        **TODAY,
        **more,
    }


async def made(person: Person, body: dict[str, Any], **headers: str) -> Got:
    got = await person.post("/api/reports", body, wait=30, **headers)
    assert got.status == 201, got.text
    return got


def kept(directory: Path, report_id: str) -> Path:
    (file,) = directory.glob(f"{hashlib.sha256(report_id.encode()).hexdigest()}-*.parquet")
    return file


async def download(person: Person, report_id: str, kind: str) -> bytes:
    got = await person.get(f"/api/reports/{report_id}/download?format={kind}")
    assert got.status == 200, got.text
    assert f".{kind}" in got.headers["Content-Disposition"]
    return got.text.encode(errors="surrogateescape")


async def test_a_report_as_csv_xlsx_and_pdf(people: Town, bank: Stand, tmp_path: Path) -> None:
    analyst, operator = await asyncio.gather(people.staff("analyst"), people.staff("operator"))
    alice = await people.customer("alice")
    account_id = await alice.open("USD", name=FORMULA)
    for amount in (10_050, 1):
        paid = await operator.pay(type="deposit", amount=amount, destination_account_id=account_id)
        assert paid.status == 201, paid.text
    got = await made(analyst, entries_of(account_id), Idempotency_Key="one")
    report_id = got.json["report_id"]
    assert (got.json["status"], got.json["rows"], got.json["attempt"]) == ("completed", 1, 1)
    again = await analyst.post("/api/reports", entries_of(account_id), Idempotency_Key="one")
    assert (again.json, again.headers["Idempotent-Replayed"]) == (got.json, "true")
    assert (await operator.get(got.headers["Location"])).json == got.json

    # what a spreadsheet would take for a formula is text
    text = (await download(analyst, report_id, "csv")).decode("utf-8-sig")
    (line,) = [row for row in csv.reader(io.StringIO(text)) if account_id in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in line)
    assert any(FORMULA in cell for cell in line)
    assert "100.51" in line
    with ZipFile(io.BytesIO(await download(analyst, report_id, "xlsx"))) as book:
        sheets = "".join(
            book.read(name).decode() for name in book.namelist() if "worksheets/sheet" in name
        )
    assert "<v>100.51</v>" in sheets  # a number
    assert "<f>" not in sheets

    # the file is a function of the logs: gone, it is made again and says the same
    directory = Path(bank.environment["STREAMBANK_REPORTS_DIR"])
    file = kept(directory, report_id)
    before = list(rows(file))
    await operator.pay(type="deposit", amount=999, destination_account_id=account_id)
    file.unlink()
    assert (await download(analyst, report_id, "csv")).decode("utf-8-sig") == text
    assert list(rows(file)) == before

    # grouped, with a chart
    grouped = {
        "title": "Transactions of the bank",
        "source": "transactions",
        "columns": ["amount", "fee"],
        "group_by": ["type", "status"],
        **TODAY,
    }
    summed = await made(analyst, grouped)
    written = await download(analyst, summed.json["report_id"], "pdf")
    (tmp_path / "report.pdf").write_bytes(written)
    document = pypdfium2.PdfDocument(tmp_path / "report.pdf")
    said = document[0].get_textpage().get_text_range()
    assert "Transactions of the bank" in said
    assert "deposit" in said
    if keep := os.environ.get("KEEP_PICTURE"):
        document[0].render(scale=1.5).to_pil().save(keep)


async def test_rows_are_those_of_the_period_and_the_filters(people: Town) -> None:
    operator, alice = await asyncio.gather(people.staff("operator"), people.customer("alice"))
    account_id = await alice.open("USD")
    for amount in (100, 200, 300):
        await operator.pay(type="deposit", amount=amount, destination_account_id=account_id)
    body = {
        "title": "Deposits",
        "source": "entries",
        "columns": ["account", "amount"],
        "filters": [
            {"column": "account", "value": account_id},
            {"column": "amount", "operator": "ge", "value": "200"},
        ],
        **TODAY,
    }
    got = await made(operator, body)
    text = (await download(operator, got.json["report_id"], "csv")).decode("utf-8-sig")
    amounts = [row[1] for row in csv.reader(io.StringIO(text)) if row and row[0] == account_id]
    assert amounts == ["2.00", "3.00"]
    past = await made(operator, {**body, "from": "2026-01-01", "to": "2026-01-31"})
    assert past.json["rows"] == 0
    assert past.json["to"] == "2026-01-31T23:00:00.000Z"  # the end of the day, in the bank's zone


def definition(**more: Any) -> dict[str, Any]:
    return {"title": "T", "source": "accounts", "columns": ["account_id"], **TODAY, **more}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (definition(source="passwords"), "/source"),
        (definition(columns=["password"]), "/columns/0"),
        (definition(columns=['account_id" FROM users --']), "/columns/0"),
        (definition(columns=[]), "/columns"),
        (definition(columns=["name", "name"]), "/columns"),
        (definition(group_by=["balance"]), "/group_by/0"),
        (definition(filters=[{"column": "no", "value": "1"}]), "/filters/0/column"),
        (definition(filters=[{"column": "balance", "value": "1.5"}]), "/filters/0/value"),
        (
            definition(filters=[{"column": "name", "operator": "like", "value": "x"}]),
            "/filters/0/operator",
        ),
        (definition(title=""), "/title"),
        (definition(sql="SELECT 1"), "/sql"),
        ({"title": "T", "source": "accounts", "columns": ["name"]}, "/from"),
    ],
)
async def test_what_is_no_report(people: Town, body: dict[str, Any], pointer: str) -> None:
    admin = await people.admin()
    got = await admin.post("/api/reports", body)
    assert got.status == 422, got.text
    assert pointer in [error["pointer"] for error in got.json["errors"]]


async def test_who_may_and_what_is_not_there(people: Town) -> None:
    compliance, alice, support = await asyncio.gather(
        people.staff("compliance"), people.customer("alice"), people.staff("support")
    )
    plan = {**definition(), "cron": "0 6 * * *", "period": "day"}
    del plan["from"]
    for person in (alice, support):
        asked = [
            await person.get("/api/reports"),
            await person.post("/api/reports", definition()),
            await person.post("/api/report-schedules", plan),
        ]
        assert {got.code for got in asked} == {"FORBIDDEN"}
    for path in ("/api/reports/x", "/api/reports/x/download", "/api/report-schedules/x"):
        assert (await compliance.get(path)).code == "NOT_FOUND"
    for wrong in ({"from": "yesterday"}, {"from": "2026-03-02", "to": "2026-03-01"}):
        assert (await compliance.post("/api/reports", definition(**wrong))).code == "BAD_QUERY"
    assert (await compliance.get("/api/reports/x/download?format=exe")).code == "BAD_QUERY"
    for changes, pointer in (
        ({"cron": "0 6 * *"}, "/cron"),
        ({"cron": "0 0 31 2 *"}, "/cron"),
        ({"cron": "every day"}, "/cron"),
        ({"period": "century"}, "/period"),
    ):
        got = await compliance.post("/api/report-schedules", {**plan, **changes})
        assert got.status == 422, got.text
        assert pointer in [error["pointer"] for error in got.json["errors"]]


async def test_schedules_are_listed_and_ended(people: Town) -> None:
    analyst = await people.staff("analyst")
    body = {**definition(title="Yearly"), "cron": "0 6 1 1 *", "period": "month"}
    del body["from"]
    planned = await analyst.post("/api/report-schedules", body, Idempotency_Key="plan")
    assert (planned.status, planned.json["active"]) == (201, True), planned.text
    assert planned.json["next_at"].endswith("-01-01T05:00:00.000Z")  # six o'clock in Berlin
    again = await analyst.post("/api/report-schedules", body, Idempotency_Key="plan")
    assert again.json == planned.json
    path = planned.headers["Location"]
    assert (await analyst.get(path)).json == planned.json
    listed = await analyst.get("/api/report-schedules?limit=200")
    assert planned.json in listed.json["items"]
    for _ in range(2):
        ended = await analyst.ask("DELETE", path, {}, Prefer="wait=20")
        assert (ended.status, ended.json["active"], ended.json["next_at"]) == (200, False, None)


def test_names_are_the_service_s() -> None:
    assert set(get_args(reports_models.SourceName)) == {*Source}
    assert set(get_args(reports_models.OperatorName)) == {*Operator}
    assert set(get_args(reports_models.PeriodName)) == {*Period}
