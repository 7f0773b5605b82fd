"""Restart, restore and take-over of a worker with a large table, and what its rows take in memory.

    python -m bench.restart [--keys 1000000] [--rounds 3]

One app with one partition, so that one worker holds all keys; a row is as large as an account of the bank (a key of
44 bytes, a value of 150). Each time goes from the start (or the death) of a process to the first output that a
read_committed consumer gets. Beside it, in the same run: a bare confluent-kafka consumer that reads the same changelog.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import streaming
from deploy.local.kafka import STEADY, Kafka

if TYPE_CHECKING:
    from collections.abc import Callable

APP = "restart"
CHANGELOG = f"{APP}-accounts-changelog"
SESSION_S = 3.0
ROW_BYTES = 150
PROBE = b"probe"


class Raw:
    """Rows as they are: the store is measured, not a codec."""

    immutable = True

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, value: bytes) -> bytes:
        return value


def build(options: dict[str, Any]) -> streaming.App:
    """Keeps the last value of each key; says it for a probe."""
    driver = {**options["driver"], "session_timeout_s": SESSION_S}
    config = streaming.DriverConfig(
        instance=options["instance"],
        bootstrap=options["bootstrap"],
        state_dir=Path(options["state"]),
        **driver,
    )
    app = streaming.App(APP, driver=config, topic_partitions=1)
    table = app.Table("accounts", value_codec=Raw(), partitions=1)
    said = app.topic("said", value_codec=Raw())

    @app.agent(app.topic("rows", value_codec=Raw()))
    async def keep(stream: Any) -> None:
        async for key, value in stream.items():
            table[key] = value
            if key == PROBE:
                said.put(key=key, value=value)

    return app


async def work(options: dict[str, Any]) -> None:
    app = build(options)
    await app.start()
    await asyncio.Event().wait()


class Worker:
    """The app in a process of its own."""

    def __init__(self, bench: Bench, instance: str, **driver: Any) -> None:
        self.log = bench.directory / f"{uuid.uuid4().hex}.log"
        state = str(bench.directory / "state")
        options = {
            "bootstrap": bench.bootstrap, "instance": instance, "state": state, "driver": driver
        }  # fmt: skip
        command = [sys.executable, "-m", "bench.restart", "--work", json.dumps(options)]
        environment = {**os.environ, "PYTHONPATH": "."}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        bench.workers.append(self)

    def line(self, *words: str) -> str:
        """The last line of its log that has all words; waits for it."""
        return wait(lambda: self._last(words), f"{words}: {self.log.read_text()[-2000:]}")

    def _last(self, words: tuple[str, ...]) -> str:
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text()[-2000:])
        found = [
            line for line in self.log.read_text().splitlines() if all(w in line for w in words)
        ]
        return found[-1] if found else ""

    def ready(self) -> tuple[int, float]:
        """Records restored, and how many seconds it took, once it has the partition."""
        _, _, rest = self.line("ready with partitions [0]").partition("[0], ")
        words = rest.split()
        return int(words[0]), float(words[4])

    @property
    def memory_mb(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def kill(self) -> float:
        """Its end without a farewell; answers when."""
        at = time.monotonic()
        self.process.kill()
        self.process.wait()
        return at


class Bench:
    """Broker, topics, the reader of outputs, and the lines of the report."""

    def __init__(self, bootstrap: str, directory: Path, keys: int) -> None:
        self.bootstrap, self.directory, self.keys = bootstrap, directory, keys
        self.workers: list[Worker] = []
        self.lines: list[tuple[str, str]] = []
        self._probes = 0
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for future in admin.create_topics(
            [NewTopic("rows", 1, 1), NewTopic("said", 1, 1)]
        ).values():
            future.result(30)
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 2,
                                   "queue.buffering.max.messages": 1_000_000})  # fmt: skip
        self._outputs = Consumer(self._reader())
        self._outputs.assign([TopicPartition("said", 0, 0)])

    def _reader(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "group.id": "bench",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 2,  # the broker ends before its clients
        }

    def tell(self, name: str, text: str) -> None:
        self.lines.append((name, text))
        print(f"  {name}: {text}", flush=True)

    def fill(self) -> None:
        chance = random.Random(7)
        for n in range(self.keys):
            key = (
                f"account/{uuid.UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 & (1 << 128) - 1)}"
            )
            self._producer.produce("rows", chance.randbytes(ROW_BYTES), key.encode())
            if not n % 1000:
                self._producer.poll(0)
        self._producer.flush(60)

    def probe(self) -> None:
        """One record whose output the next worker is to say."""
        self._probes += 1
        self._producer.produce("rows", b"%d" % self._probes, PROBE)
        self._producer.flush(10)

    def answered(self) -> float:
        """When the output of the last probe was there, and committed."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            message = self._outputs.poll(0.5)
            if message is None or message.error() is not None:
                continue
            if message.value() == b"%d" % self._probes:
                return time.monotonic()
        raise TimeoutError(f"no output: {self.workers[-1].log.read_text()[-2000:]}")

    def bare_read_s(self) -> tuple[float, int]:
        """A consumer that reads the changelog from its start to its end, and counts."""
        # as it reads fastest: with librdkafka's own settings it waits a second whenever its queue is full
        fast = {"fetch.message.max.bytes": 4 << 20, "queued.max.messages.kbytes": 128 << 10,
                "fetch.queue.backoff.ms": 10}  # fmt: skip
        consumer, count, began = Consumer({**self._reader(), **fast}), 0, time.monotonic()
        consumer.assign([TopicPartition(CHANGELOG, 0, 0)])
        while True:
            for message in consumer.consume(10_000, 0.05):
                if message.error() is None:
                    message.key(), message.value()
                    count += 1
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    took_s = time.monotonic() - began
                    consumer.close()
                    return took_s, count


