"""Questions to the brokers beside the transactions, asked again while leaders and coordinators move.

A client of librdkafka goes on asking a broker that is gone where it remembers it as a leader or coordinator
(its issue 5511): so a question that failed is asked with a new client, which remembers nothing. Where logs begin
and end is asked by a consumer: the admin client's own question for it can end the process while brokers die.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from faust.types import TP

from streaming.errors import kafka_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Answer = TypeVar("Answer")
Client = TypeVar("Client")

EARLIEST, LATEST = OFFSET_BEGINNING, OFFSET_END

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
    KafkaError._DESTROY_BROKER,  # the broker that was asked left the cluster meanwhile
    KafkaError._NOENT,  # no leader known at this moment
}

READ_COMMITTED, READ_UNCOMMITTED = "read_committed", "read_uncommitted"
ANSWER_S = 5.0  # how long a broker may take to answer; then it may be another one's turn
ASK_S = 60.0  # how long a question is asked again


class Asked(Generic[Client]):
    """A client for questions; any thread may use it, and replace it."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self.client = make()

    def replace(self, failed: Client) -> None:
        """Use a new client from now on, unless another thread has seen to it."""
        if self.client is failed:
            self.client = self._make()

    def ask(self, question: Callable[[Client], Answer], within_s: float = ASK_S) -> Answer:
        """What `question` finds out from a client; a new one is asked again while it raises what passes.

        Blocking. Raises the KafkaException or TimeoutError that does not pass, or did not `within_s`.
        """
        deadline = time.monotonic() + within_s
        while True:
            client = self.client
            try:
                return question(client)
            except (KafkaException, TimeoutError) as exc:
                self.replace(client)
                passes = isinstance(exc, KafkaException) and kafka_error(exc).code() in MOVING
                if not passes or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)


class Admin(Asked[AdminClient]):
    """What one app asks the brokers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(lambda: AdminClient({**config}))
        self._config = {**config}
        self._logs: dict[str, Asked[Consumer]] = {}  # made when first asked

    def log_ends(
        self,
        tps: Sequence[TP],
        where: int,
        isolation: str = READ_UNCOMMITTED,
        within_s: float = ASK_S,
    ) -> dict[TP, int]:
        """First (`where` EARLIEST) or next offset (LATEST) of each log: the last stable one when read_committed.

        Blocking; raises as `ask` does.
        """
        if not tps:
            return {}

        def question(client: Consumer) -> dict[TP, int]:
            asked = [TopicPartition(*tp, where) for tp in tps]
            found = client.offsets_for_times(asked, timeout=ANSWER_S)
            for at in found:
                if at.error is not None:
                    raise KafkaException(at.error)
            ends = {TP(at.topic, at.partition): at.offset for at in found}
            if min(ends.values()) < 0:  # a leader that is gone, without an error
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
            return ends

        logs = self._logs.get(isolation)
        if logs is None:  # two threads may make two: the later one stays
            logs = self._logs[isolation] = Asked(partial(_reader, self._config, isolation))
        return logs.ask(question, within_s)


def _reader(config: Mapping[str, Any], isolation: str) -> Consumer:
    """It joins no group and reads nothing."""
    return Consumer({**config, "group.id": "ask", "isolation.level": isolation})
