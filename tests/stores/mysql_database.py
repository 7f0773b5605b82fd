"""A database of a test's own in the run's MariaDB."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pymysql

from stores.mysql import MySQL
from stores.mysql_pool import options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from deploy.local.mariadb import MariaDB


def new_database(server: MariaDB) -> str:
    """Its URL."""
    name = f"streambank_{uuid.uuid4().hex[:10]}"
    sql(server.url, f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
    return server.url.rpartition("/")[0] + f"/{name}"


def sql(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """One statement by a client that is not ours."""
    told = options(url)
    with (
        pymysql.connect(
            host=told["host"],
            port=told["port"],
            user=told["user"],
            password=told["password"],
            database=told["db"],
            charset="utf8mb4",
            autocommit=True,
            ssl_disabled=True,  # else each reads all certificates of the machine
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[MySQL]:
    store = MySQL(url)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def fresh(server: MariaDB) -> AsyncIterator[MySQL]:
    """A store with its tables in a new database."""
    async with opened(new_database(server)) as store:
        await store.migrate()
        yield store
