"""A worker process that joins and leaves its group again and again, and says what it holds when it is ready.

Argument: one JSON object, as of `worker.py`, and
    seed         of all chance here
    stays_s      a pair: how long it stays, at least and at most; it then leaves and joins anew
    delay_s      longest pause before and after each step of a restore
Says one line per partition that becomes ready: READY and a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import threading
import time
from typing import Any

import streaming.consumer
import streaming.restore
import streaming.state
from streaming.admin import Admin
from tests.streaming.worker import build

_says = threading.Lock()


class Watcher:
    """Says what each partition holds as it becomes ready."""

    def assigned(self, partition: int, view: Any) -> None:
        found = {
            "at": time.time(),
            "partition": partition,
            "position": json.loads(view.position)["offsets"] if view.position else {},
            "rows": {key.decode(): value for key, value in view.scan()},
        }
        with _says:
            sys.stdout.write(f"READY {json.dumps(found)}\n")
            sys.stdout.flush()

    def committed(self, partition: int, changes: Any) -> None: ...

    def revoked(self, partition: int) -> None: ...


class Delays:
    """Pauses around every step of the restore, and where it looks whether it is still wanted."""

    def __init__(self, chance: random.Random, delay_s: float) -> None:
        self.chance, self.delay_s = chance, delay_s
        self.main_thread = threading.get_ident()  # a sleep in it would stop everything

    def pause(self) -> None:
        if threading.get_ident() != self.main_thread and self.chance.random() < 0.5:
            time.sleep(self.chance.uniform(0, self.delay_s))

    async def pause_here(self) -> None:
        await asyncio.sleep(self.chance.uniform(0, self.delay_s))

    def slowed(self, function: Any) -> Any:
        def slow(*args: Any, **kw: Any) -> Any:
            self.pause()
            try:
                return function(*args, **kw)
            finally:
                self.pause()

        return slow

    def install(self) -> None:
        """In the driver's modules and classes, for this process."""
        for module in (streaming.state, streaming.restore):
            for name in ("stable_offsets", "restore", "_read"):
                if hasattr(module, name):
                    setattr(module, name, self.slowed(getattr(module, name)))
        admin: Any = Admin
        admin.log_ends = self.slowed(admin.log_ends)
        token: Any = streaming.restore.Token
        token.check = self.slowed(token.check)
        consumer: Any = streaming.consumer.Consumer
        begin, call = consumer._begin_reading, consumer._call

        async def slow_call(self_: Any, function: Any, *args: Any) -> Any:
            if getattr(function, "__func__", None) is begin:
                await self.pause_here()
                args[0].token.check()  # as the driver does just before: nothing is between
            return await call(self_, function, *args)

        consumer._call = slow_call

    def slow_consumer(self, make: Any) -> Any:
        """Faust is told of an assignment late, and takes its time."""

        def made() -> Any:
            consumer = make()
            told = consumer._on_assigned

            async def assigned(*args: Any) -> None:
                await self.pause_here()
                await told(*args)
                await self.pause_here()

            consumer._on_assigned = assigned
            return consumer

        return made


async def main(options: dict[str, Any]) -> None:
    chance = random.Random(options["seed"])
    delays = Delays(chance, options["delay_s"])
    delays.install()
    while True:
        app = build(options)
        app.tables["sums"].watcher = Watcher()
        app._new_consumer = delays.slow_consumer(app._new_consumer)
        await app.start()
        await asyncio.sleep(chance.uniform(*options["stays_s"]))
        await app.stop()


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
