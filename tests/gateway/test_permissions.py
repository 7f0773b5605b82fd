"""The one table of permissions, walked: every route with every role, through the real edge."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from deploy.local.processes import free_ports
from domain.person import Role
from gateway.answer import Answer
from gateway.edge import endpoint, outermost
from gateway.permissions import PERMISSIONS, Permission, granted
from gateway.routes import ROUTES
from gateway.services import Gateway
from settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.call import Call


async def _let_in(_call: Call, *_: Any) -> Answer:
    return Answer(204)


@pytest.fixture
async def edge() -> AsyncIterator[TestClient[Any, Any]]:
    """All routes behind the edge as it is; their handlers only say that they were reached."""
    (port,) = free_ports(1)
    gateway = Gateway(Settings(kafka_bootstrap=f"127.0.0.1:{port}", password_rounds=4))
    app = web.Application(middlewares=[outermost(gateway)])
    for route in ROUTES:
        bare = replace(route, handler=_let_in, body=None, streams=False)
        app.router.add_route(route.method, route.path, endpoint(gateway, bare))
    async with TestClient(TestServer(app)) as client:
        yield client


def token(role: Role) -> str:
    claims = {
        "iss": "streambank",
        "sub": "someone",
        "typ": "access",
        "roles": [role],
        "jti": uuid.uuid4().hex,
        "exp": int(time.time()) + 600,
    }
    return jwt.encode(claims, Settings().jwt_secret, algorithm="HS256")


async def test_every_route_with_every_role(edge: TestClient[Any, Any]) -> None:
    wrong = []
    for role in Role:
        headers = {"Authorization": f"Bearer {token(role)}"}
        for route in ROUTES:
            path = re.sub(r"\{\w+\}", "x", route.path)
            async with edge.request(route.method, path, headers=headers) as got:
                expected = 204 if route.roles is None or role in route.roles else 403
                if got.status != expected:
                    wrong.append(f"{route.name} as {role}: {got.status}, not {expected}")
    assert not wrong


async def test_every_route_without_a_token(edge: TestClient[Any, Any]) -> None:
    for route in ROUTES:
        async with edge.request(route.method, re.sub(r"\{\w+\}", "x", route.path)) as got:
            assert got.status == (204 if route.roles is None else 401), route.name


def test_every_route_asks_for_a_row_of_the_table() -> None:
    rows = set(PERMISSIONS.values())
    assert not [
        route.name for route in ROUTES if route.roles is not None and route.roles not in rows
    ]
    assert set(PERMISSIONS) == set(Permission)


def test_an_admin_may_all_and_a_customer_what_is_theirs() -> None:
    assert granted(frozenset({Role.ADMIN})) == list(Permission)
    assert granted(frozenset({Role.CUSTOMER})) == [Permission.OWN]
    assert granted(frozenset()) == []
