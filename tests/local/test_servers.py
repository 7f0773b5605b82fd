"""The stores as child processes: they answer, die, and come back with what they had."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import aiomysql
import pymysql
import pytest
import redis.asyncio
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from deploy.local.places import ROOT
from deploy.local.processes import StackError, end, free_port, identify, recorded, wait_gone
from deploy.local.redis import Redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from deploy.local.server import Server

KINDS = (MariaDB, Redis, Mongo)
ROWS = 200


@asynccontextmanager
async def mysql(url: str) -> AsyncIterator[aiomysql.Cursor]:
    at = urlsplit(url)
    connection = await aiomysql.connect(
        host=at.hostname,
        port=at.port,
        user=at.username,
        password=unquote(at.password or ""),
        db=at.path[1:],
    )
    try:
        yield await connection.cursor()
        await connection.commit()
    finally:
        connection.close()


@asynccontextmanager
async def mongodb(url: str, **options: Any) -> AsyncIterator[Any]:
    client: Any = AsyncIOMotorClient(url, **options)
    try:
        yield client.get_default_database()
    finally:
        client.close()


async def write(server: Server, first: int, last: int) -> None:
    """Acknowledged one by one."""
    match server:
        case MariaDB():
            async with mysql(server.url) as cursor:
                if not await cursor.execute("SHOW TABLES LIKE 't'"):
                    await cursor.execute("CREATE TABLE t (n INT PRIMARY KEY)")
                for n in range(first, last):
                    await cursor.execute("INSERT INTO t VALUES (%s)", (n,))
                    await cursor.connection.commit()
        case Redis():
            async with redis.asyncio.from_url(server.url) as client:
                for n in range(first, last):
                    await client.rpush("t", n)
        case Mongo():
            async with mongodb(server.url) as database:
                for n in range(first, last):
                    await database.t.insert_one({"_id": n})


async def read(server: Server) -> list[int]:
    match server:
        case MariaDB():
            async with mysql(server.url) as cursor:
                await cursor.execute("SELECT n FROM t ORDER BY n")
                return [n for (n,) in await cursor.fetchall()]
        case Redis():
            async with redis.asyncio.from_url(server.url) as client:
                return [int(n) for n in await client.lrange("t", 0, -1)]
        case _:
            async with mongodb(server.url) as database:
                return [row["_id"] async for row in database.t.find().sort("_id")]


def gone(server: Server) -> None:
    assert not server.answers()
    assert recorded(server.child.pid_file) is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_store_comes_back_with_what_it_acknowledged(
    store: Callable[..., Server], kind: type[Server]
) -> None:
    server = store(kind)
    url = server.url
    await write(server, 0, ROWS)
    server.kill()
    gone(server)
    server.restart()
    assert server.url == url
    await write(server, ROWS, ROWS + 5)
    assert await read(server) == list(range(ROWS + 5))


@pytest.mark.parametrize("kind", KINDS)
async def test_two_of_a_kind_side_by_side(store: Callable[..., Server], kind: type[Server]) -> None:
    one, other = store(kind), store(kind)
    await write(one, 0, 3)
    await write(other, 7, 9)
    one.kill()
    assert await read(other) == [7, 8]
    one.restart()
    assert one.port != other.port
    assert one.password != other.password


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stopped_store_goes_on_under_another_port_and_password(
    tmp_path: Path, kind: type[Server]
) -> None:
    with kind(tmp_path) as first:
        await write(first, 0, 10)
    gone(first)
    with kind(tmp_path, password='it\'s a "new" one: \\ /?#@%') as second:
        assert second.port != first.port
        assert await read(second) == list(range(10))
        first.port = second.port
        assert kind is Mongo or not first.answers()
    gone(second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_store_answers_again_after_the_thaw(
    store: Callable[..., Server], kind: type[Server]
) -> None:
    server = store(kind)
    server.freeze()
    assert not server.answers()
    server.thaw()
    server.wait_ready()


@pytest.mark.parametrize("kind", KINDS)
def test_passwords_are_for_their_owner_alone(
    store: Callable[..., Server], kind: type[Server]
) -> None:
    server = store(kind)
    command = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert server.password not in command
    for file in server.directory.iterdir():
        if file.is_file() and server.password in file.read_text(errors="replace"):
            assert file.stat().st_mode & 0o777 == 0o600


def test_mariadb_lets_in_nobody_else(mariadb: MariaDB) -> None:
    for user, password in (("root", ""), ("", ""), ("streambank", ""), ("mariadb.sys", "")):
        with pytest.raises(pymysql.err.OperationalError):
            pymysql.connect(host="127.0.0.1", port=mariadb.port, user=user, password=password)


async def test_mariadb_is_told_what_read_models_need(mariadb: MariaDB) -> None:
    async with mysql(mariadb.url) as cursor:
        await cursor.execute(
            "SELECT @@innodb_flush_log_at_trx_commit, @@character_set_server, @@tx_isolation,"
            " @@bind_address, @@time_zone, @@log_bin"
        )
        (found,) = await cursor.fetchall()
        assert found == (1, "utf8mb4", "READ-COMMITTED", "127.0.0.1", "+00:00", 0)
        await cursor.execute("CREATE DATABASE streambank_another")
        await cursor.execute("DROP DATABASE streambank_another")
        with pytest.raises(pymysql.err.OperationalError):
            await cursor.execute("CREATE DATABASE another")


async def test_redis_asks_for_its_password(redis_server: Redis) -> None:
    async with redis.asyncio.from_url(redis_server.url) as client:
        assert await client.ping()
        assert (await client.info("server"))["redis_version"].startswith("7.")
    async with redis.asyncio.Redis(port=redis_server.port, retry=None) as stranger:
        with pytest.raises(redis.AuthenticationError):
            await stranger.ping()


async def test_what_the_stand_in_for_mongodb_is_not(mongo: Mongo, prefix: str) -> None:
    """The list of deploy/local/mongo.py: what no longer holds comes out of it."""
    async with mongodb(mongo.url) as default:
        database = default.client[prefix]
        async with await database.client.start_session() as session:
            with pytest.raises(ConfigurationError):
                async with session.start_transaction():
                    await database.t.insert_one({}, session=session)
        await database.partial.create_index(
            "k", unique=True, partialFilterExpression={"live": True}
        )
        await database.partial.insert_one({"k": 1})
        with pytest.raises(DuplicateKeyError):
            await database.partial.insert_one({"k": 1})
        await database.text.create_index([("words", "text")])
        await database.text.insert_one({"words": "rent of May", "n": 1})
        with pytest.raises(OperationFailure):
            await database.text.find_one({"$text": {"$search": "rent"}})
        await database.create_collection("strict", validator={"n": {"$exists": True}})
        await database.strict.insert_one({"m": 1})
        with pytest.raises(OperationFailure):
            await database.text.update_one({"n": 1}, [{"$set": {"m": "$n"}}])
        day = {"$dateTrunc": {"date": "$at", "unit": "day"}}
        with pytest.raises(OperationFailure):
            await database.text.aggregate([{"$group": {"_id": day}}]).to_list(None)


async def test_the_stand_in_for_mongodb_speaks_its_protocol(mongo: Mongo, prefix: str) -> None:
    async with mongodb(mongo.url) as default:
        database = default.client[prefix]
        await database.t.create_index([("owner", 1), ("at", -1)], unique=True)
        for _ in range(2):
            await database.t.update_one(
                {"_id": 1}, {"$set": {"owner": "ada", "at": 5}}, upsert=True
            )
        grouped = database.t.aggregate([{"$group": {"_id": "$owner", "n": {"$sum": 1}}}])
        assert await grouped.to_list(None) == [{"_id": "ada", "n": 1}]


async def test_a_store_that_is_away_is_an_error_of_its_client(
    store: Callable[..., Server],
) -> None:
    servers = [store(kind) for kind in KINDS]
    for server in servers:
        server.kill()
    maria, cache, documents = servers
    with pytest.raises(pymysql.err.OperationalError):
        await read(maria)
    with pytest.raises(redis.ConnectionError):
        await read(cache)
    async with mongodb(documents.url, serverSelectionTimeoutMS=100) as database:
        with pytest.raises(ServerSelectionTimeoutError):
            await database.t.find_one()


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_port_is_one_sentence(tmp_path: Path, kind: type[Server]) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StackError) as refused:
        kind(tmp_path, port).start()
    assert str(refused.value).startswith(f"port {port} of {kind.name} is in use by another process")


@pytest.mark.skipif(Path("/usr/sbin/mariadbd").exists(), reason="MariaDB is installed")
def test_a_machine_without_packages_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMBANK_LOCAL", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError) as refused:
        MariaDB.fetch()
    assert str(refused.value) == (
        "apt-get fetches MariaDB and Redis, and this machine has none: install MariaDB 10.11 and "
        "Redis 7, or set STREAMBANK_LOCAL_STORES=none"
    )


CRASHES = """
import os, sys
from pathlib import Path
from deploy.local import processes
from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from deploy.local.redis import Redis
if sys.argv[3] == "deaf":
    processes._when_orphaned = lambda number: []   # as if the kernel could not tell the child
kind = {"mariadb": MariaDB, "mongo": Mongo, "redis": Redis}[sys.argv[1]]
print(kind(Path(sys.argv[2])).start().pid, flush=True)
os._exit(1)
"""


def crashed(kind: type[Server], directory: Path, how: str) -> int:
    """The pid of a store whose parent ended at once."""
    run = subprocess.run(
        [sys.executable, "-c", CRASHES, kind.name, str(directory), how],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return int(run.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_crashed_run_left_is_replaced(tmp_path: Path, kind: type[Server]) -> None:
    left = identify(crashed(kind, tmp_path, "deaf"))
    assert left is not None
    try:
        with kind(tmp_path) as server:
            assert server.pid != left.pid
            assert identify(left.pid) != left
    finally:
        end(left, grace_s=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_ends_with_whoever_started_it(tmp_path: Path, kind: type[Server]) -> None:
    crashed(kind, tmp_path, "told")
    left = recorded(tmp_path / f"{kind.name}.pid")
    assert left is None or wait_gone(left, 60)
