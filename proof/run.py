"""verify over a running installation: reads its logs, walks them, reports."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from agents.transact import Transactor
from domain.ledger import CUSTOMERS
from proof.fold import events
from proof.reader import Reader
from proof.verify import ORDER, Difference, Different, Evidence, Sums, across, off_balance, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from agents.transact import Codec, Service
    from proof.reader import LogRecord
    from topics.catalog import Installation

SHOW_EACH_S = 2.0
READS = 2  # a difference must show twice: compaction may take a row's record while it is read


class Verification:
    """One run. `show` is told what was found, `progress` of each partition, a line at a time."""

    def __init__(
        self,
        kafka: Mapping[str, Any],
        installation: Installation,
        codec: Codec,
        show: Callable[[str], None],
        progress: Callable[[str], None],
    ) -> None:
        self.reader = Reader(kafka)
        self.installation = installation
        self.codec = codec
        self.show = show
        self.progress = progress
        self.total = Sums()
        self.differences: list[Difference] = []
        self._shown_s = time.monotonic()

    def run(self, services: Mapping[str, Service], decide: bool) -> bool:
        """True when all is as it should be. Raises KafkaException, LookupError."""
        started_s = time.monotonic()
        chosen = [name for name in ORDER if name in services]
        cuts: dict[tuple[str, int], int] = {}
        try:
            for name in chosen:
                for partition in range(self.installation.partitions):
                    cuts[name, partition] = self._walk(services[name], partition, decide)
            self._count_unread(cuts)
        finally:
            self.reader.close()
        if set(chosen) >= {"transaction", "account"}:
            self.differences += across(self.total)
        self._report(time.monotonic() - started_s)
        return not self.differences

    def _walk(self, service: Service, partition: int, decide: bool) -> int:
        """Walk one partition; answers its cut."""
        for reads in range(1, READS + 1):
            evidence = self._evidence(service, partition, decide)
            found = Sums()
            try:
                walk(evidence, Transactor(service, self.codec, self.installation.partitions), found)
            except Different as exc:
                if reads == READS:
                    self.differences.append(exc.difference)
            else:
                break
        self.total.add(found)
        self.progress(
            f"{service.name:<13} partition {partition}: {found.events:>9,} events "
            f"{found.rows:>9,} rows up to input {evidence.cut:,}"
        )
        return evidence.cut

    def _evidence(self, service: Service, partition: int, decide: bool) -> Evidence:
        prefix, name = self.installation.namespace, service.name
        inbox = f"{prefix}{name}.inbox"
        cut = self.reader.cut(f"{prefix}{name}-table-changelog", inbox, partition)
        records = list(self.reader.records(inbox, partition)) if decide else None
        start = self.reader.bounds(inbox, partition)[0]
        return Evidence(
            decider=service.decider,
            partition=partition,
            inbox_topic=inbox,
            cut=cut.offset,
            rows=cut.rows,
            events=self._events(service, partition),
            inbox=records,
            inbox_start=start,
        )

    def _events(self, service: Service, partition: int) -> Iterable[LogRecord]:
        found = events(self.reader, self.installation.namespace, service.decider, partition)
        return self._showing(service.name, partition, found)

    def _showing(
        self, name: str, partition: int, records: Iterable[LogRecord]
    ) -> Iterator[LogRecord]:
        for count, record in enumerate(records):
            if time.monotonic() - self._shown_s > SHOW_EACH_S:
                self._shown_s = time.monotonic()
                self.progress(f"{name:<13} partition {partition}: {count:,} events so far")
            yield record

    def _count_unread(self, cuts: Mapping[tuple[str, int], int]) -> None:
        """What no cut reflects yet: while there is any, money may be on its way."""
        for (name, partition), cut in cuts.items():
            inbox = f"{self.installation.namespace}{name}.inbox"
            self.total.unread += sum(1 for _ in self.reader.records(inbox, partition, cut))

    def _report(self, seconds: float) -> None:
        total = self.total
        self.show(
            f"{total.events:,} events folded, {total.rows:,} rows compared, "
            f"{total.decided:,} inputs decided again, {len(total.ended):,} of "
            f"{len(total.created):,} transactions ended, "
            f"{total.unread:,} inputs not yet read, in {seconds:.1f} s"
        )
        for line in _trial_balance(total):
            self.show(line)
        for difference in self.differences[:1]:
            self.show(f"DIFFERENT {difference}")
        if len(self.differences) > 1:
            self.show(f"and {len(self.differences) - 1} more")
        if not self.differences:
            self.show("all as it should be")


def _trial_balance(total: Sums) -> Iterator[str]:
    """A line an account, a column a currency; customers first, and last what it all sums to."""
    currencies = sorted({currency for _, currency in total.trial_balance})
    if not currencies:
        return
    accounts = sorted(
        {account for account, _ in total.trial_balance}, key=lambda name: (name != CUSTOMERS, name)
    )
    off = off_balance(total)
    amounts = {
        name: [total.trial_balance[name, currency] for currency in currencies] for name in accounts
    }
    amounts["sum"] = [off.get(currency, 0) for currency in currencies]
    yield f"{'trial balance':<14}" + "".join(f"{currency:>18}" for currency in currencies)
    for name, row in amounts.items():
        yield f"{name:<14}" + "".join(f"{amount_minor:>18,}" for amount_minor in row)
    yield "in minor units"
