"""The schema of the MySQL database: numbered steps in `stores/migrations/`, each taken once.

    0001_documents.sql  -->  migrations(number, name, applied_ms)

Several programs may start at once: one takes the steps, under a lock of the database, the others
wait and find them taken. A step's statements can be told twice, for MySQL can't take one back.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql.err

from stores.catalog import OtherSchema, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DIRECTORY = Path(__file__).parent / "migrations"
WAIT_S = 600  # for another program's steps
NO_SUCH_TABLE = 1146
IS_THERE = frozenset({1060, 1061})  # a column or an index that a step that was cut off added
STATE = (
    "CREATE TABLE IF NOT EXISTS migrations (number INT NOT NULL PRIMARY KEY,"
    " name VARCHAR(191) NOT NULL, applied_ms BIGINT NOT NULL)"
    " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"
)
EXACT = "utf8mb4_0900_bin"  # MySQL's collation that tells all texts apart, blanks at the end too
EXACT_MARIADB = "utf8mb4_nopad_bin"
CREATED = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
ALTERED = re.compile(r"ALTER TABLE (\w+) (?:ADD|MODIFY) COLUMN (\w+) (?:(?:VAR)?CHAR\((\d+)\))?")


@dataclass(frozen=True, slots=True)
class Step:
    number: int
    name: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`table.column` refers to `target.key`."""

    name: str
    table: str
    column: str
    target: str
    key: str

    def declared(self) -> str:
        return (
            f"ADD CONSTRAINT {self.name} FOREIGN KEY ({self.column}) "
            f"REFERENCES {self.target} ({self.key})"
        )


@cache
def steps() -> tuple[Step, ...]:
    """All that this program knows, in their order."""
    found = [_step(path) for path in sorted(DIRECTORY.glob("*.sql"))]
    assert [step.number for step in found] == list(range(1, len(found) + 1)), "a step is missing"
    return tuple(found)


def _step(path: Path) -> Step:
    number, _, name = path.stem.partition("_")
    text = re.sub(r"--.*$", "", path.read_text(), flags=re.MULTILINE)
    statements = (part.strip() for part in text.split(";"))
    return Step(int(number), name, tuple(part for part in statements if part))


@cache
def widths() -> Mapping[str, Mapping[str, int]]:
    """How many characters the columns of each table take, of those that have a limit."""
    found: dict[str, dict[str, int]] = {}
    for statement in (statement for step in steps() for statement in step.statements):
        if table := CREATED.match(statement):
            limited = re.findall(r"^\s+(\w+) (?:VAR)?CHAR\((\d+)\)", statement, re.MULTILINE)
            found[table[1]] = {column: int(width) for column, width in limited}
        elif change := ALTERED.match(statement):
            found[change[1]].pop(change[2], None)
            if change[3]:
                found[change[1]][change[2]] = int(change[3])
    return found


@cache
def foreign_keys() -> tuple[ForeignKey, ...]:
    """What the steps declare."""
    declared = re.compile(
        r"CONSTRAINT (\w+) FOREIGN KEY \((\w+)\)\s+REFERENCES (\w+) \((\w+)\)", re.DOTALL
    )
    found = []
    for step in steps():
        for statement in step.statements:
            table = CREATED.match(statement)
            if table:
                found += [
                    ForeignKey(name, table[1], column, target, key)
                    for name, column, target, key in declared.findall(statement)
                ]
    return tuple(found)


async def migrate(connection: Any, database: str) -> int:
    """Take the steps that are missing; answers the number reached. Raises OtherSchema."""
    async with connection.cursor() as cursor, Lock(cursor, f"{database[:50]}.migrate"):
        await cursor.execute(STATE)
        number = await reached(cursor)
        if number > len(steps()):
            raise OtherSchema(_newer(number))
        await cursor.execute("SELECT VERSION()")
        exact = EXACT_MARIADB if "MariaDB" in (await cursor.fetchone())[0] else EXACT
        for step in steps()[number:]:
            for statement in step.statements:
                await _take(cursor, statement.replace(EXACT, exact))
            await cursor.execute(
                "INSERT INTO migrations (number, name, applied_ms) VALUES (%s, %s, %s)",
                (step.number, step.name, int(time.time() * 1000)),
            )
    return len(steps())


async def _take(cursor: Any, statement: str) -> None:
    try:
        await cursor.execute(statement)
    except pymysql.err.OperationalError as exc:
        if exc.args[0] not in IS_THERE:
            raise


async def check(cursor: Any) -> None:
    """Raises OtherSchema unless the database is as this program expects it."""
    number = await reached(cursor)
    if number < len(steps()):
        raise OtherSchema(
            f"the MySQL database is at {number}, this program needs {len(steps())}: "
            "run `pipeline.py stores migrate`"
        )
    if number > len(steps()):
        raise OtherSchema(_newer(number))


def _newer(number: int) -> str:
    return (
        f"the MySQL database is at {number}, this program knows {len(steps())}: "
        "start the newer program"
    )


async def reached(cursor: Any) -> int:
    """The number of the last step that was taken; 0: none."""
    await cursor.execute(
        "SELECT COUNT(*) FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_name = 'migrations'"
    )
    if not (await cursor.fetchone())[0]:
        return 0
    await cursor.execute("SELECT COALESCE(MAX(number), 0) FROM migrations")
    return int((await cursor.fetchone())[0])


async def declare(cursor: Any) -> None:
    """Declare the foreign keys again that an exchange of tables dropped or led astray."""
    await cursor.execute(
        "SELECT constraint_name, table_name, column_name, referenced_table_name,"
        " referenced_column_name FROM information_schema.key_column_usage"
        " WHERE table_schema = DATABASE() AND referenced_table_name IS NOT NULL"
    )
    there = {ForeignKey(*row) for row in await cursor.fetchall()}
    wanted = set(foreign_keys())
    for table in sorted({key.table for key in there ^ wanted}):
        dropped = [f"DROP FOREIGN KEY {k.name}" for k in _sorted(there - wanted, table)]
        added = [key.declared() for key in _sorted(wanted - there, table)]
        for change in (*dropped, *added):
            await cursor.execute(f"ALTER TABLE {table} {change}")


def _sorted(keys: set[ForeignKey], table: str) -> Iterator[ForeignKey]:
    return iter(sorted((k for k in keys if k.table == table), key=lambda key: key.name))


class Lock:
    """A lock of the server under a name, let go with the connection at the latest."""

    def __init__(self, cursor: Any, name: str, wait_s: int = WAIT_S) -> None:
        self.cursor, self.name, self.wait_s = cursor, name, wait_s

    async def __aenter__(self) -> None:
        await self.cursor.execute("SELECT GET_LOCK(%s, %s)", (self.name, self.wait_s))
        if (await self.cursor.fetchone())[0] != 1:
            raise Unavailable(f"another program holds the lock {self.name} of MySQL")

    async def __aexit__(self, *exc: object) -> None:
        await self.cursor.execute("SELECT RELEASE_LOCK(%s)", (self.name,))
        await self.cursor.fetchone()
