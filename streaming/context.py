"""Batches, and how code finds out which one it works for.

A `Batch` is the consecutive records of one source partition that one cycle takes. An agent's task carries it in
a context variable, which tasks that the agent starts inherit: work that outlives the transaction is then refused
instead of slipping into the next one.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any

from faust.events import Event as _Event
from faust.types import TP, Message

from streaming.errors import Misuse, RecordFailed, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streaming.cycle import Cycle

_batch: ContextVar[Batch | None] = ContextVar("streaming.batch", default=None)
_outside: ContextVar[bool] = ContextVar("streaming.outside", default=False)
RAW: Any = object()  # a record's key where its bytes are the key


class Event(_Event):
    """faust.Event; its record is acknowledged by the transaction alone."""

    def ack(self) -> bool:
        raise Unsupported("event.ack(): offsets are committed with the transaction; leave it out")


class Batch:
    """Consecutive records of one source partition; one Faust event carries all of them."""

    __slots__ = ("__weakref__", "cycle", "key", "partition", "pos", "records", "tp")

    def __init__(self, cycle: Cycle, tp: TP, records: list[Any]) -> None:
        self.cycle, self.tp, self.partition, self.records = cycle, tp, tp.partition, records
        self.pos: int | None = None  # index of the record that the agent works on
        self.key: Any = RAW  # of that record, decoded

    @property
    def first(self) -> int:
        return int(self.records[0].offset())

    @property
    def next_offset(self) -> int:
        return int(self.records[-1].offset()) + 1

    def __repr__(self) -> str:
        return f"<Batch {self.tp.topic}-{self.partition} [{self.first}, {self.next_offset})>"

    def message(self, record: Any) -> Message:
        """The Faust message of one record; timestamp in seconds."""
        kind, timestamp_ms = record.timestamp()
        key, value = record.key(), record.value()
        return Message(
            self.tp.topic,
            self.partition,
            record.offset(),
            timestamp_ms / 1000.0,
            kind,
            record.headers() or [],
            key,
            value,
            None,
            len(key or b""),
            len(value or b""),
            self.tp,
        )

    def event(self, value: Any) -> Event:
        """The Faust event of the record that the agent works on, with its decoded value."""
        message = self.message(self.records[self.pos or 0])
        key = message.key if self.key is RAW else self.key
        return Event(self.cycle.app, key, value, message.headers, message)

    def finish(self, error: BaseException | None = None) -> None:
        """The agent is done with this batch, or failed in it."""
        _batch.set(None)
        if error is not None:
            at = None if self.pos is None else self.records[self.pos].offset()
            error = RecordFailed(self.tp, at, error)
        self.cycle.delivered(self, error)


def enter(batch: Batch) -> None:
    """The running task works on this batch from here on."""
    _batch.set(batch)


working_batch = _batch.get  # the batch that the running task works for, unchecked


def current_batch() -> Batch | None:
    """The batch that the running task works for; None outside of agents.

    Raises Misuse in a task that outlived its transaction, and in another thread.
    """
    batch = _batch.get()
    if batch is None or get_ident() == batch.cycle.thread:
        return batch
    if batch.cycle.closed:
        raise Misuse(
            f"the transaction of {batch} is closed: work that an agent starts must be awaited by it before "
            f"it asks for the next record"
        )
    raise Misuse(
        f"{batch} is worked on in another thread: let the thread answer, and send or write in the agent"
    )


def running_batch() -> Batch | None:
    """`current_batch`, or None when its transaction is over: for what must be told to it, if it still is there."""
    try:
        return current_batch()
    except Misuse:
        return None


def sending_batch() -> Batch | None:
    """The batch that a send belongs to, or None where sending outside of a transaction was asked for.

    Raises Misuse where neither is so.
    """
    batch = current_batch()
    if batch is None and not _outside.get():
        raise Misuse(
            "send without a transaction: send from an agent, a timer or a page, or say so with "
            "`with streaming.outside():` (then the record is visible even if the agent's work is aborted)"
        )
    return batch


@contextmanager
def outside() -> Iterator[None]:
    """Let sends in this block go out at once, in no transaction (at least once, idempotent producer)."""
    batch_token, outside_token = _batch.set(None), _outside.set(True)
    try:
        yield
    finally:
        _outside.reset(outside_token)
        _batch.reset(batch_token)
