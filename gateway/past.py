"""The past and SQL: folds of the log and queries, in threads and processes beside the event loop.

Each costs seconds of a core, so that AT_ONCE are under way in a process and WAITING wait; whoever
comes then is sent away.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaException

from domain.services import DECIDERS
from gateway.errors import Problem, state_unavailable
from gateway.views import plain
from travel.errors import BadMoment
from travel.ledger import read_ledger
from travel.moments import past
from travel.replay import Replay
from travel.snapshot import Source
from travel.sql import Limits, run
from travel.sql import Result as Rows
from travel.trail import exported, trail, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

    from gateway.queries import Row
    from settings import Settings
    from travel.export import Asked
    from travel.ledger import Begin
    from travel.trail import Result

LOG = "log"  # the source of what is folded: see X-Read-Source
AT_ONCE, WAITING = 2, 8
FOLD_S = 20.0
LIMITS = Limits(rows=10_000, seconds=20.0, bytes=512 << 20, answer_bytes=32 << 20)

T = TypeVar("T")


class Past:
    """Of one gateway process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(AT_ONCE, "past")
        self._own = threading.local()  # a codec is for one thread
        self._taken = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def row(self, service: str, row_key: str, at_ms: int) -> Row | None:
        """A row of a service's table as it was; None when it was not there."""
        return next(iter(await self.rows(service, (row_key,), at_ms)), None)

    async def rows(self, service: str, row_keys: Sequence[str], at_ms: int) -> list[Row]:
        """Those rows of a service's table that were there, as they were."""

        def folded() -> list[Row]:
            source = self._source()
            replay = Replay(
                source.kafka,
                source.installation,
                source.codec,
                lambda _: None,
                time.monotonic() + FOLD_S,
            )
            runs = (replay.run(DECIDERS[service], at_ms, key).found for key in row_keys)
            return [plain(next(iter(found.values()))) for found in runs if found]

        try:
            return await self.aside(folded)
        except (KafkaException, TimeoutError) as exc:
            raise state_unavailable("the log could not be read in time") from exc

    async def ledger(
        self, account_id: str, period: tuple[int, int], begin: Begin
    ) -> Mapping[str, int]:
        """An account's entries of a period, told in a thread (`travel.ledger`); the balances then."""

        def read() -> Mapping[str, int]:
            deadline_s = time.monotonic() + FOLD_S
            return read_ledger(self._source(), account_id, period, begin, deadline_s)

        try:
            return await self.aside(read)
        except (KafkaException, TimeoutError) as exc:
            raise state_unavailable("the log could not be read in time") from exc

    async def query(self, sql: str, at_ms: int | None) -> Rows:
        """Raises travel's Refused and TooLarge."""
        return await self.aside(lambda: run(sql, at_ms, LIMITS))

    async def trail(self, asked: Asked, seconds: float) -> list[Row]:
        """Facts from the event topics. Raises TooLarge, TimeoutError, KafkaException."""
        until_s = time.monotonic() + seconds
        return await self.aside(lambda: trail(self._source(), asked, until_s))

    async def verified(self, from_ms: int | None, seconds: float) -> Result:
        """The chains of audit, computed again. Raises TimeoutError, KafkaException."""
        until_s = time.monotonic() + seconds
        return await self.aside(lambda: verified(self._source(), from_ms, until_s))

    async def exported(self, asked: Asked, file: IO[bytes], limit: int, seconds: float) -> None:
        """An export into a file. Raises Refused, TooLarge, TimeoutError, KafkaException."""
        until_s, key = time.monotonic() + seconds, self._settings.audit_key

        def write() -> None:
            file.writelines(exported(self._source(), asked, key, limit, until_s))

        await self.aside(write)

    async def aside(self, work: Callable[[], T]) -> T:
        """Done beside the event loop, when it is its turn; 503 when too many wait."""
        if self._taken >= AT_ONCE + WAITING:
            raise Problem("OVERLOADED", headers={"Retry-After": "5"})
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._taken -= 1

    def _source(self) -> Source:
        if not hasattr(self._own, "source"):
            self._own.source = Source.of(self._settings)
        source: Source = self._own.source
        return source


def moment_of(text: str) -> int:
    """A time that is over, Unix milliseconds. Raises BadMoment."""
    return past(text, time.time_ns() // 1_000_000)


def moment_in(query: Any) -> int | None:
    """`?at=`, if it is there; 400 for what is no time of the past."""
    text = query.get("at")
    if text is None:
        return None
    try:
        return moment_of(text)
    except BadMoment as exc:
        raise Problem("BAD_QUERY", str(exc)) from exc
