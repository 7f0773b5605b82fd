"""Reads: rows of the workers' tables, asked of whoever holds the partition.

    key --murmur2--> partition --group description--> host:port --HTTP, internal token--> row

The owners of a service's partitions are kept until one of them says 421 or does not answer; then
they are looked up again, at most every LOOKUP_S. While a partition moves the answer is a Problem
503 with Retry-After. What a waiting client was told is remembered for some seconds, so that a read
right behind it is not answered from before (`saw`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import orjson
from confluent_kafka import KafkaException
from prometheus_client import Counter, Histogram

from gateway.errors import Problem, state_unavailable
from resilience.bulkhead import Bulkhead
from streaming import Admin, partition_of, partition_owners

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

log = logging.getLogger(__name__)

LOOKUP_S = 0.5  # least time between two looks at a group
LOOKUP_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 2.0
PATIENCE_S = 3.0  # how long a read looks for an owner before it gives up
PAUSE_S = 0.1
WAITING_LIMIT = 1_000  # reads in line for a place in the bulkhead; beyond it they are sent away
KEYS = 200  # rows of one request
SEEN, SEEN_S = 10_000, 10.0

READ_S = Histogram("streambank_gateway_read_seconds", "Reads of workers' tables", ["service"])
LOOKUPS = Counter("streambank_gateway_owner_lookups_total", "Looks for owners", ["service"])

Row = dict[str, Any]
T = TypeVar("T")


class Moved(Exception):
    """The one that was asked does not hold the partition, restores it, or does not answer."""


class Queries:
    """The reads of one process; `start` and `close` it on its event loop."""

    def __init__(self, kafka: Mapping[str, str], prefix: str, partitions: int, token: str) -> None:
        self._kafka = dict(kafka)
        self._prefix, self.partitions = prefix, partitions
        self._headers = {"Authorization": f"Bearer {token}"}
        self._owners: dict[str, dict[int, str]] = defaultdict(dict)
        self._looked_s: dict[str, float] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._seen: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None
        self._bulkheads: defaultdict[str, Bulkhead] = defaultdict(lambda: Bulkhead("tables"))
        self._waiting = 0

    def start(self) -> None:
        self.admin = Admin({**self._kafka, "socket.timeout.ms": 5000, "log_level": 2})
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=READ_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        )

    async def close(self) -> None:
        for task in self._looking.values():
            task.cancel()
        if self._session is not None:
            await self._session.close()
            await asyncio.to_thread(self.admin.close)

    def brokers(self, timeout_s: float) -> int:
        """How many brokers answer; KafkaException when none does. Blocks: not for the event loop."""
        return self.admin.ask(
            lambda client: len(client.list_topics(topic="__none", timeout=timeout_s).brokers), 0
        )

    def partition(self, key: str) -> int:
        """Where an aggregate lives."""
        return partition_of(key.encode(), self.partitions)

    def saw(self, service: str, row_key: str, version: int) -> None:
        """A client was told of this version: later reads of the row give it, or a newer one."""
        self._seen[service, row_key] = (version, time.monotonic() + SEEN_S)
        self._seen.move_to_end((service, row_key))
        while len(self._seen) > SEEN:
            self._seen.popitem(last=False)

    async def row(
        self, service: str, aggregate_id: str, row_key: str, *, versioned: bool = True
    ) -> Row | None:
        """One row of an aggregate's partition, None when there is none.

        A `versioned` one is at least as new as what a client of this process was told.
        """
        if not versioned:
            return (await self.rows(service, self.partition(aggregate_id), (row_key,)))[row_key]
        least = self.least(service, row_key)
        deadline_s = time.monotonic() + 1.0
        while True:
            rows = await self.rows(service, self.partition(aggregate_id), (row_key,))
            row = rows[row_key]
            if (row["version"] if row else 0) >= least or time.monotonic() > deadline_s:
                return row
            await asyncio.sleep(0.01)  # its worker committed, and is about to show it

    def least(self, service: str, row_key: str) -> int:
        """The version that a client was told of a moment ago; 0 when none was."""
        version, until_s = self._seen.get((service, row_key), (0, 0.0))
        return version if until_s > time.monotonic() else 0

    async def rows(
        self, service: str, partition: int, row_keys: Sequence[str]
    ) -> dict[str, Row | None]:
        """Rows of one partition by their keys; None for one that is not there."""
        found: dict[str, Row | None] = {}
        for at in range(0, len(row_keys), KEYS):
            body = orjson.dumps({"keys": row_keys[at : at + KEYS]})
            answer = await self._ask(service, partition, "POST", data=body)
            found.update(answer["rows"])
        return found

    async def gather(
        self, service: str, wanted: Iterable[tuple[str, str]]
    ) -> dict[str, Row | None]:
        """Rows of many aggregates, given as (aggregate id, row key): one question a partition."""
        by_partition: dict[int, list[str]] = defaultdict(list)
        for aggregate_id, row_key in wanted:
            by_partition[self.partition(aggregate_id)].append(row_key)
        answers = await asyncio.gather(
            *(self.rows(service, partition, keys) for partition, keys in by_partition.items())
        )
        return {key: row for rows in answers for key, row in rows.items()}

    async def listed(
        self, service: str, partition: int, prefix: str, after: str, limit: int
    ) -> tuple[list[tuple[str, Row]], str | None]:
        """Rows of one partition in the order of their keys, behind `after`; and where to go on."""
        params = {"prefix": prefix, "after": after, "limit": str(limit)}
        answer = await self._ask(service, partition, "GET", params=params)
        return list(answer["rows"].items()), answer["next_after"]

    async def _ask(self, service: str, partition: int, method: str, **options: Any) -> Any:
        if self._waiting >= WAITING_LIMIT:
            raise Problem("OVERLOADED", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            return await self._ask_owner(service, partition, method, options)
        finally:
            self._waiting -= 1

    async def _ask_owner(
        self, service: str, partition: int, method: str, options: Mapping[str, Any]
    ) -> Any:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            owner = self._owners[service].get(partition)
            if owner is None:
                await self._look(service)
                owner = self._owners[service].get(partition)
            if owner is not None:
                try:
                    return await self._read(service, partition, owner, method, options)
                except Moved as exc:
                    log.info("partition %d of %s has moved: %s", partition, service, exc)
                    if self._owners[service].get(partition) == owner:
                        del self._owners[service][partition]
            if time.monotonic() > deadline_s:
                raise state_unavailable(f"no worker answers for this part of {service} just now")
            await asyncio.sleep(PAUSE_S)

    async def _read(
        self, service: str, partition: int, owner: str, method: str, options: Mapping[str, Any]
    ) -> Any:
        assert self._session is not None
        url = f"http://{owner}/tables/{service}/{partition}"
        started = time.perf_counter()
        try:
            async with (
                self._bulkheads[service].waiting(),
                self._session.request(method, url, **options) as response,
            ):
                if response.status != 200:
                    raise Moved(f"{owner} answered {response.status}")
                answer = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Moved(f"{owner}: {exc!r}") from exc
        READ_S.labels(service).observe(time.perf_counter() - started)
        return answer

    async def holders(self, groups: Sequence[str]) -> dict[str, dict[int, str]]:
        """Who holds the partitions of each group just now, by their ops addresses.

        Raises KafkaException or TimeoutError.
        """

        def held() -> dict[str, dict[int, str]]:
            return {group: self._held(f"{self._prefix}{group}") for group in groups}

        return await asyncio.to_thread(held)

    async def metrics(self, address: str) -> str | None:
        """The metrics of a worker as it writes them; None when it does not answer."""
        assert self._session is not None
        try:
            async with self._session.get(f"http://{address}/metrics") as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def _look(self, service: str) -> None:
        """Look up who holds a service's partitions; callers at the same time share one look."""
        task = self._looking.get(service)
        if task is None:
            wait_s = self._looked_s.get(service, 0.0) + LOOKUP_S - time.monotonic()
            if wait_s > 0:
                return
            task = self._looking[service] = asyncio.create_task(self._look_now(service))
            task.add_done_callback(lambda _: self._looking.pop(service, None))
        await asyncio.shield(task)

    async def _look_now(self, service: str) -> None:
        LOOKUPS.labels(service).inc()
        self._looked_s[service] = time.monotonic()
        try:
            self._owners[service] = await asyncio.to_thread(self._held, f"{self._prefix}{service}")
        except (KafkaException, TimeoutError) as exc:
            log.warning("the workers of %s could not be looked up: %s", service, exc)

    def _held(self, group: str) -> dict[int, str]:
        return self.admin.ask(lambda client: partition_owners(client, group, LOOKUP_TIMEOUT_S), 0)
