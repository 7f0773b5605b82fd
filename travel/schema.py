"""The tables as analysts see them: one for each kind of row, one of events for each service.

    python -m travel.schema > docs/tables.md

Columns come from the rows' own types: a dataclass within a row (`order`) is laid out flat, `…_ms`
becomes a TIMESTAMP in UTC, lists of objects become JSON. Rows that private events make are no
tables: nobody can ask for a password's hash.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cached_property
from operator import attrgetter
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from domain.account import Account, Leg, SuspendedCredit
from domain.analytics import Behaviour, Clock, Counted, UserDay, Window
from domain.audit import Chain, Heads
from domain.behaviour import Customer, Recipient
from domain.blacklist import Blacklisted
from domain.currency import FixedRate, Quote, Rate
from domain.holds import Hold
from domain.kyc import KycOpen
from domain.ledger import SystemBalance
from domain.notification_rows import Notification
from domain.payment_methods import PaymentMethod, PaymentMethods
from domain.payment_rows import Payment, Refund
from domain.person import User
from domain.prices import PRICE_LIST, PriceList
from domain.reconciliation import Booking, Bookings, Statement, StatementBreak
from domain.reporting import Report, Schedule
from domain.reporting import home_of as schedule_of
from domain.risk import ListedTransaction, Owner, Review, Score
from domain.risk_config import CONFIG, RiskConfiguration
from domain.services import DECIDERS
from domain.session import Session
from domain.settlement import Batch, BatchBreak, Book, Item
from domain.settlement import home_of as book_of
from domain.suspense import SuspenseItem, SuspensePayout, SuspenseResolution
from domain.transaction import Reversal, Transaction
from domain.user import AccountList, ListedAccount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proof.reader import LogRecord

PRIVATE = (
    "credentials/",
    "address/",
    "kyc/",
    "mailed/",
    "refresh/",
)  # rows that private events alone make
# rows without a table: what is due, indexes of `user_accounts`, `sessions` and `provider_bookings`, what risk
# asks alone, which rates came last, and what settlement finds its way by
OMITTED = (
    *PRIVATE,
    "due/",
    "has-account/",
    "sessions-of/",
    "session-slot/",
    "grant/",
    "booking-at/",
    "holder/",
    "held/",
    "rate-board/",
    "rate-applied/",
    "rate-feed/",
    "open-batches",
    "settled/",
    "run/",
    "closed/",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `load`: the type of what `get` finds, `sql`: the type that analysts see."""

    name: str
    sql: str
    get: Callable[[Any], Any]

    @property
    def load(self) -> str:
        return "BIGINT" if self.sql == "TIMESTAMP" else self.sql

    @property
    def select(self) -> str:
        name = f'"{self.name}"'
        return f"epoch_ms({name}) AS {name}" if self.sql == "TIMESTAMP" else name


