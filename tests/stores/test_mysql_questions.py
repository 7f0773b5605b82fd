"""What the MySQL store answers, and that an index answers each of its questions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stores import mysql_lists
from stores.catalog import KINDS, Batch, Change, json_of
from stores.mysql_lists import Query, narrowing, page, search
from stores.mysql_tables import TABLES
from stores.questions import Page, Wanted
from tests.domain.stories import NOON_MS
from tests.domain.stories import order as ordered
from tests.stores.mysql_database import fresh, sql
from tests.stores.test_mysql import url_of
from tests.stores.things import batch, entry, fact, listed, rate, user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from deploy.local.mariadb import MariaDB
    from stores.mysql import MySQL
    from stores.questions import Place

USERS, ACCOUNTS, TRANSACTIONS, PAYMENTS, NOTIFICATIONS, REVIEWS, BLACKLIST = KINDS[:7]
ROWS = 20_000


def account(n: int) -> Change:
    document = {
        "account_id": f"a{n:05d}", "user_id": f"u{n % 500}", "name": "", "status": "open",
        "balances": {"USD": n, "EUR": 0}, "overdraft_limits": {}, "held": {}, "open_legs": 0,
        "request_hash": "", "version": 1, "created_ms": NOON_MS + n // 3, "updated_ms": NOON_MS,
    }  # fmt: skip
    return Change(kind=ACCOUNTS, key=document["account_id"], version=1, document=document)


def transaction(n: int) -> Change:
    order = ordered(
        transaction_id=f"t{n:05d}", created_ms=NOON_MS + n // 3, owner_id=f"u{n % 500}",
        source_account_id=f"a{n % 700}", destination_account_id=f"a{n % 300}",
    )  # fmt: skip
    document = {
        "order": json_of(order), "description": f"rent of month {n}", "reference": f"ref{n}",
        "metadata": {}, "request_hash": "", "status": "completed" if n % 10 else "failed",
        "reason": None, "review_id": None, "balances": [], "steps": [], "version": 1,
        "created_ms": NOON_MS + n // 3, "updated_ms": NOON_MS, "completed_ms": None,
    }  # fmt: skip
    return Change(kind=TRANSACTIONS, key=order.transaction_id, version=1, document=document)


def review(n: int) -> Change:
    order = ordered(transaction_id=f"t{n:05d}", owner_id=f"u{n % 500}")
    document = {
        "review_id": f"u{n % 500}.t{n:05d}", "order": json_of(order), "score": 60, "rules": [],
        "steps": [], "status": "open" if n % 50 == 0 else "approved", "actor_id": None, "note": "",
        "version": 1, "created_ms": NOON_MS + n, "updated_ms": NOON_MS, "decided_ms": None,
    }  # fmt: skip
    return Change(kind=REVIEWS, key=document["review_id"], version=1, document=document)


def notification(n: int) -> Change:
    document = {
        "user_id": f"u{n % 500}", "template": "done", "at_ms": NOON_MS + n // 3,
        "notification_id": f"t{n:05d}", "channel": "in_app", "kind": "message", "data": {},
        "status": "delivered", "attempt": 0, "tries_before": 0, "detail": "", "due_ms": None,
        "number": None, "version": 1, "updated_ms": NOON_MS,
    }  # fmt: skip
    return Change(kind=NOTIFICATIONS, key=f"t{n:05d}", version=1, document=document)


def made(n: int) -> list[Any]:
    return [
        user(f"u{n}", name=f"Ada Lovelace {n}", email=f"ada{n}@bank.example"),
        account(n),
        transaction(n),
        review(n),
        notification(n),
        listed(f"v{n}", NOON_MS + n),
        rate(f"C{n % 150}", 1, NOON_MS + n),
        rate(f"C{n % 150}", n, NOON_MS + n, past=True),
        fact(
            f"e{n:05d}", NOON_MS + n // 3, aggregate_id=f"a{n % 700}", actor_id=f"u{n % 500}",
            transaction_id=f"t{n:05d}", type=f"Kind{n % 20}",
        ),
        entry(f"e{n:05d}", 0, NOON_MS + n // 3, account=f"a{n % 700}", transaction_id=f"t{n:05d}"),
    ]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(mariadb: MariaDB) -> AsyncIterator[MySQL]:
    async with fresh(mariadb) as store:
        for start in range(0, ROWS, 2_000):
            said: Batch = batch(*(x for n in range(start, start + 2_000) for x in made(n)))
            await store.write(("user-table-changelog", 0), start, start + 2_000, said)
        for table in TABLES.values():
            sql(url_of(store), f"ANALYZE TABLE {table.name}")
        yield store


pytestmark = pytest.mark.asyncio(loop_scope="module")

LAST: Place = (NOON_MS + 3_000, "t09000")
ASKED: list[tuple[str, Any, Wanted, Place | None]] = [
    ("accounts of a user", mysql_lists.ACCOUNTS_OF, Wanted(owner_id="u7"), None),
    (
        "accounts of a user in a currency",
        mysql_lists.ACCOUNTS_OF,
        Wanted(owner_id="u7", currency="EUR"),
        (NOON_MS + 100, "a00300"),
    ),
    ("transactions of an owner", mysql_lists.TRANSACTIONS, Wanted(owner_id="u7"), LAST),
    (
        "transactions of an owner by status",
        mysql_lists.TRANSACTIONS,
        Wanted(owner_id="u7", status="completed", from_ms=NOON_MS, to_ms=NOON_MS + 5_000),
        None,
    ),
    ("transactions of an account", mysql_lists.TRANSACTIONS, Wanted(account_id="a7"), LAST),
    (
        "an owner's transactions of an account",
        mysql_lists.TRANSACTIONS,
        Wanted(account_id="a7", owner_id="u7"),
        None,
    ),
    ("transactions in time", mysql_lists.TRANSACTIONS, Wanted(), LAST),
    (
        "transactions of a day",
        mysql_lists.TRANSACTIONS,
        Wanted(from_ms=NOON_MS + 10, to_ms=NOON_MS + 90),
        None,
    ),
    ("notifications", mysql_lists.NOTIFICATIONS, Wanted(owner_id="u7"), LAST),
    ("reviews by status", mysql_lists.REVIEWS, Wanted(status="open"), (NOON_MS + 50, "u50.t1")),
    ("all reviews", mysql_lists.REVIEWS, Wanted(), None),
    ("the blacklist", mysql_lists.BLACKLIST, Wanted(), (NOON_MS + 50, "user/v50")),
    ("the rates of now", mysql_lists.RATES, Wanted(), None),
    ("a rate then", mysql_lists.RATE_HISTORY, Wanted(pair="EUR-C7", to_ms=NOON_MS + 900), None),
    ("entries of an account", mysql_lists.POSTINGS, Wanted(account_id="a7"), None),
    ("entries of a transaction", mysql_lists.POSTINGS, Wanted(transaction_id="t00007"), None),
    ("events of an aggregate", mysql_lists.FACTS, Wanted(aggregate_id="a7"), (NOON_MS + 9, "e1")),
    ("events of a transaction", mysql_lists.FACTS, Wanted(transaction_id="t00007"), None),
    ("events of a type", mysql_lists.FACTS, Wanted(type="Kind7"), None),
    ("events of an actor", mysql_lists.FACTS, Wanted(actor_id="u7", type="Kind7"), None),
]


def plan(store: MySQL, query: Query) -> list[dict[str, Any]]:
    names = ("id", "select", "table", "type", "possible", "key", "length", "ref", "rows", "extra")
    rows = sql(url_of(store), f"EXPLAIN {query.sql}", *query.values)
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize(("name", "listing", "wanted", "after"), ASKED, ids=[a[0] for a in ASKED])
async def test_a_list_goes_along_its_index(
    store: MySQL, name: str, listing: Any, wanted: Wanted, after: Place | None
) -> None:
    for step in plan(store, page(listing, wanted, after, 51)):
        derived = str(step["table"]).startswith("<")  # of what the indexes gave, a page at most
        if not derived:
            assert step["key"], step
            assert step["type"] != "ALL", step
            assert "filesort" not in (step["extra"] or "") or "temporary" in step["extra"], step
        assert step["type"] != "index" or int(step["rows"]) <= 51 * 2, step


async def test_a_search_goes_along_the_words(store: MySQL) -> None:
    for query in (
        search(TABLES["users"], ("name", "email"), "ada7", 10),
        search(
            TABLES["transactions"],
            ("description", "reference"),
            "ref7",
            10,
            narrowing(mysql_lists.TRANSACTIONS, Wanted(owner_id="u7", account_id="a7")),
        ),
    ):
        assert query is not None
        assert [step["type"] for step in plan(store, query)] == ["fulltext"]


async def pages(ask: Callable[..., Any], wanted: Wanted | None, limit: int = 7) -> list[Any]:
    found: list[Any] = []
    after: Place | None = None
    while True:
        shown: Page = await (ask(after, limit) if wanted is None else ask(wanted, after, limit))
        found += shown.items
        assert len(shown.items) <= limit
        after = shown.following
        if after is None:
            return found


async def test_pages_give_each_once_in_order(store: MySQL) -> None:
    of_owner = await pages(store.transactions, Wanted(owner_id="u7"))
    wanted = [transaction(n).document for n in range(7, ROWS, 500)][::-1]
    assert of_owner == wanted
    of_account = await pages(store.transactions, Wanted(account_id="a7"))
    ids = {n for n in range(ROWS) if n % 700 == 7 or n % 300 == 7}
    assert [t["order"]["transaction_id"] for t in of_account] == [
        f"t{n:05d}" for n in sorted(ids, reverse=True)
    ]
    failed = await pages(store.transactions, Wanted(owner_id="u10", status="failed"))
    assert len(failed) == len(range(10, ROWS, 500))
    assert await pages(store.accounts, Wanted(owner_id="u7", currency="EUR")) == [
        account(n).document for n in range(7, ROWS, 500)
    ]
    assert await pages(store.accounts, Wanted(owner_id="u7", currency="JPY")) == []
    assert len(await pages(store.reviews, Wanted(status="open"), 50)) == ROWS // 50
    assert len(await pages(store.notifications, Wanted(owner_id="u7"))) == ROWS // 500
    events = await pages(store.events, Wanted(aggregate_id="a7"))
    assert [e["event_id"] for e in events] == [f"e{n:05d}" for n in range(7, ROWS, 700)]
    entries = await pages(store.entries, Wanted(account_id="a7"))
    assert [e["event_id"] for e in entries] == [f"e{n:05d}" for n in range(7, ROWS, 700)]
    assert len((await store.blacklist(None, 5)).items) == 5
    some = await store.transactions(Wanted(from_ms=NOON_MS + 1, to_ms=NOON_MS + 2), None, 50)
    assert [t["order"]["transaction_id"] for t in some.items] == ["t00005", "t00004", "t00003"]


async def test_searches(store: MySQL) -> None:
    found = await store.search_users("ada19999", 10)
    assert [u["user_id"] for u in found] == ["u19999"]
    assert [u["user_id"] for u in await store.search_users("ada7@bank.example", 10)] == ["u7"]
    assert len(await store.search_users("lovelace of ada", 5)) == 0  # "of" is nowhere
    assert len(await store.search_users("LOVELACE", 5)) == 5
    mine = await store.search_transactions("rent ref7", Wanted(owner_id="u7"), 10)
    assert [t["order"]["transaction_id"] for t in mine] == ["t00007"]
    assert await store.search_transactions("rent ref7", Wanted(owner_id="u8"), 10) == []
    (one,) = mine
    order = one["order"]
    narrowed = Wanted(
        account_id=order["source_account_id"], status=one["status"], type=order["type"],
        currency=order["currency"],
    )  # fmt: skip
    for wanted in (narrowed, replace(narrowed, account_id=order["destination_account_id"])):
        assert await store.search_transactions("rent ref7", wanted, 10) == mine
    for other in (
        {"account_id": "none"},
        {"status": "none"},
        {"type": "none"},
        {"currency": "XXX"},
    ):
        assert await store.search_transactions("rent ref7", replace(narrowed, **other), 10) == []
    for text in ("", '" + - * ( ) ~ < > @', "a", "'; DROP TABLE users --", "\0 %s \\"):
        await store.search_users(text, 5)


async def test_what_a_list_does_not_know(store: MySQL) -> None:
    with pytest.raises(ValueError, match="accounts are listed by owner_id"):
        await store.accounts(Wanted(status="open"), None, 5)
    with pytest.raises(ValueError, match="can't be narrowed to actor_id"):
        await store.entries(Wanted(account_id="a7", actor_id="u1"), None, 5)


async def test_documents_that_are_there(store: MySQL) -> None:
    found = await store.documents(USERS, ["u1", "nobody", "u2"])
    assert set(found) == {"u1", "u2"}
    assert await store.documents(USERS, []) == {}


async def test_the_newest_rate_up_to_a_time(store: MySQL) -> None:
    page = await store.rate_history(Wanted(pair="EUR-C7", to_ms=NOON_MS + 308), None, 1)
    assert [row["at_ms"] for row in page.items] == [NOON_MS + 307]
    page = await store.rate_history(Wanted(pair="EUR-C7", to_ms=NOON_MS + 307), None, 1)
    assert [row["at_ms"] for row in page.items] == [NOON_MS + 157]
    first = await store.rates(None, 100)
    rest = await store.rates(first.following, 100)
    assert len({row["pair"] for row in (*first.items, *rest.items)}) == 150
    assert rest.following is None
