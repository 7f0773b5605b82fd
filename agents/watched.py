"""What a worker watches of its committed rows: keys in order, and figures.

An index holds the keys of one table partition under one prefix, sorted: due rows (a key starts with
its time, so the first keys are the next due) and what the ops server lists, such as open reviews.
The figures are the saga's outcomes and the ledger. The driver tells of each commit, so all of it
says what the table says.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cache
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge, Histogram

from domain.decider import DUE, TICK_LIMIT, Tick, due_at_ms
from domain.ledger import SystemBalance
from domain.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from domain.decider import Changes, RowKey, Rows
    from domain.saga import Reason, TransactionType
    from domain.transaction import Status

TICKS = 20  # at most so many at once; a backlog is worked off over some seconds
PATIENCE_MS = 10_000  # a tick that was asked for is not asked for again before

SAGAS = Counter(
    "streambank_sagas_total", "Transactions that got their end", ["type", "status", "reason"]
)
SAGA_S = Histogram(
    "streambank_saga_seconds",
    "From a transaction's creation to its end, by the broker's clock",
    ["type", "status"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60, 600, 86_400),
)
LEDGER = Gauge(
    "streambank_ledger_minor",
    "Balance of a system account in one partition",
    ["account", "partition", "currency"],
)
IMBALANCE = Gauge(
    "streambank_ledger_imbalance_minor",
    "What the rows written by this process do not sum to zero by: must be 0",
    ["partition", "currency"],
)
DUE_ROWS = Gauge("streambank_due_rows", "Rows that wait for their time", ["service", "partition"])


class KeyIndex:
    """The keys under one prefix, sorted. Appending at the end, the usual case, is cheap."""

    __slots__ = ("keys", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.keys: list[RowKey] = []

    def fill(self, keys: Iterable[RowKey]) -> None:
        """All keys of a restored partition."""
        self.keys = sorted(keys)

    def add(self, key: RowKey) -> None:
        keys = self.keys
        if not keys or key > keys[-1]:
            keys.append(key)
            return
        at = bisect_left(keys, key)
        if keys[at] != key:
            keys.insert(at, key)

    def remove(self, key: RowKey) -> None:
        at = bisect_left(self.keys, key)
        if at < len(self.keys) and self.keys[at] == key:
            del self.keys[at]

    def after(self, key: RowKey, prefix: str, limit: int) -> Sequence[RowKey]:
        """The first keys behind `key` (empty: from the start) that begin with `prefix`."""
        at = bisect_right(self.keys, key) if key else bisect_left(self.keys, prefix)
        found = self.keys[at : at + limit]
        return [key for key in found if key.startswith(prefix)]


class DueRows:
    """Which due rows of one partition want their tick now."""

    __slots__ = ("_asked", "index")

    def __init__(self) -> None:
        self.index = KeyIndex(DUE)
        self._asked: dict[RowKey, int] = {}  # when a tick was last asked for, Unix ms

    def ticks(self, now_ms: int) -> Sequence[Tick]:
        """Ticks for what is due and was not asked for lately. A lost tick is asked for again."""
        asked = {key: at for key, at in self._asked.items() if now_ms - at < PATIENCE_MS}
        due: list[RowKey] = []
        for key in self.index.keys:
            if due_at_ms(key) > now_ms or len(due) == TICKS * TICK_LIMIT:
                break
            if key not in asked:
                due.append(key)
        self._asked = asked | dict.fromkeys(due, now_ms)
        return [Tick(due=tuple(due[at : at + TICK_LIMIT])) for at in range(0, len(due), TICK_LIMIT)]


class Watched:
    """All that is watched of one service's table, by partition. A `streaming` table watcher."""

    def __init__(self, prefixes: Sequence[str], service: str) -> None:
        self.service = service
        self.due: dict[int, DueRows] = {}
        self.indexes: dict[int, list[KeyIndex]] = {}
        self._prefixes = tuple(prefix for prefix in prefixes if prefix != DUE)
        self._indexed = tuple(prefix.encode() for prefix in (DUE, *self._prefixes))

    def assigned(self, partition: int, view: Any) -> None:
        due = self.due[partition] = DueRows()
        indexes = [due.index, *(KeyIndex(prefix) for prefix in self._prefixes)]
        for index in indexes:
            index.fill(key.decode() for key, _ in view.scan(index.prefix.encode()))
        self.indexes[partition] = indexes
        for _, row in view.scan(b"ledger/"):
            _show(partition, row)

    def committed(self, partition: int, changes: Mapping[bytes, Any]) -> None:
        indexes = self.indexes[partition]
        for raw_key, row in changes.items():
            if raw_key.startswith(self._indexed):  # few rows are
                key = raw_key.decode()
                for index in indexes:
                    if key.startswith(index.prefix):
                        (index.remove if row is None else index.add)(key)
            if isinstance(row, Transaction):
                _count(row)
            elif isinstance(row, SystemBalance):
                _show(partition, row)

    def revoked(self, partition: int) -> None:
        self.due.pop(partition, None)
        self.indexes.pop(partition, None)
        for gauge in (LEDGER, IMBALANCE):
            _forget(gauge, partition)

    def ticks(self, now_ms: int) -> Iterator[tuple[int, Sequence[Tick]]]:
        """The ticks that each held partition wants now."""
        for partition, due in list(self.due.items()):
            DUE_ROWS.labels(self.service, partition).set(len(due.index.keys))
            yield partition, due.ticks(now_ms)

    def listed(self, partition: int, prefix: str, after: RowKey, limit: int) -> Sequence[RowKey]:
        """Keys of a partition in order. LookupError: no index of this service covers the prefix."""
        for index in self.indexes[partition]:
            if prefix.startswith(index.prefix):
                return index.after(after, prefix, limit)
        raise LookupError(f"{self.service} has no index for {prefix!r}")


def _count(row: Transaction) -> None:
    if row.completed_ms is None or row.completed_ms != row.updated_ms:
        return
    count, seconds = _outcome(row.order.type, row.status, row.reason)
    count.inc()
    seconds.observe((row.completed_ms - row.created_ms) / 1000)


@cache  # a few dozen outcomes; finding a metric by its labels costs more than to count
def _outcome(
    kind: TransactionType, status: Status, reason: Reason | None
) -> tuple[Counter, Histogram]:
    return SAGAS.labels(kind, status, reason or ""), SAGA_S.labels(kind, status)


def _show(partition: int, row: SystemBalance) -> None:
    LEDGER.labels(row.account, partition, row.currency).set(row.total_minor)
    IMBALANCE.labels(partition, row.currency).inc(0)


def _forget(gauge: Gauge, partition: int) -> None:
    for metric in gauge.collect():
        for sample in metric.samples:
            if sample.labels["partition"] == str(partition):
                gauge.remove(*(sample.labels[name] for name in gauge._labelnames))


def weigh(partition: int, rows: Rows, changes: Changes) -> None:
    """Show by how much changed balances do not sum to zero: by nothing, or we are wrong."""
    totals: dict[str, int] = {}
    for key, row in changes.items():
        if row is None:
            continue
        if key.startswith("account/"):
            before = rows.get(key)
            for currency, balance_minor in row.balances.items():
                was = before.balances.get(currency, 0) if before else 0
                totals[currency] = totals.get(currency, 0) + balance_minor - was
        elif key.startswith("ledger/"):
            before = rows.get(key)
            was = before.total_minor if before else 0
            totals[row.currency] = totals.get(row.currency, 0) + row.total_minor - was
    for currency, imbalance_minor in totals.items():
        if imbalance_minor:
            IMBALANCE.labels(partition, currency).inc(imbalance_minor)