@dataclass(frozen=True, kw_only=True)
class Table:
    """One kind of row. `key`: the parts of the row's key behind `prefix`, as columns.

    `aggregate` finds, in that rest of the key, the aggregate whose events alone make the row and in
    whose partition it lives; None: it can't be told from the key, and all partitions are asked.
    """

    name: str
    service: str
    row: type
    prefix: str
    key: tuple[str, ...]
    about: str
    aggregate: Callable[[str], str] | None
    first_only: bool = False  # every partition has the same rows

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Of what the row holds; the parts of its key that it does not hold come before."""
        return tuple(_columns(self.row, "", set()))

    @cached_property
    def parts(self) -> tuple[tuple[int, str], ...]:
        """Which parts of the key become columns of their own, as texts, and their names."""
        own = {column.name for column in self.columns}
        return tuple((at, name) for at, name in enumerate(self.key) if name not in own)

    @property
    def described(self) -> list[tuple[str, str]]:
        """Names and types of all columns."""
        parts = [(name, "VARCHAR") for _, name in self.parts]
        return [*parts, *((c.name, c.sql) for c in self.columns), ("partition", "INTEGER")]

    def record(self, row_key: str, row: Any, partition: int) -> dict[str, Any]:
        """A row as a line for DuckDB."""
        cut = row_key[len(self.prefix) :].split("/", len(self.key) - 1)
        line: dict[str, Any] = {name: cut[at] for at, name in self.parts}
        for column in self.columns:
            line[column.name] = column.get(row)
        line["partition"] = partition
        return line


def _columns(kind: type, path: str, taken: set[str]) -> Iterator[Column]:
    hints = get_type_hints(kind, vars(sys.modules[kind.__module__]) | _known())
    plain = {field.name for field in fields(kind)}
    for field in fields(kind):
        hint, optional = _unwrapped(hints[field.name])
        getter = attrgetter(f"{path}{field.name}")
        if is_dataclass(hint) and isinstance(hint, type) and not optional:
            inner = _columns(hint, f"{path}{field.name}.", taken | plain)
            yield from inner
            continue
        name, sql = field.name, _sql(field.name, hint)
        if path and name in taken:
            name = f"{path[:-1]}_{name}"
        if sql == "TIMESTAMP":
            name = f"{name.removesuffix('at_ms').removesuffix('_ms')}_at".lstrip("_")
        yield Column(name=name, sql=sql, get=getter)


def _known() -> dict[str, Any]:
    from domain import saga

    return vars(saga)


def _unwrapped(hint: Any) -> tuple[Any, bool]:
    """The type without its None."""
    if isinstance(hint, UnionType) and type(None) in get_args(hint):
        return next(arm for arm in get_args(hint) if arm is not type(None)), True
    return hint, False


def _sql(name: str, hint: Any) -> str:
    if hint is bool:
        return "BOOLEAN"
    if hint is int:
        return "TIMESTAMP" if name.endswith("_ms") else "BIGINT"
    if hint is str or (isinstance(hint, type) and issubclass(hint, StrEnum)):
        return "VARCHAR"
    if get_origin(hint) is dict:
        inner = _sql("", get_args(hint)[1])
        return "JSON" if inner == "JSON" else f"MAP(VARCHAR, {inner})"
    if get_origin(hint) is tuple and (inner := _sql("", get_args(hint)[0])) != "JSON":
        return f"{inner}[]"
    return "JSON"


def _first(rest: str) -> str:
    return rest.split("/")[0]


def _before_point(rest: str) -> str:
    return rest.rpartition(".")[0]


TABLES: tuple[Table, ...] = (
    Table(
        name="users",
        service="user",
        row=User,
        prefix="user/",
        key=("user_id",),
        about="people, without what they prove themselves with",
        aggregate=_first,
    ),
    Table(
        name="account_lists",
        service="user",
        row=AccountList,
        prefix="accounts-of/",
        key=("user_id",),
        about="how many accounts a user has",
        aggregate=_first,
    ),
    Table(
        name="user_accounts",
        service="user",
        row=ListedAccount,
        prefix="account-of/",
        key=("user_id", "number"),
        about="which ones, in the order of their opening",
        aggregate=_first,
    ),
    Table(
        name="sessions",
        service="user",
        row=Session,
        prefix="session/",
        key=("user_id", "session_id"),
        about="who is logged in, and was until its time was over",
        aggregate=_first,
    ),
    Table(
        name="open_kyc",
        service="user",
        row=KycOpen,
        prefix="kyc-open/",
        key=("user_id",),
        about="who waits for an officer to look at what they submitted",
        aggregate=_first,
    ),
    Table(
        name="accounts",
        service="account",
        row=Account,
        prefix="account/",
        key=("account_id",),
        about="accounts; amounts in minor units by currency",
        aggregate=_first,
    ),
    Table(
        name="legs",
        service="account",
        row=Leg,
        prefix="leg/",
        key=("transaction_id", "side"),
        about="how a transaction stands with each of its accounts",
        aggregate=None,
    ),
    Table(
        name="holds",
        service="account",
        row=Hold,
        prefix="hold/",
        key=("hold_id",),
        about="amounts that were reserved, and what became of them",
        aggregate=_before_point,
    ),
    Table(
        name="suspended_payments",
        service="account",
        row=SuspendedCredit,
        prefix="suspended/",
        key=("transaction_id",),
        about="payments that could neither be credited nor given back",
        aggregate=None,
    ),
    Table(
        name="suspense",
        service="account",
        row=SuspenseItem,
        prefix="suspense/",
        key=("suspense_id",),
        about="what waits for a person, and what that person said of it",
        aggregate=_before_point,
    ),
    Table(
        name="suspense_resolutions",
        service="account",
        row=SuspenseResolution,
        prefix="resolution/",
        key=("resolution_id",),
        about="words on what is in suspense: the first on each id stands",
        aggregate=None,
    ),
    Table(
        name="suspense_payouts",
        service="account",
        row=SuspensePayout,
        prefix="payout/",
        key=("suspense_id", "attempt"),
        about="which account was asked to take what is in suspense, and whether it did",
        aggregate=None,
    ),
    Table(
        name="ledger",
        service="account",
        row=SystemBalance,
        prefix="ledger/",
        key=("account", "currency"),
        about="system accounts: each partition's share, so sum them, and carried × 10^18 too where it is not 0",
        aggregate=None,
    ),
    Table(
        name="transactions",
        service="transaction",
        row=Transaction,
        prefix="transaction/",
        key=("transaction_id",),
        about="orders and how they ended",
        aggregate=_first,
    ),
    Table(
        name="reversals",
        service="transaction",
        row=Reversal,
        prefix="reversal/",
        key=("transaction_id",),
        about="transactions that something was to undo, and which order may (null: none any more)",
        aggregate=_first,
    ),
    Table(
        name="price_list",
        service="transaction",
        row=PriceList,
        prefix=PRICE_LIST,
        key=(),
        about="what orders cost now, by type and currency",
        aggregate=None,
        first_only=True,
    ),
    Table(
        name="payments",
        service="payment",
        row=Payment,
        prefix="payment/",
        key=("transaction_id",),
        about="what went through the payment rail",
        aggregate=_first,
    ),
    Table(
        name="refunds",
        service="payment",
        row=Refund,
        prefix="refund/",
        key=("payment_id", "refund_id"),
        about="what was ordered to be given back of a payment",
        aggregate=_first,
    ),
    Table(
        name="payment_methods",
        service="payment",
        row=PaymentMethod,
        prefix="method/",
        key=("method_id",),
        about="cards and IBANs, by the provider's token",
        aggregate=_before_point,
    ),
    Table(
        name="user_payment_methods",
        service="payment",
        row=PaymentMethods,
        prefix="methods/",
        key=("user_id",),
        about="which ones a user has",
        aggregate=_first,
    ),
    Table(
        name="provider_days",
        service="payment",
        row=Bookings,
        prefix="bookings/",
        key=("booking_key",),
        about="how many movements a provider made on a day in a currency",
        aggregate=_first,
    ),
    Table(
        name="provider_bookings",
        service="payment",
        row=Booking,
        prefix="booking/",
        key=("booking_key", "end_to_end_id"),
        about="each of them, and which statement had it",
        aggregate=_first,
    ),
    Table(
        name="statements",
        service="payment",
        row=Statement,
        prefix="statement/",
        key=("statement_id",),
        about="providers' statements and how they agree with our books",
        aggregate=_before_point,
    ),
    Table(
        name="statement_breaks",
        service="payment",
        row=StatementBreak,
        prefix="break/",
        key=("statement_id", "number"),
        about="what does not agree",
        aggregate=lambda rest: _before_point(_first(rest)),
    ),
    Table(
        name="settlements",
        service="settlement",
        row=Batch,
        prefix="batch/",
        key=("batch_id",),
        about="what a provider moved in a business day, summed up",
        aggregate=book_of,
    ),
    Table(
        name="settlement_items",
        service="settlement",
        row=Item,
        prefix="item/",
        key=("batch_id", "number"),
        about="what is in a batch, for thirty days",
        aggregate=lambda rest: book_of(_first(rest)),
    ),
    Table(
        name="settlement_breaks",
        service="settlement",
        row=BatchBreak,
        prefix="break/",
        key=("batch_id", "number"),
        about="what the last statement says differently of a batch",
        aggregate=lambda rest: book_of(_first(rest)),
    ),
    Table(
        name="settlement_books",
        service="settlement",
        row=Book,
        prefix="book/",
        key=("book",),
        about="up to which day the batches of provider and currency are closed",
        aggregate=str,
    ),
    Table(
        name="reports",
        service="reporting",
        row=Report,
        prefix="report/",
        key=("report_id",),
        about="reports that were asked for",
        aggregate=schedule_of,
    ),
    Table(
        name="report_schedules",
        service="reporting",
        row=Schedule,
        prefix="schedule/",
        key=("schedule_id",),
        about="reports that are made again and again",
        aggregate=str,
    ),
    Table(
        name="notifications",
        service="notification",
        row=Notification,
        prefix="notification/",
        key=("notification_id",),
        about="what users were told",
        aggregate=_before_point,
    ),
    Table(
        name="audit_chains",
        service="audit",
        row=Chain,
        prefix="chain/",
        key=("chain",),
        about="where the chain of each event topic's partition stands",
        aggregate=_first,
    ),
    Table(
        name="audit_heads",
        service="audit",
        row=Heads,
        prefix="heads/",
        key=("checkpoint_id",),
        about="the heads of all chains, and the last checkpoint",
        aggregate=_first,
    ),
    Table(
        name="analytics_windows",
        service="analytics",
        row=Window,
        prefix="window/",
        key=("interval", "start", "share"),
        about="what ended in a minute, an hour or a day: each partition's share, so sum them",
        aggregate=None,
    ),
    Table(
        name="analytics_user_days",
        service="analytics",
        row=UserDay,
        prefix="user-day/",
        key=("start", "user_id"),
        about="what ended in a day of a user's transactions",
        aggregate=None,
    ),
    Table(
        name="analytics_behaviours",
        service="analytics",
        row=Behaviour,
        prefix="behaviour/",
        key=("user_id",),
        about="all that a user ever ordered, and at which hours of the day (UTC)",
        aggregate=None,
    ),
    Table(
        name="analytics_counted",
        service="analytics",
        row=Counted,
        prefix="counted/",
        key=("source",),
        about="up to where each partition of `transaction.events` is counted",
        aggregate=None,
    ),
    Table(
        name="analytics_clocks",
        service="analytics",
        row=Clock,
        prefix="clock/",
        key=("counting",),
        about="the latest transaction counted, by which windows close",
        aggregate=None,
    ),
    Table(
        name="risk_owners",
        service="risk",
        row=Owner,
        prefix="owner/",
        key=("user_id",),
        about="what risk knows of who orders: counts, and what is reserved of daily limits",
        aggregate=_first,
    ),
    Table(
        name="risk_customers",
        service="risk",
        row=Customer,
        prefix="customer/",
        key=("user_id",),
        about="users as those who order: KYC level, counts, amounts, what the model learnt",
        aggregate=_first,
    ),
    Table(
        name="risk_recipients",
        service="risk",
        row=Recipient,
        prefix="recipient/",
        key=("owner_id", "period", "recipient_id"),
        about="whom a user paid in a period of 15 days; kept for a month",
        aggregate=_first,
    ),
    Table(
        name="risk_config",
        service="risk",
        row=RiskConfiguration,
        prefix=CONFIG,
        key=(),
        about="limits, thresholds and weights that orders are scored by now",
        aggregate=None,
        first_only=True,
    ),
    Table(
        name="risk_scores",
        service="risk",
        row=Score,
        prefix="score/",
        key=("transaction_id",),
        about="risk's answer to each order",
        aggregate=None,
    ),
    Table(
        name="listed_transactions",
        service="risk",
        row=ListedTransaction,
        prefix="listed/",
        key=("owner_id", "number"),
        about="a user's transactions, in the order of their arrival",
        aggregate=_first,
    ),
    Table(
        name="reviews",
        service="risk",
        row=Review,
        prefix="review/",
        key=("review_id",),
        about="what a person had to decide",
        aggregate=_before_point,
    ),
    Table(
        name="blacklist",
        service="risk",
        row=Blacklisted,
        prefix="blacklist/",
        key=("kind", "value"),
        about="users and accounts with which nothing is done",
        aggregate=None,
        first_only=True,
    ),
    Table(
        name="rates",
        service="currency",
        row=Rate,
        prefix="rate/",
        key=("pair",),
        about="rates that were set, as they are now",
        aggregate=None,
        first_only=True,
    ),
    Table(
        name="rate_history",
        service="currency",
        row=Rate,
        prefix="rate-at/",
        key=("pair", "place"),
        about="rates of the last 30 days, of a pair the newest first",
        aggregate=None,
        first_only=True,
    ),
    Table(
        name="quotes",
        service="currency",
        row=Quote,
        prefix="quote/",
        key=("quote_id",),
        about="rates that are or were held for a user",
        aggregate=_first,
    ),
    Table(
        name="fixed_rates",
        service="currency",
        row=FixedRate,
        prefix="fixed/",
        key=("transaction_id",),
        about="the rate of each exchange; none where it was refused",
        aggregate=None,
    ),
)
BY_NAME = {table.name: table for table in TABLES}
USER_ROWS = (
    *("has-account/", "credentials/", "kyc/", "mailed/", "refresh/", "sessions-of/"),
    "session-slot/",
)
# by service and prefix: two services may name their rows alike
AGGREGATES = {(table.service, table.prefix): table.aggregate for table in TABLES} | {
    **{("user", prefix): _first for prefix in USER_ROWS},
    ("user", "address/"): str,
    ("payment", "booking-at/"): _first,
    ("transaction", "grant/"): _first,
}

# the columns of `<service>_events`, as loaded
EVENT_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("service", "VARCHAR", "who said it"),
    ("type", "VARCHAR", "such as `AccountDebited`"),
    ("said_at", "TIMESTAMP", "the broker's time of the input that it was decided from, UTC"),
    ("subject", "VARCHAR", "the aggregate"),
    ("transaction_id", "VARCHAR", "of the order that it belongs to, if any"),
    ("amount_minor", "BIGINT", "of that order"),
    ("currency", "VARCHAR", "of that order"),
    ("reason", "VARCHAR", "why something was refused or failed"),
    ("event_id", "VARCHAR", "`<input topic>-<partition>-<offset>-<n>`"),
    ("causation_id", "VARCHAR", "the message that it was decided from"),
    (
        "correlation_id",
        "VARCHAR",
        "the command that led to it: the order, a person's decision, or a tick",
    ),
    ("actor", "VARCHAR", "who ordered"),
    ("data", "JSON", "the whole event"),
    ("partition", "INTEGER", ""),
    ("offset", "BIGINT", "in `<service>.events`"),
)
EVENTS = {f"{name}_events": name for name in DECIDERS}
# what is made of tables: its SQL, the tables that it needs
VIEWS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "balances": (
        "SELECT account_id, user_id, status, entry.key AS currency, entry.value AS amount_minor "
        "FROM (SELECT account_id, user_id, status, unnest(map_entries(balances)) AS entry "
        "FROM accounts)",
        ("accounts",),
        "`accounts`, a line for each currency",
    ),
    "events": (
        " UNION ALL ".join(f"SELECT * FROM {name}" for name in EVENTS),
        tuple(EVENTS),
        "the events of all services: large, so name one service's where that will do",
    ),
}


def event_line(service: str, record: LogRecord, event: Any) -> dict[str, Any]:
    """An event as a line for DuckDB, in the names of EVENT_COLUMNS."""
    order, headers = getattr(event, "order", None), record.headers
    return {
        "service": service,
        "type": type(event).__name__,
        "said_at": record.at_ms,
        "subject": (record.key or b"").decode(errors="replace"),
        "transaction_id": getattr(order, "transaction_id", None)
        or getattr(event, "transaction_id", None),
        "amount_minor": getattr(order, "amount_minor", None),
        "currency": getattr(order, "currency", None),
        "reason": getattr(event, "reason", None),
        **{
            name: headers.get(header, b"").decode(errors="replace") or None
            for name, header in (
                ("event_id", "ce_id"),
                ("causation_id", "causation_id"),
                ("correlation_id", "correlation_id"),
                ("actor", "actor"),
            )
        },
        "data": event,
        "partition": record.partition,
        "offset": record.offset,
    }


def table_of(service: str, row_key: str) -> Table | None:
    """The table that a service's row belongs to; None for one that has none."""
    own = (table for table in TABLES if table.service == service)
    return next((table for table in own if row_key.startswith(table.prefix)), None)


