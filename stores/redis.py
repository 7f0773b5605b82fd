"""Redis: copies of users and accounts for reads, and what gateway processes tell each other.

    put(document) --newer or as new as what is there?--> kept, for a while
    invalidate(version) --> a tombstone: whoever read an older one before can't put it back

One pool, one breaker, one kind of outage. A copy is `<version>:<JSON>`, a tombstone `<version>:`.
Nothing is here that can't be lost: who finds nothing asks on, and whoever can't ask goes on alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import redis.exceptions
from prometheus_client import Counter, Gauge
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilience.breaker import Breaker, Rejected
from resilience.guarded import through
from stores.catalog import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from stores.catalog import Document, Kind

ANSWER_S = 0.25  # of all that a call takes, the wait for a connection included
POOL: dict[str, Any] = {
    "max_connections": 20,
    "timeout": ANSWER_S,  # for a free connection; no call has longer
    "protocol": 2,
    "socket_timeout": 1.0,
    "socket_connect_timeout": 0.25,
    "health_check_interval": 15,
    "decode_responses": False,
}
TOMBSTONE_S = 10  # longer than any read takes
DAY_S = 24 * 3600
ACCOUNT_S = 300
MOST = 500  # keys of one script

READS = Counter("streambank_redis_reads_total", "Documents looked for in Redis", ["result"])
FAILURES = Counter("streambank_redis_failures_total", "Calls without an answer", ["error"])
USED = Gauge("streambank_redis_pool_used", "Calls that hold or wait for a connection")

T = TypeVar("T")

# KEYS: where; ARGV: ms to live, then for each key its version and its JSON, empty for a tombstone
SET = """
for at, key in ipairs(KEYS) do
  local version, body = ARGV[2 * at], ARGV[2 * at + 1]
  local held = redis.call('GET', key)
  local there = held and tonumber(string.match(held, '^(%d+):')) or -1
  if tonumber(version) > there or (body ~= '' and tonumber(version) == there) then
    redis.call('SET', key, version .. ':' .. body, 'PX', ARGV[1])
  end
end
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """A kind of document that is copied here: its key, and how long a copy lives."""

    key: str
    live_s: int


COPIED = {
    "users": Copied("user:{}:profile", DAY_S),
    "accounts": Copied("account:{}:balance", ACCOUNT_S),
}


class Redis:
    """The connection of one process. `prefix` goes before each key. All raise Unavailable."""

    name = "redis"

    def __init__(self, url: str, prefix: str = "") -> None:
        # a connection that died with the server is replaced once; a time-out is not waited for again
        again = Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,))
        self._pool = BlockingConnectionPool.from_url(url, retry=again, **POOL)
        self._client = Client(connection_pool=self._pool)
        self._prefix = prefix
        self._scripts: dict[str, Any] = {}
        self.breaker = Breaker("redis")

    async def close(self) -> None:
        await self._client.aclose()
        await self._pool.disconnect()

    async def document(self, kind: Kind, key: str) -> Document | None:
        """The copy of a document; None when there is none."""
        held: Any = await self.call(self._client.get, self._key(kind, key))
        body = held.partition(b":")[2] if held else b""
        READS.labels("hit" if body else "miss").inc()
        found: Document | None = orjson.loads(body) if body else None
        return found

    async def put(self, kind: Kind, key: str, document: Document) -> None:
        """Keep a copy, unless a newer one or the tombstone of a newer one is there."""
        live_ms = COPIED[kind.name].live_s * 1000
        arguments = (live_ms, document["version"], orjson.dumps(document))
        await self.run(SET, (self._key(kind, key),), arguments)

    async def held(self, name: str) -> Any | None:
        """What is kept under a name by `hold`; None when nothing is."""
        held: Any = await self.call(self._client.get, self.key(name))
        body = held.partition(b":")[2] if held else b""
        READS.labels("hit" if body else "miss").inc()
        return orjson.loads(body) if body else None

    async def hold(self, name: str, version: int, value: Any, live_s: int) -> None:
        """Keep JSON under a name, unless a newer one is there."""
        await self.run(SET, (self.key(name),), (live_s * 1000, version, orjson.dumps(value)))

    async def invalidate(self, changed: Sequence[tuple[Kind, str, int]]) -> None:
        """These documents, by kind and key, are at least of these versions now."""
        for start in range(0, len(changed), MOST):
            some = changed[start : start + MOST]
            arguments: list[Any] = [TOMBSTONE_S * 1000]
            for _, _, version in some:
                arguments += (version, b"")
            await self.run(SET, [self._key(kind, key) for kind, key, _ in some], arguments)

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """A script in Lua over keys, which have their prefix already (`key`)."""
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = self._client.register_script(script)
        return await self.call(known, keys=keys, args=arguments)

    async def execute(self, *command: Any) -> Any:
        """One command, as Redis writes it."""
        return await self.call(self._client.execute_command, *command)

    def key(self, name: str) -> str:
        """A key of this installation."""
        return f"{self._prefix}{name}"

    def _key(self, kind: Kind, key: str) -> str:
        return self.key(COPIED[kind.name].key.format(key))

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        """Through the breaker. An error in a script is a bug and raised as it is."""
        with USED.track_inprogress():
            try:
                with through(self.breaker, Unavailable):
                    return await _in_time(function, *args, **named)
            except Rejected as exc:
                raise Unavailable(str(exc)) from exc


async def _in_time(function: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await function(*args, **named)
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as exc:
        FAILURES.labels(type(exc).__name__).inc()
        raise Unavailable(f"Redis does not answer: {exc!r}") from exc
    except (redis.exceptions.ReadOnlyError, redis.exceptions.OutOfMemoryError) as exc:
        FAILURES.labels(type(exc).__name__).inc()
        raise Unavailable(f"Redis can't do it now: {exc}") from exc
