"""Statements over HTTP: an account's entries in a period, with the balances that they lead between.

    store: balance before --entries--> balance behind     again while the store catches up
    log:   all of the account's events, added up           without a store that can say it

Where a store is asked, both balances come from other entries than those that are listed: the next
one behind, or the account as it is now. What does not add up is never shown.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import orjson
from pydantic import Field

from domain.bank_day import DAY_MS, bank_day, day_start_ms
from domain.money import EXPONENTS
from domain.transaction import transaction_key
from gateway import accounts, files
from gateway.answers import Shown
from gateway.errors import Problem, state_unavailable
from gateway.reads import ACCOUNTS, TRANSACTIONS
from gateway.statement_lines import Inconsistent, Lines, in_order
from gateway.views import time_of
from rendering import MEDIA_TYPES, WRITERS, Column, Document, Format, Kind, Money, Table, Value
from stores.questions import Wanted
from travel.errors import BadMoment
from travel.moments import moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from aiohttp import web

    from gateway.call import Call
    from gateway.queries import Row
    from gateway.statement_lines import Line
    from stores.questions import Page, Place, Questions

JSON = "json"
FORMATS = (JSON, *(kind.value for kind in (Format.CSV, Format.PDF, Format.XLSX)))
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
PAGE = 500  # entries of one question to a store
PAPER = 20_000  # entries of a PDF: some 450 pages, 3 s of a core
SETTLE_S, PAUSE_S = 3.0, 0.15  # for a store to catch up with what is known, and between two looks
LOG = "log"


class EntryLine(Shown):
    entry_id: str
    transaction_id: str
    type: str | None
    counterparty_account_id: str | None
    description: str | None
    reference: str | None
    amount: int
    currency: str
    balance: int
    at: str


class CurrencyTotals(Shown):
    currency: str
    opening: int
    credits: int
    debits: int
    closing: int
    entries: int


class Statement(Shown):
    """Amounts are minor units; opening + credits + debits = closing."""

    account_id: str
    user_id: str
    name: str
    status: str
    from_: str = Field(alias="from")
    to: str = Field(description="the first moment behind the period")
    balances: list[CurrencyTotals]
    entries: list[EntryLine] = Field(description="the oldest first")


class Period(NamedTuple):
    """Unix milliseconds, the end excluded."""

    start_ms: int
    end_ms: int


async def get(call: Call, request: web.Request) -> web.StreamResponse:
    """The statement as JSON, or as a file to keep."""
    row = await accounts.mine(call)
    period = _period(call.query, row["created_ms"], time.time_ns() // 1_000_000)
    kind = call.query.get("format", JSON)
    lines = await _gathered(call, row, period)
    try:
        if kind == Format.PDF and lines.count > PAPER:
            raise Problem("FILE_TOO_LARGE", f"{lines.count:,} entries; {PAPER:,} fit into a PDF")
        await lines.describe(lambda page: _described(call, row["account_id"], page))
        with tempfile.SpooledTemporaryFile(files.MEMORY) as file:
            made: BinaryIO = file  # type: ignore[assignment]  # it is one in all but name
            await call.gateway.past.aside(lambda: _write(kind, row, period, lines, made))
            if kind == JSON:
                return await files.send(call, request, made, "application/json")
            name = f"statement-{row['account_id']}-{_days(period)}.{kind}"
            return await files.send(call, request, made, MEDIA_TYPES[Format(kind)], name)
    finally:
        lines.close()


def _period(query: Mapping[str, str], created_ms: int, now_ms: int) -> Period:
    """`from` and `to`: times, or days of the bank, of which the last counts whole."""
    first, last = query.get("from"), query.get("to")
    start_ms = created_ms if first is None else moment_of("from", first, 0)
    end_ms = now_ms + 1 if last is None else min(moment_of("to", last, 1), now_ms + 1)
    if start_ms >= end_ms:
        raise Problem("BAD_QUERY", "`from` lies before `to`, and is over")
    return Period(start_ms, end_ms)


def moment_of(name: str, text: str, later: int) -> int:
    """Unix ms; of a day its beginning, so many days later."""
    try:
        if not DAY.fullmatch(text):
            return moment(text)
        day = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return max(0, day_start_ms(int(day.timestamp()) * 1000 // DAY_MS + later))
    except (BadMoment, ValueError) as exc:
        raise Problem(
            "BAD_QUERY", f"{name} is a day (2026-03-01) or a time (2026-03-01T12:00:00Z)"
        ) from exc


def _days(period: Period) -> str:
    first, last = bank_day(period.start_ms), bank_day(period.end_ms - 1)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return f"{epoch + timedelta(days=first):%Y-%m-%d}_{epoch + timedelta(days=last):%Y-%m-%d}"


# where the lines come from


async def _gathered(call: Call, row: Row, period: Period) -> Lines:
    """From a store once it adds up; else from the log. 503 when neither can be read."""
    if call.gateway.reads.has_stores:
        end_s = time.monotonic() + SETTLE_S
        while time.monotonic() < end_s:
            try:
                return await _of_store(call, row["account_id"], period)
            except Inconsistent:
                await asyncio.sleep(PAUSE_S)
            except Problem as problem:
                if problem.status != 503:
                    raise
                break
    return await _of_log(call, row["account_id"], period)


async def _of_store(call: Call, account_id: str, period: Period) -> Lines:
    """Raises Inconsistent while the store does not have all that it must."""
    found = await call.gateway.reads.find(ACCOUNTS, account_id)
    if found is None:
        raise state_unavailable("the account is not there just now")
    now: dict[str, int] = found.row["balances"]
    opening = {c: await _balance_at(call, account_id, c, period.start_ms, now[c]) for c in now}
    lines = Lines(opening)
    try:
        async for entry in _entries(call, account_id, period):
            lines.add(entry)
        closing = {c: await _balance_at(call, account_id, c, period.end_ms, now[c]) for c in now}
        lines.end(closing)
    except BaseException:
        lines.close()
        raise
    return lines


async def _balance_at(call: Call, account_id: str, currency: str, at_ms: int, now: int) -> int:
    """The balance before the first entry at or after a time; without one it is that of now."""
    page = await _page(call, Wanted(account_id=account_id, currency=currency, from_ms=at_ms), None)
    if not page.items:
        return now
    first_ms = page.items[0]["at_ms"]
    group = in_order([entry for entry in page.items if entry["at_ms"] == first_ms])
    first = group[0]
    moved = sum(e["amount_minor"] for e in group if e["event_id"] == first["event_id"])
    return int(first["balance_minor"]) - int(moved)


async def _entries(call: Call, account_id: str, period: Period) -> AsyncIterator[Any]:
    """All of the period. Those of one millisecond are put in the order of their events."""
    wanted = Wanted(account_id=account_id, from_ms=period.start_ms, to_ms=period.end_ms)
    place: Place | None = None
    held: list[Any] = []
    while True:
        page = await _page(call, wanted, place)
        held += page.items
        last_ms = held[-1]["at_ms"] if page.following is not None else period.end_ms
        ready = [entry for entry in held if entry["at_ms"] < last_ms]
        held = held[len(ready) :]
        for entry in _by_time(ready):
            yield entry
        place = page.following
        if place is None:
            return


def _by_time(entries: Sequence[Any]) -> Iterator[Any]:
    group: list[Any] = []
    for entry in entries:
        if group and group[0]["at_ms"] != entry["at_ms"]:
            yield from in_order(group)
            group = []
        group.append(entry)
    yield from in_order(group)


async def _page(call: Call, wanted: Wanted, place: Place | None) -> Page:
    async def of_store(store: Questions) -> Page:
        return await store.entries(wanted, place, PAGE)

    return await call.gateway.reads.ask(call, "entries", of_store, kinds=(ACCOUNTS, TRANSACTIONS))


async def _of_log(call: Call, account_id: str, period: Period) -> Lines:
    """The log's sums are compared with what its events say as they are made."""
    made: list[Lines] = []

    def begin(opening: Mapping[str, int]) -> Callable[[Line], None]:
        made.append(Lines(opening))
        return made[0].add

    try:
        closing = await call.gateway.past.ledger(account_id, period, begin)
        made[0].end(closing)
    except BaseException:
        for lines in made:
            lines.close()
        raise
    call.read_source = LOG
    return made[0]


