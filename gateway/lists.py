"""Lists that go on where they were, whoever answers: a page's end is a time and an id.

    cursor: `<number in the workers' list>|<ms>|<id>`; a store needs the place, the tables know both

A page from the tables goes on there while they answer. A store's list has the transfers that came
in, too, which the tables list for their sender alone.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.account import Status as AccountStatus
from domain.account import account_key
from domain.notification_rows import listed_key as listed_key_of_told
from domain.notification_rows import listing_key, notification_key
from domain.risk import listed_key, owner_key
from domain.transaction import Status, transaction_key
from domain.user import account_of_key, accounts_of_key
from gateway import pages
from gateway.errors import Problem
from gateway.reads import ACCOUNTS, NOTIFICATIONS, TRANSACTIONS
from stores.questions import Page, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.call import Call
    from gateway.queries import Row
    from gateway.reads import Reads
    from stores.questions import Place, Questions

SCAN = 1_000  # rows that one page of a filtered list looks at
SKEW_MS = 10_000  # by which an entry of a workers' list may be younger than what it lists
OWN_ACCOUNTS = 50  # of which received transfers are looked for
CURSOR = re.compile(r"(\d{0,11})(?:\|(\d{1,15})\|([^\x00-\x1f]{1,300}))?")


class Cursor(NamedTuple):
    """Where a list goes on."""

    number: int | None = None  # in the workers' list
    place: Place | None = None

    def text(self) -> str:
        number = "" if self.number is None else str(self.number)
        return number + (f"|{self.place[0]}|{self.place[1]}" if self.place else "")


def behind(page: Page) -> Cursor | None:
    """Where a store's list goes on; None: this was all."""
    return Cursor(None, page.following) if page.following else None


class Listed(NamedTuple):
    """Rows of a page, and where the next begins; None: there is none."""

    rows: Sequence[Row]
    following: Cursor | None

    @property
    def next_cursor(self) -> str | None:
        return pages.cursor(self.following.text()) if self.following else None


def cursor_of(call: Call) -> Cursor:
    """`?cursor=`; 400 for one that is none of these lists'."""
    text = pages.text_of(call)
    match = CURSOR.fullmatch(text or "")
    if match is None or text == "":
        raise Problem("BAD_QUERY", "the cursor is none of this list's")
    number, at_ms, last = match.groups()
    return Cursor(int(number) if number else None, (int(at_ms), last) if last else None)


async def accounts(call: Call, user_id: str, status: str | None) -> Listed:
    """A user's accounts, the oldest first."""
    reads, limit, start = call.gateway.reads, pages.limit_of(call), cursor_of(call)
    wanted = Wanted(owner_id=user_id, status=status)

    async def of_store(store: Questions) -> Listed:
        _has_place(start)
        page = await store.accounts(wanted, start.place, limit)
        return await _of_page(reads, page, status)

    async def of_tables() -> Listed:
        return await _accounts_of_tables(reads, user_id, status, start, limit)

    return await reads.ask(
        call,
        "accounts",
        of_store,
        of_tables,
        kinds=(ACCOUNTS,),
        tables_first=start.number is not None,
    )


async def _of_page(reads: Reads, page: Page, status: str | None) -> Listed:
    rows = await reads.renewed(ACCOUNTS, page.items)
    return Listed([row for row in rows if _is_listed(row, status)], behind(page))


def _is_listed(row: Row, status: str | None) -> bool:
    """Of this status; without one all but those that were archived."""
    if status is None:
        return bool(row["status"] != AccountStatus.ARCHIVED)
    return bool(row["status"] == status)


def _has_place(start: Cursor) -> None:
    """A cursor of an older gateway has none, and a list can't go on elsewhere."""
    if start.number is not None and start.place is None:
        raise Problem("STATE_UNAVAILABLE", headers={"Retry-After": "1"})


