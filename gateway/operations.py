"""Health, readiness, metrics of a gateway process."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from gateway.answer import Answer, answer
from gateway.commands import WAITING_LIMIT

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.services import Gateway

CHECK_S = 1.0  # a look at the broker is good for so long
BROKER_TIMEOUT_S = 2.0
LEAST_BYTES = 64 << 20


class Readiness:
    """What one process needs to serve; the broker is asked at most once in CHECK_S."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asked_s = float("-inf")
        self._broker = "not asked yet"
        self._asking = asyncio.Lock()

    async def checks(self) -> dict[str, str]:
        async with self._asking:
            if time.monotonic() - self._asked_s > CHECK_S:
                self._broker = await asyncio.to_thread(self._ask)
                self._asked_s = time.monotonic()
        gateway = self._gateway
        crowded = gateway.commands.under_way >= WAITING_LIMIT
        return {
            "broker": self._broker,
            "events": "ok" if gateway.waiting.live else "the event topics are not read yet",
            "commands": "too many under way" if crowded else "ok",
            "disk": _enough(shutil.disk_usage(Path.cwd()).free),
            "memory": _enough(_free_memory()),
        }

    def _ask(self) -> str:
        try:
            self._gateway.queries.brokers(BROKER_TIMEOUT_S)
        except KafkaException:
            return "the broker does not answer"
        return "ok"


def _enough(free: int) -> str:
    return "ok" if free >= LEAST_BYTES else f"{free >> 20} MiB left"


def _free_memory() -> int:
    """What Linux says is available, in bytes; plenty where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return LEAST_BYTES
    found = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else LEAST_BYTES


async def health(_call: Call) -> Answer:
    return answer({"status": "ok"})


async def readiness(call: Call) -> Answer:
    checks = await call.gateway.readiness.checks()
    ready = all(text == "ok" for text in checks.values())
    body = {"status": "ready" if ready else "not ready", "checks": checks}
    return answer(body, 200 if ready else 503, headers={} if ready else {"Retry-After": "1"})


async def metrics(_call: Call) -> Answer:
    return Answer(200, generate_latest(REGISTRY), {}, CONTENT_TYPE_LATEST)
