"""Waiting: the end of the event topics, so that a request can hear what became of its command.

    tail thread: events --key watched?--> event loop: decode --> each Watch on that aggregate

One consumer a process, assigned by hand to all partitions from their end, read_committed, in no
group. A record's key is its aggregate's id: of what nobody watches only its time is kept, where
reads need it (`Known`). A Watch is opened
before its command is produced, so nothing can pass between. What an event has to do with the
command its hearer finds in the headers: `causation_id` and `correlation_id` are the command's id.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition
from prometheus_client import Counter, Gauge

from gateway.rarely import Rarely
from schemas.errors import Unreadable
from streaming import close_client, is_fatal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.known import Known
    from schemas.codec import Codec

log = logging.getLogger(__name__)

SERVICES = (
    "user",
    "account",
    "transaction",
    "payment",
    "risk",
    "currency",
    "notification",
    "settlement",
    "reporting",
)
BATCH = 1_000
RETRY_S = 1.0
SETTINGS: Mapping[str, Any] = {
    "group.id": "gateway-tail",  # librdkafka wants a name; nothing is ever committed under it
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "latest",
    "fetch.queue.backoff.ms": 10,
    "fetch.error.backoff.ms": 100,
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
    "log_level": 2,  # what is worth telling comes through error_cb, as JSON
    "reconnect.backoff.max.ms": 1000,
}

HEARD = Counter("streambank_gateway_events_heard_total", "Events that a request waited for")
WATCHES = Gauge("streambank_gateway_watches", "Requests that wait for events")

Subject = tuple[str, bytes]  # service, aggregate id


@dataclass(frozen=True, slots=True)
class Heard:
    """One event and the command ids that it goes back to."""

    event: Any
    causation_id: str
    correlation_id: str

    def answers(self, command_id: str) -> bool:
        """True for what was decided about this command, at once or some facts later."""
        return command_id in (self.causation_id, self.correlation_id)


class Watch:
    """What is said about one aggregate from now on. Close it."""

    __slots__ = ("_queue", "_subject", "_waiting")

    def __init__(self, waiting: Waiting, subject: Subject) -> None:
        self._waiting, self._subject = waiting, subject
        self._queue: asyncio.Queue[Heard] = asyncio.Queue()

    async def next(self, timeout_s: float) -> Heard | None:
        """The next event; None when there was none in time."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        if timeout_s <= 0:
            return None
        try:
            return await asyncio.wait_for(self._queue.get(), timeout_s)
        except TimeoutError:
            return None

    def put(self, heard: Heard) -> None:
        self._queue.put_nowait(heard)

    def close(self) -> None:
        self._waiting.unwatch(self._subject, self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Waiting:
    """The tail of one process; `start` and `close` it on its event loop."""

    def __init__(
        self, kafka: Mapping[str, str], prefix: str, codec: Codec, known: Known | None = None
    ) -> None:
        self._kafka = dict(kafka)
        self._services = {f"{prefix}{service}.events": service for service in SERVICES}
        self._codec = codec
        self._watches: dict[Subject, list[Watch]] = {}
        self._listeners: dict[tuple[str, bytes], Callable[[Any], None]] = {}
        self._listened: set[str] = set()  # services that any listener hears
        self._stopping = threading.Event()
        self._live = False
        self._live_since_s = 0.0
        self._known = known
        self._rarely = Rarely()
        self._came_alive: asyncio.Event = asyncio.Event()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    @property
    def live(self) -> bool:
        """True while all event topics are read from a known place on."""
        return self._live

    @property
    def live_s(self) -> float:
        """For how many seconds that is so; 0: it is not."""
        return time.monotonic() - self._live_since_s if self._live else 0.0

    async def until_live(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._came_alive.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def watch(self, service: str, aggregate_id: str) -> Watch:
        """Hear what the service says about one aggregate, from now on."""
        subject = (service, aggregate_id.encode())
        watch = Watch(self, subject)
        self._watches.setdefault(subject, []).append(watch)
        WATCHES.inc()
        return watch

    def listen(self, service: str, events: Sequence[type], listener: Callable[[Any], None]) -> None:
        """Tell the listener, on the event loop, of each such event of the service, from the start."""
        for event in events:
            kind = f"streambank.{service}.{event.__name__}".encode()
            self._listeners[service, kind] = listener
        self._listened.add(service)

    def unwatch(self, subject: Subject, watch: Watch) -> None:
        watches = self._watches.get(subject, [])
        if watch in watches:
            watches.remove(watch)
            WATCHES.dec()
        if not watches:
            self._watches.pop(subject, None)

    def _run(self) -> None:
        """The tail thread: read until told to stop; a broken consumer is replaced."""
        while not self._stopping.is_set():
            consumer = Consumer({**SETTINGS, **self._kafka, "error_cb": self._on_error})
            try:
                consumer.assign(self._ends(consumer))
                self._became(True)
                self._read(consumer)
            except KafkaException as exc:
                self._rarely.warn("interrupted", f"the event topics can't be read: {exc}")
                self._stopping.wait(RETRY_S)
            finally:
                self._became(False)
                close_client(consumer)

    def _on_error(self, error: Any) -> None:
        self._rarely.warn(error.name(), f"the tail of the event topics: {error.str()}")

    def _ends(self, consumer: Consumer) -> list[TopicPartition]:
        """Every partition of the event topics, at the place where its next record will be."""
        topics = consumer.list_topics(timeout=5).topics
        missing = [name for name in self._services if name not in topics or topics[name].error]
        if missing:
            raise KafkaException(f"no topic {missing[0]} yet")
        ends = []
        for name in self._services:
            for partition in topics[name].partitions:
                place = TopicPartition(name, partition, OFFSET_END)
                place.offset = consumer.get_watermark_offsets(place, timeout=5)[1]
                ends.append(place)
        return ends

    def _became(self, live: bool) -> None:
        self._live_since_s = time.monotonic()
        self._live = live
        if live:
            self._call(self._came_alive.set)

    def _read(self, consumer: Consumer) -> None:
        services, watches, known = self._services, self._watches, self._known
        while not self._stopping.is_set():
            first = consumer.poll(0.2)
            if first is None:
                continue
            batch = []
            for message in (first, *consumer.consume(BATCH, 0)):
                if message.error() is not None:
                    self._on_error(message.error())
                    _raise_if_fatal(message.error())
                    continue
                subject = (services[message.topic() or ""], message.key() or b"")
                if known is not None and (value := message.value()) is not None:
                    known.heard(*subject, value, message.timestamp()[1])
                if subject in watches or subject[0] in self._listened:
                    batch.append((subject, message.value(), message.headers()))
            if batch:
                self._call(self._tell, batch)

    def _call(self, function: Any, *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: nobody waits
            self._stopping.set()

    def _tell(self, batch: Sequence[tuple[Subject, bytes, Any]]) -> None:
        for subject, value, headers in batch:
            given = dict(headers or ())
            watches = self._watches.get(subject, ())
            listener = self._listeners.get((subject[0], given.get("ce_type", b"")))
            if not watches and listener is None:
                continue
            try:
                event = self._codec.decode(value)
            except Unreadable as exc:  # a newer writer's: the row tells what became of it
                log.warning("an event of %s can't be read: %s", subject[0], exc)
                continue
            if listener is not None:
                listener(event)
            heard = Heard(
                event,
                (given.get("causation_id") or b"").decode(errors="replace"),
                (given.get("correlation_id") or b"").decode(errors="replace"),
            )
            if watches:
                HEARD.inc()
            for watch in watches:
                watch.put(heard)


def _raise_if_fatal(error: Any) -> None:
    """librdkafka mends what is not fatal; what it can't, a new consumer does."""
    if is_fatal(error) or error.name() in ("OFFSET_OUT_OF_RANGE", "_AUTO_OFFSET_RESET"):
        raise KafkaException(error)
