"""What filling the stores costs the money path, and how far behind it runs: `python -m bench.beside`.

The same drained transfers as `bench.transfers`, first with nothing beside them, then with MariaDB, the stand-in for
MongoDB and the process that fills both on the same two cores. They share no transaction with the money path: what
they cost it is the cores. Behind: committed records of changelogs and events that a store does not have when the last
transfer has ended, and how long until it has them all. CPU of the projector and of the servers: while the transfers
run, and until the stores have all. The stand-in takes some 2,000 records a second: keep to a few thousand transfers.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.load import drained, opened
from bench.system import System
from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from proof.reader import Reader
from settings import Settings
from stores.catalog import TOPICS, Unavailable
from stores.configured import configured

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--stores", default="mysql,mongodb", help="mysql, mongodb or both")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    kinds = {"mysql": MariaDB, "mongodb": Mongo}
    servers = {name: kinds[name](directory / name) for name in options.stores.split(",")}
    for server in servers.values():
        server.start()
    try:
        urls = {f"STREAMBANK_{name.upper()}_URL": server.url for name, server in servers.items()}
        with System(directory, settings=urls) as system:
            pids = {name: server.pid for name, server in servers.items()}
            report(system, options.transfers, options.rounds, options.accounts, pids)
    finally:
        for server in servers.values():
            server.stop()
    shutil.rmtree(directory)


def report(
    system: System, count: int, rounds: int, accounts: int, servers: Mapping[str, int]
) -> None:
    system.start(halves=True)
    migrated = system.command("stores", "migrate")
    if migrated.returncode:
        raise RuntimeError(migrated.stderr)
    bank, ends = opened(system.bootstrap, accounts)
    drained(system, bank, ends, count, 0.0)  # warms the broker's JVM
    alone = [drained(system, bank, ends, count, 0.0)[0] for _ in range(rounds)]
    show("nothing beside them", alone)
    projector = system.add("projections", instance="projector-0")
    projector.wait_ready(PATIENCE_S)  # it has caught up with what was before
    system.workers.remove(projector)  # its CPU is none of the money path's
    pids = {"projector": projector.process.pid, **servers}
    try:
        beside = []
        for _ in range(rounds):
            first = cpu_s(pids)
            beside.append(drained(system, bank, ends, count, 0.0)[0])
            second = cpu_s(pids)
            asyncio.run(caught_up(system, count))
            third = cpu_s(pids)
            for name in pids:
                during, behind = second[name] - first[name], third[name] - second[name]
                print(
                    f"  {name:10} CPU {during:5.1f} s beside the transfers, {behind:5.1f} s after them:"
                    f" {(during + behind) / count * 1e6:7,.0f} µs a transfer"
                )
    finally:
        projector.kill()
    show("stores filled beside them", beside)
    print(f"{'beside, of alone':32}{max(beside) / max(alone):10.0%}")


def cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds that each process has used so far."""
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: one.user + one.system for name, one in times.items()}


def show(what: str, rates: list[float]) -> None:
    print(
        f"{what:32}{max(rates):10,.0f} transfers/s   ({', '.join(f'{one:,.0f}' for one in rates)})"
    )


async def caught_up(system: System, count: int) -> None:
    """Wait until each store has all; print how far behind `count` transfers it was, and how long it took."""
    environment = {**system.environment("bench")}
    settings = Settings.load(environment)
    started = time.monotonic()
    reader = Reader(settings.kafka)
    stores = configured(settings)
    ends = {
        (topic, n): reader.bounds(topic, n)[1]
        for topic in TOPICS
        for n in range(settings.partitions)
    }
    reader.close()
    try:
        for name, store in stores.items():
            first: int | None = None
            while True:
                try:
                    at = await store.positions()
                except Unavailable:  # a full machine: it is asked until it answers
                    if time.monotonic() - started > PATIENCE_S:
                        raise
                    continue
                behind = sum(max(0, end - at.get(place, 0)) for place, end in ends.items())
                first = behind if first is None else first
                # the last offsets may be those of markers, which no position passes
                if behind <= 2 * len(ends) or time.monotonic() - started > PATIENCE_S:
                    break
                await asyncio.sleep(0.1)
            seconds = time.monotonic() - started
            if count:
                print(
                    f"  {name:8} {first:,} records behind {count:,} transfers, all there after {seconds:.1f} s"
                )
    finally:
        for store in stores.values():
            await store.close()


if __name__ == "__main__":
    main()
