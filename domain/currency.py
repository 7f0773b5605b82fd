r"""Currency: rates and their history, quotes, and the rate that an exchange gets.

    SetRates --> RatesSet --to each partition--> RatesApplied
    RequestQuote --> QuoteIssued --an exchange uses it--> (used)
                                \--its time passes------> (of no use)
    TransactionCreated (exchange) --> RateFixed | RateRefused
    ScheduleFeed --> FeedScheduled --tick--> RatesRequested --the feed--> RatesFetched --> RatesSet

All rates are set under one key, so that each partition hears of them in the same order. A rate
between two currencies is the one that was set for them, or goes through BASE. One that is older
than its source said is refused. A quote is used once, whatever becomes of the order that used it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, assert_never, get_args

from domain.decider import (
    DUE,
    KEEP_FINAL_MS,
    Changes,
    Decider,
    Due,
    Expiry,
    RowKey,
    Rows,
    Tick,
    due_key,
    due_row,
    expired,
    expiry_key,
    forget,
    forgotten,
    overdue,
    tick_keys,
)
from domain.exchange import MILLION, Ratio, is_rate, priced, ratio, written
from domain.money import AMOUNT_LIMIT_MINOR, is_amount, is_currency
from domain.saga import (
    Order,
    RateFixed,
    RateRefused,
    Reason,
    Terms,
    TransactionCreated,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.exchange import Conversion

SERVICE = "currency"
BASE = "EUR"  # crosses go through it
RATES = "rates"  # the key under which all rates are set
AGE_LIMIT_S = KEEP_FINAL_MS // 1000  # for which a rate may be good
HOLD_LIMIT_S = 24 * 3600  # for which a quote may hold
AHEAD_MS = 24 * 3600 * 1000  # by which a source's time may be before the broker's: it may be a day
FETCH = "fetch"  # the kind of a due row: the feed is to be asked
EVERY_S = range(60, 7 * 24 * 3600 + 1)  # between two times
LAST_MS, LAST_VERSION = 10**13 - 1, 10**9 - 1  # the greatest of a history's keys


class RateSource(StrEnum):
    OPERATOR = "operator"
    FEED = "feed"


class FetchOutcome(StrEnum):
    FETCHED = "fetched"
    FAILED = "failed"


class QuoteStatus(StrEnum):
    OPEN = "open"
    USED = "used"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRates:
    """Set what one unit of `base` is worth in other currencies. Arrives under RATES."""

    base: str
    rates: dict[str, str]  # decimal texts by ISO 4217 code
    source: RateSource
    as_of_ms: int | None  # of the source; None: its arrival
    max_age_s: int  # good for so long from then on
    spread_ppm: int  # parts per million that a customer's rate is below this one
    actor_id: str
    request_id: str  # asked twice under one is asked once


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQuote:
    """Hold the rate of now between two currencies for a user; of one amount, where one is named."""

    quote_id: str
    user_id: str
    currency: str
    destination_currency: str
    amount_minor: int | None
    hold_s: int
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFeed:
    """Ask the feed for rates now and each `every_s` seconds; 0: never. Arrives under RATES."""

    every_s: int
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RatesFetched:
    """The feed's answer to a request; without rates where there is none that can be used."""

    fetch_id: str
    outcome: FetchOutcome
    base: str
    rates: dict[str, str]
    as_of_ms: int
    max_age_s: int
    spread_ppm: int
    request_id: str  # the same for the same rates of the same day
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedScheduled:
    """The feed is asked from now on; 0: no more."""

    every_s: int
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatesRequested:
    """It is time: the feed is to be asked."""

    fetch_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedAnswered:
    """The feed was asked; `detail` says why nothing came of it, where nothing did."""

    fetch_id: str
    outcome: FetchOutcome
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatesSet:
    """Rates were set; each currency partition hears it."""

    version: int  # counts what was set, from 1
    base: str
    rates: dict[str, str]
    source: RateSource
    as_of_ms: int
    expires_ms: int
    spread_ppm: int
    actor_id: str
    request_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatesApplied:
    """One currency partition goes by these rates from here on."""

    version: int
    base: str
    rates: dict[str, str]
    source: RateSource
    as_of_ms: int
    expires_ms: int
    spread_ppm: int
    set_ms: int  # when they were set: the same in each partition
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteIssued:
    """A rate is held for a user until `expires_ms`."""

    quote_id: str
    user_id: str
    currency: str
    destination_currency: str
    amount_minor: int | None
    destination_amount_minor: int | None  # what that amount comes to
    rate: str  # of the customer
    mid_rate: str  # of the market
    spread_ppm: int
    expires_ms: int
    request_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyCommandRefused:
    """A command on rates or a quote was refused; nothing changed."""

    subject_id: str  # the quote's id, or RATES
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatesForgotten:
    """Old rates, quotes and decisions left the table: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBoard:
    """Row `rate-board/rates`, where rates are set: what each source said last."""

    version: int
    as_of: dict[str, int]  # Unix ms by source
    requests: dict[str, str]  # request_id by source


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Row `rate-feed/rates`, where rates are set."""

    every_s: int
    due_ms: int | None  # None: never
    fetch_id: str | None  # of the last request
    outcome: FetchOutcome | None  # None: nothing was asked, or the answer is not there yet
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRates:
    """Row `rate-applied/rates`, in each partition."""

    version: int
    at_ms: int  # when they were set


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Row `rate/<pair>`, in each partition, and `rate-at/<pair>/<time, the newest first>`, its history."""

    pair: str  # both currencies in the order of the alphabet, EUR-USD
    base: str
    quote: str
    rate: str  # units of `quote` for one of `base`
    spread_ppm: int
    source: RateSource
    as_of_ms: int
    expires_ms: int  # beyond it nothing is exchanged at it
    version: int
    at_ms: int  # when it was set


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Row `quote/<quote_id>`."""

    quote_id: str
    user_id: str
    currency: str
    destination_currency: str
    amount_minor: int | None
    destination_amount_minor: int | None
    rate: str
    mid_rate: str
    spread_ppm: int
    status: QuoteStatus
    transaction_id: str | None  # of the exchange that used it
    expires_ms: int
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedRate:
    """Row `fixed/<transaction_id>`: decided once for this exchange."""

    rate: str | None  # None: it was refused
    at_ms: int


