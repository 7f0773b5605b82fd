"""A whole bank to ask over HTTP: workers, rail and gateway as processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from deploy.local.processes import Child, free_ports
from gateway.answers import ProblemDocument
from gateway.openapi import document
from gateway.routes import ROUTES
from tests.forked import PIPELINE, ForkedChild, command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from deploy.local.kafka import Kafka

ROOT = Path(__file__).resolve().parents[2]
READY_S = 120.0  # on a machine that has much else to do
SECRET = "a-secret-of-tests-that-is-long-enough"
PASSWORD = "correct horse battery"
ADMIN = "admin@bank.example"
OUTSIDE = ("postbox", "rail")  # whom the bank talks to
SERVICES = (
    "user",
    "account",
    "transaction",
    "payment",
    "notification",
    "audit",
    "analytics",
    "risk",
    "currency",
    "perform",
    "relay",
    "observe",
)


@dataclass(frozen=True)
class Stand:
    """Where the bank listens, its processes, and how to start more of them."""

    url: str
    children: Mapping[str, Child]
    environment: Mapping[str, str]
    prefix: str
    bootstrap: str
    ready: Mapping[str, str]  # where each process says that it can work

    def revive(self) -> list[str]:
        """Start what ended, as a supervisor does, and say what that was."""
        ended = [name for name, child in self.children.items() if not child.running]
        for name in ended:
            self.children[name].start()
        for name in ended:
            _until(self.ready[name], self.children[name])
        return ended

    async def post(self, session: aiohttp.ClientSession) -> list[dict[str, Any]]:
        """The mails, SMS and push messages that have arrived."""
        url = self.environment["STREAMBANK_SMS_URL"].replace("/sms", "/messages")
        async with session.get(url) as response:
            found: list[dict[str, Any]] = await response.json()
        return found


@contextmanager
def stand(kafka: Kafka, directory: Path, prefix: str, **more: str) -> Iterator[Stand]:
    """Topics applied, an admin registered, all ready. `more`: settings of its own.

    With stores their projections run beside the worker.
    """
    gateway_port, ops_port, rail_port, projections_port, rates_port, *others = free_ports(7)
    mail_port, messages_port = others
    environment = {
        **os.environ,
        "STREAMBANK_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "STREAMBANK_KAFKA_PUBLIC": kafka.bootstrap,
        "STREAMBANK_PREFIX": prefix,
        "STREAMBANK_GATEWAY_PORT": str(gateway_port),
        "STREAMBANK_PUBLIC_URL": f"http://127.0.0.1:{gateway_port}",
        "STREAMBANK_OPS_PORT": str(ops_port),
        "STREAMBANK_RATES_URL": f"http://127.0.0.1:{rates_port}/rates.xml",  # nobody is there
        "STREAMBANK_RAIL_URL": f"http://127.0.0.1:{rail_port}",
        "STREAMBANK_SMTP_PORT": str(mail_port),
        "STREAMBANK_SMS_URL": f"http://127.0.0.1:{messages_port}/sms",
        "STREAMBANK_PUSH_URL": f"http://127.0.0.1:{messages_port}/push",
        "STREAMBANK_WEBHOOK_PRIVATE": "true",
        "STREAMBANK_JWT_SECRET": SECRET,
        "STREAMBANK_PROVIDER_SECRET": SECRET,
        "STREAMBANK_ADMIN_PASSWORD": PASSWORD,
        "STREAMBANK_PASSWORD_ROUNDS": "4",  # each test brings people
        "STREAMBANK_STATE_DIR": str(directory / "state"),
        "STREAMBANK_REPORTS_DIR": str(directory / "reports"),
        **more,
    }
    (directory / "state").mkdir(exist_ok=True)
    _once(environment, "topics", "apply")
    rail = ["deploy.local.provider", "--port", str(rail_port)]
    notices = f"http://127.0.0.1:{gateway_port}/api/payments/webhooks/sandbox"
    postbox = ["deploy.local.postbox", "--mail-port", str(mail_port)]
    commands = {
        "postbox": ([*postbox, "--port", str(messages_port)], messages_port),
        "rail": ([*rail, "--file", str(directory / "rail.jsonl"), "--notify", notices], rail_port),
        "worker": ([PIPELINE, "worker", "all"], ops_port),
        "gateway": ([PIPELINE, "gateway"], gateway_port),
    }
    stores = [name for name in ("mysql", "mongodb") if f"STREAMBANK_{name.upper()}_URL" in more]
    if stores:
        _once(environment, "stores", "migrate")
        commands["worker"] = ([PIPELINE, "worker", *SERVICES], ops_port)
        projections = [f"project-{name}" for name in stores]
        port = ["--ops-port", str(projections_port)]
        commands["projections"] = ([PIPELINE, "worker", *projections, *port], projections_port)
    children: dict[str, Child] = {}
    try:
        for name, (words, _) in commands.items():
            children[name] = ForkedChild(name, words, directory, environment=environment)
            children[name].start()
        ready = {
            name: f"http://127.0.0.1:{port}/{'health' if name in OUTSIDE else 'readiness'}"
            for name, (_, port) in commands.items()
        }
        for name, child in children.items():
            _until(ready[name], child)
        _once(environment, "create-admin", "--email", ADMIN)
        url = f"http://127.0.0.1:{gateway_port}"
        yield Stand(url, children, environment, prefix, kafka.bootstrap, ready)
    finally:
        for child in reversed(children.values()):
            child.stop(grace_s=10)


def _once(environment: Mapping[str, str], *arguments: str) -> None:
    done = command(*arguments, environment=environment)
    assert done.returncode == 0, done.stderr


def _until(url: str, child: Child) -> None:
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            pass
        assert child.running, f"{child.name} ended: {child.log.read_text()[-2000:]}"
        assert time.monotonic() < deadline_s, f"{child.name} is not ready: {url}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Got:
    """An answer that was read."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.text)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.text
        return str(self.json["code"])


