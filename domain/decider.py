"""What a service is: rows of state and three pure functions over them.

    message --decide(rows)--> events --evolve(rows)--> rows

A message is a command from the gateway, a fact of another service, a result of an effect, or a
`Tick`. State is a set of rows, each under a key such as `account/<account_id>`; all rows that one
message may need live in the partition that the message arrives in. State is the fold of the
service's own events and of nothing else, so a replay of the events rebuilds it byte for byte.
`handle` is one step of that; the workers, the simulator and the proof all take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

Message: TypeAlias = Any  # one of `Decider.messages`
Event: TypeAlias = Any  # one of `Decider.events` or `Decider.private_events`
Row: TypeAlias = Any  # one of `Decider.rows`
RowKey: TypeAlias = str
Rows: TypeAlias = Mapping[RowKey, Row]
Changes: TypeAlias = Mapping[RowKey, Row | None]  # None: the row is gone

DUE = "due/"
FORGET = "forget"  # the kind of a due row at whose time rows leave the table
KEEP_FINAL_MS = 30 * 24 * 3600 * 1000  # how long what is final stays in the tables
TICK_LIMIT = 100  # due rows that one tick may name
EXPIRY_MS = 200  # what becomes final in so many milliseconds leaves together
FORGET_LIMIT = 10  # of the due rows of a tick, those that let rows go: each may list hundreds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """It is time: these due rows (at most TICK_LIMIT) have passed theirs.

    A duplicate is harmless: it only tells the time again.
    """

    due: tuple[RowKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A row that wants a tick at the time in its key: `kind` is what is due, `subject` for whom."""

    kind: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """A due row of kind FORGET: the rows under these keys became final in one EXPIRY_MS, KEEP_FINAL_MS before."""

    keys: tuple[RowKey, ...]


def due_key(at_ms: int, kind: str, subject: str) -> RowKey:
    """The key of a due row; keys sort by time (13 digits of Unix milliseconds)."""
    return f"{DUE}{at_ms:013d}/{kind}/{subject}"


def due_at_ms(key: RowKey) -> int:
    """The time at which this due row wants its tick, Unix milliseconds."""
    return int(key[len(DUE) : len(DUE) + 13])


def due_kind(key: RowKey) -> str:
    """What is due."""
    return key.split("/", 3)[2]


def due_subject(key: RowKey) -> str:
    """For whom this due row is."""
    return key.split("/", 3)[3]


def due_row(at_ms: int, kind: str, subject: str) -> tuple[RowKey, Due]:
    """A due row under its key."""
    return due_key(at_ms, kind, subject), Due(kind=kind, subject=subject)


@lru_cache(maxsize=64)  # what is decided together became final in few milliseconds
def expiry_key(final_ms: int) -> RowKey:
    """The key of the due row that lists what became final at `final_ms` or shortly around it."""
    due_ms = ((final_ms + KEEP_FINAL_MS) // EXPIRY_MS + 1) * EXPIRY_MS
    return due_key(due_ms, FORGET, "")


def forget(rows: Rows, final_ms: int, *keys: RowKey) -> tuple[RowKey, Expiry]:
    """The due row that lets the rows under `keys`, final at `final_ms`, leave the table in time.

    One for all of a moment: a row each would be a sixth of all that a transfer writes.
    """
    key = expiry_key(final_ms)
    listed: Expiry | None = rows.get(key)
    return key, Expiry(keys=keys if listed is None else (*listed.keys, *keys))


def overdue(rows: Rows, tick: Tick, kind: str, at_ms: int) -> tuple[RowKey, ...]:
    """The due rows of this kind that the tick names, that are still there, and that are due."""
    return tuple(
        key for key in tick.due if due_kind(key) == kind and key in rows and due_at_ms(key) <= at_ms
    )


def expired(rows: Rows, tick: Tick, at_ms: int) -> tuple[RowKey, ...]:
    """The due rows whose listed rows may leave now, at most FORGET_LIMIT: a tick asks for the rest again."""
    return overdue(rows, tick, FORGET, at_ms)[:FORGET_LIMIT]


def tick_keys(tick: Tick) -> tuple[RowKey, ...]:
    """The due rows of a tick, and the rows that they are for."""
    return (*tick.due, *(subject for key in tick.due if (subject := due_subject(key))))


def forgotten(rows: Rows, due: Iterable[RowKey]) -> dict[RowKey, Row | None]:
    """The changes by which due rows and the rows that they list leave the table."""
    return {gone: None for key in due for gone in (key, *rows[key].keys)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """One service: its types and its three functions.

    `keys` names all rows that `decide` may read for a message and `evolve` for an event; a row that is missing is
    absent from the mapping. A worker holds the whole partition and does not ask; the gateway's rehearsal fetches
    those rows alone, and the simulator fails on any other. `decide` gets the broker's
    time of the message in Unix milliseconds, the only clock there is. A service may hear its own
    kind of fact (the account of the destination hears AccountDebited of the source's), so `keys`
    answers for both roles of such a type.
    """

    service: str
    messages: tuple[type, ...]
    events: tuple[type, ...]
    private_events: tuple[type, ...] = ()
    rows: tuple[type, ...]
    keys: Callable[[Message | Event], Sequence[RowKey]]
    decide: Callable[[Rows, Message, int], Sequence[Event]]
    evolve: Callable[[Rows, Event], Changes]
    aggregate_id: Callable[[Event], str]
    indexes: tuple[str, ...] = field(default=(DUE,))


class Overlay(Mapping[RowKey, Row]):
    """Rows as they are after some events, over rows that do not change."""

    __slots__ = ("base", "changes")

    def __init__(self, base: Rows) -> None:
        self.base = base
        self.changes: dict[RowKey, Row | None] = {}

    def __getitem__(self, key: RowKey) -> Row:
        row = self.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def get(self, key: RowKey, default: Row = None) -> Row:
        if key in self.changes:
            row = self.changes[key]
            return default if row is None else row
        return self.base.get(key, default)

    def __iter__(self) -> Iterator[RowKey]:
        keys = dict.fromkeys((*self.base, *self.changes))
        return (key for key in keys if self.get(key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def apply(decider: Decider, rows: Overlay, events: Iterable[Event]) -> Changes:
    """Fold events into `rows`; answers all changes made to them so far."""
    for event in events:
        rows.changes.update(decider.evolve(rows, event))
    return rows.changes


def put(rows: dict[RowKey, Row], changes: Changes) -> None:
    """Make a table what it is after these changes."""
    for key, row in changes.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row


def handle(
    decider: Decider, rows: Rows, message: Message, at_ms: int
) -> tuple[Sequence[Event], Changes]:
    """Decide one message and fold what was decided: the events to say, the rows to write.

    `rows` is read, never written; it may be the whole table of the partition or only the rows that
    `keys` names. No events, no changes: a message that was handled before, or says nothing here.
    """
    events = decider.decide(rows, message, at_ms)
    if not events:
        return (), {}
    return events, apply(decider, Overlay(rows), events)
