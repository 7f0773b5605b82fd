"""query: one SELECT over tables and events, now or then, in a process that can be ended.

    SQL --> child: names of tables --> their lines, from the logs --> DuckDB, locked --> rows | Parquet
     \\--time is over: the child is killed

The child has no database but its own, in a file: of what it loaded little is in memory. It reads and
writes no file outside its own directory, loads no extension and can't be told to. What hostile SQL
may cost is its time, its memory, and the rows and bytes of one answer. DuckDB's limit does not
count the strings of rows on their way out: the system bounds the whole process.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import orjson

from settings import Settings
from travel.errors import Refused, TooLarge, TooLong
from travel.schema import BY_NAME, EVENT_COLUMNS, EVENTS, VIEWS
from travel.scratch import scratch
from travel.snapshot import Snapshot, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from travel.schema import Table

ROOT = Path(__file__).resolve().parent.parent
SQL_LIMIT = 20_000  # characters
ONE_SELECT = "only one SELECT can be asked: nothing is changed, set or loaded here"
CHANGING = re.compile(r'"type":"(INSERT|UPDATE|DELETE|MERGE)')  # in DuckDB's tree of a statement
EACH = 20_000  # records between two words on progress
GRACE_S = 2.0  # for the child to say itself that its time is over
BESIDE = 512 << 20  # bytes that the child may take while it answers, beside DuckDB's
NESTED = 64  # bytes that a list or a map takes where it is read again, however short its text
SENTENCE = 2_000  # characters of what DuckDB says: a message may repeat a value, however long
# no fault of the SQL: a disk that is full, or a bug of DuckDB
OURS = (
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.InternalException,
    duckdb.FatalException,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one query may cost: rows and bytes of its answer, seconds, bytes of DuckDB's memory."""

    rows: int = 100_000
    seconds: float = 60.0
    bytes: int = 1 << 30
    answer_bytes: int = 256 << 20  # of its rows as JSON; a Parquet file may have more


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An answer: names and DuckDB's types of its columns, and its rows as JSON values.

    Times are RFC 3339, decimals and integers beyond 64 bits are text. `truncated`: there were more.
    """

    columns: Sequence[str]
    types: Sequence[str]
    rows: Sequence[Sequence[Any]]
    truncated: bool

    def dicts(self) -> list[dict[str, Any]]:
        """A dictionary a row; also what `pandas.DataFrame` takes."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A Parquet file that gets the rows of an answer, of which then none come back.

    `progress`: a file that says meanwhile how far it is, as JSON {"phase", "records"}.
    """

    parquet: Path
    progress: Path | None = None


def run(
    sql: str,
    at_ms: int | None,
    limits: Limits,
    target: Target | None = None,
    since_ms: int | None = None,
) -> Result:
    """Ask in a child process. `since_ms`: earlier events are left out, rows of tables are not.

    Blocks. Raises Refused, TooLarge, and RuntimeError when the child fails otherwise.
    """
    if len(sql) > SQL_LIMIT:
        raise Refused(f"the SQL has {len(sql):,} characters: at most {SQL_LIMIT:,}")
    asked = {
        "sql": sql,
        "at_ms": at_ms,
        "limits": asdict(limits),
        "since_ms": since_ms,
        "parquet": str(target.parquet.resolve()) if target else None,
        "progress": str(target.progress.resolve()) if target and target.progress else None,
    }
    with scratch() as (directory, lock):
        try:
            done = subprocess.run(
                [sys.executable, "-m", "travel.sql", str(directory)],
                input=orjson.dumps(asked),
                capture_output=True,
                timeout=limits.seconds + GRACE_S,
                cwd=ROOT,
                check=False,
                pass_fds=(lock,),
            )
        except subprocess.TimeoutExpired as exc:
            raise _too_long(limits) from exc
    if done.returncode == -signal.SIGALRM:
        raise _too_long(limits)
    if done.returncode == -signal.SIGKILL:  # by the system: nobody else does
        raise TooLarge("the query needed more memory than there is")
    if done.returncode:
        raise RuntimeError(f"a query failed: {done.stderr.decode(errors='replace')[-SENTENCE:]}")
    return _heard(io.BytesIO(done.stdout))


def _heard(lines: Iterator[bytes]) -> Result:
    """What the child said: all but the rows in the first line, then a row a line."""
    answer = json.loads(next(lines))
    if "failed" in answer:
        raise RuntimeError(f"a query failed: {answer['failed']}")
    if "refused" in answer:
        raise Refused(answer["refused"])
    if "too_large" in answer:
        raise TooLarge(answer["too_large"])
    return Result(**answer, rows=[json.loads(line) for line in lines])


def _too_long(limits: Limits) -> TooLong:
    return TooLong(f"the query did not end within {limits.seconds:g} s: narrow it")


# in the child


def answer(directory: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the child says of a question; each of the rows is JSON already."""
    limits = Limits(**asked["limits"])
    progress = Progress(asked["progress"])
    try:
        with duckdb.connect(str(directory / "tables.duckdb")) as database:
            _shut_in(database, directory, limits)
            _create(database)
            select = _select(asked["sql"])
            names = _names(database, select)
            span = (asked["since_ms"], asked["at_ms"])
            _load(database, directory, names, span, progress)
            _drop(database, names)
            _lock(database)
            progress.tell("computing")
            with _bounded(limits):
                if asked["parquet"]:
                    return _written(database, directory, select, limits, Path(asked["parquet"]))
                return _rows(database, select, limits)
    except (duckdb.OutOfMemoryException, MemoryError):
        return {"too_large": f"the query needs more than {limits.bytes >> 20} MiB: narrow it"}
    except OURS as exc:
        return {"failed": f"{type(exc).__name__}: {_sentence(exc)}"}
    except (duckdb.Error, Refused) as exc:
        return {"refused": _sentence(exc)}


