"""Bring table partitions up to date: read their changelogs from where their stores stand to a fixed end.

Order (a rule that must not change): the group's stable offsets first, then the changelogs' high watermarks,
then read_committed up to those. What a former owner has in flight either is in the offsets, and then its
changelog records lie below the watermark, or it can no longer be committed.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from faust.types import TP

from streaming import metrics
from streaming.admin import EARLIEST, LATEST
from streaming.closing import close_client
from streaming.errors import Inconsistent, is_fatal
from streaming.positions import POSITION_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streaming.admin import Admin
    from streaming.stores import Store

log = logging.getLogger(__name__)

READS = 5  # how often a changelog is read that compaction may have changed meanwhile


class Cancelled(Exception):
    """The assignment that this work was for is over."""


@dataclass(frozen=True, slots=True)
class Token:
    """One assignment: cancelled when it ends, checked before anything made for it is used."""

    event: threading.Event

    def check(self) -> None:
        if self.event.is_set():
            raise Cancelled


def stable_offsets(
    admin: Admin, group: str, sources: Sequence[TP], timeout_s: float, token: Token
) -> dict[TP, int]:
    """The group's committed offsets once no transaction on them is open; absent where there are none.

    Waits for another worker's open transaction, saying so, at most `timeout_s`. Raises Inconsistent then, and
    KafkaException when the brokers don't answer.
    """
    started = said = time.monotonic()
    gauge = metrics.TAKEOVER_WAIT_S.labels(group)
    while True:
        token.check()
        offsets = admin.stable_offsets(sources)
        if offsets is not None:
            gauge.set(0)
            return offsets
        waited = time.monotonic() - started
        gauge.set(waited)
        if waited > timeout_s:
            raise Inconsistent(
                f"{group}: no stable offsets after {waited:.0f} s: a transaction of another worker is open; find it "
                f"with kafka-transactions.sh find-hanging and end it with kafka-transactions.sh abort"
            )
        if time.monotonic() - said > 2:
            said = time.monotonic()
            log.warning("%s: waits for another worker's open transaction (%.0f s)", group, waited)
        time.sleep(0.05)


def restore(
    config: Mapping[str, Any],
    admin: Admin,
    stores: Mapping[TP, Store],
    token: Token,
    tombstones_s: Mapping[str, float],
    timeout_s: float,
) -> int:
    """Read each changelog into its store, from the store's offset to the log's end. Answers records read.

    Blocking: run it in a thread. A store that may miss deletions, because compaction has forgotten them
    (after `tombstones_s` of its topic), is read again from the start: be it that its files are old, or that
    reading took so long. Raises Inconsistent after `timeout_s` without progress, and when it is never fast enough.
    """
    count = 0
    for _ in range(READS):
        began = time.monotonic()
        read, records = _restore(config, admin, stores, token, tombstones_s, timeout_s)
        count += records
        took_s = time.monotonic() - began
        late = [tp for tp in read if took_s > tombstones_s[tp.topic] / 2]
        if not late:
            return count
        log.warning("%s: reading took %.1f s, deletions may be missed: read again", late, took_s)
        for tp in late:
            stores[tp].clear()
    raise Inconsistent(
        f"{late[0].topic}-{late[0].partition} takes {took_s:.1f} s to read, longer than half of its "
        f"delete.retention.ms: deleted rows could come back; raise delete.retention.ms"
    )


def _restore(
    config: Mapping[str, Any],
    admin: Admin,
    stores: Mapping[TP, Store],
    token: Token,
    tombstones_s: Mapping[str, float],
    timeout_s: float,
) -> tuple[set[TP], int]:
    """One pass over what is behind. Answers the partitions that were, and records read."""
    ends = admin.log_ends(list(stores), LATEST)
    starts = admin.log_ends(list(stores), EARLIEST)
    clear_unusable(stores, starts, ends, tombstones_s)
    left = {tp for tp, store in stores.items() if ends[tp] > max(store.next_offset, starts[tp])}
    behind = set(left)
    if not left:
        return behind, 0
    consumer = Consumer(
        {
            **reader(config),
            "fetch.message.max.bytes": 4 << 20,
            "queued.max.messages.kbytes": 128 << 10,
            "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 10,
        }
    )
    # a number, not OFFSET_BEGINNING: looking up the logical offset costs librdkafka 500 ms
    consumer.assign(
        [
            TopicPartition(tp.topic, tp.partition, max(stores[tp].next_offset, starts[tp]))
            for tp in left
        ]
    )
    try:
        return behind, _read(consumer, stores, ends, left, token, timeout_s)
    finally:
        close_client(consumer)


def clear_unusable(
    stores: Mapping[TP, Store],
    starts: Mapping[TP, int],
    ends: Mapping[TP, int],
    tombstones_s: Mapping[str, float],
) -> None:
    """Empty the stores that are of another log, or so old that deletions may have been forgotten since."""
    for tp, store in stores.items():
        if store.next_offset and not starts[tp] <= store.next_offset <= ends[tp]:
            store.clear()
        old_s = time.time() - store.as_of_s
        if 0 < store.next_offset < ends[tp] and old_s > tombstones_s[tp.topic] / 2:
            log.warning("%s-%d: the local state is %.0f s old: read again", *tp, old_s)
            store.clear()


def reader(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a consumer without a group that reads changelogs."""
    return {
        **config,
        "group.id": "restore",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }


@dataclass(slots=True)
class Changes:
    """What a few messages say of one changelog partition."""

    rows: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    position: bytes | None = None
    next_offset: int = 0
    as_of_s: float = 0.0
    ended: bool = False  # the log's end was reached among them


def changes(messages: Iterable[Any]) -> dict[TP, Changes]:
    """Messages by changelog partition. Raises KafkaException when reading can't go on from there."""
    found: dict[tuple[str, int], Changes] = {}
    for message in messages:
        error = message.error()
        place = message.topic(), message.partition()
        if error is None:
            here = found.get(place)
            if here is None:
                here = found[place] = Changes()
            key = message.key()
            if key == POSITION_KEY:
                here.position = message.value()
            else:
                here.rows.append((key, message.value()))
            here.next_offset = message.offset() + 1
            here.as_of_s = message.timestamp()[1] / 1000
        elif error.code() == KafkaError._PARTITION_EOF:
            here = found.setdefault(place, Changes())
            here.next_offset, here.as_of_s, here.ended = message.offset(), time.time(), True
        elif is_fatal(error) or error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise KafkaException(error)
        else:
            log.warning("changelogs: %s", error)
    return {TP(*place): here for place, here in found.items()}


def _read(
    consumer: Consumer,
    stores: Mapping[TP, Store],
    ends: Mapping[TP, int],
    left: set[TP],
    token: Token,
    timeout_s: float,
) -> int:
    count = 0
    last_progress = said = time.monotonic()
    while left:
        token.check()
        messages: list[Any] = consumer.consume(10_000, 0.05)
        count += len(messages)
        found = changes(messages)
        for tp, new in found.items():
            stores[tp].apply(new.rows, new.position, new.next_offset, new.as_of_s)
            if new.next_offset >= ends[tp]:
                left.discard(tp)
        now = time.monotonic()
        if found:
            last_progress = now
        elif now - last_progress > timeout_s:
            raise Inconsistent(
                f"{sorted(left)} can't be read to the end after {timeout_s:.0f} s: a transaction of another "
                f"producer is open there; find it with kafka-transactions.sh find-hanging --broker-id 1 and end it "
                f"with kafka-transactions.sh abort"
            )
        elif now - max(said, last_progress) > 5:
            said = now
            log.warning(
                "restore waits for the end of %s (open transaction or broker away)", sorted(left)
            )
    return count
