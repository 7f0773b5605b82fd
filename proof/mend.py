"""tables rebuild: a service's kept rows made what its events say, while none of its workers runs.

    <service>.events (+ .private) --fold--> rows --those that differ--> <service>-table-changelog

After an upgrade whose rows say more than those before, or other things. The position in the changelog
stays: rows and events were written together, so both reflect the same input. The rows of a partition
are one transaction; cut off between two partitions it is run again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import ConsumerGroupState, Producer

from domain.decider import Overlay, put
from proof.fold import UNFOLDABLE, events
from proof.reader import Reader
from streaming.owners import described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agents.transact import Codec
    from domain.decider import Decider
    from topics.catalog import Installation

TIMEOUT_S = 30.0
TRANSACTION_S = 600.0  # of the rows of one partition
LEFT_S = 20.0  # a worker that ended without a word is a member until its session is over


class Running(Exception):
    """A worker of the service runs: what it keeps can't be changed under it."""


class NoFold(Exception):
    """An event that this program can't fold; nothing of its partition was written."""


class Mend:
    """One run. `show` is told what was written, a line a partition."""

    def __init__(
        self,
        kafka: Mapping[str, Any],
        installation: Installation,
        codec: Codec,
        show: Callable[[str], None],
    ) -> None:
        self._kafka, self._installation, self._codec, self._show = kafka, installation, codec, show
        self._reader = Reader(kafka)

    def close(self) -> None:
        self._reader.close()

    def run(self, decider: Decider, left_s: float) -> int:
        """How many rows were written. Raises Running, NoFold, KafkaException, LookupError.

        `left_s`: for how long members of the group are waited for to leave it.
        """
        self._nobody_runs(f"{self._installation.namespace}{decider.service}", left_s)
        producer = Producer(
            {
                **self._kafka,
                "transactional.id": f"{self._installation.namespace}rebuild.{decider.service}",
                "transaction.timeout.ms": int(TRANSACTION_S * 1000),
            }
        )
        producer.init_transactions(TIMEOUT_S)
        return sum(
            self._one(producer, decider, partition)
            for partition in range(self._installation.partitions)
        )

    def _nobody_runs(self, group: str, left_s: float) -> None:
        # with it comes Faust, which no other command is to wait for
        from streaming.admin import Admin

        until_s = time.monotonic() + left_s
        with Admin(self._kafka) as admin:
            while True:
                found = admin.ask(lambda client: described(client, group, TIMEOUT_S), TIMEOUT_S)
                if found.state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
                    return
                if time.monotonic() > until_s:
                    count = len(found.members)
                    raise Running(f"{group} has members, {count} now: stop its workers first")
                time.sleep(0.5)

    def _one(self, producer: Producer, decider: Decider, partition: int) -> int:
        prefix, name = self._installation.namespace, decider.service
        changelog = f"{prefix}{name}-table-changelog"
        kept = self._reader.cut(changelog, f"{prefix}{name}.inbox", partition).rows
        folded = self._folded(decider, partition)
        decode = self._codec.decode
        differ = [
            key
            for key in sorted(folded.keys() | kept.keys())
            if folded.get(key) != (decode(kept[key]) if key in kept else None)
        ]
        if differ:
            producer.begin_transaction()
            for key in differ:
                row = folded.get(key)
                value = None if row is None else self._codec.encode(row)
                while True:
                    try:
                        producer.produce(changelog, value, key.encode(), partition)
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.commit_transaction(TRANSACTION_S)
        self._show(
            f"{name:<13} partition {partition}: {len(folded):>9,} rows, {len(differ):,} written anew"
        )
        return len(differ)

    def _folded(self, decider: Decider, partition: int) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        found = events(self._reader, self._installation.namespace, decider, partition)
        for record in found:
            event = self._codec.decode(record.value or b"")
            try:
                changes = decider.evolve(Overlay(rows), event)
            except UNFOLDABLE as exc:
                where = f"{record.topic}, partition {partition}, offset {record.offset}"
                said = f"{type(exc).__name__}: {exc}"
                kind = type(event).__name__
                raise NoFold(f"{where}: this program can't fold {kind} ({said})") from exc
            put(rows, changes)
        return rows
