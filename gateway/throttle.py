r"""Guessing passwords is slow: so many wrong ones for an account, so many from an address.

    a token of each bucket --> wrong: they are gone --> empty: 429
                           \--> right, or nobody could look: they are put back

Both drip back over the window. An e-mail that nobody has counts as any other, so that what is
answered tells nothing. With Redis all gateway processes count together.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.client import one_client
from gateway.errors import Problem
from resilience.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.shared import Shared
    from settings import Settings

ACCOUNT, ADDRESS, MAIL = "guesses/account", "guesses/address", "mails/address"


class Throttle:
    """Of one process; its counts are shared with the others through `shared`."""

    def __init__(self, shared: Shared, settings: Settings) -> None:
        window_s = settings.login_window_s
        self._shared = shared
        self._by_account = Limiter(settings.login_failures_account, window_s)
        self._by_address = Limiter(settings.login_failures_address, window_s)
        self._mails = Limiter(settings.login_failures_account, window_s)

    @asynccontextmanager
    async def attempt(self, account: str, address: str) -> AsyncIterator[None]:
        """An attempt at an account (an e-mail, or a user_id) from an address. 429 if it is one too many.

        In the block it is found out whether the password is right. What ends in 503 was no guess; whoever goes away
        in between has guessed.
        """
        buckets = (
            (self._by_account, named(account), ACCOUNT),
            (self._by_address, one_client(address), ADDRESS),
        )
        taken: list[tuple[Limiter, str, str]] = []
        counts = True
        try:
            for bucket in buckets:
                verdict = await self._shared.take(*bucket)
                if not verdict.allowed:
                    raise too_many(verdict.retry_s)
                taken.append(bucket)
            yield
            counts = False
        except Problem as problem:
            counts = problem.status not in (429, 503)
            raise
        finally:
            if not counts:
                for bucket in taken:
                    await self._shared.give_back(*bucket)

    async def mail(self, address: str) -> None:
        """Somebody asks for a mail, to whomever. 429 if an address asks for too many."""
        verdict = await self._shared.take(self._mails, one_client(address), MAIL)
        if not verdict.allowed:
            raise too_many(verdict.retry_s)


def named(account: str) -> str:
    """An account in a key of Redis, where nobody needs to read it."""
    return hashlib.sha256(account.encode()).hexdigest()[:32]


def too_many(retry_s: float) -> Problem:
    detail = "too many wrong passwords: wait"
    return Problem("RATE_LIMITED", detail, headers={"Retry-After": str(int(retry_s) + 1)})