def _sentence(exc: Exception) -> str:
    return str(exc).partition("\n\nLINE")[0][:SENTENCE]


@contextmanager
def _bounded(limits: Limits) -> Iterator[None]:
    """So much memory may this process take more than it has: what asks for more gets none.

    By Linux, as it counts data (proc(5), statm); elsewhere nothing is bounded so.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    has = int(statm.read_text().split()[5]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = (has + limits.bytes + BESIDE, soft, hard)
    most = min(one for one in bounds if one != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _select(sql: str) -> str:
    """The one SELECT in this text. Raises Refused, duckdb.Error."""
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise Refused(ONE_SELECT)
    select = statements[0].query.strip().rstrip(";")
    # a SELECT may have a WITH that inserts, updates or deletes
    tree = duckdb.execute("SELECT json_serialize_sql(?::VARCHAR)", [select]).fetchall()[0][0]
    if json.loads(tree)["error"] or CHANGING.search(tree):
        raise Refused(ONE_SELECT)
    return select


def _create(database: Any) -> None:
    """All tables, empty, so that DuckDB tells which of them a query names."""
    for table in BY_NAME.values():
        columns = [f'"{name}" VARCHAR' for _, name in table.parts]
        columns += [f'"{column.name}" {column.load}' for column in table.columns]
        shown = [f'"{name}"' for _, name in table.parts]
        shown += [column.select for column in table.columns]
        _table(database, table.name, columns, shown)
    loads = [(name, "BIGINT" if kind == "TIMESTAMP" else kind) for name, kind, _ in EVENT_COLUMNS]
    times = {name for name, kind, _ in EVENT_COLUMNS if kind == "TIMESTAMP"}
    shown = [f'epoch_ms("{n}") AS "{n}"' if n in times else f'"{n}"' for n, _ in loads]
    for name in EVENTS:
        columns = [f'"{column}" {kind}' for column, kind in loads if column != "partition"]
        _table(database, name, columns, [one for one in shown if one != '"partition"'])
    for name, (sql, _, _) in VIEWS.items():
        database.execute(f"CREATE VIEW {name} AS {sql}")


def _table(database: Any, name: str, columns: Iterable[str], shown: Iterable[str]) -> None:
    """A table as it is loaded, and over it a view as it is documented."""
    database.execute(f'CREATE TABLE {_raw(name)} ({", ".join(columns)}, "partition" INTEGER)')
    database.execute(
        f'CREATE VIEW {name} AS SELECT {", ".join(shown)}, "partition" FROM {_raw(name)}'
    )


def _raw(name: str) -> str:
    return f"loaded_{name}"


def _names(database: Any, select: str) -> set[str]:
    """The tables that a SELECT needs, those under its views too."""
    named = {name.lower() for name in database.get_table_names(select)}
    wanted: set[str] = set()
    for name in named:
        name = name.removeprefix("loaded_")
        if name in VIEWS:
            wanted.update(VIEWS[name][1])
        elif name in BY_NAME or name in EVENTS:
            wanted.add(name)
    return wanted


class Progress:
    """Says in a file how far a query is; into none when nobody asked."""

    def __init__(self, file: str | None) -> None:
        self._file = Path(file) if file else None
        self.records = 0

    def tell(self, phase: str) -> None:
        if self._file is None:
            return
        partial = self._file.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(orjson.dumps({"phase": phase, "records": self.records}))
        partial.replace(self._file)

    def count(self, lines: Iterator[T]) -> Iterator[T]:
        for line in lines:
            if self.records % EACH == 0:
                self.tell("reading")
            self.records += 1
            yield line


def _load(
    database: Any,
    directory: Path,
    names: set[str],
    span: tuple[int | None, int | None],
    progress: Progress,
) -> None:
    if not names:
        return
    since_ms, at_ms = span
    snapshot = Snapshot(Source.of(Settings.load()), at_ms)
    try:
        for name in sorted(names & EVENTS.keys()):
            facts = ((name, line) for line in snapshot.events(EVENTS[name], since_ms))
            _copy(database, directory, [name], progress.count(facts))
        for service, tables in _by_service(names).items():
            lines = progress.count(snapshot.lines(service, tables))
            _copy(database, directory, [table.name for table in tables], lines)
    finally:
        snapshot.close()


def _by_service(names: set[str]) -> Mapping[str, Sequence[Table]]:
    found: defaultdict[str, list[Table]] = defaultdict(list)
    for name in sorted(names & BY_NAME.keys()):
        found[BY_NAME[name].service].append(BY_NAME[name])
    return found


def _drop(database: Any, names: set[str]) -> None:
    """Take away what was not loaded: a table that SQL names in a way not seen must not look empty."""
    for view, (_, needed, _) in VIEWS.items():
        if not names.issuperset(needed):
            database.execute(f"DROP VIEW {view}")
    for name in {*BY_NAME, *EVENTS} - names:
        database.execute(f"DROP VIEW {name}")
        database.execute(f"DROP TABLE {_raw(name)}")


def _copy(
    database: Any,
    directory: Path,
    names: Sequence[str],
    lines: Iterator[tuple[str, Mapping[str, Any]]],
) -> None:
    """Lines into the tables that they name.

    Through files: DuckDB reads JSON many times faster than rows are inserted.
    """
    files = {name: directory / f"{name}.json" for name in names}
    with ExitStack() as opened:
        outs = {name: opened.enter_context(file.open("wb")) for name, file in files.items()}
        for name, line in lines:
            outs[name].write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
    for name, file in files.items():
        _insert(database, file, _raw(name))
        file.unlink()


def _insert(database: Any, file: Path, table: str) -> None:
    described = database.execute(f"DESCRIBE {table}").fetchall()
    columns = {name: kind for name, kind, *_ in described}
    database.execute(
        f"INSERT INTO {table} BY NAME SELECT * FROM read_json(?, format='newline_delimited', columns=?,"
        " maximum_object_size=33554432)",
        [str(file), columns],
    )


def _shut_in(database: Any, directory: Path, limits: Limits) -> None:
    """Before a stranger's SQL is looked at: to tell its tables DuckDB opens the files that it names."""
    for setting in (
        f"memory_limit = '{limits.bytes // 1024}KiB'",  # what is loaded lies in a file
        "threads = 1",  # each reads with buffers of its own
        "temp_directory = ''",  # nothing is spilled to disk
        f"allowed_directories = ['{directory}']",
        "enable_external_access = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
    ):
        database.execute(f"SET {setting}")


