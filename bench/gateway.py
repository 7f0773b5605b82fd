"""How many commands a second one gateway process accepts, and what one costs.

    python -m bench.gateway [--seconds 10] [--connections 64]

Starts a broker and a gateway process of its own, POSTs transfers over keep-alive connections and
counts the 202s: each was acknowledged by the broker. No workers run: what is measured is the way in.
The client is a small program on the same cores, so CPU per command is the figure to trust.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy.local.kafka import Kafka
from deploy.local.processes import free_ports
from settings import Settings

BODY = (
    b'{"type":"transfer","amount":1050,"currency":"USD","source_account_id":"source",'
    b'"destination_account_id":"destination","reference":"bench"}'
)


def serve(settings: Settings, ready: Any, used: Any) -> None:
    """A gateway process that knows the account's owner already, as a warm one does."""
    import uvloop
    from aiohttp import web

    import logs
    from gateway.app import build_app
    from gateway.services import Gateway
    from resilience.garbage import collect_rarely

    logs.configure("gateway", settings.log_level)

    async def run() -> None:
        gateway = Gateway(settings)
        gateway.owners.learn("source", "alice")
        runner = web.AppRunner(build_app(settings, gateway), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, settings.gateway_host, settings.gateway_port).start()
        assert await gateway.waiting.until_live(20)
        collect_rarely()
        ready.send(gateway.tokens.issue("alice", ["customer"])["access_token"])
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        own = resource.getrusage(resource.RUSAGE_SELF)
        used.send((own.ru_utime + own.ru_stime, own.ru_maxrss))
        await runner.cleanup()

    uvloop.run(run())


async def load(port: int, token: str, connections: int, seconds: float) -> list[float]:
    """Seconds that each accepted command took."""
    took: list[float] = []
    end_s = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            "POST /api/transactions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\nIdempotency-Key: "
        ).encode()
        count = time.monotonic_ns()  # no key twice
        while (started := time.perf_counter()) < end_s:
            count += 1
            writer.write(b"%s%d-%d\r\n\r\n%s" % (head, number, count, BODY))
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 202"), answer
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return took


def topics(settings: Settings) -> None:
    from topics import apply
    from topics.catalog import Installation

    apply.apply(settings.kafka, Installation.of(settings))


def measured(bootstrap: str, seconds: float, connections: int) -> dict[str, float]:
    """Commands a second, CPU of the gateway per command in µs, latencies in ms."""
    (port,) = free_ports(1)
    settings = Settings(
        kafka_bootstrap=bootstrap,
        prefix=f"bench{os.getpid()}-",
        gateway_port=port,
        log_level="WARN",
    )
    topics(settings)
    ready, told = multiprocessing.Pipe(duplex=False)
    used, tells = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(settings, told, tells)
    )
    process.start()
    try:
        return _measured(process, port, ready, used, seconds, connections)
    finally:
        process.kill()


def _measured(
    process: Any, port: int, ready: Any, used: Any, seconds: float, connections: int
) -> dict[str, float]:
    token = ready.recv()
    asyncio.run(load(port, token, connections, 2.0))  # warm
    before = _cpu(process.pid or 0)
    started = time.perf_counter()
    took = sorted(asyncio.run(load(port, token, connections, seconds)))
    passed = time.perf_counter() - started
    cpu = _cpu(process.pid or 0) - before
    process.terminate()
    _, memory = used.recv()
    process.join()
    return {
        "commands_per_s": len(took) / passed,
        "gateway_cpu_us": cpu / len(took) * 1e6,
        "gateway_cores": cpu / passed,
        "p50_ms": statistics.median(took) * 1e3,
        "p95_ms": took[int(len(took) * 0.95)] * 1e3,
        "p99_ms": took[int(len(took) * 0.99)] * 1e3,
        "memory_mb": memory / 1024,
    }


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-gateway-"))
    try:
        with Kafka(directory) as kafka:
            found = measured(kafka.bootstrap, options.seconds, options.connections)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for name, value in found.items():
        print(f"{name:16} {value:10,.1f}")


if __name__ == "__main__":
    main()
