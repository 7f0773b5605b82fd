"""A fold of the log gives the table as it was, at every time and place; one key's gives the same row."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from agents.envelope import place
from domain.account import Account, LegsClosed, account_key
from domain.decider import DUE, KEEP_FINAL_MS, Tick
from domain.prices import PRICE_LIST, Price, SetPriceList
from domain.saga import Terms, TransactionCompleted, TransactionType
from domain.services import DECIDERS
from domain.transaction import TRANSACTION, Transaction, transaction_key
from domain.user import RegisterUser
from schemas.codec import Codec
from streaming import partition_of
from tests.agents.memory import PARTITIONS, Bank, bank_with_money, open_account, order
from travel.fold import NOW, End, Fold, events
from travel.schema import OMITTED, TABLES, aggregate_of, is_private, table_of
from travel.timeline import Part, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proof.reader import LogRecord


DEPOSIT = TransactionType.DEPOSIT


class MemoryLog:
    """A bank's lists, read as topics are."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    def records(self, topic: str, partition: int, start: int | None = None) -> Iterator[LogRecord]:
        yield from self.bank.logs[topic, partition][start or 0 :]


def eventful_bank() -> Bank:
    """Transfers, refusals, reviews, a user, a payment through the rail; then a month goes by."""
    bank = bank_with_money(together=True)
    bank.command("account", "A-fay", open_account("A-fay"))
    bank.run()
    bank.command("transaction", "T-cy", order("T-cy", None, "A-fay", 900, kind=DEPOSIT))
    bank.run()
    user = RegisterUser(
        user_id="U-eve",
        address="eve@bank.example",
        email="Eve@bank.example",
        name="Eve",
        password_hash="$2b$secret",
        roles=(),
        actor_id="U-eve",
        request_hash="h",
    )
    bank.command("user", user.address, user)
    for n in range(6):
        bank.command("transaction", f"T{n}", order(f"T{n}", "A-ann", "A-bob", 700))
        bank.command("transaction", f"C{n}", order(f"C{n}", "A-fay", "A-bob", 70))
    bank.command("transaction", "T-much", order("T-much", "A-ann", "A-bob", 10**9))
    bank.run()
    closed = [len(event.legs) for event in bank.events("account", LegsClosed)]
    assert sum(closed) == 12
    assert any(
        len({leg.account_id for leg in event.legs}) > 1
        for event in bank.events("account", LegsClosed)
    )
    out = order("T-out", "A-bob", None, 50, kind=TransactionType.WITHDRAWAL, owner="U-bob")
    bank.command("transaction", "T-out", out)
    bank.run()
    undo_and_price(bank)
    return bank


def undo_and_price(bank: Bank) -> None:
    """C0 is undone, and payments cost something from then on."""
    back = order("R0", "A-bob", "A-fay", 70, kind=TransactionType.REVERSAL, owner="U-bob")
    back = replace(back, terms=Terms(original_transaction_id="C0"))
    bank.command("transaction", "R0", back)
    price = Price(type=TransactionType.PAYMENT, currency="USD", flat_minor=3, rate_ppm=0)
    bank.command("transaction", PRICE_LIST, SetPriceList(prices=(price,), actor_id="U-ops"))
    bank.run()
    dear = order("T-dear", "A-bob", "A-fay", 50, kind=TransactionType.PAYMENT, owner="U-bob")
    bank.command("transaction", "T-dear", dear)
    bank.run()
    ended = bank.events("transaction", TransactionCompleted)
    ends = {end.order.transaction_id: end for end in ended}
    assert ends["T-dear"].order.terms == Terms(fee_minor=3)
    assert Part(TRANSACTION, "C0") in parts_of(ends["R0"].order), "where it was granted"
    assert len(parts_of(ends["C0"].order)) == len(parts_of(ends["R0"].order)) - 1


def a_month_later(bank: Bank) -> None:
    """What was final is forgotten; new things become final."""
    bank.now_ms += KEEP_FINAL_MS + 60_000
    for (service, partition), rows in list(bank.rows.items()):
        due = tuple(sorted(key for key in rows if key.startswith(DUE)))
        headers = {"ce_source": f"/{service}".encode()}
        for at in range(0, len(due), 5):
            value = bank.codec.encode(Tick(due=due[at : at + 5]))
            bank.write(f"{service}.inbox", b"tick", value, headers, partition)
    bank.run()
    bank.command("transaction", "T-late", order("T-late", "A-ann", "A-bob", 5))
    bank.run()


