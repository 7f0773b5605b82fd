"""verify finds nothing in sound logs, and each single fault in unsound ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from domain import account as account_module
from domain.saga import (
    Order,
    Rail,
    Reason,
    RefundFailed,
    TransactionCompleted,
    TransactionFailed,
    TransactionType,
)
from domain.suspense import ResolveSuspense, SuspenseAction
from pipeline import SERVICES
from proof.verify import ORDER
from streaming import partition_of
from tests.agents.memory import PARTITIONS, Bank, bank_with_money, open_account, order

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.account import Account
    from domain.saga import Balance
    from proof.reader import LogRecord


def busy_bank() -> Bank:
    bank = bank_with_money()
    for n in range(9):
        bank.command("transaction", f"T{n}", order(f"T{n}", "A-ann", "A-bob", 700))
    bank.command("transaction", "T-none", order("T-none", "A-ann", "A-missing"))
    bank.command("transaction", "T-much", order("T-much", "A-ann", "A-bob", 10**9))
    out = order("T-out", "A-bob", None, 50, kind=TransactionType.WITHDRAWAL, owner="U-bob")
    bank.command("transaction", "T-out", out)
    bank.write("account.inbox", b"A", b"not avro", {}, 0)
    bank.command("account", "A-ann", open_account("A-ann"))  # said before: nothing happens
    bank.run()
    return bank


def records(bank: Bank, kind: str) -> list[tuple[list[LogRecord], int]]:
    """Every record in the logs of one kind, as its log and its place in it."""
    return [
        (log, at)
        for (topic, _), log in sorted(bank.logs.items())
        if topic.endswith(kind) and topic.split(".")[0] in bank.transactors
        for at in range(len(log))
    ]


def drop(bank: Bank, log: list[LogRecord], at: int) -> None:
    del log[at]


def double(bank: Bank, log: list[LogRecord], at: int) -> None:
    log.insert(at, log[at])


def change(bank: Bank, log: list[LogRecord], at: int) -> None:
    """Another time: the least that a record can be changed by."""
    event = bank.codec.decode(log[at].value or b"")
    log[at] = replace(log[at], value=bank.codec.encode(replace(event, at_ms=event.at_ms + 1)))


@pytest.mark.parametrize("decide", [True, False])
def test_sound_logs_have_no_difference(decide: bool) -> None:
    assert busy_bank().differences(decide) == []


@pytest.mark.parametrize("fault", [drop, double, change])
def test_any_event_dropped_doubled_or_changed_is_found(
    fault: Callable[[Bank, list[LogRecord], int], None],
) -> None:
    count = len(records(busy_bank(), ".events"))
    assert count > 60
    bank = busy_bank()
    for log, at in records(bank, ".events"):
        whole = list(log)
        fault(bank, log, at)
        assert bank.differences(), f"{fault.__name__} {whole[at]}"
        log[:] = whole


@pytest.mark.parametrize("fault", [drop, double])
def test_any_event_of_the_ledger_is_missed_without_the_inbox_too(
    fault: Callable[[Bank, list[LogRecord], int], None],
) -> None:
    bank = busy_bank()
    for log, at in records(bank, ".events"):
        if not getattr(bank.codec.decode(log[at].value or b""), "postings", ()):
            continue
        whole = list(log)
        fault(bank, log, at)
        assert bank.differences(decide=False), f"{fault.__name__} {whole[at]}"
        log[:] = whole


def said_before(event: Any) -> Any:
    *others, last = event.balances
    return replace(event, balances=(*others, replace(last, before_minor=last.before_minor + 1)))


def said_after(event: Any) -> Any:
    *others, last = event.balances  # the last is its own, one before it that of the debit
    return replace(event, balances=(*others, replace(last, after_minor=last.after_minor + 1)))


def posted(event: Any) -> Any:
    """As much more on both sides, so that it still sums to zero."""
    first, second, *others = event.postings
    more = replace(first, amount_minor=first.amount_minor + 1)
    less = replace(second, amount_minor=second.amount_minor - 1)
    return replace(event, postings=(more, less, *others))


@pytest.mark.parametrize("fault", [said_before, said_after, posted])
def test_a_balance_that_is_not_what_was_posted_is_found(fault: Callable[[Any], Any]) -> None:
    """In each event, also where a later one hides it from the rows, and when the inbox has expired."""
    bank, count = busy_bank(), 0
    for log, at in records(bank, "account.events"):
        whole = list(log)
        event = bank.codec.decode(log[at].value or b"")
        if not getattr(event, "postings", ()):
            continue
        log[at] = replace(log[at], value=bank.codec.encode(fault(event)))
        assert bank.differences(decide=False), f"{fault.__name__} {event}"
        log[:] = whole
        count += 1
    assert count > 10


def test_money_that_a_decider_makes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and rows agree, and it decides the same again: only what was posted says otherwise."""

    honest = account_module._moved

    def mints(account: Account, currency: str, amount_minor: int) -> Balance:
        moved = honest(account, currency, amount_minor)
        return replace(moved, after_minor=moved.after_minor + (amount_minor > 0))

    monkeypatch.setattr(account_module, "_moved", mints)
    assert any("with what it posts it is" in str(found) for found in busy_bank().differences())


def test_every_service_is_verified() -> None:
    assert {*ORDER} == {*SERVICES}


