"""A report's rows and its closing balances end at one moment: the last of the period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import orjson

from domain.account import Account
from domain.reporting import REPORTING, Definition, ReportRequested, RunReport, Source
from domain.services import DECIDERS
from reports.sources import select
from schemas.codec import Codec
from tests.agents.memory import PARTITIONS, Bank, bank_with_money, order
from tests.domain.stories import then
from tests.travel.test_fold import MemoryLog
from travel.fold import End, Fold, events

if TYPE_CHECKING:
    from proof.reader import LogRecord

ENTRIES = Definition(
    title="Entries",
    source=Source.ENTRIES,
    columns=("account", "amount", "currency"),
    filters=(),
    group_by=(),
)


def requested(to_ms: int) -> ReportRequested:
    """All until then, asked for a second later."""
    run = RunReport(
        report_id="r1",
        definition=ENTRIES,
        from_ms=0,
        to_ms=to_ms,
        actor_id="ana",
        request_hash="h",
    )
    (asked,) = then(REPORTING, [], run, to_ms + 1_000)
    assert isinstance(asked, ReportRequested)
    return asked


def said(bank: Bank, end: End) -> list[LogRecord]:
    log, account = MemoryLog(bank), DECIDERS["account"]
    return [r for n in range(PARTITIONS) for r in events(log, "", account, n, end)]


def posted(bank: Bank, asked: ReportRequested) -> dict[str, int]:
    """What the report of entries sums up to, by account."""
    lines = [
        (r.at_ms, orjson.dumps(bank.codec.decode(r.value or b""), default=str).decode())
        for r in said(bank, End(at_ms=asked.as_of_ms))
    ]
    with duckdb.connect(":memory:") as database:
        database.execute(
            "CREATE TABLE account_events (said_at TIMESTAMP, data JSON, transaction_id VARCHAR,"
            " type VARCHAR, event_id VARCHAR)"
        )
        insert = "INSERT INTO account_events BY NAME SELECT epoch_ms(?) AS said_at, ? AS data"
        for line in lines:
            database.execute(insert, line)
        sql = select(asked.definition, asked.from_ms, asked.to_ms)
        found = database.execute(f"SELECT account, sum(amount) FROM ({sql}) GROUP BY account")
        return {account: int(amount) for account, amount in found.fetchall()}


def balances(bank: Bank, at_ms: int) -> dict[str, int]:
    """The accounts' balances as of then."""
    found: dict[str, Any] = {}
    for n in range(PARTITIONS):
        log, account = MemoryLog(bank), DECIDERS["account"]
        found |= Fold(account, Codec()).run(events(log, "", account, n, End(at_ms=at_ms)))
    accounts = [row for row in found.values() if isinstance(row, Account)]
    return {row.account_id: row.balances["USD"] for row in accounts}


def test_what_is_posted_at_the_end_is_in_neither_the_entries_nor_the_balances() -> None:
    bank = bank_with_money()
    for n in range(3):
        bank.command("transaction", f"T{n}", order(f"T{n}", "A-ann", "A-bob", 700))
    bank.run()
    moments = [record.at_ms for record in said(bank, End())]
    for to_ms in (*moments, max(moments) + 1):
        asked = requested(to_ms)
        entries, closing = posted(bank, asked), balances(bank, asked.as_of_ms)
        assert {account: entries.get(account, 0) for account in closing} == closing, to_ms
    assert closing == {"A-ann": 7_900, "A-bob": 2_100}
