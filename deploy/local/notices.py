"""The provider's notices: what it decided, told to a URL, signed, until somebody says 2xx.

    Provider-Signature: t=<Unix s>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>

A notice that is not taken comes again, at growing distances, like those of real providers. Some
misbehave, when asked to: they come thrice, in the wrong order, forged, or tell of what nobody asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.local.provider import Decision

FIRST_S = 0.3  # the answer itself is usually faster
RETRIES_S = (0.5, 1, 2, 4, 8, 16)
TIMEOUT_S = 5.0


class Notices:
    """Tells decisions while it is entered; without a URL nobody is told."""

    def __init__(self, url: str, secret: str) -> None:
        self.url, self.secret = url, secret
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Notices:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    def tell(self, decision: Decision, misbehaving: Sequence[str] = ()) -> None:
        """Begin to tell a decision."""
        if not self.url:
            return
        task = asyncio.create_task(self._tell(decision, misbehaving))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, decision: Decision, misbehaving: Sequence[str]) -> None:
        await asyncio.sleep(4 * FIRST_S if "late" in misbehaving else FIRST_S)
        if "forged" in misbehaving:
            await self._send(notice(decision), secret="not the provider's")
        if "unknown" in misbehaving:
            told = notice(decision)
            told["data"]["payment_id"] = str(uuid.uuid4())
            await self._until_taken(told)
        told = notice(decision)
        for _ in range(3 if "thrice" in misbehaving else 1):
            await self._until_taken(told)
        if "reordered" in misbehaving:
            earlier = notice(decision)
            earlier["data"]["status"] = "pending"
            await self._until_taken(earlier)

    async def _until_taken(self, told: dict[str, Any]) -> None:
        for delay_s in RETRIES_S:
            status = await self._send(told, self.secret)
            if 200 <= status < 300:
                return
            await asyncio.sleep(delay_s)

    async def _send(self, told: dict[str, Any], secret: str) -> int:
        """The status that it was answered with; 0 without an answer."""
        assert self._session is not None
        body = json.dumps(told).encode()
        headers = {
            "Content-Type": "application/json",
            "Provider-Signature": signature(secret, body, int(time.time())),
        }
        try:
            async with self._session.post(self.url, data=body, headers=headers) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0


def notice(decision: Decision) -> dict[str, Any]:
    """What is told of a decision."""
    asked = decision.asked
    return {
        "id": f"evt-{uuid.uuid4()}",
        "type": f"{decision.kind.removesuffix('s')}.{decision.status}",
        "data": {
            "payment_id": asked["payment_id"],
            "refund_id": asked.get("refund_id"),
            "status": decision.status,
            "amount": asked["amount"],
            "currency": asked.get("currency"),
            "reference": decision.reference,
            "reason": decision.reason,
            "booked_on": decision.booked_on,
        },
    }


def signature(secret: str, body: bytes, at_s: int) -> str:
    digest = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"
