"""What stands before the routes, on the real bank: TLS, origins, rate limits, slow and large bodies."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from deploy.local.processes import free_ports
from gateway import edge
from gateway.app import build_app
from gateway.services import Gateway
from settings import Settings
from tests.forked import PIPELINE, ForkedChild, command
from tests.gateway.stand import Person, Stand, until
from tests.gateway.test_edge import forged

if TYPE_CHECKING:
    from collections.abc import Iterator

APP, OTHER = "https://app.example", "https://other.example"
LIMIT = 4


@dataclass
class Guarded:
    """A gateway with TLS, an origin that may call it, and LIMIT requests an hour."""

    url: str
    certificate: Path
    environment: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def person(self, session: aiohttp.ClientSession, token: str | None = None) -> Person:
        return Person(session, self.url, token)


def certificate(directory: Path, name: str, *more: str) -> None:
    """`<name>.pem` and `<name>.key` of this machine, signed by itself."""
    asked = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1", *more),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
    ]
    done = subprocess.run(asked, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def guarded(bank: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with gateway_of(bank, tmp_path_factory) as found:
        yield found


@pytest.fixture
def by_user(bank: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    settings = {
        "STREAMBANK_RATE_LIMIT_BY": "user",
        "STREAMBANK_RATE_LIMIT_ROUTES": "GET /api/accounts=1/60, POST /api/auth/login=2/60",
    }
    with gateway_of(bank, tmp_path_factory, **settings) as found:
        yield found


@contextmanager
def gateway_of(
    bank: Stand, tmp_path_factory: pytest.TempPathFactory, **settings: str
) -> Iterator[Guarded]:
    """A gateway with everything in front of it, and more settings."""
    directory = tmp_path_factory.mktemp("guarded")
    certificate(directory, "gateway", "-nodes")
    (port,) = free_ports(1)
    environment = {
        **bank.environment,
        "STREAMBANK_GATEWAY_PORT": str(port),
        "STREAMBANK_TLS_CERTIFICATE": str(directory / "gateway.pem"),
        "STREAMBANK_TLS_KEY": str(directory / "gateway.key"),
        "STREAMBANK_CORS_ORIGINS": APP,
        "STREAMBANK_RATE_LIMIT": "true",
        "STREAMBANK_RATE_LIMIT_REQUESTS": str(LIMIT),
        "STREAMBANK_RATE_LIMIT_WINDOW_S": "3600",
        **settings,
    }
    child = ForkedChild("gateway", [PIPELINE, "gateway"], directory, environment=environment)
    child.start()
    found = Guarded(f"https://127.0.0.1:{port}", directory / "gateway.pem", environment)
    try:
        asyncio.run(_until_ready(found, child))
        yield found
    finally:
        child.stop(grace_s=10)


async def _until_ready(guarded: Guarded, child: ForkedChild) -> None:
    async with session_of(guarded) as session:

        async def ready() -> bool:
            assert child.running, child.last_lines()
            try:
                async with session.get(f"{guarded.url}/readiness") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(ready, "the guarded gateway is ready", 60)


def session_of(guarded: Guarded) -> aiohttp.ClientSession:
    trust = ssl.create_default_context(cafile=str(guarded.certificate))
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))


async def test_https_and_that_browsers_are_to_stay_with_it(guarded: Guarded) -> None:
    async with session_of(guarded) as session:
        got = await guarded.person(session).get("/health")
        assert got.status == 200
        assert got.headers["Strict-Transport-Security"].startswith("max-age=31536000")
        assert got.headers["Server"] == "streambank"  # and no versions
        with pytest.raises(aiohttp.ClientError):
            await session.get(guarded.url.replace("https", "http") + "/health")


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("wrong", ["no key", "another's key", "a pass phrase"])
def test_a_certificate_that_cannot_be_served_is_one_sentence(
    guarded: Guarded, tmp_path: Path, wrong: str, processes: str
) -> None:
    certificate(tmp_path, "locked", "-passout", "pass:secret")
    certificate(tmp_path, "other", "-nodes")
    (tmp_path / "no.key").write_text("no key\n")
    files = {"no key": "no.key", "another's key": "other.key", "a pass phrase": "locked.key"}
    environment = {**guarded.environment, "STREAMBANK_TLS_KEY": str(tmp_path / files[wrong])}
    if wrong == "a pass phrase":
        environment["STREAMBANK_TLS_CERTIFICATE"] = str(tmp_path / "locked.pem")
    done = command("gateway", "--processes", processes, environment=environment, timeout_s=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "STREAMBANK_TLS_KEY" in done.stderr


@pytest.mark.parametrize("path", ["/api/transactions", "/api/accounts/x/close", "/api/nowhere"])
async def test_a_preflight(guarded: Guarded, path: str) -> None:
    asked = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,content-type,idempotency-key,prefer",
    }
    async with session_of(guarded) as session:
        browser = guarded.person(session)
        allowed = await browser.ask("OPTIONS", path, Origin=APP, **asked)
        assert (allowed.status, allowed.text) == (204, "")
        assert allowed.headers["Access-Control-Allow-Origin"] == APP
        assert "POST" in allowed.headers["Access-Control-Allow-Methods"].split(", ")
        names = allowed.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "content-type", "idempotency-key", "prefer"} <= set(names)
        for origin in (OTHER, "null", f"{APP}.evil.example", APP.upper()):
            refused = await browser.ask("OPTIONS", path, Origin=origin, **asked)
            assert not [name for name in refused.headers if name.startswith("Access-Control")]
            assert refused.headers["Vary"] == "Origin"


async def test_answers_to_pages(guarded: Guarded) -> None:
    """Problems too: a page could not even read why, else."""
    token = forged(sub="someone", roles=["service"])
    async with session_of(guarded) as session:
        browser = guarded.person(session, token)
        for path in ("/api/accounts?limit=0", "/api/nowhere", "/health"):
            allowed = await browser.get(path, Origin=APP)
            assert allowed.headers["Access-Control-Allow-Origin"] == APP
            assert "Idempotent-Replayed" in allowed.headers["Access-Control-Expose-Headers"]
            other = await browser.get(path, Origin=OTHER)
            assert other.status == allowed.status
            assert "Access-Control-Allow-Origin" not in other.headers
            assert "Access-Control-Allow-Credentials" not in allowed.headers
            for got in (allowed, other, await browser.get(path)):
                assert "Origin" in got.headers.getall("Vary")  # type: ignore[attr-defined]


async def test_a_stream_is_for_pages_too(guarded: Guarded, people: Any) -> None:
    alice = await people.customer("alice")
    admin, account_id = await people.admin(), await alice.open("USD")
    paid = await admin.pay(type="deposit", amount=5, destination_account_id=account_id)
    async with session_of(guarded) as session:
        service = guarded.person(session, forged(sub="s", roles=["service"]))

        async def read() -> bool:  # the first read looks for the workers
            return (await service.get(paid.headers["Location"])).status == 200

        await until(read, "the transaction is read")
        browser = guarded.person(session, alice.token)
        got = await browser.get(f"{paid.headers['Location']}/events", Origin=APP)
        assert (got.status, got.headers["Content-Type"]) == (200, "text/event-stream"), got.text
        assert got.headers["Access-Control-Allow-Origin"] == APP
        assert "Strict-Transport-Security" in got.headers
        assert got.headers["RateLimit"].startswith('"default";r=')


async def test_over_the_limit(guarded: Guarded) -> None:
    """An address has its requests for each route; a service is not counted."""
    async with session_of(guarded) as session:
        customer = guarded.person(session, forged(sub="c", roles=["customer"]))
        left = []
        for _ in range(LIMIT):
            got = await customer.get("/api/transactions?limit=0")
            assert (got.status, got.code) == (400, "BAD_QUERY")
            assert got.headers["RateLimit-Policy"] == f'"default";q={LIMIT};w=3600'
            left.append(got.headers["RateLimit"].split(";")[1])
        assert left == [f"r={n}" for n in reversed(range(LIMIT))]
        over = await customer.get("/api/transactions?limit=0")
        assert (over.status, over.code) == (429, "RATE_LIMITED")
        assert 1 <= int(over.headers["Retry-After"]) <= 3600 // LIMIT + 1
        assert over.headers["RateLimit"].startswith('"default";r=0;t=')
        another = guarded.person(session, forged(sub="d", roles=["customer"]))
        assert (await another.get("/api/transactions?limit=0")).status == 429
        assert (await another.get("/api/accounts?limit=0")).status == 400
        service = guarded.person(session, forged(sub="s", roles=["service"]))
        assert (await service.get("/api/transactions?limit=0")).status == 400
        for _ in range(LIMIT + 1):
            assert (await another.get("/health")).status == 200


async def test_limits_of_users_and_of_routes(by_user: Guarded) -> None:
    """Who is logged in has requests of their own, wherever they come from; others share an address."""
    async with session_of(by_user) as session:
        one = by_user.person(session, forged(sub="one", roles=["customer"]))
        two = by_user.person(session, forged(sub="two", roles=["customer"]))
        for person in (one, two):
            got = await person.get("/api/accounts?limit=0")
            assert (got.status, got.headers["RateLimit-Policy"]) == (400, '"default";q=1;w=60')
            assert (await person.get("/api/accounts?limit=0")).status == 429
            assert (await person.get("/api/transactions?limit=0")).status == 400
        nobody = by_user.person(session)
        told = [await nobody.post("/api/auth/login", {}) for _ in range(3)]
        assert [got.status for got in told] == [422, 422, 429]


async def test_guessing_is_counted(guarded: Guarded) -> None:
    async with session_of(guarded) as session:
        guesser = guarded.person(session, "x.y.z")
        seen = [(await guesser.get("/api/risk/reviews")).status for _ in range(LIMIT + 1)]
        assert seen == [401] * LIMIT + [429]
        words = {"refresh_token": "x.y.z"}
        answers = [await guesser.post("/api/auth/refresh", words) for _ in range(LIMIT + 1)]
        assert [got.status for got in answers] == [401] * LIMIT + [429]


async def test_a_large_body_in_chunks_is_413(people: Any) -> None:
    """Nobody says how long it is: it is counted as it comes."""
    admin = await people.admin()

    async def chunks() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    headers = {"Authorization": f"Bearer {admin.token}", "Idempotency-Key": "k"}
    async with admin.session.post(
        f"{admin.url}/api/transactions", data=chunks(), headers=headers
    ) as response:
        assert response.status == 413
        assert (await response.json(content_type=None))["code"] == "BODY_TOO_LARGE"
    assert (await admin.get("/api/accounts")).status == 200


async def test_a_body_that_never_comes_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "BODY_S", 0.2)
    (port,) = free_ports(1)
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}", password_rounds=4)
    app = build_app(settings, Gateway(settings))
    async with TestClient(TestServer(app)) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(
            b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        answer = await reader.read()  # to its end: the connection is closed
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"BODY_TOO_SLOW"' in answer
