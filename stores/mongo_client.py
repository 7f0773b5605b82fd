"""The connection to MongoDB: one pool, one breaker, one kind of outage.

    call --breaker--> pool (20, wait at most 5 s) --> server
      Unavailable <--time-out, no primary, pool full, not let in--'

The driver is motor, or PyMongo's own asyncio client. Its heartbeat looks after the servers each
15 s (and each half second while one is sought), which is the validation of the pool; a connection
that idled for a second is looked at before it is used again.
"""

from __future__ import annotations

import asyncio
import os
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import Counter, Gauge
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)
from pymongo.monitoring import ConnectionPoolListener
from pymongo.read_concern import ReadConcern

from resilience.breaker import Breaker, Rejected
from resilience.guarded import through
from stores.catalog import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ANSWER_S = 3.0  # of a question; a write has the driver's time-outs below

POOL: dict[str, Any] = {
    "maxPoolSize": 20,
    "minPoolSize": 5,
    "maxIdleTimeMS": 30_000,
    "waitQueueTimeoutMS": 5_000,
    "heartbeatFrequencyMS": 15_000,
    # an election takes longer than this, but a gateway has another store to ask
    "serverSelectionTimeoutMS": 2_000,
    "connectTimeoutMS": 2_000,
    "socketTimeoutMS": 5_000,
    "tz_aware": True,
    "appname": "streambank",
}
# Most of a replica set has it on disk: what was acknowledged outlives kill -9 and an election. The
# position is written so too, and after its documents: where it is, they are.
WRITTEN = WriteConcern(w="majority", j=True, wtimeout=4_000)
# Nothing is shown that an election could take back; positions come from the primary alone, for one
# that is behind is only Overtaken again.
SEEN = ReadConcern("majority")
# Questions go to the primary, because a client that waited looks for what it wrote, and to a
# secondary while there is none: an answer of a moment ago is better than none.
ASKED = ReadPreference.PRIMARY_PREFERRED
# motor's calls wait for a connection in threads; with fewer of them than this (it takes 5 a core)
# they would wait for a thread instead, without a limit
MOTOR_THREADS = "100"

# codes of answers that mean: not now, or not you
AWAY = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        13,  # Unauthorized
        18,  # AuthenticationFailed
        43,  # CursorNotFound: of a server that started again
        64,  # WriteConcernTimeout
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        100,  # UnsatisfiableWriteConcern
        133,  # FailedToSatisfyReadPreference
        134,  # ReadConcernMajorityNotAvailableYet
        175,  # QueryPlanKilled
        189,  # PrimarySteppedDown
        237,  # CursorKilled
        262,  # ExceededTimeLimit
        9001,  # SocketException
        10058,  # LegacyNotPrimary
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11601,  # Interrupted: killed
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        14031,  # OutOfDiskSpace
    }
)

OPEN = Gauge("streambank_mongodb_pool_open", "Connections of the pool that are open")
USED = Gauge("streambank_mongodb_pool_used", "Connections of the pool that a call holds")
WAITING = Gauge("streambank_mongodb_pool_waiting", "Calls that wait for a connection")
NONE_FREE = Counter("streambank_mongodb_pool_none_free_total", "Calls that got none in time")
FAILURES = Counter("streambank_mongodb_failures_total", "Calls without an answer", ["error"])

T = TypeVar("T")


class Connection:
    """The database of a URL through `client`, motor or pymongo; opened by its first call.

    `index_builds`: without a limit on an answer, which an index over much data outlasts.
    """

    def __init__(self, url: str, client: str, *, index_builds: bool = False) -> None:
        options = {**POOL, "event_listeners": [PoolMetrics()]}
        if index_builds:
            options |= {"socketTimeoutMS": None, "minPoolSize": 0}
        self._client = (
            _motor(url, options) if client == "motor" else AsyncMongoClient(url, **options)
        )
        self.database = self._client.get_default_database(
            write_concern=WriteConcern(w="majority", j=True) if index_builds else WRITTEN,
            read_concern=SEEN,
        )
        self.asked = self.database.with_options(read_preference=ASKED)
        self.breaker = Breaker("mongodb")

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        """Through the breaker. Raises Unavailable, or what a server that answers says."""
        try:
            with through(self.breaker, Unavailable):
                return await _answered(function(*args, **named))
        except Rejected as exc:
            raise Unavailable(str(exc)) from exc

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        """As `call`, for whoever can't wait longer than ANSWER_S."""
        return await self.call(_in_time, function, *args, **named)

    async def close(self) -> None:
        closed = self._client.close()
        if isawaitable(closed):  # PyMongo's
            await closed


async def _answered(awaitable: Awaitable[T]) -> T:
    try:
        return await awaitable
    except PyMongoError as exc:
        if not is_away(exc):
            raise
        FAILURES.labels(type(exc).__name__).inc()
        raise Unavailable(f"MongoDB does not answer: {exc}") from exc
    except TimeoutError as exc:
        FAILURES.labels("TimeoutError").inc()
        raise Unavailable(f"MongoDB did not answer within {ANSWER_S:.0f} s") from exc


async def _in_time(function: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
    async with asyncio.timeout(ANSWER_S):
        return await function(*args, **named)


def is_away(error: PyMongoError) -> bool:
    """True when the store does not do its work now; False for an answer to a wrong question."""
    match error:
        case ConnectionFailure() | ExecutionTimeout() | WriteConcernError():
            return True
        case BulkWriteError(details=details):
            codes = {failed.get("code") for failed in details.get("writeErrors", ())}
            return bool(details.get("writeConcernErrors")) or bool(codes & AWAY)
        case OperationFailure(code=code):
            return code in AWAY
    return False


def _motor(url: str, options: dict[str, Any]) -> Any:
    os.environ.setdefault("MOTOR_MAX_WORKERS", MOTOR_THREADS)  # read when motor is imported
    from motor.motor_asyncio import AsyncIOMotorClient

    return AsyncIOMotorClient(url, **options)


class PoolMetrics(ConnectionPoolListener):
    """Counts the connections of one pool, as the driver says what happens to them (CMAP)."""

    def connection_created(self, _: Any) -> None:
        OPEN.inc()

    def connection_closed(self, _: Any) -> None:
        OPEN.dec()

    def connection_check_out_started(self, _: Any) -> None:
        WAITING.inc()

    def connection_checked_out(self, _: Any) -> None:
        WAITING.dec()
        USED.inc()

    def connection_check_out_failed(self, event: Any) -> None:
        WAITING.dec()
        if event.reason == "timeout":
            NONE_FREE.inc()

    def connection_checked_in(self, _: Any) -> None:
        USED.dec()

    def pool_created(self, _: Any) -> None: ...

    def pool_ready(self, _: Any) -> None: ...

    def pool_cleared(self, _: Any) -> None: ...

    def pool_closed(self, _: Any) -> None: ...

    def connection_ready(self, _: Any) -> None: ...
