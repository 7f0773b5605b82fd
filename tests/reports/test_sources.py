"""The SQL of reports: exact times and sums, what `ne` leaves in, and one order for the same rows."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import duckdb
import orjson
import pytest

from domain.reporting import Definition, Filter, Operator, Source
from gateway.reports import _cell
from rendering import Money
from reports.files import rows
from reports.sources import Kind, check, select

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

AT_MS = 1_772_366_400_000
COLUMNS = """transaction_id VARCHAR, type VARCHAR, reason VARCHAR, currency VARCHAR, amount_minor BIGINT,
    said_at TIMESTAMP, event_id VARCHAR, data JSON"""


def of(source: Source = Source.TRANSACTIONS, **more: Any) -> Definition:
    whole = {"columns": ("transaction_id", "amount"), "filters": (), "group_by": (), **more}
    return Definition(title="T", source=source, **whole)


def said(transaction_id: str, amount_minor: int = 100, reason: str | None = None) -> list[Any]:
    """A transaction that ended at AT_MS, as a line of its events."""
    postings = [
        {"account": account, "currency": "USD", "amount_minor": amount}
        for account, amount in (("A-ann", -amount_minor), ("A-bob", amount_minor))
    ]
    data = {"order": {"type": "transfer", "created_ms": AT_MS}, "postings": postings}
    event_id, kind = f"transaction.inbox-0-1-{transaction_id}", "TransactionCompleted"
    return [
        transaction_id,
        kind,
        reason,
        "USD",
        amount_minor,
        event_id,
        orjson.dumps(data).decode(),
    ]


def answered(
    definition: Definition, facts: Iterable[list[Any]], file: Path | None = None
) -> list[dict[str, Any]]:
    """The rows of a report over these events, through a file where one is named."""
    sql = select(definition, AT_MS, AT_MS + 1)
    with duckdb.connect() as database:
        for name in ("transaction_events", "account_events"):
            database.execute(f"CREATE TABLE {name} ({COLUMNS})")
            for fact in facts:
                line = f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?, epoch_ms({AT_MS}), ?, ?)"
                database.execute(line, fact)
        if file is not None:
            database.execute(f"COPY ({sql}) TO '{file}' (FORMAT parquet)")
            return list(rows(file))
        found = database.execute(sql)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.mark.parametrize(
    "definition",
    [
        of(columns=("type", "amount")),
        of(Source.ENTRIES, columns=("posted_at", "account", "amount")),
        of(Source.ENTRIES, columns=("currency", "transaction_id", "amount")),
    ],
)
def test_rows_of_the_same_time_have_one_order(definition: Definition) -> None:
    facts = [said(f"T{n}", amount_minor=100 - n) for n in range(4)]
    first, *others = (answered(definition, order) for order in permutations(facts))
    assert len(first) >= len(facts)
    assert all(other == first for other in others)


def test_what_is_not_said_is_not_equal() -> None:
    one = Filter(column="reason", operator=Operator.NOT, value="RISK")
    facts = [said("T1"), said("T2", reason="RISK"), said("T3", reason="EXPIRED")]
    found = answered(of(filters=(one,)), facts)
    assert [row["transaction_id"] for row in found] == ["T1", "T3"]


def test_a_sum_beyond_64_bits_is_whole(tmp_path: Path) -> None:
    most = 2**63 - 1
    facts = [said("T1", most), said("T2", most), said("T3", 7)]
    grouped = of(columns=("amount",), group_by=("type",))
    (row,) = answered(grouped, facts, tmp_path / "sums.parquet")
    assert (row["count"], row["amount"]) == (3, 2 * most + 7)
    assert _cell(row, "amount", Kind.MONEY) == Money(2 * most + 7, "USD", 2)


def at(value: str, operator: Operator = Operator.AT_LEAST) -> Definition:
    return of(filters=(Filter(column="ended_at", operator=operator, value=value),))


@pytest.mark.parametrize(
    ("value", "at_ms"),
    [
        ("2026-03-01T12:00:00.001Z", AT_MS + 1),
        ("2026-03-01T13:00:00.251+01:00", AT_MS + 251),
        ("2026-03-01T12:00:00.999999Z", AT_MS + 999),
        ("4182-12-19T12:25:48.469Z", 69_834_486_348_469),  # as a float a millisecond less
        ("0001-01-01T00:00:00+14:00", -62_135_647_200_000),
        ("9999-12-31T23:59:59-14:00", 253_402_351_199_000),
    ],
)
def test_times_are_exact_and_as_far_away_as_they_can_be_written(value: str, at_ms: int) -> None:
    check(at(value))
    assert f"epoch_ms({at_ms})" in select(at(value), 0, 1)
    assert len(answered(at(value), [said("T1")])) == (at_ms <= AT_MS)
