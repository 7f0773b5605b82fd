"""Asks who holds a group's partitions, in several threads until it is told to end, each with one client for all.

    python -m tests.streaming.asker BOOTSTRAP GROUP

Writes how often it was answered, and how often not.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from itertools import cycle

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streaming import partition_owners

ENDED = threading.Event()


def ask(bootstrap: str, group: str, counts: Counter[str]) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "metadata.recovery.strategy": "none"})
    waits_s = cycle((0.3, 0.5, 1.0, 2.0))
    while not ENDED.wait(0.01):
        try:
            partition_owners(admin, group, next(waits_s))
            counts["answered"] += 1
        except KafkaException:
            counts["silent"] += 1


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: ENDED.set())
    counts: Counter[str] = Counter()
    threads = [threading.Thread(target=ask, args=(*sys.argv[1:], counts)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"answered {counts['answered']}, silent {counts['silent']}")


if __name__ == "__main__":
    main()