def _lock(database: Any) -> None:
    """From here on the SQL is a stranger's."""
    database.execute("SET lock_configuration = true")


def _limited(select: str, rows: int) -> str:
    # the line break ends a comment that the SQL may end with
    return f"SELECT * FROM ({select}\n) LIMIT {rows}"


def _rows(database: Any, select: str, limits: Limits) -> dict[str, Any]:
    """One row after another is fetched and encoded, until they are all or too many bytes."""
    asked = database.execute(_limited(select, limits.rows + 1))
    columns = [(name, str(kind)) for name, kind, *_ in asked.description]
    rows: list[bytes] = []
    size = sum(len(name) + len(kind) for name, kind in columns)
    while (row := asked.fetchone()) is not None and len(rows) < limits.rows:
        plain = [_plain(value) for value in row]
        rows.append(json.dumps(plain, ensure_ascii=False).encode())
        size += len(rows[-1]) + NESTED * _nested(plain)
        if size > limits.answer_bytes:
            most = f"{limits.answer_bytes >> 20} MiB"
            return {"too_large": f"the answer has more than {most}: narrow it"}
    return {
        "columns": [name for name, _ in columns],
        "types": [kind for _, kind in columns],
        "truncated": row is not None,
        "rows": rows,
    }


def _nested(value: Any) -> int:
    """How many lists and maps a value of JSON is made of."""
    match value:
        case list():
            return 1 + sum(map(_nested, value))
        case dict():
            return 1 + sum(map(_nested, value.values()))
        case _:
            return 0


