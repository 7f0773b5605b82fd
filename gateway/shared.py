"""What gateway processes tell each other through Redis, and go on without while it is away.

    Idempotency-Keys   idempotency:{scope}          fingerprint, then the first answer: 24 h
    rate limits        rate_limit:{ip}:{endpoint}   a token bucket by the server's clock
    log-outs           session:{id}, log_outs       until the token expires; read each second
    breakers           circuit_breaker:{service}:state

Each has its double in this process' memory, which decides alone meanwhile. Money depends on none of
it: a repeat is the same command all the way, and the service that owns the aggregate decides.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import orjson

from gateway.answer import Answer
from gateway.errors import Problem
from gateway.idempotency import KEPT_S
from resilience.guarded import states
from stores.catalog import Unavailable

if TYPE_CHECKING:
    import uuid
    from collections.abc import Coroutine

    from gateway.log_outs import LogOuts
    from resilience.limiter import Limiter, Verdict
    from stores.redis import Redis

CLOSE_S = 2.0
AWAY_S = 1.0  # for which a Redis that did not answer is not asked
LOOK_S = 1.0
STATE_S = 60  # for which a breaker's state stands
ANSWER_BYTES = 256 << 10  # larger answers are remembered in the process alone
LOG_OUTS = 100_000  # of the newest, for gateways that start
LOG = "log_outs"

BEGIN = """
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return held
"""
FORGET = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
# the same as resilience/limiter.py
TAKE = """
local time = redis.call('TIME')
local now_s = time[1] + time[2] / 1000000
local limit, rate = tonumber(ARGV[1]), tonumber(ARGV[1]) / tonumber(ARGV[2])
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = limit
if held[1] then
  tokens = math.min(limit, tonumber(held[1]) + math.max(0, now_s - tonumber(held[2])) * rate)
end
local allowed = tokens >= 1
if allowed then tokens = tokens - 1 end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens), 'at', string.format('%.17g', now_s))
redis.call('EXPIRE', KEYS[1], math.ceil((limit - tokens) / rate) + 1)
return {allowed and 1 or 0, string.format('%.17g', tokens)}
"""
GIVE_BACK = """
local held = redis.call('HGET', KEYS[1], 'tokens')
if held then
  local tokens = math.min(tonumber(ARGV[1]), tonumber(held) + 1)
  redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens))
