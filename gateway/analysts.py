"""For analysts: one row of a service's table, and SQL over all of them, now or then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.answer import Answer, answer
from gateway.errors import Problem, invalid, not_found
from gateway.models import SqlQuery
from gateway.past import LOG, moment_in, moment_of
from gateway.reads import TABLES
from travel.errors import BadMoment, Refused, TooLarge
from travel.schema import BY_NAME, Table

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.queries import Row


async def row(call: Call) -> Answer:
    """A row by its key, as the service's table has it, or had it."""
    table, key = BY_NAME.get(call.names["table"]), call.names["key"]
    if table is None:
        raise not_found(f"there are the tables {', '.join(BY_NAME)}")
    at_ms = moment_in(call.query)
    row_key = f"{table.prefix}{key}"
    if at_ms is None:
        found = await _now(call, table, key, row_key)
    else:
        found = await call.gateway.past.row(table.service, row_key, at_ms)
    call.read_source = TABLES if at_ms is None else LOG
    if found is None:
        raise not_found("there is no such row, or was none then")
    return answer({"table": table.name, "key": key, "at": call.query.get("at"), "row": found})


async def _now(call: Call, table: Table, key: str, row_key: str) -> Row | None:
    """From the worker that has the row; where its key does not tell, all are asked."""
    queries = call.gateway.queries
    if table.aggregate is not None:
        return await queries.row(table.service, table.aggregate(key), row_key, versioned=False)
    for partition in range(queries.partitions):
        found = (await queries.rows(table.service, partition, (row_key,)))[row_key]
        if found is not None:
            return found
    return None


async def query(call: Call) -> Answer:
    """One SELECT over the tables and events of docs/tables.md."""
    assert isinstance(call.body, SqlQuery)
    try:
        at_ms = None if call.body.at is None else moment_of(call.body.at)
    except BadMoment as exc:
        raise invalid("/at", "BAD_TIME", str(exc)) from exc
    try:
        result = await call.gateway.past.query(call.body.sql, at_ms)
    except Refused as exc:
        raise Problem("SQL_REFUSED", str(exc)) from exc
    except TooLarge as exc:
        raise Problem("SQL_TOO_LARGE", str(exc)) from exc
    columns: list[dict[str, Any]] = [
        {"name": name, "type": kind}
        for name, kind in zip(result.columns, result.types, strict=True)
    ]
    return answer({"columns": columns, "rows": result.rows, "truncated": result.truncated})
