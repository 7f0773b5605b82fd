"""A consumer of webhooks that fails at first."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from deploy.local.processes import StackError

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"


@dataclass(slots=True)
class Receiver:
    """Answers 500 until it recovers; counts what it took, once each."""

    failed: int = 0
    url: str = ""
    _broken: bool = True
    _taken: set[str] = field(default_factory=set)
    _runner: web.AppRunner | None = None

    @property
    def taken(self) -> int:
        return len(self._taken)

    async def __aenter__(self) -> Receiver:
        app = web.Application()
        app.router.add_post("/hooks", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://{HOST}:{port}/hooks"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def recover(self) -> None:
        self._broken = False

    async def until(self, *, failed: int = 0, taken: int = 0, within_s: float) -> None:
        """Raises StackError when so much did not come in time."""
        until_s = time.monotonic() + within_s
        while self.failed < failed or self.taken < taken:
            if time.monotonic() > until_s:
                raise StackError(
                    f"webhooks: {self.failed} failed and {self.taken} taken after {within_s:.0f} s"
                )
            await asyncio.sleep(0.1)

    async def _take(self, request: web.Request) -> web.Response:
        await request.read()
        if self._broken:
            self.failed += 1
            return web.Response(status=500)
        self._taken.add(request.headers["webhook-id"])
        return web.Response(status=204)
