"""The projection on a real Kafka and a real MariaDB: the store becomes the fold of the log."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from domain.account import AccountOpened, FreezeAccount
from domain.blacklist import AddToBlacklist, BlacklistKind, RemoveFromBlacklist
from domain.saga import Rail, TransactionType
from tests.agents.memory import open_account, order
from tests.stores.mysql_database import sql
from tests.system.bank import FINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.bank import Client
    from tests.system.conftest import Installation


def until(met: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while not (answer := met()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
    return answer


def url(bank: Installation) -> str:
    return bank.environment["STREAMBANK_MYSQL_URL"]


def count(bank: Installation, table: str, condition: str = "1 = 1") -> int:
    return int(sql(url(bank), f"SELECT COUNT(*) FROM {table} WHERE {condition}")[0][0])


def verified(bank: Installation) -> str:
    done = bank.pipeline("verify")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def accounts(client: Client, number: int) -> list[str]:
    ids = [f"A-{n}" for n in range(number)]
    for account_id in ids:
        client.send("account", account_id, open_account(account_id, f"U-{account_id}", 10**6))
    client.flush()
    client.wait(lambda: len(client.said(AccountOpened)) >= number, "accounts")
    return ids


def transfers(client: Client, ids: list[str], number: int) -> list[str]:
    """Sent, not waited for."""
    sent = [f"T-{uuid.uuid4()}" for _ in range(number)]
    for n, transaction_id in enumerate(sent):
        source, to = ids[n % len(ids)], ids[(n + 1) % len(ids)]
        command = order(transaction_id, source, to, 1 + n % 50, owner=f"U-{source}")
        client.send("transaction", transaction_id, command, actor=f"U-{source}".encode())
    client.flush()
    return sent


def ended(client: Client, sent: list[str]) -> None:
    wanted = {transaction_id.encode() for transaction_id in sent}

    def all_ended() -> bool:
        for message in client.seen:
            headers = dict(message.headers() or ())
            if headers.get("ce_type") in FINAL:
                wanted.discard(headers["ce_subject"])
        client.seen.clear()
        return not wanted

    client.wait(all_ended, f"ends of {len(sent)} transfers", 120)


@pytest.fixture
def client(bank: Callable[[], Installation]) -> Iterator[tuple[Installation, Client]]:
    made = bank()
    client = made.client("account.events", "transaction.events", "risk.events")
    yield made, client
    client.close()


SERVICES = (
    "user",
    "account",
    "transaction",
    "payment",
    "notification",
    "risk",
    "currency",
    "perform",
    "relay",
)


def test_the_store_becomes_the_fold_of_the_log(client: tuple[Installation, Client]) -> None:
    bank, customer = client
    with bank.rail(), bank.worker("all", "projections"):
        ids = accounts(customer, 10)
        customer.send("account", ids[9], FreezeAccount(account_id=ids[9], actor_id="U-op"))
        out = order(
            "T-out", ids[0], None, 700, owner=f"U-{ids[0]}",
            kind=TransactionType.WITHDRAWAL, rail=Rail.EXTERNAL,
        )  # fmt: skip
        customer.send("transaction", "T-out", out)
        for value in ("U-mal", "U-was"):
            listed = AddToBlacklist(
                kind=BlacklistKind.USER, value=value, note="stolen card", actor_id="U-op"
            )
            customer.send("risk", value, listed)
        was = RemoveFromBlacklist(kind=BlacklistKind.USER, value="U-was", actor_id="U-op")
        customer.send("risk", "U-was", was)
        ended(customer, [*transfers(customer, ids, 300), "T-out"])
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == 301, "all ends")
        said = verified(bank)
        assert "mysql    transactions         301 rows, 0 missing, 0 extra, 0 differ" in said
        assert "mysql    blacklist              1 rows, 0 missing, 0 extra, 0 differ" in said
        assert count(bank, "notifications") == 301
        assert count(bank, "payments") == 1
        assert count(bank, "accounts", "status = 'frozen'") == 1

        # what is not as the log says is found, with its key and field
        sql(url(bank), "UPDATE balances SET amount_minor = 7 WHERE account_id = 'A-3'")
        sql(url(bank), "DELETE FROM entries ORDER BY entry_id LIMIT 1")
        done = bank.pipeline("verify")
        assert done.returncode == 1
        assert "DIFFERENT mysql accounts A-3: balances is" in done.stdout
        assert "1 missing" in done.stdout
        _, metrics = bank.get("/metrics")
        assert b'streambank_projection_rows_total{store="mysql",table="transactions"}' in metrics


def test_killed_under_load_it_goes_on(client: tuple[Installation, Client]) -> None:
    bank, customer = client
    with bank.rail(), bank.worker(*SERVICES):
        ids = accounts(customer, 20)
        sent = []
        for _ in range(3):
            sent += transfers(customer, ids, 1_000)
            start = count(bank, "audit_trail")
            with bank.beside("project-mysql", ready=False) as projector:
                until(lambda s=start: count(bank, "audit_trail") > s, "something written")
                projector.kill()
        ended(customer, sent)
        with bank.beside("project-mysql"):
            until(
                lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == len(sent), "ends"
            )
            verified(bank)


def test_a_position_put_back_changes_nothing(client: tuple[Installation, Client]) -> None:
    bank, customer = client
    with bank.rail(), bank.worker("all", "projections"):
        ids = accounts(customer, 5)
        ended(customer, transfers(customer, ids, 100))
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == 100, "ends")
        far = dict(sql(url(bank), "SELECT CONCAT(topic, number), following FROM positions"))
        sql(url(bank), "UPDATE positions SET following = following DIV 2")
        ended(customer, transfers(customer, ids, 100))
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == 200, "ends")

        def read_again() -> bool:
            now = dict(sql(url(bank), "SELECT CONCAT(topic, number), following FROM positions"))
            return all(now[at] >= offset for at, offset in far.items() if "transaction" in at)

        until(read_again, "read again")
        verified(bank)


def test_a_schema_that_is_not_this_program_s(bank: Callable[[], Installation]) -> None:
    made = bank()
    sql(url(made), "UPDATE migrations SET number = 99 ORDER BY number DESC LIMIT 1")
    refused = made.pipeline("worker", "project-mysql")
    assert refused.returncode == 1
    assert "the MySQL database is at 99" in refused.stderr
    assert made.pipeline("stores", "migrate").returncode == 1
    sql(url(made), "DROP TABLE migrations")
    refused = made.pipeline("worker", "project-mysql")
    assert refused.returncode == 1
    assert "run `pipeline.py stores migrate`" in refused.stderr
    missing = made.pipeline("worker", "project-mysql", STREAMBANK_MYSQL_URL="")
    assert "set STREAMBANK_MYSQL_URL" in missing.stderr


def test_a_topic_made_anew_is_told(bank: Callable[[], Installation]) -> None:
    made = bank()
    sql(url(made), "INSERT INTO positions VALUES ('account.events', 0, 1000000)")
    refused = made.pipeline("worker", "project-mysql")
    assert refused.returncode == 1
    assert "stands at offset 1000000 of account.events-0, which holds 0 to 0" in refused.stderr


def test_a_record_that_cannot_be_read_stops_its_partition(
    client: tuple[Installation, Client],
) -> None:
    bank, customer = client
    customer.raw("user.events", b"x", b"no avro", {"ce_id": b"x"}, partition=1)
    customer.flush()
    with bank.rail(), bank.worker(*SERVICES), bank.beside("project-mysql", ready=False):
        accounts(customer, 10)
        until(lambda: count(bank, "accounts") == 10, "the others are written")
        until(
            lambda: b"is stopped: the record at 0" in bank.get("/readiness", beside=True)[1],
            "not ready",
        )
        assert ("user.events", 1) not in {
            row[:2] for row in sql(url(bank), "SELECT * FROM positions")
        }


def test_a_record_that_does_not_fit_stops_its_partition(
    client: tuple[Installation, Client],
) -> None:
    bank, customer = client
    with bank.rail(), bank.worker(*SERVICES), bank.beside("project-mysql"):
        sql(url(bank), "ALTER TABLE accounts MODIFY COLUMN name VARCHAR(8) NOT NULL")
        named = replace(open_account("A-x", "U-x"), name="every other day")
        customer.send("account", "A-x", named)
        accounts(customer, 10)
        until(lambda: b"does not fit mysql" in bank.get("/readiness", beside=True)[1], "not ready")
        until(lambda: count(bank, "audit_trail", "type = 'AccountOpened'") == 11, "all others")
        assert 0 < count(bank, "accounts") < 10  # those of the other partitions


def test_no_id_is_too_long(client: tuple[Installation, Client]) -> None:
    bank, customer = client
    with bank.rail(), bank.worker("all", "projections"):
        ids = accounts(customer, 3)
        long_id, long_user = "A-" + "x" * 1_000, "U-" + "y" * 1_000
        customer.send("account", long_id, open_account(long_id, long_user, 5_000))
        paid = order("T-" + "z" * 1_000, long_id, ids[0], 700, owner=long_user)
        customer.send("transaction", paid.transaction_id, paid, actor=long_user.encode())
        ended(customer, [paid.transaction_id])
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == 1, "its end")
        until(lambda: count(bank, "notifications") == 1, "what its owner is told")
        said = verified(bank)
        assert "mysql    accounts               4 rows, 0 missing, 0 extra, 0 differ" in said
