"""What the services off the money path cost it: `python -m bench.transfers --beside`.

The money path runs in two processes all the time. In each round the same transfers are drained twice: with nothing
beside them, and with `worker beside` on the same cores (relay, observe, notification, audit, analytics, settlement,
reporting; niced as in the local stack), with `--stores` also with what fills those. What was said while they were
away they read before they are measured. Every other round begins with them. Behind: committed records that they have
not read when the last transfer has ended, and how long until they have.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from bench.beside import caught_up, cpu_s
from bench.load import Bank, Ends, drained, opened
from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.system import System, Worker
    from deploy.local.server import Server

MONEY = (("account", "user", "payment"), ("transaction", "risk", "currency"))
STORES: Mapping[str, type[Server]] = {"mysql": MariaDB, "mongodb": Mongo}
PATIENCE_S = 600.0
LAG = "streaming_lag_records{"
STILL = 3  # looks in a row that find nothing to be read
LOOK_S = 1.0  # a worker measures its lag once a second


@contextmanager
def servers(directory: Path, names: Sequence[str]) -> Iterator[dict[str, Server]]:
    """Stores of one's own, by name."""
    running = {name: STORES[name](directory / name) for name in names}
    try:
        for server in running.values():
            server.start()
        yield running
    finally:
        for server in running.values():
            server.stop()


def urls(running: Mapping[str, Server]) -> dict[str, str]:
    return {f"STREAMBANK_{name.upper()}_URL": server.url for name, server in running.items()}


def report(
    system: System, count: int, accounts: int, rounds: int, stores: Mapping[str, Server]
) -> None:
    """Rounds of the same transfers, alone and with the rest of the bank beside them."""
    system.start(groups=MONEY)
    if stores:
        migrated = system.command("stores", "migrate")
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
    bank, ends = opened(system.bootstrap, accounts)
    drained(system, bank, ends, count, 0.0)  # warms the broker's JVM
    alone, beside = [], []
    for number in range(rounds):
        for watched in (False, True) if number % 2 == 0 else (True, False):
            if watched:
                beside.append(_watched(system, bank, ends, count, stores))
            else:
                alone.append(drained(system, bank, ends, count, 0.0)[0])
        ratio = beside[-1] / alone[-1]
        print(
            f"round {number + 1}: {alone[-1]:,.0f} transfers/s alone, "
            f"{beside[-1]:,.0f} with the rest beside them: {ratio:.0%}"
        )
    ratios = [one / other for one, other in zip(beside, alone, strict=True)]
    print(
        f"{'transfers, money path alone':44}{median(alone):10,.0f} /s\n"
        f"{'transfers, all services beside':44}{median(beside):10,.0f} /s   "
        f"{median(ratios):.0%} of alone (rounds {min(ratios):.0%} to {max(ratios):.0%})"
    )


def _watched(
    system: System, bank: Bank, ends: Ends, count: int, stores: Mapping[str, Server]
) -> float:
    """Transfers/s with the watchers beside; they are there for this alone."""
    watchers = [system.add("beside", instance="beside-0")]
    if stores:
        watchers.append(system.add("projections", instance="projector-0"))
    for watcher in watchers:
        system.workers.remove(watcher)  # their CPU is none of the money path's
    try:
        for watcher in watchers:
            watcher.wait_ready(PATIENCE_S)
        _until_read(watchers[0])
        if stores:
            asyncio.run(caught_up(system, 0))
        pids = {watcher.instance: watcher.process.pid for watcher in watchers}
        first = cpu_s(pids)
        rate = drained(system, bank, ends, count, 0.0)[0]
        during = cpu_s(pids)
        started_s, behind = time.monotonic(), _lag(watchers[0])
        _until_read(watchers[0])
        seconds = time.monotonic() - started_s - STILL * LOOK_S
        print(f"  beside-0 {behind:,} records behind, all read after {max(0.0, seconds):.1f} s")
        if stores:
            asyncio.run(caught_up(system, count))
        after = cpu_s(pids)
        for name in pids:
            while_s, then_s = during[name] - first[name], after[name] - during[name]
            print(
                f"  {name:12} CPU {while_s:5.1f} s beside the transfers, {then_s:5.1f} s after them:"
                f" {(while_s + then_s) / count * 1e6:7,.0f} µs a transfer"
            )
        return rate
    finally:
        for watcher in watchers:
            watcher.end()


def _until_read(watcher: Worker) -> None:
    """Until it has read all that it reads, and goes on having."""
    deadline_s, still = time.monotonic() + PATIENCE_S, 0
    while still < STILL:
        still = 0 if _lag(watcher) else still + 1
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{watcher.instance} is {_lag(watcher):,} records behind")
        time.sleep(LOOK_S)


def _lag(watcher: Worker) -> int:
    """Records that it has not read, all partitions of all that it reads."""
    with urllib.request.urlopen(f"http://127.0.0.1:{watcher.port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    behind = (float(line.rpartition(" ")[2]) for line in lines if line.startswith(LAG))
    return int(sum(behind))
