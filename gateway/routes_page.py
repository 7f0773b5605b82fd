"""The table of routes as a page: `python -m gateway.routes_page > docs/routes.md`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from domain.user import Role
from gateway.routes import ROUTES, Route

if TYPE_CHECKING:
    from collections.abc import Iterator


def document() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield from (
        "# Routes",
        "",
        "Written by `python -m gateway.routes_page` from `gateway/routes.py`; a test holds them together. What all",
        "routes have in common stands in [the HTTP interface](api.md), their bodies and answers at `/docs`.",
        "",
        "Commands take `Prefer: wait=N` and `Idempotency-Key`; where money moves the key is required.",
    )
    tables = sorted(ROUTES, key=lambda route: route.tag)
    for tag, routes in groupby(tables, key=lambda route: route.tag):
        yield from ("", f"## {tag}", "", "| route | what | who | |", "| --- | --- | --- | --- |")
        for route in routes:
            notes = ", ".join(_notes(route))
            yield f"| `{route.name}` | {route.about} | {_who(route)} | {notes} |"
    yield ""


def _who(route: Route) -> str:
    if route.roles is None:
        return "anyone"
    if route.roles >= frozenset(Role):
        return "any user"
    return ", ".join(sorted(route.roles))


def _notes(route: Route) -> Iterator[str]:
    if route.money:
        yield "command that moves money"
    elif route.command:
        yield "command"
    if route.streams:
        yield "stream"
    if route.query:
        yield "query: " + ", ".join(f"`{name}`" for name in route.query)


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
