"""Asks who holds a group's partitions, in several threads until it is told to end.

Half of them ask one client for all, the others give up one that was silent.

    python -m tests.streaming.asker BOOTSTRAP GROUP

Writes how often it was answered, and how often not.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from itertools import cycle
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streaming import Admin, partition_owners

if TYPE_CHECKING:
    from collections.abc import Callable

ENDED = threading.Event()


def ask(bootstrap: str, group: str, counts: Counter[str]) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap, "metadata.recovery.strategy": "none"})
    go_on_asking(counts, lambda wait_s: partition_owners(client, group, wait_s))


def ask_another(bootstrap: str, group: str, counts: Counter[str]) -> None:
    with Admin({"bootstrap.servers": bootstrap}) as admin:
        go_on_asking(
            counts,
            lambda wait_s: admin.ask(lambda client: partition_owners(client, group, wait_s), 0),
        )


def go_on_asking(counts: Counter[str], question: Callable[[float], object]) -> None:
    waits_s = cycle((0.3, 0.5, 1.0, 2.0))
    while not ENDED.wait(0.01):
        try:
            question(next(waits_s))
            counts["answered"] += 1
        except KafkaException:
            counts["silent"] += 1


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: ENDED.set())
    counts: Counter[str] = Counter()
    threads = [
        threading.Thread(target=how, args=(*sys.argv[1:], counts))
        for how in (ask, ask_another)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"answered {counts['answered']}, silent {counts['silent']}")


if __name__ == "__main__":
    main()