def test_an_input_that_is_gone_is_found() -> None:
    bank = busy_bank()
    log = next(log for log, _ in records(bank, ".inbox") if len(log) > 3)
    del log[1]
    assert bank.differences()


def test_a_row_that_no_event_explains_is_found() -> None:
    for fault in ("changed", "lost", "invented"):
        bank = busy_bank()
        where = next(at for at, rows in bank.rows.items() if "account/A-ann" in rows)
        rows = bank.rows[where]
        if fault == "changed":
            rows["account/A-ann"] = replace(rows["account/A-ann"], balances={"USD": 1})
        elif fault == "lost":
            del rows["account/A-ann"]
        else:
            rows["account/A-new"] = rows["account/A-ann"]
        (found,) = bank.differences()
        assert "account/A-" in str(found)


def test_money_that_stays_in_clearing_is_found() -> None:
    """A credit, its event and its rows all gone: only the sum over the partitions shows it."""
    bank = bank_with_money()
    bank.command("account", "A-cleo", open_account("A-cleo", "U-cleo"))
    bank.run()
    partition = partition_of(b"A-cleo", PARTITIONS)
    before = bank.read["account", partition]
    rows = dict(bank.rows["account", partition])
    bank.command("transaction", "T1", order("T1", "A-ann", "A-cleo", 700))
    bank.run()
    bank.read["account", partition], bank.rows["account", partition] = before, rows
    found = [str(difference) for difference in bank.differences()]
    assert found
    assert all("left in clearing" in each or "clearing has 700" in each for each in found)


def suspended_bank() -> Bank:
    """What Ann's card was charged is for nobody; an operator gives it to Bob, then all is quiet."""
    bank = bank_with_money()
    charge = Order(
        transaction_id="T1",
        type=TransactionType.PAYMENT,
        amount_minor=700,
        currency="USD",
        source_account_id=None,
        destination_account_id="A-gone",
        owner_id="U-ann",
        actor_id="U-ann",
        privileged=False,
        rail=Rail.EXTERNAL,
        created_ms=1,
        deadline_ms=2,
    )
    fact = RefundFailed(
        order=charge,
        payment_id="T1",
        reason=Reason.ACCOUNT_CLOSED,
        balances=(),
        at_ms=1,
        steps=(),
    )
    bank.write("account.inbox", b"A-gone", bank.codec.encode(fact), {"ce_source": b"/payment"})
    word = ResolveSuspense(
        suspense_id="A-gone.T1",
        account_id="A-gone",
        resolution_id="r1",
        action=SuspenseAction.PAY,
        amount_minor=700,
        currency="USD",
        to_account_id="A-bob",
        note="",
        actor_id="U-ops",
        request_hash="h",
    )
    bank.command("account", "A-gone", word)
    bank.run()
    return bank


def test_what_was_paid_out_of_suspense_is_right() -> None:
    bank = suspended_bank()
    assert bank.row("account", "account/A-bob").balances == {"USD": 700}
    assert bank.differences() == []


def test_money_that_stays_in_suspense_is_found() -> None:
    """A payment, its event and its rows all gone, and what it paid is said to be settled."""
    bank = suspended_bank()
    partition = partition_of(b"A-bob", PARTITIONS)
    assert partition != partition_of(b"A-gone", PARTITIONS)
    (log,) = (bank.logs["account.events", partition],)
    at = next(n for n, record in enumerate(log) if b"SuspensePaid" in record.headers["ce_type"])
    rows = bank.rows["account", partition]
    row = rows["account/A-bob"]
    rows["account/A-bob"] = replace(row, balances={"USD": 0}, version=row.version - 1)
    for key in [key for key in rows if key.startswith(("payout/", "ledger/suspense/", "due/"))]:
        del rows[key]
    del log[at]
    found = [str(difference) for difference in bank.differences(decide=False)]
    assert any("T1 is settled with 700 USD left in suspense" in each for each in found), found


def test_an_order_that_ends_in_its_first_step_is_right() -> None:
    bank = bank_with_money()
    bank.command("transaction", "T1", order("T1", "A-ann", "A-ann", 700))
    bank.run()
    assert [event.reason for event in bank.events("transaction", TransactionFailed)]
    assert bank.differences() == []


def test_a_leg_that_nobody_closes_is_found() -> None:
    """What the credits of one transaction say together was never said."""
    bank = bank_with_money()
    write, key = bank.write, b"gathered"
    bank.write = lambda topic, to, *rest: None if to == key else write(topic, to, *rest)  # type: ignore[method-assign,assignment,return-value]
    bank.command("transaction", "T1", order("T1", "A-ann", "A-bob", 700))
    bank.run()
    (found,) = bank.differences()
    assert "leg/T1/source is open" in str(found)


def test_two_ends_of_a_transaction_are_found() -> None:
    bank = busy_bank()
    (partition, log) = next(
        (p, bank.logs["transaction.events", p])
        for p in range(PARTITIONS)
        if bank.logs["transaction.events", p]
    )
    last = next(
        record
        for record in reversed(log)
        if isinstance(bank.codec.decode(record.value or b""), TransactionCompleted)
    )
    ce_id = f"transaction.inbox-{partition}-{bank.read['transaction', partition]}-0".encode()
    log.append(replace(last, headers={**last.headers, "ce_id": ce_id}))
    bank.read["transaction", partition] += 1
    assert any("ended 2 times" in str(found) for found in bank.differences(decide=False))
