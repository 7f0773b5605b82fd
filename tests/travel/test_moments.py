"""Times and places that can be travelled to, and a sentence for the others."""

from __future__ import annotations

import pytest

from travel.errors import BadMoment
from travel.moments import moment, past, place


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-03-01T12:00:00.123Z", 1_772_366_400_123),
        ("2026-03-01T13:00:00.123999999+01:00", 1_772_366_400_123),
        ("2026-03-01t12:00:00z", 1_772_366_400_000),
        ("1969-12-31T23:59:59.5Z", 0),  # below zero it would be no time to Kafka, but an order
        ("0001-01-01T00:00:00+14:00", 0),
        ("9999-12-31T23:59:59Z", 253_370_764_800_000),
    ],
)
def test_a_time(text: str, at_ms: int) -> None:
    assert moment(text) == place(text) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-03-01",
        "2026-03-01T12:00:00",
        "2026-02-30T12:00:00Z",
        "2026-03-01T25:00:00Z",
        "2026-W09-7T12:00:00Z",
        "٢٠٢٦-03-01T12:00:00Z",
        "0:5;1:6",
        "0:",
        "x" * 1000,
    ],
)
def test_no_time(text: str) -> None:
    with pytest.raises(BadMoment) as said:
        place(text)
    assert len(str(said.value)) < 250


def test_offsets() -> None:
    assert place("0:120,2:96") == {0: 120, 2: 96}


def test_the_future() -> None:
    assert past("1970-01-01T00:00:01Z", 1000) == 1000
    with pytest.raises(BadMoment, match="in the future"):
        past("1970-01-01T00:00:01.001Z", 1000)
