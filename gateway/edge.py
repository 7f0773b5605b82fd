"""The edge: from HTTP to a handler's Call and back, the same for every route.

    trace --> token --> rate limit --> role --> key --> body --> handler --> answer | problem

All that goes wrong becomes a problem document here; a bug is logged whole and answered with 500 and
the trace id, nothing else.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, TransferEncodingError
from prometheus_client import Counter, Histogram

import logs
from domain.money import is_currency
from domain.user import Role
from gateway import auth
from gateway.answer import Answer, problem_answer
from gateway.call import Call
from gateway.client import one_client
from gateway.errors import Problem
from gateway.headers import NOTHING, Trace, prefer_of, trace_of
from gateway.idempotency import key_of
from gateway.models import Bulk, Empty, Logout, Undoing, parsed, parsed_lines, validated
from gateway.user_models import EmailToken, EndedSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pydantic import BaseModel

    from gateway.auth import Caller
    from gateway.routes import Route
    from gateway.services import Gateway
    from settings import Settings

log = logging.getLogger(__name__)

GZIP_FROM_BYTES = 1024
BODY_S = 30.0  # for a client to send its body
ASIDE_BYTES = 256 << 10  # a body beyond it is parsed, and compressed, in a thread
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
PRINTABLE = re.compile(r"^[\x21-\x7e]{1,128}$")
TRACE = web.RequestKey("trace", Trace)
LIMITS = web.RequestKey("limits", dict[str, str])
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HSTS = "max-age=31536000; includeSubDomains"
EXPOSED = (
    "ETag, Idempotent-Replayed, Location, Preference-Applied, RateLimit, RateLimit-Policy, "
    "Retry-After, X-Read-Source, X-Request-Id, traceparent"
)

REQUESTS = Counter("streambank_http_requests_total", "Requests", ["method", "route", "status"])
LATENCY_S = Histogram(
    "streambank_http_request_seconds",
    "Latency",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30),
)
ERRORS = Counter("streambank_http_errors_total", "Problems answered", ["code"])
LIMITED = Counter("streambank_http_limited_total", "Requests over the rate limit", ["route"])


def endpoint(gateway: Gateway, route: Route) -> Callable[[web.Request], Awaitable[Any]]:
    """The aiohttp handler of a route."""
    latency = LATENCY_S.labels(route.method, route.path)
    counts: dict[int, Any] = {}

    async def handle(request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        trace = request[TRACE]
        try:
            call = await _call(gateway, route, request, trace)
            if route.streams:
                call.headers = _headers(request, trace)
                response: web.StreamResponse = await route.handler(call, request)
            else:
                given = await route.handler(call)
                if call.read_source is not None and not route.command:
                    given.headers["X-Read-Source"] = call.read_source
                if len(given.body) > ASIDE_BYTES:  # to compress it takes its time
                    response = await asyncio.to_thread(respond, given, request, trace)
                else:
                    response = respond(given, request, trace)
        except Problem as problem:
            ERRORS.labels(problem.code).inc()
            response = respond(
                problem_answer(problem, _instance(request), trace.trace_id), request, trace
            )
        seconds = time.perf_counter() - started
        latency.observe(seconds)
        count = counts.get(response.status)
        if count is None:
            labels = (route.method, route.path, str(response.status))
            count = counts[response.status] = REQUESTS.labels(*labels)
        count.inc()
        if log.isEnabledFor(logging.INFO):
            _log(route, response.status, seconds)
        return response

    return handle


def _log(route: Route, status: int, seconds: float) -> None:
    level = logging.WARNING if status >= 500 else logging.INFO
    extra = {"route": route.name, "status": status, "ms": round(seconds * 1000, 1)}
    log.log(level, "%s %d", route.name, status, extra=extra)


async def _call(gateway: Gateway, route: Route, request: web.Request, trace: Trace) -> Call:
    headers = request.headers
    caller = await _caller(gateway, route, request)
    if request.query_string:
        _check_query(route, request.query)
    logs.context.set(
        logs.Context(service="gateway", trace_id=trace.trace_id, user_id=caller.user_id or None)
    )
    call = Call(
        gateway=gateway,
        caller=caller,
        trace=trace,
        path=request.path,
        route=route.name,
        names=request.match_info,
        query=request.query,
        prefer=prefer_of(headers.get("Prefer")) if route.command else NOTHING,
        authorization=headers.get("Authorization"),
        client=_printable(headers.get("User-Agent", "")),
        origin=f"{request.remote or '-'} {request_id(request)}",
    )
    if route.body is not None:
        call.idempotency_key = key_of(headers.get("Idempotency-Key"))
        if route.money and call.idempotency_key is None:
            raise Problem("IDEMPOTENCY_KEY_MISSING")
        call.raw_body = await _raw_body(route, request)
        call.body = validated(route.body, call.raw_body)
    elif route.file:
        call.idempotency_key = key_of(headers.get("Idempotency-Key"))
        call.signature = headers.get("Provider-Signature")
        call.raw_body = await _bytes(route, request)
    return call


def _printable(text: str) -> str:
    """A header's text as it may be kept: bytes that are no UTF-8, and control characters, are replaced."""
    known = text.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else "?" for c in known)


