"""One cycle: the records that intake chose, through the agents, into one Kafka transaction.

    tasks beside each other; in a task one batch after another, and of a batch one agent after another

A task is one partition number with all its topics and tables (the model of Kafka Streams): two agents that
share a table can never interleave on a partition of it, whatever they await.

    new --run: a batch goes into an agent's channel, `streams` gives its records one by one--> worked
        --encode, close--> seal, begin --commit--> merged  |  undo, drop
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from threading import get_ident
from typing import TYPE_CHECKING, Any

from streaming.context import Batch, working_batch
from streaming.errors import CommitFailed, Stuck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from faust.types import TP

    from streaming.tables import TablePartition

# by whom: batch and index of the record, None at the cycle's end; topic, key, value, partition, headers, Unix ms
Output = tuple[Batch | None, int, str, bytes | None, bytes | None, int, Any, int]


class Cycle:
    """What is delivered to agents, and what they wrote: nothing of it has left the process before `begun`."""

    def __init__(self, app: Any, group: Any = None, assignment: Any = None) -> None:
        """`group`: its metadata as of the last poll before; `assignment`: what the records were read under."""
        self.app, self.group, self.assignment = app, group, assignment
        self.batches: list[Batch] = []
        self.outputs: list[Output] = []
        self.dirty: dict[TablePartition, None] = {}  # an ordered set
        self.changes: dict[TablePartition, list[tuple[bytes, bytes | None]]] = {}  # once worked
        self.thread = get_ident()  # where its agents may write; none once it is closed
        self.begun = False  # its Kafka transaction is, and must be committed or aborted
        self.offsets_sent = False
        self.after: dict[int, dict[str, int]] = {}  # by task and topic: next offset, set to write
        self.positions: dict[int, bytes] = {}  # new position record by task, once begun
        self.put_aside: set[tuple[TP, int]] = set()
        self.error: BaseException | None = None
        self._todo: dict[int, deque[tuple[Any, Batch]]] = defaultdict(deque)  # by task
        self._running = 0
        self._last: list[Callable[[], None]] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, tp: TP, records: list[Any], channels: Iterable[Any]) -> Batch:
        """Put records of one source partition at the end of their task's work."""
        batch = Batch(self, tp, records)
        self.batches.append(batch)
        self._todo[tp.partition].extend((channel, batch) for channel in channels)
        return batch

    async def run(self, timeout_s: float) -> None:
        """Let the agents do all of it. Raises the first failure, Stuck where none goes on for `timeout_s`."""
        tasks = [task for task in self._todo.values() if task]
        self._running = len(tasks)
        for task in tasks:
            self._deliver_next(task)
        if self._running:
            await self._end(timeout_s)
        if self.error is not None:
            raise self.error
        for say in self._last:
            say()

    async def _end(self, timeout_s: float) -> None:
        seen, moved_s = self._progress(), time.monotonic()
        while not (await asyncio.wait({self._done}, timeout=timeout_s / 20))[0]:
            now_s, progress = time.monotonic(), self._progress()
            if progress != seen:
                seen, moved_s = progress, now_s
            elif now_s - moved_s >= timeout_s:
                raise Stuck(f"agents did not come back within {timeout_s} s: {self.batches}")

    def _progress(self) -> list[int | None]:
        """Another one whenever an agent has gone on to another record or batch."""
        return [*map(len, self._todo.values()), *(batch.pos for batch in self.batches)]

    def at_end(self, say: Callable[[], None]) -> None:
        """Call this once, when the agents have done all of the cycle's work, before it commits.

        What it produces belongs to the transaction; on an abort it is not called.
        """
        self._last.append(say)

    def _deliver_next(self, task: deque[tuple[Any, Batch]]) -> None:
        channel, batch = task[0]
        event = self.app.create_event(None, batch, None, batch.message(batch.records[0]))
        channel.queue.force_put_nowait(event)

    def delivered(self, batch: Batch, error: BaseException | None) -> None:
        """An agent is done with the batch at the head of its task."""
        batch.pos = None
        if error is not None and self.error is None:
            self.error = error
        task = self._todo[batch.partition]
        task.popleft()
        if task and self.error is None:
            return self._deliver_next(task)
        self._running -= 1
        if not self._running and not self._done.done():
            self._done.set_result(None)
        return None

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int = -1,
        headers: Any = None,
        timestamp_ms: int = 0,
    ) -> None:
        """Add an output of the running record. `headers` must not be changed any more.

        What can't be written (too large, unknown partition) fails this record when the transaction is written.
        """
        batch = working_batch()
        pos = 0 if batch is None or batch.pos is None else batch.pos
        self.outputs.append((batch, pos, topic, key, value, partition, headers, timestamp_ms))

    @property
    def next_offsets(self) -> dict[TP, int]:
        """What the group will have read of each source partition in work."""
        return {batch.tp: batch.next_offset for batch in self.batches}

    @property
    def record_count(self) -> int:
        return sum(len(batch.records) for batch in self.batches)

    def encode(self) -> None:
        """Changed rows as changelog records, each encoded once. Raises CommitFailed."""
        try:
            self.changes = {part: part.encoded() for part in self.dirty}
        except Exception as exc:
            raise CommitFailed(f"a changed row can't be encoded: {exc!r}") from exc

    @property
    def closed(self) -> bool:
        """The agents are done: what they left behind may write nothing more."""
        return not self.thread

    def close(self) -> None:
        self.thread = 0

    def seal(self) -> None:
        """Its rows are on their way to the log: what agents write from here on is of the next cycle."""
        for part in self.dirty:
            part.seal(self.changes[part])

    def drop(self) -> None:
        """Its rows will never be."""
        for part in self.dirty:
            part.drop()
