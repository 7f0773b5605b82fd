"""How fast reads are from each source, over HTTP: `python -m bench.reads [--seconds 3] [--connections 8]`.

    all        every store is there
    no redis   Redis is killed
    mysql      MongoDB's stand-in too: MySQL alone
    none       MySQL too: every store that is configured is away
    mongodb    the stand-in is back, alone

An account, a transaction, a page of 50 of a user's transactions, each asked for at random on keep-alive connections.
Beside each, right behind it, the same from a second gateway that knows of no store: the workers' tables, which the
ratios are to. A store is killed, not told: what it costs to find out is in the numbers. Sources are counted as the
answers say them (X-Read-Source). The client shares the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import uvloop

from bench.load import opened
from bench.system import System
from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from deploy.local.redis import Redis

if TYPE_CHECKING:
    from collections.abc import Sequence

PEOPLE = 300
STORES = {"mysql": MariaDB, "mongodb": Mongo, "redis": Redis}
STAGES = (
    ("all", ("mysql", "mongodb", "redis")),
    ("no redis", ("mysql", "mongodb")),
    ("mysql", ("mysql",)),
    ("none", ()),
    ("mongodb", ("mongodb",)),
)
PATIENCE_S = 90.0  # a breaker is open for 30 s


class Asked(NamedTuple):
    """A question, by the paths it is asked with, and the first source for it of stores that are there."""

    name: str
    paths: Sequence[str]
    order: Sequence[str]

    def source(self, there: Sequence[str]) -> str:
        return next((store for store in self.order if store in there), "tables")


class Rate(NamedTuple):
    """What one measurement found; times in ms."""

    per_s: float
    p50_ms: float
    p95_ms: float
    most_ms: float
    sources: Counter[str]


async def asked(url: str, token: str, paths: Sequence[str], many: int, seconds: float) -> Rate:
    """Closed loop over `many` connections; any answer but 200 ends it."""
    host, port = url.removeprefix("http://").split(":")
    took: list[float] = []
    sources: Counter[str] = Counter()
    end_s = time.perf_counter() + seconds

    async def one(number: int) -> None:
        chance = random.Random(number)
        reader, writer = await asyncio.open_connection(host, int(port))
        behind = f" HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"
        while (started := time.perf_counter()) < end_s:
            writer.write(f"GET {chance.choice(paths)}{behind}".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            lower = head.lower()
            length = int(lower.partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - started)
            sources[lower.partition(b"x-read-source: ")[2].partition(b"\r")[0].decode()] += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(many)))
    passed = time.perf_counter() - started
    took.sort()
    p50, p95, most = (1e3 * took[int((len(took) - 1) * q)] for q in (0.5, 0.95, 1.0))
    return Rate(len(took) / passed, p50, p95, most, sources)


async def until_from(url: str, token: str, path: str, source: str) -> None:
    """Until an answer is from there. Raises TimeoutError."""
    headers = {"Authorization": f"Bearer {token}"}
    async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession(url, headers=headers) as session:
        while True:
            async with session.get(path) as got:
                found = got.headers.get("X-Read-Source")
                if got.status == 200 and found == source:
                    return
            await asyncio.sleep(0.1)


async def token_of(url: str, admin: dict[str, str]) -> str:
    async with (
        aiohttp.ClientSession(url) as session,
        session.post("/api/auth/login", json=admin) as got,
    ):
        assert got.status == 200, await got.text()
        return str((await got.json())["access_token"])


def filled(system: System, transfers: int) -> list[Asked]:
    """Accounts and transactions, and what is asked of them."""
    bank, ends = opened(system.bootstrap, PEOPLE)
    made = bank.transfers(transfers)
    bank.flush()
    ends.wait(made)
    ends.close()
    people = range(len(bank.accounts))
    return [
        Asked("account", [f"/api/accounts/{one}" for one in bank.accounts], ("redis", "mysql", "mongodb")),
        Asked("transaction", [f"/api/transactions/{one}" for one in made], ("mongodb", "mysql")),
        Asked("list", [f"/api/transactions?user_id=person-{n}" for n in people], ("mongodb", "mysql")),
    ]  # fmt: skip


def show(stage: str, question: Asked, rate: Rate, bare: Rate) -> None:
    said = ", ".join(f"{name} {count:,}" for name, count in rate.sources.most_common())
    print(
        f"{stage:9} {question.name:12}{rate.per_s:7,.0f}/s  p50 {rate.p50_ms:6.1f}  p95 {rate.p95_ms:6.1f}"
        f"  most {rate.most_ms:7.1f} ms   tables {bare.per_s:6,.0f}/s  p50 {bare.p50_ms:5.1f}"
        f"  p95 {bare.p95_ms:5.1f} ms   {rate.per_s / bare.per_s:5.2f} ×   [{said}]",
        flush=True,
    )


def measured(
    system: System, servers: dict[str, Any], transfers: int, many: int, seconds: float
) -> None:
    bare_url, admin = system.start_gateway()
    gateway = None
    try:
        questions = filled(system, transfers)
        system.settings |= {
            f"STREAMBANK_{name.upper()}_URL": one.url for name, one in servers.items()
        }
        migrated = system.command("stores", "migrate")
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        system.add("projections", instance="projector-0").wait_ready(PATIENCE_S * 2)
        url, gateway = system.serve()
        token = uvloop.run(token_of(bare_url, admin))
        for stage, there in STAGES:
            for name, server in servers.items():
                if name in there:
                    server.start()
                else:
                    server.kill()
            for question in questions:
                paths = question.paths
                uvloop.run(until_from(url, token, paths[0], question.source(there)))
                if stage == "all":  # warm, and Redis has copies
                    for each in (url, bare_url):
                        uvloop.run(asked(each, token, paths, many, seconds))
                rate = uvloop.run(asked(url, token, paths, many, seconds))
                bare = uvloop.run(asked(bare_url, token, paths, many, seconds))
                show(stage, question, rate, bare)
    finally:
        if gateway is not None:
            gateway.kill()
            gateway.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--transfers", type=int, default=2_000)
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        servers: dict[str, Any] = {}
        for name, kind in STORES.items():
            servers[name] = kind(directory / name, orphaned=signal.SIGKILL)
            stack.callback(servers[name].kill)
            servers[name].start()
        with System(directory) as system:
            system.start(halves=True)
            measured(system, servers, options.transfers, options.connections, options.seconds)


if __name__ == "__main__":
    main()
