"""Somebody at the gateway."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from deploy.local.processes import StackError

TRIES = 30
SUCCESS = {200, 201}


@dataclass(slots=True)
class Client:
    """One person, or the bank's own staff. `accounts` by name of the currency that they are used for."""

    session: aiohttp.ClientSession
    name: str = ""
    email: str = ""
    password: str = ""
    token: str = ""
    user_id: str = ""
    accounts: dict[str, str] = field(default_factory=dict)

    async def call(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of one request; waits for the outcome, repeats on 503 with the same key."""
        sent = {"Prefer": "wait=30"}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if method != "GET":
            sent["Idempotency-Key"] = key or str(uuid.uuid4())
        data: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        for _ in range(TRIES):
            async with self.session.request(method, path, headers=sent, **data) as answer:
                if answer.status != 503:
                    return answer.status, await answer.json(content_type=None)
                await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
        raise StackError(f"{method} {path}: the gateway said 503 for too long")

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        """As `call`, for what must succeed."""
        status, found = await self.call(method, path, body)
        if status not in SUCCESS:
            raise StackError(f"{method} {path} answered {status}: {json.dumps(found)}")
        return found

    async def refused(self, method: str, path: str, body: Any = None) -> Any:
        """As `call`, for what must be refused: the problem."""
        status, found = await self.call(method, path, body)
        if status in SUCCESS:
            raise StackError(f"{method} {path} answered {status}, and should have been refused")
        return found

    async def file(self, path: str) -> bytes:
        """What a GET answers, as it is."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.get(path, headers=headers) as answer:
            data = await answer.read()
            if answer.status != 200:
                raise StackError(f"GET {path} answered {answer.status}: {data[:500]!r}")
            return data

    async def log_in(self) -> None:
        body = {"email": self.email, "password": self.password}
        self.token = (await self.done("POST", "/api/auth/login", body))["access_token"]

    async def register(self, name: str) -> None:
        """A new user with a random password, who is not logged in yet."""
        self.name = name
        self.email = f"{name.lower()}.{uuid.uuid4().hex[:8]}@example.org"
        self.password = uuid.uuid4().hex
        body = {"email": self.email, "password": self.password, "name": name}
        self.user_id = (await self.done("POST", "/api/users", body))["user_id"]


def order(kind: str, amount: int, currency: str, **members: Any) -> dict[str, Any]:
    """A transaction as it is ordered."""
    return {"type": kind, "amount": amount, "currency": currency, **members}


def transfer(source: Client, destination: Client, amount: int, currency: str = "EUR") -> Any:
    return order(
        "transfer",
        amount,
        currency,
        source_account_id=source.accounts[currency],
        destination_account_id=destination.accounts[currency],
    )
