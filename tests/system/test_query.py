"""query as an analyst runs it: now, then, hostile, into files."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import duckdb

from tests.system.test_command_line import refused
from tests.system.test_travel import Lived, lived, time_of
from travel.schema import BY_NAME, EVENTS, VIEWS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lived"]


def rows(lived: Lived, sql: str, *options: str) -> list[list[str]]:
    done = lived.bank.pipeline("query", sql, "--format", "csv", *options)
    assert done.returncode == 0, done.stderr
    return list(csv.reader(io.StringIO(done.stdout)))[1:]


def balance(lived: Lived, *options: str) -> list[list[str]]:
    account_id = lived.ann.account_id
    sql = f"SELECT amount_minor, currency FROM balances WHERE account_id = '{account_id}'"
    return rows(lived, sql, *options)


def test_now_and_then(lived: Lived) -> None:
    assert balance(lived) == [["9250", "USD"]]
    assert balance(lived, "--at", time_of(lived.debited_ms)) == [["9300", "USD"]]
    assert balance(lived, "--at", time_of(lived.debited_ms - 1)) == [["10000", "USD"]]
    assert balance(lived, "--at", "2001-01-01T00:00:00Z") == []
    refused(lived.bank.pipeline("query", "SELECT 1", "--at", "2999-01-01T00:00:00Z"), "future")


def test_tables_join_and_sum(lived: Lived) -> None:
    sql = f"""
        SELECT t.status, t.reason, count(e.event_id) > 1 FROM transactions t
        JOIN transaction_events e USING (transaction_id)
        WHERE transaction_id IN ('{lived.sent}', '{lived.refused}') GROUP BY 1, 2 ORDER BY 1"""
    assert rows(lived, sql) == [["completed", "", "true"], ["failed", "INSUFFICIENT_FUNDS", "true"]]
    ledger = """
        SELECT currency, sum(amount) FROM (
            SELECT currency, amount_minor AS amount FROM balances
            UNION ALL SELECT currency, balance_minor FROM ledger) GROUP BY 1"""
    assert {total for _, total in rows(lived, ledger)} == {"0"}


def test_all_tables_can_be_asked(lived: Lived) -> None:
    names = [*BY_NAME, *EVENTS, *VIEWS]
    counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in names)
    counted = {name: int(count) for name, count in rows(lived, counts)}
    assert counted["users"] >= 1
    assert counted["events"] > counted["transaction_events"] > 0


def test_a_table_for_a_terminal(lived: Lived) -> None:
    sql = f"SELECT account_id, balances FROM accounts WHERE account_id = '{lived.ann.account_id}'"
    done = lived.bank.pipeline("query", sql)
    heading, line, row = done.stdout.splitlines()
    assert heading.split() == ["account_id", "balances"]
    assert set(line) == {"-", " "}
    assert row.split(maxsplit=1) == [lived.ann.account_id, '{"USD": 9250}']


def test_parquet(lived: Lived, tmp_path: Path) -> None:
    file = tmp_path / "events.parquet"
    sql = "SELECT type, said_at, amount_minor, data FROM account_events -- all of them"
    done = lived.bank.pipeline("query", sql, "--format", "parquet", "--output", str(file))
    assert done.returncode == 0, done.stderr
    sql = f"SELECT count(*) FROM '{file}' WHERE type = 'AccountDebited'"
    ((count,),) = duckdb.connect().execute(sql).fetchall()
    assert count >= 2
    refused(lived.bank.pipeline("query", "SELECT 1", "--format", "parquet"), "--output")


def test_what_is_too_much(lived: Lived) -> None:
    done = lived.bank.pipeline("query", "SELECT * FROM range(1000)", "--rows", "10")
    assert len(done.stdout.splitlines()) == 12
    assert "only the first 10 rows" in done.stderr
    refused(lived.bank.pipeline("query", "SELECT * FROM nothing"), "nothing")
    sql = (
        "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE hash(a.range, b.range) = 1"
    )
    refused(lived.bank.pipeline("query", sql, "--seconds", "2"), "within 2 s")


def test_no_secret_is_shown(lived: Lived) -> None:
    done = lived.bank.pipeline("query", "SELECT * FROM users")
    assert lived.eve in done.stdout
    everything = lived.bank.pipeline("query", "SELECT * FROM user_events", "--format", "csv")
    for shown in (done.stdout, everything.stdout):
        assert "$2b$12$" not in shown
    refused(lived.bank.pipeline("query", "SELECT * FROM credentials"), "credentials")
