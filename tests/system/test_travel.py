"""replay, timeline and query as a person runs them, on a bank that has lived."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from agents.envelope import rfc3339
from domain.saga import AccountDebited, TransactionCompleted, TransactionType
from domain.user import AccountListed, RegisterUser, UserRegistered
from streaming import partition_of
from tests.agents.memory import PARTITIONS
from tests.system.bank import Client
from tests.system.conftest import Installation
from tests.system.test_command_line import refused
from tests.system.test_saga import Person, pay, person

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "$2b$12$a-hash-that-nobody-may-see"


@dataclass(frozen=True)
class Lived:
    """A bank in which Ann, who has 10,000, sent 700 to Bob, took 50 out, and asked for too much."""

    bank: Installation
    client: Client
    ann: Person
    bob: Person
    sent: str
    debited_ms: int
    withdrawn: str
    refused: str
    eve: str


@pytest.fixture(scope="module")
def lived(running: Installation) -> Iterator[Lived]:
    client = running.client(
        "account.events", "transaction.events", "user.events", "payment.events", "risk.events"
    )
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    sent = pay(client, ann, bob, 700)
    (end,) = client.ended(sent)
    assert isinstance(end, TransactionCompleted)
    (debited,) = client.said(AccountDebited, order__transaction_id=sent)
    withdrawn = pay(client, ann, None, 50, kind=TransactionType.WITHDRAWAL)
    too_much = pay(client, ann, bob, 10**9)
    client.ended(withdrawn, too_much)
    eve = f"U-eve-{uuid.uuid4().hex[:6]}"
    user = RegisterUser(
        user_id=eve,
        address=f"{eve}@bank.example",
        email=f"{eve}@bank.example",
        name="Eve",
        password_hash=SECRET,
        roles=(),
        actor_id=eve,
        request_hash="h",
    )
    client.send("user", user.address, user)
    client.flush()
    client.wait(lambda: client.said(UserRegistered, user_id=eve), "Eve")
    client.wait(lambda: client.said(AccountListed, account_id=bob.account_id), "Bob's list")
    yield Lived(running, client, ann, bob, sent, debited.at_ms, withdrawn, too_much, eve)
    client.close()


def time_of(at_ms: int) -> str:
    return rfc3339(at_ms).decode()


@pytest.mark.parametrize(
    "service", ["user", "account", "transaction", "payment", "notification", "risk", "currency"]
)
def test_a_replay_rebuilds_the_tables(lived: Lived, service: str) -> None:
    done = lived.bank.pipeline("replay", service)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "equal to the kept table" in done.stdout
    assert "events/s" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def balance_then(lived: Lived, *to: str) -> Any:
    key = f"account/{lived.ann.account_id}"
    done = lived.bank.pipeline("replay", "account", "--key", key, *to)
    if done.returncode:
        assert "no such row" in done.stderr, done.stderr
        return None
    return json.loads(done.stdout)["balances"]["USD"]


def test_one_row_at_times(lived: Lived) -> None:
    opened_ms = json.loads(
        lived.bank.pipeline("replay", "account", "--key", f"account/{lived.ann.account_id}").stdout
    )["created_ms"]
    assert balance_then(lived, "--to", time_of(opened_ms - 1)) is None
    assert balance_then(lived, "--to", time_of(opened_ms)) == 0
    assert balance_then(lived, "--to", time_of(lived.debited_ms - 1)) == 10_000
    assert balance_then(lived, "--to", time_of(lived.debited_ms)) == 9_300
    assert balance_then(lived, "--to", "2999-01-01T00:00:00Z") == 9_250
    assert balance_then(lived) == 9_250


def test_offsets(lived: Lived) -> None:
    nothing = ",".join(f"{partition}:0" for partition in range(PARTITIONS))
    done = lived.bank.pipeline("replay", "account", "--to", nothing)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 events")
    home = partition_of(lived.ann.account_id.encode(), PARTITIONS)
    elsewhere = (home + 1) % PARTITIONS
    assert balance_then(lived, "--to", f"{home}:0") is None
    assert balance_then(lived, "--to", f"{elsewhere}:0") == 9_250
    refused(lived.bank.pipeline("replay", "account", "--to", "7:0"), "partitions 0 to 2")
    refused(lived.bank.pipeline("replay", "account", "--to", f"0:{10**9}"), "ends at")


def test_what_replay_does_not_take(lived: Lived) -> None:
    refused(lived.bank.pipeline("replay", "acount"), "acount", "account")
    refused(lived.bank.pipeline("replay", "account", "--to", "yesterday"), "RFC 3339", "0:120")
    for key in (f"credentials/{lived.eve}", f"address/{lived.eve}@bank.example"):
        done = lived.bank.pipeline("replay", "user", "--key", key)
        refused(done, "private")
        assert SECRET not in done.stdout


def test_a_transactions_timeline(lived: Lived) -> None:
    done = lived.bank.pipeline("timeline", lived.sent)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    said = ["CreateTransaction", "TransactionCreated", "RiskApproved", "AccountDebited",
            "AccountCredited", "TransactionCompleted", "NotificationRequested"]  # fmt: skip
    places = [done.stdout.find(f"> {one}") for one in said[1:]]
    assert -1 not in places
    assert places == sorted(places)
    assert f"* account/{lived.ann.account_id}  balances.USD: 10000 -> 9300" in done.stdout
    assert f"* account/{lived.bob.account_id}  balances.USD: 0 -> 700" in done.stdout
    assert "status: pending -> completed" in done.stdout
    assert said[0] in done.stdout
    assert lived.withdrawn not in done.stdout


def test_a_timeline_for_machines(lived: Lived) -> None:
    done = lived.bank.pipeline("timeline", lived.withdrawn, "--json")
    story = json.loads(done.stdout)
    assert [one["at"] for one in story] == sorted(one["at"] for one in story)
    assert {one["service"] for one in story} == {
        "transaction", "risk", "account", "payment", "notification",
    }  # fmt: skip
    (payment,) = (one for one in story if one["input"]["type"] == "RailAnswered")
    assert payment["input"]["source"] == "perform"
    assert [event["type"] for event in payment["events"]] == ["PaymentProcessed"]
    assert payment["rows"][f"payment/{lived.withdrawn}"]["status"] == "processed"


def test_timelines_of_accounts_and_users(lived: Lived) -> None:
    account = lived.bank.pipeline("timeline", lived.bob.account_id)
    assert "> AccountOpened" in account.stdout
    assert "> AccountCredited" in account.stdout
    user = lived.bank.pipeline("timeline", lived.eve, "--json")
    assert "UserRegistered" in user.stdout
    assert SECRET not in user.stdout
    assert "CredentialsSet" not in user.stdout
    refused(lived.bank.pipeline("timeline", "nobody"), "nobody")
