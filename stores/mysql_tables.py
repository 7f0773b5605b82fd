"""How documents lie in MySQL: a table a kind, a column a field, and back to the very same JSON.

    {"order": {"currency": "EUR", …}, "steps": […]}  <-->  currency = 'EUR', steps = '[…]'

`stores/migrations/` creates the tables; a test holds both against the rows of the domain. Lists and
maps are JSON columns, but an account's balances are rows of their own.

An id may be longer than a key of MySQL can be. No text is refused for its length:

    'xxx… (of 300)'  -->  user_id = 'xxx…~<SHA-256>', long_texts = '{"user_id": "xxx… (of 300)"}'
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from stores.catalog import ENTRIES, EVENTS, KINDS, LINKS, Entry, Link, Said
from stores.mysql_schema import widths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stores.catalog import Document, Kind


Getter: TypeAlias = Callable[[Any], tuple[Any, ...]]

LONG = "long_texts"
DIGEST = 64  # letters of a SHA-256 in hex


def cut(text: str, width: int) -> str:
    """A text as a column of `width` characters holds it: as it is, or its beginning and a digest.

    No two texts are cut to the same, nor to what another one is uncut.
    """
    if len(text) < width:
        return text
    digits = min(DIGEST, width // 2)
    beginning = width - 1 - digits
    if len(text) == width and text[beginning] != "~":
        return text
    return f"{text[:beginning]}~{hashlib.sha256(text.encode()).hexdigest()[:digits]}"


class Form(Enum):
    """How a value of JSON is told to SQL."""

    PLAIN = "plain"  # text, integer, null
    JSON = "json"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and where its value stands in the document; none: not there, it is the key."""

    name: str
    path: tuple[str, ...]
    form: Form = Form.PLAIN

    def put(self, document: Document, value: Any) -> None:
        if self.form is Form.JSON:
            value = None if value is None else orjson.loads(value)
        elif self.form is Form.FLAG:
            value = bool(value)
        *outer, last = self.path
        for name in outer:
            document = document.setdefault(name, {})
        document[last] = value


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table; its rows are known by `key`, which need not be a field of the document."""

    name: str
    key: str
    columns: tuple[Column, ...]
    revised: bool = True  # rows change; else they are only added

    @cached_property
    def keyed(self) -> bool:
        """Whether the key is a field of the document."""
        return any(column.name == self.key for column in self.columns)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are written: plain ones of the document, of what is in it, then JSON of both."""
        revision = ("revision",) if self.revised else ()
        return (*self._told, LONG, *revision)

    @cached_property
    def _told(self) -> tuple[str, ...]:
        """Those of the columns that a document says."""
        key = () if self.keyed else (self.key,)
        return (*key, *(column.name for group in self._groups for column in group))

    @cached_property
    def _limits(self) -> tuple[tuple[int, str, int], ...]:
        """Place in a row, name and characters of the columns that don't take any text."""
        limits = widths()[self.name]
        return tuple(
            (place, name, limits[name]) for place, name in enumerate(self._told) if name in limits
        )

    @cached_property
    def _groups(self) -> tuple[list[Column], ...]:
        plain = [column for column in self.columns if column.form is not Form.JSON]
        json = [column for column in self.columns if column.form is Form.JSON]
        return (
            [column for column in plain if len(column.path) == 1],
            [column for column in plain if len(column.path) == 2],
            [column for column in json if len(column.path) == 1],
            [column for column in json if len(column.path) == 2],
        )

    @cached_property
    def _getters(self) -> tuple[str, Getter, Getter, Getter, Getter]:
        own, inner, json, inner_json = self._groups
        outer = {column.path[0] for column in (*inner, *inner_json)}
        assert len(outer) < 2, self.name
        getters = _getter(own), _getter(inner), _getter(json), _getter(inner_json)
        return "".join(outer), *getters

    def values(self, key: str, document: Mapping[str, Any], revision: int) -> list[Any]:
        """A row, as `names`."""
        outer, own, inner, json, inner_json = self._getters
        row: list[Any] = [] if self.keyed else [key]
        row += own(document)
        if outer:
            row += inner(document[outer])
        row += map(_json_text, json(document))
        if outer:
            row += map(_json_text, inner_json(document[outer]))
        row.append(self._fitted(row))
        if self.revised:
            row.append(revision)
        return row

    def _fitted(self, row: list[Any]) -> str | None:
        """Cut what is too long; answers it whole, as JSON by column."""
        long = {}
        for place, name, width in self._limits:
            text = row[place]
            if text is not None and len(text) >= width:
                row[place] = cut(text, width)
                if row[place] != text:
                    long[name] = text
        return _json_text(long or None)

    def fit(self, column: str, text: str) -> str:
        """A text as this column holds it."""
        width = widths()[self.name].get(column)
        return text if width is None else cut(text, width)

    def insert(self, name: str) -> str:
        """The statement that writes rows to the table of this name."""
        return upsert(name, self.names, self.revised)

    @cached_property
    def select(self) -> str:
        """What `document` is made of, from a table called t: the key first."""
        columns = [self.key, *(column.name for column in self.columns), LONG]
        return ", ".join(f"t.{name}" for name in columns)

    def key_of(self, row: Sequence[Any]) -> str:
        """The whole key of a row that begins with `select`."""
        return str(self._long(row).get(self.key, row[0]))

    def document(self, row: Sequence[Any]) -> Document:
        long = self._long(row)
        found: Document = {}
        for column, value in zip(self.columns, row[1:-1], strict=True):
            column.put(found, long.get(column.name, value))
        return found

    def _long(self, row: Sequence[Any]) -> Mapping[str, str]:
        found = row[1 + len(self.columns)]
        return orjson.loads(found) if found else {}