def folded(
    bank: Bank,
    service: str,
    partition: int,
    end: End = NOW,
    aggregate: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    log = MemoryLog(bank)
    fold = Fold(DECIDERS[service], Codec(), aggregate)
    return dict(fold.run(events(log, "", DECIDERS[service], partition, end, **more)))


@pytest.mark.parametrize("later", [False, True])
def test_the_fold_is_the_table(later: bool) -> None:
    bank = eventful_bank()
    if later:
        a_month_later(bank)
    for service, partition in list(bank.rows):
        log = MemoryLog(bank)
        assert folded(bank, service, partition, private=log) == bank.rows[service, partition]


@pytest.mark.parametrize("later", [False, True])
def test_one_aggregates_fold_gives_the_same_row(later: bool) -> None:
    bank = eventful_bank()
    compared = 0
    if later:
        before = {key for rows in bank.rows.values() for key in rows}
        a_month_later(bank)
    for (service, partition), rows in list(bank.rows.items()):
        for key in rows.keys() | (before if later else set()):
            aggregate = aggregate_of(service, key)
            if aggregate is None or partition_of(aggregate.encode(), PARTITIONS) != partition:
                continue
            narrow = folded(bank, service, partition, NOW, aggregate, private=MemoryLog(bank))
            assert narrow.get(key) == rows.get(key), key
            compared += 1
    assert compared > 20
    assert not later or not any("T0" in key for rows in bank.rows.values() for key in rows)


def test_rows_live_where_their_aggregate_does() -> None:
    bank = eventful_bank()
    for (service, partition), rows in bank.rows.items():
        for key in rows:
            if (aggregate := aggregate_of(service, key)) is not None:
                assert partition_of(aggregate.encode(), PARTITIONS) == partition, key


def test_public_events_make_all_rows_but_the_private_ones() -> None:
    bank = eventful_bank()
    for (service, partition), rows in list(bank.rows.items()):
        public = {key: row for key, row in rows.items() if not is_private(key)}
        assert folded(bank, service, partition) == public
    assert any(is_private(key) for rows in bank.rows.values() for key in rows)


def test_every_kind_of_row_has_a_table_or_is_left_out_by_name() -> None:
    bank = eventful_bank()
    prefixes = (*(table.prefix for table in TABLES), *OMITTED)
    assert [
        key for rows in bank.rows.values() for key in rows if not key.startswith(prefixes)
    ] == []
    for table in TABLES:
        assert table.row in DECIDERS[table.service].rows
    for (service, partition), rows in bank.rows.items():
        for key, row in rows.items():
            if (table := table_of(service, key)) is not None:
                assert (table.service, table.row) == (service, type(row))
                names = [name for name, _ in table.described]
                assert list(table.record(key, row, partition)) == names


def history(bank: Bank, service: str, partition: int) -> list[LogRecord]:
    return list(bank.logs[f"{service}.events", partition])


def test_a_time_before_between_and_after() -> None:
    bank = eventful_bank()
    partition = partition_of(b"A-ann", PARTITIONS)
    records = history(bank, "account", partition)
    times = sorted({record.at_ms for record in records})
    assert folded(bank, "account", partition, End(at_ms=times[0] - 1)) == {}
    for at_ms, following in zip(times, [*times[1:], times[-1] + 1000], strict=True):
        fold = Fold(DECIDERS["account"], Codec())
        fold.run(record for record in records if record.at_ms <= at_ms)
        for end_ms in (at_ms, following - 1):
            assert folded(bank, "account", partition, End(at_ms=end_ms)) == fold.rows
    assert folded(bank, "account", partition, End(at_ms=times[-1] + 10**9)) == folded(
        bank, "account", partition
    )


def test_a_balance_goes_through_its_past() -> None:
    bank = eventful_bank()
    partition, key = partition_of(b"A-ann", PARTITIONS), account_key("A-ann")
    seen = []
    for at_ms in sorted({record.at_ms for record in history(bank, "account", partition)}):
        row: Account | None = folded(bank, "account", partition, End(at_ms=at_ms), "A-ann").get(key)
        if row is not None and (not seen or seen[-1] != row.balances["USD"]):
            seen.append(row.balances["USD"])
    assert seen[0] == 0
    steps = [one - other for one, other in pairwise(seen[1:])]
    assert steps == [700] * 6


def test_an_offset_of_the_events_cuts_the_private_ones_too() -> None:
    bank = eventful_bank()
    partition = partition_of(b"U-eve", PARTITIONS)
    records = history(bank, "user", partition)
    at = next(r.offset for r in records if r.key == b"U-eve")
    before = folded(bank, "user", partition, End(offset=at), private=MemoryLog(bank))
    assert not any("U-eve" in key for key in before if key.startswith("user/"))
    after = folded(bank, "user", partition, End(offset=at + 1), private=MemoryLog(bank))
    assert {"user/U-eve", "credentials/U-eve"} <= after.keys()


def test_an_input_cuts_before_its_events() -> None:
    bank = eventful_bank()
    partition, key = partition_of(b"T3", PARTITIONS), transaction_key("T3")
    first = next(r for r in history(bank, "transaction", partition) if r.key == b"T3")
    at = place(first.headers["ce_id"]).offset
    assert key not in folded(bank, "transaction", partition, End(input=at))
    row = folded(bank, "transaction", partition, End(input=at + 1))[key]
    assert isinstance(row, Transaction)
    assert row.version == 1
