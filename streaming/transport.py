"""Faust's transport on librdkafka: delivery to agents, sends outside of transactions, creation of topics."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import NewTopic
from faust.transport import base
from faust.transport.conductor import Conductor as _Conductor
from faust.transport.producer import Producer as _Producer
from faust.types import TP, RecordMetadata
from mode.utils.times import want_seconds

from streaming.admin import Admin
from streaming.consumer import Consumer
from streaming.errors import Misuse

log = logging.getLogger(__name__)

DELIVERY_S = 30  # after which a record that was sent outside of agents is given up
FLUSH_S = DELIVERY_S


class Conductor(_Conductor):
    """Knows which agents read a source partition; the cycle delivers to them itself."""

    def _build_handler(self, tp: TP, channels: Any) -> Any:
        return None

    def add(self, topic: Any) -> None:
        """Register a topic to be read. Raises Misuse once the group was joined without it."""
        app: Any = self.app
        sources = app._consumer and app._consumer.sources  # there is none before the start
        if sources is not None and not set(topic.topics) <= {*sources}:
            raise Misuse(
                f"{app.conf.id} reads {', '.join(topic.topics)} only now, after it joined its group: read it in "
                f"an agent, or from the start of a task"
            )
        super().add(topic)

    def channels_of(self, tp: TP) -> list[Any]:
        """The channels (one per agent) that read this source.

        By topic alone: an index by partition would be behind for a moment after a rebalance, and records
        that no channel reads would be committed as if they had been processed.
        """
        found = [channel for channel in self._topics if tp.topic in channel.topics]
        if not found:
            raise Misuse(f"no agent reads {tp.topic}: its records must not be passed by")
        return found


class Producer(_Producer):
    """Idempotent producer for sends outside of agents; a send is done when the broker has it."""

    transport: Any
    _producer_client: KafkaProducer | None = None

    async def on_start(self) -> None:
        await super().on_start()
        driver = self.transport.app.driver
        self._ending = threading.Event()
        self._producer_client = KafkaProducer(
            {
                **driver.client(self.transport.app.conf.id),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 2,
                "delivery.timeout.ms": DELIVERY_S * 1000,
            }
        )
        self._thread = threading.Thread(target=self._poll, name="outside-producer", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        client = self._producer_client
        assert client is not None
        while not self._ending.is_set():
            client.poll(0.1)

    async def on_stop(self) -> None:
        await self.flush()
        if self._producer_client is not None:
            self._ending.set()
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        await super().on_stop()

    async def send(
        self,
        topic: str,
        key: Any,
        value: Any,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> Any:
        """Hand over a record; the future is done once the broker acknowledged it, or raises KafkaException."""
        client = self._producer_client
        if client is None:
            raise Misuse(f"send to {topic}: the app is not started")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[RecordMetadata] = loop.create_future()

        def settle(error: KafkaError | None, metadata: Any) -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(KafkaException(error))
                else:
                    future.set_result(metadata)

        def delivered(error: KafkaError | None, message: Any) -> None:  # in the polling thread
            metadata = None
            if error is None:
                tp = TP(message.topic(), message.partition())
                at = message.timestamp()[1] / 1000
                metadata = RecordMetadata(tp.topic, tp.partition, tp, message.offset(), at, 0)
            loop.call_soon_threadsafe(settle, error, metadata)

        where = -1 if partition is None else partition
        listed = list(headers.items()) if isinstance(headers, dict) else list(headers or ())
        at_ms = int((timestamp or 0) * 1000)
        while True:
            try:
                client.produce(topic, value, key, where, delivered, None, at_ms, listed)
            except BufferError:  # librdkafka's queue is full: the broker is slower than we are
                await asyncio.sleep(0.01)
            else:
                return future

    async def send_and_wait(self, *args: Any, **kw: Any) -> RecordMetadata:
        metadata: RecordMetadata = await (await self.send(*args, **kw))
        return metadata

    async def flush(self) -> None:
        """Wait until all that was sent is there, or was given up."""
        client = self._producer_client
        if client is None:
            return
        left = await asyncio.get_running_loop().run_in_executor(None, client.flush, FLUSH_S)
        if left:
            log.error(
                "%s: %d records that were sent outside of agents may be lost: no broker has taken them",
                self.transport.app.conf.id, left,
            )  # fmt: skip

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Any = None,
        timeout: Any = 30.0,
        retention: Any = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,
    ) -> None:
        """Create a topic unless it is there already."""
        settings = {k: str(v) for k, v in (config or {}).items()}
        policy = [name for name, on in (("compact", compacting), ("delete", deleting)) if on]
        if policy:
            settings["cleanup.policy"] = ",".join(policy)
        if retention:
            settings["retention.ms"] = str(int(want_seconds(retention) * 1000))
        app = self.transport.app
        new = NewTopic(topic, partitions, replication, config=settings)
        await asyncio.to_thread(_create, app.driver.client(app.conf.id), new)

    def supports_headers(self) -> bool:
        return True


def _create(config: dict[str, Any], topic: NewTopic) -> None:
    with Admin(config) as admin:
        admin.create(topic)


class Transport(base.Transport):
    """What Faust asks for a consumer, a producer and a conductor."""

    Consumer = Consumer
    Producer = Producer
    Conductor = Conductor
    driver_version = f"streaming librdkafka={confluent_kafka.libversion()[0]}"
    default_port = 9092

    def create_consumer(self, callback: Any, **kw: Any) -> Any:
        """Its loop is the one that starts it.

        Faust's own way gives it that of the thread which asked for it first, and nothing may run that one.
        """
        return self.Consumer(self, callback=callback, **kw)
