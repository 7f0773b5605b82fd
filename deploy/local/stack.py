"""The whole system on this machine: Kafka, the stores, the payment rail, the postbox, workers and the gateway.

One supervisor starts the parts in the order of their needs, stops them in the other, and starts one
that dies again.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from deploy.local.kafka import HOST, Kafka, prepare
from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from deploy.local.parts import Part, answers, ended
from deploy.local.places import ROOT, Places, made_once, write_private
from deploy.local.processes import (
    Child,
    StackError,
    end,
    identify,
    port_is_free,
    recorded,
    say,
)
from deploy.local.redis import Redis
from settings import LOCAL, PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from deploy.local.server import Server

READY_S = 180.0
STOP_S = 20.0
WATCH_S = 0.1
START_TRIES = 3
STORES: Mapping[str, type[Server]] = {
    "mysql_url": MariaDB,
    "redis_url": Redis,
    "mongodb_url": Mongo,
}
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stack:
    """The parts, started and watched by this process; `pipeline` is the program of the services."""

    places: Places
    settings: Settings
    pipeline: str
    began_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.kafka = Kafka(
            self.places.data / "kafka",
            kafka_port(self.settings),
            heap_mb=self.settings.kafka_heap_mb,
        )
        self.secrets = made_once(
            self.places.secrets,
            lambda: {
                "jwt_secret": secrets.token_hex(32),
                "internal_token": secrets.token_hex(32),
                "provider_secret": secrets.token_hex(32),
                "fingerprint_secret": secrets.token_hex(32),
                "mail_secret": secrets.token_hex(32),
                "webhook_keys": secrets.token_hex(32),
            },
        )
        self.stores = {
            name: kind(self.places.data / kind.name) for name, kind in wanted(self.settings).items()
        }
        command = [sys.executable, "-m", "deploy.local.provider", "--port"]
        command += [str(self.settings.rail_port), "--file", str(self.places.data / "rail.jsonl")]
        notices = f"{self.gateway_url}/api/payments/webhooks/{self.settings.provider}"
        command += ["--notify", notices]
        self.rail = Part(self._child("rail", command), partial(answers, f"{self.rail_url}/health"))
        command = [sys.executable, "-m", "deploy.local.postbox"]
        command += ["--mail-port", str(self.settings.mail_port)]
        command += ["--port", str(self.settings.messages_port)]
        command += ["--directory", str(self.places.data / "post")]
        self.postbox = Part(
            self._child("postbox", command), partial(answers, f"{self.messages_url}/health")
        )
        self.worker = Part(
            self._child("worker", self._command("worker", "money")),
            partial(answers, f"{self.worker_url}/readiness"),
        )
        self.beside = Part(
            self._child(
                "beside",
                self._command("worker", "beside", "--ops-port", str(self.settings.beside_port)),
            ),
            partial(answers, f"{self.beside_url}/readiness"),
        )
        self.projector = Part(
            self._child(
                "projector",
                self._command(
                    "worker", "projections", "--ops-port", str(self.settings.projector_port)
                ),
            ),
            partial(answers, f"{self.projector_url}/health"),
        )
        self.gateway = Part(
            self._child("gateway", self._command("gateway")),
            partial(answers, f"{self.gateway_url}/readiness"),
        )
        stores = [Part(store.child, store.answers) for store in self.stores.values()]
        self.needed = [*stores, self.rail, self.postbox]  # by worker and gateway
        projectors = [self.projector] if self._has_read_models() else []
        self.services = [self.worker, self.beside, *projectors, self.gateway]
        self.parts = [*self.needed, *self.services]

    def _has_read_models(self) -> bool:
        told = self.settings.mysql_url or self.settings.mongodb_url
        return bool(told or {"mysql_url", "mongodb_url"} & self.stores.keys())

    @property
    def rail_url(self) -> str:
        return f"http://{HOST}:{self.settings.rail_port}"

    @property
    def messages_url(self) -> str:
        return f"http://{HOST}:{self.settings.messages_port}"

    @property
    def worker_url(self) -> str:
        return f"http://{reachable(self.settings.ops_host)}:{self.settings.ops_port}"

    @property
    def beside_url(self) -> str:
        return f"http://{reachable(self.settings.ops_host)}:{self.settings.beside_port}"

    @property
    def projector_url(self) -> str:
        return f"http://{reachable(self.settings.ops_host)}:{self.settings.projector_port}"

    @property
    def gateway_url(self) -> str:
        scheme = "https" if self.settings.tls_certificate else "http"
        return f"{scheme}://{reachable(self.settings.gateway_host)}:{self.settings.gateway_port}"

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, self.pipeline, *arguments]

    def _child(self, name: str, command: Sequence[str]) -> Child:
        return Child(
            name,
            command,
            self.places.run,
            environment=self._environment(),
            working_directory=ROOT,
        )

    def addresses(self) -> dict[str, str]:
        """Settings of whoever talks to this system; what the user chose stays."""
        defaults = {
            "jwt_secret": self.secrets["jwt_secret"],
            "internal_token": self.secrets["internal_token"],
            "provider_secret": self.secrets["provider_secret"],
            "fingerprint_secret": self.secrets["fingerprint_secret"],
            "mail_secret": self.secrets["mail_secret"],
            "webhook_keys": self.secrets["webhook_keys"],
            "smtp_port": str(self.settings.mail_port),
            "sms_url": f"{self.messages_url}/sms",
            "push_url": f"{self.messages_url}/push",
            "webhook_private": str(not self.settings.production).lower(),
            "kafka_public": self.kafka.bootstrap,
            "public_url": f"http://{HOST}:{self.settings.gateway_port}",
        }
        found = {
            "kafka_bootstrap": self.kafka.bootstrap,
            "rail_url": self.rail_url,
            "gateway_port": str(self.settings.gateway_port),
            "ops_port": str(self.settings.ops_port),
            **{name: store.url for name, store in self.stores.items()},
        }
        for name, made in defaults.items():
            chosen = getattr(self.settings, name)
            found[name] = made if chosen == getattr(Settings(), name) else _text(chosen)
        return {f"{PREFIX}{name.upper()}": value for name, value in found.items()}

    def _environment(self) -> dict[str, str]:
        """A restarted worker takes its place at once: same name, static membership."""
        own = {
            LOCAL: str(self.places.local),
            "STREAMBANK_INSTANCE": "local",
            "STREAMBANK_STATIC_MEMBERSHIP": "true",
            "STREAMBANK_STATE_DIR": str(self.places.data / "tables"),
            "PYTHONUNBUFFERED": "1",
        }
        return {**own, **os.environ, **self.addresses()}

    def start(self) -> None:
        """All parts, ready. Raises StackError."""
        self.places.run.mkdir(parents=True, exist_ok=True)
        self.places.data.mkdir(parents=True, exist_ok=True)
        end_leftovers(self.places)
        prepare()
        self._ports_are_free()
        for store in self.stores.values():
            store.prepare()
        for part in self.needed:
            part.start()
        self.kafka.start()
        self._say(f"Kafka is ready at {self.kafka.bootstrap}")
        for part in self.needed:
            self._until_ready(part)
        self.run_pipeline("topics", "apply")
        self.run_pipeline("stores", "migrate")
        if self.settings.adopt_topology:
            self._upgrade()
        for part in self.services:
            part.start()
        for part in self.services:
            self._until_ready(part)
        self._first_admin()
        write_private(
            self.places.settings,
            "".join(f"{name}={value}\n" for name, value in self.addresses().items()),
        )

    def _upgrade(self) -> None:
        """What an older version kept is made what the events say, before anybody reads it."""
        self._say("an upgrade: the tables are made what the events say")
        self.run_pipeline("tables", "rebuild")
        there = self.addresses()
        for store in ("mysql", "mongodb"):
            if getattr(self.settings, f"{store}_url") or f"{PREFIX}{store.upper()}_URL" in there:
                self._say(f"and so are those of {store}")
                self.run_pipeline("projections", "rebuild", store)

    def _ports_are_free(self) -> None:
        chosen = {
            "KAFKA_PORT": (HOST, self.kafka.port()),
            "RAIL_PORT": (HOST, self.settings.rail_port),
            "MAIL_PORT": (HOST, self.settings.mail_port),
            "MESSAGES_PORT": (HOST, self.settings.messages_port),
            "OPS_PORT": (self.settings.ops_host, self.settings.ops_port),
            "BESIDE_PORT": (self.settings.ops_host, self.settings.beside_port),
            "PROJECTOR_PORT": (self.settings.ops_host, self.settings.projector_port),
            "GATEWAY_PORT": (self.settings.gateway_host, self.settings.gateway_port),
        }
        for name, (host, port) in chosen.items():
            if not port_is_free(port, host):
                raise StackError(
                    f"port {port} is in use by another process: stop it, or set "
                    f"{PREFIX}{name} to a free port"
                )

    def _until_ready(self, part: Part) -> None:
        until_s = time.monotonic() + READY_S
        tries = 1
        while not part.ready():
            if not part.child.running:
                tries += 1
                if tries > START_TRIES:
                    raise StackError(f"the {part.name} ends at once:\n{part.child.last_lines()}")
                part.start()
            if time.monotonic() > until_s:
                raise StackError(
                    f"the {part.name} is not ready after {READY_S:.0f} s; see {part.child.log}"
                )
            time.sleep(0.05)
        self._say(f"the {part.name} is ready")

    def run_pipeline(self, *arguments: str) -> None:
        """One command of pipeline.py, to its end. Raises StackError when it fails."""
        done = subprocess.run(
            self._command(*arguments),
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
            raise StackError(f"pipeline.py {arguments[0]} failed:\n{said}")

    def _first_admin(self) -> None:
        """Made once. Its password is on disk before, so that a crash between does not lose it."""
        places = self.places
        if places.admin.exists():
            return
        again = places.admin_draft.exists()
        admin = made_once(
            places.admin_draft,
            lambda: {
                "email": self.settings.admin_email,
                "password": self.settings.admin_password or secrets.token_urlsafe(18),
            },
        )
        write_private(places.admin_password, admin["password"])
        options = ("--email", admin["email"], "--password-file", str(places.admin_password))
        try:
            self.run_pipeline("create-admin", *options)
        except StackError as refused:
            if not (again and "EMAIL_TAKEN" in str(refused)):
                raise
        finally:
            places.admin_password.unlink()
        places.admin_draft.replace(places.admin)
        self._say(f"{admin['email']} is the first administrator: see {places.admin}")

    def watch(self) -> None:
        """Keep all parts running, for ever."""
        while True:
            time.sleep(WATCH_S)
            if not self.kafka.running():
                self._say("Kafka died, it is started again")
                self.kafka.start()
            for part in self.parts:
                self._keep(part)

    def _keep(self, part: Part) -> None:
        now_s = time.monotonic()
        if part.due_s is not None:
            if now_s >= part.due_s:
                part.start()
                part.waiting = True
        elif not part.child.running:
            how = ended(part.child.returncode)
            pause_s = part.died(now_s)
            soon = f"in {pause_s:g} s" if pause_s else "at once"
            self._say(f"the {part.name} {how}, it is started again {soon}")
            if not pause_s:
                self._keep(part)
        elif part.waiting and part.ready():
            part.waiting = False
            self._say(f"the {part.name} is ready again, {now_s - part.started_s:.1f} s after")

    def stop(self) -> None:
        """All parts, those first that need the others."""
        self.places.settings.unlink(missing_ok=True)
        for part in reversed(self.parts):
            part.child.stop(STOP_S)
        self.kafka.stop()

    def _say(self, line: str) -> None:
        say(f"{time.monotonic() - self.began_s:6.1f} s  {line}")

    def state(self) -> dict[str, Any]:
        """What `up` and `status` show."""
        return {
            "gateway": self.gateway_url,
            "docs": f"{self.gateway_url}/docs",
            "kafka": self.kafka.bootstrap,
            **{store.name: f"{HOST}:{store.port}" for store in self.stores.values()},
            "worker": self.worker_url,
            "beside": self.beside_url,
            **({"projector": self.projector_url} if self.projector in self.services else {}),
            "rail": self.rail_url,
            "mail": str(self.places.data / "post" / "mail"),
            "admin": str(self.places.admin),
            "logs": str(self.places.run),
        }


def _text(value: Any) -> str:
    """A setting as its variable holds it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def wanted(settings: Settings) -> dict[str, type[Server]]:
    """The stores that the stack starts, by the setting of their URL: not one of the user's own."""
    if settings.local_stores == "none":
        return {}
    return {name: kind for name, kind in STORES.items() if not getattr(settings, name)}


