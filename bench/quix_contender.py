"""The peer: the same work on Quix Streams, exactly-once. Runs in an environment of its own (bench/driver.py).

As its documentation writes it: its Avro serializers, its own settings, Python's garbage collector as it is. With
`--tuned` it gets what our driver found to count: librdkafka's short pauses, bytes past its serializers, a collector
that looks rarely.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from quixstreams import Application
from quixstreams.models import TopicConfig
from quixstreams.models.serializers.avro import AvroDeserializer, AvroSerializer

from bench.work import DEPOSIT, DEPOSITED, PARTITIONS, decode, encode, step
from resilience.garbage import collect_rarely

CONFIG = TopicConfig(num_partitions=PARTITIONS, replication_factor=1)


def application(bootstrap: str, name: str, **more: Any) -> Application:
    return Application(
        broker_address=bootstrap,
        consumer_group=name,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(),
        **more,
    )


def as_documented(bootstrap: str, name: str, source: str, output: str) -> None:
    app = application(bootstrap, name)
    deposits = app.topic(
        source,
        value_deserializer=AvroDeserializer(DEPOSIT),
        key_deserializer="bytes",
        config=CONFIG,
    )
    deposited = app.topic(
        output, value_serializer=AvroSerializer(DEPOSITED), key_serializer="bytes", config=CONFIG
    )

    def work(value: dict[str, Any], state: Any) -> dict[str, Any]:
        row, out = step(state.get("row"), value)
        state.set("row", row)
        return out

    app.dataframe(deposits).apply(work, stateful=True).to_topic(deposited)
    app.run()


def tuned(bootstrap: str, name: str, source: str, output: str) -> None:
    app = application(
        bootstrap,
        name,
        commit_interval=0.1,
        producer_extra_config={"transactional.id": name, "retry.backoff.ms": 1, "linger.ms": 2},
        consumer_extra_config={"fetch.queue.backoff.ms": 10},
    )
    deposits = app.topic(
        source, value_deserializer="bytes", key_deserializer="bytes", config=CONFIG
    )
    deposited = app.topic(output, value_serializer="bytes", key_serializer="bytes", config=CONFIG)

    def work(value: bytes, state: Any) -> bytes:
        row, out = step(state.get("row"), decode(DEPOSIT, value))
        state.set("row", row)
        return encode(DEPOSITED, out)

    app.dataframe(deposits).apply(work, stateful=True).to_topic(deposited)
    collect_rarely()
    app.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "name", "source", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tuned", action="store_true")
    options = vars(parser.parse_args())
    (tuned if options.pop("tuned") else as_documented)(**options)


if __name__ == "__main__":
    main()
