"""A part of the local stack: a child process that is kept running.

    start --> running --ready--> ready
      ^          \\________________/ \\
      |____ at once, or later and later when it keeps ending young
"""

from __future__ import annotations

import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from deploy.local.processes import Child

YOUNG_S = 10.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


@dataclass
class Part:
    """A child that is kept running, and the question whether it is ready."""

    child: Child
    answers: Callable[[], bool]
    started_s: float = 0.0
    ended_young: int = 0  # times in a row
    due_s: float | None = None  # when it is started again; None while it runs
    waiting: bool = False  # started again, not yet ready

    @property
    def name(self) -> str:
        return self.child.name

    def start(self) -> None:
        self.child.start()
        self.started_s = time.monotonic()
        self.due_s = None

    def ready(self) -> bool:
        return self.child.running and self.answers()

    def died(self, now_s: float) -> float:
        """Note its end; seconds until it is to be started again.

        One that was killed is started at once; one that ends itself young has a reason that lasts.
        """
        killed = self.child.returncode == -signal.SIGKILL
        young = not killed and now_s - self.started_s < YOUNG_S
        self.ended_young = self.ended_young + 1 if young else 0
        pause_s = FIRST_PAUSE_S * 2.0 ** (self.ended_young - 2) if self.ended_young > 1 else 0.0
        pause_s = min(pause_s, LONGEST_PAUSE_S)
        self.due_s = now_s + pause_s
        return pause_s


def answers(url: str) -> bool:
    """True when the URL, one of our own, answers 200."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=1, context=unverified) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def ended(returncode: int | None) -> str:
    """How a process ended, in words."""
    if returncode is not None and returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with code {returncode}"
