"""Kill and freeze a worker at each named point of its cycle; another takes over, the stale one resumes last.

The oracle replays the input with plain Python and compares outputs, changelog and offsets with it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.streaming.kit import committed, create, positions, read, rows, wait_until, write

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS = ("begun", "produced", "offsets", "before commit", "committed", "before merge")


def expected(bootstrap: str, name: str) -> tuple[list[tuple[bytes, bytes]], dict[Any, bytes]]:
    """Outputs and rows of a run in which each input counts exactly once."""
    outputs: list[tuple[bytes, bytes]] = []
    sums: dict[bytes, int] = defaultdict(int)
    state = {}
    for message in read(bootstrap, f"{name}.in"):
        key = message.key() or b""
        sums[key] += int(message.value() or b"")
        outputs.append((key, b"%d" % sums[key]))
        state[message.partition(), key] = b"%d" % sums[key]
    return outputs, state


def check(bootstrap: str, name: str, partitions: int = 1) -> None:
    """All of the input is processed, each record once, and the three agree."""
    outputs, state = expected(bootstrap, name)
    found = [(message.key(), message.value()) for message in read(bootstrap, f"{name}.out")]
    assert Counter(found) == Counter(outputs)
    changelog = f"{name}-sums-changelog"
    assert rows(bootstrap, changelog) == state
    for partition, at in positions(bootstrap, changelog).items():
        assert at == {f"{name}.in": committed(bootstrap, name, f"{name}.in", partition)}


def drained(bootstrap: str, name: str, count: int) -> bool:
    return len(read(bootstrap, f"{name}.out")) >= count


def load(bootstrap: str, name: str, count: int) -> None:
    write(bootstrap, f"{name}.in", [(b"k%d" % (n % 5), b"%d" % n) for n in range(count)])


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(
    bootstrap: str, prefix: str, worker: Callable[..., Any], point: str
) -> None:
    name = f"{prefix}kill"
    create(bootstrap, f"{name}.in", f"{name}.out")
    load(bootstrap, name, 500)
    common = {"bootstrap": bootstrap, "name": name}
    first = worker("first", instance="0", die=point, after=2, driver={"batch_max": 100}, **common)
    assert first.ended() == -9
    worker("again", instance="0", **common)
    wait_until(lambda: drained(bootstrap, name, 500))
    check(bootstrap, name)


@pytest.mark.parametrize("point", POINTS)
def test_frozen_at_a_point_while_another_takes_over(
    bootstrap: str, prefix: str, worker: Callable[..., Any], point: str
) -> None:
    name = f"{prefix}zombie"
    create(bootstrap, f"{name}.in", f"{name}.out")
    load(bootstrap, name, 500)
    common = {"bootstrap": bootstrap, "name": name}
    stale = worker(
        "stale", instance="0", freeze=point, after=2, driver={"batch_max": 100}, **common
    )
    wait_until(lambda: stale.said(f"at {point}"))
    other = worker("other", instance="1", **common)
    wait_until(lambda: drained(bootstrap, name, 500))
    stale.thaw()  # wakes up in the middle of a transaction that is not its own any more
    load(bootstrap, name, 300)
    wait_until(lambda: drained(bootstrap, name, 800))
    wait_until(lambda: stale.process.poll() is not None or stale.text.count("ready with") > 1
               or stale.said("ready with partitions []"))  # fmt: skip
    other.kill()
    load(bootstrap, name, 100)
    worker("stale", instance="0", **common)
    wait_until(lambda: drained(bootstrap, name, 900))
    check(bootstrap, name)


def test_a_record_that_hangs_stops_its_partition_and_no_other(
    bootstrap: str, prefix: str, worker: Callable[..., Any], tmp_path: Any
) -> None:
    name = f"{prefix}hang"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    write(bootstrap, f"{name}.in", [(b"a", b"1"), (b"a", b"13"), (b"a", b"2")], partition=0)
    write(bootstrap, f"{name}.in", [(b"b", b"1")] * 20, partition=1)
    options = {
        "bootstrap": bootstrap, "name": name, "instance": "0", "partitions": 2, "hang": 13,
        "driver": {"cycle_timeout_s": 0.5, "attempts": 2, "state_dir": str(tmp_path)},
    }  # fmt: skip
    for n in range(2):
        assert worker(f"{n}", **options).ended() == 72
    last = worker("last", **options)
    wait_until(lambda: drained(bootstrap, name, 21))
    wait_until(lambda: last.said("its partition stops here"))
    assert committed(bootstrap, name, f"{name}.in", 0) == 1
    last.kill()
    skip = {**options["driver"], "skip": [f"{name}.in-0@1"]}
    worker("skips", **{**options, "driver": skip})
    wait_until(lambda: drained(bootstrap, name, 22))
    assert [message.value() for message in read(bootstrap, f"{name}.dead")] == [b"13"]
