"""HTTP POST to the final answer (`Prefer: wait`): p50, p95, p99 at 20/s and 50/s, everything on this machine.

    python -m bench.latency [--seconds 20]

Open loop: requests start when they are due, however long others take. Beside it, in the same run: what six bare
transactions in a row cost on this broker (one record each), the least that six hops can cost.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
from confluent_kafka import Producer

from bench.system import System
from bench.work import create

RATES = (20, 50)
WARM_RATE, WARM_S = 50, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    with System(directory) as system:
        system.start()
        url, admin = system.start_gateway()
        report(system, url, admin, options.seconds)
    shutil.rmtree(directory)


def report(system: System, url: str, admin: dict[str, str], seconds: int) -> None:
    asyncio.run(load(url, admin, WARM_RATE, WARM_S))  # JVM and caches are cold, and no customer's
    six = six_transactions(system.bootstrap)
    print(f"six bare transactions in a row: p50 {six[0]:.0f} ms, p95 {six[1]:.0f} ms")
    for rate in RATES:
        taken = asyncio.run(load(url, admin, rate, seconds))
        p50, p95, p99 = (quantile(taken, q) for q in (0.50, 0.95, 0.99))
        print(
            f"{rate:3}/s: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms "
            f"({len(taken)} transfers; p50 is {p50 / six[0]:.1f} × six bare transactions)"
        )


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


def six_transactions(bootstrap: str, rounds: int = 30) -> tuple[float, float]:
    """p50 and p95 in ms of six transactions of one record, one after another."""
    create(bootstrap, {"bare": {}})
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": f"bare-{uuid.uuid4()}",
            "retry.backoff.ms": 1,
            "linger.ms": 0,
        }
    )
    producer.init_transactions(30)
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(6):
            producer.begin_transaction()
            producer.produce("bare", b"x", b"x")
            producer.commit_transaction(30)
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken), quantile(taken, 0.95)


async def load(url: str, admin: dict[str, str], rate: int, seconds: int) -> list[float]:
    """Milliseconds from POST to the final answer of each transfer. Raises AssertionError on any other answer."""
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        call = await caller(session, admin)
        accounts = []
        for _ in range(20):
            opened = await call("POST", "/api/accounts", {"currencies": ["USD"], "name": "latency"})
            accounts.append(opened["account_id"])
        await asyncio.gather(*(
            call("POST", "/api/transactions", {"type": "deposit", "amount": 10**9, "currency": "USD",
                                               "destination_account_id": account})
            for account in accounts
        ))  # fmt: skip
        taken: list[float] = []

        async def one(n: int) -> None:
            body = {
                "type": "transfer",
                "amount": 1 + n % 100,
                "currency": "USD",
                "source_account_id": accounts[n % 20],
                "destination_account_id": accounts[(n + 1 + n % 7) % 20],
            }
            started = time.perf_counter()
            answer = await call("POST", "/api/transactions", body)
            taken.append((time.perf_counter() - started) * 1000)
            assert answer["status"] == "completed", answer

        started = time.monotonic()
        tasks = []
        for n in range(rate * seconds):
            await asyncio.sleep(max(0.0, started + n / rate - time.monotonic()))
            tasks.append(asyncio.create_task(one(n)))
        await asyncio.gather(*tasks)
        return taken[rate:]  # the first second warms up


async def caller(session: aiohttp.ClientSession, admin: dict[str, str]) -> Any:
    """A function that calls as the administrator and answers the JSON of a success."""
    async with session.post("/api/auth/login", json=admin) as answer:
        assert answer.status == 200, await answer.text()
        token = (await answer.json())["access_token"]

    async def call(method: str, path: str, body: Any = None) -> Any:
        headers = {
            "Authorization": f"Bearer {token}",
            "Prefer": "wait=30",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        async with session.request(method, path, json=body, headers=headers) as answer:
            found = await answer.json(content_type=None)
            assert answer.status in {200, 201}, (answer.status, found)
            return found

    return call


if __name__ == "__main__":
    main()