Message: TypeAlias = (
    SetRates | ScheduleFeed | RatesFetched | RequestQuote | RatesSet | TransactionCreated | Tick
)
Event: TypeAlias = (
    RatesSet
    | RatesApplied
    | FeedScheduled
    | RatesRequested
    | FeedAnswered
    | QuoteIssued
    | RateFixed
    | RateRefused
    | CurrencyCommandRefused
    | RatesForgotten
)


class Mid(NamedTuple):
    """A rate of the market between two currencies, and until when it is good."""

    rate: str
    spread_ppm: int
    as_of_ms: int
    expires_ms: int
    version: int  # of the newest of the rates that it is made of
    at_ms: int  # likewise: since when


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case SetRates():
            return _set(rows, message, at_ms)
        case ScheduleFeed():
            return _schedule(rows, message, at_ms)
        case RatesFetched():
            return _take(rows, message, at_ms)
        case RatesSet():
            return _apply(rows, message, at_ms)
        case RequestQuote():
            return _quote(rows, message, at_ms)
        case TransactionCreated():
            return _fix(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _set(rows: Rows, command: SetRates, at_ms: int) -> Sequence[Event]:
    board: RateBoard | None = rows.get(BOARD)
    source = command.source.value
    if board is not None and board.requests.get(source) == command.request_id:
        return ()
    as_of_ms = at_ms if command.as_of_ms is None else command.as_of_ms
    if (reason := _unusable(command, as_of_ms, at_ms)) is not None:
        return _refuse(command, reason, at_ms)
    if board is not None and as_of_ms < board.as_of.get(source, 0):
        return _refuse(command, Reason.RATES_OUTDATED, at_ms)
    return (
        RatesSet(
            version=board.version + 1 if board else 1,
            base=command.base,
            rates=command.rates,
            source=command.source,
            as_of_ms=as_of_ms,
            expires_ms=as_of_ms + command.max_age_s * 1000,
            spread_ppm=command.spread_ppm,
            actor_id=command.actor_id,
            request_id=command.request_id,
            at_ms=at_ms,
        ),
    )


def _unusable(command: SetRates, as_of_ms: int, at_ms: int) -> Reason | None:
    if not all(map(is_currency, (command.base, *command.rates))):
        return Reason.CURRENCY_UNKNOWN
    if not command.rates or command.base in command.rates:
        return Reason.INVALID_COMMAND
    if not all(map(is_rate, command.rates.values())):
        return Reason.INVALID_COMMAND
    if not 0 < command.max_age_s <= AGE_LIMIT_S or not 0 <= command.spread_ppm < MILLION:
        return Reason.INVALID_COMMAND
    if not (command.request_id and 0 < as_of_ms <= at_ms + AHEAD_MS):
        return Reason.INVALID_COMMAND
    return None


def _apply(rows: Rows, fact: RatesSet, at_ms: int) -> Sequence[Event]:
    applied: AppliedRates | None = rows.get(APPLIED)
    if applied is not None and applied.version >= fact.version:
        return ()
    return (
        RatesApplied(
            version=fact.version,
            base=fact.base,
            rates=fact.rates,
            source=fact.source,
            as_of_ms=fact.as_of_ms,
            expires_ms=fact.expires_ms,
            spread_ppm=fact.spread_ppm,
            set_ms=fact.at_ms,
            at_ms=at_ms,
        ),
    )


def _schedule(rows: Rows, command: ScheduleFeed, at_ms: int) -> Sequence[Event]:
    feed: Feed | None = rows.get(FEED)
    if (feed.every_s if feed else 0) == command.every_s:
        return ()
    if command.every_s and command.every_s not in EVERY_S:
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    return (FeedScheduled(every_s=command.every_s, actor_id=command.actor_id, at_ms=at_ms),)


def _take(rows: Rows, answer: RatesFetched, at_ms: int) -> Sequence[Event]:
    """What the feed said, once for a request; what can't be used changes nothing and says why."""
    feed: Feed | None = rows.get(FEED)
    if feed is None or feed.fetch_id != answer.fetch_id or feed.outcome is not None:
        return ()
    if answer.outcome is FetchOutcome.FAILED:
        return (_answered(answer, FetchOutcome.FAILED, answer.detail, at_ms),)
    said = _set(rows, _of_feed(answer), at_ms)
    for event in said:
        if isinstance(event, CurrencyCommandRefused):
            return (_answered(answer, FetchOutcome.FAILED, event.reason.value, at_ms),)
    return (*said, _answered(answer, FetchOutcome.FETCHED, "" if said else "known", at_ms))


def _of_feed(answer: RatesFetched) -> SetRates:
    return SetRates(
        base=answer.base,
        rates=answer.rates,
        source=RateSource.FEED,
        as_of_ms=answer.as_of_ms,
        max_age_s=answer.max_age_s,
        spread_ppm=answer.spread_ppm,
        actor_id=SERVICE,
        request_id=answer.request_id,
    )


def _answered(answer: RatesFetched, outcome: FetchOutcome, detail: str, at_ms: int) -> FeedAnswered:
    return FeedAnswered(fetch_id=answer.fetch_id, outcome=outcome, detail=detail, at_ms=at_ms)


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    events: list[Event] = []
    if due := expired(rows, tick, at_ms):
        events.append(RatesForgotten(due=due, at_ms=at_ms))
    if overdue(rows, tick, FETCH, at_ms):
        events.append(RatesRequested(fetch_id=str(at_ms), at_ms=at_ms))
    return events


def _quote(rows: Rows, command: RequestQuote, at_ms: int) -> Sequence[Event]:
    quote: Quote | None = rows.get(quote_key(command.quote_id))
    if quote is not None and quote.request_hash == command.request_hash:
        return ()
    if quote is not None:
        return _refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    source, destination = command.currency, command.destination_currency
    if not (is_currency(source) and is_currency(destination)):
        return _refuse(command, Reason.CURRENCY_UNKNOWN, at_ms)
    if not _is_askable(command):
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    mid = market(rows, source, destination, at_ms)
    if isinstance(mid, Reason):
        return _refuse(command, mid, at_ms)
    found = priced(command.amount_minor or 1, mid.rate, mid.spread_ppm, source, destination)
    if command.amount_minor and (reason := _out_of_bounds(found)) is not None:
        return _refuse(command, reason, at_ms)
    return (
        QuoteIssued(
            quote_id=command.quote_id,
            user_id=command.user_id,
            currency=source,
            destination_currency=destination,
            amount_minor=command.amount_minor,
            destination_amount_minor=found.amount_minor if command.amount_minor else None,
            rate=found.rate,
            mid_rate=mid.rate,
            spread_ppm=mid.spread_ppm,
            expires_ms=at_ms + command.hold_s * 1000,
            request_hash=command.request_hash,
            at_ms=at_ms,
        ),
    )


def _is_askable(command: RequestQuote) -> bool:
    return (
        bool(command.quote_id and command.user_id)
        and command.currency != command.destination_currency
        and (command.amount_minor is None or is_amount(command.amount_minor))
        and 0 < command.hold_s <= HOLD_LIMIT_S
    )


def _fix(rows: Rows, fact: TransactionCreated, at_ms: int) -> Sequence[Event]:
    """Fixed or never: an exchange has one rate."""
    order, terms = fact.order, fact.order.terms
    assert terms is not None
    assert terms.destination_currency is not None
    if fixed_key(order.transaction_id) in rows:
        return ()
    if at_ms > order.deadline_ms:
        return _refuse_rate(fact, Reason.DEADLINE_PASSED, at_ms)
    if terms.quote_id is None:
        found = market(rows, order.currency, terms.destination_currency, at_ms)
    else:
        found = _held(rows.get(quote_key(terms.quote_id)), order, terms, at_ms)
    if isinstance(found, Reason):
        return _refuse_rate(fact, found, at_ms)
    destination = terms.destination_currency
    comes_to = priced(order.amount_minor, found.rate, found.spread_ppm, order.currency, destination)
    if (reason := _out_of_bounds(comes_to)) is not None:
        return _refuse_rate(fact, reason, at_ms)
    fixed = replace(
        terms,
        destination_amount_minor=comes_to.amount_minor,
        rate=comes_to.rate,
        spread_minor=comes_to.spread_minor,
        rounding_minor=comes_to.rounding_minor,
    )
    return (
        RateFixed(
            order=replace(order, terms=fixed),
            mid_rate=found.rate,
            spread_ppm=found.spread_ppm,
            at_ms=at_ms,
            steps=traced(fact.steps, "rate", SERVICE, "fixed", at_ms),
            client=fact.client,
        ),
    )


def _held(quote: Quote | None, order: Order, terms: Terms, at_ms: int) -> Mid | Reason:
    """The rate that a quote holds for this order. What is not the owner's is not there."""
    if quote is None or quote.user_id not in (order.owner_id, order.actor_id):
        return Reason.QUOTE_NOT_FOUND
    if quote.status is QuoteStatus.USED:
        return Reason.QUOTE_USED
    if at_ms > quote.expires_ms:
        return Reason.QUOTE_EXPIRED
    asked = (order.currency, terms.destination_currency)
    if asked != (quote.currency, quote.destination_currency):
        return Reason.QUOTE_MISMATCH
    if quote.amount_minor not in (None, order.amount_minor):
        return Reason.QUOTE_MISMATCH
    return Mid(
        rate=quote.mid_rate,
        spread_ppm=quote.spread_ppm,
        as_of_ms=quote.created_ms,
        expires_ms=quote.expires_ms,
        version=quote.version,
        at_ms=quote.created_ms,
    )


def _out_of_bounds(found: Conversion) -> Reason | None:
    if found.amount_minor < 1:
        return Reason.AMOUNT_TOO_SMALL
    if found.amount_minor + found.spread_minor > AMOUNT_LIMIT_MINOR:
        return Reason.AMOUNT_TOO_LARGE
    return None


def market(rows: Rows, source: str, destination: str, at_ms: int) -> Mid | Reason:
    """The rate between two currencies, while it is good."""
    found = nearest(rows, source, destination, at_ms)
    if found is None:
        return Reason.RATE_NOT_FOUND
    return found if at_ms <= found.expires_ms else Reason.RATE_STALE


def nearest(rows: Rows, source: str, destination: str, at_ms: int) -> Mid | None:
    """The rate of two currencies' own while it is good, else through BASE; one that is stale at last."""
    ways = [(source, destination)], [(source, BASE), (BASE, destination)]
    found = [mid for way in ways if (mid := _along(rows, way)) is not None]
    good = [mid for mid in found if at_ms <= mid.expires_ms]
    return next(iter(good or found), None)


def _along(rows: Rows, way: Sequence[tuple[str, str]]) -> Mid | None:
    """The product of the rates along a way; its spread is their greatest."""
    steps: list[Rate] = []
    product = Ratio(1, 1)
    for source, destination in way:
        row: Rate | None = rows.get(rate_key(source, destination))
        if row is None:
            return None
        steps.append(row)
        step = ratio(row.rate)
        product = product.times(step if row.base == source else step.inverse)
    return Mid(
        rate=written(product),
        spread_ppm=max(row.spread_ppm for row in steps),
        as_of_ms=min(row.as_of_ms for row in steps),
        expires_ms=min(row.expires_ms for row in steps),
        version=max(row.version for row in steps),
        at_ms=max(row.at_ms for row in steps),
    )


def _refuse(
    command: SetRates | ScheduleFeed | RequestQuote, reason: Reason, at_ms: int
) -> Sequence[Event]:
    return (
        CurrencyCommandRefused(
            subject_id=command.quote_id if isinstance(command, RequestQuote) else RATES,
            command=type(command).__name__,
            reason=reason,
            at_ms=at_ms,
        ),
    )


def _refuse_rate(fact: TransactionCreated, reason: Reason, at_ms: int) -> Sequence[Event]:
    steps = traced(fact.steps, "rate", SERVICE, reason, at_ms)
    return (RateRefused(order=fact.order, reason=reason, at_ms=at_ms, steps=steps),)


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case RatesSet():
            return {BOARD: _board(rows.get(BOARD), event)}
        case RatesApplied():
            return _applied(rows, event)
        case FeedScheduled():
            return _scheduled(rows, event)
        case RatesRequested():
            return _requested(rows, event)
        case FeedAnswered():
            feed: Feed = rows[FEED]
            outcome, detail, at_ms = event.outcome, event.detail, event.at_ms
            return {FEED: replace(feed, outcome=outcome, detail=detail, at_ms=at_ms)}
        case QuoteIssued():
            key = quote_key(event.quote_id)
            due, expiry = forget(rows, event.at_ms, key)
            return {key: _issued(event), due: expiry}
        case RateFixed():
            return {**_decided(rows, event, event.order), **_used(rows, event)}
        case RateRefused():
            return _decided(rows, event, event.order)
        case RatesForgotten():
            return forgotten(rows, event.due)
        case CurrencyCommandRefused():
            return {}
        case _:
            assert_never(event)


def _board(board: RateBoard | None, event: RatesSet) -> RateBoard:
    source = event.source.value
    return RateBoard(
        version=event.version,
        as_of={**(board.as_of if board else {}), source: event.as_of_ms},
        requests={**(board.requests if board else {}), source: event.request_id},
    )


def _scheduled(rows: Rows, event: FeedScheduled) -> Changes:
    feed: Feed | None = rows.get(FEED)
    changes: dict[RowKey, Feed | Due | None] = {}
    if feed is not None and feed.due_ms is not None:
        changes[due_key(feed.due_ms, FETCH, FEED)] = None
    due_ms = event.at_ms if event.every_s else None
    if due_ms is not None:
        key, due = due_row(due_ms, FETCH, FEED)
        changes[key] = due
    changes[FEED] = Feed(
        every_s=event.every_s,
        due_ms=due_ms,
        fetch_id=feed.fetch_id if feed else None,
        outcome=feed.outcome if feed else None,
        detail=feed.detail if feed else "",
        at_ms=event.at_ms,
    )
    return changes


def _requested(rows: Rows, event: RatesRequested) -> Changes:
    """Asked, and to be asked again; times that were missed are not made up for."""
    feed: Feed = rows[FEED]
    assert feed.due_ms is not None
    due_ms = event.at_ms + feed.every_s * 1000
    key, due = due_row(due_ms, FETCH, FEED)
    asked = Feed(
        every_s=feed.every_s,
        due_ms=due_ms,
        fetch_id=event.fetch_id,
        outcome=None,
        detail="",
        at_ms=event.at_ms,
    )
    return {due_key(feed.due_ms, FETCH, FEED): None, key: due, FEED: asked}


def _applied(rows: Rows, event: RatesApplied) -> Changes:
    """The rates of now, and each once more in its history."""
    changes: dict[RowKey, AppliedRates | Rate | Expiry] = {
        APPLIED: AppliedRates(version=event.version, at_ms=event.set_ms)
    }
    past: list[RowKey] = []
    for quote, text in event.rates.items():
        row = Rate(
            pair=pair(event.base, quote),
            base=event.base,
            quote=quote,
            rate=text,
            spread_ppm=event.spread_ppm,
            source=event.source,
            as_of_ms=event.as_of_ms,
            expires_ms=event.expires_ms,
            version=event.version,
            at_ms=event.set_ms,
        )
        past.append(history_key(row.pair, row.at_ms, row.version))
        changes[rate_key(event.base, quote)] = changes[past[-1]] = row
    due, expiry = forget(rows, event.at_ms, *past)
    changes[due] = expiry
    return changes


def _issued(event: QuoteIssued) -> Quote:
    return Quote(
        quote_id=event.quote_id,
        user_id=event.user_id,
        currency=event.currency,
        destination_currency=event.destination_currency,
        amount_minor=event.amount_minor,
        destination_amount_minor=event.destination_amount_minor,
        rate=event.rate,
        mid_rate=event.mid_rate,
        spread_ppm=event.spread_ppm,
        status=QuoteStatus.OPEN,
        transaction_id=None,
        expires_ms=event.expires_ms,
        request_hash=event.request_hash,
        version=1,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
    )


def _decided(rows: Rows, event: RateFixed | RateRefused, order: Order) -> Changes:
    key = fixed_key(order.transaction_id)
    due, expiry = forget(rows, event.at_ms, key)
    rate = order.terms.rate if order.terms and isinstance(event, RateFixed) else None
    return {key: FixedRate(rate=rate, at_ms=event.at_ms), due: expiry}


def _used(rows: Rows, event: RateFixed) -> Changes:
    terms = event.order.terms
    if terms is None or terms.quote_id is None:
        return {}
    key = quote_key(terms.quote_id)
    quote: Quote = rows[key]
    used = replace(
        quote,
        status=QuoteStatus.USED,
        transaction_id=event.order.transaction_id,
        version=quote.version + 1,
        updated_ms=event.at_ms,
    )
    return {key: used}


BOARD: RowKey = "rate-board/rates"
FEED: RowKey = "rate-feed/rates"
APPLIED: RowKey = "rate-applied/rates"
RATE = "rate/"
HISTORY = "rate-at/"


def pair(one: str, other: str) -> str:
    """What two currencies are called together, whichever is the base."""
    return f"{min(one, other)}-{max(one, other)}"


def rate_key(one: str, other: str) -> RowKey:
    return f"{RATE}{pair(one, other)}"


def history_key(of_pair: str, at_ms: int, version: int) -> RowKey:
    """Keys of a pair sort by time, the newest first."""
    return f"{HISTORY}{of_pair}/{LAST_MS - at_ms:013d}.{LAST_VERSION - version:09d}"


def before_history(of_pair: str, at_ms: int) -> RowKey:
    """What sorts right before the key of the last rate of this time."""
    return f"{HISTORY}{of_pair}/{LAST_MS - at_ms - 1:013d}~"


def quote_key(quote_id: str) -> RowKey:
    return f"quote/{quote_id}"


def fixed_key(transaction_id: str) -> RowKey:
    return f"fixed/{transaction_id}"


def rate_keys(source: str, destination: str) -> tuple[RowKey, ...]:
    """The rows that `market` reads."""
    ways = ((source, destination), (source, BASE), (BASE, destination))
    return tuple(rate_key(*way) for way in ways)


def keys(  # noqa: C901 - a case a message
    message: Message | Event,
) -> Sequence[RowKey]:
    match message:
        case SetRates():
            return (BOARD,)
        case ScheduleFeed() | FeedScheduled() | RatesRequested() | FeedAnswered():
            return (FEED,)
        case RatesFetched():
            return (BOARD, FEED)
        case RatesSet():
            return (BOARD, APPLIED)
        case RatesApplied():
            return (expiry_key(message.at_ms),)
        case RequestQuote():
            asked = rate_keys(message.currency, message.destination_currency)
            return (quote_key(message.quote_id), *asked)
        case QuoteIssued():
            return (quote_key(message.quote_id), expiry_key(message.at_ms))
        case TransactionCreated():
            return _order_keys(message.order)
        case RateFixed() | RateRefused():
            return (*_order_keys(message.order), expiry_key(message.at_ms))
        case RatesForgotten():
            return message.due
        case Tick():
            return tick_keys(message)
        case CurrencyCommandRefused():
            return ()
        case _:
            assert_never(message)


def _order_keys(order: Order) -> tuple[RowKey, ...]:
    terms = order.terms
    quote_id = terms.quote_id if terms else None
    destination = (terms.destination_currency if terms else None) or order.currency
    return (
        fixed_key(order.transaction_id),
        *((quote_key(quote_id),) if quote_id else rate_keys(order.currency, destination)),
    )


def exchange_id(order: Order) -> str:
    """The quote that an exchange uses, or itself: where its rate is fixed."""
    quote_id = order.terms.quote_id if order.terms else None
    return quote_id or order.transaction_id


def aggregate_id(event: Event) -> str:
    match event:
        case RatesSet() | RatesApplied() | FeedScheduled() | RatesRequested() | FeedAnswered():
            return RATES
        case QuoteIssued():
            return event.quote_id
        case RateFixed() | RateRefused():
            return exchange_id(event.order)
        case CurrencyCommandRefused():
            return event.subject_id
        case RatesForgotten():
            return event.due[0]
        case _:
            assert_never(event)


CURRENCY = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(RateBoard, AppliedRates, Feed, Rate, Quote, FixedRate, Due, Expiry),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, RATE, HISTORY),
)
