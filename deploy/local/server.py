"""A store of the local stack as a child process: started, killed and started again on its data.

    with Redis(directory) as redis:          # answers commands
        redis.url                            # settings.redis_url of whoever uses it
        redis.kill(); redis.restart()        # kill -9 and back, on the same port, with its data
        redis.freeze(); redis.thaw()         # SIGSTOP, SIGCONT

`directory` keeps data, log and pid file: another server on the same directory goes on with what is
there. Each listens on loopback alone.
"""

from __future__ import annotations

import secrets
import signal
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from deploy.local.processes import Child, StackError, end, free_port, port_is_free, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

HOST = "127.0.0.1"
READY_S = 90.0
GRACE_S = 15.0
ANSWER_S = 2.0  # of the query that tells whether it is ready
NAME = "streambank"  # user and database


class Server(ABC):
    """One store. Without `port` and `password` it chooses a free one and a random one.

    `orphaned` is the signal that it gets when this process dies. Raises StackError when the program
    cannot be had or does not come up.
    """

    name: ClassVar[str]

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        password: str = "",
        orphaned: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.directory = directory.resolve()
        self.port = port or free_port()
        self.password = password or secrets.token_hex(16)
        self.child = Child(self.name, [], self.directory, orphaned=orphaned)

    @classmethod
    @abstractmethod
    def fetch(cls) -> None:
        """Have its program on this machine, ready to be started. Raises StackError."""

    @property
    @abstractmethod
    def url(self) -> str:
        """What its clients are told, password and all."""

    @abstractmethod
    def answers(self) -> bool:
        """True when a client of its own kind gets an answer now."""

    @abstractmethod
    def _prepared(self) -> tuple[list[str], Mapping[str, str] | None]:
        """Its command line and its environment if not ours, once its files are in place."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it when it does not run, and wait until it answers."""
        if not self.running:
            self.prepare()
            self.child.start()
        self.wait_ready()
        return self

    def prepare(self) -> None:
        """All that comes before its `child` can start: no leftover, a free port, its files."""
        left = self.child.leftover()
        if left:
            say(f"stopping {self.name} (pid {left.pid}), left over from a crashed run")
            end(left, GRACE_S)
        if not port_is_free(self.port, HOST):
            raise StackError(
                f"port {self.port} of {self.name} is in use by another process: stop it, or start "
                "again for another port"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        self.child.command, self.child.environment = self._prepared()

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        until_s = time.monotonic() + timeout_s
        while not self.answers():
            if not self.running:
                raise StackError(f"{self.name} ended while starting:\n{self.child.last_lines()}")
            if time.monotonic() > until_s:
                raise StackError(f"{self.name} is not ready; see {self.child.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut it down cleanly; the data stays."""
        self.child.stop(GRACE_S)

    def kill(self) -> None:
        """kill -9."""
        self.child.kill()

    def restart(self) -> None:
        """Start it again (stop it first when it runs) on its port, wait until it answers."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        self.child.freeze()

    def thaw(self) -> None:
        self.child.thaw()

    @property
    def running(self) -> bool:
        return self.child.running

    @property
    def pid(self) -> int:
        return self.child.pid
