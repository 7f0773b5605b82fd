"""Redis as a child process, the cache of the local stack: 7.0 on Debian 12.

    redis.url        # redis://:…@127.0.0.1:23458/0

Each command is on disk when it is answered, so that kill -9 loses nothing: with an fsync each second
Redis answers before it writes while an fsync takes long. When memory is full, keys that expire go first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.debian import prepare
from deploy.local.places import write_private
from deploy.local.server import ANSWER_S, HOST, Server

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS: Mapping[str, str] = {
    "bind": HOST,
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "256mb",
    "maxmemory-policy": "volatile-lru",
}


class Redis(Server):
    """One Redis, behind a password."""

    name = "redis"

    @classmethod
    def fetch(cls) -> None:
        prepare()

    @property
    def url(self) -> str:
        return f"redis://:{quote(self.password, safe='')}@{HOST}:{self.port}/0"

    def answers(self) -> bool:
        try:
            with redis.Redis(
                port=self.port,
                password=self.password,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 0),  # by default it tries for some ten seconds
            ) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def _prepared(self) -> tuple[list[str], Mapping[str, str]]:
        debian = prepare()
        file = self.directory / "redis.conf"  # a password on the command line is for all to see
        own = {
            "port": str(self.port),
            "dir": _quoted(str(self.directory)),
            "requirepass": _quoted(self.password),
        }
        lines = [f"{name} {value}\n" for name, value in {**OPTIONS, **own}.items()]
        write_private(file, "".join(lines))
        return [str(debian.path("usr/bin/redis-server")), str(file)], debian.environment()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
