"""The stores' documents in MongoDB: what a projection writes, what the gateway asks.

    write:  read position --> documents (an older one is replaced), events, entries (added)
                          --> position, last, if it is still the one that was read
    rebuild: begin_rebuild --> rebuild … --> swap: hold positions --> exchange --> let go, put back

A server that stands alone has no transactions, so none are used: a batch that was cut off is
written again from the position, and changes nothing that it already changed.
"""

from __future__ import annotations

import uuid
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import DeleteOne, InsertOne, ReplaceOne
from pymongo.errors import BulkWriteError, OperationFailure

from stores.catalog import (
    ENTRIES,
    EVENTS,
    KINDS,
    LINKS,
    NAMES,
    Change,
    Entry,
    Link,
    OtherSchema,
    Overtaken,
    Said,
    Unavailable,
    sources,
)
from stores.mongo_client import ANSWER_S, Connection
from stores.mongo_form import ACCOUNTS, GONE, SCORE, VERSION, Stored, read, stored
from stores.mongo_lists import (
    ACCOUNTS_OF,
    BLACKLIST,
    MIGRATIONS,
    NOTIFICATIONS,
    POSTINGS,
    RATE_HISTORY,
    RATES,
    REVIEWS,
    TRANSACTIONS,
    WINDOWS,
    Listing,
    indexes,
)
from stores.mongo_lists import FACTS as SAID
from stores.questions import Page, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence

    from stores.catalog import At, Batch, Document, Kind
    from stores.questions import Place

POSITIONS = "positions"
STATE = "migrations"
CHUNK = 500  # operations of a call, far within its time-out on a slow server
SCANNED = 2_000  # documents of a call when all are read: a server may sort them all for each
DUPLICATE = 11000
NO_TEXT_INDEX = 27
CANNOT = frozenset({2, 9, 59, 115, 238})  # BadValue … NotImplemented: what it was told is unknown
WORDS = 10  # of a search; the rest is not looked at
SAID_FIELDS = tuple(field.name for field in fields(Said))
ENTRY_FIELDS = tuple(field.name for field in fields(Entry))
LINK_FIELDS = tuple(field.name for field in fields(Link))


class NewerDatabase(OtherSchema):
    """A newer version of this program wrote the database: its migrations are not known here."""


