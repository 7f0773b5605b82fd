"""Apache Kafka as child processes: one node, or three with replication 3 and min ISR 2.

    with Kafka(directory) as kafka:          # ready: every node answers and is registered
        kafka.bootstrap                      # "127.0.0.1:23456"
        kafka.kill(1); kafka.restart(1)      # kill -9 and back, with its data
        kafka.freeze(1); kafka.thaw(1)       # SIGSTOP, SIGCONT

Nodes are broker and controller in one (KRaft), on loopback without encryption. `directory` keeps
data, logs and pid files: a `Kafka` on the same directory goes on with what is there. The jars, an
empty formatted data directory and an archive of loaded classes are made once under `.local/kafka`
(about 30 s) and shared by all; a start from them takes about 2 s.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import signal
import socket
import struct
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.maven import fetch_jars, java_program
from deploy.local.places import local_directory
from deploy.local.processes import (
    Child,
    StackError,
    end,
    free_ports,
    locked,
    port_is_free,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
CLUSTER_ID = "c3RyZWFtYmFuay1sb2NhbA"
HEAP_MB = 256
MADE_BY = "made-by"  # in a data directory: the version of Kafka that formatted it

QUICK = (
    "-XX:TieredStopAtLevel=1",
)  # compiles little: starts fast, spends no core on the optimiser
STEADY = ("-XX:+TieredCompilation",)  # for benchmarks: fully optimised after some minutes

NODE: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "transaction.max.timeout.ms": "900000",
    # an abandoned transaction holds back its readers until it is found: sooner than the default 10 s
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "5000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.segment.delete.delay.ms": "1000",
}
# After kill -9 a broker that comes back waits until its old registration expires: 13 s by default.
ALONE: Mapping[str, str] = {
    "broker.session.timeout.ms": "3000",  # less, and a busy machine fences its only broker
    "broker.heartbeat.interval.ms": "500",
}
AMONG_THREE: Mapping[str, str] = {
    "min.insync.replicas": "2",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.min.isr": "2",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "replica.lag.time.max.ms": "5000",
    "controller.quorum.fetch.timeout.ms": "1500",
    "controller.quorum.election.timeout.ms": "500",
}


class Kafka:
    """A cluster of 1 or 3 nodes, numbered from 1.

    `port` is node 1's, the others follow it; without it ports are chosen freely. `options` are
    broker settings beyond ours. `listeners` are further ones of a single node, name and port: what
    protects them stands in `options`. Raises StackError when Kafka cannot be had or does not come up.
    """

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        nodes: int = 1,
        heap_mb: int = HEAP_MB,
        java: Sequence[str] = QUICK,
        options: Mapping[str, str] | None = None,
        listeners: Mapping[str, int] | None = None,
        orphaned: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.directory = directory.resolve()
        self.nodes = range(1, nodes + 1)
        self.heap_mb = heap_mb
        self.java = java
        self.options = dict(options or {})
        self.listeners = dict(listeners or {})
        assert nodes == 1 or not self.listeners, "further listeners are for a single node"
        free = free_ports(2 * nodes)
        self.ports = [port + n for n in range(nodes)] if port else free[:nodes]
        self._controllers = dict(zip(self.nodes, free[nodes:], strict=True))  # their ports
        self._children = {node: self._child(node, orphaned) for node in self.nodes}

    @property
    def bootstrap(self) -> str:
        """What clients connect to, all nodes of it."""
        return ",".join(f"{HOST}:{port}" for port in self.ports)

    def __enter__(self) -> Kafka:
        try:
            return self.start()
        except BaseException:
            self.kill_all()
            raise

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> Kafka:
        """Start the nodes that do not run and wait until all are ready."""
        installation = prepare()
        for node, child in self._children.items():
            if not child.running:
                self._start(node, installation)
        self.wait_ready()
        return self

    def stop(self) -> None:
        """Shut all nodes down cleanly; the data stays."""
        for node in self.nodes:
            # all at once, for the last of three could not hand its partitions over to anybody
            self._children[node].signal(signal.SIGTERM)
            self._children[node].signal(signal.SIGCONT)
        for child in reversed(self._children.values()):
            child.stop(grace_s=15)

    def kill(self, node: int = 1) -> None:
        """kill -9."""
        self._children[node].kill()

    def kill_all(self) -> None:
        for node in self.nodes:
            self.kill(node)

    def restart(self, node: int = 1) -> None:
        """Start a node again (stop it first when it runs), wait until all that run are ready."""
        self._children[node].stop(grace_s=15)
        self._start(node, prepare())
        self.wait_ready()

    def freeze(self, node: int = 1) -> None:
        self._children[node].freeze()

    def thaw(self, node: int = 1) -> None:
        self._children[node].thaw()

    def running(self, node: int = 1) -> bool:
        return self._children[node].running

    def pid(self, node: int = 1) -> int:
        return self._children[node].pid

    def port(self, node: int = 1) -> int:
        return self.ports[node - 1]

    def wait_ready(self, timeout_s: float = 90) -> None:
        """Until each running node knows all running nodes as registered brokers."""
        until_s = time.monotonic() + timeout_s
        expected = [node for node in self.nodes if self.running(node)]
        for node in expected:
            while brokers(HOST, self.port(node)) < len(expected):
                self._still_coming_up(node, until_s)
                time.sleep(0.03)

    def _still_coming_up(self, node: int, until_s: float) -> None:
        child = self._children[node]
        if not child.running:
            raise StackError(f"Kafka node {node} ended while starting:\n{child.last_lines()}")
        if time.monotonic() > until_s:
            raise StackError(f"Kafka node {node} is not ready; see {child.log}")

    def _start(self, node: int, installation: Installation) -> None:
        child = self._children[node]
        leftover = child.leftover()
        if leftover:
            say(f"stopping Kafka node {node} (pid {leftover.pid}), left over from a crashed run")
            end(leftover, grace_s=15)
        if not port_is_free(self.port(node), HOST):
            raise StackError(
                f"port {self.port(node)} is in use by another process: stop it, or set "
                "STREAMBANK_KAFKA_PORT to a free port"
            )
        self._format(node, installation)
        child.command = installation.broker(self.heap_mb, self.java, self._properties_file(node))
        child.start()

    def _child(self, node: int, orphaned: signal.Signals) -> Child:
        return Child(f"kafka-{node}", [], self.directory, orphaned=orphaned)

    def _data(self, node: int) -> Path:
        return self.directory / f"data-{node}"

    def _properties_file(self, node: int) -> Path:
        return self.directory / f"kafka-{node}.properties"

    def _format(self, node: int, installation: Installation) -> None:
        """Settings, always; an empty data directory when there is none."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_properties(self._properties_file(node), self._properties(node))
        data = self._data(node)
        if not data.exists():
            fresh = data.with_name(f"{data.name}.fresh")  # a crash must not leave half a directory
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(installation.template, fresh)
            write_properties(fresh / "meta.properties", meta(node))
            (fresh / MADE_BY).write_text(installation.version)
            fresh.rename(data)
        _check_made_by(data, installation.version)

    def _properties(self, node: int) -> dict[str, str]:
        count = str(len(self.nodes))
        broker = {"PLAINTEXT": self.port(node), **self.listeners}
        return {
            **NODE,
            **(ALONE if len(self.nodes) == 1 else AMONG_THREE),
            "listeners": _written(broker | {"CONTROLLER": self._controllers[node]}),
            "advertised.listeners": _written(broker),
            "node.id": str(node),
            "controller.quorum.voters": ",".join(
                f"{controller}@{HOST}:{port}" for controller, port in self._controllers.items()
            ),
            "log.dirs": str(self._data(node)),
            "default.replication.factor": count,
            "offsets.topic.replication.factor": count,
            "transaction.state.log.replication.factor": count,
            "share.coordinator.state.topic.replication.factor": count,
            **({"transaction.state.log.min.isr": "1"} if count == "1" else {}),
            **({"share.coordinator.state.topic.min.isr": "1"} if count == "1" else {}),
            **self.options,
        }


