"""What a system costs that nobody asks: CPU of broker, workers and gateway, beside a broker without clients.

python -m bench.idle [--seconds 30]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from bench.beside import cpu_s
from bench.system import System

SETTLES_S = 15.0  # after a start: metadata, first ticks, Java's compiler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=30)
    seconds = parser.parse_args().seconds
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    with System(directory) as system:
        broker = {"broker": system.kafka.pid()}
        alone = percent(broker, seconds)["broker"]
        system.start(halves=True)
        _, system.gateway = system.serve()
        workers = {worker.instance: worker.process.pid for worker in system.workers}
        used = percent({**broker, **workers, "gateway": system.gateway.pid}, seconds)
    shutil.rmtree(directory)
    print(f"broker alone {alone:.1f} % of a core")
    parts = ", ".join(f"{name} {share:.1f}" for name, share in used.items())
    whole = sum(used.values())
    print(f"nobody asks: {whole:.1f} % of a core ({parts}), {whole / alone:.1f} × the broker alone")


def percent(pids: dict[str, int], seconds: int) -> dict[str, float]:
    """Percent of a core that each process uses, once it has settled."""
    time.sleep(SETTLES_S)
    before = cpu_s(pids)
    time.sleep(seconds)
    return {name: 100 * (now - before[name]) / seconds for name, now in cpu_s(pids).items()}


if __name__ == "__main__":
    main()
