"""`make bench`: all measurements of this machine, one after another.

python -m bench [--short]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

PROGRAMS = (
    ("driver", ("--peers",), ("--events", "50000", "--rounds", "1")),
    ("transfers", (), ("--transfers", "3000", "--rounds", "1")),
    ("latency", (), ("--seconds", "8")),
    ("restart", (), ("--keys", "100000")),
    ("replay", (), ("--events", "100000")),
    ("reports", (), ("--rows", "20000")),
    ("gateway", (), ()),
    ("idle", (), ("--seconds", "10")),
    ("step", (), ()),
    ("codec", (), ()),
    ("mongo", (), ("--documents", "1500")),
    ("projections", (), ("--transfers", "3000")),
    ("beside", (), ("--transfers", "2000", "--rounds", "1")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few minutes instead of many")
    short = parser.parse_args().short
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start; trust ratios, not absolute rates")
    failed = []
    for name, whole, quick in PROGRAMS:
        print(f"\n== bench.{name}", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", f"bench.{name}", *(quick if short else whole)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
