"""perform: requested effects out into the world, their results back into the owners' inboxes.

    <effect>.inbox --request--> its downstream --result--> <owner>.inbox

At least once: an offset is committed only when the results of it and of all before it are
acknowledged by the broker. After a crash a request is asked again, with the same idempotency key,
and a result said twice is dropped by its owner. One attempt is made (with its short retries) and
always reported, as unanswered where nobody said; asking later again is the owner's affair.

Each downstream has a bulkhead and a breaker of its own, each effect a topic of its own. Where many
downstreams share a topic an effect bounds the line before each of them: what finds it full goes
back to its owner at once, so that the requests behind it go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from prometheus_client import Counter, Histogram

from agents.envelope import Envelope, Headers, Input, dead_headers, given
from logs import Context, bound, trace_id
from resilience.breaker import Rejected
from resilience.bulkhead import CALLS, Full
from resilience.downstream import Away, Downstreams
from resilience.retry import RETRIES
from schemas.errors import Unreadable
from streaming import close_member, is_fatal, metrics
from topics.catalog import DEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agents.effect import Caller, Effect, Request, Result
    from agents.transact import Codec
    from agents.wiring import Wiring

log = logging.getLogger(__name__)

AHEAD = 2_000  # requests of a partition under way
BEHIND = (
    5_000  # and with those that are done behind one of them; after a crash they are asked again
)

RESULTS = Counter("streambank_effects_total", "Effects by their result", ["downstream", "outcome"])
CALL_S = Histogram("streambank_effect_seconds", "Duration of one effect", ["downstream"])


@dataclass(slots=True)
class Progress:
    """One partition: which requests are under way, and up to where all are done.

    Offsets have gaps, for a transaction's marker takes one.
    """

    next: int  # everything below it is done
    taken_in: deque[int] = field(default_factory=deque)
    done: set[int] = field(default_factory=set)

    @property
    def under_way(self) -> int:
        return len(self.taken_in) - len(self.done)

    @property
    def enough(self) -> bool:
        return self.under_way >= AHEAD or len(self.taken_in) >= BEHIND

    def take(self, offset: int) -> None:
        self.taken_in.append(offset)

    def finish(self, offset: int) -> None:
        self.done.add(offset)
        while self.taken_in and self.taken_in[0] in self.done:
            self.next = self.taken_in.popleft() + 1
            self.done.remove(self.next - 1)


class Way:
    """One effect while perform runs: its caller, and the downstreams that it asks."""

    def __init__(self, effect: Effect, caller: Caller) -> None:
        self.effect, self.caller = effect, caller
        self.downstreams = Downstreams(effect.timeout_s, effect.line, calls=effect.at_once)
        self.envelope = Envelope(effect.owner, source="perform")

    async def ask(self, request: Request, headers: dict[str, str]) -> Result:
        """What one attempt came to; never raises for what a downstream does."""
        downstream = self.downstreams[self.caller.downstream(request)]
        started_s = time.monotonic()
        try:
            result = await downstream.ask(partial(self.caller.call, request, headers))
        except (Away, Rejected, Full) as exc:
            result = self.caller.unanswered(request, exc)
        CALL_S.labels(self.effect.name).observe(time.monotonic() - started_s)
        RESULTS.labels(self.effect.name, str(result.outcome)).inc()
        return result


class Perform:
    """The consumer of requests. `run` until `stop`; ready once it has its partitions."""

    def __init__(self, wiring: Wiring, codec: Codec, effects: Sequence[Effect]) -> None:
        self.wiring = wiring
        self.codec = codec
        self.effects = {wiring.named(effect.requests): effect for effect in effects}
        self.ready = False
        self.last_poll_s = 0.0
        self.stopped: set[tuple[str, int]] = set()  # partitions that a record stopped
        self._ways: dict[str, Way] = {}
        self._progress: dict[tuple[str, int], Progress] = {}
        self._committed: dict[tuple[str, int], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._kafka = ThreadPoolExecutor(1, "perform-kafka")
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Take in nothing more; `run` ends when what is under way has been answered."""
        self._stop.set()

    async def run(self) -> None:
        """Raises KafkaException when the broker refuses us for good."""
        loop = asyncio.get_running_loop()
        metrics.STOPPED.labels("perform").set(0)
        self._producer = Producer(_producer(self.wiring))
        self._consumer = Consumer(
            self.wiring.consumer("perform", **{"auto.offset.reset": "earliest"})
        )
        self._consumer.subscribe(
            list(self.effects), on_assign=self._assigned, on_revoke=self._revoked
        )
        polling = asyncio.create_task(self._poll_deliveries())
        async with AsyncExitStack() as ways:
            for topic, effect in self.effects.items():
                caller = await ways.enter_async_context(effect.open())
                self._ways[topic] = Way(effect, caller)
            try:
                while not self._stop.is_set():
                    self._watch()
                    for record in await loop.run_in_executor(self._kafka, self._poll):
                        self._take(record)
                await self._finish()
            finally:
                await loop.run_in_executor(self._kafka, self._close)
                polling.cancel()
                self._kafka.shutdown(wait=False)

    async def _finish(self) -> None:
        """Wait for what is under way, as long as an attempt may take; the rest is asked again."""
        longest_s = max(effect.timeout_s for effect in self.effects.values())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=(1 + RETRIES) * longest_s)
        for task in self._tasks:
            task.cancel()

    # in the Kafka thread

    def _poll(self) -> list[Any]:
        self._commit()
        self._flow()
        first = self._consumer.poll(0.1)
        self.last_poll_s = time.monotonic()
        if first is None:
            return []
        return [first, *self._consumer.consume(CALLS * 4, 0)]

    def _flow(self) -> None:
        """Pause partitions that have enough under way, and those that a record stopped."""
        for at, progress in list(self._progress.items()):
            where = [TopicPartition(*at)]
            if progress.enough or at in self.stopped:
                self._consumer.pause(where)
            else:
                self._consumer.resume(where)

    def _commit(self) -> None:
        offsets = {at: progress.next for at, progress in list(self._progress.items())}
        moved = {at: n for at, n in offsets.items() if n > self._committed.get(at, -1)}
        if not moved:
            return
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*at, n) for at, n in moved.items()], asynchronous=False
            )
        except KafkaException as exc:
            if is_fatal(exc.args[0]):
                raise
            log.warning("offsets of requests are not committed yet: %s", exc.args[0])
        else:
            self._committed.update(moved)

    def _assigned(self, consumer: Any, partitions: list[Any]) -> None:
        for at in consumer.committed(partitions, timeout=10) if partitions else ():
            start = at.offset if at.offset >= 0 else 0
            key = (at.topic, at.partition)
            self._progress[key] = Progress(next=start)
            self._committed[key] = start
            at.offset = start
        consumer.assign(
            [TopicPartition(*key, progress.next) for key, progress in self._progress.items()]
        )
        self.ready = True

    def _revoked(self, consumer: Any, partitions: list[Any]) -> None:
        self._commit()
        self.ready = False
        self._progress.clear()
        self._committed.clear()
        self.stopped.clear()
        metrics.STOPPED.labels("perform").set(0)
        consumer.unassign()

    def _close(self) -> None:
        self._commit()
        close_member(self._consumer, "perform")
        self._producer.flush(5)

    # in the event loop

    def _watch(self) -> None:
        """A bug in the work on one request ends the process: its request is asked again."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()

    def _take(self, record: Any) -> None:
        at = (record.topic(), record.partition())
        error = record.error()
        if error is not None:
            if is_fatal(error):
                raise KafkaException(error)
            log.warning("reading requests: %s", error)
            return
        progress = self._progress.get(at)
        if progress is None or at in self.stopped:
            return
        progress.take(record.offset())
        self._tasks.add(asyncio.create_task(self._perform(record, at, progress)))

    async def _perform(self, record: Any, at: tuple[str, int], progress: Progress) -> None:
        source, way = _input(record), self._ways[at[0]]
        traceparent = source.headers.get("traceparent", b"").decode(errors="replace")
        with bound(Context(service="perform", trace_id=trace_id(traceparent))):
            try:
                request = self._read(way.effect, record)
            except Unreadable as why:
                await self._unreadable(way.effect, record, source, at, progress, why)
                return
            carried = {"traceparent": traceparent} if traceparent else {}
            result = await way.ask(request, carried)
            await self._say(way, source, result)
        progress.finish(record.offset())

    def _read(self, effect: Effect, record: Any) -> Request:
        request = self.codec.decode(record.value() or b"")
        if not isinstance(request, effect.types):
            raise Unreadable(f"{type(request).__name__} is no request of {effect.name}")
        return request

    async def _unreadable(
        self,
        effect: Effect,
        record: Any,
        source: Input,
        at: tuple[str, int],
        progress: Progress,
        why: Unreadable,
    ) -> None:
        place = f"{at[0]}-{at[1]}@{record.offset()}"
        if not source.foreign and place not in self.wiring.skip:
            self.stopped.add(at)
            metrics.STOPPED.labels("perform").set(len(self.stopped))
            log.error("%s can't be read, its partition stops: %s", place, why)
            return
        log.warning("dead letter %s: %s", source.place, why)
        headers = dead_headers(source, why)
        dead = self.wiring.named(effect.dead)
        await self._deliver(dead, record.key(), record.value(), headers)
        progress.finish(record.offset())

    async def _say(self, way: Way, source: Input, result: Result) -> None:
        effect, key = way.effect, way.effect.key(result).encode()
        shared = way.envelope.shared(source)
        headers, _ = way.envelope.event(shared, source.place, 0, type(result), key)
        topic = self.wiring.named(effect.results)
        await self._deliver(topic, key, self.codec.encode(result), headers)

    async def _deliver(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        """Until the broker has it."""
        loop = asyncio.get_running_loop()
        while True:
            delivered: asyncio.Future[KafkaError | None] = loop.create_future()
            self._producer.produce(
                topic, value, key, headers=[*headers], on_delivery=_tells(delivered)
            )
            error = await delivered
            if error is None:
                return
            log.error("a result is not written yet: %s", error)
            await asyncio.sleep(1)

    async def _poll_deliveries(self) -> None:
        while True:
            self._producer.poll(0)  # calls back, here in the event loop
            await asyncio.sleep(0.005 if len(self._producer) else 0.02)


def _tells(delivered: asyncio.Future[KafkaError | None]) -> Callable[[Any, Any], None]:
    def call(error: KafkaError | None, _message: Any) -> None:
        if not delivered.done():
            delivered.set_result(error)

    return call


def _input(record: Any) -> Input:
    return Input(
        record.topic(),
        record.partition(),
        record.offset(),
        record.timestamp()[1],
        given(record.headers()),
    )


def _producer(wiring: Wiring) -> dict[str, Any]:
    return {
        **wiring.kafka,
        "client.id": f"{wiring.namespace}perform.{wiring.instance}",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 2,
        "message.max.bytes": DEAD_BYTES,
        "message.timeout.ms": 30_000,
    }
