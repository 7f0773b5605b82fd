"""SQL of strangers: what is refused, what it may cost, and that the tables are what their page says."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from travel import sql
from travel.errors import TooLong
from travel.schema import BY_NAME, EVENT_COLUMNS, EVENTS
from travel.sql import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = Limits(rows=10, seconds=60, bytes=64 << 20)


def asked(
    directory: Path, text: str, limits: Limits = SMALL, parquet: Path | None = None
) -> dict[str, Any]:
    unsaid = dict.fromkeys(("at_ms", "since_ms", "progress"))
    question = {"sql": text, "limits": asdict(limits), "parquet": parquet, **unsaid}
    said = sql.answer(directory, question)
    return {**said, "rows": [json.loads(row) for row in said.get("rows", ())]}


def test_more_rows_than_wanted(tmp_path: Path) -> None:
    found = asked(tmp_path, "SELECT * FROM range(10000000) -- all of them")
    assert found["rows"] == [[n] for n in range(10)]
    assert found["truncated"]
    assert not asked(tmp_path, "SELECT * FROM range(10)")["truncated"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT * FROM nothing", "nothing"),
        ("SELEC 1", "syntax error"),
        ("", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("DROP TABLE accounts", "one SELECT"),
        ("INSERT INTO loaded_accounts SELECT * FROM loaded_accounts", "one SELECT"),
        ("WITH x AS (DELETE FROM loaded_accounts RETURNING *) SELECT * FROM x", "one SELECT"),
        (
            "WITH x AS (INSERT INTO loaded_legs BY NAME SELECT 1 AS partition) SELECT 1",
            "one SELECT",
        ),
        ("COPY (SELECT 1) TO '/tmp/x'", "one SELECT"),
        ("ATTACH '/tmp/x'", "one SELECT"),
        ("INSTALL httpfs", "one SELECT"),
        ("SET memory_limit = '100GB'", "one SELECT"),
        ("PRAGMA database_list", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled"),
        ("SELECT * FROM glob('/etc/*')", "disabled"),
        ("SELECT * FROM '/etc/passwd.csv'", "disabled"),
        ("SELECT * FROM 'https://bank.example/x.parquet'", "disabled"),
        # to name its tables DuckDB plans a query, for which it looks for files and extensions
        ("SELECT * FROM read_csv('/etc/not-there')", "disabled"),
        ("SELECT * FROM read_json('http://127.0.0.1:9/x.json')", "disabled"),
        ("SELECT * FROM sqlite_scan('/etc/passwd', 'x')", "is not in the catalog"),
        ("SELECT * FROM range(1) ) ; DROP TABLE loaded_accounts --", "syntax error"),
        ("SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/x''')", "SELECT"),
        ("SELECT * FROM credentials", "credentials"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in asked(tmp_path, text)["refused"]
    assert {file.name for file in tmp_path.iterdir()} <= {"tables.duckdb", "tables.duckdb.wal"}


def test_a_query_that_needs_too_much_memory(tmp_path: Path) -> None:
    text = "SELECT count(DISTINCT hash(a.range, b.range)) FROM range(100000) a, range(1000) b"
    assert "64 MiB" in asked(tmp_path, text)["too_large"]


def test_values_that_json_has_not(tmp_path: Path) -> None:
    text = """SELECT 9223372036854775807::HUGEINT * 4, 'NaN'::DOUBLE, TIMESTAMP '2026-03-01 12:00:00.5',
              1.10::DECIMAL(9, 2), MAP {'USD': 5}, [1, NULL], true, 'é' || chr(0) || '😀', NULL"""
    assert asked(tmp_path, text)["rows"] == [
        ["36893488147419103228", None, "2026-03-01T12:00:00.500000Z", "1.10", {"USD": 5},
         [1, None], True, "é\x00😀", None]
    ]  # fmt: skip


def test_the_tables_are_as_documented() -> None:
    database = duckdb.connect()
    sql._create(database)

    def columns(name: str) -> list[tuple[str, str]]:
        return sorted((n, kind) for n, kind, *_ in database.execute(f"DESCRIBE {name}").fetchall())

    for table in BY_NAME.values():
        assert columns(table.name) == sorted(table.described)
    for name in EVENTS:
        assert columns(name) == sorted((column, kind) for column, kind, _ in EVENT_COLUMNS)


def test_a_table_that_is_not_named_is_not_there(tmp_path: Path) -> None:
    names = "SELECT view_name FROM duckdb_views() WHERE NOT internal"
    assert asked(tmp_path, names)["rows"] == []
    database = duckdb.connect()
    sql._create(database)
    assert sql._names(database, "SELECT * FROM query_table('accounts')") == {"accounts"}
    assert sql._names(database, "SELECT * FROM balances, legs l WHERE EXISTS (FROM users)") == {
        "accounts", "legs", "users",
    }  # fmt: skip


def test_what_is_loaded_may_be_more_than_the_memory(tmp_path: Path) -> None:
    limits = Limits(bytes=224 << 20)
    lines = 220_000  # of a kilobyte that nobody can make smaller

    def facts() -> Iterator[dict[str, Any]]:
        for n in range(lines):
            yield {"actor": os.urandom(500).hex(), "subject": str(n % 100)}

    with duckdb.connect(str(tmp_path / "tables.duckdb")) as database:
        sql._shut_in(database, tmp_path, limits)
        sql._create(database)
        named = (("account_events", fact) for fact in facts())
        sql._copy(database, tmp_path, ["account_events"], named)
        sql._lock(database)
        found = sql._written(
            database,
            tmp_path,
            "SELECT subject, count(*) AS n, sum(length(actor)) AS s FROM account_events GROUP BY ALL",
            limits,
            tmp_path / "found.parquet",
        )
    assert not found["truncated"]
    file = tmp_path / "found.parquet"
    made = duckdb.execute(f"SELECT count(*), sum(n), sum(s) FROM '{file}'").fetchone()
    assert made == (100, lines, lines * 1_000)


def test_an_answer_of_too_many_bytes(tmp_path: Path) -> None:
    limits = Limits(rows=100_000, bytes=64 << 20, answer_bytes=1 << 20)
    assert (
        "1 MiB" in asked(tmp_path, "SELECT repeat('x', 999) FROM range(2000)", limits)["too_large"]
    )
    assert "1 MiB" in asked(tmp_path, "SELECT [[]] FROM range(10000)", limits)["too_large"]
    assert len(asked(tmp_path, "SELECT repeat('x', 999) FROM range(900)", limits)["rows"]) == 900


# asks in a process of its own; says the most KiB that it and its child ever held
HUGE = """
import re, resource, sys
from travel import sql
from travel.errors import TooLarge
try:
    sql.run(sys.argv[1], None, sql.Limits(rows=10_000, bytes=512 << 20, answer_bytes=32 << 20))
