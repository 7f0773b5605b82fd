"""Rates, quotes and exchanges on a running bank; each test takes currencies of its own."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from tests.forked import command
from tests.gateway.stand import until
from tests.gateway.test_end_to_end import funded

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.gateway.stand import Got, Person, Stand, Town


async def put(person: Person, body: Any, wait: int | None = 20, **headers: str) -> Got:
    if wait is not None:
        headers["Prefer"] = f"wait={wait}"
    return await person.ask("PUT", "/api/rates", body, **headers)


async def set_rates(people: Town, base: str = "EUR", **rates: str) -> Person:
    operator = await people.staff("operator")
    got = await put(operator, {"base": base, "rates": rates, "spread_ppm": 10_000})
    assert got.status == 200, got.text
    return operator


async def rate(person: Person, base: str, quote: str, at: str = "") -> Any:
    got = await person.get(f"/api/rates?base={base}&quote={quote}{at and '&at=' + at}")
    assert got.status == 200, got.text
    (item,) = got.json["items"]
    return item


async def exchange(person: Person, account: str, amount: int, to: str, **more: Any) -> Got:
    return await person.pay(
        type="exchange",
        amount=amount,
        source_account_id=account,
        destination_currency=to,
        **more,
    )


async def test_rates_are_set_read_and_crossed(people: Town) -> None:
    await set_rates(people, CHF="0.95", NOK="11.4")
    alice = await people.customer("alice")
    direct = await rate(alice, "EUR", "CHF")
    assert (direct["rate"], direct["customer_rate"], direct["stale"]) == ("0.95", "0.9405", False)
    assert (await rate(alice, "CHF", "NOK"))["rate"] == "12"
    assert (await rate(alice, "NOK", "EUR"))["rate"].startswith("0.087719298245614")
    of_franc = await alice.get("/api/rates?base=CHF")
    assert {"EUR", "NOK"} <= {item["quote"] for item in of_franc.json["items"]}
    assert of_franc.headers["X-Read-Source"] == "tables"
    assert (await alice.get("/api/rates?base=CHF&quote=XPF")).json["items"] == []


async def test_a_rate_at_a_past_time(people: Town) -> None:
    operator = await set_rates(people, SEK="11.1")
    await asyncio.sleep(0.01)
    between = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    await asyncio.sleep(0.01)
    one = {"base": "EUR", "quote": "SEK", "rate": "11.2"}
    assert (await put(operator, one)).json["items"]
    assert (await rate(operator, "EUR", "SEK"))["rate"] == "11.2"
    assert (await rate(operator, "EUR", "SEK", between))["rate"] == "11.1"
    whole = await operator.get(f"/api/rates?at={between}")
    assert "11.1" in [item["rate"] for item in whole.json["items"] if item["quote"] == "SEK"]
    before = await operator.get("/api/rates?base=EUR&quote=SEK&at=2020-01-01T00:00:00Z")
    assert before.json["items"] == []
    assert (await operator.get("/api/rates?at=tomorrow")).code == "BAD_QUERY"


async def test_rates_of_many_pairs_at_a_time_that_the_tables_do_not_reach(people: Town) -> None:
    many = ("AUD", "BRL", "CAD", "CZK", "DKK", "HKD", "HUF", "ILS", "INR", "MXN", "PLN", "ZAR")
    operator = await set_rates(people, **dict.fromkeys(many, "1.5"))
    got = await operator.get("/api/rates?base=EUR&at=2020-01-01T00:00:00Z")
    assert (got.status, got.json["items"]) == (200, []), got.text


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/base", "REQUIRED"),
        ({"base": "EUR"}, "/quote", "REQUIRED"),
        ({"base": "EUR", "rates": {}}, "/rates", "TOO_FEW"),
        ({"base": "eur", "quote": "USD", "rate": "1"}, "/base", "CURRENCY_UNKNOWN"),
        ({"base": "EUR", "rates": {"XXX": "1"}}, "/rates/XXX", "CURRENCY_UNKNOWN"),
        ({"base": "EUR", "quote": "USD", "rate": 1.1}, "/rate", "NOT_A_STRING"),
        ({"base": "EUR", "quote": "USD", "rate": "1,1"}, "/rate", "BAD_RATE"),
        ({"base": "EUR", "quote": "USD", "rate": "0"}, "/rate", "BAD_RATE"),
        ({"base": "EUR", "quote": "USD", "rate": "-1"}, "/rate", "BAD_RATE"),
        ({"base": "EUR", "quote": "EUR", "rate": "1"}, "/quote", "SAME_CURRENCY"),
        ({"base": "EUR", "rates": {"USD": "1"}, "rate": "1"}, "/rate", "NOT_ALLOWED"),
        ({"base": "EUR", "rates": {"USD": "1"}, "spread_ppm": -1}, "/spread_ppm", "TOO_SMALL"),
        ({"base": "EUR", "rates": {"USD": "1"}, "max_age_s": 0}, "/max_age_s", "TOO_SMALL"),
        ({"base": "EUR", "rates": {"USD": "1"}, "at": "now"}, "/at", "UNKNOWN_FIELD"),
    ],
)
async def test_rates_that_make_no_sense(people: Town, body: Any, pointer: str, code: str) -> None:
    got = await put(await people.admin(), body)
    assert got.status == 422, got.text
    assert (pointer, code) in [(one["pointer"], one["code"]) for one in got.json["errors"]]


async def test_who_may_set_rates_and_what_can_be_asked(people: Town) -> None:
    alice, support = await people.customer("alice"), await people.staff("support")
    body = {"base": "EUR", "quote": "PLN", "rate": "4.3"}
    for person in (alice, support):
        assert (await put(person, body)).status == 403
    for query in ("base=eur", "quote=XXX", "base=EUR&quote=EUR", "currency=EUR"):
        assert (await alice.get(f"/api/rates?{query}")).code == "BAD_QUERY"


async def test_setting_rates_twice_under_a_key_is_setting_them_once(people: Town) -> None:
    operator = await people.staff("operator")
    body = {"base": "EUR", "quote": "DKK", "rate": "7.46"}
    accepted = await put(operator, body, wait=None)
    assert (accepted.status, accepted.json) == (202, {"base": "EUR", "status": "pending"})
    assert accepted.headers["Location"] == "/api/rates?base=EUR"
    first = await put(operator, body, Idempotency_Key="fixing")
    again = await put(operator, body, Idempotency_Key="fixing")
    assert (again.json, again.headers["Idempotent-Replayed"]) == (first.json, "true")
    other = await put(operator, {**body, "rate": "7.47"}, Idempotency_Key="fixing")
    assert other.code == "IDEMPOTENCY_MISMATCH"


async def test_an_exchange_on_one_account(people: Town) -> None:
    await set_rates(people, USD="1.25", JPY="160")
    alice, account = await funded_in(people, "USD", "JPY", 20_000)
    got = await exchange(alice, account, 10_000, "JPY")
    assert got.status == 201, got.text
    assert got.json["destination_account_id"] == account
    assert got.json["destination_amount"] == 12_672
    assert (got.json["rate"], got.json["destination_currency"]) == ("126.72", "JPY")
    assert [(one["currency"], one["after"]) for one in got.json["balances"]] == [
        ("USD", 10_000),
        ("JPY", 12_672),
    ]
    assert await alice.balance(account) == 10_000
    assert await alice.balance(account, "JPY") == 12_672
    trace = await alice.get(f"{got.headers['Location']}/trace")
    names = [step["step"] for step in trace.json["steps"]]
    assert names == ["validate", "rate", "risk", "debit", "payment", "credit", "complete"]
    listed = await alice.get("/api/transactions?type=exchange")
    assert [one["transaction_id"] for one in listed.json["items"]] == [got.json["transaction_id"]]


async def funded_in(people: Town, held: str, other: str, amount: int) -> tuple[Person, str]:
    person = await people.customer("rich")
    account = await person.open(held, other)
    admin = await people.admin()
    got = await admin.pay(
        type="deposit", amount=amount, currency=held, destination_account_id=account
    )
    assert got.status == 201, got.text
    return person, account


async def test_a_quote_holds_its_rate_once_and_for_its_owner(people: Town) -> None:
    operator = await set_rates(people, GBP="0.8", CAD="1.5")
    alice, account = await funded_in(people, "GBP", "CAD", 50_000)
    body = {"currency": "GBP", "destination_currency": "CAD", "amount": 8_000}
    got = await alice.post("/api/quotes", body, Idempotency_Key="hold")
    assert got.status == 201, got.text
    quote = got.json
    assert (quote["market_rate"], quote["rate"], quote["status"]) == ("1.875", "1.85625", "open")
    assert quote["destination_amount"] == 14_850
    again = await alice.post("/api/quotes", body, Idempotency_Key="hold")
    assert again.json == quote
    assert (await alice.get(got.headers["Location"])).json == quote
    await put(operator, {"base": "EUR", "quote": "CAD", "rate": "1.2"})
    by_quote = {"currency": "GBP", "quote_id": quote["quote_id"]}

    other = await exchange(alice, account, 8_001, "CAD", **by_quote)
    assert (other.status, other.code) == (422, "QUOTE_MISMATCH")
    bob, bob_s = await funded_in(people, "GBP", "CAD", 50_000)
    stolen = await exchange(bob, bob_s, 8_000, "CAD", **by_quote)
    assert (stolen.status, stolen.code) == (422, "QUOTE_NOT_FOUND")
    assert (await bob.get(got.headers["Location"])).status == 404
    assert (await operator.get(got.headers["Location"])).status == 200

    done = await exchange(alice, account, 8_000, "CAD", **by_quote)
    assert (done.status, done.json["destination_amount"]) == (201, 14_850)
    spent = await exchange(alice, account, 8_000, "CAD", **by_quote)
    assert (spent.status, spent.code) == (422, "QUOTE_USED")
    used = await alice.get(got.headers["Location"])
    assert (used.json["status"], used.json["transaction_id"]) == (
        "used",
        done.json["transaction_id"],
    )
    assert await alice.balance(account, "GBP") == 42_000


async def test_rates_grow_stale(people: Town) -> None:
    operator = await people.staff("operator")
    body = {"base": "EUR", "quote": "HUF", "rate": "400", "max_age_s": 1}
    assert (await put(operator, body)).status == 200
    alice, account = await funded_in(people, "HUF", "EUR", 50_000)

    async def stale() -> bool:
        return bool((await rate(alice, "EUR", "HUF"))["stale"])

    await until(stale, "the rate is stale")
    got = await exchange(alice, account, 10_000, "EUR", currency="HUF")
    assert (got.status, got.code) == (422, "RATE_STALE")
    asked = await alice.post("/api/quotes", {"currency": "HUF", "destination_currency": "EUR"})
    assert (asked.status, asked.code) == (422, "RATE_STALE")
    assert await alice.balance(account, "HUF") == 50_000


async def test_of_a_refused_exchange_nothing_stays(people: Town) -> None:
    await set_rates(people, CZK="25", RON="5")
    alice, account = await funded_in(people, "CZK", "RON", 10_000)
    bob = await people.customer("bob")
    poor = await bob.open("CZK")
    for more, amount, to, code in (
        ({}, 10_001, "RON", "INSUFFICIENT_FUNDS"),
        ({}, 100, "XPF", "RATE_NOT_FOUND"),
        ({"destination_account_id": poor}, 100, "RON", "CURRENCY_NOT_HELD"),
        ({"destination_account_id": str(uuid.uuid4())}, 100, "RON", "ACCOUNT_NOT_FOUND"),
        ({"quote_id": str(uuid.uuid4())}, 100, "RON", "QUOTE_NOT_FOUND"),
    ):
        got = await exchange(alice, account, amount, to, currency="CZK", **more)
        assert (got.status, got.code) == (422, code), got.text
        seen = await alice.get(f"/api/transactions/{got.json['transaction_id']}")
        assert (seen.json["status"], seen.json["reason"]) == ("failed", code)
    assert await alice.balance(account, "CZK") == 10_000
    assert await alice.balance(account, "RON") == 0


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"destination_currency": None}, "/destination_currency", "REQUIRED"),
        ({"destination_currency": "USD"}, "/destination_currency", "SAME_CURRENCY"),
        ({"destination_currency": "usd"}, "/destination_currency", "CURRENCY_UNKNOWN"),
        ({"source_account_id": None}, "/source_account_id", "REQUIRED"),
        ({"type": "transfer", "destination_account_id": "b"}, "/destination_currency", "NOT_ALLOWED"),
        ({"type": "transfer", "destination_currency": None, "destination_account_id": "b",
          "quote_id": "q"}, "/quote_id", "NOT_ALLOWED"),
    ],
)  # fmt: skip
async def test_exchanges_that_make_no_sense(
    people: Town, changes: dict[str, Any], pointer: str, code: str
) -> None:
    alice, source = await funded(people, "alice", 100)
    body = {"type": "exchange", "amount": 10, "source_account_id": source,
            "destination_currency": "JPY", **changes}  # fmt: skip
    got = await alice.pay(**{name: value for name, value in body.items() if value is not None})
    assert got.status == 422, got.text
    assert (pointer, code) in [(one["pointer"], one["code"]) for one in got.json["errors"]]


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"currency": "USD"}, "/destination_currency", "REQUIRED"),
        ({"currency": "USD", "destination_currency": "USD"}, "/destination_currency",
         "SAME_CURRENCY"),
        ({"currency": "USD", "destination_currency": "JPY", "amount": 1.5}, "/amount",
         "NOT_AN_INTEGER"),
        ({"currency": "USD", "destination_currency": "JPY", "amount": 0}, "/amount", "TOO_SMALL"),
    ],
)  # fmt: skip
async def test_quotes_that_make_no_sense(people: Town, body: Any, pointer: str, code: str) -> None:
    alice = await people.customer("alice")
    got = await alice.post("/api/quotes", body)
    assert got.status == 422, got.text
    assert [(pointer, code)] == [(one["pointer"], one["code"]) for one in got.json["errors"]]


async def test_someone_else_s_account_can_t_be_exchanged_from(people: Town) -> None:
    _, account = await funded_in(people, "USD", "JPY", 100)
    mallory = await people.customer("mallory")
    got = await exchange(mallory, account, 10, "JPY")
    assert (got.status, got.code) == (422, "ACCOUNT_NOT_FOUND")


def document(code: str, rate: str) -> bytes:
    """What the European Central Bank would say today of one currency."""
    return (
        '<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"'
        ' xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">'
        f"<Cube><Cube time='{datetime.now(UTC).date()}'>"
        f"<Cube currency='{code}' rate='{rate}'/></Cube></Cube></gesmes:Envelope>"
    ).encode()


async def pipeline(bank: Stand, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command, *arguments, environment=bank.environment)


async def test_a_document_of_rates_is_imported_whole_or_not(
    people: Town, bank: Stand, tmp_path: Path
) -> None:
    alice, file = await people.customer("alice"), tmp_path / "rates.xml"
    file.write_bytes(document("ISK", "143.5"))
    done = await pipeline(bank, "rates", "import", str(file))
    assert (done.returncode, done.stdout[:22]) == (0, "1 rates of EUR are set"), done.stderr

    async def there() -> bool:  # each partition applies what was set in a step of its own
        got = await alice.get("/api/rates?base=EUR&quote=ISK")
        return [item["rate"] for item in got.json["items"]] == ["143.5"]

    await until(there, "the rate is applied")
    for broken in (document("ISK", "x"), document("ISK", "150")[:-9], b"<!DOCTYPE a><a/>"):
        file.write_bytes(broken)
        done = await pipeline(bank, "rates", "import", str(file))
        assert (done.returncode, "nothing was changed" in done.stderr) == (1, True), done.stderr
    done = await pipeline(bank, "rates", "import", str(tmp_path / "none.xml"))
    assert (done.returncode, "there is no file" in done.stderr) == (1, True)
    assert (await rate(alice, "EUR", "ISK"))["rate"] == "143.5"


async def test_the_feed_is_asked_on_a_schedule(people: Town, bank: Stand) -> None:
    alice = await people.customer("alice")
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(body=document("TRY", "46.1"))

    app = web.Application()
    app.router.add_get("/rates.xml", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = urlsplit(bank.environment["STREAMBANK_RATES_URL"]).port
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        done = await pipeline(bank, "rates", "every", "3600")
        assert (done.returncode, done.stdout) == (0, "the feed is asked each 3600 s\n")

        async def there() -> bool:
            got = await alice.get("/api/rates?base=EUR&quote=TRY")
            return [item["rate"] for item in got.json["items"]] == ["46.1"]

        await until(there, "the feed's rates are set")
        done = await pipeline(bank, "rates", "every", "0")
        assert (done.returncode, done.stdout) == (0, "no more\n")
    finally:
        await runner.cleanup()
    assert len(asked) == 1
    refused = await pipeline(bank, "rates", "every", "5")
    assert (refused.returncode, "INVALID_COMMAND" in refused.stderr) == (1, True)
