"""Whole transfers/s through all services, broker beside them: ordered at once, drained.

    python -m bench.transfers [--transfers 20000] [--accounts 1000] [--split | --single]

Three loads: spread over all accounts, 10 % and 50 % of them on one account, after as many to warm up the broker's
JVM. The services run in two processes of equal work, as two cores want it; `--split` gives each its own, `--single`
one for all. The floor beside it is what `bench/floor.py` does on the same broker in the same run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from bench.driver import floor
from bench.load import Bank, Ends
from bench.system import System
from bench.work import create, fill


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transfers", type=int, default=20_000)
    parser.add_argument("--accounts", type=int, default=1_000)
    processes = parser.add_mutually_exclusive_group()
    processes.add_argument("--split", action="store_true", help="each service a process of its own")
    processes.add_argument("--single", action="store_true", help="one process for all services")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    with System(directory) as system:
        system.start(split=options.split, halves=not (options.split or options.single))
        report(system, options.transfers, options.accounts)
    shutil.rmtree(directory)


def report(system: System, count: int, accounts: int) -> None:
    bank, ends = Bank(system.bootstrap), Ends(system.bootstrap)
    bank.open(accounts)
    bank.deposit(bank.accounts, 10_000_000)
    bank.flush()
    ends.wait(bank.ordered)
    create(system.bootstrap, {"deposits": {}})
    fill(system.bootstrap, "deposits", count * 5)
    drained(system, bank, ends, count, 0.0)
    base = floor(system.bootstrap, "deposits", count * 5)
    print(f"{'floor (bare loop, one hop)':44}{base:10,.0f} events/s")
    for name, hot in (("transfers, spread", 0.0), ("transfers, 10 % on one account", 0.1),
                      ("transfers, 50 % on one account", 0.5)):  # fmt: skip
        rate, cpu_us = drained(system, bank, ends, count, hot)
        print(
            f"{name:44}{rate:10,.0f} /s   1 to {base / rate:.1f} floor events, {cpu_us:,.0f} µs worker CPU each"
        )


def drained(system: System, bank: Bank, ends: Ends, count: int, hot: float) -> tuple[float, float]:
    """Transfers/s from the first order to the last end, and worker CPU per transfer in µs."""
    before = system.cpu_s()
    started = time.monotonic()
    ids = bank.transfers(count, hot)
    bank.flush()
    ends.wait(ids)
    seconds = max(ends.at[i] for i in ids) - started
    return count / seconds, (system.cpu_s() - before) / count * 1e6


if __name__ == "__main__":
    main()