DOCUMENT = document(ROUTES)
PATTERNS = [
    (route, re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route.path)))) for route in ROUTES
]


def as_documented(method: str, path: str, got: Got) -> None:
    """What a route answers, its OpenAPI description says: status, headers, members."""
    plain, _, query = path.partition("?")
    for route, pattern in PATTERNS:
        if route.method == method and plain.startswith("/api/") and pattern.fullmatch(plain):
            break
    else:
        return
    assert got.headers["traceparent"]
    assert got.headers["X-Request-Id"]
    if got.status == 304:
        return
    described = DOCUMENT["paths"][route.path][method.lower()]["responses"]
    assert str(got.status) in described, f"{route.name} does not say {got.status}: {got.text}"
    headers = described[str(got.status)]["headers"]
    missing = [n for n, one in headers.items() if one["required"] and n not in got.headers]
    assert not missing, f"{route.name} {got.status} has no {missing}"
    model = route.answers.get(got.status)
    if got.status >= 400:
        assert got.headers["Content-Type"] == "application/problem+json", got.text
        model = ProblemDocument
    elif "content" in described[str(got.status)]:
        kinds = {kind.partition(";")[0] for kind in described[str(got.status)]["content"]}
        given = got.headers["Content-Type"].partition(";")[0]
        assert given in kinds, f"{route.name} does not say {given}"
    if model is not None and "fields=" not in query and "json" in got.headers["Content-Type"]:
        model.model_validate_json(got.text)


class Person:
    """Someone who talks to the bank, with a token or without."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None = None) -> None:
        self.session, self.url, self.token = session, url, token
        self.user_id = ""

    async def ask(
        self, method: str, path: str, body: Any = None, *, data: bytes | None = None, **headers: str
    ) -> Got:
        """`headers`: names with _ for -."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            given.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            data = orjson.dumps(body)
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, f"{self.url}{path}", data=data, headers=given, allow_redirects=False
        ) as response:
            text = (await response.read()).decode(errors="surrogateescape")  # a file's bytes too
            got = Got(response.status, response.headers.copy(), text)
        as_documented(method, path, got)
        return got

    async def get(self, path: str, **headers: str) -> Got:
        return await self.ask("GET", path, **headers)

    async def put(self, path: str, body: Any, *, wait: int | None = 20, **headers: str) -> Got:
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        return await self.ask("PUT", path, body, **headers)

    async def post(
        self, path: str, body: Any = None, *, wait: int | None = 20, **headers: str
    ) -> Got:
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        return await self.ask("POST", path, body, **headers)

    async def pay(self, *, key: str | None = None, wait: int | None = 20, **body: Any) -> Got:
        """Order a transaction, in USD unless told otherwise; a key of its own unless given."""
        given = {"type": "transfer", "currency": "USD", **body}
        headers = {"Idempotency_Key": key or str(uuid.uuid4())}
        return await self.post("/api/transactions", given, wait=wait, **headers)

    async def open(self, *currencies: str, **body: Any) -> str:
        """The id of a new account."""
        got = await self.post("/api/accounts", {"currencies": currencies or ["USD"], **body})
        assert got.status == 201, got.text
        return str(got.json["account_id"])

    async def balance(self, account_id: str, currency: str = "USD") -> int:
        got = await self.get(f"/api/accounts/{account_id}")
        assert got.status == 200, got.text
        found = {one["currency"]: one["amount"] for one in got.json["balances"]}
        return int(found[currency])


_ADMINS: dict[str, tuple[str | None, str]] = {}


class Town:
    """People of one test."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url
        self.stranger = Person(session, url)

    async def login(self, email: str, password: str = PASSWORD) -> Person:
        got = await self.stranger.post(
            "/api/auth/login", {"email": email, "password": password}, wait=None
        )
        assert got.status == 200, got.text
        person = Person(self.session, self.url, got.json["access_token"])
        person.user_id = got.json["user_id"]
        return person

    async def admin(self) -> Person:
        """Logged in once a run: bcrypt takes its time."""
        known = _ADMINS.get(self.url)
        if known is None:
            person = await self.login(ADMIN)
            known = _ADMINS[self.url] = (person.token, person.user_id)
        admin = Person(self.session, self.url, known[0])
        admin.user_id = known[1]
        return admin

    async def customer(self, name: str) -> Person:
        email = f"{name}-{uuid.uuid4().hex[:8]}@people.example"
        body = {"email": email, "password": PASSWORD, "name": name}
        got = await self.stranger.post("/api/users", body)
        assert got.status == 201, got.text
        return await self.login(email)

    async def staff(self, *roles: str) -> Person:
        """A new user with these roles."""
        email = f"{roles[0]}-{uuid.uuid4().hex[:8]}@bank.example"
        body = {"email": email, "password": PASSWORD, "name": roles[0]}
        got = await self.stranger.post("/api/users", body)
        assert got.status == 201, got.text
        admin = await self.admin()
        path = f"/api/users/{got.json['user_id']}/roles"
        set_roles = await admin.post(path, {"roles": list(roles)})
        assert set_roles.status == 200, set_roles.text
        return await self.login(email)


@asynccontextmanager
async def town(url: str) -> AsyncIterator[Town]:
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=60), connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        yield Town(session, url)


async def until(fact: Any, what: object, timeout_s: float = 20.0) -> Any:
    """What the coroutine function `fact` answers once it is true."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := await fact()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s: {what}"
        await asyncio.sleep(0.05)
    return answer
