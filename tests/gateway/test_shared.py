"""What gateway processes know of each other through a real Redis, and how they do without."""

from __future__ import annotations

import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from deploy.local.redis import Redis as Server
from gateway.answer import Answer
from gateway.errors import Problem
from gateway.log_outs import LogOuts
from gateway.shared import Shared
from resilience.limiter import Limiter
from stores.redis import Redis
from tests.gateway.stand import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def gateway(
    server: Server, prefix: str, log_outs: LogOuts | None = None
) -> AsyncIterator[Shared]:
    """One process's part of it."""
    redis = Redis(server.url, prefix)
    shared = Shared(redis, log_outs or LogOuts())
    shared.start()
    try:
        yield shared
    finally:
        await shared.close()
        await redis.close()


async def test_another_process_knows_the_body_and_the_answer_of_a_key(
    redis_server: Server, prefix: str
) -> None:
    scope, given = uuid.uuid4(), Answer(201, b'{"n": 1}', {"Location": "/x"})
    async with gateway(redis_server, prefix) as one, gateway(redis_server, prefix) as other:
        assert await one.begin(scope, "hash") is None
        assert await other.begin(scope, "hash") is None, "it is being answered: the same command"
        with pytest.raises(Problem, match="IDEMPOTENCY_MISMATCH"):
            await other.begin(scope, "another body's")

        async def known() -> Answer | None:
            one.finish(scope, "hash", given)  # on a busy machine Redis may miss the first
            return await other.begin(scope, "hash")

        assert await until(known, "the answer is known") == given


async def test_an_answer_with_a_secret_stays_in_its_process(
    redis_server: Server, prefix: str
) -> None:
    secret, scopes = b'{"secret": "whsec_x"}', (uuid.uuid4(), uuid.uuid4())
    async with gateway(redis_server, prefix) as one, gateway(redis_server, prefix) as other:
        for scope in scopes:
            await one.begin(scope, "hash")
        one.finish(scopes[0], "hash", Answer(200, secret, private=True))

        async def known() -> Answer | None:
            one.finish(scopes[1], "hash", Answer(200, b"{}"))  # told behind it, if Redis is quick
            return await other.begin(scopes[1], "hash")

        await until(known, "the answer behind it is known")
        assert await other.begin(scopes[0], "hash") is None


async def test_of_an_accepted_command_only_that_is_known(redis_server: Server, prefix: str) -> None:
    scope = uuid.uuid4()
    async with gateway(redis_server, prefix) as one, gateway(redis_server, prefix) as other:
        await one.begin(scope, "hash")
        one.finish(scope, "hash", Answer(202, b"pending", {"Location": "/x"}))

        async def known() -> Answer | None:
            return await other.begin(scope, "hash")

        assert await until(known, "it is known") == Answer(202)


async def test_a_key_of_which_nothing_was_accepted_is_free(
    redis_server: Server, prefix: str
) -> None:
    scope = uuid.uuid4()
    async with gateway(redis_server, prefix) as one, gateway(redis_server, prefix) as other:
        await one.begin(scope, "hash")
        one.forget(scope, "hash")

        async def free() -> bool:
            try:
                return await other.begin(scope, "another body's") is None
            except Problem:
                return False

        await until(free, "the key is free")


async def test_a_limit_counts_over_processes_and_as_the_one_in_memory(
    redis_server: Server, prefix: str
) -> None:
    limiter = Limiter(5, 3_600.0)
    alone = Limiter(5, 3_600.0)
    async with gateway(redis_server, prefix) as one, gateway(redis_server, prefix) as other:
        for n in range(8):
            verdict = await (one, other)[n % 2].take(limiter, "10.0.0.1", "GET /x")
            expected = alone.take("x", time.monotonic())
            assert (verdict.allowed, verdict.remaining) == (expected.allowed, expected.remaining)
            assert verdict.retry_s == pytest.approx(expected.retry_s, abs=60)
            assert verdict.full_s == pytest.approx(expected.full_s, abs=60)
        assert (await one.take(limiter, "10.0.0.2", "GET /x")).allowed
        assert (await one.take(limiter, "10.0.0.1", "GET /y")).allowed
    slow = Limiter(1, 1.0)
    async with gateway(redis_server, prefix) as one:
        assert (await one.take(slow, "10.0.0.1", "GET /z")).allowed

        async def dripped() -> bool:
            return (await one.take(slow, "10.0.0.1", "GET /z")).allowed

        await until(dripped, "a token has dripped in")


async def test_what_is_put_back_in_one_process_is_there_in_the_other(
    redis_server: Server, prefix: str
) -> None:
    limiter = Limiter(2, 3_600.0)
    async with gateway(redis_server, prefix) as one, gateway(redis_server, prefix) as other:
        for n in range(4):
            assert (await (one, other)[n % 2].take(limiter, "a", "guesses")).allowed
            await (other, one)[n % 2].give_back(limiter, "a", "guesses")
        taken = [(await other.take(limiter, "a", "guesses")).allowed for _ in range(3)]
        assert taken == [True, True, False]
        await one.give_back(limiter, "nobody", "guesses")
        assert (await one.take(limiter, "nobody", "guesses")).remaining == 1


async def test_a_log_out_reaches_gateways_that_run_and_that_start_later(
    redis_server: Server, prefix: str
) -> None:
    jti, expires_s = uuid.uuid4().hex, int(time.time()) + 600
    here, there, later = LogOuts(), LogOuts(), LogOuts()
    async with gateway(redis_server, prefix, here) as one, gateway(redis_server, prefix, there):
        one.log_out(jti, expires_s)

        async def heard() -> bool:
            return there.has(jti)

        await until(heard, "the other gateway knows")
    async with gateway(redis_server, prefix, later):

        async def known() -> bool:
            return later.has(jti)

        await until(known, "one that starts knows")


async def test_without_redis_each_decides_alone_and_tells_later(
    store: Callable[[type[Server]], Server], prefix: str
) -> None:
    server = store(Server)
    limiter, scope, there = Limiter(2, 3_600.0), uuid.uuid4(), LogOuts()
    async with gateway(server, prefix) as one, gateway(server, prefix, there):
        server.kill()
        assert await one.begin(scope, "hash") is None
        one.finish(scope, "hash", Answer(201))
        verdicts = [(await one.take(limiter, "10.0.0.1", "GET /x")).allowed for _ in range(3)]
        assert verdicts == [True, True, False]
        jti = uuid.uuid4().hex
        one.log_out(jti, int(time.time()) + 600)
        server.restart()

        async def heard() -> bool:
            return there.has(jti)

        await until(heard, "it is told once Redis is back", 60)
    async with gateway(server, prefix) as fresh:
        redis = fresh._redis
        assert redis is not None

        async def published() -> bool:
            return bool(await redis.execute("GET", redis.key("circuit_breaker:redis:state")))

        await until(published, "the breaker's state")
