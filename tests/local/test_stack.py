"""The supervisor: up, down, run; what dies comes back; what a crash left is cleared away.

Kafka, the stores and the rail are the real ones; behind `pipeline.py` stands `stand_in/pipeline.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from deploy.local.kafka import brokers, prepare
from deploy.local.parts import Part, answers
from deploy.local.places import ROOT, Places, local_directory
from deploy.local.processes import (
    Child,
    Identity,
    StackError,
    end,
    free_ports,
    identify,
    recorded,
)
from deploy.local.stack import kafka_port, wanted
from settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FETCHED = {"kafka", "stores"}
STAND_IN = ROOT / "tests" / "local" / "stand_in" / "pipeline.py"
PORTS = (
    "KAFKA_PORT",
    "RAIL_PORT",
    "MAIL_PORT",
    "MESSAGES_PORT",
    "OPS_PORT",
    "BESIDE_PORT",
    "PROJECTOR_PORT",
    "GATEWAY_PORT",
)
PARTS = ("rail", "postbox", "worker", "beside", "gateway")  # and, with stores, the projector
NO_FILE = Path("/nonexistent")
STORES = ("mariadb", "redis", "mongo")


@dataclass
class Local:
    """A local stack of this test's own."""

    places: Places
    ports: dict[str, int]
    stores: str = "none"  # most of what is tested here is no matter of theirs
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBANK_")}
        ports = {f"STREAMBANK_{name}": str(port) for name, port in self.ports.items()}
        return {
            **kept,
            **ports,
            "STREAMBANK_LOCAL": str(self.places.local),
            "STREAMBANK_LOCAL_STORES": self.stores,
            "STAND_IN_TRACE": str(self.trace_file),
        }

    @property
    def trace_file(self) -> Path:
        return self.places.local / "trace"

    def start(self, action: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "deploy.local", action, "--pipeline", str(STAND_IN)]
        process = subprocess.Popen(
            command,
            env=self.environment,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def do(self, action: str) -> tuple[int, str]:
        process = self.start(action)
        output, _ = process.communicate()
        return process.returncode, output

    def trace(self) -> list[str]:
        return self.trace_file.read_text().splitlines() if self.trace_file.exists() else []

    def part(self, name: str) -> Identity | None:
        if name == "kafka":
            return recorded(self.places.data / "kafka" / "kafka-1.pid")
        if name in STORES:
            return recorded(self.places.data / name / f"{name}.pid")
        return recorded(self.places.run / f"{name}.pid")

    def everything(self) -> list[Identity]:
        found = [
            recorded(self.places.pid),
            *(self.part(n) for n in ("kafka", *STORES, "projector", *PARTS)),
        ]
        return [identity for identity in found if identity is not None]

    def ready(self, port: str) -> bool:
        return answers(f"http://127.0.0.1:{self.ports[port]}/readiness")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    with local_under(tmp_path) as local:
        yield local


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """One that is up for all tests that leave it so."""
    with local_under(tmp_path_factory.mktemp("running")) as local:
        local.stores = "all"
        code, said = local.do("up")
        assert code == 0, said
        yield local


@contextmanager
def local_under(directory: Path) -> Iterator[Local]:
    prepare()
    (local_directory() / "stores").mkdir(exist_ok=True)
    for fetched in FETCHED:
        (directory / fetched).symlink_to(local_directory() / fetched)
    local = Local(Places(directory), dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
    try:
        yield local
    finally:
        for process in local.running:
            if process.poll() is None:
                process.kill()
                process.communicate()
        for identity in local.everything():
            end(identity, grace_s=0)
        rmtree(local.places.data, ignore_errors=True)


def until(fact: Callable[[], object]) -> None:
    while not fact():
        time.sleep(0.02)


def test_commands_in_the_tree_find_the_running_system(running: Local) -> None:
    given = {"STREAMBANK_LOCAL": str(running.places.local)}
    settings = Settings.load(given, NO_FILE)
    assert settings.kafka_bootstrap == f"127.0.0.1:{running.ports['KAFKA_PORT']}"
    assert settings.gateway_port == running.ports["GATEWAY_PORT"]
    assert len(settings.jwt_secret) == 64
    for file in (running.places.settings, running.places.secrets, running.places.admin):
        assert file.stat().st_mode & 0o777 == 0o600


def test_command_lines_tell_workers_from_their_supervisor(running: Local) -> None:
    def command(identity: Identity | None) -> str:
        assert identity is not None
        return Path(f"/proc/{identity.pid}/cmdline").read_text().replace("\0", " ")

    assert "pipeline.py worker" in command(running.part("worker"))
    assert "pipeline.py worker" not in command(recorded(running.places.pid))


@pytest.mark.parametrize(("part", "port"), [("worker", "OPS_PORT"), ("gateway", "GATEWAY_PORT")])
def test_a_killed_part_is_ready_again(running: Local, part: str, port: str) -> None:
    for _ in range(3):
        killed = running.part(part)
        assert killed is not None
        before = running.places.log.read_text().count("is ready again")
        os.kill(killed.pid, signal.SIGKILL)
        until(lambda n=before: running.places.log.read_text().count("is ready again") > n)
        assert running.part(part) not in (None, killed)
        assert running.ready(port)


def test_a_killed_broker_comes_back(running: Local) -> None:
    killed = running.part("kafka")
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: running.part("kafka") not in (None, killed))
    until(lambda: brokers("127.0.0.1", running.ports["KAFKA_PORT"]))


@pytest.mark.parametrize("store", STORES)
def test_a_killed_store_comes_back_where_it_was(running: Local, store: str) -> None:
    settings = Settings.load({"STREAMBANK_LOCAL": str(running.places.local)}, NO_FILE)
    killed = running.part(store)
    assert killed is not None
    again = f"the {store} is ready again"
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: again in running.places.log.read_text())
    assert running.part(store) not in (None, killed)
    urls = {
        "mariadb": settings.mysql_url,
        "redis": settings.redis_url,
        "mongo": settings.mongodb_url,
    }
    with socket.create_connection(("127.0.0.1", urlsplit(urls[store]).port)):
        pass


