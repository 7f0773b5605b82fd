r"""Child processes that are known again after a crash.

    Child.start --> running --stop | kill--> gone
                       \--(we crash)--> leftover, found by its pid file

A pid alone proves nothing: pids are used again. A pid file therefore holds pid, start time and boot
id, and a signal goes through a pidfd that was opened before these were compared. What does not
match is not ours and is never touched. Children also get a signal from the kernel when we die, so
that leftovers are rare.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# above 32768 (ip_local_port_range) any outgoing connection may hold the port
FREE_PORTS = range(20_000, 32_000)
POLL_S = 0.02
LOG_MAX_BYTES = 20 << 20


class StackError(Exception):
    """Something of the local stack cannot be had; the message says what to do, in one sentence."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from all others that ever had its pid."""

    pid: int
    started: int  # clock ticks since boot
    boot: str

    def write(self, path: Path) -> None:
        path.write_text(f"{self.pid} {self.started} {self.boot}\n")


def identify(pid: int) -> Identity | None:
    """The running process of this pid; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Identity(pid, int(fields[19]), boot)


def recorded(path: Path) -> Identity | None:
    """The process that this pid file names, if it is that very one and runs still."""
    try:
        pid, started, boot = path.read_text().split()
        identity = Identity(int(pid), int(started), boot)
    except (FileNotFoundError, ValueError):
        return None
    return identity if identify(identity.pid) == identity else None


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if identify(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def end(identity: Identity, grace_s: float) -> None:
    """Ask the process to end; kill it when it still runs after `grace_s`."""
    send(identity, signal.SIGTERM)
    send(identity, signal.SIGCONT)
    if not wait_gone(identity, grace_s):
        send(identity, signal.SIGKILL)
        wait_gone(identity, 5)


def wait_gone(identity: Identity, limit_s: float) -> bool:
    """True once the process is gone, False after `limit_s`."""
    until_s = time.monotonic() + limit_s
    while identify(identity.pid) == identity:
        if time.monotonic() > until_s:
            return False
        time.sleep(POLL_S)
    return True


def _stands_still(pid: int) -> bool:
    """Whether each thread of a process is stopped; one of them may go on for a while after the first."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread that ends
        return False
    return all(stat.rpartition(") ")[2][0] in "TtZX" for stat in stats)


class Child:
    """A process of ours; in `directory` its output is `<name>.log`, its identity `<name>.pid`.

    `orphaned` is the signal that it gets from the kernel when this process dies.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
        orphaned: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.pid_file = directory / f"{name}.pid"
        self.log = directory / f"{name}.log"
        self.environment = environment
        self.working_directory = working_directory
        self.orphaned = orphaned
        self.identity: Identity | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """None while it runs, or was never started; negative for a signal."""
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def leftover(self) -> Identity | None:
        """What a crashed run left running under this name."""
        return None if self.running else recorded(self.pid_file)

    def start(self) -> None:
        """Raises StackError when the program is missing."""
        assert not self.running, f"{self.name} runs already"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _rotate(self.log)
        try:
            self._process = _LAUNCHER.submit(self._launch).result()
        except FileNotFoundError as exc:
            raise StackError(f"{self.name}: {exc.filename} is not installed") from exc
        self.identity = identify(self._process.pid)
        if self.identity:
            self.identity.write(self.pid_file)

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*_when_orphaned(self.orphaned), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment) if self.environment is not None else None,
                cwd=self.working_directory,
                start_new_session=True,  # Ctrl-C reaches its parent alone, which stops all in order
            )

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP; returns when all of its threads stand still."""
        self.signal(signal.SIGSTOP)
        while self.running and not _stands_still(self.pid):
            time.sleep(0.001)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self, grace_s: float = 10) -> None:
        """Ask it to end, kill it after `grace_s`; nothing when it does not run."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self.pid_file.unlink(missing_ok=True)

    def last_lines(self, count: int = 5) -> str:
        """The end of its log, for an error message."""
        return last_lines(self.log, count)


def last_lines(log: Path, count: int) -> str:
    """The end of a log; empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""


# The signal of the kernel comes when the starting *thread* ends: this one ends with the process.
_LAUNCHER = ThreadPoolExecutor(1, "launcher")


def _when_orphaned(number: signal.Signals) -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", number.name[3:], "--"] if setpriv else []


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_suffix(".log.1"))


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on now, below those of outgoing connections."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """That many different free ports."""
    found = [port for port in random.sample(FREE_PORTS, 200) if port_is_free(port)]
    if len(found) < count:
        raise StackError("no free port was found between 20000 and 31999; stop what listens there")
    return found[:count]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes that lock this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)
