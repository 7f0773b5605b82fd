"""Servers of stores killed and frozen under load, and both stores filled side by side."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from deploy.local.mariadb import MariaDB
from deploy.local.mongo import Mongo
from stores.mongo_lists import MIGRATIONS
from tests.stores.mysql_database import sql
from tests.stores.test_mongo import url_of as mongo_url
from tests.stores.test_project import accounts, count, ended, transfers, until, url, verified
from tests.system.conftest import Installation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deploy.local.kafka import Kafka


def test_a_store_that_is_killed_and_frozen_holds_back_itself_alone(
    kafka: Kafka, store: Callable[..., MariaDB], tmp_path: Path
) -> None:
    server = store(MariaDB)
    bank = Installation(kafka.bootstrap, tmp_path)
    bank.environment["STREAMBANK_MYSQL_URL"] = server.url
    for command in (("topics", "apply"), ("stores", "migrate")):
        assert bank.pipeline(*command).returncode == 0
    customer = bank.client("account.events", "transaction.events")
    with bank.rail(), bank.worker("all", "projections"):
        ids = accounts(customer, 20)
        sent = transfers(customer, ids, 1_000)
        until(lambda: count(bank, "transactions"), "something written")
        server.kill()
        sent += transfers(customer, ids, 500)
        ended(customer, sent)  # the bank does not wait for a store
        server.start()
        server.freeze()
        time.sleep(1)
        server.thaw()
        until(lambda: count(bank, "transactions", "completed_ms IS NOT NULL") == len(sent), "ends")
        verified(bank)
    customer.close()


def test_a_mongodb_that_is_killed_under_load_is_filled_on(
    kafka: Kafka, store: Callable[..., Mongo], tmp_path: Path
) -> None:
    """The stand-in; what a real MongoDB acknowledged is on disk on most of its servers."""
    server = store(Mongo)
    bank = Installation(kafka.bootstrap, tmp_path)
    bank.environment["STREAMBANK_MONGODB_URL"] = mongo_url(server, "killed")
    for command in (("topics", "apply"), ("stores", "migrate")):
        assert bank.pipeline(*command).returncode == 0
    customer = bank.client("account.events", "transaction.events")
    with bank.rail(), bank.worker("all", "projections"):
        ids = accounts(customer, 10)
        sent = []
        for _ in range(2):
            sent += transfers(customer, ids, 60)
            time.sleep(1)  # it is writing, or is about to
            server.kill()
            time.sleep(0.5)
            server.start()
        ended(customer, sent)  # the bank does not wait for a store
        until(
            lambda: bank.pipeline("verify").returncode == 0, "the store is what the log says", 150
        )
        assert "mongodb  transactions         120 rows, 0 missing" in verified(bank)
    customer.close()


def test_a_store_that_is_not_this_program_s_holds_back_itself_alone(
    bank: Callable[[], Installation], mongo: Mongo
) -> None:
    both = bank()
    name = f"d{uuid.uuid4().hex[:8]}"
    both.environment["STREAMBANK_MONGODB_URL"] = mongo_url(mongo, name)
    assert both.pipeline("stores", "migrate").returncode == 0
    with MongoClient[Any](mongo_url(mongo, name)) as client:
        client[name]["migrations"].update_one({"_id": "number"}, {"$set": {"number": 99}})
    customer = both.client("account.events")
    with both.rail(), both.worker("all"), both.beside("projections", ready=False) as projections:
        accounts(customer, 10)
        until(lambda: count(both, "accounts") == 10, "the other store is filled")
        until(
            lambda: b"the MongoDB database is at 99" in both.get("/readiness", beside=True)[1],
            "not ready, and why",
        )
        assert projections.poll() is None
    customer.close()
    sql(url(both), "UPDATE migrations SET number = 99 ORDER BY number DESC LIMIT 1")
    refused = both.pipeline("worker", "projections")
    assert refused.returncode == 1
    assert "database is at 99" in refused.stderr


def test_both_stores_hold_the_same_and_each_is_built_anew(
    bank: Callable[[], Installation], mongo: Mongo
) -> None:
    both = bank()
    both.environment["STREAMBANK_MONGODB_URL"] = mongo_url(mongo, f"d{uuid.uuid4().hex[:8]}")
    refused = both.pipeline("worker", "project-mongodb")
    assert "run `pipeline.py stores migrate`" in refused.stderr
    migrated = both.pipeline("stores", "migrate").stdout.splitlines()
    assert f"mongodb is at {len(MIGRATIONS)}" in migrated
    customer = both.client("account.events", "transaction.events")
    with both.rail(), both.worker("all", "projections"):
        ids = accounts(customer, 6)
        ended(customer, transfers(customer, ids, 100))
        until(lambda: count(both, "transactions", "completed_ms IS NOT NULL") == 100, "ends")
        for name in ("mysql   ", "mongodb "):
            assert f"{name} transactions         100 rows, 0 missing, 0 extra, 0 differ" in (
                verified(both)
            )
        rebuilt = both.pipeline("projections", "rebuild", "mongodb", "accounts")
        assert rebuilt.returncode == 0, rebuilt.stderr
        assert "mongodb  account.events-0" in both.pipeline("projections", "status").stdout
        verified(both)
    customer.close()
