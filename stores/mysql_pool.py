"""Connections to MySQL: one pool, one breaker, one kind of outage.

    call --breaker--> pool (20, wait at most 5 s) --> server
      Unavailable <--time-out, connection lost, pool full, not let in--'

aiomysql's pool, and what it lacks: a limit to waiting, a look at idle connections each 15 s, an end
for those that idle too long, time-outs of an answer. What was rolled back (deadlock, lock wait) is
tried again, and so is what a lost connection did not take yet.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import aiomysql
import pymysql.err
from prometheus_client import Counter, Gauge
from pymysql.constants import CLIENT

from resilience.breaker import Breaker, Rejected
from resilience.guarded import through
from resilience.retry import retrying
from stores.catalog import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST, LEAST = 20, 5  # connections
ACQUIRE_S = 5.0
IDLE_S = 30.0
VALIDATE_S = 15.0
CONNECT_S = 2.0
ANSWER_S = 3.0  # of a question
WRITE_S = 30.0  # of a whole batch

AGAIN = frozenset({1020, 1205, 1213})  # changed meanwhile, lock wait, deadlock: rolled back
LOST = frozenset({2006, 2013, 2014, 2055})
AWAY = LOST | {
    1040,  # too many connections
    1044,  # not let in: to the database,
    1045,  # by password
    1053,  # shutting down
    1079,
    1021,  # disk full, as the server,
    1026,
    1030,  # its engine,
    1114,  # and a table say it
    1129,  # host blocked
    1142,  # not let in: to a table
    1152,  # aborted
    1158,
    1159,
    1160,
    1161,
    1203,  # of this user
    1226,
    1290,  # read only, as a replica that is none yet
    1317,  # the statement was killed,
    1927,  # the connection was
    1836,
    1969,  # a statement took too long for MariaDB,
    3024,  # for MySQL
    3032,  # offline
    2002,
    2003,
}

OPEN = Gauge("streambank_mysql_pool_open", "Connections of the pool that are open")
USED = Gauge("streambank_mysql_pool_used", "Connections of the pool that a call holds")
WAITING = Gauge("streambank_mysql_pool_waiting", "Calls that wait for a connection")
NONE_FREE = Counter("streambank_mysql_pool_none_free_total", "Calls that got none in time")
FAILURES = Counter("streambank_mysql_failures_total", "Calls without an answer", ["error"])
AGAINS = Counter("streambank_mysql_retries_total", "Calls tried again", ["error"])

MODE = "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE"
# aiomysql puts this behind `SET sql_mode=`, and the next into a statement of its own
SESSION = (
    f"'{MODE}', time_zone='+00:00', foreign_key_checks=0, sql_notes=0, innodb_lock_wait_timeout=5"
)
ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"  # the same words everywhere

T = TypeVar("T")


class Again(Exception):
    """Nothing was done: the server rolled it back, or the connection was gone before."""

    def __init__(self, why: BaseException) -> None:
        super().__init__(str(why))
        self.code = str(why.args[0]) if why.args else type(why).__name__


class Pool:
    """The connections to the database of a URL; the first call opens them."""

    def __init__(self, url: str) -> None:
        self.options = options(url)
        self.database: str = self.options["db"]
        self.breaker = Breaker("mysql")
        self._pool: Any = None
        self._opening = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    async def read(self, work: Callable[[Any], Awaitable[T]], timeout_s: float = ANSWER_S) -> T:
        """`work` with a cursor; raises Unavailable. It may be done twice."""
        return await self._call(lambda connection: _reading(connection, work), timeout_s)

    async def write(self, work: Callable[[Any], Awaitable[T]], timeout_s: float = WRITE_S) -> T:
        """`work` with a cursor in a transaction; raises Unavailable, after which it may be done."""
        return await self._call(lambda connection: _writing(connection, work), timeout_s)

    async def connect(self) -> Any:
        """A connection of the caller's own, for what takes its time. Raises Unavailable."""
        try:
            async with asyncio.timeout(ACQUIRE_S):
                return await aiomysql.connect(**self.options)
        except (pymysql.err.MySQLError, OSError) as exc:
            raise _outage(exc) from exc

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        if self._pool is not None:
            self._pool.terminate()
            await self._pool.wait_closed()
            OPEN.set(0)

    async def _call(self, work: Callable[[Any], Awaitable[T]], timeout_s: float) -> T:
        try:
            with through(self.breaker, Unavailable):
                return await self._tried(work, timeout_s)
        except Rejected as exc:
            raise Unavailable(str(exc)) from exc

    async def _tried(self, work: Callable[[Any], Awaitable[T]], timeout_s: float) -> T:
        try:
            async for attempt in retrying(Again):
                with attempt:
                    return await self._once(work, timeout_s)
        except Again as exc:
            raise Unavailable(f"MySQL did not do it in several tries: {exc}") from exc
        raise AssertionError("unreachable")

    async def _once(self, work: Callable[[Any], Awaitable[T]], timeout_s: float) -> T:
        connection = await self._acquired()
        try:
            async with asyncio.timeout(timeout_s):
                done = await work(connection)
        except Again as exc:
            AGAINS.labels(exc.code).inc()
            connection.close()
            raise
        except (pymysql.err.MySQLError, OSError) as exc:
            connection.close()
            raise _outage(exc) from exc
        except BaseException:
            connection.close()  # where it stands is not known
            raise
        finally:
            USED.dec()
            self._pool.release(connection)
            OPEN.set(self._pool.size)
        return done

    async def _acquired(self) -> Any:
        WAITING.inc()
        try:
            async with asyncio.timeout(ACQUIRE_S):
                connection = await (await self._opened()).acquire()
        except TimeoutError as exc:
            NONE_FREE.inc()
            raise Unavailable(f"no connection to MySQL within {ACQUIRE_S:.0f} s") from exc
        except (pymysql.err.MySQLError, OSError) as exc:
            raise _outage(exc) from exc
        finally:
            WAITING.dec()
        USED.inc()
        OPEN.set(self._pool.size)
        return connection

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await aiomysql.create_pool(LEAST, MOST, **self.options)
                self._keeper = asyncio.create_task(self._keep())
        return self._pool

    async def _keep(self) -> None:
        """Look at each idle connection; close those that idle too long and are not needed."""
        while True:
            for _ in range(self._pool.freesize):
                with suppress(Unavailable, pymysql.err.MySQLError, OSError):
                    await self._look()
            OPEN.set(self._pool.size)
            await asyncio.sleep(VALIDATE_S)

    async def _look(self) -> None:
        connection = await self._acquired()
        try:
            idle_s = asyncio.get_running_loop().time() - connection.last_usage
            if idle_s > IDLE_S and self._pool.size > LEAST:
                connection.close()
            else:
                async with asyncio.timeout(ANSWER_S):
                    await connection.ping(reconnect=False)
        except BaseException:
            connection.close()
            raise
        finally:
            USED.dec()
            self._pool.release(connection)


