"""Options that don't fit each other are refused with a sentence; keys land where Java puts them."""

from __future__ import annotations

from typing import Any

import pytest
from faust.types import TP

from streaming import DriverConfig, partition_of
from streaming.intake import fair_shares
from tests.streaming.kit import create, read, write


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"instance": ""}, "stable name"),
        ({"session_timeout_s": 0.5}, "must be 1 or more"),
        ({"store": "sqlite"}, "use memory or rocksdb"),
        ({"store": "rocksdb"}, "needs state_dir"),
        ({"batch_max": 0}, "must be 1 or more"),
        ({"skip": frozenset({"in"})}, "topic-partition@offset"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DriverConfig(**{"instance": "0", "bootstrap": "x:1", **options})


def test_instance_has_no_default() -> None:
    with pytest.raises(TypeError):
        DriverConfig(bootstrap="x:1")  # type: ignore[call-arg]


def test_keys_land_where_every_client_puts_them(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}keys", partitions=7)
    keys = [b"%d" % n for n in range(300)] + [b"k" * n for n in range(1, 30)]
    write(bootstrap, f"{prefix}keys", [(key, b"") for key in keys])
    for message in read(bootstrap, f"{prefix}keys"):
        assert partition_of(message.key() or b"", 7) == message.partition()


def test_source_partitions_share_a_batch_fairly() -> None:
    a, b, c = (TP("in", n) for n in range(3))
    assert fair_shares({a: 5, b: 5, c: 5}, 9) == {a: 3, b: 3, c: 3}
    assert fair_shares({a: 1, b: 9, c: 9}, 9) == {a: 1, b: 4, c: 4}  # what one lacks, others take
    assert fair_shares({a: 1, b: 2}, 9) == {a: 1, b: 2}
    assert fair_shares({a: 9, b: 9, c: 9}, 1) == {a: 1, b: 1, c: 1}
