"""The pool: its limits, its time-outs, its breaker, on a MariaDB that is killed and frozen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY

from deploy.local.mariadb import MariaDB
from resilience.breaker import State
from stores import mysql_pool
from stores.catalog import Unavailable
from stores.mysql_lists import Query
from stores.mysql_pool import LEAST, MOST
from tests.stores.mysql_database import fresh, new_database, opened, sql
from tests.stores.test_mysql import LOG, in_order, url_of
from tests.stores.things import USERS, batch, user

if TYPE_CHECKING:
    from collections.abc import Callable

    from stores.mysql import MySQL

HELD_S = 60.0  # what a test may hold a connection for


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def connections(store: MySQL) -> int:
    (found,) = sql(
        url_of(store),
        "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE()",
    )
    return int(found[0]) - 1  # the one that asks


async def until(met: Callable[[], bool], within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not met():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


async def sleeping(cursor: Any) -> None:
    await cursor.execute("SELECT SLEEP(2)")


async def test_no_more_than_the_most_and_a_limit_to_waiting(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fresh(mariadb) as store:
        await store.positions()
        assert connections(store) == LEAST
        none_free = sample("streambank_mysql_pool_none_free_total")
        done = asyncio.Event()

        async def holding(_cursor: Any) -> None:
            await done.wait()

        asked = [asyncio.create_task(store.pool.read(holding, HELD_S)) for _ in range(MOST)]
        await until(lambda: sample("streambank_mysql_pool_used") == MOST)
        monkeypatch.setattr(mysql_pool, "ACQUIRE_S", 0.1)
        with pytest.raises(Unavailable, match="no connection"):
            await store.positions()
        assert connections(store) == MOST
        assert sample("streambank_mysql_pool_none_free_total") == none_free + 1
        done.set()
        await asyncio.gather(*asked)
        await store.positions()


async def test_idle_connections_go_and_broken_ones_are_noticed(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_pool, "IDLE_S", 0.2)
    monkeypatch.setattr(mysql_pool, "VALIDATE_S", 0.1)
    async with fresh(mariadb) as store:
        await asyncio.gather(*(store.pool.read(sleeping) for _ in range(12)))
        await until(lambda: connections(store) == LEAST)
        for (number,) in sql(
            url_of(store), "SELECT id FROM information_schema.processlist WHERE db = DATABASE()"
            " AND id <> CONNECTION_ID()",
        ):  # fmt: skip
            sql(url_of(store), f"KILL {number}")
        await in_order(store, batch(user("ada")))
        assert await store.document(USERS, "ada")


async def test_a_frozen_server_is_given_up_and_left_alone(
    store: Callable[[type[MariaDB]], MariaDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_pool, "ANSWER_S", 0.2)
    monkeypatch.setattr(mysql_pool, "ACQUIRE_S", 0.2)
    server = store(MariaDB)
    async with opened(server.url) as mysql:
        await mysql.migrate()
        await in_order(mysql, batch(user("ada")))
        server.freeze()
        for _ in range(12):
            with pytest.raises(Unavailable):
                await mysql.pool.read(sleeping, 0.2)
        assert mysql.pool.breaker.state is State.OPEN
        with pytest.raises(Unavailable, match="breaker of mysql is open"):  # it was not asked
            await mysql.document(USERS, "ada")
        server.thaw()
        mysql.pool.breaker._until_s = 0.0
        assert await mysql.document(USERS, "ada")
        assert mysql.pool.breaker.state is State.CLOSED


async def test_a_killed_server_is_found_again(store: Callable[[type[MariaDB]], MariaDB]) -> None:
    server = store(MariaDB)
    async with opened(server.url) as mysql:
        await mysql.migrate()
        await in_order(mysql, batch(user("ada")))
        server.kill()
        with pytest.raises(Unavailable):
            await mysql.document(USERS, "ada")
        server.start()
        assert await mysql.document(USERS, "ada")
        await mysql.write(LOG, 1, 2, batch(user("ada", 2)))
        assert (await mysql.positions())[LOG] == 2


@pytest.mark.parametrize("code", [1021, 1026, 1030, 1114, 1142, 1317, 1969, 3024, 3032])
async def test_a_server_that_cannot_do_it_now_is_away(mariadb: MariaDB, code: int) -> None:
    async def said(cursor: Any) -> None:
        await cursor.execute(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}")

    async with opened(new_database(mariadb)) as mysql:
        for call in (mysql.pool.read, mysql.pool.write):
            with pytest.raises(Unavailable):
                await call(said)


async def test_a_question_that_was_killed_is_asked_elsewhere(mariadb: MariaDB) -> None:
    async with opened(new_database(mariadb)) as mysql:
        asked = asyncio.create_task(mysql._rows(LONG))
        while not (asking := questions(mysql)):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
        sql(url_of(mysql), f"KILL QUERY {asking[0]}")
        with pytest.raises(Unavailable):
            await asked


async def test_a_question_that_takes_too_long_ends_in_the_server_too(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_pool, "ANSWER_S", 0.5)
    async with opened(new_database(mariadb)) as mysql:
        with pytest.raises(Unavailable):
            await mysql._rows(LONG)
        await until(lambda: not questions(mysql), within_s=5)


LONG = Query("SELECT MAX(LENGTH(seq)) FROM seq_1_to_100000000000", ())


def questions(store: MySQL) -> list[int]:
    found = sql(
        url_of(store),
        "SELECT id FROM information_schema.processlist"
        " WHERE db = DATABASE() AND info LIKE '%seq_1_to%' AND id <> CONNECTION_ID()",
    )
    return [number for (number,) in found]


async def test_a_deadlock_is_tried_again(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        await in_order(store, batch(user("ada"), user("bob")))
        met = asyncio.Barrier(2)
        tries = 0

        async def update(cursor: Any, *names: str) -> None:
            nonlocal tries
            tries += 1
            for number, name in enumerate(names):
                await cursor.execute(
                    "UPDATE users SET version = version + 1 WHERE user_id = %s", name
                )
                if not number and tries <= 2:
                    await met.wait()

        await asyncio.gather(
            store.pool.write(lambda cursor: update(cursor, "ada", "bob")),
            store.pool.write(lambda cursor: update(cursor, "bob", "ada")),
        )
        assert tries == 3
        found = await store.documents(USERS, ["ada", "bob"])
        assert {doc["version"] for doc in found.values()} == {3}