def options(url: str) -> dict[str, Any]:
    """What aiomysql is told: mysql://user:password@host:port/database."""
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "db": unquote(parts.path.removeprefix("/")),
        "charset": "utf8mb4",
        "autocommit": True,
        "connect_timeout": CONNECT_S,
        "client_flag": CLIENT.FOUND_ROWS,  # an update counts what it found, changed or not
        "sql_mode": SESSION,
        "init_command": ISOLATION,
    }


async def _reading(connection: Any, work: Callable[[Any], Awaitable[T]]) -> T:
    async with connection.cursor() as cursor:
        try:
            return await work(cursor)
        except pymysql.err.MySQLError as exc:
            if _code(exc) in AGAIN | LOST:
                raise Again(exc) from exc
            raise


async def _writing(connection: Any, work: Callable[[Any], Awaitable[T]]) -> T:
    try:
        await connection.begin()
    except pymysql.err.MySQLError as exc:
        if _code(exc) in LOST:
            raise Again(exc) from exc
        raise
    try:
        async with connection.cursor() as cursor:
            done = await work(cursor)
        await connection.commit()
    except pymysql.err.MySQLError as exc:
        if _code(exc) in AGAIN:
            raise Again(exc) from exc
        raise
    return done


def limited(question: str) -> str:
    """A SELECT that the server ends when nobody waits for it any more: MariaDB's way, then MySQL's."""
    return (
        f"/*M!100102 SET STATEMENT max_statement_time={ANSWER_S:g} FOR */"
        f" SELECT /*+ MAX_EXECUTION_TIME({ANSWER_S * 1000:.0f}) */ "
        f"{question.removeprefix('SELECT ')}"
    )


def _code(error: BaseException) -> int:
    return int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0


def _outage(error: Exception) -> Exception:
    """Unavailable for what says that the server does not do its work now; else the error itself."""
    match error:
        case pymysql.err.InterfaceError():  # of a connection that broke and was closed at our end
            pass
        case pymysql.err.MySQLError() if _code(error) not in AWAY:
            answer: Exception = error
            return answer
    FAILURES.labels(str(_code(error) or type(error).__name__)).inc()
    return Unavailable(f"MySQL does not answer: {error or type(error).__name__}")
