"""The lines of a statement: entries in their order, each leading from the balance before it.

    opening + entries = closing, in each currency, or it is no statement

Lines lie in a temporary file; in memory there are sums alone. An event may post to one account
twice, an amount and its fee, and says the balance behind both: it is compared when the event ends.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from gateway.errors import Problem
from gateway.files import MEMORY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

LINES = 1_000_000  # of one statement
PAGE = 200  # lines that are described at once

Line: TypeAlias = dict[str, Any]


class Inconsistent(Exception):
    """An entry does not lead from the balance before it to its own: something is missing."""


class Lines:
    """What was gathered for one statement. `close` it: it has a file."""

    def __init__(self, opening: Mapping[str, int]) -> None:
        self.opening = dict(opening)
        self.running = dict(opening)
        self.credits: Counter[str] = Counter()
        self.debits: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._event: tuple[str, str, int | None] | None = None
        self._file = tempfile.SpooledTemporaryFile(MEMORY)  # noqa: SIM115 - closed by `close`

    def close(self) -> None:
        self._file.close()

    @property
    def count(self) -> int:
        return self.counts.total()

    def add(self, entry: Mapping[str, Any]) -> None:
        """The next entry. Raises Inconsistent."""
        currency, amount_minor = entry["currency"], entry["amount_minor"]
        event = (entry["event_id"], currency, entry["balance_minor"])
        if event != self._event:
            self._check()
        self._event = event
        self.running[currency] = self.running.get(currency, 0) + amount_minor
        (self.credits if amount_minor > 0 else self.debits)[currency] += amount_minor
        self.counts[currency] += 1
        if self.count > LINES:
            raise Problem("FILE_TOO_LARGE", f"a statement has {LINES:,} entries at most")
        line = {**entry, "balance_minor": self.running[currency]}
        self._file.write(orjson.dumps(line) + b"\n")

    def _check(self) -> None:
        if self._event is None:
            return
        event_id, currency, after_minor = self._event
        if after_minor is not None and self.running[currency] != after_minor:
            raise Inconsistent(f"{event_id}: {self.running[currency]}, not {after_minor}")

    def end(self, closing: Mapping[str, int]) -> None:
        """There are no more. Raises Inconsistent unless the sums are what the ledger says."""
        self._check()
        for currency, minor in closing.items():
            if self.running.get(currency, 0) != minor:
                what = f"{currency} closes at {minor}, and the entries lead to"
                raise Inconsistent(f"{what} {self.running.get(currency, 0)}")

    async def describe(self, told: Callable[[list[Line]], Awaitable[list[Line]]]) -> None:
        """Replaces each line by what is told of it, a page at a time."""
        file = tempfile.SpooledTemporaryFile(MEMORY)  # noqa: SIM115 - closed by `close`
        for page in self.pages(PAGE):
            file.writelines(orjson.dumps(line) + b"\n" for line in await told(page))
        self._file.close()
        self._file = file

    def pages(self, size: int) -> Iterator[list[Line]]:
        """All lines again, so many at once."""
        self._file.seek(0)
        page: list[Line] = []
        for line in self._file:
            page.append(orjson.loads(line))
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page


def in_order(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Entries of one millisecond in the order in which their events were decided."""
    return sorted(entries, key=_place)


def _place(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    """An event's id is `<topic>-<partition>-<offset>-<n>`, its partition is the account's."""
    _, offset, n = entry["event_id"].rsplit("-", 2)
    return int(offset), int(n), entry["number"]
