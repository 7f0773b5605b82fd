"""A whole system of one's own for a measurement or a failure test: broker, topics, workers as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from deploy.local.kafka import STEADY, Kafka
from deploy.local.parts import answers
from deploy.local.processes import free_ports, last_lines

SERVICES = (
    "user",
    "account",
    "transaction",
    "payment",
    "notification",
    "risk",
    "currency",
    "relay",
)
HALVES = (
    ("account", "user", "payment"),
    ("transaction", "risk", "currency", "relay", "notification"),
)
Spawn: TypeAlias = Callable[[Sequence[str], Mapping[str, str], Path], Any]  # like `spawn`
LEAVES_S = 30.0  # a worker that was told to end
TOKEN = "internal-token-of-a-test-system"


def spawn(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Any:
    """`pipeline.py` with these arguments, as a process whose output goes into a file."""
    with log.open("ab") as out:
        command = [sys.executable, "pipeline.py", *arguments]
        return subprocess.Popen(command, stdout=out, stderr=out, env=dict(environment))


@dataclass(slots=True)
class Worker:
    """One `pipeline.py worker` process, started again under the same name."""

    services: tuple[str, ...]
    instance: str
    port: int
    environment: dict[str, str]
    log: Path
    spawn: Spawn
    process: Any = None

    def start(self) -> None:
        arguments = ("worker", *self.services, "--ops-port", str(self.port))
        self.process = self.spawn(arguments, self.environment, self.log)

    def ready(self) -> bool:
        return answers(f"http://127.0.0.1:{self.port}/readiness")

    def says(self, lines: int = 12) -> str:
        """What it waits for, and what it logged last: for whoever asks why nothing moves."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/readiness", timeout=2
            ) as answer:
                waits = answer.read().decode()
        except urllib.error.HTTPError as exc:
            waits = exc.read().decode()
        except OSError as exc:
            waits = str(exc)
        return f"{self.instance}: {waits}\n{last_lines(self.log, lines)}"

    def wait_ready(self, timeout_s: float = 90) -> None:
        """Until it is ready; a worker that ended is started again, as a supervisor would."""
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if self.process.poll() is not None:
                self.start()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready: {self.says()}")
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Let it leave its groups; it is killed when it takes too long."""
        self.process.terminate()
        try:
            self.process.wait(LEAVES_S)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(slots=True)
class System:
    """Kafka and workers under one directory; a context manager that leaves nothing running."""

    directory: Path
    nodes: int = 1
    spawn: Spawn = spawn  # starts a worker
    settings: dict[str, str] = field(default_factory=dict)
    java: tuple[str, ...] = STEADY
    kafka: Any = None
    gateway: Any = None
    workers: list[Worker] = field(default_factory=list)

    def __enter__(self) -> System:
        replication = {"STREAMBANK_REPLICATION": str(min(self.nodes, 3))}
        self.settings = {**replication, **self.settings}
        self.kafka = Kafka(
            self.directory / "kafka",
            nodes=self.nodes,
            java=self.java,
            orphaned=signal.SIGKILL,
        ).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()
        if self.gateway is not None:
            self.gateway.kill()
            self.gateway.wait()
        self.kafka.kill_all()

    @property
    def bootstrap(self) -> str:
        return str(self.kafka.bootstrap)

    def environment(self, instance: str) -> dict[str, str]:
        return {
            **os.environ,
            "STREAMBANK_KAFKA_BOOTSTRAP": self.bootstrap,
            "STREAMBANK_STATE_DIR": str(self.directory / "state"),
            "STREAMBANK_INSTANCE": instance,
            "STREAMBANK_INTERNAL_TOKEN": TOKEN,
            "STREAMBANK_LOG_LEVEL": "INFO",
            **self.settings,
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of pipeline.py to its end."""
        return subprocess.run(
            [sys.executable, "pipeline.py", *arguments],
            env=self.environment("command"),
            capture_output=True,
            text=True,
            check=False,
        )

    def add(self, *services: str, instance: str) -> Worker:
        (port,) = free_ports(1)
        log = self.directory / f"{instance}.log"
        worker = Worker(services, instance, port, self.environment(instance), log, self.spawn)
        self.workers.append(worker)
        worker.start()
        return worker

    def start(
        self,
        split: bool = False,
        halves: bool = False,
        groups: Sequence[tuple[str, ...]] | None = None,
    ) -> None:
        """Create the topics and start all services: in one process, in two of equal work, or each in its own.

        `groups`: these alone, a process each.
        """
        applied = self.command("topics", "apply")
        if applied.returncode:
            raise RuntimeError(applied.stderr)
        if groups is None:
            groups = [(name,) for name in SERVICES] if split else HALVES if halves else [SERVICES]
        for group in groups:
            self.add(*group, instance="all-0" if group is SERVICES else f"{group[0]}-0")
        for worker in self.workers:
            worker.wait_ready()

    def start_gateway(self) -> tuple[str, dict[str, str]]:
        """Start a gateway and register an administrator: its URL and the log-in body."""
        url, self.gateway = self.serve()
        admin = {"email": "admin@bench.example", "password": "a-password-of-the-bench"}
        made = subprocess.run(
            [sys.executable, "pipeline.py", "create-admin", "--email", admin["email"]],
            env={**self.environment("gateway"), "STREAMBANK_ADMIN_PASSWORD": admin["password"]},
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise RuntimeError(made.stderr)
        return url, admin

    def serve(self) -> tuple[str, Any]:
        """One more gateway, which answers, and its process."""
        (port,) = free_ports(1)
        environment = {**self.environment("gateway"), "STREAMBANK_GATEWAY_PORT": str(port)}
        log = self.directory / f"gateway-{port}.log"
        with log.open("ab") as out:
            command = [sys.executable, "pipeline.py", "gateway"]
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not answers(f"{url}/readiness"):
            if time.monotonic() > deadline:
                process.kill()
                raise TimeoutError(f"gateway: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        return url, process

    def cpu_s(self) -> float:
        """CPU seconds that all workers have used so far."""
        times = [psutil.Process(w.process.pid).cpu_times() for w in self.workers]
        return sum(t.user + t.system for t in times)
