"""A worker that can be watched from outside while it dies: `pipeline.py worker`, and a byte per service.

The byte is 1 while a transaction of the service is open; it lives in a mapped file, so it says after a kill -9
whether the kill came inside of a transaction. `CUT=<service>:<point>:<n>` kills the process itself at the n-th
pass of a named point of that service's cycle.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pipeline
import streaming
from streaming import DriverConfig

MARKS = Path(os.environ["MARKS"])
CUT = os.environ.get("CUT", "").split(":")
OPENED, CLOSED = {"begun"}, {"committed", "aborted"}


class Mark:
    """The byte of one service, and the chosen end of its process."""

    def __init__(self, service: str, instance: str) -> None:
        path = MARKS / f"{instance}.{service}"
        path.write_bytes(b"0")
        with path.open("r+b") as file:
            self.byte = mmap.mmap(file.fileno(), 1)
        self.cut = (CUT[1], int(CUT[2])) if CUT[0] == service else None
        self.passes = 0

    def __call__(self, point: str) -> None:
        if point in OPENED:
            self.byte[0:1] = b"1"
        elif point in CLOSED:
            self.byte[0:1] = b"0"
        if self.cut is not None and point == self.cut[0]:
            self.passes += 1
            if self.passes == self.cut[1]:
                sys.stderr.write(f"cut at {point}\n")
                sys.stderr.flush()
                os.kill(os.getpid(), signal.SIGKILL)


def marked(settings: Any, name: str) -> Any:
    """`pipeline._app`, with a mark in the driver."""

    def driver(**options: Any) -> DriverConfig:
        return DriverConfig(**options, faults=Mark(name, settings.instance))

    streaming.DriverConfig = driver  # type: ignore[misc, assignment]
    return _app(settings, name)


_app = pipeline._app
pipeline._app = marked

if __name__ == "__main__":
    sys.exit(pipeline.main(sys.argv[1:]))
