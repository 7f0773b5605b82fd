"""Commands out: an idempotent producer, and 202 only after the broker has acknowledged.

    send --produce--> librdkafka --acks=all--> broker
         <-- future <-- poll, every POLL_S while anything is under way <--

The event loop polls itself, so that no thread contends with it for the interpreter's lock.
A record that is not acknowledged within TIMEOUT_S ends in a Problem 503, which means 'not known to
be accepted'. At most WAITING_LIMIT records are under way; beyond it a caller is sent away at once.
"""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, Producer
from prometheus_client import Counter, Gauge, Histogram

from gateway.errors import Problem
from gateway.rarely import Rarely
from streaming import is_fatal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.codec import Codec

TIMEOUT_S = 5.0
WAITING_LIMIT = 20_000
POLL_S = 0.001
IDLE_POLL_S = 0.1  # what else librdkafka has to tell, such as a broker that is away
SETTINGS: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 2,
    "partitioner": "murmur2_random",  # every client in any language finds the same partition
    "compression.type": "lz4",
    "delivery.timeout.ms": int(TIMEOUT_S * 1000),
    "request.timeout.ms": int(TIMEOUT_S * 1000) - 1000,
    "socket.timeout.ms": int(TIMEOUT_S * 1000),
    "reconnect.backoff.max.ms": 1000,
    "retry.backoff.ms": 20,
    "log_level": 2,  # what is worth telling comes through error_cb, as JSON
    "queue.buffering.max.messages": 2 * WAITING_LIMIT,
}

SENT = Counter("streambank_gateway_commands_total", "Commands handed to the broker", ["outcome"])
ACK_S = Histogram(
    "streambank_gateway_ack_seconds",
    "From handing a command over to the broker's acknowledgement",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
UNDER_WAY = Gauge("streambank_gateway_commands_under_way", "Commands not acknowledged yet")
_ACKED, _FAILED, _REFUSED = (SENT.labels(name) for name in ("acknowledged", "failed", "refused"))


class Commands:
    """The producer of one process; `start` and `close` it on its event loop."""

    def __init__(self, kafka: Mapping[str, str], prefix: str, codec: Codec) -> None:
        self._kafka = dict(kafka)
        self._prefix = prefix
        self._codec = codec
        self._types: dict[type, tuple[str, bytes]] = {}
        self._under_way = 0
        self._broken = False
        self._rarely = Rarely()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = self._new_producer()
        self._next_poll = self._loop.call_later(IDLE_POLL_S, self._poll)

    def close(self) -> None:
        self._next_poll.cancel()
        self._producer.flush(TIMEOUT_S + 1)

    def _new_producer(self) -> Producer:
        return Producer({**SETTINGS, **self._kafka, "error_cb": self._on_error})

    @property
    def under_way(self) -> int:
        return self._under_way

    async def send(
        self,
        service: str,
        key: str,
        command: Any,
        *,
        command_id: str,
        traceparent: str,
        actor_id: str,
        origin: str = "",
    ) -> None:
        """Put a command into `<service>.inbox`; returns when the broker has it. Problem 503 else.

        `origin`: the client's address, a space, the request's id; every event it causes carries it.
        """
        if self._under_way >= WAITING_LIMIT:
            _REFUSED.inc()
            raise Problem("OVERLOADED", headers={"Retry-After": "1"})
        topic, kind = self._type(service, command)
        now = time.time()
        raw_id, actor = command_id.encode(), actor_id.encode()
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", raw_id),
            ("ce_source", b"/gateway"),
            ("ce_type", kind),
            ("ce_time", _rfc3339(now)),
            ("content-type", b"application/avro"),
            ("traceparent", traceparent.encode()),
            ("correlation_id", raw_id),
            ("actor", actor),
            ("origin", origin.encode()),
        ]
        future: asyncio.Future[None] = self._loop.create_future()

        def delivered(error: Any, _message: Any) -> None:
            self._resolve(future, error)

        value = self._codec.encode(command)
        try:
            self._producer.produce(
                topic, value, key.encode(), headers=headers, on_delivery=delivered
            )
        except (BufferError, KafkaException) as exc:
            _REFUSED.inc()
            self._rarely.warn("refused", f"commands can't be handed over: {exc}")
            raise Problem("OVERLOADED", headers={"Retry-After": "1"}) from exc
        self._under_way += 1
        if self._under_way == 1:
            self._poll_in(POLL_S)
        started = time.perf_counter()
        await future
        ACK_S.observe(time.perf_counter() - started)

    def _type(self, service: str, command: Any) -> tuple[str, bytes]:
        kind = type(command)
        known = self._types.get(kind)
        if known is None:
            name = f"streambank.{service}.{kind.__name__}".encode()
            known = self._types[kind] = (f"{self._prefix}{service}.inbox", name)
        return known

    def _poll_in(self, delay_s: float) -> None:
        self._next_poll.cancel()
        self._next_poll = self._loop.call_later(delay_s, self._poll)

    def _poll(self) -> None:
        """Take what librdkafka has to tell, without waiting for it: `_resolve`, `_on_error`."""
        self._producer.poll(0)
        if self._broken:
            self._replace()
        UNDER_WAY.set(self._under_way)
        self._poll_in(POLL_S if self._under_way else IDLE_POLL_S)

    def _resolve(self, future: asyncio.Future[None], error: Any) -> None:
        self._under_way -= 1
        if error is None:
            _ACKED.inc()
            if not future.done():
                future.set_result(None)
            return
        _FAILED.inc()
        self._rarely.warn("lost", f"commands are not acknowledged: {error.str()}")
        if not future.done():
            future.set_exception(Problem("BROKER_UNAVAILABLE", headers={"Retry-After": "2"}))

    def _on_error(self, error: Any) -> None:
        self._broken = self._broken or is_fatal(error)
        self._rarely.warn(error.name(), f"the producer: {error.str()}")

    def _replace(self) -> None:
        """A producer that failed for good answers what it holds with errors, and a new one goes on."""
        broken, self._producer = self._producer, self._new_producer()
        self._broken = False
        broken.purge()
        broken.poll(0)


def _rfc3339(seconds: float) -> bytes:
    whole = int(seconds)
    return b"%b.%03dZ" % (_second(whole), int((seconds - whole) * 1000))


@lru_cache(maxsize=2)
def _second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
