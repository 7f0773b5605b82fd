"""The stores' schemas as a document, read from the migrations that make them.

python -m stores.schema > docs/schema.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stores.catalog import NAMES
from stores.mongo_lists import indexes as collection_indexes
from stores.mysql_schema import DIRECTORY, foreign_keys, steps

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Column:
    name: str
    type: str
    required: bool
    computed: bool
    remark: str


@dataclass(slots=True)
class Table:
    """One table as its migration makes it."""

    name: str
    columns: list[Column] = field(default_factory=list)
    primary: str = ""
    indexes: list[str] = field(default_factory=list)


def tables() -> list[Table]:
    """All of MySQL's, in the order in which they are made."""
    found = []
    for path in sorted(DIRECTORY.glob("*.sql")):
        for name, body in re.findall(
            r"CREATE TABLE IF NOT EXISTS (\w+) \(\n(.*?)\n\) ENGINE", path.read_text(), re.DOTALL
        ):
            found.append(_table(name, body))
        _add_columns(found, path.read_text())
    return found


def _add_columns(found: list[Table], step: str) -> None:
    by_name = {table.name: table for table in found}
    added = r"^ALTER TABLE (\w+) ADD COLUMN ([^;]+);(?: -- (.*))?$"
    for name, text, remark in re.findall(added, step, re.MULTILINE):
        by_name[name].columns.append(_column(text, remark))
    modified = r"^ALTER TABLE (\w+) MODIFY COLUMN ([^;]+);(?: -- (.*))?$"
    for name, text, remark in re.findall(modified, step, re.MULTILINE):
        _modify(by_name[name].columns, _column(text, remark))
    for name, index, columns in re.findall(
        r"^ALTER TABLE (\w+) ADD KEY (\w+) \((.+)\);$", step, re.MULTILINE
    ):
        by_name[name].indexes.append(f"`{index}`: {columns}")


def _modify(columns: list[Column], column: Column) -> None:
    place = next(n for n, there in enumerate(columns) if there.name == column.name)
    column.remark = column.remark or columns[place].remark
    columns[place] = column


def _table(name: str, body: str) -> Table:
    table = Table(name)
    for line in re.sub(r"\n {8,}", " ", body).split("\n"):
        text, _, remark = line.strip().partition(" -- ")
        text = text.rstrip(",").strip()
        if text.startswith("PRIMARY KEY"):
            table.primary = text[len("PRIMARY KEY (") : -1]
        elif match := re.match(r"(FULLTEXT )?KEY (\w+) \((.+)\)$", text):
            words = " (words)" if match[1] else ""
            table.indexes.append(f"`{match[2]}`: {match[3]}{words}")
        elif text and not text.startswith(("CONSTRAINT", "--")):
            table.columns.append(_column(text, remark))
    return table


def _column(text: str, remark: str) -> Column:
    name, kind = text.split()[:2]
    return Column(name, kind, "NOT NULL" in text, "VIRTUAL" in text, remark)


def document() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield from (
        "# The stores' schemas",
        "",
        "Written by `python -m stores.schema` from what makes them; a test holds them together. Money is",
        "minor units of its currency, times are Unix milliseconds.",
        "",
        "## MySQL",
        "",
        f"Made by `pipeline.py stores migrate` out of `stores/migrations/`, {len(steps())} so far. Ids are",
        "told apart to the last byte (`utf8mb4_0900_bin`; in MariaDB `utf8mb4_nopad_bin`). Each time that",
        "people look at has a DATETIME in UTC beside it, computed when it is read. `revision` is the",
        "place in the log behind what wrote the row: what lies further on replaces it. Foreign keys say",
        "what belongs together; the projection does not check them, for it reads the topics side by side.",
        "A text that its column can't take lies there as its beginning, `~` and its SHA-256, and whole in",
        "`long_texts`.",
        "",
        "```mermaid",
        "erDiagram",
    )
    for key in foreign_keys():
        yield f"    {key.target} ||--o{{ {key.table} : {key.column}"
    for table in tables():
        yield f"    {table.name} {{"
        for column in table.columns:
            if not column.computed:
                mark = " PK" if column.name in table.primary.split(", ") else ""
                yield f"        {_word(column.type)} {column.name}{mark}"
        yield "    }"
    yield "```"
    for table in tables():
        yield from _section(table)
    yield from (
        "",
        "## MongoDB",
        "",
        "Documents are the JSON of the rows, with `_id` and `_version` beside it ([stores](stores.md)).",
        "Each collection has the index of `_id`, and:",
        "",
        "| collection | index |",
        "| --- | --- |",
    )
    for name in NAMES:
        for index in collection_indexes(name):
            keys = ", ".join(f"{key}: {order}" for key, order in index.document["key"].items())
            yield f"| `{name}` | {keys} |"
    yield ""


def _word(kind: str) -> str:
    return kind.partition("(")[0].lower()


def _section(table: Table) -> Iterator[str]:
    yield from ("", f"### {table.name}", "", "| column | type | |", "| --- | --- | --- |")
    for column in table.columns:
        notes = [
            *(["computed"] if column.computed else []),
            *([] if column.required or column.computed else ["may be NULL"]),
            *([column.remark] if column.remark else []),
        ]
        yield f"| `{column.name}` | {column.type} | {'; '.join(notes)} |"
    yield from ("", f"Primary key: {table.primary}.")
    for index in table.indexes:
        yield f"Index {index}."
    for key in foreign_keys():
        if key.table == table.name:
            yield f"`{key.column}` refers to `{key.target}.{key.key}` (`{key.name}`)."


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