class MongoDB:
    """`stores.catalog.Store` and `stores.questions.Questions`; `client` is motor or pymongo."""

    name = "mongodb"

    def __init__(self, url: str, client: str = "motor") -> None:
        self._how = url, client
        self.connection = Connection(url, client)
        self._unsearchable: str | None = None  # why, once the server said that it can't

    async def close(self) -> None:
        await self.connection.close()

    # what a projection needs

    async def positions(self) -> dict[At, int]:
        found = await self.connection.call(self._of(POSITIONS).find().to_list, None)
        return {(row["topic"], row["partition"]): row["next"] for row in found}

    async def write(self, at: At, expected: int, following: int, batch: Batch) -> None:
        """As `catalog.Store.write`; the position moves last."""
        turn = await self._turn(at, expected)
        for kind in KINDS:
            await self._change(kind.name, batch.of(kind), following)
        await self._add(EVENTS, _said(batch.events))
        await self._add(ENTRIES, _entries(batch.entries))
        await self._add(LINKS, _links(batch.links))
        await self._move(at, expected, following, turn)

    async def check(self) -> None:
        """Raises OtherSchema when the database is older or newer than this program."""
        row = await self.connection.call(self._of(STATE).find_one, {"_id": "number"})
        number = row["number"] if row else 0
        if number > len(MIGRATIONS):
            raise NewerDatabase(_newer(number))
        if number < len(MIGRATIONS):
            raise OtherSchema(
                f"the MongoDB database is at {number}, this program needs {len(MIGRATIONS)}: "
                "run `pipeline.py stores migrate`"
            )

    async def migrate(self) -> int:
        """Bring the database to this program's number and return it. Raises NewerDatabase.

        Again, or by several at once: the same. An index builds for as long as it takes.
        """
        connection = Connection(*self._how, index_builds=True)
        try:
            state = connection.database[STATE]
            row = await connection.call(state.find_one, {"_id": "number"})
            number = row["number"] if row else 0
            if number > len(MIGRATIONS):
                raise NewerDatabase(_newer(number))
            for reached, step in enumerate(MIGRATIONS[number:], number + 1):
                for name, wanted in step.items():
                    await connection.call(connection.database[name].create_indexes, [*wanted])
                raised = {"$max": {"number": reached}}
                await connection.call(state.update_one, {"_id": "number"}, raised, upsert=True)
        finally:
            await connection.close()
        return len(MIGRATIONS)

    # a collection built anew beside the one that is asked

    async def begin_rebuild(self, name: str) -> None:
        """An empty `<name>__rebuild` with the indexes of `name`, one of `catalog.NAMES`."""
        side = self._of(_side(name))
        await self._let_go(name)
        await self.connection.call(side.drop)
        made = indexes(name)
        if made:
            await self.connection.call(side.create_indexes, made)
        else:
            await self.connection.call(self.connection.database.create_collection, side.name)

    async def rebuild(self, name: str, following: int, batch: Batch) -> None:
        """Write what a batch says of `name` into its new collection; no position moves."""
        if name == EVENTS:
            await self._add(_side(name), _said(batch.events))
        elif name == ENTRIES:
            await self._add(_side(name), _entries(batch.entries))
        elif name == LINKS:
            await self._add(_side(name), _links(batch.links))
        else:
            changes = [change for change in batch.changes.values() if change.kind.name == name]
            await self._change(_side(name), changes, following)

    async def swap(self, name: str, positions: Mapping[At, int]) -> None:
        """Put the new collection in the place of the old, and the positions back to these.

        `positions` names every partition of the sources of `name`; one that is left out is read
        from its beginning. Whoever writes meanwhile gets Unavailable, then Overtaken. Cut off, it
        is called again, or the rebuild begun again.
        """
        await self._hold(name, positions)
        if _side(name) in await self.connection.call(
            self.connection.database.list_collection_names
        ):
            await self._exchange(name)
        await self._let_go(name)

    async def scan(self, name: str) -> AsyncIterator[tuple[str, Document]]:
        """All documents of one of `catalog.NAMES` by key; events and entries by their ids."""
        async for some in self._chunks(name):
            for row in some:
                if GONE not in row:
                    yield row["_id"], read(row)

    # what the gateway asks

    async def document(self, kind: Kind, key: str) -> Document | None:
        return (await self.documents(kind, (key,))).get(key)

    async def documents(self, kind: Kind, keys: Collection[str]) -> Mapping[str, Document]:
        found = await self._ask(kind.name, {"_id": {"$in": [*keys]}}, len(keys)) if keys else []
        return {row["_id"]: read(row) for row in found if GONE not in row}

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
        found = (
            await self._ask(LINKS, {"_id": {"$in": [*entries]}}, len(entries)) if entries else []
        )
        return {row["_id"]: row["link"] for row in found}

    async def windows(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        return await self._page(WINDOWS, wanted, after, limit)

    async def search_users(self, text: str, limit: int) -> Sequence[Document]:
        return await self._search("users", text, {}, limit)

    async def search_transactions(
        self, text: str, wanted: Wanted, limit: int
    ) -> Sequence[Document]:
        narrowed = TRANSACTIONS.filter(wanted, None)
        return await self._search("transactions", text, narrowed, limit)

    # positions

    async def _turn(self, at: At, expected: int) -> int | None:
        """What tells this reading of a position from one after a swap; None: it is not there."""
        row = await self.connection.call(self._of(POSITIONS).find_one, {"_id": _place(at)})
        _check(at, row, expected)
        return row["turn"] if row else None

    async def _move(self, at: At, expected: int, following: int, turn: int | None) -> None:
        positions = self._of(POSITIONS)
        if turn is None:
            moved = await self._first(at, following)
        else:
            same = {"_id": _place(at), "next": expected, "turn": turn, "held": {"$exists": False}}
            done = await self.connection.call(
                positions.update_one, same, {"$set": {"next": following}}
            )
            moved = bool(done.matched_count)
        if not moved:
            row = await self.connection.call(positions.find_one, {"_id": _place(at)})
            _check(at, row, expected)
            raise Overtaken(at, expected)  # swapped meanwhile, to this very place

    async def _first(self, at: At, following: int) -> bool:
        """Insert a position; False when there is one."""
        row = {"_id": _place(at), "topic": at[0], "partition": at[1], "next": following, "turn": 0}
        return not await self.connection.call(_bulk, self._of(POSITIONS), [InsertOne(row)])

    async def _hold(self, name: str, positions: Mapping[At, int]) -> None:
        """Put the positions of the sources back, and let no writer move them.

        Raises Unavailable where another exchange holds one: it would let writers go when it ends.
        """
        known = {at for at in await self.positions() if at[0] in sources(name)}
        for at in sorted(known | positions.keys()):
            await self._first(at, 0)
            free = {"_id": _place(at), "held": {"$in": [None, name]}}
            back = {
                "$min": {"next": positions.get(at, 0)},
                "$inc": {"turn": 1},
                "$set": {"held": name},
            }
            done = await self.connection.call(self._of(POSITIONS).update_one, free, back)
            if not done.matched_count:
                row = await self.connection.call(self._of(POSITIONS).find_one, {"_id": _place(at)})
                await self._let_go(name)
                raise Unavailable(_exchanged(row))

    async def _let_go(self, name: str) -> None:
        await self.connection.call(
            self._of(POSITIONS).update_many, {"held": name}, {"$unset": {"held": ""}}
        )

    # documents

    async def _change(self, collection: str, changes: Sequence[Change], following: int) -> None:
        """Replace what is older, insert what is not there.

        An insert that finds a document there meant one that is newer or just came: the second try,
        which inserts nothing, replaces it if it is older after all.
        """
        for some in _sliced(changes):
            rows = [(change, _row(change, following)) for change in some]
            there = await self._bulk(collection, [_replace(row, upsert=True) for _, row in rows])
            if there:
                again = [_replace(rows[number][1], upsert=False) for number in there]
                await self._bulk(collection, again)

    async def _add(self, collection: str, rows: Sequence[Stored]) -> None:
        for some in _sliced(rows):
            await self._bulk(collection, [InsertOne(row) for row in some])

    async def _bulk(self, collection: str, operations: Sequence[Any]) -> list[int]:
        return await self.connection.call(_bulk, self._of(collection), operations)

    def _of(self, collection: str) -> Any:
        return self.connection.database[collection]

    async def _chunks(self, collection: str) -> AsyncIterator[list[Stored]]:
        """All of a collection by _id, a chunk a call: no cursor that a restart would end."""
        some = await self._chunk(collection, {})
        while some:
            yield some
            some = await self._chunk(collection, {"_id": {"$gt": some[-1]["_id"]}})

    async def _chunk(self, collection: str, wanted: Stored) -> list[Stored]:
        cursor = self._of(collection).find(wanted).sort("_id", 1).limit(SCANNED)
        rows: list[Stored] = await self.connection.call(cursor.to_list, SCANNED)
        return rows

    # the exchange of a swap

    async def _exchange(self, name: str) -> None:
        if await self._renames():
            await self.connection.call(self._of(_side(name)).rename, name, dropTarget=True)
        else:
            await self._copy(_side(name), name)

    async def _renames(self) -> bool:
        """Whether a renamed collection is another one than the next of its old name."""
        old, new = (self._of(f"probe__{uuid.uuid4().hex}") for _ in range(2))
        try:
            await self.connection.call(old.insert_one, {"_id": 1})
            await self.connection.call(old.rename, new.name)
            await self.connection.call(old.insert_one, {"_id": 2})
            return bool(await self.connection.call(new.count_documents, {}) == 1)
        finally:
            for probe in (old, new):
                await self.connection.call(probe.drop)

    async def _copy(self, source: str, target: str) -> None:
        """Make `target` the same as `source`, document by document, then drop `source`."""
        async for some in self._chunks(source):
            await self._bulk(target, [ReplaceOne({"_id": row["_id"]}, row, True) for row in some])
        async for some in self._chunks(target):
            ids = [row["_id"] for row in some]
            kept = {row["_id"] for row in await self._chunk(source, {"_id": {"$in": ids}})}
            await self._bulk(target, [DeleteOne({"_id": one}) for one in ids if one not in kept])
        await self.connection.call(self._of(source).drop)

    # questions

    async def _ask(
        self, collection: str, wanted: Mapping[str, Any], limit: int, **more: Any
    ) -> list[Stored]:
        cursor = self.connection.asked[collection].find(
            wanted, limit=limit, max_time_ms=int(ANSWER_S * 1000), **more
        )
        rows: list[Stored] = await self.connection.ask(cursor.to_list, limit)
        return rows

    async def _page(
        self, listing: Listing, wanted: Wanted, after: Place | None, limit: int
    ) -> Page:
        """One more is asked for than is shown, to know whether there is one."""
        asked = listing.filter(wanted, after)
        rows = await self._ask(listing.collection, asked, limit + 1, sort=listing.order)
        shown = rows[:limit]
        last = shown[-1] if len(rows) > limit else None
        return Page(
            items=[read(row) for row in shown],
            following=(last[listing.time], last["_id"]) if last else None,
        )

    async def _search(
        self, collection: str, text: str, narrowed: Stored, limit: int
    ) -> Sequence[Document]:
        """All words must be there, as they are: quoted, so that no sign of them means anything."""
        words = text.replace('"', " ").replace("\\", " ").split()[:WORDS]
        if not words:
            return []
        if self._unsearchable:
            raise Unavailable(self._unsearchable)
        search = {"$text": {"$search": " ".join(f'"{word}"' for word in words)}, **narrowed}
        score = {SCORE: {"$meta": "textScore"}}
        try:
            rows = await self._ask(collection, search, limit, projection=score, sort=score)
        except OperationFailure as exc:
            raise self._not_searched(exc) from exc
        return [read(row) for row in rows]

    def _not_searched(self, failure: OperationFailure) -> Exception:
        if failure.code == NO_TEXT_INDEX:
            return Unavailable("MongoDB has no text index yet: run `pipeline.py stores migrate`")
        if failure.code not in CANNOT:
            return failure
        self._unsearchable = f"this MongoDB server has no text search ({failure.details})"
        return Unavailable(self._unsearchable)


def _newer(number: int) -> str:
    return (
        f"the MongoDB database is at {number}, this program knows {len(MIGRATIONS)}: "
        "start the newer program"
    )


async def _bulk(collection: Any, operations: Sequence[Any]) -> list[int]:
    """Do all of them in any order; which of them wanted to insert an _id that is there.

    _id alone is unique, so that this is all that a duplicate key can mean.
    """
    try:
        if operations:
            await collection.bulk_write(operations, ordered=False)
    except BulkWriteError as exc:
        failed = exc.details["writeErrors"]
        if exc.details["writeConcernErrors"] or any(one["code"] != DUPLICATE for one in failed):
            raise
        return [one["index"] for one in failed]
    return []


def _check(at: At, row: Mapping[str, Any] | None, expected: int) -> None:
    if row and "held" in row:
        raise Unavailable(_exchanged(row))
    found = row["next"] if row else 0
    if found != expected:
        raise Overtaken(at, found)


def _exchanged(row: Mapping[str, Any] | None) -> str:
    held = row.get("held", "collections") if row else "collections"
    return f"the {held} of MongoDB are being exchanged; if nobody does, rebuild them again"


def _row(change: Change, following: int) -> Stored:
    """A change as it is stored.

    Where documents are deleted, what is left of one is kept for a while under the log's offset,
    which orders a deletion and what came before it: else a late writer could bring it back.
    """
    version = following if change.kind.removed else change.version
    row: Stored = {"_id": change.key, VERSION: version}
    if change.document is None:
        return row | {GONE: datetime.now(UTC)}
    if change.kind.name == "transactions":
        order = change.document["order"]
        sides = (order["source_account_id"], order["destination_account_id"])
        row[ACCOUNTS] = [side for side in sides if side is not None]
    row |= stored(change.document)
    return row


def _replace(row: Stored, *, upsert: bool) -> ReplaceOne[Any]:
    return ReplaceOne({"_id": row["_id"], VERSION: {"$lt": row[VERSION]}}, row, upsert)


def _said(events: Sequence[Said]) -> list[Stored]:
    return [
        {"_id": said.event_id, **stored({name: getattr(said, name) for name in SAID_FIELDS})}
        for said in events
    ]


def _entries(entries: Sequence[Entry]) -> list[Stored]:
    return [
        {
            "_id": entry.entry_id,
            **{name: getattr(entry, name) for name in ENTRY_FIELDS},
        }
        for entry in entries
    ]


def _links(links: Sequence[Link]) -> list[Stored]:
    return [{"_id": one.entry, **{n: getattr(one, n) for n in LINK_FIELDS}} for one in links]


def _sliced(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _place(at: At) -> str:
    return f"{at[0]}/{at[1]}"


def _side(name: str) -> str:
    assert name in NAMES, name
    return f"{name}__rebuild"
