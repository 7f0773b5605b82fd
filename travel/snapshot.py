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
    from collections.abc import Iterator

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
    """What one query reads. A service's rows are read once, whatever number of tables they are.

    `at_ms`: Unix milliseconds of the broker; None: what the workers have committed by now.
    """

    def __init__(self, source: Source, at_ms: int | None) -> None:
        self._source, self._at_ms = source, at_ms
        self._reader = Reader(source.kafka)
        self._kept: dict[str, list[Mapping[str, Any]]] = {}  # rows by key, of each partition

    def close(self) -> None:
        self._reader.close()

    def lines(self, table: Table) -> Iterator[dict[str, Any]]:
        """The rows of a table as lines for DuckDB."""
        for partition, rows in enumerate(self._rows(table.service)):
            if partition and table.first_only:
                return
            for key, row in rows.items():
                if key.startswith(table.prefix):
                    yield table.record(key, self._decoded(row), partition)

    def events(self, service: str, since_ms: int | None = None) -> Iterator[dict[str, Any]]:
        """The public facts of a service as lines for DuckDB, in the order of each partition.

        `since_ms`: the first millisecond of which they are wanted.
        """
        decode = self._source.codec.decode
        for partition in range(self._source.installation.partitions):
            for record in self._events(service, partition):
                if since_ms is not None and record.at_ms < since_ms:
                    continue
                yield event_line(service, record, decode(record.value or b""))

    def _events(self, service: str, partition: int) -> Iterator[Any]:
        end = NOW if self._at_ms is None else End(at_ms=self._at_ms)
        prefix = self._source.installation.namespace
        return events(self._reader, prefix, DECIDERS[service], partition, end)

    def _rows(self, service: str) -> list[Mapping[str, Any]]:
        if service not in self._kept:
            partitions = range(self._source.installation.partitions)
            self._kept[service] = [self._partition(service, n) for n in partitions]
        return self._kept[service]

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
