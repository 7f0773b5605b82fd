"""What others do to our logs: transactions that are left open, and compaction that runs while we restore.

The foreign producers are plain confluent-kafka and no part of the group.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

import streaming
import streaming.held
import streaming.restore
from streaming import metrics
from tests.streaming.kit import (
    POSITION,
    Number,
    app,
    create,
    read,
    rows,
    running,
    until,
    values,
    wait_until,
    write,
)
from tests.streaming.test_cycle import adder
from tests.streaming.test_lag import lag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deploy.local.kafka import Kafka


@contextmanager
def transaction(bootstrap: str, name: str, timeout_s: float = 60) -> Iterator[Producer]:
    """An open transaction; ended by the test, or left to its time-out."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "transaction.timeout.ms": int(timeout_s * 1000),
        }
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    yield producer


def send_offsets(bootstrap: str, producer: Producer, group: str, topic: str, offset: int) -> None:
    """Into the group, as no member of it: the broker takes that while the group is empty."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    metadata = consumer.consumer_group_metadata()
    producer.send_offsets_to_transaction([TopicPartition(topic, 0, offset)], metadata, 10)
    consumer.close()


@pytest.fixture
async def name(bootstrap: str, prefix: str) -> str:
    """An adder that has read 10 of 10 records."""
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    write(bootstrap, f"{name}.in", [(b"k", b"1")] * 10)
    async with running(adder(name, bootstrap)):
        await until(lambda: rows(bootstrap, f"{name}-sums-changelog") == {(0, b"k"): b"10"})
    return name


async def refusal(one: Any) -> str:
    async with running(one, ready=False):
        await until(lambda: one.failure)
    assert isinstance(one.failure, streaming.Inconsistent), one.failure
    return str(one.failure)


async def goes_on(one: Any, foreign: Producer, bootstrap: str, name: str, said: Any) -> None:
    """The app waits, says so, is not ready; after the foreign transaction is aborted it goes on."""
    write(bootstrap, f"{name}.in", [(b"k", b"1")] * 5)
    async with running(one, ready=False):
        await until(said)
        assert not one.consumer.ready
        foreign.abort_transaction(10)
        await until(lambda: rows(bootstrap, f"{name}-sums-changelog") == {(0, b"k"): b"15"})
    assert one.failure is None
    assert values(bootstrap, f"{name}.out") == [b"%d" % n for n in range(1, 16)]


async def test_offsets_in_a_foreign_transaction(
    bootstrap: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with transaction(bootstrap, f"{name}-foreign") as foreign:
        send_offsets(bootstrap, foreign, name, f"{name}.in", 3)
        said = await refusal(adder(name, bootstrap, takeover_timeout_s=0.5))
        assert "a transaction of another worker is open" in said
        assert "kafka-transactions.sh find-hanging" in said
        waits = lambda: "waits for another worker's open transaction" in caplog.text  # noqa: E731
        await goes_on(adder(name, bootstrap), foreign, bootstrap, name, waits)


async def test_offsets_that_a_foreign_transaction_moves(bootstrap: str, name: str) -> None:
    with transaction(bootstrap, f"{name}-foreign") as foreign:
        send_offsets(bootstrap, foreign, name, f"{name}.in", 3)
        foreign.commit_transaction(10)
    said = await refusal(adder(name, bootstrap))
    assert "somebody moved the offset; set it to 10" in said


async def test_changelog_in_a_foreign_transaction(
    bootstrap: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with transaction(bootstrap, f"{name}-foreign") as foreign:
        foreign.produce(f"{name}-sums-changelog", key=b"k", value=b"666", partition=0)
        foreign.flush(10)
        said = await refusal(adder(name, bootstrap, takeover_timeout_s=0.5))
        assert f"{name}-sums-changelog" in said
        assert "a transaction of another producer is open there" in said
        assert "kafka-transactions.sh find-hanging" in said
        waits = lambda: "restore waits for the end of" in caplog.text  # noqa: E731
        await goes_on(adder(name, bootstrap), foreign, bootstrap, name, waits)


async def test_input_in_a_foreign_transaction(
    bootstrap: str, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Does not hold up the take-over: what lies before it is read at once, the rest when it ends."""
    monkeypatch.setattr(streaming.held, "LOOK_S", 0.2)
    monkeypatch.setattr(streaming.held, "HELD_S", 0.5)
    place = f"{name}.in-0"
    write(bootstrap, f"{name}.in", [(b"k", b"1")] * 5)
    with transaction(bootstrap, f"{name}-foreign") as foreign:
        foreign.produce(f"{name}.in", key=b"k", value=b"600", partition=0)
        foreign.flush(10)
        write(bootstrap, f"{name}.in", [(b"k", b"1")] * 5)
        changelog = f"{name}-sums-changelog"
        async with running(adder(name, bootstrap)):
            await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"15"})
            await until(lambda: f"{place} gives nothing since" in caplog.text)
            assert "a producer's transaction is open there from offset 15 on" in caplog.text
            assert "kafka-transactions.sh find-hanging" in caplog.text
            assert held_s(f"{name}.in") > 0
            foreign.abort_transaction(10)
            await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"20"})
            await until(lambda: f"{place} goes on" in caplog.text)
            assert held_s(f"{name}.in") == 0
    assert values(bootstrap, f"{name}.out") == [b"%d" % n for n in range(1, 21)]


