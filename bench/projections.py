"""How fast a projection fills MySQL, and what limits it: `python -m bench.projections [--transfers N]`.

    log        the records that N book transfers leave in a changelog and two event topics
    projection the whole way: Kafka, decoding, transactions with their positions
    decoding   the same records to batches alone: what the projector's CPU must do at least
    floor      the same rows by a bare executemany of new rows: what MySQL must do at least

A row is a document, an event or an entry. Rates are of the wall clock, CPU is of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomysql
import psutil
import uvloop
from confluent_kafka import Producer

from agents.project import Project, batch_of
from agents.wiring import Wiring
from bench.codec import sample
from deploy.local.kafka import Kafka
from deploy.local.mariadb import MariaDB
from domain.account import Account
from domain.account import Status as AccountStatus
from domain.saga import AccountCredited, TransactionCompleted, TransactionCreated
from domain.transaction import Status, Transaction
from proof.reader import Reader
from proof.rebuild import Told
from schemas.codec import Codec
from stores.catalog import ENTRIES, EVENTS, KINDS, TOPICS
from stores.mysql import MySQL, _entries, _said
from stores.mysql_pool import options
from stores.mysql_tables import BALANCES, TABLES, balance_rows
from topics.apply import apply
from topics.catalog import Installation

if TYPE_CHECKING:
    from stores.catalog import Batch

ACCOUNTS = 2_000
PARTITIONS = 3
CHUNK = 3_000  # records of a batch, as the projection takes them
WRITERS = 8


def fill(bootstrap: str, transfers: int) -> None:
    """Five rows and three events a transfer: its own row twice, both accounts, what was said."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "acks": "1"})
    codec, first = Codec(), sample()
    for n in range(transfers):
        transaction_id = str(uuid.uuid4())
        sides = (f"account-{n % ACCOUNTS}", f"account-{(n * 7 + 1) % ACCOUNTS}")
        order = dataclasses.replace(
            first.order,
            transaction_id=transaction_id,
            source_account_id=sides[0],
            destination_account_id=sides[1],
        )
        rows(producer, codec, order, first, n)
        said = (
            ("transaction", TransactionCreated(
                order=order, description="rent", reference=f"R{n}", metadata={}, request_hash="h",
                at_ms=first.at_ms, steps=first.steps[:1])),
            ("account", dataclasses.replace(first, order=order)),
            ("account", AccountCredited(
                order=order, postings=first.postings, balances=first.balances, at_ms=first.at_ms,
                steps=first.steps)),
            ("transaction", TransactionCompleted(
                order=order, request_hash="h", balances=first.balances, at_ms=first.at_ms,
                steps=first.steps)),
        )  # fmt: skip
        for number, (service, event) in enumerate(said):
            subject = transaction_id if service == "transaction" else sides[0]
            headers = [
                ("ce_id", f"{service}.inbox-0-{n}-{number}".encode()),
                ("ce_subject", subject.encode()),
                ("correlation_id", transaction_id.encode()),
                ("causation_id", transaction_id.encode()),
                ("actor", order.actor_id.encode()),
                ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ]
            say(producer, f"{service}.events", subject, codec.encode(event), n, headers)
        producer.poll(0)
    producer.flush()


def rows(producer: Producer, codec: Codec, order: Any, first: Any, n: int) -> None:
    row = Transaction(
        order=order, description="rent", reference=f"R{n}", metadata={"month": "may"},
        request_hash="h", status=Status.COMPLETED, reason=None, review_id=None,
        balances=first.balances, steps=first.steps, version=2, created_ms=first.at_ms,
        updated_ms=first.at_ms, completed_ms=first.at_ms,
    )  # fmt: skip
    key = f"transaction/{order.transaction_id}"
    say(producer, "transaction-table-changelog", key, codec.encode(row), n)
    for number, account_id in enumerate((order.source_account_id, order.destination_account_id)):
        account = Account(
            account_id=account_id, user_id=order.owner_id, name="everyday",
            status=AccountStatus.OPEN, balances={"USD": n}, overdraft_limits={"USD": 0},
            open_legs=0, request_hash="h", version=2 * n + number, created_ms=1,
            updated_ms=first.at_ms,
        )  # fmt: skip
        place = int(account_id.rpartition("-")[2])
        key = f"account/{account_id}"
        say(producer, "account-table-changelog", key, codec.encode(account), place)


