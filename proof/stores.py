"""verify of the stores: what each holds against the fold of the log.

Log and store go on meanwhile. A row counts as different when the log's word on it stood still from
one look to the next and the store said something else both times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from stores.catalog import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stores.rebuilding import Rebuilding

LOOKS = 3
PAUSE_S = 2.0  # between two looks: time for a projection to write what it has not yet
SHOWN = 3  # differences of a table

ABSENT: Any = None
Said: TypeAlias = Mapping[str, Mapping[str, Document]]  # the log's word: `proof.fold.expected`


@dataclass(slots=True)
class Compared:
    """One table: how many rows it has, and those that differ: the log's document and the store's."""

    rows: int = 0
    differing: dict[str, tuple[Document | None, Document | None]] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        return sum(there is ABSENT for _, there in self.differing.values())

    @property
    def extra(self) -> int:
        return sum(log is ABSENT for log, _ in self.differing.values())

    def counted(self, store: str, table: str) -> str:
        other = len(self.differing) - self.missing - self.extra
        return (
            f"{store:<8} {table:<14} {self.rows:>9,} rows, {self.missing:,} missing, "
            f"{self.extra:,} extra, {other:,} differ"
        )

    def different(self, store: str, table: str) -> Iterator[str]:
        for key, (log, there) in list(self.differing.items())[:SHOWN]:
            yield f"DIFFERENT {store} {table} {key}: {what(log, there)}"


def what(log: Document | None, there: Document | None) -> str:
    """The first field that differs, in words."""
    if there is None:
        return "is missing"
    if log is None:
        return "is in no event"
    name = next(n for n in sorted(log.keys() | there.keys()) if log.get(n) != there.get(n))
    return f"{name} is {there.get(name)!r}, events say {log.get(name)!r}"


async def compare(store: Rebuilding, wanted: Said) -> dict[str, Compared]:
    """Every table of a store, once."""
    found = {}
    for table, documents in wanted.items():
        compared = found[table] = Compared()
        missing = set(documents)
        async for key, document in store.scan(table):
            compared.rows += 1
            missing.discard(key)
            if documents.get(key) != document:
                compared.differing[key] = (documents.get(key), document)
        compared.differing |= {key: (documents[key], ABSENT) for key in missing}
    return found


async def verify(
    name: str,
    store: Rebuilding,
    said: Said,
    fold: Callable[[], Said],
    show: Callable[[str], None],
    progress: Callable[[str], None],
) -> bool:
    """True when the store holds what the log says. `said`: what it said a moment ago; `fold`: now."""
    before: dict[str, Compared] | None = None
    for look in range(LOOKS):
        if look:
            await asyncio.sleep(PAUSE_S)
            said = await asyncio.to_thread(fold)
        found = await compare(store, said)
        if before is not None:
            for table, compared in found.items():
                compared.differing = stood_still(before[table], compared)
        if not any(compared.differing for compared in found.values()):
            break
        before = found
    for table, compared in found.items():
        progress(compared.counted(name, table))
        for line in compared.different(name, table):
            show(line)
    rows = sum(compared.rows for compared in found.values())
    differing = sum(len(compared.differing) for compared in found.values())
    show(f"{name}: {rows:,} rows in {len(found)} tables, {differing:,} not as the log says")
    return not differing


def stood_still(before: Compared, now: Compared) -> dict[str, Any]:
    """What differs now, and did when the log said the same of it."""
    return {
        key: pair
        for key, pair in now.differing.items()
        if key in before.differing and before.differing[key][0] == pair[0]
    }