async def test_the_marks_of_ended_transactions_hold_nothing(
    bootstrap: str, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie behind the last record, and are never given either: nobody is asked about them."""
    monkeypatch.setattr(streaming.held, "LOOK_S", 0.1)
    monkeypatch.setattr(streaming.held, "HELD_S", 0.2)
    for _ in range(3):
        with transaction(bootstrap, f"{name}-foreign") as foreign:
            foreign.produce(f"{name}.in", key=b"k", value=b"1", partition=0)
            foreign.commit_transaction(10)
    one = adder(name, bootstrap)
    async with running(one):
        await until(lambda: rows(bootstrap, f"{name}-sums-changelog") == {(0, b"k"): b"13"})
        await until(lambda: lag(f"{name}.in") == {0: 0.0})
        assert not one.consumer._held._silent
    assert "gives nothing" not in caplog.text


def held_s(topic: str) -> float:
    """What the metric says of a source."""
    return sum(
        sample.value
        for family in metrics.HELD_S.collect()
        for sample in family.samples
        if sample.labels["topic"] == topic
    )


async def test_what_commits_during_a_take_over_is_seen_whole(
    bootstrap: str, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets first, then the changelog's end: a former owner's last transaction is in both or in neither."""
    monkeypatch.setattr(streaming.restore, "Consumer", Slow)  # reads no further than it must
    changelog = f"{name}-sums-changelog"
    kept = [m.value() for m in read(bootstrap, changelog) if m.key() == POSITION][-1]
    position = {**json.loads(kept or b""), "offsets": {f"{name}.in": 11}}
    write(bootstrap, f"{name}.in", [(b"k", b"1")])
    with transaction(bootstrap, f"{name}-former") as former:
        send_offsets(bootstrap, former, name, f"{name}.in", 11)
        one = adder(name, bootstrap)
        async with running(one, ready=False):
            await until(lambda: "waits for another worker's open transaction" in caplog.text)
            former.produce(changelog, key=b"k", value=b"11", partition=0)
            former.produce(changelog, key=POSITION, value=json.dumps(position), partition=0)
            former.commit_transaction(10)
            await until(lambda: one.consumer.ready)
            assert one.sums.partition(0).get(b"k") == 11
    assert "looks again" not in caplog.text


# -- compaction -----------------------------------------------------------------------------------

TINY = {
    "cleanup_policy": "compact",
    "segment_ms": "100",
    "delete_retention_ms": "2000",
    "min_cleanable_dirty_ratio": "0.001",
    "min_compaction_lag_ms": "0",
    "file_delete_delay_ms": "100",
}


@pytest.fixture(scope="module")
def compacting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker whose cleaner is always at it."""
    import shutil
    import signal

    from deploy.local.kafka import Kafka

    directory = tmp_path_factory.mktemp("compacting")
    with Kafka(
        directory, options={"log.cleaner.backoff.ms": "100"}, orphaned=signal.SIGKILL
    ) as kafka:
        yield kafka
    shutil.rmtree(directory)


def keeper(name: str, bootstrap: str, **driver: Any) -> Any:
    """Keeps the last number of each key; 0 deletes it."""
    one = app(name, bootstrap, **driver)
    table = one.Table("kept", value_codec=Number(), partitions=1)

    @one.agent(one.topic(f"{name}.in", value_codec=Number()))
    async def keep(stream: Any) -> None:
        async for key, value in stream.items():
            if value:
                table[key] = value
            else:
                del table[key]

    one.kept = table
    return one


def forget(bootstrap: str, changelog: str, key: bytes) -> None:
    """Write on until compaction has removed the last trace of a key: its rows, and that it was deleted."""

    def forgotten() -> bool:
        write(bootstrap, changelog, [(b"noise", b"1")], partition=0)
        return all(message.key() != key for message in read(bootstrap, changelog))

    wait_until(forgotten)


async def fill(one: Any, bootstrap: str, records: list[tuple[bytes, bytes]], state: Any) -> None:
    name = one.conf.id
    async with running(one):
        write(bootstrap, f"{name}.in", records)
        await until(lambda: _rows(bootstrap, f"{name}-kept-changelog") == state)
        await until(lambda: dict(one.kept.partition(0).scan()).keys() >= {k for _, k in state})


def _rows(bootstrap: str, changelog: str) -> dict[tuple[int, bytes], bytes]:
    return {at: v for at, v in rows(bootstrap, changelog).items() if at[1] != b"noise"}


async def test_an_old_checkpoint_does_not_bring_deleted_keys_back(
    compacting: Kafka, prefix: str, tmp_path: Path
) -> None:
    name, bootstrap = f"{prefix}keeper", compacting.bootstrap
    changelog = f"{name}-kept-changelog"
    create(bootstrap, f"{name}.in")
    create(bootstrap, changelog, **TINY)
    rocks = {"store": "rocksdb", "state_dir": tmp_path}
    both = {(0, b"a"): b"1", (0, b"b"): b"2"}
    first = keeper(name, bootstrap, **rocks)
    await fill(first, bootstrap, [(b"a", b"1"), (b"b", b"2")], both)
    other = keeper(name, bootstrap, instance="1")  # elsewhere, while our files grow old
    await fill(other, bootstrap, [(b"a", b"0"), (b"c", b"3")], {(0, b"b"): b"2", (0, b"c"): b"3"})
    forget(bootstrap, changelog, b"a")
    again = keeper(name, bootstrap, **rocks)
    async with running(again):
        found = dict(again.kept.partition(0).scan())
        found.pop(b"noise")
        assert found == {b"b": 2, b"c": 3}


class Slow(Consumer):  # type: ignore[misc]
    """Fetches little at a time, and lets the first batch be followed by whatever the test does."""

    after_first: Callable[[], None] | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        small = {"fetch.message.max.bytes": 1000, "queued.min.messages": 1,
                 "queued.max.messages.kbytes": 1}  # fmt: skip
        super().__init__({**config, **small})

    def consume(self, count: int, timeout: float) -> list[Any]:
        messages: list[Any] = super().consume(1, timeout)
        if any(message.error() is None for message in messages) and Slow.after_first is not None:
            then, Slow.after_first = Slow.after_first, None
            then()
        return messages


async def test_compaction_during_a_restore_does_not_bring_deleted_keys_back(
    compacting: Kafka, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, bootstrap = f"{prefix}keeper", compacting.bootstrap
    changelog = f"{name}-kept-changelog"
    create(bootstrap, f"{name}.in")
    # the active segment is left alone until the restore reads
    create(bootstrap, changelog, cleanup_policy="compact", delete_retention_ms="2000")
    await fill(keeper(name, bootstrap), bootstrap, [(b"a", b"1")], {(0, b"a"): b"1"})
    write(bootstrap, changelog, [(b"noise", b"1" * 900)] * 50, partition=0)
    await fill(keeper(name, bootstrap), bootstrap, [(b"a", b"0")], {})

    def compact() -> None:
        from tests.streaming.kit import set_config

        set_config(bootstrap, changelog, **TINY)
        forget(bootstrap, changelog, b"a")

    monkeypatch.setattr(streaming.restore, "Consumer", Slow)
    Slow.after_first = compact
    again = keeper(name, bootstrap)
    async with running(again):
        assert Slow.after_first is None
        found = dict(again.kept.partition(0).scan())
        found.pop(b"noise")
        assert found == {}