async def _accounts_of_tables(
    reads: Reads, user_id: str, status: str | None, start: Cursor, limit: int
) -> Listed:
    queries = reads.queries
    head = await queries.row("user", user_id, accounts_of_key(user_id), versioned=False)
    count = head["accounts"] if head else 0
    at = start.number
    if at is None:
        at = 0
        if start.place:
            at = await _first(reads, "user", user_id, account_of_key, count, start.place[0])
    end = min(at + limit, count)
    keys = [account_of_key(user_id, number) for number in range(at, end)]
    entries = await queries.rows("user", queries.partition(user_id), keys)
    ids = [entry["account_id"] for key in keys if (entry := entries[key]) is not None]
    found = await queries.gather("account", ((one, account_key(one)) for one in ids))
    rows = [row for one in ids if (row := found.get(account_key(one))) is not None]
    last = _account_place(rows[-1]) if rows else start.place
    if start.number is None and start.place is not None:  # from a store: it has shown some of these
        rows = [row for row in rows if _account_place(row) > start.place]
    rows = [row for row in rows if _is_listed(row, status)]
    return Listed(rows, Cursor(end, last) if end < count else None)


def _account_place(row: Row) -> Place:
    return row["created_ms"], row["account_id"]


async def transactions(
    call: Call, user_id: str, wanted: Wanted, is_wanted: Callable[[Row], bool]
) -> Listed:
    """Transactions of a user's money, the newest first; from a store those that came in as well."""
    reads, limit, start = call.gateway.reads, pages.limit_of(call), cursor_of(call)

    async def of_store(store: Questions) -> Listed:
        _has_place(start)
        asked = await _questions(store, user_id, wanted)
        found = await asyncio.gather(
            *(store.transactions(one, start.place, limit) for one in asked)
        )
        page = _merged(found, limit)
        rows = await reads.renewed(TRANSACTIONS, page.items)
        return Listed([row for row in rows if is_wanted(row)], behind(page))

    async def of_tables() -> Listed:
        return await _transactions_of_tables(reads, user_id, is_wanted, start, limit)

    return await reads.ask(
        call,
        "transactions",
        of_store,
        of_tables,
        kinds=(TRANSACTIONS,),
        tables_first=start.number is not None,
    )


async def _questions(store: Questions, user_id: str, wanted: Wanted) -> list[Wanted]:
    """What was ordered from the user's accounts, and what arrived in them."""
    own = replace(wanted, owner_id=user_id)
    if wanted.status not in (None, Status.COMPLETED):
        return [own]
    if wanted.account_id is None:
        held = await store.accounts(Wanted(owner_id=user_id), None, OWN_ACCOUNTS)
        accounts = [*held.items]
    else:
        accounts = [*(await store.documents(ACCOUNTS, [wanted.account_id])).values()]
    received = replace(wanted, status=Status.COMPLETED)
    return [
        own,
        *(
            replace(received, account_id=account["account_id"])
            for account in accounts
            if account["user_id"] == user_id
        ),
    ]


def _merged(found: Sequence[Page], limit: int) -> Page:
    """The newest of lists, each thing once. A list with more to come gave `limit` things itself."""
    items = {row["order"]["transaction_id"]: row for page in found for row in page.items}
    newest = sorted(items.values(), key=_transaction_place, reverse=True)
    shown = newest[:limit]
    more = len(newest) > limit or any(page.following for page in found)
    return Page(items=shown, following=_transaction_place(shown[-1]) if more and shown else None)


def _transaction_place(row: Row) -> Place:
    return row["created_ms"], row["order"]["transaction_id"]


async def _transactions_of_tables(
    reads: Reads, user_id: str, is_wanted: Callable[[Row], bool], start: Cursor, limit: int
) -> Listed:
    queries = reads.queries
    head = await queries.row("risk", user_id, owner_key(user_id), versioned=False)
    top = head["listed"] if head else 0
    before = start.place if start.number is None else None
    if start.number is not None:
        top = min(start.number, top)
    elif start.place is not None:
        top = await _first(reads, "risk", user_id, listed_key, top, start.place[0] + SKEW_MS)
    rows: list[Row] = []
    at, last = top, start.place
    while at > 0 and len(rows) < limit and top - at < SCAN:
        numbers = range(at - 1, max(at - 1 - limit, -1), -1)
        for number, row in await _entries(reads, user_id, numbers):
            at = number
            if row is None or (before is not None and _transaction_place(row) >= before):
                continue
            last = _transaction_place(row)
            if is_wanted(row):
                rows.append(row)
            if len(rows) == limit:
                break
    return Listed(rows, Cursor(at, last) if at > 0 else None)


