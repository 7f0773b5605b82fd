"""Tables built anew from the logs while they are written and asked."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from stores.catalog import KINDS, NAMES
from stores.mysql_schema import foreign_keys
from tests.forked import PIPELINE, Forked
from tests.stores.mysql_database import opened, sql
from tests.stores.test_project import accounts, count, ended, transfers, until, url, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.bank import Client
    from tests.system.conftest import Installation

TRANSACTIONS = next(kind for kind in KINDS if kind.name == "transactions")


@pytest.fixture
def client(bank: Callable[[], Installation]) -> Iterator[tuple[Installation, Client]]:
    made = bank()
    client = made.client("account.events", "transaction.events")
    yield made, client
    client.close()


class Asking:
    """Asks for the same transactions all the time; each answer must be the one they ended with."""

    def __init__(self, url: str, keys: list[str]) -> None:
        self.url, self.keys = url, keys
        self.answers, self.wrong = 0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()))

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _ask(self) -> None:
        async with opened(self.url) as store:
            first = await store.documents(TRANSACTIONS, self.keys)
            assert len(first) == len(self.keys)
            while not self._stop.is_set():
                self.answers += 1
                self.wrong += await store.documents(TRANSACTIONS, self.keys) != first


def test_all_tables_anew_under_load(client: tuple[Installation, Client]) -> None:
    bank, customer = client
    with bank.rail(), bank.worker("all", "projections"):
        ids = accounts(customer, 20)
        old = transfers(customer, ids, 500)
        ended(customer, old)
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == 500, "ends")
        sql(url(bank), "UPDATE balances SET amount_minor = 7")  # what a new table mends
        sql(url(bank), "DELETE FROM audit_trail ORDER BY event_id LIMIT 10")
        with Asking(url(bank), old[:50]) as asking:
            more = transfers(customer, ids, 1_500)
            done = bank.pipeline("projections", "rebuild", "mysql")
            assert done.returncode == 0, done.stderr
            more += transfers(customer, ids, 200)
            ended(customer, more)
        assert asking.answers > 20
        assert not asking.wrong
        for name in NAMES:
            assert f"{name}: built anew" in done.stdout
        total = len(old) + len(more)
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == total, "all ends")
        verified(bank)
    declared = sql(
        url(bank),
        "SELECT constraint_name, table_name, referenced_table_name"
        " FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE()",
    )
    assert set(declared) == {(k.name, k.table, k.target) for k in foreign_keys()}
    left = sql(url(bank), "SHOW TABLES LIKE '%\\_\\_%'")
    assert left == []


def test_cut_off_it_leaves_the_table_as_it_was(client: tuple[Installation, Client]) -> None:
    bank, customer = client
    with bank.rail(), bank.worker("all", "projections"):
        ids = accounts(customer, 10)
        sent = transfers(customer, ids, 500)
        ended(customer, sent)
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == 500, "ends")
        for wait_s in (0.3, 1.0):
            asked, log = ("projections", "rebuild", "mysql"), bank.directory / "rebuild.log"
            rebuild = Forked(PIPELINE, asked, bank.environment, log)
            time.sleep(wait_s)
            rebuild.kill()
            rebuild.wait()
        verified(bank)
        assert bank.pipeline("projections", "rebuild", "mysql", "accounts").returncode == 0
        verified(bank)
        status = bank.pipeline("projections", "status").stdout.splitlines()
        assert any(line.startswith("mysql    account.events-0 ") for line in status)
        assert [line for line in status if not line.endswith(", 0 behind")] == []
