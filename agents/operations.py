"""The ops server of a worker process: health, readiness, metrics, and reads of the tables it holds.

    GET  /health  /readiness  /metrics
    GET  /tables/{service}/{partition}/{row_key}          one row, or 404
    POST /tables/{service}/{partition}  {"keys": [...]}   {"rows": {key: row | null}}
    GET  /tables/{service}/{partition}?prefix=&after=&limit=    rows in the order of their keys

Table reads need the internal token. 421: this process does not hold that partition (or is not sure
to, its last poll being too old): ask for its owner again. 503: it is restoring it.
"""

from __future__ import annotations

import hmac
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from agents.transact import Shell
from streaming import NotOwned

if TYPE_CHECKING:
    from pathlib import Path


LIMIT = 200  # rows of one answer
LEAST_DISK_BYTES = 64 << 20
POLL_S = 10.0  # a consumer that has not polled for so long is not ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that readiness asks. `holds` answers None when all is well, else what is wrong."""

    name: str
    problem: Callable[[], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """What one process serves."""

    shells: Mapping[str, Shell]
    checks: tuple[Check, ...]
    token: str

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 20)
        app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/readiness", self.readiness),
                web.get("/metrics", self.metrics),
                web.get("/tables/{service}/{partition}", self.listed),
                web.post("/tables/{service}/{partition}", self.rows),
                web.get("/tables/{service}/{partition}/{row_key:.+}", self.row),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/tables/"):
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                raise _problem(web.HTTPUnauthorized, "the internal token is needed")
        try:
            response: web.StreamResponse = await handler(request)
        except NotOwned as exc:
            raise _problem(web.HTTPMisdirectedRequest, str(exc)) from exc
        return response

    async def health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readiness(self, _request: web.Request) -> web.Response:
        problems = {check.name: check.problem() for check in self.checks}
        ready = not any(problems.values())
        checks = {name: problem or "ok" for name, problem in problems.items()}
        body = {"status": "ready" if ready else "not ready", "checks": checks}
        return _json(body, status=200 if ready else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def row(self, request: web.Request) -> web.Response:
        found = self._view(request).get(request.match_info["row_key"])
        if found is None:
            raise _problem(web.HTTPNotFound, "no such row")
        return _json(found)

    async def rows(self, request: web.Request) -> web.Response:
        view = self._view(request)
        try:
            keys = orjson.loads(await request.read())["keys"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
            raise _problem(web.HTTPBadRequest, 'a body {"keys": [...]} is needed') from exc
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise _problem(web.HTTPBadRequest, "keys are texts")
        if len(keys) > LIMIT:
            raise _problem(web.HTTPBadRequest, f"at most {LIMIT} keys")
        return _json({"rows": {key: view.get(key) for key in keys}})

    async def listed(self, request: web.Request) -> web.Response:
        shell, partition, view = self._shell(request), _partition(request), self._view(request)
        prefix, after = request.query.get("prefix", ""), request.query.get("after", "")
        limit = _limit(request)
        try:
            keys = shell.watched.listed(partition, prefix, after, limit)
        except LookupError as exc:
            raise _problem(web.HTTPBadRequest, str(exc)) from exc
        rows = {key: row for key in keys if (row := view.get(key)) is not None}
        return _json({"rows": rows, "next_after": keys[-1] if len(keys) == limit else None})

    def _shell(self, request: web.Request) -> Shell:
        service = request.match_info["service"]
        if service not in self.shells:
            raise _problem(web.HTTPMisdirectedRequest, f"{service} does not run here")
        return self.shells[service]

    def _view(self, request: web.Request) -> Any:
        shell, partition = self._shell(request), _partition(request)
        if shell.restoring(partition):
            raise _problem(web.HTTPServiceUnavailable, "restoring")
        return shell.table.partition(partition)


def disk(path: Path) -> Check:
    """There is room where state is kept."""

    def problem() -> str | None:
        free = shutil.disk_usage(path).free
        return None if free >= LEAST_DISK_BYTES else f"{free >> 20} MiB left at {path}"

    return Check(name="disk", problem=problem)


def polled(name: str, last_poll_s: Callable[[], float], ready: Callable[[], bool]) -> Check:
    """A consumer has its partitions, restored, and reads them; not with the broker away."""

    def problem() -> str | None:
        if not ready():
            return "waiting for its partitions or restoring them"
        age_s = time.monotonic() - last_poll_s()
        return None if age_s < POLL_S else f"last poll {age_s:.0f} s ago"

    return Check(name=name, problem=problem)


def _partition(request: web.Request) -> int:
    text = request.match_info["partition"]
    if not text.isdecimal():
        raise _problem(web.HTTPNotFound, "partitions are numbers")
    return int(text)


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", "50")
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT:
        raise _problem(web.HTTPBadRequest, f"limit is a number from 1 to {LIMIT}")
    return int(text)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers={"Content-Type": "application/json"}
    )


def _problem(kind: type[web.HTTPException], detail: str) -> web.HTTPException:
    """An RFC 9457 answer."""
    exc = kind(content_type="application/problem+json")
    exc.body = orjson.dumps({"title": exc.reason, "status": exc.status, "detail": detail})
    return exc
