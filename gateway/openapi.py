"""The OpenAPI 3.1 document, made from the table of routes and the models of bodies and answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from gateway import answers
from gateway.errors import CODES, MEDIA_TYPE
from gateway.models import Bulk, BulkItem, Empty, Logout, Undoing
from gateway.user_models import EmailToken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from gateway.routes import Route

VERSION = "1"
VARIABLE = re.compile(r"\{(\w+)\}")
ABOUT = """Money moves through commands: a POST answers 202 once the broker has it, or waits for
the outcome with `Prefer: wait=N`. Amounts are integers in minor units of their currency."""

# what an answer carries besides its body, and what every answer does
HEADERS = {
    "traceparent": "W3C trace context: the client's trace id, if it sent one",
    "X-Request-Id": "the client's, if it sent one",
    "Location": "where the outcome can be read",
    "Preference-Applied": "what was done of `Prefer`",
    "Idempotent-Replayed": "`true`: the key was used before, this is its answer",
    "RateLimit-Policy": "the quota and its window in seconds, where requests are limited",
    "RateLimit": "what is left of it, and the seconds until it is whole again",
    "X-Read-Source": "where it was read: redis, mysql, mongodb, tables (of the workers) or log (a past time)",
    "ETag": "the version: with it as If-None-Match the answer is 304 until there is a newer one",
    "Retry-After": "seconds after which to ask again",
}
EVERY = ("traceparent", "X-Request-Id")


def document(routes: Iterable[Route]) -> dict[str, Any]:
    routes = tuple(routes)
    names, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Streambank", "version": VERSION, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
        "x-error-codes": {
            code: {"status": status, "title": title} for code, (status, title) in CODES.items()
        },
    }


def _schemas(routes: Iterable[Route]) -> tuple[dict[type, str], dict[str, Any]]:
    """Every model's schema under its name."""
    bodies = {route.body for route in routes if route.body is not None}
    shown = {model for route in routes for model in route.answers.values() if model is not None}
    models = sorted(bodies | shown | {answers.ProblemDocument}, key=lambda model: model.__name__)
    refs, found = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    names = {model: str(refs[model, "validation"]["$ref"]) for model in models}
    return names, found["$defs"]


def _operation(route: Route, names: dict[type, str]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.about,
        "operationId": _operation_id(route),
        "tags": [route.tag],
        "parameters": _parameters(route),
        "responses": _responses(route, names),
    }
    if route.roles is None:
        operation["security"] = []
    else:
        operation["security"] = [{"bearer": []}]
        operation["x-roles"] = sorted(route.roles)
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body not in (Empty, Logout, Undoing, EmailToken)
            and not route.body_in_query,
            "content": {"application/json": {"schema": {"$ref": names[route.body]}}},
        }
        if route.body is Bulk:
            line = {"schema": BulkItem.model_json_schema()}
            operation["requestBody"]["content"]["application/x-ndjson"] = line
    if route.file:
        binary = {"schema": {"type": "string", "format": "binary"}}
        content = dict.fromkeys(route.file, binary)
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(route: Route) -> str:
    parts = [part.strip("{}") for part in route.path.removeprefix("/api").strip("/").split("/")]
    return re.sub(r"\W", "_", "_".join([route.method.lower(), *parts]))


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found = [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in VARIABLE.findall(route.path)
    ]
    for name, about in route.query.items():
        schema: dict[str, Any] = text
        if name == "limit":
            schema = {"type": "integer", "minimum": 1, "maximum": 200}
        elif name in route.choices:
            schema = {"type": "string", "enum": list(route.choices[name])}
        found.append({"name": name, "in": "query", "description": about, "schema": schema})
    if route.command:
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": route.money,
                "description": "the same key and body: the same command, however often",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        )
        found.append(
            {
                "name": "Prefer",
                "in": "header",
                "description": "`wait=N`: answer with the outcome, or after N seconds (30 at most)",
                "schema": {"type": "string", "examples": ["wait=10"]},
            }
        )
    return found


def _responses(route: Route, names: dict[type, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, model in sorted(route.answers.items()):
        found[str(status)] = {
            "description": "accepted" if status == 202 else "success",
            "headers": _headers(route, status),
        }
        content = {} if model is None else {"application/json": {"schema": _ref(model, names)}}
        for kind in route.files or (("text/event-stream",) if route.streams else ()):
            content[kind] = {"schema": {"type": "string"}}
        if content:
            found[str(status)]["content"] = content
    if route.reads or _is_versioned(route):
        found["304"] = {"description": "the version of If-None-Match is still the newest"}
    for status in _problems(route):
        found[str(status)] = {
            "description": "a problem; `x-error-codes` lists the codes",
            "headers": _headers(route, status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": names[answers.ProblemDocument]}}},
        }
    return found


def _headers(route: Route, status: int) -> dict[str, Any]:
    required, optional = list(EVERY), []
    if route.path.startswith("/api/"):
        optional += ["RateLimit-Policy", "RateLimit"]
    if route.reads and status == 200:
        required.append("X-Read-Source")
    if (route.reads or _is_versioned(route)) and status == 200:
        optional += ["ETag"]
    if route.command and status < 300 and not (route.rehearsed and status == 200):
        required.append("Location")
        optional += ["Preference-Applied", "Idempotent-Replayed"]
    if status in (429, 503) or (status == 409 and route.money):
        required.append("Retry-After")
    return {
        name: {
            "description": HEADERS[name],
            "required": name in required,
            "schema": {"type": "string"},
        }
        for name in (*required, *optional)
    }


def _is_versioned(route: Route) -> bool:
    """Whether what it answers has a version, which is its ETag then."""
    return route.method == "GET" and any(
        "version" in getattr(model, "model_fields", ()) for model in route.answers.values()
    )


def _problems(route: Route) -> list[int]:
    if not route.path.startswith("/api/") or route.path.endswith(".json"):
        return []
    found = [400, 429, 503]
    if route.roles is not None:
        found += [401, 403]
    if route.tag == "auth":
        found += [401]
    if VARIABLE.search(route.path) or route.body_in_query:
        found += [404]
    if route.body is not None:
        found += [400, 408, 413, 415, 422]
    if route.file:
        found += [401, 408, 413, 422]
    if route.command:
        found += [409]
    found += route.refusals
    return sorted(set(found))


def _ref(model: type[BaseModel], names: dict[type, str]) -> dict[str, str]:
    return {"$ref": names[model]}
