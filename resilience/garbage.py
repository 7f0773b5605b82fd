"""The garbage collector of a process whose messages and requests hold no cycles."""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Let the garbage collector look seldom, and never at what is loaded by now.

    Messages, rows and requests die by their reference count. With Python's defaults a fifth of a
    transfer's CPU goes into walking the rows that are kept (`bench/step.py`: 185 µs of 850; so 25),
    and a tenth of an accepted command's (`bench/gateway.py`); and a full collection stops the loop:
    0.2 s with 80,000 kept rows.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 1_000)