def _check_query(route: Route, query: Mapping[str, str]) -> None:
    """400 for a parameter that the route does not know: what is asked for is not to be let go unsaid.

    Those who fetch schemas and documents send what they like.
    """
    if route.tag in ("schemas", "operations"):
        return
    for name, text in query.items():
        if name not in route.query:
            shown = name[:60].encode("ascii", "backslashreplace").decode()
            raise Problem("BAD_QUERY", f"this route knows no parameter {shown!r}")
        choice = route.choices.get(name)
        if choice is not None and text not in choice:
            raise Problem("BAD_QUERY", f"{name} is one of {', '.join(choice)}")
        if name == "currency" and not is_currency(text):
            raise Problem("BAD_QUERY", "currency is an ISO 4217 code in upper case")


async def _caller(gateway: Gateway, route: Route, request: web.Request) -> Caller:
    """Who calls. 401, 403, or 429: those whose token is no good count against their address too."""
    caller, refusal = auth.NOBODY, None
    if route.roles is not None:
        try:
            caller = gateway.tokens.caller(request.headers.get("Authorization"))
            caller = await gateway.sessions.admit(caller)
        except Problem as problem:
            refusal = problem
    limited = gateway.limiter is not None and route.path.startswith("/api/")
    if limited and Role.SERVICE not in caller.roles:
        await _limit(gateway, route, request, caller)
    if refusal is not None:
        raise refusal
    if route.roles is not None and not caller.may(route.roles):
        raise Problem("FORBIDDEN")
    return caller


async def _limit(gateway: Gateway, route: Route, request: web.Request, caller: Caller) -> None:
    limiter = gateway.route_limiters.get(route.name, gateway.limiter)
    assert limiter is not None
    by_user = gateway.settings.rate_limit_by == "user" and caller.user_id
    client = f"user={caller.user_id}" if by_user else one_client(request.remote)
    verdict = await gateway.shared.take(limiter, client, route.name)
    request[LIMITS] = {
        "RateLimit-Policy": f'"default";q={limiter.limit};w={limiter.window_s:.0f}',
        "RateLimit": f'"default";r={verdict.remaining};t={verdict.full_s:.0f}',
    }
    if not verdict.allowed:
        LIMITED.labels(route.path).inc()
        raise Problem("RATE_LIMITED", headers={"Retry-After": str(int(verdict.retry_s) + 1)})


async def _bytes(route: Route, request: web.Request) -> bytes:
    length, limit = request.content_length, route.body_bytes
    if length is not None and length > limit:
        raise _too_large(limit)
    try:
        if request.content.is_eof():  # it came with its head, as most do
            data = await request.read()
        else:
            async with asyncio.timeout(BODY_S):
                data = await _read(request, limit)
    except TimeoutError as exc:
        detail = f"it has {BODY_S:.0f} s"
        raise Problem("BODY_TOO_SLOW", detail, headers={"Connection": "close"}) from exc
    except web.HTTPRequestEntityTooLarge as exc:
        raise _too_large(limit) from exc
    except (web.RequestPayloadError, ContentEncodingError, TransferEncodingError) as exc:
        detail = "the body does not arrive as its headers say"
        raise Problem("BAD_REQUEST", detail, headers={"Connection": "close"}) from exc
    return data


async def _raw_body(route: Route, request: web.Request) -> Any:
    data = await _bytes(route, request)
    if route.body is not None and route.body_in_query and (not data or request.query):
        if data.strip() not in (b"", b"{}"):  # one of them would be let go unsaid
            raise Problem(
                "BAD_QUERY", "what is meant stands in the query or in the body, not in both"
            )
        return _in_query(route.body, request.query)
    if not data and route.body in (Empty, Logout, Undoing, EmailToken, EndedSession):
        return {}
    parse = _parser(route, request, data)
    if len(data) > ASIDE_BYTES:  # other requests are not to wait for it
        return await asyncio.to_thread(parse, data)
    return parse(data)


def _parser(route: Route, request: web.Request, data: bytes) -> Callable[[bytes], Any]:
    """What reads a body of the type that it is declared to be; 415 for any other."""
    declared = request.content_type if "Content-Type" in request.headers else None
    if declared in NDJSON and route.body is Bulk:
        return parsed_lines
    if declared is None or _is_json(declared):
        return parsed
    # curl and urllib declare a form when nobody told them what it is
    if declared == "application/x-www-form-urlencoded" and data[:1] in (b"{", b"["):
        return parsed
    raise Problem("UNSUPPORTED_MEDIA_TYPE", f"it is {declared[:100]}")


async def _read(request: web.Request, limit: int) -> bytes:
    """The body, of which at most `limit` bytes are taken."""
    data = bytearray()
    async for chunk in request.content.iter_any():
        data += chunk
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


def _too_large(limit: int) -> Problem:
    return Problem("BODY_TOO_LARGE", f"at most {limit} bytes")


