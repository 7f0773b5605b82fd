"""Laws of audit and analytics over the log of simulated banks, and controls: broken ones are caught."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from domain import analytics, audit
from domain.analytics import PointsCounted, PointsRead
from domain.audit import CheckpointTaken, EntriesChained, HeadTold, RecordsRead
from domain.services import DECIDERS
from tests.domain.simulated_watch import Watch, watch
from tests.domain.simulator import run
from tests.domain.test_simulator import Blind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.decider import Rows

SEEDS = int(os.environ.get("STREAMBANK_SEEDS", "2000")) // 20
CHUNK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_the_watchers_keep_their_laws_whatever_the_world_does(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        try:
            watch(run(seed), DECIDERS)
        except AssertionError as broken:
            pytest.fail(f"seed {seed}: {broken}")


def test_the_world_is_hostile_enough() -> None:
    """Late points, minutes that left, several checkpoints, entries read again: each is seen."""
    seen: set[str] = set()
    for seed in range(12):
        made = watch(run(seed), DECIDERS)
        seen |= kinds_of(made)
    assert seen == {"late", "left", "checkpoints", "sources"}


def kinds_of(made: Watch) -> set[str]:
    events = [event for said in made.events.values() for event in said]
    counted = [event for event in events if isinstance(event, PointsCounted)]
    found = set()
    if any(cell.figures.late for event in counted for cell in event.cells):
        found.add("late")
    if any(isinstance(event, analytics.WindowsForgotten) for event in events):
        found.add("left")
    if sum(isinstance(event, CheckpointTaken) for event in events) > 1:
        found.add("checkpoints")
    if len({(event.source, event.partition) for event in counted}) > 3:
        found.add("sources")
    return found


def chains_again(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    if isinstance(message, RecordsRead) and (row := rows.get(audit.chain_key(message.chain))):
        before = replace(row, head=replace(row.head, offset=-1))
        rows = {audit.chain_key(message.chain): before}
    return audit.decide(rows, message, at_ms)


def begins_anew(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    said = audit.decide(rows, message, at_ms)
    if isinstance(message, RecordsRead) and said and said[0].first:
        last = rows[audit.chain_key(message.chain)].head.offset
        pairs = zip(message.offsets, audit.unpacked(message.digests), strict=True)
        new = [entry for offset, entry in pairs if offset > last]
        return [replace(said[0], links=audit.packed([audit.link(audit.GENESIS, e) for e in new]))]
    return said


def follows_nothing(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    zeros = audit.GENESIS.hex()
    return [
        replace(
            one,
            previous=zeros,
            hash=audit.checkpoint_hash(one.number, one.heads, zeros, one.at_ms),
        )
        if isinstance(one, CheckpointTaken)
        else one
        for one in audit.decide(rows, message, at_ms)
    ]


def tells_a_head_once_alone(rows: Rows, event: Any) -> Mapping[str, Any]:
    changes = audit.evolve(rows, event)
    if isinstance(event, EntriesChained) and event.first:
        return {key: row for key, row in changes.items() if not key.startswith("due/")}
    return changes


def notes_an_older_head(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    if isinstance(message, HeadTold):
        return (audit.HeadNoted(head=replace(message.head, count=1), at_ms=at_ms),)
    return audit.decide(rows, message, at_ms)


def counts_again(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    return analytics.decide(Blind(rows, lambda key: key.startswith("counted/")), message, at_ms)


def leaves_out_late_points(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    clock = None
    if isinstance(message, PointsRead):
        clock = rows.get(analytics.clock_key(message.partition))
    if clock is not None:
        points = tuple(p for p in message.points if p.at_ms > clock.latest_ms - 120_000)
        message = replace(message, points=points)
    return analytics.decide(rows, message, at_ms)


def calls_nothing_late(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    return analytics.decide(Blind(rows, lambda key: key.startswith("clock/")), message, at_ms)


def mixes_up_sources(rows: Rows, message: Any, at_ms: int) -> Sequence[Any]:
    if isinstance(message, PointsRead):
        message = replace(message, source=0)
    return analytics.decide(rows, message, at_ms)


def makes_minutes_again(rows: Rows, event: Any) -> Mapping[str, Any]:
    if isinstance(event, PointsCounted):
        return analytics.evolve(rows, replace(event, at_ms=0))
    return analytics.evolve(rows, event)


CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    "what was read twice is chained twice": ("audit", {"decide": chains_again}),
    "a chain does not go on where it stood": ("audit", {"decide": begins_anew}),
    "checkpoints do not follow each other": ("audit", {"decide": follows_nothing}),
    "a chain tells its head only once": ("audit", {"evolve": tells_a_head_once_alone}),
    "a checkpoint has heads that never were": ("audit", {"decide": notes_an_older_head}),
    "points that come again count again": ("analytics", {"decide": counts_again}),
    "points that come late count nowhere": ("analytics", {"decide": leaves_out_late_points}),
    "no point is called late": ("analytics", {"decide": calls_nothing_late}),
    "offsets of sources are taken for one another": ("analytics", {"decide": mixes_up_sources}),
    "a minute that has left comes back": ("analytics", {"evolve": makes_minutes_again}),
}


@pytest.mark.parametrize("fault", CONTROLS)
def test_a_broken_watcher_is_caught(fault: str) -> None:
    service, functions = CONTROLS[fault]
    deciders = {**DECIDERS, service: replace(DECIDERS[service], **functions)}
    for seed in range(60):
        try:
            watch(run(seed), deciders)
        except (AssertionError, LookupError):
            return
    pytest.fail("60 runs, and no law was broken")
