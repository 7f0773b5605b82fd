"""The feed of rates: documents that can be read, those that can't, and a server that misbehaves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from agents.rates_feed import DOCUMENT_BYTES, BadRates, RatesFeed, parsed
from domain.currency import FetchOutcome, RatesRequested
from resilience.downstream import Away, Downstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><gesmes:Envelope'
    ' xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"'
    ' xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">'
    "<gesmes:subject>Reference rates</gesmes:subject><Cube>"
)
TAIL = "</Cube></gesmes:Envelope>"
USD = "<Cube currency='USD' rate='1.0845'/>"
JPY = "<Cube currency='JPY' rate='162.35'/>"


def day(text: str, *cubes: str) -> str:
    return f"<Cube time='{text}'>{''.join(cubes)}</Cube>"


def whole(*days: str) -> bytes:
    return f"{HEAD}{''.join(days)}{TAIL}".encode()


GOOD = whole(day("2026-11-25", USD, JPY))


def test_the_rates_of_a_day() -> None:
    fixing = parsed(GOOD)
    assert fixing.rates == {"USD": "1.0845", "JPY": "162.35"}
    assert fixing.as_of_ms == 1_795_618_800_000  # 15:00 UTC
    assert fixing.request_id == parsed(whole(day("2026-11-25", JPY, USD))).request_id
    assert fixing.request_id != parsed(whole(day("2026-11-25", JPY))).request_id


def test_of_several_days_the_last_counts() -> None:
    days = [day("2026-11-25", USD), day("2026-11-26", JPY), day("2026-11-24", USD, JPY)]
    assert parsed(whole(*days)).rates == {"JPY": "162.35"}


BOMB = '<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]><lolz>&lol2;</lolz>'


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "no XML"),
        (b"not xml", "no XML"),
        (GOOD[:-5], "no XML"),
        (BOMB.encode(), "declares a type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares a type"),
        (b"<a>" * 9 + b"</a>" * 9, "nested deeper"),
        (b" " * (DOCUMENT_BYTES + 1), "more than"),
        (whole(), "no day of rates"),
        (whole(day("2026-11-25")), "no rate of 2026-11-25"),
        (whole(day("yesterday", USD)), "is no day"),
        (whole(day("2026-11-25", USD), day("2026-11-25", JPY)), "twice"),
        (whole(day("2026-11-25", USD, USD)), "USD is there twice"),
        (whole(USD), "is of no day"),
        (whole(day("2026-11-25", USD, "<Cube currency='XYZ' rate='1'/>")), "no currency"),
        (whole(day("2026-11-25", "<Cube currency='EUR' rate='1'/>")), "no currency"),
        (whole(day("2026-11-25", USD, "<Cube currency='JPY' rate='N/A'/>")), "the rate of JPY"),
        (whole(day("2026-11-25", "<Cube currency='JPY'/>")), "the rate of JPY"),
        (whole(day("2026-11-25", "<Cube currency='JPY' rate='-1'/>")), "the rate of JPY"),
        (GOOD.replace(b"eurofxref", b"other"), "no day of rates"),
        ('<?xml version="1.0" encoding="UTF-8"?><a>\xff</a>'.encode("latin-1"), "no XML"),
    ],
)
def test_what_can_t_be_read_is_refused_whole(document: bytes, why: str) -> None:
    with pytest.raises(BadRates, match=why):
        parsed(document)


@asynccontextmanager
async def serving(*answers: web.Response | float) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that gives these answers one after another, the last for ever; a number: it is slow."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        found = answers[min(len(asked), len(answers)) - 1]
        if isinstance(found, float):
            await asyncio.sleep(found)
            return web.Response(body=GOOD)
        return web.Response(status=found.status, body=found.body, headers=found.headers)

    app = web.Application()
    app.router.add_get("/rates.xml", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/rates.xml", asked
    finally:
        await runner.cleanup()


REQUEST = RatesRequested(fetch_id="f1", at_ms=0)


async def ask(url: str, timeout_s: float = 5.0) -> tuple[FetchOutcome, str]:
    """As perform does: behind retries and a time-out."""
    async with aiohttp.ClientSession() as session:
        feed = RatesFeed(url, session, max_age_s=60, spread_ppm=7)
        downstream = Downstream("rates-of-a-test", timeout_s)
        try:
            said = await downstream.ask(lambda: feed.call(REQUEST, {}))
        except Away as exc:
            said = feed.unanswered(REQUEST, exc)
    assert said.fetch_id == "f1"
    assert bool(said.rates) is (said.outcome is FetchOutcome.FETCHED)
    return said.outcome, said.detail


async def test_a_feed_that_works_after_a_while() -> None:
    broken = web.Response(status=503)
    async with serving(broken, broken, web.Response(body=GOOD)) as (url, asked):
        assert await ask(url) == (FetchOutcome.FETCHED, "")
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("answer", "tries", "detail"),
    [
        (web.Response(status=500), 4, "answered 500"),
        (web.Response(status=404), 1, "answered 404"),
        (web.Response(body=b"<html>"), 1, "no XML"),
        (web.Response(body=b"x" * (DOCUMENT_BYTES + 1)), 1, "more than"),
        (5.0, 4, "no answer within"),
    ],
)
async def test_a_feed_that_misbehaves(
    answer: web.Response | float, tries: int, detail: str
) -> None:
    async with serving(answer) as (url, asked):
        outcome, said = await ask(url, timeout_s=0.3)
    assert outcome is FetchOutcome.FAILED
    assert detail in said
    assert len(asked) == tries


async def test_a_feed_that_is_not_there() -> None:
    assert (await ask("http://127.0.0.1:9/rates.xml"))[0] is FetchOutcome.FAILED
    assert (await ask("nowhere"))[0] is FetchOutcome.FAILED
