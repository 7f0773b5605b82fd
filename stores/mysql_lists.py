"""The lists of `stores.questions` in MySQL, and the index that each goes along.

A list is sorted by time and then by key; its index is what it is narrowed to first, then that
order. A page begins where the last ended, at an index entry, never at a count. The index is named in
the query: what statistics make of a table that just filled is no matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from stores.catalog import ENTRIES, EVENTS
from stores.mysql_tables import BALANCES_OF, TABLES, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stores.questions import Place, Wanted

WORDS = 10  # of a search; the rest is not looked at
SHORT = 3  # letters that a word must have to be in an index of words (innodb_ft_min_token_size)
# InnoDB's own list of words that are in no index of words (innodb_ft_default_stopword)
STOPWORDS = frozenset(
    {
        *("a", "about", "an", "are", "as", "at", "be", "by", "com", "de", "en", "for", "from"),
        *("how", "i", "in", "is", "it", "la", "of", "on", "or", "that", "the", "this", "to"),
        *("was", "what", "when", "where", "who", "will", "with", "und", "www"),
    }
)


@dataclass(frozen=True, slots=True)
class Lead:
    """What a list is narrowed to by its index; a column that is None: by nothing."""

    column: str | None
    index: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list: its table, its order, and what it can be narrowed to, the closest first."""

    table: Table
    time: str
    newest_first: bool = False
    leads: Mapping[str, tuple[Lead, ...]] = field(default_factory=dict)  # by field of Wanted
    also: Mapping[str, str] = field(
        default_factory=dict
    )  # likewise: a column, looked at going along
    beside: Mapping[str, str] = field(default_factory=dict)  # likewise: a condition on other tables
    always: str | None = None  # the index to go along without any lead


@dataclass(frozen=True, slots=True)
class Query:
    sql: str
    values: tuple[Any, ...]


ACCOUNTS_OF = Listing(
    table=TABLES["accounts"],
    time="created_ms",
    leads={"owner_id": (Lead("user_id", "of_user"),)},
    also={"status": "status"},
    beside={
        "currency": (
            "EXISTS (SELECT 1 FROM balances b"
            " WHERE b.account_id = t.account_id AND b.currency = %s)"
        ),
    },
)
TRANSACTIONS = Listing(
    table=TABLES["transactions"],
    time="created_ms",
    newest_first=True,
    leads={
        "account_id": (
            Lead("source_account_id", "from_account"),
            Lead("destination_account_id", "to_account"),
        ),
        "owner_id": (Lead("owner_id", "of_owner"),),
    },
    also={name: name for name in ("owner_id", "status", "type", "currency", "actor_id")},
    always="in_time",
)
NOTIFICATIONS = Listing(
    table=TABLES["notifications"],
    time="at_ms",
    newest_first=True,
    leads={"owner_id": (Lead("user_id", "of_user"),)},
    also={"type": "template", "status": "status", "channel": "channel"},
)
REVIEWS = Listing(
    table=TABLES["reviews"],
    time="created_ms",
    leads={"status": (Lead("status", "in_status"),)},
    also={"owner_id": "owner_id", "transaction_id": "transaction_id"},
    always="in_time",
)
BLACKLIST = Listing(table=TABLES["blacklist"], time="at_ms", always="in_time")
RATES = Listing(table=TABLES["rates"], time="at_ms", always="in_time")
RATE_HISTORY = Listing(
    table=TABLES["rate_history"],
    time="at_ms",
    newest_first=True,
    leads={"pair": (Lead("pair", "of_pair"),)},
)
POSTINGS = Listing(
    table=TABLES[ENTRIES],
    time="at_ms",
    leads={
        "transaction_id": (Lead("transaction_id", "of_transaction"),),
        "account_id": (Lead("account", "of_account"),),
    },
    also={"account_id": "account", "currency": "currency"},
)
WINDOWS = Listing(
    table=TABLES["analytics_events"],
    time="start_ms",
    leads={"type": (Lead("span", "in_span"),)},
)
FACTS = Listing(
    table=TABLES[EVENTS],
    time="at_ms",
    leads={
        "transaction_id": (Lead("transaction_id", "of_transaction"),),
        "aggregate_id": (Lead("aggregate_id", "of_aggregate"),),
        "actor_id": (Lead("actor_id", "by_actor"),),
        "type": (Lead("type", "of_type"),),
    },
    also={name: name for name in ("aggregate_id", "actor_id", "type")},
    always="in_time",
)


def page(listing: Listing, wanted: Wanted, after: Place | None, limit: int) -> Query:
    """The rows of a page: `select`, the time last.

    Raises ValueError for a narrowing that this list does not know, or for none where it needs one.
    """
    name, leads, conditions, values = _narrowed(listing, wanted)
    more, more_values = _between(listing, wanted, after)
    conditions += more
    values += more_values
    if len(leads) == 1:
        first = () if name is None else (_value(listing, leads[0], getattr(wanted, name)),)
        where = _where(leads[0], conditions)
        sql = (
            f"SELECT {_select(listing)} FROM {listing.table.name} t FORCE INDEX ({leads[0].index})"
            f"{where} ORDER BY {_order(listing, 't')} LIMIT %s"
        )
        return Query(sql, (*first, *values, limit))
    return _either(listing, leads, getattr(wanted, name or ""), conditions, values, limit)


