"""timeline: what became of one transaction, account or user, input by input, across the services.

    input (inbox, while it is held)  -->  events that it caused  -->  rows then, what changed marked

An order names all who take part, so a transaction is followed without a search: its own partition of
`transaction` and `payment`, its accounts' of `account`, its owner's of `risk` and `notification`, of an
exchange its own or its quote's of `currency`.
Inputs that caused nothing are shown too, while the inbox holds them. Private facts are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.envelope import place, rfc3339
from domain.account import ACCOUNT, LegsClosed
from domain.currency import CURRENCY, exchange_id
from domain.decider import DUE
from domain.notification import NOTIFICATION
from domain.notification_rows import source
from domain.payment import PAYMENT
from domain.risk import RISK
from domain.saga import TransactionType, undoes
from domain.transaction import TRANSACTION
from domain.user import USER
from proof.reader import Reader
from streaming import partition_of
from travel.fold import Fold, Said, events
from travel.schema import OMITTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.decider import Decider
    from domain.saga import Order
    from proof.reader import LogRecord
    from topics.catalog import Installation
    from travel.fold import Decoder

SHOWN = 200  # inputs, the last ones, of an aggregate with a long life
WIDTH = 100
NOT_THERE = "(not there)"
# of events and inputs alike: fields that say nothing to a reader, or what the headers say already
QUIET = frozenset(("request_hash", "steps", "at_ms", "updated_ms"))


class Changed(NamedTuple):
    """One field of one row."""

    row: str
    field: str  # a dotted path, empty for a row that came or went
    before: Any
    after: Any


@dataclass(slots=True)
class Entry:
    """One input, and what its service made of it."""

    at_ms: int
    service: str
    place: str  # of the input: topic-partition-offset
    input: str = ""  # its type; empty when the inbox holds it no more
    source: str = ""
    cause: str = ""  # its id
    correlation: str = ""
    actor: str = ""
    events: list[tuple[str, Any]] = field(default_factory=list)
    changes: list[Changed] = field(default_factory=list)
    rows: dict[str, Any] = field(default_factory=dict)  # as they are then; None: gone


class Part(NamedTuple):
    """Where a part of the story is told: one aggregate of one service."""

    decider: Decider
    aggregate: str


class Timeline:
    """Reads one story. `codec` decodes events, and tells the types of inputs."""

    def __init__(
        self, kafka: Mapping[str, Any], installation: Installation, codec: Decoder
    ) -> None:
        self._installation, self._codec = installation, codec
        self._reader = Reader(kafka)

    def close(self) -> None:
        self._reader.close()

    def of(self, id_: str) -> list[Entry]:
        """In the order of time. Raises LookupError for an id of which no event tells."""
        order = self._order(id_)
        if order is not None:
            found = [entry for part in parts_of(order) for entry in self._entries(part, order)]
            return sorted(found, key=lambda entry: entry.at_ms)
        for parts in ((Part(ACCOUNT, id_),), (Part(USER, id_), Part(RISK, id_))):
            found = [entry for part in parts for entry in self._entries(part, None)]
            if any(entry.events for entry in found):
                return sorted(found, key=lambda entry: entry.at_ms)[-SHOWN:]
        raise LookupError(f"no event tells of a transaction, an account or a user {id_[:60]!r}")

    def _order(self, id_: str) -> Order | None:
        for record in self._records(Part(TRANSACTION, id_)):
            order: Order | None = getattr(self._codec.decode(record.value or b""), "order", None)
            if order is not None and order.transaction_id == id_:
                return order
        return None

    def _partition(self, part: Part) -> int:
        return partition_of(part.aggregate.encode(), self._installation.partitions)

    def _records(self, part: Part) -> Iterator[LogRecord]:
        """The events of an aggregate, and those that let rows go."""
        prefix, partition = self._installation.namespace, self._partition(part)
        takes = Fold(part.decider, self._codec, part.aggregate).takes
        return filter(takes, events(self._reader, prefix, part.decider, partition))

    def _entries(self, part: Part, order: Order | None) -> list[Entry]:
        """What one aggregate tells; of a transaction when `order` is given."""
        fold = Fold(part.decider, self._codec, part.aggregate)
        entries: dict[str, Entry] = {}
        for record in self._records(part):
            said = fold.step(record)
            if _concerns(said, order):
                where = record.headers["ce_id"].decode().rpartition("-")[0]
                entry = entries.get(where)
                if entry is None:
                    entry = entries[where] = _entry(part.decider.service, where, record)
                _tell(entry, said, order)
        if entries:
            self._add_inputs(part, order, entries)
        return list(entries.values())

    def _add_inputs(self, part: Part, order: Order | None, entries: dict[str, Entry]) -> None:
        """What the inbox still holds of these inputs, and of those that caused nothing."""
        topic = f"{self._installation.namespace}{part.decider.service}.inbox"
        start = min(place(f"{where}-0".encode()).offset for where in entries)
        own, needle = part.aggregate.encode(), (order.transaction_id.encode() if order else b"")
        for record in self._reader.records(topic, self._partition(part), start):
            where = f"{topic}-{record.partition}-{record.offset}"
            ours = record.key == own and needle in (record.value or b"")
            if where not in entries and ours:
                entries[where] = _entry(part.decider.service, where, record)
                entries[where].cause = record.headers.get("ce_id", where.encode()).decode()
            if where in entries:
                entry, headers = entries[where], record.headers
                entry.input = headers.get("ce_type", b"").decode().rpartition(".")[2]
                entry.source = headers.get("ce_source", b"").decode().strip("/")


def parts_of(order: Order) -> list[Part]:
    """Where a transaction leaves traces."""
    accounts = dict.fromkeys([order.source_account_id, order.destination_account_id])
    undone = [order.terms.original_transaction_id] if order.terms and undoes(order) else []
    exchanges = order.type is TransactionType.EXCHANGE
    return [
        Part(TRANSACTION, order.transaction_id),
        *[Part(TRANSACTION, original) for original in undone if original],  # which grants it
        *([Part(CURRENCY, exchange_id(order))] if exchanges else []),
        Part(RISK, order.owner_id),
        *[Part(ACCOUNT, account) for account in accounts if account],
        Part(PAYMENT, order.transaction_id),
        Part(NOTIFICATION, order.owner_id),
    ]


def _concerns(said: Said, order: Order | None) -> bool:
    event = said.event
    if type(event).__name__.endswith("Forgotten"):
        return any(row is not None and not key.startswith(DUE) for key, row in said.before.items())
    if isinstance(event, LegsClosed):
        closed = [leg.transaction_id for leg in event.legs]
        return bool(closed) if order is None else order.transaction_id in closed
    if order is None:
        return True
    found = getattr(event, "order", None)
    ids = (
        getattr(found, "transaction_id", None),
        getattr(event, "transaction_id", None),
        source(getattr(event, "notification_id", "")),
    )
    return order.transaction_id in ids


def _entry(service: str, where: str, record: LogRecord) -> Entry:
    def said(name: str) -> str:
        return record.headers.get(name, b"").decode(errors="replace")

    return Entry(
        at_ms=record.at_ms,
        service=service,
        place=where,
        cause=said("causation_id"),
        correlation=said("correlation_id"),
        actor=said("actor"),
    )


def _tell(entry: Entry, said: Said, order: Order | None) -> None:
    """Add an event to the entry of its input."""
    entry.events.append((type(said.event).__name__, said.event))
    for key, after in said.changes.items():
        if key.startswith(OMITTED) or not _of_story(key, order):
            continue
        before = said.before[key]
        entry.changes += _differences(key, before, after)
        entry.rows[key] = after


def _of_story(key: str, order: Order | None) -> bool:
    """False for what other transactions change too, and what forgetting takes along."""
    if order is None or key.startswith("account/"):
        return True
    return order.transaction_id in key


def _differences(key: str, before: Any, after: Any) -> Iterator[Changed]:
    if before is None or after is None:
        if before is not after:
            yield Changed(key, "", before, after)
        return
    one, other = _flat(before), _flat(after)
    for name in one.keys() | other.keys():
        if one.get(name) != other.get(name) and name not in QUIET:
            yield Changed(key, name, one.get(name), other.get(name))


def _flat(row: Any, path: str = "") -> dict[str, Any]:
    """The fields of a row by dotted path."""
    if is_dataclass(row):
        pairs = [(field.name, getattr(row, field.name)) for field in fields(row)]
    elif isinstance(row, Mapping):
        pairs = list(row.items())
    else:
        return {path: row}
    return {
        name: value
        for part, inner in pairs
        for name, value in _flat(inner, f"{path}.{part}" if path else part).items()
    }


def lines(entries: list[Entry]) -> Iterator[str]:
    """For a terminal of WIDTH columns."""
    if len(entries) == SHOWN:
        yield f"the last {SHOWN} inputs:"
    for entry in entries:
        source = f" from {entry.source}" if entry.source else ""
        name = entry.input or "(input no longer held)"
        yield _fit(f"{rfc3339(entry.at_ms).decode()}  {entry.service:<12} {name}{source}")
        yield _fit(f"    input {entry.place}  caused by {entry.cause}")
        for kind, event in entry.events:
            yield _fit(f"  > {kind}{_brief(event)}")
        if not entry.events:
            yield "  > nothing: it was known before, or concerned nobody"
        for change in sorted(entry.changes, key=_order_of):
            yield _fit(f"    {_marked(change)}")


def _brief(event: Any) -> str:
    """What an event says in short: its reason, amounts, status."""
    said = []
    order = getattr(event, "order", None)
    if order is not None:
        said.append(f"{order.type} {order.amount_minor} {order.currency}")
    for name in ("reason", "status", "command", "template", "number"):
        value = getattr(event, name, None)
        if value is not None:
            said.append(f"{name} {value}")
    return f"  ({', '.join(said)})" if said else ""


def _marked(change: Changed) -> str:
    """`*` changed, `+` came, `-` went."""
    if not change.field:
        if change.before is None:
            return f"+ {change.row}  {_state(change.after)}"
        return f"- {change.row}"
    before, after = _value(change.before), _value(change.after)
    return f"* {change.row}  {change.field}: {before} -> {after}"


def _state(row: Any) -> str:
    """A row that came, in short."""
    flat = _flat(row)
    names = [name for name in flat if name.split(".")[-1] in ("status", "state")]
    names += [name for name in flat if name.startswith("balances.")]
    return ", ".join(f"{name} {_value(flat[name])}" for name in names)


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"{len(value)} entries" if value and is_dataclass(value[0]) else ",".join(value)
    return str(value)


def _fit(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def document(entries: list[Entry]) -> list[dict[str, Any]]:
    """For machines: the same in full, ready for JSON."""
    return [
        {
            "at": rfc3339(entry.at_ms).decode(),
            "service": entry.service,
            "input": {
                "place": entry.place,
                "type": entry.input or None,
                "source": entry.source or None,
                "id": entry.cause or None,
                "correlation_id": entry.correlation or None,
                "actor": entry.actor or None,
            },
            "events": [{"type": kind, "data": event} for kind, event in entry.events],
            "changes": [change._asdict() for change in sorted(entry.changes, key=_order_of)],
            "rows": entry.rows,
        }
        for entry in entries
    ]


def _order_of(change: Changed) -> tuple[str, str]:
    return change.row, change.field