def _getter(columns: Sequence[Column]) -> Getter:
    """The last steps of their paths, all at once: this is done for each row."""
    names = [column.path[-1] for column in columns]
    if len(names) > 1:
        return itemgetter(*names)
    return lambda document: tuple(document[name] for name in names)


def _json_text(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def upsert(name: str, columns: Sequence[str], revised: bool) -> str:
    """A statement for many rows: what is there gives way to what lies further on in the log."""
    places = ", ".join(["%s"] * len(columns))
    first = f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({places}) ON DUPLICATE KEY UPDATE "
    if not revised:  # not IGNORE, which would let bad values pass too
        return f"{first}{columns[0]}={name}.{columns[0]}"
    # assignments go from left to right, so that the revision, last, is compared as it was
    kept = [f"{c}=IF(VALUES(revision)>={name}.revision, VALUES({c}), {name}.{c})" for c in columns]
    return first + ", ".join(kept)


def _plain(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, (name,)) for name in names)


def _json(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, (name,), Form.JSON) for name in names)


def _flag(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, (name,), Form.FLAG) for name in names)


def _order(*without: str) -> tuple[Column, ...]:
    """The order that a transaction, a payment and a review carry."""
    plain = (
        *("transaction_id", "type", "amount_minor", "currency", "source_account_id"),
        *("destination_account_id", "owner_id", "actor_id", "rail", "deadline_ms"),
    )
    return (
        *(Column(name, ("order", name)) for name in plain if name not in without),
        Column("privileged", ("order", "privileged"), Form.FLAG),
        Column("ordered_ms", ("order", "created_ms")),
        Column("terms", ("order", "terms"), Form.JSON),
    )


_CHANGED = _plain("version", "created_ms", "updated_ms")
_RATE = _plain(
    *("pair", "base", "quote", "rate", "spread_ppm", "source", "as_of_ms", "expires_ms"),
    *("version", "at_ms"),
)
_ENTRY = tuple(Column(field.name, (field.name,)) for field in fields(Entry))
_SAID_NAMES = {"partition": "log_partition", "offset": "log_offset"}
_SAID = tuple(
    Column(
        _SAID_NAMES.get(field.name, field.name),
        (field.name,),
        Form.JSON if field.name == "data" else Form.PLAIN,
    )
    for field in fields(Said)
)