def _either(
    listing: Listing,
    leads: tuple[Lead, ...],
    asked: str,
    conditions: list[str],
    values: list[Any],
    limit: int,
) -> Query:
    """As far as each of several indexes goes, then the first of them all."""
    key, time = listing.table.key, listing.time
    parts = [
        f"(SELECT t.{key}, t.{time} FROM {listing.table.name} t FORCE INDEX ({lead.index})"
        f"{_where(lead, conditions)} ORDER BY {_order(listing, 't')} LIMIT %s)"
        for lead in leads
    ]
    sql = (
        f"SELECT {_select(listing)} FROM (SELECT u.{key}, u.{time} FROM ({' UNION '.join(parts)}) u"
        f" ORDER BY {_order(listing, 'u')} LIMIT %s) p"
        f" JOIN {listing.table.name} t ON t.{key} = p.{key} ORDER BY {_order(listing, 'p')}"
    )
    parts_values = [(_value(listing, lead, asked), *values, limit) for lead in leads]
    return Query(sql, (*chain(*parts_values), limit))


def _value(listing: Listing, lead: Lead, asked: str) -> str:
    assert lead.column is not None
    return listing.table.fit(lead.column, asked)


def _narrowed(
    listing: Listing, wanted: Wanted
) -> tuple[str | None, tuple[Lead, ...], list[str], list[Any]]:
    asked = {
        name: value
        for name in wanted.__slots__
        if (value := getattr(wanted, name)) is not None and not name.endswith("_ms")
    }
    unknown = asked.keys() - listing.leads.keys() - listing.also.keys() - listing.beside.keys()
    if unknown:
        raise ValueError(f"{listing.table.name} can't be narrowed to {min(unknown)}")
    name = next((name for name in listing.leads if name in asked), None)
    if name is None and listing.always is None:
        raise ValueError(f"{listing.table.name} are listed by {' or '.join(listing.leads)}")
    leads = (Lead(None, listing.always or ""),) if name is None else listing.leads[name]
    rest = {field: value for field, value in asked.items() if field != name}
    values = [
        listing.table.fit(listing.also.get(field, ""), value) for field, value in rest.items()
    ]
    return name, leads, [_condition(listing, field) for field in rest], values


def _condition(listing: Listing, field: str) -> str:
    return listing.beside.get(field) or f"t.{listing.also[field]} = %s"


def _between(listing: Listing, wanted: Wanted, after: Place | None) -> tuple[list[str], list[Any]]:
    """Bounds of time, and what lies behind a place: of the same time, by the key."""
    time = f"t.{listing.time}"
    conditions: list[str] = []
    values: list[Any] = []
    for at_ms, comparison in ((wanted.from_ms, ">="), (wanted.to_ms, "<")):
        if at_ms is not None:
            conditions.append(f"{time} {comparison} %s")
            values.append(at_ms)
    if after is not None:
        beyond = "<" if listing.newest_first else ">"
        conditions.append(
            f"{time} {beyond}= %s AND ({time} {beyond} %s OR t.{listing.table.key} {beyond} %s)"
        )
        values += [after[0], after[0], listing.table.fit(listing.table.key, after[1])]
    return conditions, values


def _where(lead: Lead, conditions: list[str]) -> str:
    first = [] if lead.column is None else [f"t.{lead.column} = %s"]
    found = " AND ".join([*first, *conditions])
    return f" WHERE {found}" if found else ""


def _order(listing: Listing, name: str) -> str:
    direction = "DESC" if listing.newest_first else "ASC"
    return f"{name}.{listing.time} {direction}, {name}.{listing.table.key} {direction}"


def _select(listing: Listing) -> str:
    return f"{selected(listing.table)}, t.{listing.time}"


def selected(table: Table) -> str:
    """What a document is made of; of an account its balances too."""
    return f"{table.select}, {BALANCES_OF}" if table.name == "accounts" else table.select


def narrowing(listing: Listing, wanted: Wanted) -> tuple[list[str], list[Any]]:
    """The conditions, and their values, of a list that is not read along an index of its own."""
    name, leads, conditions, values = _narrowed(listing, wanted)
    if name is not None:
        conditions.append(f"({' OR '.join(f't.{lead.column} = %s' for lead in leads)})")
        values += (_value(listing, lead, getattr(wanted, name)) for lead in leads)
    return conditions, values


def search(
    table: Table,
    columns: tuple[str, ...],
    text: str,
    limit: int,
    narrowed: tuple[Sequence[str], Sequence[Any]] = ((), ()),
) -> Query | None:
    """Rows that have all the words, the best match first; None: there is nothing to look for.

    Words are letters and digits alone: no sign of theirs means anything to the server. Those that
    its index leaves out are looked for in what the others found.
    """
    words = re.findall(r"\w+", text)[:WORDS]
    indexed = [word for word in words if len(word) >= SHORT and word.lower() not in STOPWORDS]
    if not indexed:
        return None
    given = ", ".join(f"t.{column}" for column in columns)
    match = f"MATCH ({given}) AGAINST (%s IN BOOLEAN MODE)"
    asked = " ".join(f"+{word}" for word in indexed)
    others = [word for word in words if word not in indexed]
    conditions = [match, *[f"CONCAT_WS(' ', {given}) LIKE %s"] * len(others)]
    values: list[Any] = [asked, *(f"%{word}%" for word in others)]
    conditions += narrowed[0]
    values += narrowed[1]
    sql = (
        f"SELECT {selected(table)} FROM {table.name} t WHERE {' AND '.join(conditions)}"
        f" ORDER BY {match} DESC, t.{table.key} LIMIT %s"
    )
    return Query(sql, (*values, asked, limit))