async def _entries(reads: Reads, user_id: str, numbers: range) -> list[tuple[int, Row | None]]:
    """The transactions behind entries of an owner's list, None for one that has left the table."""
    queries = reads.queries
    keys = [listed_key(user_id, number) for number in numbers]
    entries = await queries.rows("risk", queries.partition(user_id), keys)
    ids = [entry["transaction_id"] if (entry := entries[key]) else None for key in keys]
    found = await queries.gather(
        "transaction", ((one, transaction_key(one)) for one in ids if one is not None)
    )
    return [
        (number, found.get(transaction_key(one)) if one is not None else None)
        for number, one in zip(numbers, ids, strict=True)
    ]


async def notifications(
    call: Call, user_id: str, wanted: Wanted, is_wanted: Callable[[Row], bool]
) -> Listed:
    """What a user was told, the newest first; of ends of transactions the stores alone know all."""
    reads, limit, start = call.gateway.reads, pages.limit_of(call), cursor_of(call)
    own = replace(wanted, owner_id=user_id)

    async def of_store(store: Questions) -> Listed:
        _has_place(start)
        page = await store.notifications(own, start.place, limit)
        return Listed(await reads.renewed(NOTIFICATIONS, page.items), behind(page))

    async def of_tables() -> Listed:
        return await _notifications_of_tables(reads, user_id, is_wanted, start, limit)

    return await reads.ask(
        call,
        "notifications",
        of_store,
        of_tables,
        kinds=(NOTIFICATIONS,),
        tables_first=start.number is not None,
    )


async def _notifications_of_tables(
    reads: Reads, user_id: str, is_wanted: Callable[[Row], bool], start: Cursor, limit: int
) -> Listed:
    queries = reads.queries
    partition = queries.partition(user_id)
    head = await queries.row("notification", user_id, listing_key(user_id), versioned=False)
    top = head["listed"] if head else 0
    before = start.place if start.number is None else None
    if start.number is not None:
        top = min(start.number, top)
    elif before is not None:
        top = await _first(reads, "notification", user_id, listed_key_of_told, top, before[0] + 1)
    rows: list[Row] = []
    at, last = top, start.place
    while at > 0 and len(rows) < limit and top - at < SCAN:
        numbers = range(at - 1, max(at - 1 - limit, -1), -1)
        keys = [listed_key_of_told(user_id, number) for number in numbers]
        entries = await queries.rows("notification", partition, keys)
        named = [entries[key] for key in keys]
        told = [notification_key(one["notification_id"]) for one in named if one is not None]
        found = await queries.rows("notification", partition, told)
        for number, entry in zip(numbers, named, strict=True):
            at = number
            row = found[notification_key(entry["notification_id"])] if entry else None
            if row is None:
                continue
            place = row["at_ms"], row["notification_id"]
            if before is not None and place >= before:  # a store has shown it
                continue
            last = place
            rows += [row] if is_wanted(row) else []
            if len(rows) == limit:
                break
    return Listed(rows, Cursor(at, last) if at > 0 else None)


async def _first(
    reads: Reads, service: str, user_id: str, key: Callable[[str, int], str], count: int, at_ms: int
) -> int:
    """The first number of a workers' list that is from `at_ms` or later; `count` when none is."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        entry: Any = await reads.queries.row(
            service, user_id, key(user_id, middle), versioned=False
        )
        if entry is None or entry["at_ms"] < at_ms:  # None: it was so old that it has left
            low = middle + 1
        else:
            high = middle
    return low