def fetch(settings: Settings) -> None:
    """Have everything that a start needs, fetched side by side. Raises StackError."""
    fetches: list[Callable[[], object]] = [
        prepare,
        *(kind.fetch for kind in wanted(settings).values()),
    ]
    with ThreadPoolExecutor() as pool:
        for had in [pool.submit(fetch) for fetch in fetches]:
            had.result()


def kafka_port(settings: Settings) -> int:
    """Where our Kafka listens: what the clients were told, when that is this machine.

    Raises StackError when they were told another broker.
    """
    told = settings.kafka_bootstrap
    host, _, port = told.rpartition(":")
    if told == Settings().kafka_bootstrap:
        return settings.kafka_port
    if host in (HOST, "localhost") and port.isdigit():
        return int(port)
    raise StackError(
        f"STREAMBANK_KAFKA_BOOTSTRAP is {told}, but the local stack starts a Kafka of its own: "
        "unset it, or start `pipeline.py worker all` and `pipeline.py gateway` yourself"
    )


def reachable(host: str) -> str:
    """An address to connect to, for one to listen on."""
    return HOST if host in ("0.0.0.0", "::", "") else host


# those first that need the others
PROCESSES = ("gateway", "projector", "beside", "worker", "rail", "postbox")


def end_leftovers(places: Places) -> None:
    """Stop what a crashed supervisor left running, those first that need the others."""
    pid_files = [places.run / f"{name}.pid" for name in PROCESSES]
    pid_files += [store_pid(places, kind.name) for kind in STORES.values()]
    for pid_file in [*pid_files, *sorted((places.data / "kafka").glob("*.pid"))]:
        left = recorded(pid_file)
        if left is not None:
            say(f"stopping {pid_file.stem} (pid {left.pid}), left over from a crashed run")
            end(left, STOP_S)
        pid_file.unlink(missing_ok=True)


def store_pid(places: Places, name: str) -> Path:
    """The pid file of a store."""
    return places.data / name / f"{name}.pid"


def supervise(places: Places, pipeline: str) -> None:
    """Start, watch until SIGINT, SIGTERM or SIGHUP, stop. Raises StackError, BadSetting."""
    for number in ENDING:
        signal.signal(number, signal.default_int_handler)
    places.run.mkdir(parents=True, exist_ok=True)
    with (places.run / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError("the system runs already: make status, make down") from None
        myself = identify(os.getpid())
        assert myself is not None
        for left in (places.settings, places.state):  # of a crashed run
            left.unlink(missing_ok=True)
        myself.write(places.pid)
        stack = Stack(places, Settings.load(), pipeline)
        try:
            stack.start()
            show(stack.state())
            write_private(places.state, json.dumps(stack.state()))
            stack.watch()
        except KeyboardInterrupt:
            say("stopping …")
        finally:
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)
            places.state.unlink(missing_ok=True)
            stack.stop()
            places.pid.unlink(missing_ok=True)
        say("stopped; the data is kept")


def show(state: Mapping[str, Any]) -> None:
    print("\nStreambank is ready:")
    for name, where in state.items():
        print(f"  {name:8} {where}")
    print(flush=True)
