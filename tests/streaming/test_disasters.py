"""Offsets, logs and code that do not fit each other: each stops the worker with its sentence, and nothing moves.

Each test first runs the adder over 50 records, does the damage as a person or time would, and starts again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer

import streaming
from tests.streaming.kit import (
    Number,
    app,
    committed,
    create,
    delete,
    delete_group,
    move_offset,
    positions,
    rows,
    running,
    set_config,
    until,
    wait_until,
    write,
)
from tests.streaming.test_cycle import adder

if TYPE_CHECKING:
    from collections.abc import Callable

TEN = [(b"k", b"1")] * 10


async def run(bootstrap: str, name: str, total: int) -> None:
    changelog = f"{name}-sums-changelog"
    async with running(adder(name, bootstrap)):
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"%d" % total})


async def refusal(one: Any) -> str:
    """The sentence with which the app stops as it starts."""
    async with running(one, ready=False):
        await until(lambda: one.failure)
    assert isinstance(one.failure, streaming.Inconsistent), one.failure
    return str(one.failure)


@pytest.fixture
async def name(bootstrap: str, prefix: str) -> str:
    """An adder that has read 10 of 10 records."""
    name = f"{prefix}adder"
    create(bootstrap, f"{name}.in", f"{name}.out")
    write(bootstrap, f"{name}.in", TEN)
    await run(bootstrap, name, 10)
    return name


async def test_group_deleted(bootstrap: str, name: str) -> None:
    delete_group(bootstrap, name)
    said = await refusal(adder(name, bootstrap))
    assert "is gone (expired, or the group was deleted)" in said
    assert "set the group's offset to 10" in said
    move_offset(bootstrap, name, f"{name}.in", 10)  # what the sentence says helps
    write(bootstrap, f"{name}.in", TEN)
    await run(bootstrap, name, 20)


@pytest.mark.parametrize("offset", [3, 10, 15])
async def test_offset_moved(bootstrap: str, name: str, offset: int) -> None:
    write(bootstrap, f"{name}.in", TEN)
    wait_until(lambda: _moved(bootstrap, name, offset))
    if offset == 10:
        await run(bootstrap, name, 20)  # the control: where it was
        return
    said = await refusal(adder(name, bootstrap))
    assert "somebody moved the offset; set it to 10" in said
    assert rows(bootstrap, f"{name}-sums-changelog") == {(0, b"k"): b"10"}


def _moved(bootstrap: str, name: str, offset: int) -> bool:
    move_offset(bootstrap, name, f"{name}.in", offset)
    return committed(bootstrap, name, f"{name}.in") == offset


async def test_records_deleted_before_they_were_read(bootstrap: str, name: str) -> None:
    write(bootstrap, f"{name}.in", TEN)
    _delete_records(bootstrap, f"{name}.in", 15)
    said = await refusal(adder(name, bootstrap))
    assert "5 records were deleted before they were processed" in said


async def test_source_created_again(bootstrap: str, name: str) -> None:
    delete(bootstrap, f"{name}.in")
    create(bootstrap, f"{name}.in")
    write(bootstrap, f"{name}.in", TEN * 2)
    assert "was deleted and created again" in await refusal(adder(name, bootstrap))


async def test_changelog_created_again(bootstrap: str, name: str) -> None:
    delete(bootstrap, f"{name}-sums-changelog")
    assert "the changelog was lost or recreated" in await refusal(adder(name, bootstrap))


class Ejected:
    """The consumer of a worker that the group threw out and that was not told yet."""

    def __init__(self, consumer: Any, metadata: Any) -> None:
        self._consumer, self._metadata = consumer, metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def consumer_group_metadata(self) -> Any:
        return self._metadata


async def polled(one: Any) -> None:
    """Several polls began and ended since."""
    before = one.consumer.last_poll_s
    await until(lambda: one.consumer.last_poll_s > before + 0.5)


async def test_work_of_no_member_is_not_begun(bootstrap: str, name: str) -> None:
    """The broker would take its offsets where the group is empty, and KIP-447's fence would not hold."""
    stranger = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{name}-empty"})
    nobody = stranger.consumer_group_metadata()  # generation -1, no member
    stranger.close()
    one = adder(name, bootstrap)
    async with running(one):
        member = one.consumer._consumer
        one.consumer._consumer = Ejected(member, nobody)
        await polled(one)  # a poll that had begun still asks the member
        write(bootstrap, f"{name}.in", TEN)
        await until(lambda: any(one.consumer.intake.buffers.values()))
        await polled(one)
        assert one.consumer.positions(0) == {f"{name}.in": 10}
        one.consumer._consumer = member
        await until(lambda: one.consumer.positions(0) == {f"{name}.in": 20})
    assert committed(bootstrap, f"{name}-empty", f"{name}.in") < 0


