"""Every path of the saga on the real broker, then the proof over what they left behind."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from domain.account import (
    AccountClosed,
    AccountCommandRefused,
    AccountFrozen,
    AccountOpened,
    CloseAccount,
    FreezeAccount,
)
from domain.blacklist import AddToBlacklist, BlacklistApplied, BlacklistKind
from domain.risk import DecideReview
from domain.saga import (
    AccountDebited,
    DebitReversed,
    Rail,
    Reason,
    RefundProcessed,
    ReviewRequested,
    TransactionCancelled,
    TransactionCompleted,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import CancelTransaction
from tests.agents.memory import PARTITIONS, open_account, order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.bank import Client
    from tests.system.conftest import Installation

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def client(running: Installation) -> Iterator[Client]:
    made = running.client("account.events", "transaction.events", "risk.events", "payment.events")
    yield made
    made.close()


@dataclass
class Person:
    """Somebody with an account."""

    user_id: str
    account_id: str


def person(client: Client, name: str, amount_minor: int = 10_000) -> Person:
    """Opens an account and puts money in."""
    made = Person(f"U-{name}-{uuid.uuid4().hex[:6]}", f"A-{name}-{uuid.uuid4().hex[:6]}")
    client.send("account", made.account_id, open_account(made.account_id, made.user_id))
    client.flush()
    client.wait(lambda: client.said(AccountOpened, account_id=made.account_id), "an account")
    if amount_minor:
        deposit = pay(
            client, None, made, amount_minor, kind=TransactionType.DEPOSIT, owner=made.user_id
        )
        (end,) = client.ended(deposit)
        assert isinstance(end, TransactionCompleted)
    return made


def pay(
    client: Client, source: Person | None, destination: Person | str | None, amount_minor: int,
    **more: Any,
) -> str:  # fmt: skip
    transaction_id = f"T-{uuid.uuid4()}"
    owner = more.pop("owner", source.user_id if source else None)
    to = destination.account_id if isinstance(destination, Person) else destination
    command = order(
        transaction_id, source.account_id if source else None, to, amount_minor,
        owner=owner, **more,
    )  # fmt: skip
    client.send("transaction", transaction_id, command, traceparent=TRACE)
    client.flush()
    return transaction_id


def failed(client: Client, transaction_id: str) -> Reason:
    (end,) = client.ended(transaction_id)
    assert isinstance(end, TransactionFailed), end
    return end.reason


def test_a_transfer_completes_with_its_trace_and_balances(client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    (end,) = client.ended(pay(client, ann, bob, 700))
    assert isinstance(end, TransactionCompleted)
    steps = [step.step for step in end.steps]
    assert steps == ["validate", "risk", "debit", "payment", "credit", "complete"]
    assert {b.account_id: (b.before_minor, b.after_minor) for b in end.balances} == {
        ann.account_id: (10_000, 9_300),
        bob.account_id: (0, 700),
    }


def test_no_funds(client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    assert failed(client, pay(client, ann, bob, 10_001)) is Reason.INSUFFICIENT_FUNDS


def test_a_frozen_source(client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    command = FreezeAccount(account_id=ann.account_id, actor_id="U-op")
    client.send("account", ann.account_id, command)
    client.flush()
    client.wait(lambda: client.said(AccountFrozen, account_id=ann.account_id), "frozen")
    assert failed(client, pay(client, ann, bob, 1)) is Reason.ACCOUNT_FROZEN


def test_a_missing_recipient_puts_the_debit_back(client: Client) -> None:
    ann = person(client, "ann")
    transaction_id = pay(client, ann, "A-nobody", 700)
    assert failed(client, transaction_id) is Reason.ACCOUNT_NOT_FOUND
    assert client.said(AccountDebited, order__transaction_id=transaction_id)
    (back,) = client.said(DebitReversed, order__transaction_id=transaction_id)
    assert back.balances[0].after_minor == 10_000


def test_a_withdrawal_through_the_rail(client: Client) -> None:
    ann = person(client, "ann")
    out = pay(client, ann, None, 700, kind=TransactionType.WITHDRAWAL, rail=Rail.EXTERNAL)
    (end,) = client.ended(out)
    assert isinstance(end, TransactionCompleted)


def test_the_rail_declines(client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    transaction_id = pay(client, ann, bob, 713, rail=Rail.EXTERNAL)
    assert failed(client, transaction_id) is Reason.PAYMENT_DECLINED
    assert client.said(DebitReversed, order__transaction_id=transaction_id)


# late, pending (a tick asks again), answer lost, down at first, down for longer
@pytest.mark.parametrize("amount_minor", [721, 731, 741, 751, 761])
def test_the_rail_has_a_bad_day_and_the_payment_succeeds(client: Client, amount_minor: int) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    (end,) = client.ended(pay(client, ann, bob, amount_minor, rail=Rail.EXTERNAL))
    assert isinstance(end, TransactionCompleted)
    assert {b.after_minor for b in end.balances} == {10_000 - amount_minor, amount_minor}


def test_a_paid_transfer_that_nobody_can_take_is_refunded(client: Client) -> None:
    ann = person(client, "ann")
    transaction_id = pay(client, ann, "A-nobody", 700, rail=Rail.EXTERNAL)
    assert failed(client, transaction_id) is Reason.ACCOUNT_NOT_FOUND
    assert client.said(RefundProcessed, order__transaction_id=transaction_id)


def test_a_review_is_approved_or_declined_by_a_person(client: Client) -> None:
    ann, bob = person(client, "ann", 1_000_000), person(client, "bob", 0)
    reviews = {}
    for approve in (False, True):  # what is declined reserves nothing of the day
        ordered = pay(client, ann, bob, 80_000 if approve else 85_000, privileged=False)
        (asked,) = client.wait(
            lambda t=ordered: client.said(ReviewRequested, order__transaction_id=t), "a review"
        )
        reviews[approve] = ordered
        command = DecideReview(
            review_id=asked.review_id, approve=approve, deadline_s=60, actor_id="U-op", note=""
        )
        client.send("risk", ann.user_id, command)
        client.flush()
        client.ended(ordered)
    assert isinstance(client.final(reviews[True]), TransactionCompleted)
    assert failed(client, reviews[False]) is Reason.REVIEW_DECLINED


def test_a_cancel_in_time_and_too_late(client: Client) -> None:
    ann, bob = person(client, "ann", 1_000_000), person(client, "bob", 0)
    held = pay(client, ann, bob, 80_000, privileged=False)
    client.wait(lambda: client.said(ReviewRequested, order__transaction_id=held), "a review")
    cancel = CancelTransaction(transaction_id=held, actor_id=ann.user_id)
    client.send("transaction", held, cancel)
    (end,) = client.ended(held)
    assert isinstance(end, TransactionCancelled)
    done = pay(client, ann, bob, 5)
    client.ended(done)
    client.send("transaction", done, CancelTransaction(transaction_id=done, actor_id="U"))
    refused = client.wait(
        lambda: [
            m for m in client.seen
            if dict(m.headers()).get("ce_type", b"").endswith(b".TransactionCommandRefused")
            and dict(m.headers())["ce_subject"] == done.encode()
        ],
        "a refusal",
    )  # fmt: skip
    assert client.codec.decode(refused[0].value()).reason is Reason.TOO_LATE


def test_a_blacklisted_user_in_whatever_partition(client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    command = AddToBlacklist(
        kind=BlacklistKind.USER, value=ann.user_id, note="stolen card", actor_id="U-op"
    )
    client.send("risk", ann.user_id, command)
    client.flush()
    client.wait(
        lambda: len(client.said(BlacklistApplied, value=ann.user_id)) == PARTITIONS, "known to all"
    )
    assert failed(client, pay(client, ann, bob, 1)) is Reason.BLACKLISTED


def test_an_account_is_closed_only_at_zero(client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    command = CloseAccount(account_id=ann.account_id, actor_id=ann.user_id)
    client.send("account", ann.account_id, command)
    client.flush()
    (refused,) = client.wait(
        lambda: client.said(AccountCommandRefused, account_id=ann.account_id), "a refusal"
    )
    assert refused.reason is Reason.BALANCE_NOT_ZERO
    client.ended(pay(client, ann, bob, 10_000))
    client.wait(
        lambda: (
            client.send("account", ann.account_id, command)
            and client.read(0.3) is None
            and client.said(AccountClosed, account_id=ann.account_id)
        ),
        "the account is closed once the leg is",
    )


def test_asked_twice_is_done_once(client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    command = order("T-" + str(uuid.uuid4()), ann.account_id, bob.account_id, 10,
                    owner=ann.user_id)  # fmt: skip
    for _ in range(5):
        client.send("transaction", command.transaction_id, command, ce_id=b"same")
    client.ended(command.transaction_id)
    debits = client.said(AccountDebited, order__transaction_id=command.transaction_id)
    assert len(debits) == 1


def test_dead_letters_and_what_follows_them(running: Installation, client: Client) -> None:
    for value in (b"", b"not avro", b"\x00\xff\xff\xff\xff", None, b"\x00" * 100_000):
        client.raw("account.inbox", b"A-x", value, {})
    ann = person(client, "ann", 0)
    assert client.said(AccountOpened, account_id=ann.account_id)
    dead = running.client("account.dead")
    try:
        dead.wait(lambda: len(dead.seen) == 5, "five dead letters")
        headers = dict(dead.seen[0].headers())
        assert headers["dead_letter_topic"] == f"{running.prefix}account.inbox".encode()
        back = running.pipeline("redrive", "account.dead")
        assert (back.returncode, back.stdout) == (0, "account.dead: 5 put back\n"), back.stderr
        dead.wait(lambda: len(dead.seen) == 10, "they die again")
        assert dict(dead.seen[-1].headers())["redriven"].startswith(running.prefix.encode())
    finally:
        dead.close()


def test_tables_are_read_at_their_owner(running: Installation, client: Client) -> None:
    ann = person(client, "ann")
    found = {}
    for partition in range(PARTITIONS):
        path = f"/tables/account/{partition}/account/{ann.account_id}"
        status, body = running.get(path)
        found[status] = body
        assert running.get(path, token="wrong")[0] == 401
    assert json.loads(found[200])["balances"] == {"USD": 10_000}
    assert running.get("/tables/account/7/account/x")[0] == 421
    status, body = running.get("/tables/risk/0?prefix=review/&limit=5")
    assert status == 200
    assert all(key.startswith("review/") for key in json.loads(body)["rows"])
    assert running.get("/tables/risk/0?prefix=score/")[0] == 400
    metrics = running.get("/metrics")[1].decode()
    assert "streambank_sagas_total{" in metrics
    imbalances = [line for line in metrics.splitlines() if "imbalance_minor{" in line]
    assert imbalances
    assert all(line.endswith(" 0.0") for line in imbalances)


def test_the_proof_holds_on_the_running_system(running: Installation, client: Client) -> None:
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    for _ in range(200):
        pay(client, ann, bob, 1)
    proven = running.pipeline("verify", "--decide")
    assert proven.returncode == 0, proven.stdout
    assert "all as it should be" in proven.stdout