def say(
    producer: Producer, topic: str, key: str, value: bytes, partition: int, headers: Any = None
) -> None:
    while True:
        try:
            producer.produce(topic, value, key.encode(), partition % PARTITIONS, headers=headers)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def batches(bootstrap: str) -> tuple[list[Batch], float]:
    """All that the log says, as the projection cuts it; the CPU seconds of the cutting."""
    reader, codec = Reader({"bootstrap.servers": bootstrap}), Codec()
    found, cpu_s = [], 0.0
    for topic in TOPICS:
        for partition in range(PARTITIONS):
            records = [Told(record) for record in reader.records(topic, partition)]
            started_s = time.process_time()
            for start in range(0, len(records), CHUNK):
                found.append(batch_of(codec, (topic, partition), records[start : start + CHUNK])[0])
            cpu_s += time.process_time() - started_s
    reader.close()
    return found, cpu_s


def statements(batch: Batch) -> list[tuple[str, list[Any]]]:
    """The rows of a batch as plain inserts."""
    told: list[tuple[str, list[Any]]] = []
    for kind in KINDS:
        changes = sorted(batch.of(kind), key=lambda change: change.key)
        table = TABLES[kind.name]
        values = [table.values(c.key, c.document or {}, 1) for c in changes]
        told.append((insert(table.name, table.names), values))
        if kind.name == "accounts":
            balances = [row for c in changes for row in balance_rows(c.document or {}, 1)]
            told.append((insert("balances", BALANCES), balances))
    for name, made in ((EVENTS, _said(batch)), (ENTRIES, _entries(batch))):
        table = TABLES[name]
        told.append(
            (insert(table.name, table.names), [table.values(key, doc, 0) for key, doc in made])
        )
    return [(sql, values) for sql, values in told if values]


def insert(table: str, columns: Any) -> str:
    places = ", ".join(["%s"] * len(columns))
    same = ", ".join(f"{column}=VALUES({column})" for column in columns)
    again = f" ON DUPLICATE KEY UPDATE {same}" if table in ("accounts", "balances") else ""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}){again}"


async def floor(url: str, told: list[list[tuple[str, list[Any]]]]) -> None:
    pool = await aiomysql.create_pool(WRITERS, WRITERS, **options(url))
    waiting = iter(told)

    async def write() -> None:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            for batch in waiting:
                await connection.begin()
                for sql, values in batch:
                    await cursor.executemany(sql, values)
                await connection.commit()

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    pool.terminate()
    await pool.wait_closed()


async def project(bootstrap: str, url: str) -> None:
    """Until it has caught up; joining the group counts too."""
    store = MySQL(url)
    run = Project(Wiring(kafka={"bootstrap.servers": bootstrap}), Codec(), store)
    running = asyncio.create_task(run.run())
    while not running.done() and not (  # noqa: ASYNC110 - nothing tells
        run.ready and all(map(at_its_end, run._progress.values()))
    ):
        await asyncio.sleep(0.02)
    run.stop()
    await running
    await store.close()


def at_its_end(progress: Any) -> bool:
    return bool(progress.written >= progress.read and progress.end >= 0)


async def migrated(server: MariaDB, name: str) -> str:
    url = server.url.rpartition("/")[0] + f"/{name}"
    connection = await aiomysql.connect(**{**options(server.url), "db": None})
    async with connection.cursor() as cursor:
        await cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    connection.close()
    store = MySQL(url)
    await store.migrate()
    await store.close()
    return url


def measured(name: str, server: MariaDB, count: int, work: Any) -> None:
    process = psutil.Process(server.pid)
    theirs, ours, started_s = process.cpu_times(), time.process_time(), time.monotonic()
    uvloop.run(work)
    wall_s, cpu_s = time.monotonic() - started_s, time.process_time() - ours
    now = process.cpu_times()
    server_s = now.user + now.system - theirs.user - theirs.system
    print(
        f"{name:<11} {count / wall_s:>9,.0f} rows/s   {cpu_s / count * 1e6:>6.1f} µs own CPU a row"
        f"   {server_s / count * 1e6:>6.1f} µs of MariaDB's",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transfers", type=int, default=10_000)
    transfers = parser.parse_args().transfers
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with Kafka(directory / "kafka") as kafka, MariaDB(directory / "mariadb") as server:
            apply({"bootstrap.servers": kafka.bootstrap}, Installation(partitions=PARTITIONS))
            fill(kafka.bootstrap, transfers)
            cut, decoding_s = batches(kafka.bootstrap)
            told = [statements(batch) for batch in cut]
            count = sum(len(b.changes) + len(b.events) + len(b.entries) for b in cut)
            print(f"{count:,} rows of {transfers:,} transfers")
            live = uvloop.run(migrated(server, "streambank_live"))
            bare = uvloop.run(migrated(server, "streambank_bare"))
            measured("projection", server, count, project(kafka.bootstrap, live))
            measured("floor", server, count, floor(bare, told))
            print(f"decoding    {'':>9}          {decoding_s / count * 1e6:>6.1f} µs own CPU a row")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
