"""Questions to the brokers beside the transactions, asked again while leaders and coordinators move.

A client of librdkafka goes on asking a broker that is gone where it remembers it as a leader or coordinator
(its issue 5511): so a question that failed is asked with a new client, which remembers nothing. What one client
had to learn by waiting the others need not: they are given up with it.

Where logs begin and end, and a group's offsets, are asked by a consumer: the admin client's own questions for
them can end the process while brokers die (librdkafka issues 5040 and 5397).
"""

from __future__ import annotations

import threading
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
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP

from streaming.closing import CLOSE_S, close_client
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
    KafkaError._UNKNOWN_PARTITION,  # a broker that has just come back knows a topic, and not yet all of it
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
STABLE_S = 1.0  # how long offsets are waited for, at least, before somebody's transaction is held to be open
ANSWER_S = 5.0  # how long a broker may take to answer; then it may be another one's turn
ASK_S = 60.0  # how long a question is asked again


class _Asked(Generic[Client]):
    """A client, and how many threads ask it just now."""

    def __init__(self, client: Client) -> None:
        self.client, self.users, self.given_up = client, 0, False


class Admin:
    """What one app asks the brokers; any thread may. Offsets are those of `group`. To be closed: `close` or `with`."""

    def __init__(self, config: Mapping[str, Any], group: str | None = None) -> None:
        self._config, self._group = {**config}, group or "ask"
        self._lock = threading.Lock()
        self._clients: dict[str, _Asked[Any]] = {}  # by what they are for, made when first asked

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def meet_coordinator(self) -> None:
        """Make the clients that ask for the group's offsets: they find its coordinator until they are asked."""
        for isolation in (READ_UNCOMMITTED, READ_COMMITTED):
            self._leave(self._take(isolation, partial(self._reader, isolation)))

    def close(self, within_s: float = CLOSE_S) -> None:
        """Close the clients, those that are asked just now once they are not; waits `within_s` for each at most."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
            for asked in clients:
                asked.given_up = True
            unused = [asked for asked in clients if not asked.users]
        for asked in unused:
            close_client(asked.client, within_s)

    def ask(self, question: Callable[[AdminClient], Answer], within_s: float = ASK_S) -> Answer:
        """What `question` finds out from a client; a new one is asked again while it raises what passes.

        Blocking. Raises the KafkaException or TimeoutError that does not pass, or did not `within_s`.
        """
        return self._ask("admin", lambda: AdminClient({**self._config}), question, within_s)

    def create(self, topic: NewTopic) -> None:
        """Create a topic, unless it is there. Blocking; raises as `ask` does."""
        try:
            self.ask(lambda client: client.create_topics([topic])[topic.topic].result(61))
        except KafkaException as exc:
            if kafka_error(exc).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

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

        return self._ask(isolation, partial(self._reader, isolation), question, within_s)

    def offsets(self, tps: Sequence[TP], within_s: float = ASK_S) -> dict[TP, int]:
        """What the group has committed, absent where there is nothing; blocking; raises as `ask` does."""
        return self._offsets(tps, READ_UNCOMMITTED, ANSWER_S, within_s)

    def stable_offsets(self, tps: Sequence[TP]) -> dict[TP, int] | None:
        """The same, None while a transaction on them is open (KIP-447).

        Then librdkafka asks on until its time is over, and does not say that it was answered: so the coordinator
        is asked first whether it answers at all.
        """
        began = time.monotonic()
        self.offsets(tps)
        waits_s = max(STABLE_S, 2 * (time.monotonic() - began))
        try:
            return self._offsets(tps, READ_COMMITTED, waits_s, 0)
        except KafkaException as exc:
            if kafka_error(exc).code() not in MOVING:
                raise
            return None

    def _offsets(
        self, tps: Sequence[TP], isolation: str, answer_s: float, within_s: float
    ) -> dict[TP, int]:
        def question(client: Consumer) -> dict[TP, int]:
            try:
                found = client.committed([TopicPartition(*tp) for tp in tps], timeout=answer_s)
            except KafkaException as exc:
                if kafka_error(exc).code() != KafkaError.GROUP_ID_NOT_FOUND:
                    raise
                return {}
            for at in found:
                if at.error is not None:
                    raise KafkaException(at.error)
            return {TP(at.topic, at.partition): at.offset for at in found if at.offset >= 0}

        return self._ask(isolation, partial(self._reader, isolation), question, within_s)

    def _reader(self, isolation: str) -> Consumer:
        """It joins no group and reads nothing."""
        return Consumer(
            {
                **self._config,
                "group.id": self._group,
                "isolation.level": isolation,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 100,
            }
        )

    def _ask(
        self,
        kind: str,
        make: Callable[[], Client],
        question: Callable[[Client], Answer],
        within_s: float,
    ) -> Answer:
        deadline = time.monotonic() + within_s
        while True:
            asked = self._take(kind, make)
            try:
                return question(asked.client)
            except (KafkaException, TimeoutError) as exc:
                passes = isinstance(exc, KafkaException) and kafka_error(exc).code() in MOVING
                if passes or isinstance(exc, TimeoutError):
                    self._give_up(asked)
                if not passes or time.monotonic() > deadline:
                    raise
            finally:
                self._leave(asked)
            time.sleep(0.1)

    def _take(self, kind: str, make: Callable[[], Client]) -> _Asked[Client]:
        with self._lock:
            asked = self._clients.get(kind)
            if asked is None:
                asked = self._clients[kind] = _Asked(make())
            asked.users += 1
            return asked

    def _leave(self, asked: _Asked[Any]) -> None:
        with self._lock:
            asked.users -= 1
            unused = asked.given_up and not asked.users
        if unused:
            close_client(asked.client)

    def _give_up(self, asked: _Asked[Any]) -> None:
        """Use new clients from now on, unless another thread has seen to it."""
        if not asked.given_up:
            self.close(0)