def _in_query(model: type[BaseModel], query: Mapping[str, str]) -> dict[str, Any]:
    """The query as a body: where the model wants a truth value, its words."""
    words = {"true": True, "false": False}
    flags = {name for name, field in model.model_fields.items() if field.annotation is bool}
    return {name: words.get(text, text) if name in flags else text for name, text in query.items()}


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def respond(given: Answer, request: web.Request, trace: Trace) -> web.Response:
    """An answer as HTTP: traced, compressed where it pays, 304 where the client has it."""
    headers = {**_headers(request, trace), **given.headers}
    etag = given.headers.get("ETag")
    if etag and request.method == "GET":
        headers["Cache-Control"] = "no-cache"
        if _has(request.headers.get("If-None-Match", ""), etag):
            return web.Response(status=304, headers=headers)
    body = given.body
    if given.status != 204:
        headers["Content-Type"] = given.content_type
    if len(body) >= GZIP_FROM_BYTES:
        headers["Vary"] = "Accept-Encoding"
        if _takes_gzip(request.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, 5)
            headers["Content-Encoding"] = "gzip"
    return web.Response(status=given.status, body=body or None, headers=headers)


def _has(if_none_match: str, etag: str) -> bool:
    """RFC 9110, 13.1.2, compared weakly."""
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return given == ["*"] or etag.removeprefix("W/") in given


def _takes_gzip(accept_encoding: str) -> bool:
    """RFC 9110, 12.5.3: named, or all are, and not with a weight of 0."""
    weights = {}
    for one in accept_encoding.lower().split(","):
        name, _, parameter = one.partition(";")
        weights[name.strip()] = parameter.replace(" ", "")
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "q=0")))
    return not re.fullmatch(r"q=0(\.0*)?", weight)


def _headers(request: web.Request, trace: Trace) -> dict[str, str]:
    """What every answer carries."""
    own = {"traceparent": trace.traceparent, "X-Request-Id": request_id(request)}
    return {**SECURITY, **own}


def request_id(request: web.Request) -> str:
    """The client's X-Request-Id, if it can be given back; else one of ours."""
    given = request.headers.get("X-Request-Id")
    if given is not None and PRINTABLE.match(given):
        return given
    return request[TRACE].span_id


def outermost(gateway: Gateway) -> Any:
    """What stands around all routes, and answers for those that do not exist."""
    origins = frozenset(gateway.settings.cors_origins)

    @web.middleware
    async def edge(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        trace = request[TRACE] = trace_of(request.headers.get("traceparent"))
        try:
            if request.method == "OPTIONS" and request.headers.get("Origin") in origins:
                response: web.StreamResponse = respond(Answer(204), request, trace)
                response.headers.update(_preflight())
            else:
                response = await handler(request)
        except web.HTTPException as exc:
            response = respond(_http_problem(exc, request, trace), request, trace)
        except Exception as exc:
            ERRORS.labels("INTERNAL").inc()
            log.exception("a request failed")
            problem = problem_answer(Problem("INTERNAL"), _instance(request), trace.trace_id)
            raise _as_exception(respond(problem, request, trace)) from exc
        return response

    return edge


def finish(settings: Settings) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """What is added to every answer as it goes out, those that stream too."""
    origins = frozenset(settings.cors_origins)
    tls = bool(settings.tls_certificate)

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["Server"] = "streambank"
        headers.update(request.get(LIMITS, {}))
        if origins:
            headers.add("Vary", "Origin")
            if (origin := request.headers.get("Origin")) in origins:
                headers["Access-Control-Allow-Origin"] = origin
                headers["Access-Control-Expose-Headers"] = EXPOSED
        if tls:
            headers["Strict-Transport-Security"] = HSTS

    return add


def _as_exception(response: web.Response) -> web.HTTPException:
    exc = web.HTTPInternalServerError(headers=response.headers)
    exc.body = response.body
    return exc


def _preflight() -> dict[str, str]:
    return {
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": (
            "Authorization, Content-Type, Idempotency-Key, Prefer, X-Request-Id, traceparent, "
            "If-None-Match"
        ),
        "Access-Control-Max-Age": "600",
    }


def _http_problem(exc: web.HTTPException, request: web.Request, trace: Trace) -> Answer:
    """What aiohttp itself says no to, in our words."""
    codes = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}
    code = codes.get(exc.status, "BAD_REQUEST")
    headers = {}
    if isinstance(exc, web.HTTPMethodNotAllowed):
        headers["Allow"] = ", ".join(sorted({*exc.allowed_methods, "OPTIONS"}))
        if request.method == "OPTIONS":
            return Answer(204, headers=headers)
    REQUESTS.labels(request.method if code != "BAD_REQUEST" else "-", "-", str(exc.status)).inc()
    ERRORS.labels(code).inc()
    return problem_answer(Problem(code, headers=headers), _instance(request), trace.trace_id)


def _instance(request: web.Request) -> str:
    """A problem names what was asked for as a URI reference, percent-encoded."""
    return request.rel_url.raw_path
