"""Questions to the brokers beside the transactions, asked again while leaders and coordinators move.

A client of librdkafka goes on asking a broker that is gone where it remembers it as a leader or coordinator
(its issue 5511): so a question that failed is asked with a new client, which remembers nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streaming.errors import kafka_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Answer = TypeVar("Answer")

# leaders and coordinators move, brokers restart: it passes
MOVING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,  # a new leader that does not know its high watermark yet (KIP-207)
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._NOENT,  # no leader known at this moment
}

ANSWER_S = 5.0  # how long a broker may take to answer; then it may be another one's turn
ASK_S = 60.0  # how long a question is asked again


class Admin:
    """The AdminClient of one app; any thread may use it, and replace it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self.client = AdminClient(self._config)

    def replace(self, failed: AdminClient) -> None:
        """Use a new client from now on, unless another thread has seen to it."""
        if self.client is failed:
            self.client = AdminClient(self._config)

    def ask(self, question: Callable[[AdminClient], Answer]) -> Answer:
        """What `question` finds out from a client, asked again while it raises what passes.

        Blocking. Raises the KafkaException that does not pass, or did not within ASK_S.
        """
        deadline = time.monotonic() + ASK_S
        while True:
            client = self.client
            try:
                return question(client)
            except KafkaException as exc:
                if kafka_error(exc).code() not in MOVING or time.monotonic() > deadline:
                    raise
            self.replace(client)
            time.sleep(0.1)