ACCOUNTS = Table(
    name="accounts",
    key="account_id",
    columns=(
        *_plain("account_id", "user_id", "name", "status", "open_legs", "request_hash"),
        *_CHANGED,
    ),
)
BALANCES = (
    *("account_id", "currency", "amount_minor", "overdraft_limit_minor"),
    *("held_minor", "revision"),
)
TABLES: Mapping[str, Table] = {
    "users": Table(
        name="users",
        key="user_id",
        columns=(
            *_plain("user_id", "email", "name"),
            *_json("roles"),
            *_CHANGED,
            *_plain("kyc_level", "kyc_status"),
            *_flag("email_confirmed"),
            *_plain("phone", "language", "claim_id"),
        ),
    ),
    "accounts": ACCOUNTS,
    "transactions": Table(
        name="transactions",
        key="transaction_id",
        columns=(
            *_order(),
            *_plain("description", "reference", "request_hash", "status", "reason", "review_id"),
            *_json("metadata", "balances", "steps"),
            *_CHANGED,
            *_plain("completed_ms"),
        ),
    ),
    "payments": Table(
        name="payments",
        key="transaction_id",
        columns=(
            *_order(),
            *_plain("payment_id", "status", "attempt", "provider_reference", "reason", "due_ms"),
            *_json("balances", "steps"),
            *_CHANGED,
            *_plain("method_token", "captured_minor", "refunding_minor", "refunded_minor"),
        ),
    ),
    "refunds": Table(
        name="refunds",
        key="refund",
        columns=(
            *_order(),
            *_plain("payment_id", "refund_id", "status", "attempt", "provider_reference"),
            *_plain("reason", "due_ms"),
            *_json("balances", "steps"),
            *_CHANGED,
        ),
    ),
    "payment_methods": Table(
        name="payment_methods",
        key="method_id",
        columns=(
            *_plain("method_id", "user_id", "kind", "provider", "token", "fingerprint", "brand"),
            *_plain("last_four", "expiry_month", "expiry_year", "country", "bank", "holder"),
            *_plain("status", "request_hash"),
            *_CHANGED,
        ),
    ),
    "statements": Table(
        name="statements",
        key="statement_id",
        columns=(
            *_plain("statement_id", "provider", "day", "currency", "status"),
            Column("line_count", ("lines",)),
            *_plain("total_minor", "swept", "missing_here", "missing_there", "amount_differs"),
            *_plain("actor_id", "request_hash"),
            *_CHANGED,
        ),
    ),
    "statement_breaks": Table(
        name="statement_breaks",
        key="statement_break",
        columns=(
            *_plain("statement_id", "number", "kind", "end_to_end_id", "payment_id"),
            *_plain("provider_reference", "ours_minor", "theirs_minor"),
            Column("statement_line", ("line",)),
        ),
    ),
    "settlements": Table(
        name="settlements",
        key="batch_id",
        columns=(
            *_plain("batch_id", "provider", "currency", "day", "status", "items"),
            *_plain("in_minor", "out_minor", "net_minor", "closed_by", "run_id", "statement_id"),
            *_plain("breaks", "request_hash", "due_ms", "closed_ms"),
            *_CHANGED,
        ),
    ),
    "settlement_items": Table(
        name="settlement_items",
        key="settlement_item",
        columns=_plain("batch_id", "end_to_end_id", "payment_id", "amount_minor", "at_ms"),
    ),
    "settlement_breaks": Table(
        name="settlement_breaks",
        key="settlement_break",
        columns=(
            *_plain("batch_id", "number", "kind", "end_to_end_id", "ours_minor", "theirs_minor"),
            Column("statement_line", ("line",)),
            *_plain("version"),
        ),
    ),
    "report_schedules": Table(
        name="report_schedules",
        key="schedule_id",
        columns=(
            *_plain("schedule_id", "cron", "period", "next_ms", "runs", "last_report_id"),
            *_plain("actor_id", "request_hash"),
            Column("active", ("active",), Form.FLAG),
            *_json("definition"),
            *_CHANGED,
        ),
    ),
    "reports": Table(
        name="reports",
        key="report_id",
        columns=(
            *_plain("report_id", "schedule_id", "from_ms", "to_ms", "as_of_ms", "status"),
            Column("row_count", ("rows",)),
            Column("file_bytes", ("bytes",)),
            *_plain("attempt", "sha256", "detail", "due_ms", "actor_id", "request_hash"),
            *_json("definition"),
            *_CHANGED,
        ),
    ),
    "notifications": Table(
        name="notifications",
        key="notification_id",
        columns=(
            *_plain("user_id", "template", "at_ms", "notification_id", "channel", "kind"),
            *_plain("status", "attempt", "tries_before", "detail", "due_ms", "number"),
            *_plain("version", "updated_ms"),
            *_json("data"),
        ),
    ),
    "reviews": Table(
        name="reviews",
        key="review_id",
        columns=(
            *_order(),
            *_plain("review_id", "score", "status", "note", "decided_ms"),
            Column("decided_by", ("actor_id",)),
            *_json("rules", "steps"),
            *_CHANGED,
        ),
    ),
    "blacklist": Table(
        name="blacklist",
        key="entry",
        columns=(*_plain("kind", "value", "note", "at_ms"), *_flag("listed"), *_plain("owner_id")),
    ),
    "rates": Table(name="rates", key="pair", columns=_RATE),
    "rate_history": Table(name="rate_history", key="entry", columns=_RATE),
    "quotes": Table(
        name="quotes",
        key="quote_id",
        columns=(
            *_plain("quote_id", "user_id", "currency", "destination_currency", "amount_minor"),
            *_plain("destination_amount_minor", "rate", "mid_rate", "spread_ppm", "status"),
            *_plain("transaction_id", "expires_ms", "request_hash"),
            *_CHANGED,
        ),
    ),
    "holds": Table(
        name="holds",
        key="hold_id",
        columns=(
            *_plain("hold_id", "account_id", "user_id", "amount_minor", "currency"),
            *_plain("destination_account_id", "status", "reason", "captured_minor"),
            *_plain("transaction_id", "description", "reference", "request_hash", "expires_ms"),
            *_CHANGED,
        ),
    ),
    "analytics_events": Table(
        name="analytics_events",
        key="window_id",
        columns=(
            Column("span", ("interval",)),
            *_plain("start_ms", "version"),
            *_json("figures"),
        ),
    ),
    LINKS: Table(
        name=LINKS,
        key="entry",
        columns=tuple(
            Column(_SAID_NAMES.get(field.name, field.name), (field.name,)) for field in fields(Link)
        ),
        revised=False,
    ),
    ENTRIES: Table(name="entries", key="entry_id", columns=_ENTRY, revised=False),
    EVENTS: Table(name="audit_trail", key="event_id", columns=_SAID, revised=False),
}
assert {kind.name for kind in KINDS} <= TABLES.keys()