async def test_changelog_that_deletes(bootstrap: str, name: str) -> None:
    set_config(bootstrap, f"{name}-sums-changelog", cleanup_policy="delete")
    assert "set it to compact" in await refusal(adder(name, bootstrap))


async def test_partitions_added_to_one_topic(bootstrap: str, name: str) -> None:
    _grow(bootstrap, f"{name}.in")
    said = await refusal(adder(name, bootstrap))
    assert "must have the same number of partitions" in said


async def test_partitions_added_to_all_topics(bootstrap: str, name: str) -> None:
    _grow(bootstrap, f"{name}.in")
    _grow(bootstrap, f"{name}-sums-changelog")
    said = await refusal(adder(name, bootstrap, 2))
    assert "replay into a new set of topics instead of adding partitions" in said


def two_sources(name: str, bootstrap: str, instance: str, **driver: Any) -> Any:
    one = app(name, bootstrap, instance=instance, **driver)
    table = one.Table("sums", value_codec=Number(), default=int, partitions=1)
    for topic in (f"{name}.in", f"{name}.new"):

        async def add(stream: Any) -> None:
            async for key, value in stream.items():
                table[key] += value

        one.agent(one.topic(topic, value_codec=Number()), name=topic)(add)
    return one


async def test_a_topic_added_in_a_rolling_deploy(bootstrap: str, name: str) -> None:
    create(bootstrap, f"{name}.new")
    said = await refusal(two_sources(name, bootstrap, "0"))
    assert "stop all old workers, then start the new ones with adopt_topology=" in said
    old_hash = said.rpartition("=")[2]
    write(bootstrap, f"{name}.in", TEN)
    write(bootstrap, f"{name}.new", TEN)
    async with running(two_sources(name, bootstrap, "0", adopt_topology=(old_hash,))):
        changelog = f"{name}-sums-changelog"
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"30"})
    assert "topology" in await refusal(adder(name, bootstrap))  # old code may not come back


def one_source(name: str, bootstrap: str, topic: str, **driver: Any) -> Any:
    """The adder of `topic` alone, under the same name and with the same table."""
    one = app(name, bootstrap, **driver)
    table = one.Table("sums", value_codec=Number(), default=int, partitions=1)

    @one.agent(one.topic(topic, value_codec=Number()), name="add")
    async def add(stream: Any) -> None:
        async for key, value in stream.items():
            table[key] += value

    return one


async def test_a_topic_renamed_in_a_rolling_deploy(bootstrap: str, name: str) -> None:
    new, changelog = f"{name}.renamed", f"{name}-sums-changelog"
    create(bootstrap, new)
    write(bootstrap, new, TEN)
    said = await refusal(one_source(name, bootstrap, new))
    assert "stop all old workers, then start the new ones with adopt_topology=" in said
    assert rows(bootstrap, changelog) == {(0, b"k"): b"10"}
    adopts = one_source(name, bootstrap, new, adopt_topology=(said.rpartition("=")[2],))
    async with running(adopts):
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"20"})
    assert positions(bootstrap, changelog) == {0: {new: 10}}
    await _goes_on_without_being_told(one_source(name, bootstrap, new), bootstrap, new, 30)
    assert "topology" in await refusal(adder(name, bootstrap))  # old code may not come back


