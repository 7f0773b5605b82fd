"""The peer: the same work on stock Faust (aiokafka transport), exactly_once as Faust means it."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import faust

from bench.work import BALANCE, DEPOSIT, DEPOSITED, PARTITIONS, decode, encode, step
from resilience.garbage import collect_rarely


def build(bootstrap: str, name: str, source: str, output: str, guarantee: str) -> faust.App:
    app = faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        processing_guarantee=guarantee,
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        datadir=tempfile.mkdtemp(),
        web_enabled=False,
    )
    raw = {
        "key_type": bytes,
        "value_type": bytes,
        "value_serializer": "raw",
        "key_serializer": "raw",
    }
    deposits, deposited = app.topic(source, **raw), app.topic(output, **raw)
    balances = app.Table("balances", partitions=PARTITIONS, key_type=bytes, value_type=bytes)

    @app.agent(deposits)
    async def deposit(stream: Any) -> None:
        async for key, value in stream.items():
            kept = balances.get(key)
            row, out = step(decode(BALANCE, kept) if kept else None, decode(DEPOSIT, value))
            balances[key] = encode(BALANCE, row)
            await deposited.send(key=key, value=encode(DEPOSITED, out))

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "name", "source", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--guarantee", default="exactly_once")
    collect_rarely()
    app = build(**vars(parser.parse_args()))
    faust.Worker(app, loglevel="info", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
