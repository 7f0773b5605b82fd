"""The MySQL store on a real MariaDB: what is written can be read, once, however often it is told."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.account import Account
from resilience.breaker import State
from stores.catalog import (
    ENTRIES,
    EVENTS,
    KINDS,
    LINKS,
    Entry,
    Link,
    Overtaken,
    Said,
    Unavailable,
    Unfit,
    change,
    json_of,
)
from stores.mysql_schema import Lock, foreign_keys
from stores.mysql_tables import TABLES, cut
from stores.questions import Wanted
from tests.domain.stories import NOON_MS
from tests.schemas.things import things
from tests.stores.mysql_database import fresh, sql
from tests.stores.things import (
    ACCOUNTS,
    BLACKLIST,
    USERS,
    account,
    batch,
    entry,
    fact,
    link,
    links_and_windows,
    listed,
    unlisted,
    user,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.mariadb import MariaDB
    from stores.catalog import At, Batch, Change, Kind
    from stores.mysql import MySQL

LOG: At = ("user-table-changelog", 0)
RISK_LOG: At = ("risk-table-changelog", 0)
HOSTILE = (
    "O'Brien\" \\ \0 \x1a %s %(x)s {$where: '1'}",
    "🏦 Zoë ﷽ \u200b",
    "-- '; DROP TABLE users",
    "a ",
)


async def in_order(store: MySQL, *batches: Batch, at: At = LOG) -> None:
    for offset, said in enumerate(batches):
        await store.write(at, offset, offset + 1, said)


def rows(kind: Kind) -> st.SearchStrategy[Any]:
    made = things(kind.row)
    if kind.row is Account:  # no limit but in a currency that is held
        made = made.map(
            lambda row: replace(
                row,
                overdraft_limits={
                    c: n for c, n in row.overdraft_limits.items() if c in row.balances
                }
                | dict.fromkeys(list(row.balances)[:1], 7),
                held={c: n for c, n in row.held.items() if c in row.balances}
                | dict.fromkeys(list(row.balances)[-1:], 5),
            )
        )
    return made


def at(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        document = document[name]
    return document


async def come_back(
    store: MySQL,
    kind: Kind,
    examples: int,
    behind: str = "",
    told: Callable[[Any], Any] = lambda document: document,
) -> list[str]:
    """Each of some rows, as it is `told`, is answered as it was written. Answers their keys, which end in `behind`."""
    keys: list[str] = []

    async def check(row: Any) -> None:
        offset = len(keys)
        key = f"k{offset}{behind}"
        if isinstance(row, Account):  # a currency never leaves an account
            row = replace(row, account_id=f"{row.account_id}{offset}")
        said = change(kind, f"{kind.prefix}{key}", row)
        said = replace(said, document=told(said.document))
        table = TABLES[kind.name]
        if table.keyed:
            column = next(c for c in table.columns if c.name == table.key)
            said = replace(said, key=at(said.document, column.path))
        await store.write((kind.changelog, 0), offset, offset + 1, batch(said))
        keys.append(said.key)
        assert await store.document(kind, said.key) == said.document

    loop = asyncio.get_running_loop()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(rows(kind))
    def run(row: Any) -> None:
        asyncio.run_coroutine_threadsafe(check(row), loop).result(30)

    await asyncio.to_thread(run)
    return keys


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_document_comes_back_as_it_was(mariadb: MariaDB, kind: Kind) -> None:
    async with fresh(mariadb) as store:
        await come_back(store, kind, 60)


def lengthened(value: Any, name: str = "") -> Any:
    """A document whose every text is longer than any column that has a limit."""
    match value:
        case str():
            return f"{value}{name}{'x' * 600}"
        case list():
            return [lengthened(one, name) for one in value]
        case dict():
            return {key: lengthened(one, key) for key, one in value.items()}
    return value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_no_text_of_a_document_is_too_long(mariadb: MariaDB, kind: Kind) -> None:
    async with fresh(mariadb) as store:
        keys = await come_back(store, kind, 5, "x" * 600, lengthened)
        assert {*keys} <= {key async for key, _ in store.scan(kind.name)}


async def test_no_text_of_a_fact_is_too_long(mariadb: MariaDB) -> None:
    texts = {
        name: name + "x" * 600
        for name in (
            *("service", "type", "aggregate_id", "transaction_id", "actor_id", "address"),
            *("correlation_id", "causation_id", "trace_id", "request_id"),
        )
    }
    said = [fact("e" * 600 + end, **texts) for end in "ab"]
    posted = entry("e" * 600, account="a" * 600, currency="c" * 600, transaction_id="t" * 600)
    chained = link("c" * 600, 7)
    async with fresh(mariadb) as store:
        await in_order(store, batch(*said, fact("e"), posted, chained))
        for name in ("type", "aggregate_id", "transaction_id", "actor_id"):
            wanted = Wanted(**{name: texts[name]})
            first = await store.events(wanted, None, 1)
            rest = await store.events(wanted, first.following, 1)
            found = sorted([*first.items, *rest.items], key=lambda one: one["event_id"])
            assert found == [json_of(one) for one in said]
            assert rest.following is None
        both = Wanted(transaction_id=posted.transaction_id, account_id=posted.account)
        assert (await store.entries(both, None, 9)).items == [json_of(posted)]
        assert [doc async for _, doc in store.scan(LINKS)] == [json_of(chained)]


async def test_long_ids_are_told_apart(mariadb: MariaDB) -> None:
    long = "x" * 300
    ids = [long, f"{long} ", long[:191], cut(long, 191), cut(cut(long, 191), 191)]
    gone = "user/" + "x" * 400
    async with fresh(mariadb) as store:
        await in_order(store, batch(*(user(name) for name in ids)))
        found = await store.documents(USERS, ids)
        assert {key: doc["name"] for key, doc in found.items()} == {name: name for name in ids}
        assert {key async for key, _ in store.scan("users")} == set(ids)
        await in_order(store, batch(listed("x" * 400)), batch(unlisted("x" * 400)), at=RISK_LOG)
        assert await store.document(BLACKLIST, gone) is None


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_stays_text(mariadb: MariaDB, text: str) -> None:
    async with fresh(mariadb) as store:
        person = user(text, name=text, email=text, roles=[text])
        said = fact(text, aggregate_id=text, actor_id=text, data={text: [text, {"$where": text}]})
        posted = entry(text, 1, account=text, amount_minor=-(10**15))
        await in_order(store, batch(person, said, posted))
        assert await store.document(USERS, text) == person.document
        assert [doc async for _, doc in store.scan(EVENTS)] == [json_of(said)]
        assert [doc async for _, doc in store.scan(ENTRIES)] == [json_of(posted)]


async def test_a_megabyte_of_metadata(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        large = user("ada", roles=["\\'🏦" * 200_000])
        await in_order(store, batch(user("bob"), large, user("eve")))
        assert await store.document(USERS, "ada") == large.document


async def test_ids_are_told_apart_to_the_last_byte(mariadb: MariaDB) -> None:
    ids = ["ada", "Ada", "ada ", "adä", "ada\0"]
    async with fresh(mariadb) as store:
        await in_order(store, batch(*(user(name) for name in ids)))
        found = await store.documents(USERS, ids)
        assert {key: doc["name"] for key, doc in found.items()} == {name: name for name in ids}


async def test_a_document_gives_way_to_what_lies_further_on(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        await in_order(store, batch(user("ada", 1)), batch(user("ada", 2)))
        sql_rewind(store)
        await store.write(LOG, 0, 1, batch(user("ada", 1)))
        found = await store.document(USERS, "ada")
        assert found is not None
        assert found["version"] == 2


def sql_rewind(store: MySQL, to: int = 0) -> None:
    sql(url_of(store), "UPDATE positions SET following = %s", to)


def url_of(store: MySQL) -> str:
    told = store.pool.options
    return f"mysql://{told['user']}:{told['password']}@{told['host']}:{told['port']}/{told['db']}"


async def test_what_left_the_blacklist_is_gone(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        await in_order(store, batch(listed("mal", NOON_MS)), batch(unlisted("mal")), at=RISK_LOG)
        assert await store.document(BLACKLIST, "user/mal") is None
        await store.write(RISK_LOG, 2, 3, batch(listed("mal", NOON_MS - 1)))
        assert await store.document(BLACKLIST, "user/mal") == listed("mal", NOON_MS - 1).document


async def test_of_two_writers_one_is_overtaken_and_writes_nothing(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        await in_order(store, batch(user("ada")))
        done = await asyncio.gather(
            *(store.write(LOG, 1, 2 + n, batch(user(f"u{n}"))) for n in range(8)),
            return_exceptions=True,
        )
        won = [n for n, outcome in enumerate(done) if outcome is None]
        assert len(won) == 1
        assert all(isinstance(e, Overtaken) and e.stored == 2 + won[0] for e in done if e)
        assert {key async for key, _ in store.scan("users")} == {"ada", f"u{won[0]}"}
        assert await store.positions() == {LOG: 2 + won[0]}


async def test_what_does_not_fit_is_refused_whole(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        sql(url_of(store), "ALTER TABLE users MODIFY COLUMN name VARCHAR(3) NOT NULL")
        with pytest.raises(Unfit, match="name"):
            await in_order(store, batch(user("ada"), user("beth")))
        assert await store.document(USERS, "ada") is None
        assert await store.positions() == {}


async def test_a_position_that_is_not_there_is_zero(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        with pytest.raises(Overtaken) as overtaken:
            await store.write(LOG, 5, 6, batch(user("ada")))
        assert overtaken.value.stored == 0
        assert await store.document(USERS, "ada") is None


HISTORY = [
    batch(user("ada", 1), fact("e1"), entry("e1")),
    batch(user("ada", 2), user("bob", 1), fact("e2"), entry("e2"), entry("e2", 1)),
    batch(user("bob", 2)),
    batch(user("ada", 3), fact("e3")),
]


async def contents(store: MySQL) -> dict[str, Any]:
    return {name: [doc async for _, doc in store.scan(name)] for name in ("users", EVENTS, ENTRIES)}


async def test_told_again_in_any_order_is_told_once(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store, fresh(mariadb) as told_once:
        await in_order(told_once, *HISTORY)
        expected = await contents(told_once)
        loop = asyncio.get_running_loop()

        async def check(again: list[int]) -> None:
            for name in ("users", "audit_trail", "entries", "positions"):
                sql(url_of(store), f"DELETE FROM {name}")
            await in_order(store, *HISTORY)
            for number in again:  # as if by a writer from before: it must change nothing
                sql_rewind(store, number)
                await store.write(LOG, number, number + 1, HISTORY[number])
            assert await contents(store) == expected

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.integers(0, len(HISTORY) - 1), max_size=6))
        def run(again: list[int]) -> None:
            asyncio.run_coroutine_threadsafe(check(again), loop).result(30)

        await asyncio.to_thread(run)


def test_each_field_of_a_row_has_a_column() -> None:
    for kind in KINDS:
        there = {column.path[0] for column in TABLES[kind.name].columns}
        there |= {"balances", "overdraft_limits", "held"} if kind is ACCOUNTS else set()
        assert there == {field.name for field in fields(kind.row)}, kind.name
    for name, row in ((ENTRIES, Entry), (EVENTS, Said), (LINKS, Link)):
        assert {c.path[0] for c in TABLES[name].columns} == {field.name for field in fields(row)}


async def test_an_exchange_puts_the_positions_back(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        await in_order(store, *HISTORY[:3])
        await store.write(RISK_LOG, 0, 9, batch(listed("mal")))
        await store.begin_rebuild("users")
        await store.rebuild("users", 1, HISTORY[0])
        assert len([key async for key, _ in store.scan("users")]) == 2  # as it was
        await store.swap("users", {LOG: 1})
        assert [key async for key, _ in store.scan("users")] == ["ada"]
        assert await store.positions() == {LOG: 1, RISK_LOG: 9}
        with pytest.raises(Overtaken) as overtaken:
            await store.write(LOG, 3, 4, HISTORY[3])
        assert overtaken.value.stored == 1
        for number in (1, 2, 3):
            await store.write(LOG, number, number + 1, HISTORY[number])
        found = await store.documents(USERS, ["ada", "bob"])
        assert {key: doc["version"] for key, doc in found.items()} == {"ada": 3, "bob": 2}


@pytest.mark.parametrize("name", ["users", "accounts"])
async def test_an_exchange_that_was_cut_off_is_done_again(mariadb: MariaDB, name: str) -> None:
    """Killed between the exchange of the tables and the end of the old ones."""
    tables = ("accounts", "balances") if name == "accounts" else (name,)
    async with fresh(mariadb) as store:
        await in_order(store, batch(user("ada"), whole_account("a", "ada")))
        for _ in range(2):
            await store.begin_rebuild(name)
            await store.rebuild(name, 1, batch(user("ada"), whole_account("a", "ada")))
            exchanged = [f"{t} TO {t}__old, {t}__rebuild TO {t}" for t in tables]
            sql(url_of(store), f"RENAME TABLE {', '.join(exchanged)}")
        await store.begin_rebuild(name)
        await store.rebuild(name, 1, batch(user("ada"), whole_account("a", "ada")))
        await store.swap(name, {LOG: 1})
        assert [key async for key, _ in store.scan(name)] == ["ada" if name == "users" else "a"]
        assert sql(url_of(store), "SHOW TABLES LIKE '%\\_\\_%'") == []
        declared = sql(
            url_of(store),
            "SELECT constraint_name, table_name, referenced_table_name"
            " FROM information_schema.referential_constraints"
            " WHERE constraint_schema = DATABASE()",
        )
        assert set(declared) == {(key.name, key.table, key.target) for key in foreign_keys()}


def whole_account(account_id: str, owner: str) -> Change:
    return account(
        account_id, owner,
        open_legs=0, request_hash="", overdraft_limits={}, held={}, updated_ms=NOON_MS,
    )  # fmt: skip


async def test_nobody_writes_while_tables_are_exchanged(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        await in_order(store, batch(user("ada")))
        other = await store.pool.connect()
        async with other.cursor() as cursor, Lock(cursor, f"{store.pool.database}.swap"):
            for _ in range(12):  # a server that answers so is no reason to leave it alone
                with pytest.raises(Unavailable, match="exchanged"):
                    await store.write(LOG, 1, 2, batch(user("bob")))
        assert store.pool.breaker.state is State.CLOSED
        other.close()
        await store.write(LOG, 1, 2, batch(user("bob")))


async def test_links_and_windows(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        await links_and_windows(store)
        await store.begin_rebuild("audit_logs")
        await store.rebuild("audit_logs", 1, batch(link("account.events-0", 7)))
        await store.swap("audit_logs", {})
        assert [key async for key, _ in store.scan("audit_logs")] == ["account.events-0-7"]