def aggregate_of(service: str, row_key: str) -> str | None:
    """The aggregate whose events alone make a service's row; None when its key does not tell."""
    prefix, slash, rest = row_key.partition("/")
    find = AGGREGATES.get((service, prefix + slash))
    return find(rest) if find is not None else None


def is_private(row_key: str) -> bool:
    return row_key.startswith(PRIVATE)


def document() -> str:
    """docs/tables.md."""
    lines = [HEAD]
    for table in TABLES:
        lines += [
            f"## {table.name}",
            f"{table.about[0].upper()}{table.about[1:]}. Rows `{table.prefix}"
            f"{'/'.join(f'<{part}>' for part in table.key)}` of the service `{table.service}`.",
            "",
            "| column | type |",
            "| --- | --- |",
            *(f"| `{name}` | {sql} |" for name, sql in table.described),
            "",
        ]
    for name, (_, _, about) in VIEWS.items():
        lines += [f"## {name}", f"{about[0].upper()}{about[1:]}." if about[0] != "`" else about, ""]
    lines += [
        "## " + ", ".join(EVENTS),
        "What each service said, committed, its private facts left out.",
        "",
        "| column | type | what |",
        "| --- | --- | --- |",
        *(f"| `{name}` | {sql} | {about} |" for name, sql, about in EVENT_COLUMNS),
    ]
    return "\n".join(lines)


HEAD = """# Tables

Made by `python -m travel.schema`. `pipeline.py query "SELECT …"`, `POST /api/query` and `from travel import query` read
these tables, now or `--at` a time; `GET /api/tables/{table}/{key}` reads one row, its key being what stands
behind the prefix below (a `/` in it written `%2F`). Amounts are minor units, times UTC. Each table has
`partition`, where the row lives. What is final leaves the tables after 30 days; the events stay.
"""

if __name__ == "__main__":
    print(document())  # noqa: T201 - the page goes to stdout