def _written(
    database: Any, directory: Path, select: str, limits: Limits, target: Path
) -> dict[str, Any]:
    made = directory / "result.parquet"
    count = _copied(database, _limited(select, limits.rows + 1), made)
    if count > limits.rows:
        whole = made.rename(directory / "whole.parquet")
        _copied(database, f"FROM read_parquet('{whole}') LIMIT {limits.rows}", made)
    shutil.move(made, target)
    return {"columns": [], "types": [], "truncated": count > limits.rows}


def _copied(database: Any, select: str, file: Path) -> int:
    """Row by row, as they come: none is kept."""
    (count,) = database.execute(f"COPY ({select}) TO '{file}' (FORMAT parquet)").fetchone()
    return int(count)


def _plain(value: Any) -> Any:
    """A value as JSON has it; what it has not, as text."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -(1 << 63) <= value < 1 << 63 else str(value)
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_plain(one) for one in value]
        case dict():
            return {str(key): _plain(one) for key, one in value.items()}
        case _ if hasattr(value, "isoformat"):
            text = value.isoformat()
            return f"{text}Z" if "T" in text and value.tzinfo is None else text
        case _:
            return str(value)


def main() -> None:
    asked = orjson.loads(sys.stdin.buffer.read())
    # loading is Python's work and a query DuckDB's, which hears of no signal: the system ends both
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, asked["limits"]["seconds"])
    said = answer(Path(sys.argv[1]), asked)
    rows = said.pop("rows", ())
    out = sys.stdout.buffer
    out.write(json.dumps(said).encode() + b"\n")
    out.writelines(row + b"\n" for row in rows)
    out.flush()
    os._exit(0)  # librdkafka's threads are not waited for


if __name__ == "__main__":
    main()
