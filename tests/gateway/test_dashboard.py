"""The live page in a real browser, on a real bank."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from gateway.documents import DASHBOARD, STATIC
from gateway.views import time_of
from tests.browser import chromium
from tests.gateway.line import line
from tests.gateway.stand import ADMIN, PASSWORD
from tests.gateway.test_analytics import busy
from tests.gateway.test_end_to_end import funded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page, Route

    from tests.gateway.stand import Person, Stand, Town

SHOWN_MS = 30_000  # on a machine that has much else to do
NAUGHTY = "<img src=x onerror=window.hit=1>"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Any error of its scripts, and whatever its policy keeps out, fails the test."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    found = await context.new_page()
    found.set_default_timeout(SHOWN_MS)
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on(
        "console",
        lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield found
    assert not wrong


async def sign_in(page: Page, url: str, email: str = ADMIN, password: str = PASSWORD) -> None:
    await page.goto(f"{url}/dashboard")
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def live(page: Page) -> None:
    await expect(page.locator("#live")).to_have_text("Live", timeout=SHOWN_MS)


async def member(people: Town, *roles: str) -> tuple[Person, str]:
    """Someone with these roles, and their e-mail."""
    person = await people.staff(*roles)
    profile = (await person.get(f"/api/users/{person.user_id}")).json
    return person, str(profile["email"])


async def number(page: Page, id_: str) -> int:
    return int((await page.locator(id_).inner_text()).replace(",", ""))


async def test_numbers_change_as_transfers_run(people: Town, bank: Stand, page: Page) -> None:
    await sign_in(page, bank.url)
    await live(page)
    before = await number(page, "#count")
    await busy(people)  # two deposits, three transfers, one that fails
    await page.wait_for_function(
        "least => Number(document.querySelector('#count').textContent.replaceAll(',', '')) >= least",
        arg=before + 6,
    )
    chart = page.locator("#rate-chart svg")
    assert await chart.locator("[data-series=completed]").count()
    assert await chart.locator("[data-series=failed]").count()
    await expect(chart).to_have_attribute("aria-label", re.compile("Bar chart: .* ended"))
    assert await page.locator("#latency-chart .line").count() >= 3
    usd = page.get_by_role("row", name=re.compile("USD"))
    await expect(usd.first).to_contain_text(re.compile(r"\d+\.\d\d"))
    await expect(page.locator("#failures li").first).to_contain_text(re.compile(r"[A-Z][a-z ]+\d"))
    await expect(page.locator("#success")).to_have_text(re.compile(r"^\d+(\.\d+)? %$"))
    await expect(page.locator("#latency")).to_have_text(re.compile("^[≤>] "))
    for part in ("account", "risk", "relay", "gateway"):
        await expect(page.locator(f"[data-part={part}]")).to_contain_text("Up")
    await expect(page.locator("#ledger")).to_have_text("Balanced")
    # what the page says is what the reports say
    admin = await people.admin()
    path = "/api/analytics/reports?metric=count&interval=minute"
    while True:
        said = (await admin.get(path)).json["items"]
        if await number(page, "#count") >= sum(item["value"] for item in said):
            break
        await asyncio.sleep(0.2)


async def test_a_clock_that_is_wrong_moves_nothing(people: Town, bank: Stand, page: Page) -> None:
    await funded(people, "ada", 1_000)
    await page.clock.install(time="2026-01-01T00:00:00Z")
    await sign_in(page, bank.url)
    await live(page)
    await expect(page.locator("#count")).to_have_text(re.compile("[1-9]"))
    assert await page.locator("#rate-chart [data-series=completed]").count()


async def test_a_wrong_password(people: Town, bank: Stand, page: Page) -> None:
    await sign_in(page, bank.url, password="not the password")
    await expect(page.get_by_role("alert").first).to_have_text("E-mail or password is wrong.")
    await expect(page.locator("#board")).to_be_hidden()
    await expect(page.get_by_label("Password")).to_be_focused()
    await page.get_by_label("Password").fill("")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert").first).to_have_text(
        "Enter your e-mail and your password."
    )


async def test_a_role_that_may_not(people: Town, bank: Stand, page: Page) -> None:
    customer = await people.customer("ada")
    email = (await customer.get(f"/api/users/{customer.user_id}")).json["email"]
    await sign_in(page, bank.url, email)
    await expect(page.get_by_role("alert").first).to_contain_text("Ask an administrator")
    await expect(page.locator("#board")).to_be_hidden()


async def test_each_role_sees_what_it_may(people: Town, bank: Stand, page: Page) -> None:
    _, email = await member(people, "support")
    await sign_in(page, bank.url, email)
    await expect(page.locator("[data-part=account]")).to_contain_text("3 of 3 partitions")
    await expect(page.locator("#figures")).to_be_hidden()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    _, email = await member(people, "analyst")
    await sign_in(page, bank.url, email)
    await live(page)
    await expect(page.locator("#figures")).to_be_visible()
    await expect(page.locator("#operations")).to_be_visible()


async def test_tokens_are_kept_in_memory_alone(people: Town, bank: Stand, page: Page) -> None:
    await sign_in(page, bank.url)
    await live(page)
    kept = await page.evaluate(
        "[localStorage.length, sessionStorage.length, document.cookie, Object.keys(window).filter("
        "name => /token|session$/i.test(name) && name !== 'sessionStorage').length, location.search]"
    )
    assert kept == [0, 0, "", 0, ""]
    await page.reload()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert await page.get_by_label("Password").input_value() == ""


async def test_the_stream_is_lost_and_regained(people: Town, bank: Stand, page: Page) -> None:
    async with line(bank.url) as between:
        await sign_in(page, between.url)
        await live(page)
        between.cut()
        await expect(page.locator("#live")).to_have_text("Connection lost", timeout=SHOWN_MS)
        await expect(page.locator("#lost")).to_contain_text("Trying again")
        before = await number(page, "#count")  # they stay, and say of when they are
        await busy(people)
        assert await number(page, "#count") == before
        between.mend()
        await live(page)
        await expect(page.locator("#lost")).to_be_hidden()
        await page.wait_for_function(
            "least => Number(document.querySelector('#count').textContent.replaceAll(',', ''))"
            " >= least",
            arg=before + 6,
        )
        # it is not over with one
        between.cut()
        await expect(page.locator("#live")).to_have_text("Connection lost", timeout=SHOWN_MS)
        between.mend()
        await live(page)


async def test_tokens_are_renewed_and_a_session_ends(people: Town, bank: Stand, page: Page) -> None:
    refused = 0

    async def once(route: Route) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            await route.fulfill(status=401, json={"title": "expired"})
        else:
            await route.continue_()

    _, email = await member(people, "analyst")
    await page.clock.install()
    await page.route("**/api/status", once)
    async with page.expect_response("**/api/auth/refresh") as renewed:
        await sign_in(page, bank.url, email)
    assert (await renewed.value).status == 200
    await expect(page.locator("[data-part=account]")).to_contain_text("Up")
    await page.unroute("**/api/status")
    person = await people.login(email)
    assert (await person.ask("DELETE", "/api/sessions", Prefer="wait=20")).status == 200
    await page.clock.run_for(11_000)  # until the state is asked for again
    await expect(page.get_by_role("alert").first).to_have_text(
        "Your session has ended. Sign in again."
    )
    await expect(page.locator("#board")).to_be_hidden()


async def test_what_people_write_stays_text(people: Town, bank: Stand, page: Page) -> None:
    analyst, email = await member(people, "analyst")
    named = await analyst.ask(
        "PATCH", f"/api/users/{analyst.user_id}", {"name": NAUGHTY}, Prefer="wait=20"
    )
    assert named.status == 200, named.text

    async def spoiled(route: Route) -> None:
        """What comes from the bank, with markup wherever a text can be."""
        answer = await (await route.fetch()).json()
        await route.fulfill(json=_spoiled(answer))

    def stream(route: Route) -> Any:
        minute = {
            "start": time_of(time.time_ns() // 1_000_000),
            **{"completed": 0, "failed": 3, "cancelled": 0, "count": 3, "late": 0},
            **{"volume": {NAUGHTY: 5}, "revenue": {NAUGHTY: 1}, "reasons": {NAUGHTY: 3}},
            **{"p50_ms": 5, "p95_ms": 5, "p99_ms": 5, "latencies": [1]},
        }
        body = b"event: minutes\ndata: " + orjson.dumps({"minutes": [minute]}) + b"\n\n"
        return route.fulfill(body=body, content_type="text/event-stream")

    await page.route("**/api/status", spoiled)
    await page.route("**/api/analytics/stream", stream)
    await sign_in(page, bank.url, email)
    await expect(page.locator("#user")).to_have_text(NAUGHTY)
    await expect(page.locator("#failures")).to_contain_text(NAUGHTY.lower()[1:])
    await expect(page.locator("#money")).to_contain_text(NAUGHTY)
    await expect(page.locator("#services")).to_contain_text(NAUGHTY)
    assert await page.locator("img").count() == 0
    assert await page.evaluate("window.hit") is None


def _spoiled(answer: Any) -> Any:
    for one in answer["services"]:
        one["detail"] = NAUGHTY
    answer["breakers"] = [{"downstream": NAUGHTY, "state": "open", "seen_by": "workers"}]
    answer["gateway"]["checks"] = {NAUGHTY: NAUGHTY}
    return answer


async def test_nothing_has_ended_yet(people: Town, bank: Stand, page: Page) -> None:
    async def empty(route: Route) -> None:
        answer = await (await route.fetch()).json()
        await route.fulfill(json={**answer, "items": []})

    held = asyncio.Event()

    async def silent(route: Route) -> None:
        await held.wait()
        await route.abort()

    await page.route("**/api/analytics/reports?**", empty)
    await page.route("**/api/analytics/stream", silent)
    await sign_in(page, bank.url)
    await expect(page.locator("#rate-chart")).to_have_text(re.compile("Nothing ended"))
    await expect(page.locator("#money")).to_contain_text("No money moved")
    await expect(page.locator("#failures")).to_contain_text("None failed")
    await expect(page.locator("#live")).to_have_text("Connecting…")
    held.set()


async def test_it_shows_that_it_loads_and_goes_on_when_a_part_is_away(
    people: Town, bank: Stand, page: Page
) -> None:
    async def away(route: Route) -> None:
        await route.fulfill(status=503, headers={"Retry-After": "1"}, json={"title": "away"})

    await page.route("**/api/analytics/reports?**", away)
    await sign_in(page, bank.url)
    await expect(page.locator("#rate-chart .skeleton")).to_be_visible()
    await expect(page.locator("#lost")).to_contain_text("not there yet")
    await expect(page.locator("[data-part=account]")).to_contain_text("Up")
    await page.unroute("**/api/analytics/reports?**")
    await live(page)
    await expect(page.locator("#rate-chart .skeleton")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_accessible(people: Town, bank: Stand, browser: Browser, scheme: Any) -> None:
    await funded(people, "ada", 1_000)  # so that there is something on the charts
    context = await browser.new_context(
        viewport={"width": 360, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = await context.new_page()
    page.set_default_timeout(SHOWN_MS)
    await page.goto(f"{bank.url}/dashboard")
    await _holds(page)
    await sign_in(page, bank.url)
    await live(page)
    await page.locator("summary").click()
    await _holds(page)
    # no scrolling to the side on a small phone
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    # by keys alone: into the chart, and from minute to minute
    await page.locator("#rate-chart svg").focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#rate-chart .tip")).to_be_visible()
    await expect(page.locator("#said")).to_have_text(re.compile(r"^\d\d:\d\d, \d+ completed, "))
    await page.keyboard.press("Escape")
    await expect(page.locator("#rate-chart .tip")).to_be_hidden()


async def _holds(page: Page) -> None:
    found = await Axe().run(page)
    assert not found.response["violations"], found.generate_report()


async def test_what_numbers_look_like(bank: Stand, page: Page) -> None:
    await page.goto(f"{bank.url}/dashboard")
    said = await page.evaluate(
        """async () => {
        const f = await import("/dashboard/figures.js");
        const exponents = await (await fetch("/dashboard/currencies.json")).json();
        return {
          amounts: [[1050, "USD"], [5, "USD"], [-123456, "EUR"], [7000000, "JPY"], [1, "BHD"],
            [Number.MAX_SAFE_INTEGER, "USD"]].map(([minor, one]) => f.amount(minor, one, exponents)),
          percents: [null, 0, 0.5, 0.99996, 1].map(f.percent),
          durations: [null, 5, 1000, 30000, 600000, Infinity].map(f.duration),
          p95: [f.percentile([0, 0], [5, 10], 95), f.percentile([19, 1, 0], [5, 10], 95),
            f.percentile([18, 2, 0], [5, 10], 95), f.percentile([0, 0, 1], [5, 10], 95)],
          words: f.words("INSUFFICIENT_FUNDS"),
        };
        }"""
    )
    assert said == {
        "amounts": ["10.50", "0.05", "−1,234.56", "7,000,000", "0.001", "90,071,992,547,409.91"],
        "percents": ["–", "0.0 %", "50.0 %", "99.99 %", "100 %"],
        "durations": ["–", "≤ 5 ms", "≤ 1 s", "≤ 30 s", "≤ 10 min", "> 10 min"],
        "p95": [None, 5, 10, float("inf")],
        "words": "Insufficient funds",
    }


async def test_its_files(people: Town) -> None:
    got = await people.stranger.get("/dashboard")
    assert (got.status, got.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = got.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    for name in (*DASHBOARD, "currencies.json"):
        assert (await people.stranger.get(f"/dashboard/{name}")).status == 200
    for name in ("docs.js", "dashboard.html", "..%2fdocuments.py", "nothing"):
        assert (await people.stranger.get(f"/dashboard/{name}")).status == 404


@pytest.mark.parametrize("name", ["dashboard.html", *DASHBOARD])
def test_it_needs_nobody_else(name: str) -> None:
    """Neither the internet, nor markup made of texts, nor a script or a style in the page."""
    text = (Path(STATIC) / name).read_text()
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)", text.replace("'http://www.w3.org", "")
    )
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text)
