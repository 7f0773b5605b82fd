"""A worker process of the driver's tests: adds numbers per key, says each sum, and fails as it is told.

Argument: one JSON object.
    bootstrap, name, instance, partitions   the app; it reads <name>.in, keeps "sums", says <name>.out
    die, freeze    a point of the cycle: kill -9 or SIGSTOP ourselves there, at the `after`-th pass;
                   "key" is where a number's new key is asked for, "sum" where the agent takes a number
    group          a divisor: numbers are added per remainder, by group_by, instead of per key
    also           one more source
    hang           a number at which the agent never comes back
    driver         further DriverConfig options
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import streaming
from tests.streaming.kit import Number


def faults(point: str, sign: signal.Signals, after: int) -> Any:
    passes = 0

    def fault(here: str) -> None:
        nonlocal passes
        if here == point:
            passes += 1
            if passes == after:
                sys.stderr.write(f"at {point}\n")
                sys.stderr.flush()
                os.kill(os.getpid(), sign)

    return fault


def remainder(divisor: int, fault: Any) -> Any:
    def key(number: int) -> bytes:
        fault("key")
        return b"r%d" % (number % divisor)

    return key


def build(options: dict[str, Any]) -> streaming.App:
    name, partitions = options["name"], options.get("partitions", 1)
    driver = {"session_timeout_s": 2.0, "transaction_timeout_s": 4.0, "cycle_timeout_s": 2.0}
    driver |= options.get("driver", {})
    if "state_dir" in driver:
        driver["state_dir"] = Path(driver["state_dir"])
    if "skip" in driver:
        driver["skip"] = frozenset(driver["skip"])
    after = options.get("after", 1)
    if "die" in options:
        driver["faults"] = faults(options["die"], signal.SIGKILL, after)
    if "freeze" in options:
        driver["faults"] = faults(options["freeze"], signal.SIGSTOP, after)
    app = streaming.App(
        name,
        driver=streaming.DriverConfig(
            instance=options["instance"], bootstrap=options["bootstrap"], **driver
        ),
        topic_partitions=partitions,
    )
    numbers = app.topic(f"{name}.in", value_codec=Number())
    sums = app.topic(f"{name}.out", value_codec=Number())
    table = app.Table("sums", value_codec=Number(), default=int, partitions=partitions)

    fault = driver.get("faults") or (lambda point: None)

    @app.agent(numbers, name="add")
    async def add(stream: Any) -> None:
        if "group" in options:
            stream = stream.group_by(remainder(options["group"], fault), name="remainder")
        async for key, value in stream.items():
            fault("sum")
            if value == options.get("hang"):
                await asyncio.Event().wait()
            table[key] += value
            sums.put(key=key, value=table[key])

    if "also" in options:

        @app.agent(app.topic(options["also"], value_codec=Number()), name="also")
        async def also(stream: Any) -> None:
            async for key, value in stream.items():
                table[key] += value

    return app


async def main(options: dict[str, Any]) -> None:
    app = build(options)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await app.start()
    await ended.wait()
    await app.stop()


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
