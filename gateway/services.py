"""The parts of one gateway process, and how they start and stop."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.analytics import Live
from gateway.auth import Tokens
from gateway.commands import Commands
from gateway.idempotency import Idempotency
from gateway.known import Known
from gateway.lag import Lag
from gateway.log_outs import LogOuts
from gateway.operations import Readiness
from gateway.passwords import Passwords
from gateway.past import Past
from gateway.provider import CardTokens
from gateway.queries import Queries
from gateway.reads import ACCOUNTS, Reads
from gateway.sessions import EVENTS, Sessions
from gateway.shared import Shared
from gateway.throttle import Throttle
from gateway.waiting import Waiting
from gateway.watch import Watch
from reports.make import Maker
from resilience.limiter import Limiter
from schemas.codec import Codec
from stores.configured import configured
from stores.redis import Redis

if TYPE_CHECKING:
    from settings import Settings

OWNERS = 200_000  # accounts whose owner is remembered


class Gateway:
    """What the handlers work with. `log_outs`: shared with the processes beside it."""

    def __init__(self, settings: Settings, log_outs: LogOuts | None = None) -> None:
        self.settings = settings
        self.codec = Codec()
        self.commands = Commands(settings.kafka, settings.prefix, self.codec)
        self.queries = Queries(
            settings.kafka, settings.prefix, settings.partitions, settings.internal_token
        )
        self.redis = Redis(settings.redis_url, settings.prefix) if settings.redis_url else None
        self.stores = [*configured(settings).values()]
        known = Known(self.codec) if self.redis or self.stores else None
        self.waiting = Waiting(settings.kafka, settings.prefix, self.codec, known)
        self.lag = Lag(self.queries, settings.prefix, self.stores)
        self.reads = Reads(self.queries, self.waiting, known, self.lag, self.redis, self.stores)
        log_outs = log_outs or LogOuts()
        self.shared = Shared(self.redis, log_outs)
        self.tokens = Tokens(
            settings.jwt_secret, settings.access_token_s, log_outs, self.shared.log_out
        )
        self.card_tokens = CardTokens(settings.rail_url)
        self.sessions = Sessions(self.queries, log_outs, settings.access_token_s)
        self.waiting.listen("user", EVENTS, self.sessions.heard)
        self.throttle = Throttle(self.shared, settings)
        self.passwords = Passwords(settings.password_rounds)
        self.idempotency = Idempotency()
        self.owners = AccountOwners(self.reads)
        self.past = Past(settings)
        self.live = Live(self.queries)
        self.watch = Watch(self)
        self.reports = Maker(settings)
        self.readiness = Readiness(self)
        self.limiter: Limiter | None = None
        self.route_limiters: dict[str, Limiter] = {}
        if settings.rate_limit or settings.production:
            self.limiter = Limiter(settings.rate_limit_requests, settings.rate_limit_window_s)
            self.route_limiters = {
                route: Limiter(requests, window_s)
                for route, (requests, window_s) in settings.route_limits.items()
            }

    def start(self) -> None:
        self.queries.start()
        self.commands.start()
        self.card_tokens.start()
        self.waiting.start()
        self.lag.start()
        self.shared.start()

    async def close(self) -> None:
        self.waiting.close()
        self.commands.close()
        await self.card_tokens.close()
        await self.shared.close()
        await self.lag.close()
        await self.reads.close()
        await self.queries.close()
        for store in self.stores:
            await store.close()
        if self.redis is not None:
            await self.redis.close()
        self.passwords.close()
        self.past.close()


class AccountOwners:
    """Who owns an account. An account never changes hands, so what was read once stays true."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: OrderedDict[str, str] = OrderedDict()

    async def of(self, account_id: str) -> str | None:
        """The user_id of the owner; None when there is no such account."""
        owner = self._known.get(account_id)
        if owner is not None:
            return owner
        found = await self._reads.find(ACCOUNTS, account_id)
        if found is None:
            return None
        self.learn(account_id, found.row["user_id"])
        return str(found.row["user_id"])

    def known(self, account_id: str) -> str | None:
        """The owner if it was asked for before."""
        return self._known.get(account_id)

    def learn(self, account_id: str, user_id: str) -> None:
        self._known[account_id] = user_id
        if len(self._known) > OWNERS:
            self._known.popitem(last=False)
