"""A storm: transfers flow while workers, brokers and transactions are broken on purpose, and what is counted of it.

    with System(…) as system: storm = Storm(system, bank, seed) … storm.blow(seconds, …) … storm.settle()

Every action is made by chance from a seed, so a storm that finds something can be made again.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.load import Bank, Ends
from bench.system import System, Worker
from schemas.registry import Registry
from tests.chaos import oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(slots=True)
class Count:
    """Kills by service: of a ready worker, and inside of an open transaction."""

    ready: Counter[str] = field(default_factory=Counter)
    in_transaction: Counter[str] = field(default_factory=Counter)
    all: Counter[str] = field(default_factory=Counter)

    def table(self) -> str:
        rows = [f"{'service':14}{'kills':>7}{'ready':>7}{'in transaction':>16}"]
        rows += [
            f"{s:14}{self.all[s]:7}{self.ready[s]:7}{self.in_transaction[s]:16}"
            for s in sorted(self.all)
        ]
        return "\n".join(rows)


@dataclass(slots=True)
class Storm:
    """One storm over one system."""

    system: System
    bank: Bank
    marks: Path
    seed: int
    count: Count = field(default_factory=Count)
    said: list[str] = field(default_factory=list)
    _chance: random.Random = field(default_factory=random.Random)
    _joined: list[Worker] = field(default_factory=list)
    _turn: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance.seed(self.seed)

    # -- what can happen --------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9 of a random worker, ready ones first."""
        workers = self._chance.sample(self.system.workers, len(self.system.workers))
        self._kill(next((w for w in workers if w.ready()), workers[0]))

    def kill_in_turn(self) -> None:
        """kill -9 of each worker once, in an order of chance, then of each once more."""
        if not self._turn:
            self._turn = self._chance.sample(self.system.workers, len(self.system.workers))
        self._kill(self._turn.pop())

    def _kill(self, worker: Worker) -> None:
        """Every other kill waits for an open transaction."""
        ready = worker.ready()
        deadline = time.monotonic() + (0.5 if self._chance.random() < 0.5 else 0.0)
        while time.monotonic() < deadline and not any(
            self._open(worker, s) for s in worker.services
        ):
            time.sleep(0.0005)
        if worker.process.poll() is None:
            worker.kill()
            for service in worker.services:
                self.count.all[service] += 1
                self.count.ready[service] += ready
                self.count.in_transaction[service] += self._open(worker, service)
        worker.start()

    def freeze(self) -> None:
        """A zombie: stopped for longer than its session, another takes over, then it goes on."""
        worker = self._chance.choice(self.system.workers)
        worker.process.send_signal(signal.SIGSTOP)
        time.sleep(float(self.system.settings["STREAMBANK_SESSION_TIMEOUT_S"]) + 1)
        worker.process.send_signal(signal.SIGCONT)

    def join(self) -> None:
        """One more worker for a service; a second call lets it leave."""
        if self._joined:
            worker = self._joined.pop()
            self.system.workers.remove(worker)
            worker.process.terminate()
            worker.process.wait(30)
            return
        services = self._chance.choice(self.system.workers).services
        number = len(self.said)
        self._joined.append(self.system.add(*services, instance=f"{services[0]}-joined-{number}"))

    def kill_broker(self) -> None:
        """kill -9 of a broker node, and its restart."""
        node = self._chance.choice(list(self.system.kafka.nodes))
        self.system.kafka.kill(node)
        time.sleep(self._chance.uniform(0.5, 3))
        self.system.kafka.restart(node)

    def _open(self, worker: Worker, service: str) -> bool:
        mark = self.marks / f"{worker.instance}.{service}"
        return mark.exists() and mark.read_bytes() == b"1"

    # -- the storm --------------------------------------------------------------------------------

    def blow(
        self,
        transfers: int,
        seconds: float,
        actions: Sequence[Callable[[], None]],
        pause_s: tuple[float, float],
    ) -> list[str]:
        """Order `transfers` evenly over `seconds` while actions happen. Answers the transaction ids."""
        ids: list[str] = []
        failure: list[BaseException] = []

        def order() -> None:
            started = time.monotonic()
            try:
                while len(ids) < transfers:
                    due = min(
                        transfers, int((time.monotonic() - started) / seconds * transfers) + 1
                    )
                    ids.extend(self.bank.transfers(due - len(ids), hot_share=0.1))
                    time.sleep(0.02)
                self.bank.flush()
            except BaseException as exc:  # handed to the caller below
                failure.append(exc)
                raise

        ordering = threading.Thread(target=order)
        ordering.start()
        while ordering.is_alive():
            time.sleep(self._chance.uniform(*pause_s))
            action = self._chance.choice(actions)
            self.said.append(action.__name__)
            action()
            self._revive()
        ordering.join()
        if failure:
            raise failure[0]
        return ids

    def _revive(self) -> None:
        """Start what ended by itself (fenced, stuck), as a supervisor would."""
        for worker in self.system.workers:
            if worker.process.poll() is not None:
                self.said.append(f"{worker.instance} ended with {worker.process.returncode}")
                worker.start()

    def settle(self, ends: Ends, timeout_s: float = 180) -> None:
        """Until every order has its end and the logs stand still. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while self.bank.ordered.keys() - ends.at.keys():
            self._revive()
            ends.poll(0.5)
            if time.monotonic() > deadline:
                missing = self.bank.ordered.keys() - ends.at.keys()
                raise TimeoutError(
                    f"seed {self.seed}: {len(missing)} transactions have no end, after {self.said}\n"
                    + "\n".join(worker.says() for worker in self.system.workers)
                )
        for worker in self.system.workers:
            worker.wait_ready()
        before: list[oracle.Fact] = []
        while len(now := facts(self.system, "account.events")) != len(before):
            before = now
            time.sleep(1)


def facts(system: System, topic: str) -> list[oracle.Fact]:
    """A topic of the system, read by the independent reader."""
    return oracle.read(system.bootstrap, topic, decoder())


def decoder() -> Callable[[bytes], dict[str, object]]:
    """Avro by the published schemas: what any subscriber does, with no code of the services."""
    import io
    import json

    import fastavro

    registry = Registry()
    schemas: dict[int, object] = {}

    def decode(data: bytes) -> dict[str, object]:
        schema_id = int.from_bytes(data[1:5], "big")
        if schema_id not in schemas:
            status, body = registry.answer(f"/schemas/ids/{schema_id}")
            assert status == 200, body
            schemas[schema_id] = fastavro.parse_schema(json.loads(body["schema"]))
        return dict(fastavro.schemaless_reader(io.BytesIO(data[5:]), schemas[schema_id], None))

    return decode
