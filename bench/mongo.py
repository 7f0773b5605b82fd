"""What a document costs the projector that writes it to MongoDB, beside what the stand-in takes.

The projector's CPU is that of this process: our code, the driver, BSON. The server is a stand-in (one
H2 file, one writer at a time): its rate limits a run on this machine and says nothing of MongoDB.

    python -m bench.mongo [--documents 4000] [--batch 500]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from deploy.local.mongo import Mongo
from stores.mongo import MongoDB, _replace, _row
from tests.stores.things import batch, entry, fact, transaction

if TYPE_CHECKING:
    from stores.catalog import Batch, Change

AT = ("transaction-table-changelog", 0)
FACTS = ("account.events", 0)
AT_MS = 1_790_000_000_000
STEPS = [
    {"step": name, "service": name, "outcome": "done", "at_ms": AT_MS}
    for name in ("validate", "risk", "debit", "payment", "credit", "complete")
]
BALANCES = [
    {"account_id": who, "currency": "USD", "before_minor": 5, "after_minor": 6, "version": 9}
    for who in ("ada", "bob")
]


def final(n: int, version: int) -> Change:
    """A transaction as long as a whole saga leaves it."""
    more = {"steps": STEPS, "balances": BALANCES, "metadata": {"order": str(n), "shop": "17"}}
    return transaction(f"{n:032x}", version=version, description="rent of May", **more)


async def timed(
    store: MongoDB, server: psutil.Process, what: str, at: tuple[str, int], batches: list[Batch]
) -> None:
    position = (await store.positions()).get(at, 0)
    count = sum(len(one.changes) + len(one.events) + len(one.entries) for one in batches)
    begun, ours, theirs = time.perf_counter(), time.process_time(), sum(server.cpu_times()[:2])
    for one in batches:
        await store.write(at, position, position + 1, one)
        position += 1
    wall = time.perf_counter() - begun
    ours, theirs = time.process_time() - ours, sum(server.cpu_times()[:2]) - theirs
    print(
        f"  {what:34} {ours / count * 1e6:6.0f} µs ours  {theirs / count * 1e6:6.0f} µs the server's"
        f"  {count / wall:7,.0f}/s"
    )


async def measure(server: Mongo, client: str, documents: int, size: int) -> None:
    store = MongoDB(server.url.replace("/streambank", f"/{client}"), client)
    process = psutil.Process(server.pid)
    starts = range(0, documents, size)
    await store.migrate()
    try:
        for version, what in (
            (1, "new documents"),
            (2, "newer versions"),
            (1, "older, told again"),
        ):
            made = [batch(*(final(n, version) for n in range(s, s + size))) for s in starts]
            await timed(store, process, f"{client}: {what}", AT, made)
        for what in ("facts and entries", "told again"):
            facts = [batch(*(x for n in range(s, s + size // 3) for x in said(n))) for s in starts]
            await timed(store, process, f"{client}: {what}", FACTS, facts)
    finally:
        await store.close()


def said(n: int) -> tuple[object, ...]:
    name = f"account.inbox-0-{n}-0"
    return fact(name, data={"steps": STEPS}), entry(name, 0), entry(name, 1)


def form(count: int) -> None:
    """Our own code alone: the document as it is stored, and the operation of it."""
    changes = [final(n, 1) for n in range(count)]
    begun = time.process_time()
    for change in changes:
        _replace(_row(change, 1), upsert=True)
    print(f"  our code alone: {(time.process_time() - begun) / count * 1e6:.1f} µs a document")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=500)
    options = parser.parse_args()
    form(20_000)
    with tempfile.TemporaryDirectory() as directory, Mongo(Path(directory)) as server:
        for client in ("pymongo", "motor"):
            asyncio.run(measure(server, client, options.documents, options.batch))


if __name__ == "__main__":
    main()