async def _described(call: Call, account_id: str, page: list[Line]) -> list[Line]:
    """Lines with the words of their orders, as far as those are still known."""
    reads = call.gateway.reads
    ids = sorted({line["transaction_id"] for line in page})

    async def of_store(store: Questions) -> Mapping[str, Row]:
        return await store.documents(TRANSACTIONS, ids)

    async def of_tables() -> Mapping[str, Row]:
        keys = ((one, transaction_key(one)) for one in ids)
        found = await reads.queries.gather("transaction", keys)
        rows = {one: found.get(transaction_key(one)) for one in ids}
        return {one: row for one, row in rows.items() if row is not None}

    source = call.read_source
    orders = await reads.ask(call, "transactions", of_store, of_tables, kinds=(TRANSACTIONS,))
    call.read_source = source
    return [_line(account_id, line, orders.get(line["transaction_id"])) for line in page]


def _line(account_id: str, line: Line, row: Row | None) -> Line:
    order = (row or line).get("order") or {}
    sides = (order.get("source_account_id"), order.get("destination_account_id"))
    others = [one for one in sides if one not in (None, account_id)]
    return {
        "entry_id": f"{line['event_id']}/{line['number']}",
        "transaction_id": line["transaction_id"],
        "type": order.get("type"),
        "counterparty_account_id": others[0] if others else None,
        "description": (row or {}).get("description") or None,
        "reference": (row or {}).get("reference") or None,
        "amount": line["amount_minor"],
        "currency": line["currency"],
        "balance": line["balance_minor"],
        "at": time_of(line["at_ms"]),
    }


