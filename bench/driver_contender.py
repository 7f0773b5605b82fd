"""The contender: the same work as plain Faust code on `streaming/`, one table write and one output per event."""

from __future__ import annotations

import argparse
import asyncio
import logging
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

import streaming
from bench.work import BALANCE, DEPOSIT, DEPOSITED, PARTITIONS, decode, encode, step
from resilience.garbage import collect_rarely


class Avro:
    """A value codec over one fixed schema."""

    def __init__(self, schema: Any, immutable: bool = False) -> None:
        self.loads, self.dumps = partial(decode, schema), partial(encode, schema)
        self.immutable = immutable


def build(bootstrap: str, name: str, source: str, output: str, **driver: Any) -> streaming.App:
    config = streaming.DriverConfig(**{"instance": "0", "bootstrap": bootstrap, **driver})
    app = streaming.App(name, driver=config, topic_partitions=PARTITIONS)
    deposits = app.topic(source, value_codec=Avro(DEPOSIT))
    deposited = app.topic(output, value_codec=Avro(DEPOSITED))
    balances = app.Table(
        "balances", value_codec=Avro(BALANCE, immutable=True), partitions=PARTITIONS
    )

    @app.agent(deposits)
    async def deposit(stream: Any) -> None:
        async for key, value in stream.items():
            row, out = step(balances.get(key), value)
            balances[key] = row
            deposited.put(key=key, value=out)

    return app


async def run(app: streaming.App) -> None:
    await app.start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "name", "source", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--instance", default="0")
    parser.add_argument("--store", default="memory")
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--standby", action="store_true")
    logging.basicConfig(level="INFO")
    collect_rarely()
    uvloop.run(
        run(build(**vars(parser.parse_args()), static_membership=True, session_timeout_s=3.0))
    )


if __name__ == "__main__":
    main()
