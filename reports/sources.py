"""What reports are made of: the columns of each source, and the SELECT for a definition.

    Definition, period --select--> SQL over events and tables (docs/tables.md), read as of the period's end

Final things leave the services' tables after a month, so that what happened is taken from the events,
which are kept for ever. Names come from the catalogue below and nowhere else; values are quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from domain.reporting import Definition, Filter, Operator, Source
from travel.moments import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER_LIMIT = 10**18


class Kind(StrEnum):
    TEXT = "text"
    MONEY = "money"  # minor units of the row's `currency`
    COUNT = "count"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A source: its columns in their order, the time that a period is about, and its rows as SQL.

    `key`: what tells rows of the same time apart; the rows may have more columns than are shown.
    """

    columns: Mapping[str, Kind]
    time: str
    key: tuple[str, ...]
    sql: str


TABLES: Mapping[Source, Table] = {
    Source.TRANSACTIONS: Table(
        columns={
            "transaction_id": Kind.TEXT,
            "type": Kind.TEXT,
            "status": Kind.TEXT,
            "reason": Kind.TEXT,
            "currency": Kind.TEXT,
            "amount": Kind.MONEY,
            "fee": Kind.MONEY,
            "source_account_id": Kind.TEXT,
            "destination_account_id": Kind.TEXT,
            "owner_id": Kind.TEXT,
            "ordered_at": Kind.TIME,
            "ended_at": Kind.TIME,
        },
        time="ended_at",
        key=("transaction_id", "event_id"),
        sql="""SELECT transaction_id, data->>'$.order.type' AS type,
            CASE type WHEN 'TransactionCompleted' THEN 'completed' WHEN 'TransactionFailed' THEN 'failed'
                ELSE 'cancelled' END AS status,
            reason, currency, amount_minor AS amount,
            coalesce(CAST(data->>'$.order.terms.fee_minor' AS BIGINT), 0) AS fee,
            data->>'$.order.source_account_id' AS source_account_id,
            data->>'$.order.destination_account_id' AS destination_account_id,
            data->>'$.order.owner_id' AS owner_id,
            epoch_ms(CAST(data->>'$.order.created_ms' AS BIGINT)) AS ordered_at, said_at AS ended_at,
            event_id
        FROM transaction_events
        WHERE type IN ('TransactionCompleted', 'TransactionFailed', 'TransactionCancelled')""",
    ),
    Source.ENTRIES: Table(
        columns={
            "posted_at": Kind.TIME,
            "account": Kind.TEXT,
            "currency": Kind.TEXT,
            "amount": Kind.MONEY,
            "transaction_id": Kind.TEXT,
            "event": Kind.TEXT,
            "event_id": Kind.TEXT,
        },
        time="posted_at",
        key=("event_id", "account", "currency", "amount"),
        sql="""SELECT said_at AS posted_at, posting.account, posting.currency,
            posting.amount_minor AS amount, transaction_id, type AS event, event_id
        FROM (SELECT *, unnest(from_json(data->'$.postings',
                '[{"account": "VARCHAR", "currency": "VARCHAR", "amount_minor": "BIGINT"}]')) AS posting
            FROM account_events)""",
    ),
    Source.PAYMENTS: Table(
        columns={
            "booked_at": Kind.TIME,
            "provider": Kind.TEXT,
            "currency": Kind.TEXT,
            "amount": Kind.MONEY,
            "payment_id": Kind.TEXT,
            "end_to_end_id": Kind.TEXT,
            "provider_reference": Kind.TEXT,
        },
        time="booked_at",
        key=("event_id",),
        sql="""SELECT said_at AS booked_at, split_part(data->>'$.booking_key', '.', 1) AS provider,
            split_part(data->>'$.booking_key', '.', -1) AS currency,
            CAST(data->>'$.amount_minor' AS BIGINT) AS amount, data->>'$.payment_id' AS payment_id,
            data->>'$.end_to_end_id' AS end_to_end_id,
            data->>'$.provider_reference' AS provider_reference, event_id
        FROM payment_events WHERE type = 'PaymentBooked'""",
    ),
    Source.SETTLEMENTS: Table(
        columns={
            "settlement_id": Kind.TEXT,
            "provider": Kind.TEXT,
            "currency": Kind.TEXT,
            "day": Kind.TEXT,
            "items": Kind.COUNT,
            "received": Kind.MONEY,
            "paid": Kind.MONEY,
            "net": Kind.MONEY,
            "closed_at": Kind.TIME,
        },
        time="closed_at",
        key=("settlement_id", "event_id"),
        sql="""SELECT subject AS settlement_id, data->>'$.provider' AS provider,
            data->>'$.currency' AS currency, data->>'$.day' AS day,
            CAST(data->>'$.items' AS BIGINT) AS items, CAST(data->>'$.in_minor' AS BIGINT) AS received,
            CAST(data->>'$.out_minor' AS BIGINT) AS paid,
            CAST(data->>'$.net_minor' AS BIGINT) AS net, said_at AS closed_at, event_id
        FROM settlement_events WHERE type = 'BatchClosed'""",
    ),
    Source.ACCOUNTS: Table(
        columns={
            "account_id": Kind.TEXT,
            "user_id": Kind.TEXT,
            "name": Kind.TEXT,
            "status": Kind.TEXT,
            "currency": Kind.TEXT,
            "balance": Kind.MONEY,
            "opened_at": Kind.TIME,
        },
        time="opened_at",
        key=("account_id", "currency"),
        sql="""SELECT account_id, user_id, name, status, unnest(map_keys(balances)) AS currency,
            unnest(map_values(balances)) AS balance, created_at AS opened_at FROM accounts""",
    ),
}
COUNT = "count"  # of the rows of a group
COMPARISONS = {
    Operator.EQUALS: "=",
    Operator.NOT: "IS DISTINCT FROM",  # nothing is another thing than a value
    Operator.LESS: "<",
    Operator.AT_MOST: "<=",
    Operator.MORE: ">",
    Operator.AT_LEAST: ">=",
}


