"""Clients of librdkafka are closed in threads of their own, which may wait for ever.

To close one joins its threads, and they end once nobody refers to their brokers any more. A question to a
coordinator that is open then may lose its answer, and refers to one for ever (seen with 2.16; its issue 4674 is of
the kind). So no thread that has anything else to do closes a client, nor leaves it to Python's collector, which would
do it in whichever thread it runs: the event loop's, too.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

log = logging.getLogger(__name__)

CLOSE_S = 10.0  # how long who ends waits: for its group to hear of it, and its threads to be gone


def close_client(client: Consumer | AdminClient, within_s: float = 0.0) -> bool:
    """Close a client that nobody uses any more; whether it was closed `within_s`. Call-backs run in another thread."""
    thread = threading.Thread(target=_close, args=(client,), name="closing", daemon=True)
    thread.start()
    thread.join(within_s)
    return not thread.is_alive()


def close_member(consumer: Consumer, name: str) -> None:
    """Leave the group and close; blocking, for CLOSE_S at most: then the group finds out by itself."""
    if not close_client(consumer, CLOSE_S):
        log.warning("%s: its consumer is not closed after %g s, and left to itself", name, CLOSE_S)


def _close(client: Consumer | AdminClient) -> None:
    client.__exit__(None, None, None)  # all that an AdminClient has
