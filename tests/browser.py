"""A real browser for the tests of pages: Chromium without windows, out of Debian's packages."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from playwright.async_api import async_playwright

from deploy.local.debian import Programs, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

PROGRAM = "usr/lib/chromium/chromium-headless-shell"
CHROMIUM = Programs(
    name="Chromium",
    directory="browser",
    files={"chromium-headless-shell": PROGRAM},
    size="75 MB",
    without="install Debian's chromium-headless-shell",
)
QUIET = (
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Started; fetched once, where the machine has none."""
    debian = prepare(CHROMIUM)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=debian.path(PROGRAM), args=[*QUIET], env=debian.environment()
        )
        yield browser
        await browser.close()
