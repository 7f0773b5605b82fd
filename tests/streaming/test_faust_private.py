"""The private names that the driver touches exist in the installed versions, and are all listed."""

from __future__ import annotations

import importlib
from functools import reduce

import pytest
from confluent_kafka import Consumer

from streaming.consumer import is_member
from streaming.faust_private import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_exists(name: str) -> None:
    module, _, path = name.partition(":")
    reduce(getattr, path.split("."), importlib.import_module(module))


def test_group_metadata_is_read_as_librdkafka_writes_it() -> None:
    consumer = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0})
    nobody = consumer.consumer_group_metadata()
    consumer.close()
    assert not is_member(nobody)
    at = nobody.index(b"g\0") + 2
    named = nobody[:at] + b"member" + nobody[at:]
    assert not is_member(named)  # without a generation the broker's fence does not hold
    assert is_member(named[:7] + (5).to_bytes(4, "little") + named[11:])
    assert not is_member(nobody[:7] + (5).to_bytes(4, "little") + nobody[11:])
