"""observe: what is watched of all that services say, off the money path.

    <service>.events, .private --digest of each record-----> RecordsRead --> audit.inbox
    transaction.events ---------what of a final fact counts--> PointsRead --> analytics.inbox

Facts themselves are not copied: a log a second time would be read by nobody. All of one transaction
goes out in one message for each topic partition that was read. It keeps no state; what it says again
after an accident, whoever hears it knows by its offsets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.envelope import given, running
from agents.recent import Recent
from agents.transact import home
from domain.analytics import Outcome, Point, PointsRead
from domain.audit import RecordsRead, digest, packed
from domain.saga import TransactionCancelled, TransactionCompleted, TransactionFailed
from schemas.errors import Unreadable
from topics.catalog import TOPICS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agents.transact import Codec
    from topics.catalog import Installation

AUDIT, ANALYTICS = "audit.inbox", "analytics.inbox"
# what audit itself says is proven by its chains, and would never come to an end
WATCHED = tuple(
    topic.name
    for topic in TOPICS
    if topic.kind in (Kind.EVENTS, Kind.PRIVATE) and not topic.name.startswith("audit.")
)
FINAL = {
    b"streambank.transaction.TransactionCompleted": Outcome.COMPLETED,
    b"streambank.transaction.TransactionFailed": Outcome.FAILED,
    b"streambank.transaction.TransactionCancelled": Outcome.CANCELLED,
}
AT_ONCE = 2_000  # records or points of one message
READ_HEADERS = [("ce_source", b"/observe"), ("ce_type", b"streambank.audit.RecordsRead")]
POINT_HEADERS = [("ce_source", b"/observe"), ("ce_type", b"streambank.analytics.PointsRead")]


def point_of(fact: Any, outcome: str, offset: int) -> Point:
    """What of a final fact counts."""
    order = fact.order
    return Point(
        offset=offset,
        at_ms=fact.at_ms,
        outcome=outcome,
        type=str(order.type),
        currency=order.currency,
        user_id=order.owner_id,
        amount_minor=order.amount_minor,
        fee_minor=order.terms.fee_minor if order.terms is not None else 0,
        latency_ms=max(0, fact.at_ms - order.created_ms),
        reason=str(fact.reason) if isinstance(fact, TransactionFailed) else None,
    )


class Seen:
    """What one transaction saw so far."""

    __slots__ = ("points", "records")

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
        self.points: dict[tuple[int, int], list[Point]] = {}  # by source and counting partition

    def said(self) -> Iterator[tuple[str, bytes, int, Sequence[tuple[str, bytes]], Any]]:
        """Topic, key, partition (-1: by the key), headers and message of each thing to say."""
        for (topic, partition), found in self.records.items():
            chain = f"{topic}-{partition}"
            for at in range(0, len(found), AT_ONCE):
                some = found[at : at + AT_ONCE]
                read = RecordsRead(
                    chain=chain,
                    offsets=tuple(offset for offset, _ in some),
                    digests=packed([entry for _, entry in some]),
                )
                yield AUDIT, chain.encode(), -1, READ_HEADERS, read
        for (source, partition), points in self.points.items():
            for at in range(0, len(points), AT_ONCE):
                counted = PointsRead(
                    source=source, partition=partition, points=tuple(points[at : at + AT_ONCE])
                )
                yield ANALYTICS, b"points", partition, POINT_HEADERS, counted


class Observe:
    """The app that reads all event topics."""

    def __init__(
        self, app: Any, codec: Codec, installation: Installation, recent: Recent | None = None
    ) -> None:
        self.app, self.codec, self.installation = app, codec, installation
        self._recent = recent or Recent()
        self._cycle: Any = None
        self._seen = Seen()
        for name in WATCHED:
            self._read_from(name)

    def _read_from(self, name: str) -> None:
        async def read(stream: Any) -> None:
            async for value in stream:
                batch, record = running()
                if batch.cycle is not self._cycle:
                    self._begin(batch.cycle)
                self._take(name, batch.partition, record, value)

        topic = self.app.topic(
            f"{self.installation.namespace}{name}",
            key_type=bytes,
            value_type=bytes,
            value_serializer="raw",
            on_poison="stop",
            on_error="stop",
        )
        self.app.agent(topic, name=f"observe.{name}")(read)

    def _begin(self, cycle: Any) -> None:
        """A new transaction: what it saw is said when all has been read."""
        self._cycle, self._seen = cycle, (seen := Seen())

        def say() -> None:
            for topic, key, partition, headers, message in seen.said():
                value = self.codec.encode(message)
                cycle.produce(
                    f"{self.installation.namespace}{topic}", key, value, partition, [*headers]
                )

        cycle.at_end(say)

    def _take(self, name: str, partition: int, record: Any, value: bytes | None) -> None:
        headers = given(record.headers())
        offset, at_ms = record.offset(), record.timestamp()[1]
        entry = digest((name, partition, offset), at_ms, record.key(), value, headers)
        self._seen.records.setdefault((name, partition), []).append((offset, entry))
        outcome = FINAL.get(headers.get("ce_type", b""))
        if outcome is None or name != "transaction.events":
            return
        if value is None:
            raise Unreadable("a fact without value")
        fact = self._recent.get(value) or self.codec.decode(value)
        assert isinstance(fact, TransactionCompleted | TransactionFailed | TransactionCancelled)
        counting = home(fact.order.owner_id, self.installation.partitions)
        points = self._seen.points.setdefault((partition, counting), [])
        points.append(point_of(fact, outcome, offset))
