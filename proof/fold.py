"""What the stores must hold, computed from the events alone, with the services' own deciders.

The changelogs let old rows go and are not read: the events are for ever. Rows that left their table
in time stay documents, as they do in the stores.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from agents.envelope import place
from domain.decider import Overlay
from domain.services import DECIDERS
from stores import catalog
from stores.catalog import ENTRIES, EVENTS, LINKS, NAMES, json_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agents.transact import Codec
    from domain.decider import Decider
    from proof.reader import LogRecord, Reader
    from stores.catalog import Change, Document, Entry, Said


# what an event raises that this program can't fold
UNFOLDABLE = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)


class Folding:
    """One partition of one service: its rows so far, and what each event changes of documents."""

    def __init__(self, decider: Decider, codec: Codec, partition: int) -> None:
        self.decider, self.codec, self.partition = decider, codec, partition
        self.changelog = f"{decider.service}-table-changelog"
        self._rows: dict[str, Any] = {}

    def changes(self, record: LogRecord) -> Iterator[Change]:
        """Documents as they are after this event."""
        event = self.codec.decode(record.value or b"")
        for key, row in self.decider.evolve(Overlay(self._rows), event).items():
            if row is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = row
            if self.changelog not in catalog.CHANGELOGS:
                continue
            kind = catalog.kind_of(self.changelog, key, self.partition)
            change = None if kind is None else catalog.change(kind, key, row)
            if change is not None:
                yield change

    def said(self, record: LogRecord) -> tuple[Said, Iterator[Entry]]:
        """A public event as the stores hold it, and its ledger entries."""
        event = self.codec.decode(record.value or b"")
        at = (self.partition, record.offset)
        said = catalog.said(self.decider.service, event, record.headers, at)
        return said, catalog.entries(said.event_id, event)


def events(reader: Reader, namespace: str, decider: Decider, partition: int) -> Iterable[LogRecord]:
    """All that a service said in a partition, the private too, in the order of their ids."""
    public = reader.records(f"{namespace}{decider.service}.events", partition)
    if not decider.private_events:
        return public
    # both kinds of one input lie in two topics: their ids say how they belong together
    private = reader.records(f"{namespace}{decider.service}.private", partition)
    return heapq.merge(list(public), list(private), key=_order)


def is_public(record: LogRecord) -> bool:
    return record.topic.endswith(".events")


def _order(record: LogRecord) -> tuple[int, int]:
    try:
        at = place(record.headers.get("ce_id", b""))
    except ValueError:
        return (-1, -1)  # whoever walks along says what is wrong with it
    return at.offset, at.n


def expected(
    reader: Reader, namespace: str, codec: Codec, partitions: int
) -> dict[str, dict[str, Document]]:
    """What each of `catalog.NAMES` must hold, by key."""
    found: dict[str, dict[str, Document]] = {name: {} for name in NAMES}
    for decider in DECIDERS.values():
        for partition in range(partitions):
            folding = Folding(decider, codec, partition)
            for record in events(reader, namespace, decider, partition):
                for change in folding.changes(record):
                    if change.document is None:
                        found[change.kind.name].pop(change.key, None)
                    else:
                        found[change.kind.name][change.key] = change.document
                if decider.service == "audit":
                    event = codec.decode(record.value or b"")
                    found[LINKS].update({one.entry: json_of(one) for one in catalog.links(event)})
                if is_public(record) and decider.service not in catalog.WATCHERS:
                    said, entries = folding.said(record)
                    found[EVENTS][said.event_id] = json_of(said)
                    found[ENTRIES].update({one.entry_id: json_of(one) for one in entries})
    return found
