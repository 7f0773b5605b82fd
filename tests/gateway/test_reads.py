"""Reads with real stores: where they are answered, with which of them away, and never from before."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from pymongo import MongoClient

from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from deploy.local.processes import free_ports
from deploy.local.redis import Redis
from deploy.local.server import Server
from gateway.lists import OWN_ACCOUNTS
from gateway.reads import BLIND_S
from tests.forked import PIPELINE, ForkedChild
from tests.gateway.stand import Person, Stand, stand, town, until
from tests.gateway.test_statements import adds_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from deploy.local.kafka import Kafka
    from tests.gateway.stand import Got, Town


@dataclass(frozen=True)
class Stored:
    """A bank with its stores, which a test may stop and starts again."""

    bank: Stand
    servers: Mapping[str, Server]

    def away(self, *names: str) -> None:
        for name in names:
            self.servers[name].kill()

    def back(self) -> None:
        for server in self.servers.values():
            server.start()
        for name in ("worker", "projections"):
            if not self.bank.children[name].running:
                self.bank.children[name].start()


@pytest.fixture(scope="module")
def started(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    with ExitStack() as stack:
        servers: dict[str, Any] = {}
        for name, kind in (("mysql", MariaDB), ("mongodb", Mongo), ("redis", Redis)):
            directory = tmp_path_factory.mktemp(name)
            server = kind(directory, orphaned=signal.SIGKILL)
            stack.callback(shutil.rmtree, directory)
            stack.callback(server.kill)
            servers[name] = server.start()
        urls = {f"STREAMBANK_{name.upper()}_URL": server.url for name, server in servers.items()}
        directory = tmp_path_factory.mktemp("stored")
        prefix = f"s{uuid.uuid4().hex[:8]}-"
        bank = stack.enter_context(stand(kafka, directory, prefix, **urls))
        yield Stored(bank, servers)


@pytest.fixture
def stored(started: Stored) -> Iterator[Stored]:
    yield started
    started.back()


@pytest.fixture
async def people(stored: Stored) -> AsyncIterator[Town]:
    async with town(stored.bank.url) as found:
        yield found


def source(got: Got) -> str:
    assert got.status == 200, got.text
    return got.headers["X-Read-Source"]


async def until_from(person: Person, path: str, *sources: str) -> Got:
    """The answer once it is from one of these."""

    seen: Counter[tuple[int, str | None]] = Counter()

    async def there() -> Got | None:
        got = await person.get(path)
        seen[got.status, got.headers.get("X-Read-Source")] += 1
        return got if got.status == 200 and source(got) in sources else None

    got: Got = await until(there, (path, sources, seen), 60)
    return got


async def funded(people: Town, amount: int = 1_000) -> tuple[Person, str, str]:
    """A customer with two accounts, one with money."""
    alice = await people.customer("alice")
    first, second = await alice.open("USD"), await alice.open("USD")
    admin = await people.admin()
    got = await admin.pay(type="deposit", amount=amount, destination_account_id=first)
    assert got.status == 201, got.text
    return alice, first, second


async def test_each_question_goes_to_its_store_and_copies_come_from_redis(people: Town) -> None:
    alice, first, second = await funded(people)
    paid = await alice.pay(amount=5, source_account_id=first, destination_account_id=second)
    transaction = paid.headers["Location"]
    for path, expected in (
        (f"/api/users/{alice.user_id}", "redis"),
        (f"/api/accounts/{first}", "redis"),
        ("/api/accounts", "mysql"),
        (f"/api/accounts/{first}/entries", "mysql"),
        (transaction, "mongodb"),
        (f"{transaction}/trace", "mongodb"),
        ("/api/transactions", "mongodb"),
    ):
        got = await until_from(alice, path, expected)
        if "version" in got.json:
            assert got.headers["ETag"] == f'"{got.json["version"]}"'
            again = await alice.get(path, If_None_Match=got.headers["ETag"])
            assert (again.status, again.text) == (304, "")
            assert again.headers["X-Read-Source"]
    assert await alice.balance(first) == 995


async def changed(alice: Person, first: str, second: str) -> Got:
    got = await alice.pay(amount=1, source_account_id=first, destination_account_id=second)
    assert got.status == 201, got.text
    return got


@pytest.mark.parametrize(
    ("away", "account", "accounts", "transactions"),
    [
        (("redis",), ("mysql",), "mysql", "mongodb"),
        (("mysql",), ("redis", "mongodb"), "mongodb", "mongodb"),
        (("mongodb",), ("redis", "mysql"), "mysql", "mysql"),
        (("redis", "mysql", "mongodb"), ("tables",), "tables", "tables"),
    ],
)
async def test_with_a_store_away_another_answers_and_money_moves(
    stored: Stored,
    people: Town,
    away: tuple[str, ...],
    account: tuple[str, ...],
    accounts: str,
    transactions: str,
) -> None:
    alice, first, second = await funded(people)
    stored.away(*away)
    paid = await changed(alice, first, second)
    assert await alice.balance(first) == 999
    await until_from(alice, f"/api/accounts/{first}", *account)
    await until_from(alice, paid.headers["Location"], transactions)
    listed = await until_from(alice, "/api/accounts", accounts)
    assert {one["account_id"]: one["balances"][0]["amount"] for one in listed.json["items"]} == {
        first: 999,
        second: 1,
    }
    listed = await until_from(alice, "/api/transactions", transactions)
    assert paid.json["transaction_id"] in [one["transaction_id"] for one in listed.json["items"]]


async def test_reads_do_not_wait_for_a_store_that_is_known_to_be_away(
    stored: Stored, people: Town
) -> None:
    alice, first, second = await funded(people)
    paid = await changed(alice, first, second)
    path = paid.headers["Location"]
    await until_from(alice, path, "mongodb")
    stored.away("mongodb")

    async def quick_for_a_while() -> bool:
        """A read that asks it waits a second; one that was silent is asked again each second."""
        end_s = time.monotonic() + 2.5
        while time.monotonic() < end_s:
            started_s = time.monotonic()
            assert source(await alice.get(path)) in ("mysql", "tables")
            if time.monotonic() - started_s > 0.7:
                return False
        return True

    await until(quick_for_a_while, "no read waits for it", 15)
    stored.back()
    await until_from(alice, path, "mongodb")


async def test_redis_that_was_killed_is_used_again(stored: Stored, people: Town) -> None:
    alice, first, second = await funded(people)
    path = f"/api/accounts/{first}"
    await until_from(alice, path, "redis")
    stored.away("redis")
    await changed(alice, first, second)
    assert await alice.balance(first) == 999
    stored.back()
    got = await until_from(alice, path, "redis")
    assert got.json["balances"][0]["amount"] == 999


async def test_what_is_from_before_a_change_is_never_answered(stored: Stored, people: Town) -> None:
    """The projections are away: the stores and Redis stay as they were, for as long as it takes."""
    alice, first, second = await funded(people)
    path = f"/api/accounts/{first}"
    await until_from(alice, path, "redis")
    await until_from(alice, "/api/accounts", "mysql")
    stored.bank.children["projections"].kill()
    for n in range(1, 6):
        paid = await changed(alice, first, second)
        assert await alice.balance(first) == 1_000 - n
        assert await alice.balance(second) == n
        listed = (await alice.get("/api/accounts")).json["items"]
        assert [one["balances"][0]["amount"] for one in listed] == [1_000 - n, n]
        newest = (await alice.get("/api/transactions")).json["items"][0]
        assert newest["transaction_id"] == paid.json["transaction_id"]
        assert newest["status"] == "completed"
    # another's change, of which nobody was told
    bob = await people.customer("bob")
    theirs = await bob.open("USD")
    await until_from(bob, f"/api/accounts/{theirs}", "tables", "redis")
    await alice.pay(amount=7, source_account_id=first, destination_account_id=theirs, wait=0)

    async def arrived() -> bool:
        return await bob.balance(theirs) == 7

    await until(arrived, "what was paid")


async def test_while_the_workers_are_away_the_stores_answer(stored: Stored, people: Town) -> None:
    alice, first, _ = await funded(people)
    bob = await people.customer("bob")
    paths = (
        f"/api/accounts/{first}",
        "/api/accounts",
        "/api/transactions",
        f"/api/users/{alice.user_id}",
    )
    for path in paths:
        await until_from(alice, path, "redis", "mysql", "mongodb")
    stored.bank.children["worker"].kill()
    for path in paths:
        got = await alice.get(path)
        assert source(got) in ("redis", "mysql", "mongodb")
    assert await alice.balance(first) == 1_000
    assert (await bob.get(f"/api/accounts/{first}")).status == 404
    stored.away("redis", "mysql", "mongodb")

    async def nobody() -> bool:
        got = await alice.get(f"/api/accounts/{first}")
        if got.status == 200:
            return False
        assert (got.status, got.code) == (503, "STATE_UNAVAILABLE")
        return int(got.headers["Retry-After"]) > 0

    await until(nobody, "nobody answers")


async def test_a_list_goes_on_when_its_source_goes_away(stored: Stored, people: Town) -> None:
    alice, first, second = await funded(people)
    ids = [(await changed(alice, first, second)).json["transaction_id"] for _ in range(6)]
    for path in ("/api/transactions?limit=2", "/api/accounts?limit=1"):
        await until_from(alice, path, "mysql", "mongodb")
    pages: list[Any] = []
    cursor = None
    for away in ((), ("mongodb",), ("mysql",)):
        stored.away(*away)
        query = f"&cursor={cursor}" if cursor else ""
        got = await alice.get(f"/api/transactions?limit=2{query}")
        pages += got.json["items"]
        cursor = got.json["next_cursor"]
    assert [one["transaction_id"] for one in pages] == ids[::-1]
    assert source(got) == "tables"
    last = await alice.get(f"/api/transactions?limit=9&cursor={cursor}")
    assert [one["type"] for one in last.json["items"]] == ["deposit"]
    page = await alice.get("/api/accounts?limit=1")
    stored.back()
    await until_from(alice, "/api/accounts?limit=1", "mysql", "mongodb")
    rest = await alice.get(f"/api/accounts?limit=1&cursor={page.json['next_cursor']}")
    assert [one["account_id"] for one in (*page.json["items"], *rest.json["items"])] == [
        first,
        second,
    ]


async def test_a_list_of_notifications_shows_each_once_when_its_source_goes_away(
    stored: Stored, people: Town
) -> None:
    alice, admin = await people.customer("alice"), await people.admin()
    for number in range(5):
        data = {"subject": "News", "text": f"number {number}"}
        body = {"user_id": alice.user_id, "template": "message", "channel": "in_app", "data": data}
        told = await admin.post("/api/notifications", body, Idempotency_Key=f"{number}")
        assert told.status in (201, 202), told.text
    path = "/api/notifications?limit=2"

    async def all_there() -> Any:
        got = await alice.get("/api/notifications")
        return got if source(got) == "mongodb" and len(got.json["items"]) >= 5 else None

    listed = (await until(all_there, "the store has all", 60)).json["items"]
    first = await alice.get(path)
    stored.away("mongodb", "mysql")
    rest = await until_from(alice, f"{path}&cursor={first.json['next_cursor']}", "tables")
    shown = [*first.json["items"], *rest.json["items"]]
    assert [one["notification_id"] for one in shown] == [
        one["notification_id"] for one in listed[:4]
    ]


async def test_a_transfer_is_in_the_list_of_whom_it_reached(people: Town) -> None:
    alice, first, _ = await funded(people)
    bob = await people.customer("bob")
    theirs = await bob.open("USD")
    paid = await alice.pay(amount=3, source_account_id=first, destination_account_id=theirs)

    async def listed() -> Any:
        return (await bob.get("/api/transactions")).json["items"]

    (shown,) = await until(listed, "it is in the list")
    assert shown["transaction_id"] == paid.json["transaction_id"]
    assert [one["account_id"] for one in shown["balances"]] == [theirs]


async def test_entries_and_words_are_found_in_the_stores(stored: Stored, people: Town) -> None:
    alice, first, second = await funded(people)
    await alice.pay(
        amount=5, source_account_id=first, destination_account_id=second, description="rent of may"
    )

    async def posted() -> Any:
        items = (await alice.get(f"/api/accounts/{first}/entries")).json["items"]
        return items if len(items) == 2 else None

    entries = await until(posted, "both entries")
    assert [(one["amount"], one["balance"]) for one in entries] == [(1_000, 1_000), (-5, 995)]
    page = await alice.get(f"/api/accounts/{first}/entries?limit=1")
    rest = await alice.get(f"/api/accounts/{first}/entries?cursor={page.json['next_cursor']}")
    assert [*page.json["items"], *rest.json["items"]] == entries
    bob = await people.customer("bob")
    assert (await bob.get(f"/api/accounts/{first}/entries")).status == 404

    async def found() -> Any:
        return (await alice.get("/api/transactions?q=rent")).json["items"]

    assert [one["description"] for one in await until(found, "it is found")] == ["rent of may"]
    assert (await bob.get("/api/transactions?q=rent")).json["items"] == []
    assert (await bob.get("/api/users?q=alice")).status == 403
    support = await people.staff("support")

    async def known() -> Any:
        items = (await support.get("/api/users?q=alice&limit=200")).json["items"]
        return alice.user_id in [one["user_id"] for one in items]

    await until(known, "her name is found")
    stored.away("mysql", "mongodb")
    assert (await alice.get(f"/api/accounts/{first}/entries")).status == 503


@asynccontextmanager
async def another_gateway(stored: Stored, directory: Path) -> AsyncIterator[str]:
    """The URL of a further gateway of the bank, ready and then stopped."""
    (port,) = free_ports(1)
    environment = {**stored.bank.environment, "STREAMBANK_GATEWAY_PORT": str(port)}
    other = ForkedChild("other", [PIPELINE, "gateway"], directory, environment=environment)
    other.start()
    try:
        async with aiohttp.ClientSession() as session:
            there = Person(session, f"http://127.0.0.1:{port}", "")

            async def answers() -> bool:
                try:
                    return (await there.get("/readiness")).status == 200
                except aiohttp.ClientError:
                    return False

            await until(answers, "the other gateway is ready", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        other.stop(grace_s=10)


async def test_another_gateway_knows_keys_and_log_outs(
    stored: Stored, people: Town, tmp_path: Path
) -> None:
    alice, first, second = await funded(people)
    async with another_gateway(stored, tmp_path) as url:
        there = Person(people.session, url, alice.token)
        order = {"amount": 5, "source_account_id": first, "destination_account_id": second}
        paid = await alice.pay(key="k", **order)
        again = await there.pay(key="k", wait=None, **order)
        assert (again.status, again.json) == (201, paid.json)
        assert again.headers["Idempotent-Replayed"] == "true"
        changed_body = await there.pay(key="k", wait=None, **{**order, "amount": 6})
        assert (changed_body.status, changed_body.code) == (422, "IDEMPOTENCY_MISMATCH")
        stored.away("redis")
        assert (await there.pay(key="k", **order)).json["transaction_id"] == (
            paid.json["transaction_id"]
        )
        assert (await there.pay(key="n", **order)).status == 201
        assert await there.balance(first) == 990
        await alice.post("/api/auth/logout", wait=None)
        stored.back()

        async def out() -> bool:
            return (await there.get("/api/accounts")).status == 401

        await until(out, "she is logged out there too", 60)


async def test_a_gateway_takes_no_rates_from_before_its_start(
    stored: Stored, people: Town, tmp_path: Path
) -> None:
    operator, alice = await people.staff("operator"), await people.customer("alice")
    path = "/api/rates?base=EUR&quote=SEK"
    for text in ("11.1", "11.2"):  # of the first one a copy stays in Redis
        body = {"base": "EUR", "quote": "SEK", "rate": text, "spread_ppm": 0}
        got = await operator.ask("PUT", "/api/rates", body, Prefer="wait=20")
        assert got.status == 200, got.text
        if text == "11.1":
            await until_from(alice, path, "redis")
    async with another_gateway(stored, tmp_path) as url:
        there = Person(people.session, url, alice.token)
        await asyncio.sleep(BLIND_S + 1)  # so long it asks the tables in any case
        got = await there.get(path)
        assert [one["rate"] for one in got.json["items"]] == ["11.2"], source(got)


async def test_rates_come_from_redis_and_the_stores_and_never_from_before(
    stored: Stored, people: Town
) -> None:
    operator, alice = await people.staff("operator"), await people.customer("alice")
    path = "/api/rates?base=EUR&quote=CHF"

    async def rate(text: str) -> None:
        body = {"base": "EUR", "quote": "CHF", "rate": text, "spread_ppm": 0}
        got = await operator.ask("PUT", "/api/rates", body, Prefer="wait=20")
        assert got.status == 200, got.text
        assert [one["rate"] for one in (await alice.get(path)).json["items"]] == [text]

    await rate("0.95")
    await until_from(alice, path, "redis")
    before = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for text in ("0.96", "0.97", "0.98"):
        await rate(text)
    copied = await until_from(alice, path, "redis")
    assert copied.json["items"][0]["rate"] == "0.98"

    then = await until_from(alice, f"{path}&at={before}", "mongodb")
    assert then.json["items"][0]["rate"] == "0.95"
    account = await alice.open("EUR", "CHF")
    admin = await people.admin()
    order = {"type": "deposit", "amount": 1_000, "currency": "EUR"}
    assert (await admin.pay(**order, destination_account_id=account)).status == 201
    asked = {"currency": "EUR", "destination_currency": "CHF"}
    quote = await alice.post("/api/quotes", asked)
    got = await alice.pay(
        **asked,
        type="exchange",
        amount=500,
        source_account_id=account,
        quote_id=quote.json["quote_id"],
    )
    assert (got.status, got.json["destination_amount"]) == (201, 490), got.text
    for away, source in (("mysql", "mongodb"), ("mongodb", "mysql")):
        stored.away(away)
        shown = await until_from(alice, got.headers["Location"], source)
        assert shown.json == got.json
        used = await until_from(alice, quote.headers["Location"], source)
        assert used.json["transaction_id"] == got.json["transaction_id"]
        stored.back()


async def test_a_statement_adds_up_from_the_stores_and_without_them(
    stored: Stored, people: Town
) -> None:
    alice, first, second = await funded(people)
    for number in range(12):  # at once, so that some share a millisecond
        paid = await alice.pay(
            amount=10 + number, source_account_id=first, destination_account_id=second, wait=None
        )
        assert paid.status == 202
    paid = await alice.pay(amount=1, source_account_id=first, destination_account_id=second)
    path = f"/api/accounts/{first}/statements"
    told = await alice.get(path)
    adds_up(told.json)
    assert paid.json["transaction_id"] in {e["transaction_id"] for e in told.json["entries"]}

    async def whole() -> Any:
        got = await alice.get(path)
        adds_up(got.json)
        return got if source(got) == "mysql" and len(got.json["entries"]) == 14 else None

    of_store = (await until(whole, "the store has all")).json
    assert of_store["balances"][0]["closing"] == 1_000 - sum(range(10, 22)) - 1
    stored.away("mysql", "mongodb")
    of_log = await alice.get(path)
    assert source(of_log) == "log"
    assert {**of_log.json, "to": of_store["to"]} == of_store


async def test_holds_and_archived_accounts_are_in_the_stores(stored: Stored, people: Town) -> None:
    alice, first, second = await funded(people)
    body = {"account_id": first, "amount": 300, "currency": "USD"}
    placed = await alice.post("/api/holds", body, Idempotency_Key="k")
    assert placed.status == 201, placed.text
    for command in ("close", "archive"):
        assert (await alice.post(f"/api/accounts/{second}/{command}")).status == 200
    for query, there in (("", first), ("?status=archived", second)):
        got = await until_from(alice, f"/api/accounts{query}", "mysql")
        assert [one["account_id"] for one in got.json["items"]] == [there]
    stored.bank.children["worker"].stop(grace_s=10)

    async def held() -> bool:
        got = await alice.get(placed.headers["Location"])
        account = await alice.get(f"/api/accounts/{first}")
        if got.status != 200 or account.status != 200:
            return False
        assert got.json == placed.json
        return bool(account.json["balances"][0]["held"] == 300)

    await until(held, "the stores answer")


async def test_what_has_left_its_table_is_answered_by_a_store_and_what_never_was_by_nobody(
    stored: Stored, people: Town
) -> None:
    """A hold's table is asked first; it forgets a hold 30 days after its end."""
    alice, first, _ = await funded(people)
    body = {"account_id": first, "amount": 300, "currency": "USD"}
    path = (await alice.post("/api/holds", body, Idempotency_Key="k")).headers["Location"]
    left = f"{path}9"
    with MongoClient(stored.servers["mongodb"].url) as client:
        holds = client.get_default_database()["holds"]

        async def there() -> Any:
            return holds.find_one({"_id": path.rpartition("/")[2]})

        row = await until(there, "the store has the hold", 60)
        gone = left.rpartition("/")[2]
        holds.insert_one({**row, "_id": gone, "hold_id": gone})
    found = await alice.get(left)
    assert source(found) == "mongodb"
    assert found.json == {**(await alice.get(path)).json, "hold_id": gone}
    assert (await alice.get(f"{path}8")).status == 404
    stored.away("mysql")
    assert (await alice.get(f"{path}8")).status == 404
    stored.away("mongodb")
    lost = await alice.get(left)
    assert (lost.status, lost.code) == (503, "STATE_UNAVAILABLE"), lost.text
    assert (await alice.get(f"/api/accounts/{first}x")).status == 404


async def test_a_transfer_into_any_account_is_found_by_the_account(people: Town) -> None:
    """Of the list of all accounts the oldest fifty are looked at."""
    alice, first, _ = await funded(people)
    bob = await people.customer("bob")
    theirs = [await bob.open("USD") for _ in range(OWN_ACCOUNTS + 1)][-1]
    paid = await alice.pay(amount=3, source_account_id=first, destination_account_id=theirs)
    path = f"/api/transactions?account_id={theirs}"

    async def listed() -> Any:
        return (await bob.get(path)).json["items"]

    (shown,) = await until(listed, "it is in the account's list")
    assert shown["transaction_id"] == paid.json["transaction_id"]