except TooLarge:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize(
    "text", ["SELECT repeat('x', 1000000) FROM range(10000)", "SELECT repeat('x', 2000000000)"]
)
def test_huge_strings_cost_neither_the_child_s_memory_nor_ours(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUGE, text], capture_output=True, check=True, cwd=sql.ROOT
    )
    ours, child = (int(said) << 10 for said in done.stdout.split())
    assert ours < 200 << 20
    assert child < (512 << 20) + sql.BESIDE + (200 << 20)


def test_a_child_s_rows_come_as_they_were() -> None:
    found = sql.run("SELECT range AS n, 'a' || chr(10) || '€' AS s FROM range(3)", None, SMALL)
    assert (found.columns, found.types) == (["n", "s"], ["BIGINT", "VARCHAR"])
    assert found.rows == [[n, "a\n€"] for n in range(3)]
    assert not found.truncated


def test_a_message_that_repeats_a_huge_value(tmp_path: Path) -> None:
    said = asked(tmp_path, "SELECT CAST(repeat('x', 1000000) AS INT)")["refused"]
    assert said.startswith("Conversion Error")
    assert len(said) <= sql.SENTENCE


@pytest.mark.parametrize("size", [64 << 10, 300 << 10])  # of the tables' file, and of the answer's
def test_a_disk_that_takes_no_more_is_no_fault_of_the_sql(tmp_path: Path, size: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        text = "SELECT range, hash(range) FROM range(1000000)"
        said = asked(tmp_path, text, Limits(rows=1_000_000), tmp_path / "rows.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Could not write file" in said["failed"]


def test_a_time_that_is_over_is_told_from_what_is_too_large() -> None:
    text = (
        "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE hash(a.range, b.range) = 1"
    )
    with pytest.raises(TooLong, match="within 1 s"):
        sql.run(text, None, Limits(seconds=1))
