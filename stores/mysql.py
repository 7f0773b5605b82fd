"""The stores' documents in MySQL, or MariaDB: what a projection writes, what the gateway asks.

    write:  one transaction: position, if it is the expected one --> documents, events, entries
    rebuild: begin_rebuild --> rebuild … --> swap: positions put back --> tables exchanged

A document gives way to one that lies further on in its log: told twice, or late, it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pymysql.err

from stores import mysql_schema as schema
from stores.catalog import (
    ENTRIES,
    EVENTS,
    KINDS,
    LINKS,
    NAMES,
    Overtaken,
    Unavailable,
    Unfit,
    sources,
)
from stores.mysql_lists import (
    ACCOUNTS_OF,
    BLACKLIST,
    NOTIFICATIONS,
    POSTINGS,
    RATE_HISTORY,
    RATES,
    REVIEWS,
    TRANSACTIONS,
    WINDOWS,
    Listing,
    Query,
    narrowing,
    page,
    search,
    selected,
)
from stores.mysql_lists import FACTS as SAID
from stores.mysql_pool import Pool, limited
from stores.mysql_tables import (
    BALANCES,
    TABLES,
    Table,
    account_document,
    balance_rows,
    upsert,
)
from stores.questions import Page, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence

    from stores.catalog import At, Batch, Change, Document, Entry, Kind, Link, Said
    from stores.questions import Place

CHUNK = 500  # rows of a page of a scan
MOVE = (
    "UPDATE positions SET following = %s"
    " WHERE topic = %s AND number = %s AND following = %s AND IS_FREE_LOCK(%s)"
)


class Exchanged(Exception):
    """Tables are being exchanged: no writer may move a position. The server is well."""


class MySQL:
    """`stores.catalog.Store` and `stores.questions.Questions`."""

    name = "mysql"

    def __init__(self, url: str) -> None:
        self.pool = Pool(url)
        self._swapping = f"{self.pool.database[:50]}.swap"  # of 64 letters at most

    async def close(self) -> None:
        await self.pool.close()

    async def migrate(self) -> int:
        """Bring the database to this program's number and return it. Raises OtherSchema.

        Again, or by several at once: the same.
        """
        connection = await self.pool.connect()
        try:
            return await schema.migrate(connection, self.pool.database)
        finally:
            connection.close()

    async def check(self) -> None:
        """Raises OtherSchema when the database is older or newer than this program."""
        await self.pool.read(schema.check)

    # what a projection needs

    async def positions(self) -> dict[At, int]:
        rows = await self._rows(Query("SELECT topic, number, following FROM positions", ()))
        return {(topic, number): following for topic, number, following in rows}

    async def write(self, at: At, expected: int, following: int, batch: Batch) -> None:
        """As `catalog.Store.write`; all or nothing."""

        async def written(cursor: Any) -> None:
            await self._move(cursor, at, expected, following)
            for kind in KINDS:
                await _change(cursor, kind.name, "", batch.of(kind), following)
            await _add(cursor, EVENTS, "", _said(batch))
            await _add(cursor, ENTRIES, "", _entries(batch))
            await _add(cursor, LINKS, "", _links(batch))

        try:
            await self.pool.write(written)
        except pymysql.err.DataError as exc:  # too long, out of range
            raise Unfit(str(exc.args[-1])) from exc
        except Exchanged as exc:
            raise Unavailable("tables of MySQL are being exchanged") from exc

    async def _move(self, cursor: Any, at: At, expected: int, following: int) -> None:
        """First of all, so that two writers of a partition come one after the other."""
        if not expected:
            await cursor.execute(
                "INSERT INTO positions (topic, number, following) VALUES (%s, %s, 0)"
                " ON DUPLICATE KEY UPDATE following = positions.following",
                at,
            )
        moved = await cursor.execute(MOVE, (following, *at, expected, self._swapping))
        if moved:
            return
        await cursor.execute(
            "SELECT COALESCE(MAX(following), 0), IS_FREE_LOCK(%s) FROM positions"
            " WHERE topic = %s AND number = %s",
            (self._swapping, *at),
        )
        stored, free = await cursor.fetchone()
        if not free:
            raise Exchanged
        raise Overtaken(at, stored)

    # a table built anew beside the one that is asked

    async def begin_rebuild(self, name: str) -> None:
        """An empty table beside that of `name`, one of `catalog.NAMES`.

        What an exchange that was cut off left of the old table goes, and what refers to it refers
        to the new one again.
        """
        connection = await self.pool.connect()
        try:
            async with (
                connection.cursor() as cursor,
                schema.Lock(cursor, self._swapping),
            ):
                await _clear(cursor, name)
                for table in _tables(name):
                    await cursor.execute(f"DROP TABLE IF EXISTS {_side(table)}")
                    await cursor.execute(f"CREATE TABLE {_side(table)} LIKE {table}")
        finally:
            connection.close()

    async def rebuild(self, name: str, following: int, batch: Batch) -> None:
        """Write what a batch says of `name` into its new table; no position moves."""

        async def written(cursor: Any) -> None:
            if name == EVENTS:
                await _add(cursor, EVENTS, SIDE, _said(batch))
            elif name == ENTRIES:
                await _add(cursor, ENTRIES, SIDE, _entries(batch))
            elif name == LINKS:
                await _add(cursor, LINKS, SIDE, _links(batch))
            else:
                changes = [one for one in batch.changes.values() if one.kind.name == name]
                await _change(cursor, name, SIDE, changes, following)

        await self.pool.write(written)

    async def swap(self, name: str, positions: Mapping[At, int]) -> None:
        """Put the new table in the place of the old, and the positions back to these.

        `positions` names every partition of the sources of `name`; one that is left out is read
        from its beginning. Whoever writes meanwhile gets Unavailable, then Overtaken. Cut off, the
        old table or the new is there, and both are written from where the positions are.
        """
        connection = await self.pool.connect()
        try:
            async with (
                connection.cursor() as cursor,
                schema.Lock(cursor, self._swapping),
            ):
                await _clear(cursor, name)
                await self._put_back(connection, cursor, name, positions)
                exchanged = [
                    f"{table} TO {table}{OLD}, {_side(table)} TO {table}" for table in _tables(name)
                ]
                await cursor.execute(f"RENAME TABLE {', '.join(exchanged)}")
                await _clear(cursor, name)
        finally:
            connection.close()

    async def _put_back(
        self, connection: Any, cursor: Any, name: str, positions: Mapping[At, int]
    ) -> None:
        await connection.begin()
        await cursor.execute("SELECT topic, number, following FROM positions FOR UPDATE")
        for topic, number, following in await cursor.fetchall():
            if topic in sources(name):
                back = min(following, positions.get((topic, number), 0))
                await cursor.execute(
                    "UPDATE positions SET following = %s WHERE topic = %s AND number = %s",
                    (back, topic, number),
                )
        await connection.commit()

    async def scan(self, name: str) -> AsyncIterator[tuple[str, Document]]:
        """All documents of one of `catalog.NAMES` by key; events and entries by their ids."""
        table, after = TABLES[name], ""
        while True:
            sql = (
                f"SELECT {selected(table)} FROM {table.name} t WHERE t.{table.key} > %s"
                f" ORDER BY t.{table.key} LIMIT %s"
            )
            rows = await self._rows(Query(sql, (after, CHUNK)))
            for row in rows:
                yield table.key_of(row), _document(table, row)
            if len(rows) < CHUNK:
                return
            after = rows[-1][0]

    # what the gateway asks

    async def document(self, kind: Kind, key: str) -> Document | None:
        return (await self.documents(kind, (key,))).get(key)

    async def documents(self, kind: Kind, keys: Collection[str]) -> Mapping[str, Document]:
        if not keys:
            return {}
        table = TABLES[kind.name]
        places = ", ".join(["%s"] * len(keys))
        sql = f"SELECT {selected(table)} FROM {table.name} t WHERE t.{table.key} IN ({places})"
        asked = Query(sql, tuple(table.fit(table.key, key) for key in keys))
        return {table.key_of(row): _document(table, row) for row in await self._rows(asked)}

    async def accounts(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(ACCOUNTS_OF, wanted, after, limit)

    async def transactions(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(TRANSACTIONS, wanted, after, limit)

    async def notifications(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(NOTIFICATIONS, wanted, after, limit)

    async def reviews(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(REVIEWS, wanted, after, limit)

    async def blacklist(self, after: Place | None, limit: int) -> Page:
        return await self._page(BLACKLIST, Wanted(), after, limit)

    async def rates(self, after: Place | None, limit: int) -> Page:
        return await self._page(RATES, Wanted(), after, limit)

    async def rate_history(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(RATE_HISTORY, wanted, after, limit)

    async def entries(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(POSTINGS, wanted, after, limit)

    async def events(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(SAID, wanted, after, limit)

    async def links(self, entries: Collection[str]) -> Mapping[str, str]:
        if not entries:
            return {}
        places = ", ".join(["%s"] * len(entries))
        sql = f"SELECT t.entry, t.link FROM {LINKS} t WHERE t.entry IN ({places})"
        return dict(await self._rows(Query(sql, tuple(entries))))

    async def windows(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(WINDOWS, wanted, after, limit)

    async def search_users(self, text: str, limit: int) -> Sequence[Document]:
        table = TABLES["users"]
        return await self._found(table, search(table, ("name", "email"), text, limit))

    async def search_transactions(
        self, text: str, wanted: Wanted, limit: int
    ) -> Sequence[Document]:
        table = TABLES["transactions"]
        columns = ("description", "reference")
        narrowed = narrowing(TRANSACTIONS, wanted)
        return await self._found(table, search(table, columns, text, limit, narrowed))

    async def _found(self, table: Table, query: Query | None) -> Sequence[Document]:
        rows = await self._rows(query) if query else []
        return [_document(table, row) for row in rows]

    async def _page(
        self, listing: Listing, wanted: Wanted, after: Place | None, limit: int
    ) -> Page:
        """One more is asked for than is shown, to know whether there is one."""
        rows = await self._rows(page(listing, wanted, after, limit + 1))
        shown = rows[:limit]
        last = shown[-1] if len(rows) > limit else None
        return Page(
            items=[_document(listing.table, row[:-1]) for row in shown],
            following=(last[-1], listing.table.key_of(last)) if last else None,
        )

    async def _rows(self, query: Query) -> list[tuple[Any, ...]]:
        async def asked(cursor: Any) -> list[tuple[Any, ...]]:
            await cursor.execute(limited(query.sql), query.values)
            return list(await cursor.fetchall())

        return await self.pool.read(asked)


SIDE, OLD = "__rebuild", "__old"


def _side(table: str) -> str:
    return f"{table}{SIDE}"


def _tables(name: str) -> tuple[str, ...]:
    assert name in NAMES, name
    return ("accounts", "balances") if name == "accounts" else (TABLES[name].name,)


async def _clear(cursor: Any, name: str) -> None:
    """Drop the old tables of an exchange, and declare anew the foreign keys that went with them."""
    for table in _tables(name):
        await cursor.execute(f"DROP TABLE IF EXISTS {table}{OLD}")
    await schema.declare(cursor)


def _document(table: Table, row: Sequence[Any]) -> Document:
    return account_document(row) if table.name == "accounts" else table.document(row)


async def _change(
    cursor: Any, name: str, suffix: str, changes: Sequence[Change], following: int
) -> None:
    table = TABLES[name]
    there = [(one.key, one.document) for one in changes if one.document is not None]
    gone = [(table.fit(table.key, one.key),) for one in changes if one.document is None]
    if there:
        there.sort(key=_key)  # two writers take the rows that they share in the same order
        rows = [table.values(key, document, following) for key, document in there]
        await cursor.executemany(table.insert(f"{table.name}{suffix}"), rows)
    if there and name == "accounts":
        balances = [row for _, document in there for row in balance_rows(document, following)]
        await cursor.executemany(upsert(f"balances{suffix}", BALANCES, True), balances)
    if gone:
        await cursor.executemany(f"DELETE FROM {table.name}{suffix} WHERE {table.key} = %s", gone)


def _key(found: tuple[str, Any]) -> str:
    return found[0]


async def _add(
    cursor: Any, name: str, suffix: str, rows: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    table = TABLES[name]
    values = [table.values(key, document, 0) for key, document in rows]
    if values:
        await cursor.executemany(table.insert(f"{table.name}{suffix}"), values)


def _said(batch: Batch) -> list[tuple[str, Mapping[str, Any]]]:
    return [(said.event_id, _fields(said)) for said in batch.events]


def _entries(batch: Batch) -> list[tuple[str, Mapping[str, Any]]]:
    return [(entry.entry_id, _fields(entry)) for entry in batch.entries]


def _links(batch: Batch) -> list[tuple[str, Mapping[str, Any]]]:
    return [(link.entry, _fields(link)) for link in batch.links]


def _fields(found: Said | Entry | Link) -> Mapping[str, Any]:
    return {name: getattr(found, name) for name in found.__slots__}
