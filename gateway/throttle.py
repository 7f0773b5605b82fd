r"""Guessing passwords is slow: so many wrong ones for an account, so many from an address.

    begin (a token of each bucket) --> wrong: they are gone --> empty: 429
                                   \--> right: they are put back

Both drip back over the window. An e-mail that nobody has counts as any other, so that what is
answered tells nothing. With Redis all gateway processes count together.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gateway.errors import Problem
from resilience.limiter import Limiter

if TYPE_CHECKING:
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

    async def begin(self, account: str, address: str) -> Attempt:
        """An attempt at an account (an e-mail, or a user_id) from an address. 429 if it is one too many."""
        attempt = Attempt(self._shared, self._by_account, self._by_address, named(account), address)
        await attempt.take()
        return attempt

    async def mail(self, address: str) -> None:
        """Somebody asks for a mail, to whomever. 429 if an address asks for too many."""
        verdict = await self._shared.take(self._mails, address, MAIL)
        if not verdict.allowed:
            raise too_many(verdict.retry_s)


class Attempt:
    """One try. It counts as wrong until it is said to be right."""

    def __init__(
        self, shared: Shared, by_account: Limiter, by_address: Limiter, account: str, address: str
    ) -> None:
        self._shared = shared
        self._buckets = ((by_account, account, ACCOUNT), (by_address, address, ADDRESS))

    async def take(self) -> None:
        for limiter, client, route in self._buckets:
            verdict = await self._shared.take(limiter, client, route)
            if not verdict.allowed:
                raise too_many(verdict.retry_s)

    async def was_right(self) -> None:
        for limiter, client, route in self._buckets:
            await self._shared.give_back(limiter, client, route)


def named(account: str) -> str:
    """An account in a key of Redis, where nobody needs to read it."""
    return hashlib.sha256(account.encode()).hexdigest()[:32]


def too_many(retry_s: float) -> Problem:
    detail = "too many wrong passwords: wait"
    return Problem("RATE_LIMITED", detail, headers={"Retry-After": str(int(retry_s) + 1)})
