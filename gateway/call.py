"""One request as a handler sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from gateway.auth import Caller
from gateway.errors import Problem
from gateway.headers import NOTHING, Prefer, Trace
from gateway.services import Gateway


@dataclass(slots=True)
class Call:
    """Who asks for what, and the parts of the gateway to answer with."""

    gateway: Gateway
    caller: Caller
    trace: Trace
    path: str
    route: str  # method and pattern, as in the table of routes
    names: Mapping[str, str]  # what the pattern's variables stand for
    query: Mapping[str, str]
    body: BaseModel | None = None
    raw_body: Any = (
        None  # the body as it came, for its fingerprint; bytes where a route takes those
    )
    signature: str | None = None  # of the body, by the payment provider
    prefer: Prefer = NOTHING
    idempotency_key: str | None = None
    authorization: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # of a response that streams
    client: str = ""  # as it calls itself: User-Agent
    origin: str = ""  # the client's address, a space, the request's id
    read_source: str | None = None  # where what is answered was read

    async def may_go_on(self) -> bool:
        """Whether a stream may: the token holds, its session lives, the roles are those of its beginning."""
        try:
            caller = self.gateway.tokens.caller(self.authorization)
            caller = await self.gateway.sessions.admit(caller)
        except Problem:
            return False
        return caller.roles == self.caller.roles
