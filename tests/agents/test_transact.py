"""One record to records: what is written about it, under which key, with which headers."""

from __future__ import annotations

import re

import pytest

from agents.envelope import COPIED, Input, code, own_trace, place, rfc3339
from agents.transact import NotACommand, commands
from domain.account import AccountOpened, FreezeAccount
from domain.decider import Tick
from domain.saga import TransactionCompleted
from schemas.errors import Unreadable
from streaming import partition_of
from tests.agents.memory import PARTITIONS, SERVICES, Bank, bank_with_money, open_account, order

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_transfer_moves_money_and_ends_once() -> None:
    bank = bank_with_money()
    bank.command("transaction", "T1", order("T1", "A-ann", "A-bob", 700))
    bank.run()
    assert bank.row("account", "account/A-ann").balances == {"USD": 9_300}
    assert bank.row("account", "account/A-bob").balances == {"USD": 700}
    ended = bank.events("transaction", TransactionCompleted)
    assert sorted(event.order.transaction_id for event in ended) == ["T-in", "T1"]


def test_headers_of_an_event() -> None:
    bank = Bank()
    command = bank.command(
        "account", "A1", open_account("A1"), ce_id=b"cmd-1", traceparent=TRACE, actor=b"U1", origin=b"192.0.2.7 req-1",
        correlation_id=b"cmd-1",
    )  # fmt: skip
    bank.run()
    partition = partition_of(b"A1", PARTITIONS)
    (event,) = bank.logs["account.events", partition]
    assert event.key == b"A1"
    assert event.headers == {
        "ce_specversion": b"1.0",
        "ce_id": f"account.inbox-{partition}-0-0".encode(),
        "ce_source": b"/account",
        "ce_type": b"streambank.account.AccountOpened",
        "ce_time": rfc3339(command.at_ms),
        "ce_subject": b"A1",
        "content-type": b"application/avro",
        "causation_id": b"cmd-1",
        "correlation_id": b"cmd-1",
        "traceparent": TRACE,
        "actor": b"U1",
        "origin": b"192.0.2.7 req-1",
        "code": code(),
    }
    assert place(event.headers["ce_id"]) == ("account.inbox", partition, 0, 0)


def test_a_routed_copy_has_the_same_bytes_under_the_hearers_key_and_says_whose_it_is() -> None:
    bank = Bank()
    bank.command("account", "A1", open_account("A1", "U1"))
    bank.run()
    (event,) = bank.logs["account.events", partition_of(b"A1", PARTITIONS)]
    (copy,) = bank.logs["user.inbox", partition_of(b"U1", PARTITIONS)]
    assert (copy.key, copy.value) == (b"U1", event.value)
    assert copy.headers == {name: event.headers[name] for name in COPIED if name in event.headers}
    assert {"ce_id", "ce_type", "ce_source", "correlation_id"} <= copy.headers.keys()


def test_the_trace_follows_the_whole_saga() -> None:
    bank = bank_with_money()
    bank.command("transaction", "T1", order("T1", "A-ann", "A-bob"), traceparent=TRACE)
    bank.run()
    last = bank.logs["transaction.events", partition_of(b"T1", PARTITIONS)][-1]
    assert last.headers["ce_type"] == b"streambank.transaction.TransactionCompleted"
    assert last.headers["traceparent"] == TRACE


def test_what_no_request_began_has_a_trace_of_its_own() -> None:
    bank = Bank()
    bank.command("account", "A1", open_account("A1"))
    bank.run()
    (log,) = (bank.logs["account.events", partition_of(b"A1", PARTITIONS)],)
    given = log[0].headers["traceparent"]
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00", given)
    assert given == own_trace(log[0].headers["causation_id"])
    copies = [r for (topic, _), log in bank.logs.items() for r in log if topic == "user.inbox"]
    assert [copy.headers["traceparent"] for copy in copies] == [given]


GOOD = Bank().codec.encode(open_account("A1"))
FACT = Bank().codec.encode(
    AccountOpened(
        account_id="A1", user_id="U1", name="", currencies=(), overdraft_limits={},
        request_hash="", version=1, at_ms=0,
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"A1", None, "Unreadable: no value"),
        (b"A1", b"", "Unreadable"),
        (b"A1", b"{}", "Unreadable"),
        (b"A1", b"\x00\x7f\xff\xff\xffrest", "UnknownSchema"),
        (b"A1", GOOD[:-3], "Unreadable"),
        (b"A1", GOOD + b"x", "Unreadable"),
        (b"A2", GOOD, "NotACommand: OpenAccount of A1 arrived under another key"),
        (None, GOOD, "NotACommand"),
        (b"A1", FACT, "NotACommand: AccountOpened is no command of account"),
        (b"A1", Bank().codec.encode(Tick(due=())), "NotACommand: Tick"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"ce_source": b"/gateway"}, {"ce_source": b"\xff"}])
def test_what_a_stranger_may_not_say_becomes_a_dead_letter(
    key: bytes | None, value: bytes | None, reason: str, headers: dict[str, bytes]
) -> None:
    bank = Bank()
    bad = bank.write("account.inbox", key, value, headers, partition=0)
    after = next(f"A{n}" for n in range(99) if partition_of(b"A%d" % n, PARTITIONS) == 0)
    bank.command("account", after, open_account(after))
    bank.run()
    (dead,) = bank.logs["account.dead", 0]
    assert (dead.key, dead.value) == (bad.key, bad.value)
    found = dead.headers
    assert found["dead_letter_reason"].decode().startswith(reason)
    assert found["dead_letter_topic"] == b"account.inbox"
    assert (found["dead_letter_partition"], found["dead_letter_offset"]) == (b"0", b"0")
    assert {name: found[name] for name in headers} == headers
    assert bank.row("account", f"account/{after}") is not None  # nothing behind it is held up


@pytest.mark.parametrize("source", [b"/risk", b"/account", b"/perform"])
def test_what_a_service_said_and_can_not_be_read_stops(source: bytes) -> None:
    bank = Bank()
    for value in (GOOD[:-3], b"\x00\x7f\xff\xff\xff"):
        at = Input("account.inbox", 0, 0, 0, {"ce_source": source})
        with pytest.raises(Unreadable) as why:
            bank.transactors["account"].read(at, b"A1", value)
        assert not isinstance(why.value, NotACommand)


def test_a_service_that_hears_what_it_does_not_know_stops() -> None:
    at = Input("account.inbox", 0, 0, 0, {"ce_source": b"/account"})
    with pytest.raises(Unreadable, match="nothing that account hears"):
        Bank().transactors["account"].read(at, b"A1", FACT)


def test_every_command_has_its_key() -> None:
    for service in SERVICES.values():
        assert commands(service) == set(service.command_keys)
    assert FreezeAccount in commands(SERVICES["account"])
