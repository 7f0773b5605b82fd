"""The driver beside its floor and its peers: events/s with one table write and one output per event.

    python -m bench.driver [--events 200000] [--rounds 3] [--peers]

All read the same bytes from one broker on this machine, one after another, `rounds` times in turn; what counts
are the ratios of one round. Floor: `bench/floor.py`. Peers (fewer events, they take long): stock Faust
exactly_once, and Quix Streams exactly-once in an environment of its own under the local directory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from bench.work import Topics, create, fill, output_rate, wait_for_outputs
from deploy.local.kafka import STEADY, Kafka
from deploy.local.places import local_directory

QUIX = "quixstreams==3.28.0"
STAMPED = {"message.timestamp.type": "LogAppendTime"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="also stock Faust and Quix Streams")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    with Kafka(directory, java=STEADY) as kafka:
        report(kafka.bootstrap, options.events, options.rounds, options.peers)
    shutil.rmtree(directory)


def report(bootstrap: str, events: int, rounds: int, peers: bool) -> None:
    source, small = f"deposits-{events}", "deposits-small"
    few = max(2_000, events // 40)
    create(bootstrap, {source: {}, small: {}})
    fill(bootstrap, source, events)
    fill(bootstrap, small, few)
    rows: list[tuple[str, list[float]]] = []
    floors, drivers = [], []
    for _ in range(rounds):
        floors.append(floor(bootstrap, source, events))
        drivers.append(contender(bootstrap, "driver_contender", source, events))
    rows.append(("floor: bare transactional loop", floors))
    rows.append(("streaming, one table write and one output", drivers))
    if peers:
        python = quix_environment()
        quix = contender(bootstrap, "quix_contender", source, events // 4, python)
        tuned = contender(bootstrap, "quix_contender", source, events // 4, python, "--tuned")
        rows.append(("Quix Streams exactly-once, as documented", [quix]))
        rows.append(("the same, tuned as streaming is", [tuned]))
        rows.append(
            ("stock Faust exactly_once", [contender(bootstrap, "stock_contender", small, few)])
        )
    ratios = [d / f for d, f in zip(drivers, floors, strict=True)]
    best = statistics.median(drivers)
    print(f"\n{'':44}{'events/s':>10}   to the driver")
    for name, rates in rows:
        rate = statistics.median(rates)
        print(f"{name:44}{rate:10,.0f}   {rate / best:6.2f}  (driver is {best / rate:.2f} ×)")
    print(f"\ndriver / floor, round by round: {', '.join(f'{r:.2f}' for r in ratios)}"
          f"; median {statistics.median(ratios):.2f}")  # fmt: skip


def names(kind: str) -> Topics:
    tag = uuid.uuid4().hex[:8]
    return Topics("", f"{kind}-{tag}-out", f"{kind}-{tag}-changelog")


def floor(bootstrap: str, source: str, events: int) -> float:
    topics = names("floor")
    create(bootstrap, {topics.output: STAMPED, topics.changelog: {"cleanup.policy": "compact"}})
    arguments = ["--bootstrap", bootstrap, "--name", topics.output, "--source", source,
                 "--output", topics.output, "--changelog", topics.changelog, "--count", str(events)]  # fmt: skip
    return measured(
        bootstrap, topics.output, events, [sys.executable, "-m", "bench.floor", *arguments]
    )


def contender(
    bootstrap: str,
    module: str,
    source: str,
    events: int,
    python: str = sys.executable,
    *options: str,
) -> float:
    """Its rate until `events` of what the source holds are done."""
    topics = names(module.split("_", maxsplit=1)[0])
    create(bootstrap, {topics.output: STAMPED, f"{topics.output}-app.dead": {}})
    arguments = ["--bootstrap", bootstrap, "--name", f"{topics.output}-app", "--source", source,
                 "--output", topics.output, *options]  # fmt: skip
    return measured(bootstrap, topics.output, events, [python, "-m", f"bench.{module}", *arguments])


def measured(bootstrap: str, output: str, events: int, command: list[str]) -> float:
    print(f"{command[2]} … ", end="", flush=True)
    log = local_directory() / "bench.log"
    started = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": "."}
        )
    try:
        wait_for_outputs(bootstrap, output, events)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    rate = output_rate(bootstrap, output)
    print(f"{events:,} events, {rate:,.0f}/s ({time.monotonic() - started:.0f} s in all)")
    return rate


def quix_environment() -> str:
    """A Python with Quix Streams, whose librdkafka is another version than ours."""
    home = local_directory() / "quix"
    python = home / "bin" / "python"
    if not python.exists():
        print(f"installing {QUIX} into {home}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", QUIX, "fastavro"], check=True)
    return str(python)


if __name__ == "__main__":
    main()
