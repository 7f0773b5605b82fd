"""The peer: the same work on Quix Streams, exactly-once. Runs in an environment of its own (bench/driver.py)."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from quixstreams import Application
from quixstreams.models import TopicConfig

from bench.work import DEPOSIT, DEPOSITED, PARTITIONS, decode, encode, step
from resilience.garbage import collect_rarely


def run(bootstrap: str, name: str, source: str, output: str) -> None:
    app = Application(
        broker_address=bootstrap,
        consumer_group=name,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(),
        commit_interval=0.1,
        producer_extra_config={"transactional.id": name, "retry.backoff.ms": 1, "linger.ms": 2},
        consumer_extra_config={"fetch.queue.backoff.ms": 10},
    )
    config = TopicConfig(num_partitions=PARTITIONS, replication_factor=1)
    raw = {"value_serializer": "bytes", "key_serializer": "bytes", "config": config}
    deposits = app.topic(
        source, value_deserializer="bytes", key_deserializer="bytes", config=config
    )
    deposited = app.topic(output, **raw)

    def work(value: bytes, state: Any) -> bytes:
        row, out = step(state.get("row"), decode(DEPOSIT, value))
        state.set("row", row)
        return encode(DEPOSITED, out)

    app.dataframe(deposits).apply(work, stateful=True).to_topic(deposited)
    app.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "name", "source", "output"):
        parser.add_argument(f"--{name}", required=True)
    collect_rarely()
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
