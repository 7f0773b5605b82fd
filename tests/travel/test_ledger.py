"""An account's ledger from the log is what its row says, at each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.account import Account, account_key
from domain.services import DECIDERS
from schemas.codec import Codec
from streaming import partition_of
from tests.agents.memory import PARTITIONS
from tests.travel.test_fold import MemoryLog, eventful_bank
from topics.catalog import Installation
from travel.fold import End, Fold, events
from travel.ledger import ledger
from travel.snapshot import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def test_it_leads_from_each_time_to_each_other() -> None:
    bank = eventful_bank()
    log, codec = MemoryLog(bank), Codec()
    source = Source({}, Installation(namespace="", partitions=PARTITIONS), codec)
    account_id = "A-ann"
    partition = partition_of(account_id.encode(), PARTITIONS)
    decider = DECIDERS["account"]
    records = [*events(log, "", decider, partition)]
    times = sorted({record.at_ms for record in records})
    times = [times[0] - 1, *times[:: max(1, len(times) // 6)], times[-1] + 1]

    def balance(at_ms: int) -> int:
        fold = Fold(decider, codec)
        rows = fold.run(events(log, "", decider, partition, End(at_ms=at_ms - 1)))
        row = rows.get(account_key(account_id))
        return row.balances.get("USD", 0) if isinstance(row, Account) else 0

    seen = 0
    for start_ms in times:
        for end_ms in (time for time in times if time > start_ms):
            openings: list[Mapping[str, int]] = []
            entries: list[Any] = []

            def begin(
                opening: Mapping[str, int],
                openings: list[Mapping[str, int]] = openings,
                entries: list[Any] = entries,
            ) -> Callable[[dict[str, Any]], None]:
                openings.append(opening)
                return entries.append

            closing = ledger(log, source, account_id, (start_ms, end_ms), begin)
            (opening,) = openings
            assert opening.get("USD", 0) == balance(start_ms)
            assert closing.get("USD", 0) == balance(end_ms)
            moved = sum(one["amount_minor"] for one in entries if one["currency"] == "USD")
            assert balance(start_ms) + moved == balance(end_ms)
            seen = max(seen, len(entries))
    assert seen > 5
