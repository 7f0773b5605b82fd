"""Copies in a real Redis: never an older one over a newer, and nothing but a time-out when it is away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY

from deploy.local.redis import Redis as Server
from resilience.breaker import State
from stores.catalog import Unavailable
from stores.invalidation import Invalidation
from stores.redis import Redis
from tests.stores.things import ACCOUNTS, USERS, account, batch, user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stores.catalog import Document


@asynccontextmanager
async def opened(server: Server, prefix: str) -> AsyncIterator[Redis]:
    redis = Redis(server.url, prefix)
    try:
        yield redis
    finally:
        await redis.close()


@pytest.fixture
async def redis(redis_server: Server, prefix: str) -> AsyncIterator[Redis]:
    async with opened(redis_server, prefix) as opened_one:
        yield opened_one


def ada(version: int, **more: Any) -> Document:
    document = user("ada", version, **more).document
    assert document is not None
    return document


async def test_a_copy_is_read_under_the_names_of_the_interface(redis: Redis, prefix: str) -> None:
    opened_account = account("acc-1", "ada").document
    assert opened_account is not None
    await redis.put(USERS, "ada", ada(1))
    await redis.put(ACCOUNTS, "acc-1", opened_account)
    assert await redis.document(USERS, "ada") == ada(1)
    assert await redis.document(ACCOUNTS, "acc-1") == opened_account
    for name, most_s in (
        (f"{prefix}user:ada:profile", 86_400),
        (f"{prefix}account:acc-1:balance", 300),
    ):
        assert most_s - 60 < await redis.execute("TTL", name) <= most_s


async def test_an_older_copy_never_replaces_a_newer_one(redis: Redis) -> None:
    for version in (2, 1, 3, 10, 9):
        await redis.put(USERS, "ada", ada(version))
    assert await redis.document(USERS, "ada") == ada(10)
    await redis.put(USERS, "ada", ada(10, name="the same version, written later"))
    found = await redis.document(USERS, "ada")
    assert found is not None
    assert found["name"] == "the same version, written later"


async def test_what_is_made_of_rows_is_held_under_a_name(redis: Redis, prefix: str) -> None:
    assert await redis.held("exchange_rates:EUR") is None
    for version in (2, 1, 3, 2):
        await redis.hold("exchange_rates:EUR", version, {"version": version}, 3600)
    assert await redis.held("exchange_rates:EUR") == {"version": 3}
    assert 3500 < await redis.execute("TTL", f"{prefix}exchange_rates:EUR") <= 3600


async def test_a_slow_reader_cannot_put_back_what_was_let_go(redis: Redis) -> None:
    invalidation = Invalidation(redis)
    await redis.put(USERS, "ada", ada(1))
    await invalidation.written(batch(user("ada", 2), user("bob", 2), account("acc-1", "ada")))
    assert await redis.document(USERS, "ada") is None
    await redis.put(USERS, "ada", ada(1))
    await redis.put(USERS, "bob", ada(1))  # of whom there was no copy
    assert await redis.document(USERS, "ada") is None
    assert await redis.document(USERS, "bob") is None
    await redis.put(USERS, "ada", ada(2))
    assert await redis.document(USERS, "ada") == ada(2)
    assert 0 < await redis.execute("TTL", redis.key("user:bob:profile")) <= 10


async def test_a_late_invalidation_leaves_what_is_newer(redis: Redis) -> None:
    await redis.put(USERS, "ada", ada(3))
    await Invalidation(redis).written(batch(user("ada", 3)))
    assert await redis.document(USERS, "ada") == ada(3)


async def test_a_large_batch_is_let_go_whole(redis: Redis) -> None:
    names = [f"u{n}" for n in range(1_201)]
    for name in (names[0], names[600], names[-1]):
        await redis.put(USERS, name, ada(1))
    await Invalidation(redis).written(batch(*(user(name, 2) for name in names)))
    for name in (names[0], names[600], names[-1]):
        assert await redis.document(USERS, name) is None


async def test_what_could_not_be_let_go_is_once_redis_is_back(
    store: Callable[[type[Server]], Server], prefix: str
) -> None:
    server = store(Server)
    missed = "streambank_redis_invalidations_missed_total"
    async with opened(server, prefix) as redis:
        invalidation = Invalidation(redis)
        await redis.put(USERS, "ada", ada(1))
        server.kill()
        before = REGISTRY.get_sample_value(missed) or 0.0
        await invalidation.written(batch(user("ada", 2)))
        assert REGISTRY.get_sample_value(missed) == before + 1
        with pytest.raises(Unavailable):
            await redis.document(USERS, "ada")
        server.restart()
        assert await redis.document(USERS, "ada") == ada(1), "it is in Redis' file"
        await invalidation.written(batch())
        assert await redis.document(USERS, "ada") is None


async def test_a_frozen_redis_costs_its_time_out_and_then_the_breaker_answers(
    store: Callable[[type[Server]], Server], prefix: str
) -> None:
    server = store(Server)
    async with opened(server, prefix) as redis:
        await redis.put(USERS, "ada", ada(1))
        await redis.put(USERS, "bob", ada(2))
        server.freeze()
        asked = (redis.document(USERS, name) for name in ("ada", "bob") * 20)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert redis.breaker.state is State.OPEN
        server.thaw()
        redis.breaker._until_s = 0.0  # half a minute later
        for name, version in (("ada", 1), ("bob", 2)) * 20:
            found = await redis.document(USERS, name)
            assert found is not None
            assert found["version"] == version, "an answer to another question"


async def test_connections_that_died_with_redis_are_replaced(
    store: Callable[[type[Server]], Server], prefix: str
) -> None:
    server = store(Server)
    async with opened(server, prefix) as redis:
        await redis.put(USERS, "ada", ada(1))
        await asyncio.gather(*(redis.document(USERS, "ada") for _ in range(50)))
        server.kill()
        server.restart()
        found = await asyncio.gather(*(redis.document(USERS, "ada") for _ in range(50)))
        assert found == [ada(1)] * 50