async def test_a_topic_removed_in_a_rolling_deploy(bootstrap: str, name: str) -> None:
    source, changelog = f"{name}.in", f"{name}-sums-changelog"
    create(bootstrap, f"{name}.new")
    first_hash = (await refusal(two_sources(name, bootstrap, "0"))).rpartition("=")[2]
    write(bootstrap, f"{name}.new", TEN)
    async with running(two_sources(name, bootstrap, "0", adopt_topology=(first_hash,))):
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"20"})
    said = await refusal(one_source(name, bootstrap, source))
    assert "stop all old workers, then start the new ones with adopt_topology=" in said
    both_hash = said.rpartition("=")[2]
    assert both_hash != first_hash
    # told of another change than the one that was made, it is refused as well
    wrong = one_source(name, bootstrap, source, adopt_topology=("0" * 16,))
    assert "stop all old workers" in await refusal(wrong)
    write(bootstrap, f"{name}.new", TEN)  # nobody reads these any more
    write(bootstrap, source, TEN)
    async with running(one_source(name, bootstrap, source, adopt_topology=("0" * 16, both_hash))):
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"30"})
    assert positions(bootstrap, changelog) == {0: {source: 20}}
    await _goes_on_without_being_told(one_source(name, bootstrap, source), bootstrap, source, 40)


async def _goes_on_without_being_told(one: Any, bootstrap: str, topic: str, total: int) -> None:
    """A change that was adopted and committed is the topology from then on."""
    write(bootstrap, topic, TEN)
    changelog = f"{one.conf.id}-sums-changelog"
    async with running(one):
        await until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"%d" % total})


@pytest.mark.parametrize("change", ["renamed", "removed"])
def test_code_that_reads_other_topics_in_one_group(
    bootstrap: str, prefix: str, worker: Callable[..., Any], change: str
) -> None:
    """Whoever gets a part of the topics ends: the new code always, the old where it lost one to it."""
    name, also = f"{prefix}adder", f"{prefix}also"
    changelog = f"{name}-sums-changelog"
    create(bootstrap, f"{name}.in", f"{name}.out", also, f"{prefix}renamed")
    options = {"bootstrap": bootstrap, "name": name}

    def add(total: int) -> None:
        for topic in (f"{name}.in", also):
            write(bootstrap, topic, TEN)
        wait_until(lambda: rows(bootstrap, changelog) == {(0, b"k"): b"%d" % total})

    old = worker("old", instance="old", also=also, **options)
    wait_until(lambda: old.said("ready with partitions [0]"))
    add(20)
    reads = {"also": f"{prefix}renamed"} if change == "renamed" else {}
    new = worker("new", instance="new", **reads, **options)
    assert new.ended() == streaming.ExitCode.INCONSISTENT
    old.kill()
    assert old.process.returncode in {-9, streaming.ExitCode.INCONSISTENT}
    worker("again", instance="old", also=also, **options)
    add(40)
    assert positions(bootstrap, changelog) == {0: {f"{name}.in": 20, also: 20}}


def test_old_and_new_code_in_one_group(
    bootstrap: str, name: str, worker: Callable[..., Any]
) -> None:
    """While an old worker runs, a new one must not touch its state."""
    create(bootstrap, f"{name}.new")
    old = worker("old", bootstrap=bootstrap, name=name, instance="old")
    wait_until(lambda: old.said("ready with partitions [0]"))
    new = worker("new", bootstrap=bootstrap, name=name, instance="new", also=f"{name}.new")
    assert new.ended() == streaming.ExitCode.INCONSISTENT
    write(bootstrap, f"{name}.in", TEN)
    wait_until(lambda: rows(bootstrap, f"{name}-sums-changelog") == {(0, b"k"): b"20"})
    assert positions(bootstrap, f"{name}-sums-changelog") == {0: {f"{name}.in": 20}}


def _grow(bootstrap: str, topic: str) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_partitions([NewPartitions(topic, 2)]).values():
        future.result(30)
    wait_until(lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == 2)


def _delete_records(bootstrap: str, topic: str, before: int) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result(30)