def test_workers_and_gateway_are_told_where_the_stores_are(running: Local) -> None:
    settings = Settings.load({"STREAMBANK_LOCAL": str(running.places.local)}, NO_FILE)
    for part in ("worker", "gateway"):
        identity = running.part(part)
        assert identity is not None
        told = Path(f"/proc/{identity.pid}/environ").read_text().split("\0")
        assert f"STREAMBANK_MYSQL_URL={settings.mysql_url}" in told
        assert f"STREAMBANK_REDIS_URL={settings.redis_url}" in told
        assert f"STREAMBANK_MONGODB_URL={settings.mongodb_url}" in told
    passwords = [urlsplit(url).password for url in (settings.mysql_url, settings.redis_url)]
    for file in running.places.run.iterdir():
        assert not any(password in file.read_text() for password in passwords if password)


def test_a_store_of_the_user_is_not_started_again() -> None:
    assert wanted(Settings()).keys() == {"mysql_url", "redis_url", "mongodb_url"}
    assert wanted(Settings(redis_url="redis://cache")).keys() == {"mysql_url", "mongodb_url"}
    assert wanted(Settings(local_stores="none")) == {}


def test_a_second_one_is_refused_and_up_says_where_the_first_is(running: Local) -> None:
    ran = running.everything()
    code, said = running.do("run")
    assert (code, said) == (1, "the system runs already: make status, make down\n")
    code, said = running.do("up")
    assert code == 0
    assert f"http://127.0.0.1:{running.ports['GATEWAY_PORT']}" in said
    code, said = running.do("wipe")
    assert (code, said) == (1, "the system runs: stop it first (make down)\n")
    assert running.everything() == ran


def test_up_down_up_and_wipe(local: Local) -> None:
    local.stores = "all"
    code, said = local.do("up")
    assert code == 0, said
    assert local.ready("OPS_PORT")
    assert local.ready("GATEWAY_PORT")
    assert f"http://127.0.0.1:{local.ports['GATEWAY_PORT']}" in said
    code, shown = local.do("status")
    assert code == 0
    assert all(f"{store:9} runs, pid" in shown for store in (*STORES, "projector"))
    ran = local.everything()
    assert len(ran) == 11
    admin = json.loads(local.places.admin.read_text())
    assert set(admin) == {"email", "password"}
    assert len(admin["password"]) >= 16

    assert local.do("down")[0] == 0
    assert [p for p in ran if identify(p.pid) == p] == []
    assert not local.places.settings.exists()
    assert local.do("status")[0] == 1
    # those first that need the others
    stops = [line for line in local.trace() if line.startswith("stop")]
    assert stops == ["stop gateway", "stop projector", "stop beside", "stop worker"]

    assert local.do("up")[0] == 0
    assert json.loads(local.places.admin.read_text()) == admin
    made = [line for line in local.trace() if line.startswith("admin")]
    assert made == [f"admin {admin['email']} {admin['password']}"]
    assert not local.places.admin_password.exists()

    assert local.do("down")[0] == 0
    assert (local.places.data / "kafka" / "data-1").is_dir()
    assert local.do("wipe")[0] == 0
    assert {path.name for path in local.places.local.iterdir()} == {*FETCHED, "trace"}
    assert (local.places.local / "kafka" / "libs").is_dir()


