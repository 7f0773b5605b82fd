"""The MongoDB store over the wire of a server that stands in for it (deploy/local/mongo.py).

Each test runs with both drivers. What the stand-in can't show is in docs/stores.md.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError, OperationFailure

from deploy.local.mongo import Mongo
from resilience.breaker import State
from stores import mongo_client
from stores.catalog import ENTRIES, EVENTS, Overtaken, Unavailable
from stores.mongo import MongoDB, NewerDatabase
from stores.mongo_lists import LISTINGS, MIGRATIONS, indexes
from stores.questions import Wanted
from tests.domain.stories import NOON_MS
from tests.stores.things import (
    BLACKLIST,
    NOTIFICATIONS,
    REVIEWS,
    TRANSACTIONS,
    USERS,
    account,
    batch,
    document,
    entry,
    fact,
    links_and_windows,
    listed,
    names,
    rate,
    transaction,
    unlisted,
    user,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from stores.catalog import At, Document
    from stores.questions import Page, Place

CLIENTS = ("motor", "pymongo")
USER_LOG: At = ("user-table-changelog", 0)
ACCOUNT_LOG: At = ("account-table-changelog", 0)
TRANSACTION_LOG: At = ("transaction-table-changelog", 0)
RISK_LOG: At = ("risk-table-changelog", 0)
FACTS: At = ("account.events", 0)

pytestmark = pytest.mark.parametrize("client", CLIENTS)


def url_of(server: Mongo, database: str) -> str:
    return f"mongodb://127.0.0.1:{server.port}/{database}?directConnection=true"


@asynccontextmanager
async def opened(url: str, client: str) -> AsyncIterator[MongoDB]:
    store = MongoDB(url, client)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def db(mongo: Mongo, prefix: str, client: str) -> AsyncIterator[MongoDB]:
    """A migrated database of this test."""
    async with opened(url_of(mongo, f"{prefix}db"), client) as store:
        await store.migrate()
        yield store


async def kept(store: MongoDB, name: str) -> dict[str, Document]:
    return {key: document async for key, document in store.scan(name)}


async def appended(store: MongoDB, at: At, *things: Any) -> int:
    """Write behind what is there, as the one projection that there is; where it stands now."""
    expected = (await store.positions()).get(at, 0)
    await store.write(at, expected, expected + len(things), batch(*things))
    return expected + len(things)


# writing


async def test_a_newer_document_replaces_an_older_one_and_nothing_else(db: MongoDB) -> None:
    for version in (1, 3, 3, 2):
        await appended(db, USER_LOG, user("ada", version))
    assert await db.document(USERS, "ada") == user("ada", 3).document
    assert await db.positions() == {USER_LOG: 4}
    assert await db.document(USERS, "bob") is None


async def test_events_and_entries_are_added_once(db: MongoDB) -> None:
    things = (fact("e1", data={"n": 1}), entry("e1", 0), entry("e1", 1, account="clearing"))
    await appended(db, FACTS, *things)
    changed = (fact("e1", data={"n": 2}), entry("e1", 0, amount_minor=5), fact("e2"))
    await appended(db, FACTS, *changed)
    assert {key: found["data"] for key, found in (await kept(db, EVENTS)).items()} == {
        "e1": {"n": 1},
        "e2": {},
    }
    postings = await kept(db, ENTRIES)
    assert {key: found["amount_minor"] for key, found in postings.items()} == {
        "e1/000": -2_000,
        "e1/001": -2_000,
    }


async def test_a_batch_larger_than_a_call_is_written_whole(db: MongoDB) -> None:
    many = [user(f"u{n:04d}") for n in range(1_201)]
    await appended(db, USER_LOG, *many)
    await appended(db, USER_LOG, *[user("u0000", 2), *many[1:], user("new")])
    found = await kept(db, "users")
    assert [*found] == sorted([change.key for change in many] + ["new"])
    assert found["u0000"]["version"] == 2


async def test_a_position_moves_from_where_it_was_alone(db: MongoDB) -> None:
    assert await db.positions() == {}
    await db.write(USER_LOG, 0, 5, batch(user("ada")))
    await db.write(("user-table-changelog", 1), 0, 2, batch())
    for expected in (0, 4, 6):
        with pytest.raises(Overtaken) as told:
            await db.write(USER_LOG, expected, 9, batch(user("ada", 2)))
        assert (told.value.at, told.value.stored) == (USER_LOG, 5)
    assert await db.positions() == {USER_LOG: 5, ("user-table-changelog", 1): 2}
    assert (await kept(db, "users"))["ada"]["version"] == 1


async def test_of_two_writers_one_goes_on_and_the_other_is_overtaken(
    db: MongoDB, mongo: Mongo, client: str
) -> None:
    """Both write the same log, in batches of their own sizes; each change is there, once."""
    log = [user(f"u{n % 7}", 1 + n // 7) for n in range(70)]
    log += [user("late", version) for version in range(1, 31)]
    overtaken = []

    async def project(store: MongoDB, size: int) -> None:
        position = 0
        while position < len(log):
            some = log[position : position + size]
            try:
                await store.write(USER_LOG, position, position + len(some), batch(*some))
                position += len(some)
            except Overtaken as told:
                overtaken.append(told.stored)
                position = told.stored

    async with opened(url_of(mongo, db.connection.database.name), client) as other:
        await asyncio.gather(project(db, 3), project(other, 5))
    assert overtaken
    assert await db.positions() == {USER_LOG: len(log)}
    assert {key: found["version"] for key, found in (await kept(db, "users")).items()} == {
        **{f"u{n}": 10 for n in range(7)},
        "late": 30,
    }


async def test_a_late_writer_does_not_bring_back_what_was_deleted(
    db: MongoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read the position before the others wrote, and writes its documents after them."""
    entered = asyncio.Event()
    go_on = asyncio.Event()
    change = db._change

    async def held_up(*what: Any) -> None:
        entered.set()
        await go_on.wait()
        await change(*what)

    monkeypatch.setattr(db, "_change", held_up)
    late = asyncio.create_task(db.write(RISK_LOG, 0, 1, batch(listed("eve"))))
    await entered.wait()
    monkeypatch.setattr(db, "_change", change)
    await db.write(RISK_LOG, 0, 1, batch(listed("eve")))
    assert names((await db.blacklist(None, 5)).items, "value") == ["eve"]
    await db.write(RISK_LOG, 1, 2, batch(unlisted("eve")))
    go_on.set()
    with pytest.raises(Overtaken):
        await late
    assert await db.document(BLACKLIST, "user/eve") is None
    assert (await db.blacklist(None, 5)).items == []
    assert await kept(db, "blacklist") == {}
    await db.write(RISK_LOG, 2, 3, batch(listed("eve", NOON_MS + 1)))
    assert names((await db.blacklist(None, 5)).items, "at_ms") == [NOON_MS + 1]


