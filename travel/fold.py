"""Rows as they were: a service's own events folded again, up to a time or a place.

    <service>.events (+ .private) --in the order of their inputs--> evolve --> rows

All events of one input have one time, the broker's time of the input, which never runs back within a
partition; so a fold to a time ends between two inputs. It ends at the first event that is later, not
where `offsets_for_times` points: that may be the marker of a commit, which has the time of the
commit, with earlier events behind it.

A row is made by the events of one aggregate alone (`schema.Table.aggregate`), by those that speak of
many at once (SHARED), and by those that let final rows go. So one row takes one partition, of which
all other events are passed over unread.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from agents.envelope import place
from domain.decider import DUE, FORGET, Expiry, due_kind, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from domain.account import LegsClosed
    from domain.decider import Changes, Decider, Event, Row, RowKey
    from proof.reader import LogRecord

NOTHING = Expiry(keys=())


def _legs_of(event: LegsClosed, account_id: str) -> LegsClosed:
    return replace(event, legs=tuple(leg for leg in event.legs if leg.account_id == account_id))


# facts of many aggregates at once, under the key of the first: what of them is one aggregate's own
SHARED = {b"streambank.account.LegsClosed": _legs_of}


class Log(Protocol):
    """`proof.reader.Reader`: reads one partition after another."""

    def records(
        self, topic: str, partition: int, start: int | None = None
    ) -> Iterator[LogRecord]: ...


class Decoder(Protocol):
    """`schemas.codec.Codec`."""

    def decode(self, data: bytes) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where the fold of one partition ends; without any, at what is committed now."""

    at_ms: int | None = None  # the last millisecond that counts
    offset: int | None = None  # of `<service>.events`: the first that does not count
    input: int | None = None  # of the inbox: the first whose events do not count

    def before(self, record: LogRecord, events: str) -> bool:
        """True when the end lies before this record. `events`: the topic of public facts."""
        if self.at_ms is not None and record.at_ms > self.at_ms:
            return True
        if self.offset is not None and record.topic == events and record.offset >= self.offset:
            return True
        return self.input is not None and input_of(record)[0] >= self.input


NOW = End()


def input_of(record: LogRecord) -> tuple[int, int]:
    """The inbox offset that an event was decided from, and its number among those."""
    at = place(record.headers["ce_id"])
    return at.offset, at.n


class Said(NamedTuple):
    """One event, and what it changed."""

    record: LogRecord
    event: Event
    before: dict[RowKey, Row | None]
    changes: Changes


class Fold:
    """The rows of one partition of one service, event by event.

    With `aggregate` only the rows of that one are right; they are found many times faster.
    """

    def __init__(self, decider: Decider, codec: Decoder, aggregate: str | None = None) -> None:
        self.decider, self.codec = decider, codec
        self.rows: dict[RowKey, Row] = {} if aggregate is None else _Narrow()
        self.events = 0
        self._aggregate = aggregate
        self._own = None if aggregate is None else aggregate.encode()
        self._owns = None if aggregate is None else f"{aggregate}.".encode()

    def takes(self, record: LogRecord) -> bool:
        """True for what can change the rows that are wanted: told by the key alone."""
        if self._own is None or self._owns is None:
            return True
        key = record.key or b""
        if record.headers.get("ce_type") in SHARED:
            return True
        # a review is an aggregate of its own, `<user_id>.<transaction_id>`, beside its owner's rows
        return key == self._own or key.startswith((self._owns, DUE.encode()))

    def run(self, records: Iterator[LogRecord]) -> dict[RowKey, Row]:
        """Fold all; answers the rows. Raises schemas.errors.Unreadable."""
        evolve, rows = self.decider.evolve, self.rows
        narrow = self._own is not None
        for record in records:
            if narrow and not self.takes(record):
                continue
            self.events += 1
            put(rows, evolve(rows, self._event(record)))
        return rows

    def step(self, record: LogRecord) -> Said:
        """Fold one; answers what it changed."""
        event = self._event(record)
        changes = self.decider.evolve(self.rows, event)
        before = {key: dict.get(self.rows, key) for key in changes}
        put(self.rows, changes)
        self.events += 1
        return Said(record, event, before, changes)

    def _event(self, record: LogRecord) -> Event:
        """The event, of one that is shared only what concerns the aggregate."""
        event = self.codec.decode(record.value or b"")
        if (
            self._aggregate is None
            or (own := SHARED.get(record.headers.get("ce_type", b""))) is None
        ):
            return event
        return own(event, self._aggregate)


class _Narrow(dict[str, Any]):
    """Rows of one aggregate: where a due row lists what others let go as well, it lists nothing of theirs."""

    def get(self, key: str, default: Any = None) -> Any:
        row = super().get(key)
        if row is None and default is None and key.startswith(DUE) and due_kind(key) == FORGET:
            return NOTHING
        return default if row is None else row

    def __missing__(self, key: str) -> Any:
        if key.startswith(DUE):
            return NOTHING
        raise KeyError(key)


def events(
    log: Log,
    prefix: str,
    decider: Decider,
    partition: int,
    end: End = NOW,
    private: Log | None = None,
    start: int | None = None,
) -> Iterator[LogRecord]:
    """One partition's events in the order in which they were decided, up to `end`.

    `start`: the first offset of the public ones that is wanted, where no rows are folded of them.
    `private`: a second log to read the service's private events from. Without it rows that private
    events alone make (`schema.PRIVATE`) are missing, and no others.
    """
    topic = f"{prefix}{decider.service}.events"
    found = log.records(topic, partition, start)
    if private is not None and decider.private_events:
        secrets = private.records(f"{prefix}{decider.service}.private", partition)
        found = heapq.merge(found, secrets, key=input_of)
    for record in found:
        if end.before(record, topic):
            return
        yield record


def shown(
    records: Iterator[LogRecord], show: Callable[[int], None] | None, each: int = 50_000
) -> Iterator[LogRecord]:
    """The same records; `show` is told how many went by."""
    for count, record in enumerate(records, 1):
        if show is not None and count % each == 0:
            show(count)
        yield record