def test_up_waits_for_one_that_starts_in_the_foreground(local: Local) -> None:
    local.places.run.mkdir(parents=True, exist_ok=True)
    local.places.state.write_text("{}")  # of a run that was killed
    run = local.start("run")
    until(local.places.pid.exists)
    code, said = local.do("up")
    assert code == 0, said
    assert "the system runs already" in said
    assert f"http://127.0.0.1:{local.ports['GATEWAY_PORT']}" in said
    run.send_signal(signal.SIGTERM)
    run.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_run_stops_all(local: Local, number: signal.Signals) -> None:
    run = local.start("run")
    until(local.places.state.exists)
    ran = local.everything()
    assert len(ran) == 7
    run.send_signal(number)
    said, _ = run.communicate()
    assert run.returncode == 0, said
    assert [p for p in ran if identify(p.pid) == p] == []
    assert "stopped; the data is kept" in said


def test_run_ends_while_it_starts(local: Local) -> None:
    run = local.start("run")
    until(lambda: local.part("kafka"))
    run.send_signal(signal.SIGINT)
    run.communicate()
    assert local.everything() == []


def test_a_taken_port_is_one_sentence(local: Local) -> None:
    with socket.create_server(("127.0.0.1", local.ports["GATEWAY_PORT"])):
        code, said = local.do("up")
    assert code == 1
    assert said == (
        f"port {local.ports['GATEWAY_PORT']} is in use by another process: stop it, or set "
        "STREAMBANK_GATEWAY_PORT to a free port\n"
    )
    assert local.everything() == []


def test_a_worker_that_cannot_start_says_why(local: Local) -> None:
    local.trace_file.with_name("worker.broken").touch()
    code, said = local.do("up")
    assert code == 1
    assert "the worker ends at once:" in said
    assert said.endswith("the worker is broken\n")
    assert local.everything() == []


def test_a_bad_setting_is_one_sentence(local: Local) -> None:
    local.ports["PARTITIONS"] = 0
    code, said = local.do("up")
    assert (code, said) == (1, "STREAMBANK_PARTITIONS is 0; set it to a number above 0\n")


def test_what_a_killed_supervisor_left_is_cleared_away(local: Local) -> None:
    """The parts are frozen first, so that they cannot follow their supervisor by themselves."""
    local.stores = "all"
    local.do("up")
    before = local.everything()
    supervisor, *parts = before
    for part in parts:
        os.kill(part.pid, signal.SIGSTOP)
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: identify(supervisor.pid) != supervisor)
    code, said = local.do("up")
    assert code == 0, said
    assert "left over from a crashed run" in said
    assert [p for p in before if identify(p.pid) == p] == []
    assert local.ready("GATEWAY_PORT")


def test_parts_end_with_a_killed_supervisor(local: Local) -> None:
    local.stores = "all"
    local.do("up")
    supervisor, *parts = local.everything()
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not [p for p in parts if identify(p.pid) == p])


def test_a_stranger_with_the_pid_of_a_part_is_not_touched(local: Local) -> None:
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        found = identify(stranger.pid)
        assert found is not None
        local.places.run.mkdir(parents=True)
        Identity(found.pid, found.started - 1, found.boot).write(local.places.run / "worker.pid")
        Identity(found.pid, found.started - 1, found.boot).write(local.places.pid)
        assert local.do("down") == (0, "nothing runs\n")
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize(
    ("bootstrap", "port", "expected"),
    [("127.0.0.1:9092", 9092, 9092), ("127.0.0.1:9092", 7, 7), ("localhost:8", 9092, 8)],
)
def test_kafka_listens_where_clients_look(bootstrap: str, port: int, expected: int) -> None:
    assert kafka_port(Settings(kafka_bootstrap=bootstrap, kafka_port=port)) == expected


@pytest.mark.parametrize("bootstrap", ["kafka:9092", "127.0.0.1:1,127.0.0.1:2"])
def test_another_broker_is_refused(bootstrap: str) -> None:
    with pytest.raises(StackError, match="starts a Kafka of its own"):
        kafka_port(Settings(kafka_bootstrap=bootstrap))


def part_that_ended(code: int, tmp_path: Path) -> Part:
    part = Part(Child("part", [sys.executable, "-c", f"exit({code})"], tmp_path), lambda: True)
    part.start()
    until(lambda: not part.child.running)
    return part


def test_one_that_ends_itself_young_is_started_later_and_later(tmp_path: Path) -> None:
    part = part_that_ended(1, tmp_path)
    pauses = [part.died(part.started_s + 1) for _ in range(9)]
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert part.died(part.started_s + 60) == 0


def test_one_that_is_killed_is_started_at_once_each_time(tmp_path: Path) -> None:
    part = Part(Child("part", ["sleep", "1000"], tmp_path), lambda: True)
    part.start()
    part.child.signal(signal.SIGKILL)
    until(lambda: not part.child.running)
    assert [part.died(part.started_s + 1) for _ in range(9)] == [0] * 9
