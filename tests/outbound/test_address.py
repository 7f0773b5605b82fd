"""Addresses: what a webhook may call, as it is given and as it is connected to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from deploy.local.processes import free_ports
from outbound.address import is_public, public_socket, refusal, resolved

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("fec0::1", False),
        ("3fff::1", False),
        ("192.88.99.1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("127.1", False),
        ("2130706433", False),
        ("localhost", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://[::1]:8443/x",
        "https://[::ffff:10.0.0.1]/",
        "https://user@example.org/",
        "https://user:password@example.org/",
        "https://example.org/#part",
        "https://example.org:99999/",
        "https:///x",
        "https://exa mple.org/",
        "https://exämple.org/",
        "file:///etc/passwd",
        "gopher://example.org",
        "https://[::1",
        "https://" + "x" * 2_000,
        "",
    ],
)
def test_what_is_refused_as_it_is_given(url: str) -> None:
    assert refusal(url, private_allowed=False)


def test_what_development_allows() -> None:
    assert refusal("https://example.org/hook?x=1", private_allowed=False) is None
    assert refusal("http://127.0.0.1:8080/hook", private_allowed=True) is None
    assert refusal("ftp://127.0.0.1/", private_allowed=True)


async def test_a_name_is_looked_up_when_it_is_given() -> None:
    assert await resolved("https://localhost/", private_allowed=False) == "is not public"
    assert await resolved("https://localhost/", private_allowed=True) is None
    unknown = await resolved("https://no-such-host.invalid/", private_allowed=True)
    assert unknown == "names a host that is not known"


class Rebound(AbstractResolver):
    """A name server that was honest when asked first."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found: ResolveResult = {
            "hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 6, "flags": 0,
        }  # fmt: skip
        return [found]

    async def close(self) -> None:
        pass


@pytest.fixture
async def inside() -> AsyncIterator[tuple[list[str], int]]:
    """A server of our own that nobody from outside may reach."""
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield seen, port
    await runner.cleanup()


@pytest.mark.parametrize("host", ["honest.example", "127.0.0.1", "127.1", "2130706433", "0x7f.1"])
async def test_the_address_itself_is_checked_when_it_is_connected_to(
    inside: tuple[list[str], int], host: str
) -> None:
    seen, port = inside
    connector = aiohttp.TCPConnector(resolver=Rebound(), socket_factory=public_socket)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://{host}:{port}/", timeout=aiohttp.ClientTimeout(5))
    assert seen == []
    open_to_all = aiohttp.TCPConnector(resolver=Rebound())
    async with aiohttp.ClientSession(connector=open_to_all) as session:
        await session.post(f"http://honest.example:{port}/let-in")
    assert seen == ["/let-in"]
    await asyncio.sleep(0)