def _check_made_by(data: Path, version: str) -> None:
    """Kafka reads what an older one made, and not what a newer one did. Raises StackError."""
    mark = data / MADE_BY
    made_by = mark.read_text() if mark.exists() else None
    if made_by is None or _numbers(made_by) > _numbers(version):
        raise StackError(
            f"{data} was made by {made_by or 'another version'} of Kafka, and {version} can't read it: "
            "`make wipe` removes it with all that the stopped system has, or start the checkout that made it"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _written(listeners: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items())


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def meta(node: int) -> dict[str, str]:
    """The meta.properties of a formatted data directory (KIP-858)."""
    directory_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return {
        "version": "1",
        "cluster.id": CLUSTER_ID,
        "node.id": str(node),
        "directory.id": directory_id,
    }


class Installation:
    """Jars, template and class archive under `home`, for one java."""

    def __init__(self, home: Path, java: Path) -> None:
        self.home = home
        self.java = java
        self.libs = home / "libs"
        self.template = home / "template"
        self.archive = home / "broker.jsa"
        self.mark = home / "prepared"
        self.version = kafka_version()

    @property
    def class_path(self) -> str:
        # the archive is silently ignored when the class path is written differently
        return ":".join(str(jar) for jar in sorted(self.libs.glob("*.jar")))

    def broker(self, heap_mb: int, java: Sequence[str], properties: Path) -> list[str]:
        """The command line of a broker."""
        archive = [f"-XX:SharedArchiveFile={self.archive}"] if self.archive.exists() else []
        options = [f"-Xmx{heap_mb}m", f"-Xms{heap_mb}m", *java, *archive]
        return self.program("kafka.Kafka", str(properties), options=options)

    def program(self, main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        return [
            str(self.java),
            "-XX:+UseSerialGC",
            "-Xlog:disable",
            *options,
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            "-cp",
            self.class_path,
            main,
            *arguments,
        ]


def prepare() -> Installation:
    """Fetch and prepare what is missing, once, alone among processes. Raises StackError."""
    installation = Installation((local_directory() / "kafka").resolve(), java_program())
    state = _state(installation)
    with locked(installation.home / "lock"):
        if installation.mark.exists() and installation.mark.read_text() == state:
            return installation
        installation.mark.unlink(missing_ok=True)
        fetch_jars("Apache Kafka", HERE / "pom.xml", installation.libs)
        _make_template(installation)
        _make_archive(installation)
        installation.mark.write_text(state)
    return installation


def kafka_version() -> str:
    """The one that the pom pins."""
    text = (HERE / "pom.xml").read_text()
    return text.partition("<kafka>")[2].partition("</kafka>")[0]


def _state(installation: Installation) -> str:
    """Changes with the versions, the java and the place: then everything is made anew."""
    release = installation.java.parent.parent / "release"
    java = release.read_bytes() if release.exists() else b""
    pom = (HERE / "pom.xml").read_bytes()
    digest = hashlib.sha256(pom + java).hexdigest()
    return f"{digest} {installation.java} {installation.home}\n"


def _make_template(installation: Installation) -> None:
    """An empty data directory, formatted once: copying it takes no JVM."""
    shutil.rmtree(installation.template, ignore_errors=True)
    template = Kafka(installation.home / "format")
    template.directory.mkdir(parents=True, exist_ok=True)
    properties = template.directory / "format.properties"
    settings = {**template._properties(1), "log.dirs": str(installation.template)}
    write_properties(properties, settings)
    command = installation.program(
        "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        output = done.stdout[-2000:] + done.stderr[-2000:]
        raise StackError(f"Kafka could not format its data directory:\n{output}")


def _make_archive(installation: Installation) -> None:
    """Classes of a started broker (JEP 350): a second less at each start, no loss without."""
    say("preparing Kafka for fast starts (once) …")
    installation.archive.unlink(missing_ok=True)
    directory = installation.home / "archive"
    shutil.rmtree(directory, ignore_errors=True)
    kafka = Kafka(directory, java=(*QUICK, f"-XX:ArchiveClassesAtExit={installation.archive}"))
    kafka._start(1, installation)
    try:
        kafka.wait_ready()
        kafka._children[1].stop(grace_s=60)
    finally:
        kafka.kill_all()
    shutil.rmtree(directory)


def brokers(host: str, port: int) -> int:
    """How many brokers the one there knows to be alive; 0 while it does not answer."""
    try:
        with socket.create_connection((host, port), 0.5) as connection:
            connection.settimeout(2)
            _call(connection, 18, 0)  # ApiVersions
            answer = _call(connection, 3, 1, struct.pack(">i", 0))  # Metadata of no topics
    except (OSError, struct.error):
        return 0
    return int(struct.unpack_from(">i", answer, 4)[0])


def _call(connection: socket.socket, api: int, version: int, body: bytes = b"") -> bytes:
    client = b"local"
    header = struct.pack(">hhih", api, version, 1, len(client)) + client
    connection.sendall(struct.pack(">i", len(header + body)) + header + body)
    return _receive(connection, struct.unpack(">i", _receive(connection, 4))[0])


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("closed by the broker")
        data += part
    return data
