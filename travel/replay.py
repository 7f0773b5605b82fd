"""replay: a service's tables rebuilt from its events, to any time or place; compared when run to the end.

The end is what the changelog says that the kept tables reflect, so it works on a running system.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from domain.decider import Row
from proof.reader import Reader
from streaming import partition_of
from travel.errors import BadMoment
from travel.fold import End, Fold, events, shown
from travel.schema import PRIVATE, aggregate_of, is_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from domain.decider import Decider
    from topics.catalog import Installation
    from travel.fold import Decoder

READS = 2  # a difference must show twice: compaction may take a row's record while it is read


@dataclass(slots=True)
class Replayed:
    """What a replay came to."""

    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)  # rows by the first part of their key
    found: dict[int, Row] = field(default_factory=dict)  # of the one key, by partition
    different: list[str] = field(default_factory=list)  # keys that the kept table has otherwise
    compared: bool = False
    seconds: float = 0.0


class Replay:
    """One run over one service. `show` is told of progress, a line at a time.

    What is not read by `deadline_s`, of `time.monotonic`, ends in TimeoutError.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        installation: Installation,
        codec: Decoder,
        show: Callable[[str], None],
        deadline_s: float = math.inf,
    ) -> None:
        self._deadline_s = deadline_s
        self._kafka, self._installation, self._codec, self._show = kafka, installation, codec, show

    def run(
        self,
        decider: Decider,
        to: int | Mapping[int, int] | None = None,
        key: str | None = None,
    ) -> Replayed:
        """Raises BadMoment, KafkaException, LookupError. `to`: see `moments.place`."""
        if key is not None and is_private(key):
            raise BadMoment(f"rows {' and '.join(PRIVATE)} are private: nobody is shown them")
        started_s, done = time.monotonic(), Replayed(compared=to is None)
        reader, secrets = self._opened(), self._opened()
        self._reach(reader, decider, to)
        try:
            for partition in self._partitions(decider.service, key):
                self._one(_Logs(reader, secrets), decider, partition, to, key, done)
        finally:
            reader.close()
            secrets.close()
        done.seconds = time.monotonic() - started_s
        return done

    def _opened(self) -> Reader:
        return Reader(self._kafka, self._deadline_s)

    def _reach(self, reader: Reader, decider: Decider, to: int | Mapping[int, int] | None) -> None:
        """Raises BadMoment for an offset that isn't there."""
        if to is None or isinstance(to, int):
            return
        topic = f"{self._installation.namespace}{decider.service}.events"
        for partition, offset in to.items():
            if partition >= self._installation.partitions:
                count = self._installation.partitions
                raise BadMoment(f"{topic} has the partitions 0 to {count - 1}, not {partition}")
            high = reader.bounds(topic, partition)[1]
            if offset > high:
                raise BadMoment(
                    f"{topic} partition {partition} ends at {high}: not yet at {offset}"
                )

    def _partitions(self, service: str, key: str | None) -> Iterator[int]:
        """Those in which a row may live."""
        aggregate = None if key is None else aggregate_of(service, key)
        if aggregate is not None:
            yield partition_of(aggregate.encode(), self._installation.partitions)
        else:
            yield from range(self._installation.partitions)

    def _one(
        self,
        logs: _Logs,
        decider: Decider,
        partition: int,
        to: int | Mapping[int, int] | None,
        key: str | None,
        done: Replayed,
    ) -> None:
        for _ in range(READS):
            end, kept = self._end(logs.public, decider, partition, to)
            fold = self._fold(logs, decider, partition, end, key)
            different = [] if to is not None else self._different(fold, kept, key)
            if not different:
                break
        done.events += fold.events
        if key is None:
            done.kinds.update(one.split("/")[0] for one in fold.rows)
        elif (row := dict.get(fold.rows, key)) is not None:
            done.found[partition] = row
        done.different += different

    def _different(self, fold: Fold, kept: Mapping[str, bytes], key: str | None) -> list[str]:
        """Keys under which the kept table has something else."""
        keys = fold.rows.keys() | kept.keys() if key is None else {key}
        rows, decode = fold.rows, self._codec.decode
        decoded = {one: decode(data) for one in keys if (data := kept.get(one)) is not None}
        return sorted(one for one in keys if decoded.get(one) != dict.get(rows, one))

    def _end(
        self, log: Reader, decider: Decider, partition: int, to: int | Mapping[int, int] | None
    ) -> tuple[End, Mapping[str, bytes]]:
        """Where to end, and the kept rows as of there."""
        if isinstance(to, int):
            return End(at_ms=to), {}
        if to is not None:
            return End(offset=to.get(partition)), {}
        prefix, name = self._installation.namespace, decider.service
        cut = log.cut(f"{prefix}{name}-table-changelog", f"{prefix}{name}.inbox", partition)
        return End(input=cut.offset), cut.rows

    def _fold(
        self, logs: _Logs, decider: Decider, partition: int, end: End, key: str | None
    ) -> Fold:
        aggregate = None if key is None else aggregate_of(decider.service, key)
        fold = Fold(decider, self._codec, aggregate)
        prefix = self._installation.namespace
        found = events(logs.public, prefix, decider, partition, end, logs.private)

        def show(count: int) -> None:
            self._show(f"{decider.service} partition {partition}: {count:,} events so far")

        fold.run(shown(found, show))
        return fold


@dataclass(frozen=True, slots=True)
class _Logs:
    """One reader for each topic that is read at the same time."""

    public: Reader
    private: Reader
