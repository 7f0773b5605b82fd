"""The feed of rates: the European Central Bank's reference rates in its XML, as an effect.

    RatesRequested --GET--> the feed --parsed--> RatesFetched (FETCHED | FAILED and why)

A document is taken whole or not at all. It may hold several days, of which the last counts. It has
no document type, so no entity of its own, and at most DOCUMENT_BYTES and DEPTH.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

import aiohttp

from agents.effect import Effect
from domain.currency import BASE, RATES, FetchOutcome, RatesFetched, RatesRequested
from domain.exchange import is_rate
from domain.money import is_currency
from resilience.downstream import Away
from topics.subscriptions import FEED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

log = logging.getLogger(__name__)

DOCUMENT_BYTES = 1 << 20
DEPTH = 8
DAYS = 100  # of one document
NAMESPACE = "http://www.ecb.int/vocabulary/2002-08-01/eurofxref"
CUBE = f"{NAMESPACE} Cube"
FIXED_AT = time(15, tzinfo=UTC)  # they are of about 16:00 in Frankfurt
TIMEOUT_S = 10.0


class BadRates(Exception):
    """What a feed says can't be used: one sentence, why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixing:
    """The rates of one day: units of each currency for one euro, decimal texts."""

    day: date
    rates: dict[str, str]

    @property
    def as_of_ms(self) -> int:
        return int(datetime.combine(self.day, FIXED_AT).timestamp() * 1000)

    @property
    def request_id(self) -> str:
        """The same for the same rates of the same day."""
        said = repr((self.day.isoformat(), sorted(self.rates.items())))
        return f"{self.day}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def parsed(document: bytes) -> Fixing:
    """The last day's rates of a document. Raises BadRates."""
    if len(document) > DOCUMENT_BYTES:
        raise BadRates(f"the document has more than {DOCUMENT_BYTES} bytes")
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = reading.refuse_type
    parser.StartElementHandler = reading.begin
    parser.EndElementHandler = reading.end
    try:
        parser.Parse(document, True)
    except expat.ExpatError as exc:
        raise BadRates(f"the document is no XML: {exc}") from exc
    return reading.last()


@dataclass(slots=True)
class _Reading:
    """What was read of a document so far."""

    days: dict[date, dict[str, str]] = field(default_factory=dict)
    open: list[date | None] = field(default_factory=list)  # of each open element its day

    def refuse_type(self, *_: Any) -> None:
        raise BadRates("the document declares a type: entities are not read")

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.open) >= DEPTH:
            raise BadRates(f"the document is nested deeper than {DEPTH}")
        day = self.open[-1] if self.open else None
        if name == CUBE and "time" in attributes:
            day = self._day(attributes["time"])
        elif name == CUBE and "currency" in attributes:
            self._add(day, attributes["currency"], attributes.get("rate", ""))
        self.open.append(day)

    def end(self, _name: str) -> None:
        self.open.pop()

    def _day(self, text: str) -> date:
        try:
            day = date.fromisoformat(text)
        except ValueError as exc:
            raise BadRates(f"{text[:20]!r} is no day") from exc
        if day in self.days or len(self.days) >= DAYS:
            raise BadRates(f"{day} is there twice, or there are more than {DAYS} days")
        self.days[day] = {}
        return day

    def _add(self, day: date | None, currency: str, rate: str) -> None:
        if day is None:
            raise BadRates(f"the rate of {currency[:10]!r} is of no day")
        if not is_currency(currency) or currency == BASE:
            raise BadRates(f"{currency[:10]!r} is no currency that can be had for {BASE}")
        if not is_rate(rate):
            raise BadRates(f"the rate of {currency} is {rate[:40]!r}")
        if currency in self.days[day]:
            raise BadRates(f"{currency} is there twice on {day}")
        self.days[day][currency] = rate

    def last(self) -> Fixing:
        if not self.days:
            raise BadRates("the document has no day of rates")
        day = max(self.days)
        if not self.days[day]:
            raise BadRates(f"the document has no rate of {day}")
        return Fixing(day=day, rates=self.days[day])


def effect(url: str, max_age_s: int, spread_ppm: int) -> Effect:
    """The feed at `url`; its rates are good for `max_age_s`, a customer's lie `spread_ppm` below."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[RatesFeed]:
        async with aiohttp.ClientSession() as session:
            yield RatesFeed(url, session, max_age_s, spread_ppm)

    return Effect(
        name="rates",
        owner="currency",
        requests=FEED,
        types=(RatesRequested,),
        key=lambda _: RATES,
        open=connected,
        timeout_s=TIMEOUT_S,
    )


class RatesFeed:
    """The feed over HTTP: one downstream."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, max_age_s: int, spread_ppm: int
    ) -> None:
        self.url, self.session = url, session
        self.max_age_s, self.spread_ppm = max_age_s, spread_ppm

    def downstream(self, _request: RatesRequested) -> str:
        return "rates"

    async def call(self, request: RatesRequested, headers: Mapping[str, str]) -> RatesFetched:
        try:
            fixing = parsed(await document(self.session, self.url, headers))
        except BadRates as exc:
            return self.unanswered(request, exc)
        return RatesFetched(
            fetch_id=request.fetch_id,
            outcome=FetchOutcome.FETCHED,
            base=BASE,
            rates=fixing.rates,
            as_of_ms=fixing.as_of_ms,
            max_age_s=self.max_age_s,
            spread_ppm=self.spread_ppm,
            request_id=fixing.request_id,
            detail="",
        )

    def unanswered(self, request: RatesRequested, why: Exception) -> RatesFetched:
        log.warning("no rates came of the feed: %s", why)
        return RatesFetched(
            fetch_id=request.fetch_id,
            outcome=FetchOutcome.FAILED,
            base=BASE,
            rates={},
            as_of_ms=0,
            max_age_s=self.max_age_s,
            spread_ppm=self.spread_ppm,
            request_id="",
            detail=str(why)[:500],
        )


async def document(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None
) -> bytes:
    """What is at a URL, bounded. Raises Away, and BadRates for what no other try would mend."""
    try:
        async with session.get(url, headers=headers) as response:
            if response.status >= 500 or response.status in (408, 425, 429):
                raise Away(f"the feed answered {response.status}")
            if response.status != 200:
                raise BadRates(f"the feed answered {response.status}")
            found = bytearray()
            async for part in response.content.iter_chunked(1 << 16):
                found += part
                if len(found) > DOCUMENT_BYTES:
                    raise BadRates(f"the document has more than {DOCUMENT_BYTES} bytes")
            return bytes(found)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as exc:
        raise BadRates(f"{url[:100]!r} is no URL to ask") from exc
    except aiohttp.ClientError as exc:
        raise Away(f"{type(exc).__name__}: {exc}") from exc


async def once(url: str) -> bytes:
    """What is at a URL, asked for once. Raises Away and BadRates."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            return await document(session, url)
        except TimeoutError as exc:
            raise Away(f"the feed did not answer within {TIMEOUT_S:.0f} s") from exc
