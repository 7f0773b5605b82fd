"""Chains against logs that somebody laid hands on: what was done is named, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.audit import AUDIT, RecordsRead, digest, packed
from domain.decider import Overlay, apply
from proof.chain import AuditLog, Result, check_checkpoints, compare, cut
from proof.reader import LogRecord

CHAIN = "account.events-0"
OFFSETS = (0, 1, 3, 4, 6, 7, 9, 10)  # markers of transactions lie between


def records() -> list[LogRecord]:
    return [
        LogRecord(
            "p.account.events", 0, offset, 1000 + offset, b"k", b"fact %d" % offset,
            {"ce_id": b"account.inbox-0-%d-0" % offset, "actor": b"U1"},
        )
        for offset in OFFSETS
    ]  # fmt: skip


def said(found: list[LogRecord], a_batch: int = 3) -> list[Any]:
    """What audit says about them."""
    rows, events = Overlay({}), []
    for at in range(0, len(found), a_batch):
        some = found[at : at + a_batch]
        digests = [
            digest(("account.events", 0, r.offset), r.at_ms, r.key, r.value, r.headers)
            for r in some
        ]
        message = RecordsRead(
            chain=CHAIN, offsets=tuple(r.offset for r in some), digests=packed(digests)
        )
        new = AUDIT.decide(rows, message, 5)
        apply(AUDIT, rows, new)
        events += new
    return events


def log_of(events: list[Any]) -> AuditLog:
    log = AuditLog()
    for offset, event in enumerate(events):
        log.take(LogRecord("audit.events", 0, offset, 5, b"", b"", {"ce_id": b"x"}), event)
    return log


def found(events: list[Any], there: list[LogRecord], trusted: int = 0) -> list[tuple[str, str]]:
    log, result = log_of(events), Result()
    for finding in log.findings:
        result.add(finding)
    compare(CHAIN, cut(log.chains[CHAIN], trusted), there, result)
    check_checkpoints(log, result)
    return [(one.what, one.where) for one in result.findings]


def test_what_nobody_touched_fits() -> None:
    assert found(said(records()), records()) == []


@pytest.mark.parametrize("n", range(len(OFFSETS)))
@pytest.mark.parametrize("what", ["value", "key", "header", "time"])
def test_a_changed_record_is_named_alone(n: int, what: str) -> None:
    there = records()
    changes: dict[str, Any] = {
        "value": {"value": b"fact x"},
        "key": {"key": b"K"},
        "header": {"headers": {**there[n].headers, "actor": b"U2"}},
        "time": {"at_ms": 7},
    }[what]
    there[n] = replace(there[n], **changes)
    assert found(said(records()), there) == [("changed", f"{CHAIN}-{OFFSETS[n]}")]


@pytest.mark.parametrize("n", range(len(OFFSETS)))
def test_a_missing_record_is_named_alone(n: int) -> None:
    there = records()
    del there[n]
    assert found(said(records()), there) == [("missing", f"{CHAIN}-{OFFSETS[n]}")]


@pytest.mark.parametrize("offset", [2, 5, 8])
def test_an_added_record_is_named_alone(offset: int) -> None:
    there = sorted(
        [*records(), replace(records()[0], offset=offset)], key=lambda record: record.offset
    )
    assert found(said(records()), there) == [("added", f"{CHAIN}-{offset}")]


def test_records_that_changed_places_are_named() -> None:
    there = records()
    there[1], there[4] = (
        replace(there[4], offset=there[1].offset),
        replace(there[1], offset=there[4].offset),
    )
    assert found(said(records()), there) == [
        ("reordered", f"{CHAIN}-1"),
        ("reordered", f"{CHAIN}-6"),
    ]


def test_all_four_at_once() -> None:
    there = records()
    there[0] = replace(there[0], value=b"")
    there[5], there[6] = replace(there[6], offset=7), replace(there[5], offset=9)
    there[2:3] = [replace(there[2], offset=2)]
    assert sorted(found(said(records()), there)) == [
        ("added", f"{CHAIN}-2"),
        ("changed", f"{CHAIN}-0"),
        ("missing", f"{CHAIN}-3"),
        ("reordered", f"{CHAIN}-7"),
        ("reordered", f"{CHAIN}-9"),
    ]


def test_what_audit_has_not_read_yet_is_no_finding() -> None:
    log, result = log_of(said(records()[:5])), Result()
    compare(CHAIN, log.chains[CHAIN], records(), result)
    assert (result.found, result.entries, result.waiting) == (0, 5, 3)


def test_from_a_checkpoint_on_what_was_before_is_trusted() -> None:
    there = records()
    there[1] = replace(there[1], value=b"")
    there[6] = replace(there[6], value=b"")
    assert found(said(records()), there[4:], trusted=4) == [("changed", f"{CHAIN}-9")]


def test_an_event_that_the_audit_log_lost_is_named() -> None:
    events = said(records())
    del events[1]
    assert found(events, records()) == [("missing", "audit.events-0-1")]


def test_an_event_that_the_audit_log_has_twice_is_named() -> None:
    events = said(records())
    assert found([*events, events[1]], records()) == [("added", "audit.events-0-3")]


def test_events_that_changed_places_in_the_audit_log_are_named() -> None:
    one, two, three = said(records())
    named = [("missing", "audit.events-0-1"), ("reordered", "audit.events-0-2")]
    assert found([one, three, two], records()) == named


def test_a_link_that_was_changed_is_told_from_its_record() -> None:
    events = said(records(), 8)
    links = bytearray(b"".join(_hashes(events[0])))
    links[2 * 32] ^= 1
    events[0] = replace(events[0], links=packed([bytes(links)]))
    log, result = log_of(events), Result()
    compare(CHAIN, log.chains[CHAIN], records(), result)
    (finding,) = result.findings
    assert (finding.what, finding.where) == ("changed", f"{CHAIN}-3")
    assert "the audit log has another link" in finding.said


def _hashes(event: Any) -> list[bytes]:
    from domain.audit import unpacked

    return unpacked(event.links)
