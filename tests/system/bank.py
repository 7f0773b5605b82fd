"""A client of the bank's topics: commands by a plain producer, outcomes by a plain reader."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FINAL = (
    b"streambank.transaction.TransactionCompleted",
    b"streambank.transaction.TransactionFailed",
    b"streambank.transaction.TransactionCancelled",
)


class Client:
    """Sends commands under the right keys and remembers every event of the topics it tails."""

    def __init__(self, bootstrap: str, prefix: str, tails: Iterable[str]) -> None:
        self.codec = Codec()
        self.prefix = prefix
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 2,
            }
        )
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{prefix}client-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        self.seen: list[Any] = []  # messages of all tailed topics, in the order of reading
        at = []
        for name in tails:
            topic = self.consumer.list_topics(f"{prefix}{name}", 10).topics[f"{prefix}{name}"]
            at += [TopicPartition(f"{prefix}{name}", p, 0) for p in topic.partitions]
        self.consumer.assign(at)

    def close(self) -> None:
        self.consumer.close()

    def send(self, service: str, key: str, command: Any, **headers: bytes) -> bytes:
        """Returns the command's id."""
        command_id = headers.pop("ce_id", str(uuid.uuid4()).encode())
        kind = f"streambank.{service}.{type(command).__name__}".encode()
        given = {
            "ce_id": command_id,
            "ce_source": b"/gateway",
            "ce_type": kind,
            "correlation_id": command_id,
            **headers,
        }
        self.raw(f"{service}.inbox", key.encode(), self.codec.encode(command), given)
        return command_id

    def raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes],
        partition: int = -1,
    ) -> None:
        self.producer.produce(
            f"{self.prefix}{topic}", value, key, partition, headers=[*headers.items()]
        )
        self.producer.poll(0)

    def flush(self) -> None:
        assert not self.producer.flush(30), "the broker did not take all commands"

    def read(self, timeout_s: float = 0.1) -> None:
        for message in self.consumer.consume(5_000, timeout_s):
            assert message.error() is None, message.error()
            self.seen.append(message)

    def wait(self, met: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
        """What `met` answers once it is true; reads events in the meantime."""
        deadline_s = time.monotonic() + timeout_s
        while not (answer := met()):
            assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s: {what}"
            self.read()
        return answer

    def said(self, kind: type, **fields: Any) -> list[Any]:
        """Events of a kind that were read, with these values (dotted names by __)."""
        name = f".{kind.__name__}".encode()
        events = [
            self.codec.decode(m.value())
            for m in self.seen
            if dict(m.headers() or ()).get("ce_type", b"").endswith(name)
        ]
        return [event for event in events if all(_at(event, k) == v for k, v in fields.items())]

    def final(self, transaction_id: str) -> Any | None:
        """The end of a transaction, None while it has none."""
        for message in self.seen:
            headers = dict(message.headers() or ())
            if (
                headers.get("ce_type") in FINAL
                and headers.get("ce_subject") == transaction_id.encode()
            ):
                return self.codec.decode(message.value())
        return None

    def ended(self, *transaction_ids: str, timeout_s: float = 60.0) -> list[Any]:
        """The ends of these transactions, waited for."""
        self.flush()
        return [
            self.wait(lambda t=t: self.final(t), f"the end of {t}", timeout_s)
            for t in transaction_ids
        ]


def _at(event: Any, path: str) -> Any:
    for name in path.split("__"):
        event = getattr(event, name)
    return event