def wait(fact: Callable[[], Any], what: str, timeout_s: float = 300) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = fact()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(what)


def restarts(bench: Bench, rounds: int) -> None:
    """The same worker again after kill -9, its rows in RocksDB, its place in the group kept."""
    options = {"store": "rocksdb", "static_membership": True}
    worker = Worker(bench, "0", **options)
    began = time.monotonic()
    bench.probe()
    bench.answered()
    took_s = time.monotonic() - began
    bench.tell("written through the driver", f"{bench.keys / took_s:,.0f} rows/s")
    times, inner = [], []
    for _ in range(rounds):
        worker.kill()
        bench.probe()
        began = time.monotonic()
        worker = Worker(bench, "0", **options)
        times.append(bench.answered() - began)
        inner.append(worker.ready())
    count, restore_s = inner[-1]
    started_s = python_s()
    median = statistics.median(times)
    bench.tell(
        "restart on RocksDB, kill -9, start of the process to first commit",
        f"{median:.2f} s ({', '.join(f'{t:.2f}' for t in times)}); {count} records read in {restore_s:.2f} s; "
        f"Python and imports alone {started_s:.2f} s",
    )
    bench.tell("memory of a worker on RocksDB", f"{worker.memory_mb:,.0f} MB")
    worker.kill()


def python_s() -> float:
    """A Python that only imports what a worker does."""
    began = time.monotonic()
    imports = "import bench.restart, rocksdict; from streaming import App"  # App brings Faust
    subprocess.run([sys.executable, "-c", imports], check=True)
    return time.monotonic() - began


def restores(bench: Bench, empty_mb: float) -> Worker:
    """All rows from the changelog into memory, beside a bare read of the same log."""
    bare_s, count = bench.bare_read_s()
    worker = Worker(bench, "0", store="memory")
    records, restore_s = worker.ready()
    bench.tell(
        f"restore of {records:,} records into memory",
        f"{restore_s:.2f} s ({records / restore_s:,.0f}/s); bare read of {count:,}: {bare_s:.2f} s, ratio "
        f"{restore_s / bare_s:.2f}",
    )
    per_million = (worker.memory_mb - empty_mb) / bench.keys * 1e6
    bench.tell(
        "memory",
        f"{worker.memory_mb:,.0f} MB, {per_million:,.0f} MB per million rows (empty worker {empty_mb:,.0f} MB; "
        f"keys and values alone {(44 + ROW_BYTES):,} MB)",
    )
    return worker


def take_over(bench: Bench, owner: Worker, standby: bool) -> Worker:
    """The owner dies without a farewell; another worker that was in the group goes on. Answers the other."""
    other = Worker(bench, "1", store="memory", standby=standby)
    other.line("ready with partitions []")
    if standby:
        other.line("has caught up")
        memory_mb = other.memory_mb
    bench.probe()
    bench.answered()
    died = owner.kill()
    bench.probe()
    took_s = bench.answered() - died
    records, restore_s = other.ready()
    text = (
        f"{took_s:.2f} s, of which up to {SESSION_S:.0f} s until the group notices (session time-out); "
        f"{records:,} records read in {restore_s:.2f} s"
    )
    if standby:
        text += f"; its copy takes {memory_mb:,.0f} MB"
    bench.tell(f"take-over by another worker {'with' if standby else 'without'} standby", text)
    return other


def empty_mb(bench: Bench) -> float:
    """Memory of a worker without rows; it makes the changelog."""
    worker = Worker(bench, "0", store="memory")
    worker.ready()
    found = worker.memory_mb
    worker.process.terminate()  # no handler: it dies, and the group forgets it after the session time-out
    worker.process.wait()
    return found


def measure(bench: Bench, rounds: int) -> None:
    empty = empty_mb(bench)
    print(f"writing {bench.keys:,} rows", flush=True)
    bench.fill()
    restarts(bench, rounds)
    owner = restores(bench, empty)
    take_over(bench, owner, standby=False).kill()
    owner = Worker(bench, "0", store="memory")
    owner.ready()
    take_over(bench, owner, standby=True).kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)  # be the worker: JSON
    options = parser.parse_args()
    if options.work:
        logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
        asyncio.run(work(json.loads(options.work)))
        return
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    with Kafka(directory / "kafka", java=STEADY) as kafka:
        bench = Bench(kafka.bootstrap, directory, options.keys)
        try:
            measure(bench, options.rounds)
        finally:
            for worker in bench.workers:
                if worker.process.poll() is None:
                    worker.kill()
    shutil.rmtree(directory)
    print()
    for name, text in bench.lines:
        print(f"{name}\n    {text}")


if __name__ == "__main__":
    main()
