"""A whole bank as a user starts it: the command line's workers, the rail, on the run's Kafka."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.local.processes import free_ports
from tests.forked import PIPELINE, Forked, command
from tests.system.bank import Client

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from deploy.local.kafka import Kafka

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 120.0  # on a machine that has much else to do


class Installation:
    """One namespace on the broker, and the processes of the command line in it."""

    def __init__(self, bootstrap: str, directory: Path) -> None:
        self.bootstrap = bootstrap
        self.directory = directory
        self.prefix = f"s{uuid.uuid4().hex[:8]}-"
        self.rail_port, self.ops_port, self.beside_port = free_ports(3)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAMBANK_")},
            "STREAMBANK_KAFKA_BOOTSTRAP": bootstrap,
            "STREAMBANK_PREFIX": self.prefix,
            "STREAMBANK_STATE_DIR": str(directory / "state"),
            "STREAMBANK_OPS_PORT": str(self.ops_port),
            "STREAMBANK_RAIL_URL": f"http://127.0.0.1:{self.rail_port}",
            "STREAMBANK_INTERNAL_TOKEN": "token-of-the-test",
            "STREAMBANK_INSTANCE": "w0",
        }

    def pipeline(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return command(*arguments, environment={**self.environment, **environment})

    def client(self, *tails: str) -> Client:
        return Client(self.bootstrap, self.prefix, tails)

    def get(
        self, path: str, token: str = "token-of-the-test", *, beside: bool = False
    ) -> tuple[int, bytes]:
        port = self.beside_port if beside else self.ops_port
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read()

    @contextmanager
    def worker(self, *services: str) -> Iterator[Forked]:
        """A worker process, ready; asked to stop afterwards, which it must do well."""
        log = self.directory / f"worker-{uuid.uuid4().hex[:6]}.log"
        process = Forked(PIPELINE, ("worker", *services), self.environment, log)
        try:
            self.until_ready(process, log)
            yield process
            process.terminate()
            assert process.wait(30) == 0, log.read_text()[-3000:]
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def beside(self, *services: str, ready: bool = True) -> Iterator[Forked]:
        """A second worker process; killed afterwards."""
        log = self.directory / "beside.log"
        environment = {**self.environment, "STREAMBANK_OPS_PORT": str(self.beside_port)}
        process = Forked(PIPELINE, ("worker", *services), environment, log)
        try:
            if ready:
                self.until_ready(process, log, beside=True)
            yield process
        finally:
            process.kill()
            process.wait()

    def until_ready(
        self, process: Forked | subprocess.Popen[bytes], log: Path, *, beside: bool = False
    ) -> None:
        deadline_s = time.monotonic() + READY_S
        answer: Any = None
        while time.monotonic() < deadline_s:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                status, answer = self.get("/readiness", beside=beside)
            except OSError:
                status = 0
            if status == 200:
                return
            time.sleep(0.1)
        raise AssertionError(f"not ready: {answer}\n{log.read_text()[-3000:]}")

    @contextmanager
    def rail(self) -> Iterator[None]:
        log = self.directory / "rail.log"
        process = Forked(
            "deploy.local.provider", ("--port", str(self.rail_port)), self.environment, log
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def installation(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Topics alone."""
    made = Installation(kafka.bootstrap, tmp_path_factory.mktemp("installation"))
    applied = made.pipeline("topics", "apply")
    assert applied.returncode == 0, applied.stderr
    return made


@pytest.fixture(scope="module")
def running(installation: Installation) -> Iterator[Installation]:
    """`worker all` and the rail."""
    with installation.rail(), installation.worker("all"):
        yield installation
