"""Reads: one place that answers what is there now, wherever the answer can be had.

    Redis (users, accounts) --> the store for it --> the other store --> the workers' tables
      a copy of before what this process knows, or a client was told --^ asks on

A store that is late, or was silent a moment ago, is asked after the tables. Reviews, holds and the
blacklist, which are short and must hold at once, come from the tables first. A row leaves its table
when its time is over and stays in the stores: it is not there once one of them says so, too. While no
table answers the newest copy is the answer, however old: it says its version and where it is from.
Without any store the tables alone are asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from prometheus_client import Counter

from gateway.errors import Problem, state_unavailable
from gateway.queries import Queries
from stores.catalog import BY_NAME, Kind, Unavailable
from stores.redis import COPIED, Redis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from gateway.call import Call
    from gateway.known import Known
    from gateway.lag import Lag
    from gateway.queries import Row
    from gateway.waiting import Waiting
    from stores.questions import Questions

T = TypeVar("T")

USERS, ACCOUNTS, TRANSACTIONS = BY_NAME["users"], BY_NAME["accounts"], BY_NAME["transactions"]
REVIEWS, QUOTES, HOLDS = BY_NAME["reviews"], BY_NAME["quotes"], BY_NAME["holds"]
PAYMENTS, METHODS, STATEMENTS = (
    BY_NAME[name] for name in ("payments", "payment_methods", "statements")
)
NOTIFICATIONS = BY_NAME["notifications"]
SETTLEMENTS, SETTLEMENT_ITEMS, SETTLEMENT_BREAKS = (
    BY_NAME[name] for name in ("settlements", "settlement_items", "settlement_breaks")
)
REPORTS, SCHEDULES = BY_NAME["reports"], BY_NAME["report_schedules"]
# which store answers first; any other question is MongoDB's
MYSQL_FIRST = frozenset({"users", "accounts", "entries"})
TABLES_FIRST = frozenset(
    {
        "reviews",
        "blacklist",
        "holds",
        "rates",
        "payment_methods",
        "statements",
        "settlements",
        "reports",
        "report_schedules",
    }
)
TABLES = "tables"
ANSWER_S = 1.0  # of a store; it goes on for its breaker's sake, but nobody waits
SILENT_S = 1.0  # for which a store that did not answer is asked last
TABLES_SILENT_S = 5.0  # the same for the tables of a service, which take their time to say no
BLIND_S = 3.0  # after events may have been missed
CLOSE_S = 2.0
KEEPING = 100  # copies on their way to Redis at once; others are not kept
TOLD, TOLD_S, CALLERS = 100, 10.0, 10_000

ANSWERED = Counter("streambank_gateway_reads_total", "Reads by where from", ["kind", "source"])
STALE = Counter("streambank_gateway_stale_total", "Answers that were too old", ["kind", "source"])


class Found(NamedTuple):
    """A row and where it is from."""

    row: Row
    source: str


class Told(NamedTuple):
    """What a caller was told of a row, and until when it is looked after."""

    version: int
    until_s: float


class Reads:
    """The reads of one process; `start` and `close` it on its event loop."""

    def __init__(
        self,
        queries: Queries,
        waiting: Waiting,
        known: Known | None,
        lag: Lag,
        redis: Redis | None = None,
        stores: Sequence[Questions] = (),
    ) -> None:
        self.queries = queries
        self._waiting, self._known, self._lag = waiting, known, lag
        self._redis, self._stores = redis, stores
        self._silent: dict[str, float] = {}  # until when, by source
        self._told: OrderedDict[str, OrderedDict[tuple[str, str], Told]] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def has_stores(self) -> bool:
        return bool(self._stores)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)

    # one row

    async def row(self, call: Call, kind: Kind, key: str) -> Row | None:
        """A row as it is now; the call learns where from. None: there is none. 503: nobody knows."""
        found = await self.find(kind, key)
        if found is None:
            return None
        call.read_source = found.source
        return found.row

    async def find(self, kind: Kind, key: str) -> Found | None:
        """The row and where it is from. None: there is none. 503: nobody knows."""
        best: Found | None = None
        left = False  # its table has it not, or not any more
        known = kind.removed or kind.stays or not self._stores  # by that alone
        for source in self._order(kind.name, kind.service, copies=True):
            try:
                row = await self._row_of(source, kind, key)
            except (Unavailable, Problem) as exc:
                self._away(source, kind.service, exc)
                continue
            if source is self.queries:
                if row is not None:
                    return self._answered(kind, key, Found(row, TABLES))
                if known or best is not None:
                    return self._answered(kind, key, best)
                left = True
                continue
            if row is None:
                known = known or source in self._stores
                continue
            if self._is_fresh(kind, key, row):
                return self._answered(kind, key, Found(row, source.name))
            STALE.labels(kind.name, source.name).inc()
            if best is None or row["version"] > best.row["version"]:
                best = Found(row, source.name)
        if best is None and not (left and known):
            raise state_unavailable(
                f"neither a worker nor a store answers for this part of {kind.service}"
            )
        return self._answered(kind, key, best)

    async def _row_of(self, source: Any, kind: Kind, key: str) -> Row | None:
        if isinstance(source, Queries):
            aggregate_id = kind.home(key)
            return await self.queries.row(kind.service, aggregate_id, kind.prefix + key)
        row: Row | None = await self._in_time(source.document(kind, key))
        return row

    def _answered(self, kind: Kind, key: str, found: Found | None) -> Found | None:
        if found is None:
            return None
        ANSWERED.labels(kind.name, found.source).inc()
        redis = self._redis
        if redis is None or kind.name not in COPIED or found.source == redis.name:
            return found
        if len(self._tasks) < KEEPING and self._is_fresh(kind, key, found.row):
            self._go_on(self._keep(redis, kind, key, found.row))
        return found

    async def _keep(self, redis: Redis, kind: Kind, key: str, row: Row) -> None:
        try:
            await redis.put(kind, key, row)
        except Unavailable as exc:
            self._away(redis, kind.service, exc)

    def _is_fresh(self, kind: Kind, key: str, row: Row) -> bool:
        least = self.queries.least(kind.service, kind.prefix + key)
        if row["version"] < least:
            return False
        return self._known is None or self._known.is_fresh(kind.service, key, row)

    # copies of what is made of rows, which is known by a name and as old as its service's aggregate

    async def copy(
        self, call: Call, name: str, service: str, aggregate_id: str, row_key: str
    ) -> Row | None:
        """The copy in Redis under this name, if nothing newer is known; the call learns where from."""
        redis = self._redis
        if redis is None or self._is_silent(redis.name) or self._waiting.live_s < BLIND_S:
            return None
        try:
            found: Row | None = await self._in_time(redis.held(name))
        except Unavailable as exc:
            self._away(redis, service, exc)
            return None
        if found is None or not self._is_current(service, aggregate_id, row_key, found):
            return None
        if self._known is None or not self._known.has(service, aggregate_id):
            # what came before this process began to hear is in the row alone
            try:
                now = await self.queries.row(service, aggregate_id, row_key)
            except Problem as exc:
                self._away(self.queries, service, exc)
                return None
            if now is None or now["version"] > found["version"]:
                STALE.labels(service, redis.name).inc()
                return None
        call.read_source = redis.name
        ANSWERED.labels(service, redis.name).inc()
        return found

    def keep(
        self, name: str, service: str, aggregate_id: str, row_key: str, row: Row, live_s: int
    ) -> None:
        """Copy what was made of rows, unless something newer is known. Nobody waits for it."""
        redis = self._redis
        if redis is None or len(self._tasks) >= KEEPING:
            return
        if self._is_current(service, aggregate_id, row_key, row):
            self._go_on(self._hold(redis, service, name, row, live_s))

    async def _hold(self, redis: Redis, service: str, name: str, row: Row, live_s: int) -> None:
        try:
            await redis.hold(name, row["version"], row, live_s)
        except Unavailable as exc:
            self._away(redis, service, exc)

    def _is_current(self, service: str, aggregate_id: str, row_key: str, row: Row) -> bool:
        if row["version"] < self.queries.least(service, row_key):
            return False
        return self._known is None or self._known.is_fresh(service, aggregate_id, row)

    # lists and other questions

    async def ask(
        self,
        call: Call,
        name: str,
        of_store: Callable[[Questions], Coroutine[Any, Any, T]],
        of_tables: Callable[[], Awaitable[T]] | None = None,
        *,
        kinds: Sequence[Kind] = (),
        tables_first: bool = False,
    ) -> T:
        """What the first answers that has all of `kinds` that the caller was just told of.

        503 when nobody answers, or when stores alone could and there is none.
        """
        late: tuple[T, str] | None = None
        service = kinds[0].service if kinds else name
        for source in self._order(name, service, tables_first=tables_first):
            if source is self.queries and of_tables is None:
                continue
            try:
                if source is self.queries:
                    assert of_tables is not None
                    got, where = await of_tables(), TABLES
                else:
                    got, where = await self._in_time(of_store(source)), source.name
                    if not await self._in_time(self._has_told(source, call, kinds)):
                        STALE.labels(name, where).inc()
                        late = late or (got, where)
                        continue
            except (Unavailable, Problem) as exc:
                self._away(source, service, exc)
                continue
            late = (got, where)
            break
        if late is None:
            raise state_unavailable(_nobody(name, self.has_stores, of_tables is not None))
        call.read_source = late[1]
        ANSWERED.labels(name, late[1]).inc()
        return late[0]

    async def renewed(self, kind: Kind, rows: Sequence[Row]) -> list[Row]:
        """Rows of a store's list, those that are too old for what is known read anew."""
        keys = {id(row): _key(kind, row) for row in rows}
        old = [key for row in rows if not self._is_fresh(kind, key := keys[id(row)], row)]
        if not old:
            return [*rows]
        STALE.labels(kind.name, "list").inc(len(old))
        try:
            wanted = ((kind.home(key), kind.prefix + key) for key in old)
            new = await self.queries.gather(kind.service, wanted)
        except Problem as exc:
            self._away(self.queries, kind.service, exc)
            return [*rows]
        return [new.get(kind.prefix + keys[id(row)]) or row for row in rows]

    # what callers were told

    def told(self, call: Call, kind: Kind, key: str, version: int) -> None:
        """A caller was told of this version: they find it in lists too, for some seconds."""
        self.queries.saw(kind.service, kind.prefix + key, version)
        if not self._stores:
            return
        mine = self._told.setdefault(call.caller.user_id, OrderedDict())
        mine[kind.name, key] = Told(version, time.monotonic() + TOLD_S)
        self._told.move_to_end(call.caller.user_id)
        if len(mine) > TOLD:
            mine.popitem(last=False)
        if len(self._told) > CALLERS:
            self._told.popitem(last=False)

    async def _has_told(self, store: Questions, call: Call, kinds: Sequence[Kind]) -> bool:
        mine, now_s = self._told.get(call.caller.user_id), time.monotonic()
        for kind in kinds if mine else ():
            assert mine is not None
            least = {
                key: told.version
                for (name, key), told in mine.items()
                if name == kind.name and told.until_s > now_s
            }
            found = await store.documents(kind, [*least]) if least else {}
            if any(key not in found or found[key]["version"] < least[key] for key in least):
                return False
        return True

    # whom to ask

    def _order(
        self, name: str, service: str, *, copies: bool = False, tables_first: bool = False
    ) -> list[Any]:
        """Redis, the stores and the tables (`queries`): who is likely to know first."""
        first = "mysql" if name in MYSQL_FIRST else "mongodb"
        stores: list[Any] = sorted(self._stores, key=lambda store: store.name != first)
        if copies and self._redis is not None and name in COPIED:
            stores.insert(0, self._redis)
        if not stores:
            return [self.queries]
        if tables_first or name in TABLES_FIRST or self._waiting.live_s < BLIND_S:
            soon: list[Any] = []
        else:
            soon = [store for store in stores if not self._is_last(store)]
        later = [store for store in stores if store not in soon]
        if self._is_silent(f"{TABLES}/{service}"):
            return [*soon, *later, self.queries]
        return [*soon, self.queries, *later]

    def _is_last(self, store: Any) -> bool:
        return self._is_silent(store.name) or self._lag.is_late(store.name)

    def _is_silent(self, source: str) -> bool:
        return self._silent.get(source, 0.0) > time.monotonic()

    def _away(self, source: Any, service: str, exc: Exception) -> None:
        if isinstance(exc, Problem) and exc.status != 503:
            raise exc
        if source is self.queries:
            self._silent[f"{TABLES}/{service}"] = time.monotonic() + TABLES_SILENT_S
        else:
            self._silent[source.name] = time.monotonic() + SILENT_S

    async def _in_time(self, answer: Coroutine[Any, Any, T]) -> T:
        task = self._go_on(answer)
        done, _ = await asyncio.wait([task], timeout=ANSWER_S)
        if not done:
            raise Unavailable(f"no answer within {ANSWER_S:.0f} s")
        return task.result()

    def _go_on(self, answer: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Whoever waits for it may go away: the store's breaker hears of its end all the same."""
        task = asyncio.create_task(answer)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: nobody may wait for it any more


def _key(kind: Kind, row: Row) -> str:
    if kind is TRANSACTIONS:
        return str(row["order"]["transaction_id"])
    if kind is NOTIFICATIONS:
        return str(row["notification_id"])
    return str(row["account_id"] if kind is ACCOUNTS else row["user_id"])


def _nobody(name: str, has_stores: bool, has_tables: bool) -> str:
    if not has_stores and not has_tables:
        return f"{name} are answered by a store, and none is configured (STREAMBANK_MYSQL_URL, STREAMBANK_MONGODB_URL)"
    return f"nobody answers for {name} just now"