class Undefined(ValueError):
    """A definition that names what there is not: where, and a sentence."""

    def __init__(self, where: str, sentence: str) -> None:
        super().__init__(sentence)
        self.where = where


def shown(definition: Definition) -> dict[str, Kind]:
    """The columns of the answer: those asked for; of groups their own, how many, and sums of money.

    Sums are of one currency: a grouped report is by currency, whether it was asked for or not.
    """
    columns = TABLES[definition.source].columns
    if not definition.group_by:
        return {name: columns[name] for name in definition.columns}
    groups = {name: columns[name] for name in _groups(definition)}
    sums = {name: columns[name] for name in definition.columns if columns[name] is Kind.MONEY}
    return {**groups, COUNT: Kind.COUNT, **sums}


def _groups(definition: Definition) -> tuple[str, ...]:
    columns = TABLES[definition.source].columns
    sums = any(columns[name] is Kind.MONEY for name in definition.columns)
    if sums and "currency" not in definition.group_by:
        return (*definition.group_by, "currency")
    return definition.group_by


def check(definition: Definition) -> None:
    """Raises Undefined."""
    columns = TABLES[definition.source].columns
    for part in ("columns", "group_by"):
        for n, name in enumerate(getattr(definition, part)):
            if name not in columns:
                raise Undefined(f"/{part}/{n}", f"{definition.source} has no column {name[:50]}")
    for n, name in enumerate(definition.group_by):
        if columns[name] in (Kind.MONEY, Kind.TIME):
            raise Undefined(f"/group_by/{n}", f"{name} has too many values to group by")
    for n, one in enumerate(definition.filters):
        if one.column not in columns:
            where = f"/filters/{n}/column"
            raise Undefined(where, f"{definition.source} has no column {one.column[:50]}")
        try:
            _condition(one, columns[one.column])
        except ValueError as exc:
            raise Undefined(f"/filters/{n}/value", str(exc)) from exc


def select(definition: Definition, from_ms: int, to_ms: int) -> str:
    """The SELECT that answers a definition for a period, in the order of time or of the groups."""
    table = TABLES[definition.source]
    names = [f'"{name}"' for name in shown(definition)]
    where = [f"{table.time} >= {_time(from_ms)}", f"{table.time} < {_time(to_ms)}"]
    where += [_condition(one, table.columns[one.column]) for one in definition.filters]
    rows = f"SELECT * FROM ({table.sql}) WHERE {' AND '.join(where)}"
    if not definition.group_by:
        money = [*definition.columns, *_currency(definition)]
        picked = ", ".join(f'"{name}"' for name in dict.fromkeys(money))
        order = ", ".join(
            dict.fromkeys((f'"{table.time}"', names[0], *map('"{}"'.format, table.key)))
        )
        return f"SELECT {picked} FROM ({rows}) ORDER BY {order}"
    groups = [f'"{name}"' for name in _groups(definition)]
    by = ", ".join(groups)
    return f"SELECT {', '.join(_grouped(definition))} FROM ({rows}) GROUP BY {by} ORDER BY {by}"


def _currency(definition: Definition) -> tuple[str, ...]:
    """What says how to write an amount, should nobody have asked for it."""
    columns = TABLES[definition.source].columns
    money = any(columns[name] is Kind.MONEY for name in definition.columns)
    return ("currency",) if money else ()


def _grouped(definition: Definition) -> Iterator[str]:
    for name, kind in shown(definition).items():
        if name == COUNT:
            yield f'count(*) AS "{COUNT}"'
        elif kind is Kind.MONEY:
            # Parquet has no whole numbers beyond 64 bits but decimals
            yield f'CAST(sum("{name}") AS DECIMAL(38, 0)) AS "{name}"'
        else:
            yield f'"{name}"'


def _time(at_ms: int) -> str:
    return f"epoch_ms({at_ms:d})"


def _condition(one: Filter, kind: Kind) -> str:
    name = f'"{one.column}"'
    if one.operator is Operator.CONTAINS:
        if kind is not Kind.TEXT:
            raise ValueError(f"{one.column} is no text that could contain something")
        return f"contains({name}, {_text(one.value)})"
    return f"{name} {COMPARISONS[one.operator]} {_value(one, kind)}"


def _value(one: Filter, kind: Kind) -> str:
    match kind:
        case Kind.TEXT:
            return _text(one.value)
        case Kind.TIME:
            try:
                at = datetime.fromisoformat(one.value)
            except ValueError as exc:
                raise ValueError(f"{one.column} is a time: give RFC 3339") from exc
            if at.tzinfo is None:
                raise ValueError(f"{one.column} is a time: end it with Z or an offset")
            return _time((at - EPOCH) // timedelta(milliseconds=1))
        case _:
            digits = one.value.removeprefix("-")
            if not (digits.isascii() and digits.isdecimal() and int(digits) <= NUMBER_LIMIT):
                raise ValueError(f"{one.column} is a whole number")
            return str(int(one.value))


def _text(value: str) -> str:
    """As SQL has it; NUL has no place there."""
    if "\0" in value:
        raise ValueError("a text can't have the character NUL")
    return "'" + value.replace("'", "''") + "'"
