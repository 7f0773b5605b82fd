"""What the stores hold, the same in each: one page, no I/O.

    <service>-table-changelog --rows--> documents   users, accounts, transactions, payments, …
    <service>.events --------facts--> events (what happened, who did it), entries (the ledger)

A document is a row of a service's table, as the workers' ops servers show it: the fold of the
service's events, committed in one transaction with them. It replaces an older version of itself
and nothing else, so that told twice, or late, is told once. A row that leaves its table because its
time is over stays in the stores, but where `Kind.removed`. Events and entries have ids and are only
ever added.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import orjson

from domain.account import Account
from domain.analytics import Window
from domain.audit import EntriesChained, unpacked
from domain.blacklist import Blacklisted
from domain.currency import Quote, Rate
from domain.holds import Hold
from domain.ledger import balances_of
from domain.notification_rows import Notification
from domain.payment_methods import PaymentMethod, owner_of
from domain.payment_rows import Payment, Refund
from domain.reconciliation import Statement, StatementBreak, home_of
from domain.reporting import Report, Schedule
from domain.reporting import home_of as schedule_of
from domain.risk import Review
from domain.services import DECIDERS
from domain.settlement import Batch as SettlementBatch
from domain.settlement import BatchBreak
from domain.settlement import Item as SettlementItem
from domain.settlement import home_of as book_of
from domain.transaction import Transaction
from domain.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Document: TypeAlias = dict[str, Any]  # JSON: the row's fields, nested as they are
At: TypeAlias = tuple[str, int]  # topic without the installation's namespace, partition


def _version(row: Any) -> int:
    return int(row.version)


def _account(row: Any) -> int:
    """An account's version counts what its owner sees; that a leg closed changes the row too."""
    open_legs: int = min(row.open_legs, _LEGS - 1)
    return _version(row) * _LEGS + _LEGS - 1 - open_legs


_LEGS = 1 << 20


def _once(_: Any) -> int:
    return 1