# what they are written as


def _write(kind: str, row: Row, period: Period, lines: Lines, file: BinaryIO) -> None:
    if kind == JSON:
        _write_json(row, period, lines, file)
    else:
        WRITERS[Format(kind)](_document(row, period, lines), file)


def _totals(row: Row, lines: Lines) -> list[dict[str, Any]]:
    return [
        {
            "currency": currency,
            "opening": lines.opening.get(currency, 0),
            "credits": lines.credits[currency],
            "debits": lines.debits[currency],
            "closing": lines.running.get(currency, 0),
            "entries": lines.counts[currency],
        }
        for currency in row["balances"]
    ]


def _write_json(row: Row, period: Period, lines: Lines, file: BinaryIO) -> None:
    head = {
        "account_id": row["account_id"],
        "user_id": row["user_id"],
        "name": row["name"],
        "status": row["status"],
        "from": time_of(period.start_ms),
        "to": time_of(period.end_ms),
        "balances": _totals(row, lines),
    }
    file.write(orjson.dumps(head)[:-1] + b',"entries":[')
    first = True
    for page in lines.pages(PAGE):
        file.write((b"" if first else b",") + orjson.dumps(page)[1:-1])
        first = False
    file.write(b"]}")


ENTRY = (
    Column(title="Line", width=8, on_paper=False),
    Column(title="Time", kind=Kind.TIME, width=15),
    Column(title="Type", width=10),
    Column(title="Details", width=38),
    Column(title="Counterparty", kind=Kind.CODE, on_paper=False),
    Column(title="Transaction", kind=Kind.CODE, on_paper=False),
    Column(title="Currency", on_paper=False),
    Column(title="Amount", kind=Kind.MONEY, width=15),
    Column(title="Balance", kind=Kind.MONEY, width=15),
)
SUMMARY = (
    Column(title="Currency"),
    Column(title="Opening", kind=Kind.MONEY, width=16),
    Column(title="In", kind=Kind.MONEY, width=16),
    Column(title="Out", kind=Kind.MONEY, width=16),
    Column(title="Closing", kind=Kind.MONEY, width=16),
    Column(title="Entries", kind=Kind.NUMBER, width=8),
)
OPENING, CLOSING = "opening", "closing"
FOOTER = (
    "Opening balance and entries add up to the closing balance in each currency. Times are UTC."
)


def _document(row: Row, period: Period, lines: Lines) -> Document:
    totals = _totals(row, lines)
    return Document(
        title="Account statement",
        issuer="Streambank",
        facts=(
            *([("Account", row["name"])] if row["name"] else []),
            ("Account number", row["account_id"]),
            ("Status", row["status"]),
            ("Period", f"{_utc(period.start_ms):%Y-%m-%d %H:%M} to {_until(period.end_ms)} UTC"),
        ),
        summary=(Table(title="Summary", columns=SUMMARY, rows=[_summed(one) for one in totals]),),
        tables=[
            Table(
                title=one["currency"],
                columns=ENTRY,
                rows=_rows(one, period, lines),
                strong=frozenset({OPENING, CLOSING}),
            )
            for one in totals
        ],
        footer=FOOTER,
    )


def _summed(totals: dict[str, Any]) -> list[Value]:
    currency = totals["currency"]
    amounts = (totals[name] for name in ("opening", "credits", "debits", "closing"))
    return [currency, *(_money(minor, currency) for minor in amounts), totals["entries"]]


def _rows(totals: dict[str, Any], period: Period, lines: Lines) -> Iterator[Sequence[Value]]:
    currency = totals["currency"]
    yield _carried(OPENING, period.start_ms, currency, totals["opening"])
    for page in lines.pages(PAGE) if totals["entries"] else ():
        for line in page:
            if line["currency"] == currency:
                yield _row(line)
    yield _carried(CLOSING, period.end_ms, currency, totals["closing"])


def _carried(name: str, at_ms: int, currency: str, minor: int) -> Sequence[Value]:
    words, balance = f"{name.capitalize()} balance", _money(minor, currency)
    return (name, _utc(at_ms), None, words, None, None, currency, None, balance)


def _row(line: Line) -> Sequence[Value]:
    currency, other = line["currency"], line["counterparty_account_id"]
    words = " · ".join(text for text in (line["description"], line["reference"]) if text)
    if not words and other is not None:
        words = f"{'to' if line['amount'] < 0 else 'from'} {other}"
    return (
        "entry",
        datetime.fromisoformat(line["at"]),
        line["type"],
        words,
        other,
        line["transaction_id"],
        currency,
        _money(line["amount"], currency),
        _money(line["balance"], currency),
    )


def _money(minor: int, currency: str) -> Money:
    return Money(minor, currency, EXPONENTS[currency])


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, UTC) + timedelta(milliseconds=at_ms % 1000)


def _until(end_ms: int) -> str:
    return f"{_utc(end_ms):%Y-%m-%d %H:%M}"
