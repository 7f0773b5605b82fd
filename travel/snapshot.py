"""Lines of tables and events for DuckDB: as committed now, or folded up to a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain.services import DECIDERS
from proof.reader import Reader
from schemas.codec import Codec
from topics.catalog import SCHEMAS, Installation
from topics.schema_log import SchemaLog
from travel.fold import NOW, End, Fold, events
from travel.schema import event_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proof.reader import LogRecord
    from settings import Settings
    from travel.schema import Table


@dataclass(frozen=True, slots=True)
class Source:
    """Where the logs are, and how they are read."""

    kafka: Mapping[str, Any]
    installation: Installation
    codec: Codec

    @classmethod
    def of(cls, settings: Settings) -> Source:
        lookup = SchemaLog(settings.kafka, f"{settings.prefix}{SCHEMAS}")
        return cls(settings.kafka, Installation.of(settings), Codec(lookup))


class Snapshot:
    """What one query reads. `at_ms`: Unix milliseconds of the broker; None: what is committed by now."""

    def __init__(self, source: Source, at_ms: int | None) -> None:
        self._source, self._at_ms = source, at_ms
        self._reader = Reader(source.kafka)

    def close(self) -> None:
        self._reader.close()

    def lines(self, service: str, tables: Sequence[Table]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows of a service's tables as lines for DuckDB, each behind the name of its table.

        They are read once for all tables, and those of one partition are held at a time.
        """
        for partition in range(self._source.installation.partitions):
            wanted = [table for table in tables if not (partition and table.first_only)]
            if not wanted:
                return
            for key, row in self._partition(service, partition).items():
                for table in wanted:
                    if key.startswith(table.prefix):
                        yield table.name, table.record(key, self._decoded(row), partition)

    def events(self, service: str, since_ms: int | None = None) -> Iterator[dict[str, Any]]:
        """The public facts of a service as lines for DuckDB, in the order of each partition.

        `since_ms`: the first millisecond of which they are wanted; what lies before is not read.
        """
        decode = self._source.codec.decode
        for partition in range(self._source.installation.partitions):
            for record in self._events(service, partition, since_ms):
                if since_ms is not None and record.at_ms < since_ms:
                    continue
                yield event_line(service, record, decode(record.value or b""))

    def _events(
        self, service: str, partition: int, since_ms: int | None = None
    ) -> Iterator[LogRecord]:
        """From the first record, or from a place before which none is as late as `since_ms`."""
        end = NOW if self._at_ms is None else End(at_ms=self._at_ms)
        prefix, decider = self._source.installation.namespace, DECIDERS[service]
        start = None
        if since_ms is not None:
            start = self._reader.offset_at(f"{prefix}{service}.events", partition, since_ms)
        return events(self._reader, prefix, decider, partition, end, start=start)

    def _partition(self, service: str, partition: int) -> Mapping[str, Any]:
        if self._at_ms is not None:
            fold = Fold(DECIDERS[service], self._source.codec)
            return fold.run(self._events(service, partition))
        prefix = self._source.installation.namespace
        changelog, inbox = f"{prefix}{service}-table-changelog", f"{prefix}{service}.inbox"
        return self._reader.cut(changelog, inbox, partition).rows

    def _decoded(self, row: Any) -> Any:
        """A row of a changelog is bytes until it is asked for."""
        return self._source.codec.decode(row) if isinstance(row, bytes) else row