def _at_ms(row: Any) -> int:
    return int(row.at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of document: a collection in MongoDB, a table in MySQL, under the same name."""

    name: str
    service: str
    row: type
    prefix: str  # of the row's key in the service's table; the document's key is what follows it
    version: Callable[[Any], int] = _version  # grows with each change of the document
    removed: bool = False  # a deleted row is deleted here too; else it stays
    stays: bool = False  # the row never leaves its table
    named: str = ""  # the document's field that is its key, which rows of older versions lack
    copied: bool = False  # each partition has a copy of the row: that of partition 0 is taken
    home: Callable[[str], str] = str  # under which key its service has the document of this key

    @property
    def changelog(self) -> str:
        """Where its rows come from."""
        return f"{self.service}-table-changelog"

    def key(self, row_key: str) -> str:
        return row_key.removeprefix(self.prefix)


KINDS: tuple[Kind, ...] = (
    Kind(name="users", service="user", row=User, prefix="user/", stays=True),
    Kind(
        name="accounts",
        service="account",
        row=Account,
        prefix="account/",
        version=_account,
        stays=True,
    ),
    Kind(name="transactions", service="transaction", row=Transaction, prefix="transaction/"),
    Kind(name="payments", service="payment", row=Payment, prefix="payment/"),
    Kind(
        name="notifications",
        service="notification",
        row=Notification,
        prefix="notification/",
        named="notification_id",
        home=lambda key: key.partition(".")[0],
    ),
    Kind(
        name="reviews",
        service="risk",
        row=Review,
        prefix="review/",
        home=lambda key: key.partition(".")[0],
    ),
    Kind(
        name="blacklist",
        service="risk",
        row=Blacklisted,
        prefix="blacklist/",
        version=_at_ms,
        removed=True,
        copied=True,
    ),
    Kind(name="rates", service="currency", row=Rate, prefix="rate/", copied=True),
    Kind(
        name="rate_history",
        service="currency",
        row=Rate,
        prefix="rate-at/",
        version=_once,
        copied=True,
    ),
    Kind(name="quotes", service="currency", row=Quote, prefix="quote/"),
    Kind(name="holds", service="account", row=Hold, prefix="hold/", home=owner_of),
    Kind(
        name="payment_methods",
        service="payment",
        row=PaymentMethod,
        prefix="method/",
        home=owner_of,
    ),
    Kind(
        name="refunds",
        service="payment",
        row=Refund,
        prefix="refund/",
        home=lambda key: key.partition("/")[0],
    ),
    Kind(
        name="statements",
        service="payment",
        row=Statement,
        prefix="statement/",
        home=home_of,
    ),
    Kind(
        name="statement_breaks",
        service="payment",
        row=StatementBreak,
        prefix="break/",
        version=_once,
        home=lambda key: home_of(key.partition("/")[0]),
    ),
    Kind(
        name="analytics_events",
        service="analytics",
        row=Window,
        prefix="window/",
        removed=True,
    ),
    Kind(
        name="settlements",
        service="settlement",
        row=SettlementBatch,
        prefix="batch/",
        home=book_of,
    ),
    Kind(
        name="settlement_items",
        service="settlement",
        row=SettlementItem,
        prefix="item/",
        version=_once,
        home=lambda key: book_of(key.partition("/")[0]),
    ),
    Kind(
        name="settlement_breaks",
        service="settlement",
        row=BatchBreak,
        prefix="break/",
        removed=True,
        home=lambda key: book_of(key.partition("/")[0]),
    ),
    Kind(name="report_schedules", service="reporting", row=Schedule, prefix="schedule/"),
    Kind(name="reports", service="reporting", row=Report, prefix="report/", home=schedule_of),
)
BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
EVENTS = "events"  # in MySQL: audit_trail
ENTRIES = "entries"
LINKS = "audit_logs"  # of each event its place in its chain of hashes
NAMES = (*(kind.name for kind in KINDS), EVENTS, ENTRIES, LINKS)

CHANGELOGS: Mapping[str, tuple[Kind, ...]] = {
    changelog: tuple(kind for kind in KINDS if kind.changelog == changelog)
    for changelog in dict.fromkeys(kind.changelog for kind in KINDS)
}
# what audit and analytics say is how others' facts were watched, not what happened to anybody
WATCHERS = frozenset({"audit", "analytics"})
FACTS: tuple[str, ...] = tuple(
    f"{service}.events" for service in DECIDERS if service not in WATCHERS
)
AUDIT_LOG = "audit.events"
TOPICS: tuple[str, ...] = (*CHANGELOGS, *FACTS, AUDIT_LOG)


def sources(name: str) -> Collection[str]:
    """The topics that one of NAMES is filled from."""
    if name in (EVENTS, ENTRIES):
        return FACTS
    if name == LINKS:
        return (AUDIT_LOG,)
    return [log for log, kinds in CHANGELOGS.items() if any(kind.name == name for kind in kinds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A document as it is from this version on; `document` None: it is gone."""

    kind: Kind
    key: str
    version: int
    document: Document | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A fact of `<service>.events`: what happened to which aggregate, and who caused it."""

    event_id: str  # ce_id
    service: str
    type: str  # the event's name, without `streambank.<service>.`
    aggregate_id: str
    transaction_id: str | None  # of the saga that it belongs to
    actor_id: str | None  # who gave the command that led to it
    correlation_id: str | None
    causation_id: str | None
    trace_id: str | None
    address: str | None  # of the client that gave the command
    request_id: str | None  # of the request that it gave it in
    partition: int
    offset: int
    at_ms: int
    data: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One posting of an event: `amount_minor` was added to `account` (an id or a system account)."""

    event_id: str
    number: int  # within the event, from 0
    account: str
    currency: str
    amount_minor: int
    balance_minor: int | None  # of a customer's account, after it; None: a system account
    transaction_id: str
    at_ms: int

    @property
    def entry_id(self) -> str:
        """Under which a store holds it; sorts as the entries of its event do."""
        return f"{self.event_id}/{self.number:03d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One entry of a chain of audit: the record at `offset` of `chain`, the `number`-th, from 0."""

    entry: str  # <topic>-<partition>-<offset>: where the record lies
    chain: str
    offset: int
    number: int
    link: str  # SHA-256, hex
    at_ms: int  # when it was chained


@dataclass(slots=True)
class Batch:
    """What records of one partition say, in their order; of each document its newest version."""

    changes: dict[tuple[str, str], Change] = field(default_factory=dict)  # by kind and key
    events: list[Said] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def add(self, change: Change) -> None:
        self.changes[change.kind.name, change.key] = change

    def of(self, kind: Kind) -> list[Change]:
        """The changes of one kind."""
        return [change for change in self.changes.values() if change.kind is kind]


class Overtaken(Exception):
    """Someone else wrote this partition's records: `stored` is the offset to go on from."""

    def __init__(self, at: At, stored: int) -> None:
        super().__init__(f"{at[0]}-{at[1]} was written up to {stored} by someone else")
        self.at, self.stored = at, stored


class Unavailable(Exception):
    """The store does not answer, or its breaker is open: nothing was read or is known written."""


class OtherSchema(Exception):
    """The store's schema is older or newer than this program: one sentence, and what to do."""


class Unfit(Exception):
    """The store can't hold what a batch says, such as a number that is too large: a sentence."""


class Store(Protocol):
    """What a projection needs of a store. All raise Unavailable while it does not answer."""

    name: str

    async def migrate(self) -> int:
        """Bring the schema to this program's number and return it. Raises OtherSchema."""

    async def check(self) -> None:
        """Raises OtherSchema."""

    async def close(self) -> None:
        """Let go of all connections."""

    async def positions(self) -> dict[At, int]:
        """The offset from which each partition is to be read; absent: from its first record."""

    async def write(self, at: At, expected: int, following: int, batch: Batch) -> None:
        """Write a batch and move the position of `at` from `expected` to `following`.

        Idempotent: an older version of a document, and an event or entry that is there, change
        nothing. Where the store has transactions all of it happens or nothing, otherwise the
        position moves last. Raises Overtaken when the position was not `expected`, and Unfit.
        """


def json_of(value: Any) -> Any:
    """A row or fact of the domain as JSON values: what `orjson` makes of its dataclasses."""
    return orjson.loads(orjson.dumps(value))


def kind_of(changelog: str, row_key: str, partition: int) -> Kind | None:
    """Which kind of document a row is; None: the stores don't hold it."""
    for kind in CHANGELOGS[changelog]:
        if row_key.startswith(kind.prefix) and not (kind.copied and partition):
            return kind
    return None


def change(kind: Kind, row_key: str, row: Any) -> Change | None:
    """What a changelog record says; None: nothing, as of a row that left its table in time."""
    if row is not None:
        document = json_of(row)
        if kind.named:
            document[kind.named] = kind.key(row_key)
        return Change(
            kind=kind,
            key=kind.key(row_key),
            version=kind.version(row),
            document=document,
        )
    if not kind.removed:
        return None
    return Change(kind=kind, key=kind.key(row_key), version=0, document=None)


def said(service: str, event: Any, headers: Mapping[str, bytes], place: tuple[int, int]) -> Said:
    """A fact with its envelope; `place`: partition and offset in `<service>.events`."""
    partition, offset = place
    data = json_of(event)
    order = data.get("order") or data
    trace = _text(headers, "traceparent")
    address, _, request_id = (_text(headers, "origin") or "").partition(" ")
    return Said(
        event_id=headers["ce_id"].decode(),
        service=service,
        type=type(event).__name__,
        aggregate_id=headers["ce_subject"].decode(),
        transaction_id=order.get("transaction_id"),
        actor_id=_text(headers, "actor"),
        correlation_id=_text(headers, "correlation_id"),
        causation_id=_text(headers, "causation_id"),
        trace_id=trace.split("-")[1] if trace and trace.count("-") == 3 else None,
        address=address or None,
        request_id=request_id or None,
        partition=partition,
        offset=offset,
        at_ms=event.at_ms,
        data=data,
    )


def entries(event_id: str, event: Any) -> Iterator[Entry]:
    """The ledger entries of a fact that moves money; none of any other."""
    postings: Sequence[Any] = getattr(event, "postings", ())
    moved = balances_of(event) if postings else ()
    balances = {(one.account_id, one.currency): one.before_minor for one in moved}
    for number, posting in enumerate(postings):
        place = posting.account, posting.currency
        if place in balances:  # an amount and its fee are two entries of one event
            balances[place] += posting.amount_minor
        yield Entry(
            event_id=event_id,
            number=number,
            account=posting.account,
            currency=posting.currency,
            amount_minor=posting.amount_minor,
            balance_minor=balances.get(place),
            transaction_id=event.order.transaction_id,
            at_ms=event.at_ms,
        )


def links(event: Any) -> Iterator[Link]:
    """The links that an event of audit says; none of any other."""
    if not isinstance(event, EntriesChained):
        return
    hashes = unpacked(event.links)
    for number, (offset, link) in enumerate(zip(event.offsets, hashes, strict=True), event.first):
        yield Link(
            entry=f"{event.chain}-{offset}",
            chain=event.chain,
            offset=offset,
            number=number,
            link=link.hex(),
            at_ms=event.at_ms,
        )


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode(errors="backslashreplace")
