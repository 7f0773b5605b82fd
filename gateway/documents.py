"""Documents: OpenAPI, AsyncAPI, the pages, and the schema registry (read-only)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from domain.money import EXPONENTS
from gateway.answer import Answer
from gateway.errors import not_found
from schemas.registry import CONTENT_TYPE, Registry

if TYPE_CHECKING:
    from gateway.call import Call
    from settings import Settings

STATIC = Path(__file__).parent / "static"
SCRIPT, STYLE = "text/javascript", "text/css"
ASSETS = {"docs.js": SCRIPT, "docs.css": STYLE}
DASHBOARD = {
    "dashboard.js": SCRIPT,
    "figures.js": SCRIPT,
    "charts.js": SCRIPT,
    "dashboard.css": STYLE,
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
CACHED = {"Cache-Control": "public, max-age=300"}


async def openapi(_call: Call) -> Answer:
    return Answer(200, _openapi(), dict(CACHED))


async def asyncapi(call: Call) -> Answer:
    return Answer(200, _asyncapi(call.gateway.settings), dict(CACHED))


@cache
def _asyncapi(settings: Settings) -> bytes:
    from gateway.asyncapi import document

    return orjson.dumps(document(settings))


@cache
def _openapi() -> bytes:
    from gateway.openapi import document
    from gateway.routes import ROUTES

    return orjson.dumps(document(ROUTES), option=orjson.OPT_INDENT_2)


async def page(_call: Call) -> Answer:
    return _file("docs.html", "text/html")


async def asset(call: Call) -> Answer:
    name = call.names["asset"]
    if name not in ASSETS:
        raise not_found()
    return _file(name, ASSETS[name])


async def dashboard(_call: Call) -> Answer:
    return _file("dashboard.html", "text/html")


async def dashboard_asset(call: Call) -> Answer:
    """One of its files; `currencies.json`: the decimals of each currency (ISO 4217)."""
    name = call.names["asset"]
    if name == "currencies.json":
        return Answer(200, orjson.dumps(EXPONENTS), dict(CACHED))
    if name not in DASHBOARD:
        raise not_found()
    return _file(name, DASHBOARD[name])


@cache
def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()


def _file(name: str, content_type: str) -> Answer:
    headers = {"Content-Security-Policy": PAGE_POLICY, **CACHED}
    return Answer(200, _read(name), headers, f"{content_type}; charset=utf-8")


@cache
def _registry() -> Registry:
    return Registry()


async def registry(call: Call) -> Answer:
    """As Confluent's registry answers, its errors too; unknown query parameters change nothing."""
    status, body = _registry().answer(call.path)
    return Answer(status, orjson.dumps(body), {}, CONTENT_TYPE)
