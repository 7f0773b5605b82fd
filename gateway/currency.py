"""Currency over HTTP: rates now and then, rates set by an operator, quotes.

    now:   Redis (exchange_rates:<base>, an hour) --> the workers' tables --> a store
    then:  a store --> the workers' tables, which know 30 days --> the log

A rate that is not there is made of others through the base of crosses, by the function that the
service itself takes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from domain.currency import (
    APPLIED,
    BASE,
    BOARD,
    HISTORY,
    RATE,
    RATES,
    CurrencyCommandRefused,
    QuoteIssued,
    Rate,
    RateSource,
    RatesSet,
    RequestQuote,
    SetRates,
    before_history,
    nearest,
    pair,
    quote_key,
    rate_key,
)
from domain.exchange import customer_rate
from domain.money import is_currency
from domain.saga import Reason
from gateway import auth, views
from gateway.answer import Answer, answer
from gateway.currency_models import NewQuote, NewRates
from gateway.errors import Problem, not_found
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.past import moment_in
from gateway.reads import QUOTES
from stores.questions import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard
    from stores.questions import Place, Questions

SERVICE = "currency"
CACHE = "exchange_rates:{}"
CACHED_S = 3600
PAGE, MOST = 200, 5_000  # rates of one question, of an answer
BEFORE: Row = {}  # instead of a rate that the history of the tables does not reach back to


async def rates(call: Call) -> Answer:
    """Those of a base, or of a pair; `?at=`: as they were. None where there is none."""
    base, quote = _currency(call, "base") or BASE, _currency(call, "quote")
    if base == quote:
        raise Problem("BAD_QUERY", "base and quote are two currencies")
    at_ms = moment_in(call.query)
    if at_ms is None:
        items, now_ms = (await _current(call, base))["items"], time.time_ns() // 1_000_000
    else:
        items, now_ms = _items(await _past(call, base, quote, at_ms), base, at_ms), at_ms
    shown = [_shown(item, now_ms) for item in items if quote in (None, item["quote"])]
    return answer({"base": base, "items": shown, "next_cursor": None})


def _currency(call: Call, name: str) -> str | None:
    code = call.query.get(name)
    if code is not None and not is_currency(code):
        raise Problem("BAD_QUERY", f"{name} is an ISO 4217 code in upper case")
    return code


async def _current(call: Call, base: str) -> Row:
    """All rates of a base as they are, with the version of what was set last."""
    reads, name = call.gateway.reads, CACHE.format(base)
    found = await reads.copy(call, name, SERVICE, RATES, APPLIED)
    if found is not None:
        return found

    async def of_store(store: Questions) -> Row:
        rows = [row async for row in _listed(store)]
        return _made(rows, base, None)

    async def of_tables() -> Row:
        queries = call.gateway.queries
        applied = await queries.row(SERVICE, RATES, APPLIED)
        return _made(await _of_tables(call), base, applied)

    made = await reads.ask(call, "rates", of_store, of_tables)
    if call.read_source == "tables":
        reads.keep(name, SERVICE, RATES, APPLIED, made, CACHED_S)
    return made


def _made(rows: Sequence[Row], base: str, applied: Row | None) -> Row:
    newest = applied or max(rows, key=lambda row: row["version"], default=None)
    return {
        "version": newest["version"] if newest else 0,
        "updated_ms": newest["at_ms"] if newest else 0,
        "items": _items(rows, base, time.time_ns() // 1_000_000),
    }


def _items(rows: Iterable[Row], base: str, at_ms: int) -> list[Row]:
    """The rates of a base in all currencies that can be had, in the order of the alphabet."""
    known = {f"{RATE}{row['pair']}": _rate(row) for row in rows}
    codes = {code for row in known.values() for code in (row.base, row.quote)} - {base}
    items = []
    for quote in sorted(codes):
        mid = nearest(known, base, quote, at_ms)
        if mid is not None:
            items.append({"base": base, "quote": quote, **mid._asdict()})
    return items


def _rate(row: Row) -> Rate:
    return Rate(**{**row, "source": RateSource(row["source"])})


def _shown(item: Row, now_ms: int) -> dict[str, Any]:
    return {
        "base": item["base"],
        "quote": item["quote"],
        "rate": item["rate"],
        "customer_rate": customer_rate(item["rate"], item["spread_ppm"]),
        "spread_ppm": item["spread_ppm"],
        "as_of": views.time_of(item["as_of_ms"]),
        "valid_until": views.time_of(item["expires_ms"]),
        "stale": now_ms > item["expires_ms"],
        "set_at": views.time_of(item["at_ms"]),
        "version": item["version"],
    }


async def _listed(store: Questions) -> Any:
    after: Place | None = None
    for _ in range(MOST // PAGE):
        page = await store.rates(after, PAGE)
        for row in page.items:
            yield row
        after = page.following
        if after is None:
            return


async def _of_tables(call: Call) -> list[Row]:
    """The rates of now: each partition has them all, that in which they are set has them first."""
    queries, after, rows = call.gateway.queries, "", list[Any]()
    while True:
        found, following = await queries.listed(
            SERVICE, queries.partition(RATES), RATE, after, PAGE
        )
        rows += [row for _, row in found]
        if following is None or len(rows) >= MOST:
            return rows
        after = following


# rates as they were


async def _past(call: Call, base: str, quote: str | None, at_ms: int) -> list[Row]:
    """The rates that an answer is made of, as they were."""
    if quote is not None:
        ways = ((base, quote), (base, BASE), (BASE, quote))
        pairs = sorted({pair(*way) for way in ways if way[0] != way[1]})
    else:
        current = await call.gateway.reads.ask(
            call, "rates", lambda store: _rows(store), lambda: _of_tables(call)
        )
        pairs = sorted(row["pair"] for row in current)

    async def of_store(store: Questions) -> list[Row]:
        asked = (store.rate_history(Wanted(pair=one, to_ms=at_ms + 1), None, 1) for one in pairs)
        return [row for page in await asyncio.gather(*asked) for row in page.items]

    async def of_tables() -> list[Row]:
        known = await asyncio.gather(*(_kept(call, one, at_ms) for one in pairs))
        before = [one for one, row in zip(pairs, known, strict=True) if row is BEFORE]
        keys = [rate_key(*one.split("-")) for one in before]
        folded = await call.gateway.past.rows(SERVICE, keys, at_ms) if keys else []
        return [row for row in (*known, *folded) if row]

    return await call.gateway.reads.ask(call, "rate_history", of_store, of_tables)


async def _rows(store: Questions) -> list[Row]:
    return [row async for row in _listed(store)]


async def _kept(call: Call, of_pair: str, at_ms: int) -> Row | None:
    """A pair's rate as it was, from the tables' history. BEFORE: the log alone knows."""
    queries = call.gateway.queries
    partition = queries.partition(RATES)
    prefix, after = f"{HISTORY}{of_pair}/", before_history(of_pair, at_ms)
    found, _ = await queries.listed(SERVICE, partition, prefix, after, 1)
    if found:
        return found[0][1]
    key = rate_key(*of_pair.split("-"))
    now: Row | None = (await queries.rows(SERVICE, partition, (key,)))[key]
    if now is None or now["at_ms"] <= at_ms:
        return now
    return BEFORE


# rates that are set


async def put(call: Call) -> Answer:
    """202, or 200 with the rates of that base once every part of the service goes by them."""
    body = call.body
    assert isinstance(body, NewRates)

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Setting(call, identity, body))

    return await once(call, identify(call), first)


class _Setting:
    """SetRates on its way."""

    service = SERVICE
    key = aggregate_id = RATES

    def __init__(self, call: Call, identity: Identity, body: NewRates) -> None:
        settings = call.gateway.settings
        self.call, self.identity = call, identity
        self.location = f"/api/rates?base={body.base}"
        self.named = {"base": body.base}
        self.version: int | None = None
        self.command = SetRates(
            base=body.base,
            rates=body.given,
            source=RateSource.OPERATOR,
            as_of_ms=None,
            max_age_s=body.max_age_s or settings.rate_max_age_s,
            spread_ppm=(
                settings.exchange_spread_ppm if body.spread_ppm is None else body.spread_ppm
            ),
            actor_id=call.caller.user_id,
            request_id=identity.command_id,
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, CurrencyCommandRefused):
            return refused(self.call, event.reason, self.named)
        if isinstance(event, RatesSet):
            self.version = event.version
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        """Once every partition goes by them: whoever exchanges, they bind."""
        queries = self.call.gateway.queries
        version = self.version
        if version is None:
            row = await queries.row(SERVICE, RATES, BOARD, versioned=False)
            requests = row["requests"] if row else {}
            if row is None or requests.get(RateSource.OPERATOR) != self.command.request_id:
                return None
            version = row["version"]
        asked = (queries.rows(SERVICE, one, (APPLIED,)) for one in range(queries.partitions))
        applied = [found[APPLIED] for found in await asyncio.gather(*asked)]
        if any(row is None or row["version"] < version for row in applied):
            return None
        queries.saw(SERVICE, APPLIED, version)
        made = _made(await _of_tables(self.call), self.command.base, None)
        now_ms = time.time_ns() // 1_000_000
        items = [_shown(item, now_ms) for item in made["items"]]
        return answer({"base": self.command.base, "items": items, "next_cursor": None})


# quotes


async def quote(call: Call) -> Answer:
    """202, or 201 with the quote; 422 RATE_NOT_FOUND, RATE_STALE."""
    body = call.body
    assert isinstance(body, NewQuote)

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Asking(call, identity, body))

    return await once(call, identify(call), first)


class _Asking:
    """RequestQuote on its way."""

    service = SERVICE

    def __init__(self, call: Call, identity: Identity, body: NewQuote) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = identity.resource_id
        self.location = f"/api/quotes/{self.key}"
        self.named = {"quote_id": self.key}
        self.command = RequestQuote(
            quote_id=self.key,
            user_id=call.caller.user_id,
            currency=body.currency,
            destination_currency=body.destination_currency,
            amount_minor=body.amount,
            hold_s=call.gateway.settings.quote_hold_s,
            request_hash=identity.request_hash,
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, CurrencyCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        return LOOK if isinstance(heard.event, QuoteIssued) else None

    async def looked(self) -> Answer | None:
        row = await self.call.gateway.queries.row(SERVICE, self.key, quote_key(self.key))
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        self.call.gateway.reads.told(self.call, QUOTES, self.key, row["version"])
        return answer(_quote(row), 201)


async def get(call: Call) -> Answer:
    row = await call.gateway.reads.row(call, QUOTES, call.names["quote_id"])
    mine = row is not None and row["user_id"] == call.caller.user_id
    if row is None or not (mine or call.caller.may(auth.STAFF_READS)):
        raise not_found("no such quote, or not yet")
    return answer(views.picked(_quote(row), call.query.get("fields")))


def _quote(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "quote_id": row["quote_id"],
        "user_id": row["user_id"],
        "currency": row["currency"],
        "destination_currency": row["destination_currency"],
        "amount": row["amount_minor"],
        "destination_amount": row["destination_amount_minor"],
        "rate": row["rate"],
        "market_rate": row["mid_rate"],
        "spread_ppm": row["spread_ppm"],
        "status": row["status"],
        "transaction_id": row["transaction_id"],
        "expires_at": views.time_of(row["expires_ms"]),
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
    }