async def test_two_inserts_of_one_document_leave_the_newer(
    db: MongoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older is inserted between the newer's look and its insert: a duplicate that must count."""
    await db._change("users", [user("ada", 1)], 1)
    collection = db.connection.database["users"]
    first = [True]
    bulk = db._bulk

    async def raced(name: str, operations: Sequence[Any]) -> list[int]:
        if first and first.pop():
            return [0]  # what the server says when the other one was faster
        return await bulk(name, operations)

    monkeypatch.setattr(db, "_bulk", raced)
    await db._change("users", [user("ada", 2)], 2)
    assert (await collection.find_one({"_id": "ada"}))["_version"] == 2


LOG = (
    *(user(name, version) for version in range(1, 5) for name in ("ada", "bob")),
    *(fact(f"e{n}") for n in range(4)),
    *(entry("e1", n) for n in range(3)),
)


def test_told_again_in_any_order_is_told_once(mongo: Mongo, client: str) -> None:
    """Parts of the log, twice and shuffled, then the log: the same as the log alone."""

    async def tell(parts: Sequence[Sequence[int]]) -> None:
        async with opened(url_of(mongo, f"h{uuid.uuid4().hex[:8]}"), client) as store:
            for part in parts:
                await appended(store, USER_LOG, *(LOG[n] for n in sorted(part)))
            await appended(store, USER_LOG, *LOG)
            for part in parts:
                await appended(store, USER_LOG, *(LOG[n] for n in sorted(part)))
            found = {name: await kept(store, name) for name in ("users", EVENTS, ENTRIES)}
            await store.connection.database.client.drop_database(store.connection.database.name)
        assert {key: row["version"] for key, row in found["users"].items()} == {"ada": 4, "bob": 4}
        assert [*found[EVENTS]] == ["e0", "e1", "e2", "e3"]
        assert [*found[ENTRIES]] == ["e1/000", "e1/001", "e1/002"]

    parts = st.lists(st.sets(st.integers(0, len(LOG) - 1), min_size=1), max_size=4)

    @settings(max_examples=12, deadline=None, suppress_health_check=[*HealthCheck])
    @given(parts)
    def told(parts: Sequence[Sequence[int]]) -> None:
        asyncio.run(tell(parts))

    told()


# hostile values

HOSTILE = (
    "'; DROP TABLE users; --",
    '"quoted" \\ back',
    "\0",
    "a\0b",
    "🏦 ümläut ‮",
    "$where",
    "$set",
    "a.b.c",
    ".",
    "",
    "_id",
    "_version",
    "_gone",
    "%",
    "%2E",
    "%00%",
    "__proto__",
    "language",
    "$ref",
    "$id",
)
NESTED: Any = {
    "$where": "sleep(1000)",
    "$ref": "users",
    "$id": 1,
    "$db": "admin",
    "list": [{"$gt": ""}, {"a.b": {"": [None, True, 1.5]}}],
    "largest": 10**15,
    "least": -(2**63),
}


async def test_hostile_names_and_values_come_back_as_they_were(db: MongoDB) -> None:
    metadata = dict(zip(HOSTILE, reversed(HOSTILE), strict=True))
    change = transaction("t1", metadata=metadata, amount_minor=10**15, more=NESTED)
    top = document(USERS, "top", **{name: n for n, name in enumerate(HOSTILE)})
    said = fact("e1", data={"metadata": metadata, "more": NESTED})
    await appended(db, TRANSACTION_LOG, change, top, said)
    assert await db.document(TRANSACTIONS, "t1") == change.document
    assert await db.document(USERS, "top") == top.document
    assert (await kept(db, EVENTS))["e1"]["data"] == said.data
    raw = await db.connection.database["transactions"].find_one({"_id": "t1"})
    assert raw["order"]["amount_minor"] == 10**15
    assert raw["order"]["owner_id"] == "u-ada", "what is not hostile stays readable"
    assert type((await db.document(TRANSACTIONS, "t1"))["order"]["amount_minor"]) is int


async def test_hostile_keys_are_keys(db: MongoDB) -> None:
    for number, key in enumerate(HOSTILE):
        await appended(db, USER_LOG, document(USERS, key, n=number))
    for number, key in enumerate(HOSTILE):
        assert await db.document(USERS, key) == {"n": number}
    found = await db.documents(USERS, [*HOSTILE, "absent"])
    assert {key: one["n"] for key, one in found.items()} == {
        key: number for number, key in enumerate(HOSTILE)
    }


async def test_what_is_asked_for_is_never_an_operator(db: MongoDB) -> None:
    await appended(db, ACCOUNT_LOG, account("a1", "ada"), account("a2", "$where"))
    for owner in ("", "$where", "' || '1'=='1", "\0", {"$gt": ""}, {"$ne": None}):
        page = await db.accounts(Wanted(owner_id=owner), None, 5)  # type: ignore[arg-type]
        assert names(page.items) == (["a2"] if owner == "$where" else [])
    for currency in ("USD", "EUR", "$where", "USD.x", "", "\0"):
        page = await db.accounts(Wanted(owner_id="ada", currency=currency), None, 5)
        assert names(page.items) == (["a1"] if currency == "USD" else [])


# questions


async def all_pages(ask: Callable[[Place | None], Any], limit: int) -> list[Document]:
    """Read to the end; each page but the last is full."""
    items: list[Document] = []
    after: Place | None = None
    while True:
        page: Page = await ask(after)
        items += page.items
        if page.following is None:
            return items
        assert len(page.items) == limit
        after = page.following


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_at_equal_times_hold_everything_once(db: MongoDB, limit: int) -> None:
    """Times that repeat, ids in no order: the pages are the sorted list, cut."""
    made = [
        transaction(f"t{n * 7 % 20:02d}", NOON_MS + n // 6, owner_id="ada", status="done")
        for n in range(20)
    ]
    await appended(db, TRANSACTION_LOG, *made, transaction("x", owner_id="bob"))
    order = [(change.document["created_ms"], change.key) for change in made]  # type: ignore[index]
    wanted = Wanted(owner_id="ada", status="done")
    items = await all_pages(lambda after: db.transactions(wanted, after, limit), limit)
    assert [(one["created_ms"], one["order"]["transaction_id"]) for one in items] == sorted(
        order, reverse=True
    )
    narrowed = Wanted(owner_id="ada", from_ms=NOON_MS + 1, to_ms=NOON_MS + 3)
    items = await all_pages(lambda after: db.transactions(narrowed, after, limit), limit)
    assert [one["created_ms"] - NOON_MS for one in items] == [2] * 6 + [1] * 6
    await appended(db, ACCOUNT_LOG, *(account(f"a{n * 3 % 10}", "ada") for n in range(10)))
    items = await all_pages(
        lambda after: db.accounts(Wanted(owner_id="ada", from_ms=NOON_MS), after, limit), limit
    )
    assert names(items) == [f"a{n}" for n in range(10)]


async def test_transactions_are_found_by_either_account_once(db: MongoDB) -> None:
    ends = (
        ("t1", "a", "b"),
        ("t2", "b", "a"),
        ("t3", "a", "a"),
        ("t4", None, "a"),
        ("t5", "b", "c"),
    )
    made = [
        transaction(name, NOON_MS + n, source_account_id=source, destination_account_id=to)
        for n, (name, source, to) in enumerate(ends)
    ]
    await appended(db, TRANSACTION_LOG, *made)

    async def of(**wanted: Any) -> list[str]:
        page = await db.transactions(Wanted(**wanted), None, 9)
        return [one["order"]["transaction_id"] for one in page.items]

    assert await of(account_id="a") == ["t4", "t3", "t2", "t1"]
    assert await of(account_id="c") == ["t5"]
    assert await of(account_id="None") == []
    assert await of(from_ms=NOON_MS + 3) == ["t5", "t4"]
    assert await of(account_id="a", to_ms=NOON_MS + 1) == ["t1"]
    assert await of(account_id="a", currency="EUR") == []


async def test_rates_then_and_now(db: MongoDB) -> None:
    then = [rate("USD", n, n * 10, past=True) for n in (1, 2, 3)]
    await appended(db, ("currency-table-changelog", 0), rate("USD", 3, 30), rate("JPY", 1), *then)
    assert names((await db.rates(None, 5)).items, "pair") == ["EUR-USD", "EUR-JPY"]
    for to_ms, found in ((31, ["1.3"]), (30, ["1.2"]), (10, [])):
        page = await db.rate_history(Wanted(pair="EUR-USD", to_ms=to_ms), None, 1)
        assert names(page.items, "rate") == found


async def test_each_list_is_narrowed_and_sorted_as_it_says(db: MongoDB) -> None:
    await appended(
        db,
        RISK_LOG,
        document(REVIEWS, "r2", status="open", created_ms=2, order={"owner_id": "ada"}),
        document(REVIEWS, "r1", status="open", created_ms=1, order={"owner_id": "bob"}),
        document(REVIEWS, "r3", status="approved", created_ms=0, order={"owner_id": "ada"}),
        listed("eve", 2),
        listed("mallory", 1),
    )
    open_ones = await db.reviews(Wanted(status="open"), None, 5)
    assert [one["created_ms"] for one in open_ones.items] == [1, 2]
    assert len((await db.reviews(Wanted(), None, 5)).items) == 3
    assert names((await db.blacklist(None, 5)).items, "value") == ["mallory", "eve"]
    told = [
        document(NOTIFICATIONS, f"n{n}", user_id=who, template="paid", at_ms=n)
        for n, who in enumerate(("ada", "bob", "ada"))
    ]
    await appended(db, USER_LOG, *told)
    mine = await db.notifications(Wanted(owner_id="ada"), None, 5)
    assert names(mine.items, "at_ms") == [2, 0]
    await appended(
        db,
        FACTS,
        fact("e2", 2),
        fact("e1", 1, type="AccountCredited", aggregate_id="bob"),
        fact("e3", 3, transaction_id=None, actor_id="op"),
        entry("e1", 1, 1, account="bob"),
        entry("e1", 0, 1),
        entry("e2", 0, 2, currency="EUR"),
    )

    async def said(**wanted: Any) -> list[str]:
        return names((await db.events(Wanted(**wanted), None, 5)).items, "event_id")

    assert await said(aggregate_id="ada") == ["e2", "e3"]
    assert await said(transaction_id="t1") == ["e1", "e2"]
    assert await said(type="AccountCredited") == ["e1"]
    assert await said(actor_id="op") == ["e3"]

    async def posted(**wanted: Any) -> list[tuple[str, int]]:
        page = await db.entries(Wanted(**wanted), None, 5)
        return [(one["event_id"], one["number"]) for one in page.items]

    assert await posted(transaction_id="t1") == [("e1", 0), ("e1", 1), ("e2", 0)]
    assert await posted(account_id="ada") == [("e1", 0), ("e2", 0)]
    assert await posted(account_id="ada", currency="EUR") == [("e2", 0)]


async def test_a_list_refuses_what_it_was_not_made_for(db: MongoDB) -> None:
    """Left out, a narrowing would show one customer what is another's."""
    with pytest.raises(ValueError, match="entries can't be narrowed to owner_id"):
        await db.entries(Wanted(account_id="a", owner_id="ada"), None, 5)
    with pytest.raises(ValueError, match="accounts are listed by owner_id"):
        await db.accounts(Wanted(status="open"), None, 5)
    with pytest.raises(ValueError, match="can't be narrowed to currency"):
        await db.notifications(Wanted(owner_id="ada", currency="USD"), None, 5)


async def test_each_question_has_its_index(db: MongoDB) -> None:
    """What explain would tell, where the server can't: equality first, then the order of the list."""
    probe: AsyncMongoClient[Any] = AsyncMongoClient(db._how[0])
    async with probe:
        with pytest.raises(OperationFailure):
            await probe.get_default_database()["users"].find({}).explain()
    for listing in LISTINGS:
        found = await db.connection.database[listing.collection].index_information()
        keys = [index["key"] for index in found.values()]
        for name, path in listing.leads.items():
            assert [(path, 1), *listing.order] in keys
            asked = listing.filter(Wanted(**{name: "x"}), (5, "y"))
            assert asked[path] == {"$eq": "x"}
            assert asked[listing.time] == ({"$lte": 5} if listing.newest_first else {"$gte": 5})
        assert not listing.by_time or listing.order in keys


async def test_a_search_that_the_server_cannot_do_is_left_to_another_store(
    db: MongoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    await appended(db, USER_LOG, user("ada"))
    with pytest.raises(Unavailable, match="has no text search"):
        await db.search_users('ada" -bob $where', 5)

    async def not_asked_again(*_: Any, **__: Any) -> list[Document]:
        raise AssertionError

    monkeypatch.setattr(db, "_ask", not_asked_again)
    with pytest.raises(Unavailable, match="has no text search"):
        await db.search_transactions("rent", Wanted(owner_id="ada"), 5)
    assert await db.search_users(' " ', 5) == []
    assert db.connection.breaker.state is State.CLOSED


# migrations and rebuilds


async def test_migrations_go_forward_by_their_number(
    mongo: Mongo, prefix: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url_of(mongo, f"{prefix}db"), client) as store:
        assert await asyncio.gather(store.migrate(), store.migrate()) == [len(MIGRATIONS)] * 2
        assert await store.migrate() == len(MIGRATIONS)
        found = await store.connection.database["transactions"].index_information()
        assert found["words"]["default_language"] == "none"
        gone = await store.connection.database["blacklist"].index_information()
        assert gone["_gone_1"]["expireAfterSeconds"] == 24 * 3600
        await store.connection.database["migrations"].update_one(
            {"_id": "number"}, {"$set": {"number": len(MIGRATIONS) + 1}}
        )
        with pytest.raises(NewerDatabase, match="start the newer program"):
            await store.migrate()


@pytest.mark.parametrize("renames", [False, True])
async def test_a_rebuilt_collection_takes_the_place_of_the_old(
    db: MongoDB, renames: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the old one is asked and written; what came after the rebuild is read again."""
    if renames:  # what a MongoDB says; the stand-in is right about it until it restarts

        async def says_so() -> bool:
            return True

        monkeypatch.setattr(db, "_renames", says_so)
    await appended(db, USER_LOG, user("ada", 2, name="wrong"), user("ghost"))
    await db.begin_rebuild("users")
    await db.rebuild("users", 2, batch(user("ada", 2), account("a1", "not mine")))
    await appended(db, USER_LOG, user("bob"))
    assert (await db.document(USERS, "ada") or {})["name"] == "wrong"
    await db.swap("users", {USER_LOG: 2})
    assert await db.positions() == {USER_LOG: 2}
    with pytest.raises(Overtaken) as told:
        await db.write(USER_LOG, 3, 4, batch(user("late")))
    assert told.value.stored == 2
    await appended(db, USER_LOG, user("bob"))
    assert await kept(db, "users") == {"ada": user("ada", 2).document, "bob": user("bob").document}
    found = await db.connection.database["users"].index_information()
    assert {index.document["name"] for index in indexes("users")} < found.keys()
    assert "users__rebuild" not in await db.connection.database.list_collection_names()


async def test_a_swap_that_is_cut_off_lets_nobody_write_until_it_is_done(db: MongoDB) -> None:
    await appended(db, USER_LOG, user("ada"), user("bob"))
    await db.begin_rebuild("users")
    await db.rebuild("users", 1, batch(user("ada")))
    await db._hold("users", {USER_LOG: 1})
    with pytest.raises(Unavailable, match="users of MongoDB are being exchanged"):
        await db.write(USER_LOG, 1, 2, batch(user("bob")))
    await db.swap("users", {USER_LOG: 1})
    await db.swap("users", {USER_LOG: 1})
    await db.write(USER_LOG, 1, 2, batch(user("bob")))
    assert [*(await kept(db, "users"))] == ["ada", "bob"]


async def test_of_two_swaps_with_one_source_the_second_is_refused(db: MongoDB) -> None:
    """Else the first that ends would let writers go while the other still exchanges."""
    await appended(db, FACTS, fact("e1"), entry("e1"))
    for name in (EVENTS, ENTRIES):
        await db.begin_rebuild(name)
        await db.rebuild(name, 2, batch(fact("e1"), entry("e1")))
    await db._hold(EVENTS, {FACTS: 2})
    with pytest.raises(Unavailable, match="events of MongoDB are being exchanged"):
        await db.swap(ENTRIES, {FACTS: 2})
    with pytest.raises(Unavailable, match="events of MongoDB are being exchanged"):
        await db.write(FACTS, 2, 3, batch(fact("e2")))
    await db.swap(EVENTS, {FACTS: 2})
    await db.swap(ENTRIES, {FACTS: 2})
    await db.write(FACTS, 2, 3, batch(fact("e2")))
    assert [*(await kept(db, EVENTS)), *(await kept(db, ENTRIES))] == ["e1", "e2", "e1/000"]


async def test_a_write_that_a_swap_overtook_is_done_again(
    db: MongoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wrote into the collection that was then replaced, and the position stands where it stood."""
    await appended(db, USER_LOG, user("ada"))
    move = db._move

    async def swapped_first(*what: Any) -> None:
        await db.begin_rebuild("users")
        await db.rebuild("users", 1, batch(user("ada")))
        await db.swap("users", {USER_LOG: 1})
        await move(*what)

    monkeypatch.setattr(db, "_move", swapped_first)
    with pytest.raises(Overtaken) as told:
        await db.write(USER_LOG, 1, 2, batch(user("bob")))
    assert told.value.stored == 1
    monkeypatch.setattr(db, "_move", move)
    await db.write(USER_LOG, 1, 2, batch(user("bob")))
    assert [*(await kept(db, "users"))] == ["ada", "bob"]


@pytest.mark.parametrize("name", [EVENTS, ENTRIES, "payments", "blacklist"])
async def test_everything_can_be_rebuilt(db: MongoDB, name: str) -> None:
    things = (fact("e1"), entry("e1"), listed("eve"), unlisted("bob"), document(USERS, "ada"))
    await db.begin_rebuild(name)
    await db.rebuild(name, 9, batch(*things))
    await db.swap(name, {FACTS: 1})
    expected = {EVENTS: ["e1"], ENTRIES: ["e1/000"], "payments": [], "blacklist": ["user/eve"]}
    assert [*(await kept(db, name))] == expected[name]
    assert await kept(db, "users") == {}


# outages


async def test_what_a_killed_server_lost_is_written_again(
    store: Callable[[type[Mongo]], Mongo], client: str
) -> None:
    """The position lies beside the documents, so that it goes back with them."""
    server = store(Mongo)
    log = [user(f"u{n:03d}") for n in range(400)]
    async with opened(url_of(server, "streambank"), client) as db:
        await db.migrate()
        for start in range(0, len(log), 10):
            await db.write(USER_LOG, start, start + 10, batch(*log[start : start + 10]))
        server.kill()
        with pytest.raises(Unavailable):
            await db.write(USER_LOG, 400, 401, batch(user("more")))
        server.restart()
        position = (await db.positions()).get(USER_LOG, 0)
        there = await kept(db, "users")
        assert {change.key for change in log[:position]} <= there.keys()
        if position < len(log):
            with pytest.raises(Overtaken) as told:
                await db.write(USER_LOG, 400, 401, batch(user("more")))
            assert told.value.stored == position
            await db.write(USER_LOG, position, 400, batch(*log[position:]))
        await db.write(USER_LOG, 400, 401, batch(user("more")))
        assert [*(await kept(db, "users"))] == ["more", *(change.key for change in log)]


async def test_a_server_that_is_away_opens_the_breaker_and_closes_it_when_back(
    store: Callable[[type[Mongo]], Mongo], client: str
) -> None:
    server = store(Mongo)
    async with opened(url_of(server, "streambank"), client) as db:
        await appended(db, USER_LOG, user("ada"))
        server.kill()
        breaker = db.connection.breaker
        while breaker.state is State.CLOSED:
            asked = (db.document(USERS, "ada") for _ in range(5))
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(one) for one in told} == {Unavailable}
        assert breaker.state is State.OPEN
        with pytest.raises(Unavailable, match="breaker of mongodb is open"):
            await db.document(USERS, "ada")
        assert shown("streambank_breaker_state", downstream="mongodb") == 2
        server.restart()
        breaker._until_s = 0.0  # its 30 s are over
        assert await db.document(USERS, "ada") == user("ada").document
        assert breaker.state is State.CLOSED


async def test_a_server_that_hangs_is_given_up(
    store: Callable[[type[Mongo]], Mongo], client: str
) -> None:
    server = store(Mongo)
    async with opened(url_of(server, "streambank"), client) as db:
        await appended(db, USER_LOG, user("ada"))
        server.freeze()
        with pytest.raises(Unavailable):
            await db.document(USERS, "ada")
        with pytest.raises(Unavailable):
            await db.write(USER_LOG, 1, 2, batch(user("ada", 2)))
        server.thaw()
        while True:
            try:
                await appended(db, USER_LOG, user("ada", 3))
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        assert (await db.document(USERS, "ada") or {})["version"] == 3


@pytest.mark.parametrize("code", [43, 175, 237, 11601, 14031])
async def test_a_server_that_cannot_do_it_now_is_away(db: MongoDB, code: int) -> None:
    """What the stand-in never says: a full disk, a killed operation, a cursor that is gone."""

    async def failing(error: Exception) -> None:
        raise error

    failed = BulkWriteError({"writeErrors": [{"index": 0, "code": code}]})
    for error in (OperationFailure("not now", code), failed):
        with pytest.raises(Unavailable):
            await db.connection.call(failing, error)


async def test_a_full_pool_refuses_after_its_time(
    db: MongoDB, mongo: Mongo, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mongo_client.POOL, "waitQueueTimeoutMS", 50)
    monkeypatch.setitem(mongo_client.POOL, "maxPoolSize", 1)
    monkeypatch.setitem(mongo_client.POOL, "minPoolSize", 0)
    before = shown("streambank_mongodb_pool_none_free_total")
    async with opened(url_of(mongo, db.connection.database.name), client) as narrow:
        await narrow.positions()
        mongo.freeze()
        try:
            found = await asyncio.gather(
                *(narrow.document(USERS, "ada") for _ in range(4)), return_exceptions=True
            )
        finally:
            mongo.thaw()
    refused = [one for one in found if isinstance(one, Unavailable)]
    assert len(refused) >= 3  # one may have been answered while the server froze
    assert all(one is None for one in found if one not in refused)
    assert shown("streambank_mongodb_pool_none_free_total") > before


async def test_the_pool_is_counted(db: MongoDB) -> None:
    await asyncio.gather(*(db.document(USERS, "ada") for _ in range(40)))
    assert shown("streambank_mongodb_pool_open") >= 1
    assert shown("streambank_mongodb_pool_used") == 0
    assert shown("streambank_mongodb_pool_waiting") == 0


def shown(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_links_and_windows(db: MongoDB) -> None:
    await links_and_windows(db)
