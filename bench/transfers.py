"""Whole transfers/s through all services, broker beside them: ordered at once, drained.

    python -m bench.transfers [--transfers 20000] [--accounts 1000] [--rounds 3] [--split | --single]
    python -m bench.transfers --beside [--stores mysql,mongodb] [--rounds 3]

Three loads: spread over all accounts, 10 % and 50 % of them on one account, each once a round, after as many to warm
up the broker's JVM; the median of the rounds, the least and the most. The services run in two processes of equal work,
as two cores want it; `--split` gives each its own, `--single` one for all. The floor beside it is what `bench/floor.py`
does on the same broker in the same run. `--beside`: what the services off the money path cost it, in the same run
(`bench/watchers.py`).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import median

from bench import watchers
from bench.driver import floor
from bench.load import drained, opened
from bench.system import System
from bench.work import create, fill

LOADS = {
    "spread": 0.0,
    "10 % on one account": 0.1,
    "50 % on one account": 0.5,
}  # share on one account


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transfers", type=int, default=20_000)
    parser.add_argument("--accounts", type=int, default=1_000)
    processes = parser.add_mutually_exclusive_group()
    processes.add_argument("--split", action="store_true", help="each service a process of its own")
    processes.add_argument("--single", action="store_true", help="one process for all services")
    processes.add_argument("--beside", action="store_true", help="with and without the rest")
    parser.add_argument("--stores", default="", help="with --beside: mysql, mongodb or both")
    parser.add_argument("--rounds", type=int, default=3, help="of all loads")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    if options.beside:
        names = [name for name in options.stores.split(",") if name]
        with (
            watchers.servers(directory, names) as stores,
            System(directory, settings=watchers.urls(stores)) as system,
        ):
            watchers.report(system, options.transfers, options.accounts, options.rounds, stores)
    else:
        with System(directory) as system:
            system.start(split=options.split, halves=not (options.split or options.single))
            report(system, options.transfers, options.accounts, options.rounds)
    shutil.rmtree(directory)


def report(system: System, count: int, accounts: int, rounds: int) -> None:
    bank, ends = opened(system.bootstrap, accounts)
    create(system.bootstrap, {"deposits": {}})
    fill(system.bootstrap, "deposits", count * 5)
    drained(system, bank, ends, count, 0.0)
    base = floor(system.bootstrap, "deposits", count * 5)
    print(f"{'floor (bare loop, one hop)':32}{base:8,.0f} events/s")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADS}
    for _ in range(rounds):
        for name, hot in LOADS.items():
            found[name].append(drained(system, bank, ends, count, hot))
    for name, measured in found.items():
        rates, cpu_us = zip(*measured, strict=True)
        rate = median(rates)
        print(
            f"{f'transfers, {name}':32}{rate:8,.0f} /s ({min(rates):,.0f}–{max(rates):,.0f})   "
            f"1 to {base / rate:.1f} floor events, {median(cpu_us):,.0f} µs worker CPU each"
        )


if __name__ == "__main__":
    main()