def table_of(kind: Kind) -> Table:
    return TABLES[kind.name]


def balance_rows(document: Document, revision: int) -> list[tuple[Any, ...]]:
    """An account's balances, as BALANCES."""
    limits, held = document["overdraft_limits"], document["held"]
    account_id = ACCOUNTS.fit("account_id", document["account_id"])
    return [
        (account_id, currency, minor, limits.get(currency), held.get(currency), revision)
        for currency, minor in document["balances"].items()
    ]


# an account's balances in one value, so that a question is one statement and sees one moment
BALANCES_OF = (
    "(SELECT JSON_OBJECTAGG(b.currency,"
    " JSON_ARRAY(b.amount_minor, b.overdraft_limit_minor, b.held_minor))"
    " FROM balances b WHERE b.account_id = t.account_id)"
)


def account_document(row: Sequence[Any]) -> Document:
    """From the columns of ACCOUNTS and, last, BALANCES_OF."""
    *own, found = row
    balances = orjson.loads(found) if found else {}
    return {
        **ACCOUNTS.document(own),
        "balances": {currency: minor for currency, (minor, _, _) in balances.items()},
        "overdraft_limits": {
            c: limit for c, (_, limit, _) in balances.items() if limit is not None
        },
        "held": {c: held for c, (_, _, held) in balances.items() if held is not None},
    }