end
"""


class Shared:
    """Of one process; `start` and `close` it on its event loop. Without Redis it does nothing."""

    def __init__(self, redis: Redis | None, log_outs: LogOuts) -> None:
        self._redis = redis
        self._log_outs = log_outs
        self._away_s = float("-inf")
        self._unsaid: dict[str, int] = {}  # log-outs that Redis was not told of yet
        self._heard = b"0"  # the last log-out that was read
        self._wake = asyncio.Event()
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        if self._redis is not None:
            self._go_on(self._tell_and_hear(self._redis))

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)

    # Idempotency-Keys

    async def begin(self, scope: uuid.UUID, request_hash: str) -> Answer | None:
        """What any process answered first under a key; None: nobody did, as far as is known.

        A bare 202 stands for a command that was accepted. 422 for another body.
        """
        redis = self._there()
        if redis is None:
            return None
        try:
            held = await redis.run(BEGIN, (_key(redis, scope),), (request_hash, int(KEPT_S)))
        except Unavailable:
            self._is_away()
            return None
        known, _, given = (held or b"").partition(b"\n")
        if known and known.decode() != request_hash:
            raise Problem("IDEMPOTENCY_MISMATCH")
        if not given:
            return None
        kept = orjson.loads(given)
        return Answer(kept["status"], kept["body"].encode(), kept["headers"], kept["content_type"])

    def finish(self, scope: uuid.UUID, request_hash: str, answer: Answer) -> None:
        """The first answer of a key, for the other processes; of a 202 only that there was one."""
        redis = self._there()
        if redis is None or answer.private or answer.size > ANSWER_BYTES:
            return
        whole = answer.status != 202
        kept = {
            "status": answer.status,
            "body": answer.body.decode() if whole else "",
            "headers": answer.headers if whole else {},
            "content_type": answer.content_type,
        }
        value = request_hash.encode() + b"\n" + orjson.dumps(kept)
        self._say(redis.execute("SET", _key(redis, scope), value, "EX", int(KEPT_S)))

    def forget(self, scope: uuid.UUID, request_hash: str) -> None:
        """Nothing was accepted: the key is free again."""
        redis = self._there()
        if redis is not None:
            self._say(redis.run(FORGET, (_key(redis, scope),), (request_hash,)))

    # rate limits

    async def take(self, limiter: Limiter, client: str, route: str) -> Verdict:
        """A token of the client's bucket for this route, over all processes if Redis is there."""
        redis = self._there()
        if redis is not None:
            key = redis.key(f"rate_limit:{client}:{route}")
            try:
                took, tokens = await redis.run(TAKE, (key,), (limiter.limit, limiter.window_s))
            except Unavailable:
                self._is_away()
            else:
                return limiter.verdict(bool(took), float(tokens))
        return limiter.take((client, route), time.monotonic())

    async def give_back(self, limiter: Limiter, client: str, route: str) -> None:
        """Put the token back that `take` took: it is not to count."""
        redis = self._there()
        if redis is not None:
            key = redis.key(f"rate_limit:{client}:{route}")
            try:
                await redis.run(GIVE_BACK, (key,), (limiter.limit,))
            except Unavailable:
                self._is_away()
            else:
                return
        limiter.give_back((client, route))

    # log-outs

    def log_out(self, jti: str, expires_s: int) -> None:
        """Tell all gateways of it, once Redis is there."""
        if self._redis is not None:
            self._unsaid[jti] = expires_s
            self._wake.set()

    async def _tell_and_hear(self, redis: Redis) -> None:
        while not self._closed:  # a call that ends just then takes the cancellation with it
            try:
                await self._tell(redis)
                await self._hear(redis)
                for name, state in states().items():
                    key = redis.key(f"circuit_breaker:{name}:state")
                    await redis.execute("SET", key, state, "EX", STATE_S)
            except Unavailable:
                self._is_away()
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            except TimeoutError:
                continue
            self._wake.clear()
            if self._there() is None:
                await asyncio.sleep(AWAY_S)

    async def _tell(self, redis: Redis) -> None:
        log = redis.key(LOG)
        for jti, expires_s in list(self._unsaid.items()):
            if expires_s > time.time():
                session = redis.key(f"session:{jti}")
                await redis.execute("SET", session, "logged out", "EXAT", expires_s)
                entry = ("*", "jti", jti, "expires", expires_s)
                await redis.execute("XADD", log, "MAXLEN", "~", LOG_OUTS, *entry)
            del self._unsaid[jti]

    async def _hear(self, redis: Redis) -> None:
        """What others told since the last look; all there is after a start."""
        while True:
            found = await redis.execute(
                "XRANGE", redis.key(LOG), b"(" + self._heard, "+", "COUNT", 1_000
            )
            for number, fields in found:
                self._heard = number
                jti, expires_s = fields[b"jti"].decode(), int(fields[b"expires"])
                if expires_s > time.time() and not self._log_outs.has(jti):
                    self._log_outs.add(jti, expires_s)
            if not found:
                return

    # whether Redis is there

    def _there(self) -> Redis | None:
        return self._redis if time.monotonic() - self._away_s > AWAY_S else None

    def _is_away(self) -> None:
        self._away_s = time.monotonic()

    def _say(self, said: Coroutine[Any, Any, Any]) -> None:
        self._go_on(self._said(said))

    async def _said(self, said: Coroutine[Any, Any, Any]) -> None:
        try:
            await said
        except Unavailable:
            self._is_away()

    def _go_on(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _key(redis: Redis, scope: uuid.UUID) -> str:
    return redis.key(f"idempotency:{scope}")
