"""What a service is: rows of state and three pure functions over them.

    message --decide(rows)--> events --evolve(rows)--> rows

A message is a command from the gateway, a fact of another service, a result of an effect, or a `Tick`.
State is a set of rows, each under a key such as `account/<account_id>`; all rows that one message may need
live in the partition that the message arrives in. State is the fold of the service's own events and
of nothing else, so a replay of the events rebuilds it byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Message: TypeAlias = Any  # one of `Decider.messages`
Event: TypeAlias = Any  # one of `Decider.events`
Row: TypeAlias = Any  # one of `Decider.rows`
RowKey: TypeAlias = str
Rows: TypeAlias = Mapping[RowKey, Row]
Changes: TypeAlias = Mapping[RowKey, Row | None]  # None: the row is gone

DUE = "due/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """It is time: these due rows (at most 100) have passed their time. Duplicates only tell the time again."""

    due: tuple[RowKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A row that wants a tick at the time in its key: `kind` says what is due, `subject` for which aggregate."""

    kind: str
    subject: str


def due_key(at_ms: int, kind: str, subject: str) -> RowKey:
    """The key of a due row; keys sort by time (13 digits of Unix milliseconds)."""
    return f"{DUE}{at_ms:013d}/{kind}/{subject}"


def due_at_ms(key: RowKey) -> int:
    """The time at which this due row wants its tick, Unix milliseconds."""
    return int(key[len(DUE) : len(DUE) + 13])


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """One service: its types and its three functions.

    `keys` names the rows that `decide` reads for a message and that `evolve` reads for an event;
    both see only those rows (a missing row is absent from the mapping). `decide` gets the broker's
    time of the message in Unix milliseconds, the only clock there is.
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
        row = self.changes[key] if key in self.changes else self.base.get(key)
        if row is None:
            raise KeyError(key)
        return row

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
