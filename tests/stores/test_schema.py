"""The schema: its document, its migrations, taken once however many start them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stores.catalog import KINDS, NAMES, _once
from stores.mysql_schema import foreign_keys, steps, widths
from stores.mysql_tables import TABLES
from stores.schema import document, tables
from tests.stores.mysql_database import fresh, new_database, sql
from tests.stores.test_mysql import url_of
from tests.system.conftest import ROOT

if TYPE_CHECKING:
    from deploy.local.mariadb import MariaDB

MIGRATE = [sys.executable, "-c", """
import asyncio, sys
from stores.mysql import MySQL
async def main():
    store = MySQL(sys.argv[1])
    print(await store.migrate())
    await store.close()
asyncio.run(main())
"""]  # fmt: skip


def test_the_document_is_current() -> None:
    assert Path(ROOT / "docs" / "schema.md").read_text() == document(), (
        "run `python -m stores.schema > docs/schema.md`"
    )


def test_what_the_stores_hold_is_told() -> None:
    """Each kind of document once in the table of docs/stores.md, with what is newer."""
    text = Path(ROOT / "docs" / "stores.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    told = {
        name: newer.strip()
        for names, _, _, newer in (row for row in rows if len(row) == 4)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert told.keys() == set(NAMES)
    for kind in KINDS:
        said = "–" if kind.version is _once else "a higher `version`"
        said = "further on in the changelog" if kind.removed else said
        assert told[kind.name].startswith(said), kind.name


def test_several_migrate_at_once(mariadb: MariaDB) -> None:
    url = new_database(mariadb)
    running = [
        subprocess.Popen([*MIGRATE, url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in running]
    assert said == [str(len(steps()))] * 3
    numbers = [step.number for step in steps()]
    assert [row[0] for row in sql(url, "SELECT number FROM migrations")] == numbers


async def test_a_step_that_was_cut_off_is_taken_again(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        sql(url_of(store), "DROP TABLE audit_trail")
        sql(url_of(store), "DELETE FROM migrations")
        assert await store.migrate() == len(steps())
        await store.check()
        assert sql(url_of(store), "SELECT * FROM audit_trail") == []


async def test_the_tables_are_as_documented(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as store:
        for table in tables():
            columns = [row[0] for row in sql(url_of(store), f"SHOW COLUMNS FROM {table.name}")]
            assert columns == [column.name for column in table.columns]
        for table in TABLES.values():
            columns = [row[0] for row in sql(url_of(store), f"SHOW COLUMNS FROM {table.name}")]
            assert set(table.names) <= set(columns)
            limited = sql(
                url_of(store),
                "SELECT column_name, character_maximum_length FROM information_schema.columns"
                " WHERE table_schema = DATABASE() AND table_name = %s"
                " AND data_type IN ('char', 'varchar')",
                table.name,
            )
            assert dict(limited) == widths()[table.name]
        declared = sql(
            url_of(store),
            "SELECT COUNT(*) FROM information_schema.referential_constraints"
            " WHERE constraint_schema = DATABASE()",
        )
        assert declared == [(len(foreign_keys()),)]
