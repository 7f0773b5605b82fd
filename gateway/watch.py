"""What ops see at a glance: services, stores, breakers, the queue of reviews; numbers of the workers' own.

    groups --client ids--> ops addresses --GET /metrics--> lag, stopped partitions, breakers, ledger

One look in LOOK_S, however many watch, and none while nobody does. Addresses are never shown.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from confluent_kafka import KafkaException
from prometheus_client.parser import text_string_to_metric_families

from domain.risk import ReviewStatus
from domain.services import DECIDERS
from gateway import views
from gateway.answer import Answer, answer
from gateway.answers import Shown
from gateway.errors import Problem
from gateway.looks import Looks
from resilience.breaker import State
from resilience.guarded import states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.call import Call
    from gateway.services import Gateway

LOOK_S = 2.0
SERVICES = (*DECIDERS, "perform", "relay", "observe")
REVIEWS, PAGE = 1_000, 200  # open reviews that are counted, at most; rows of one question
WANTED = (
    "streaming_lag_records",
    "streaming_stopped_partitions",
    "streaming_ready",
    "streambank_breaker_state",
    "streambank_ledger_imbalance_minor",
)
STATES = {0.0: State.CLOSED, 1.0: State.HALF_OPEN, 2.0: State.OPEN}


class ServiceState(Shown):
    service: str
    state: Literal["up", "degraded", "down"]
    detail: str | None
    partitions: int
    held: int
    workers: int
    lag: int | None


class StoreState(Shown):
    store: str
    state: Literal["up", "late", "down"]
    behind_s: float | None


class BreakerState(Shown):
    downstream: str
    state: State
    seen_by: Literal["gateway", "workers"]


class Queue(Shown):
    open: int
    more: bool


class GatewayState(Shown):
    state: Literal["up", "degraded"]
    checks: dict[str, str]


class Status(Shown):
    at: str
    state: Literal["up", "degraded", "down"]
    gateway: GatewayState
    services: list[ServiceState]
    stores: list[StoreState]
    breakers: list[BreakerState]
    reviews: Queue | None
    ledger_imbalance: bool | None


@dataclass(slots=True)
class Numbers:
    """Of one worker process, by app."""

    lag: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    stopped: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    ready: dict[str, bool] = field(default_factory=dict)
    breakers: dict[str, float] = field(default_factory=dict)
    imbalance: bool = False


def numbers(text: str) -> Numbers:
    """What of a worker's metrics is shown."""
    found = Numbers()
    wanted = [line for line in text.splitlines() if line.startswith(WANTED)]
    families = text_string_to_metric_families("\n".join(wanted))
    for sample in (one for family in families for one in family.samples):
        value, labels = sample.value, sample.labels
        match sample.name:
            case "streaming_lag_records":
                found.lag[labels["app"]] += int(value)
            case "streaming_stopped_partitions":
                found.stopped[labels["app"]] += int(value)
            case "streaming_ready":
                found.ready[labels["app"]] = bool(value)
            case "streambank_breaker_state":
                found.breakers[labels["downstream"]] = value
            case "streambank_ledger_imbalance_minor":
                found.imbalance = found.imbalance or bool(value)
    return found


class Watch:
    """The looks of one process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.now = Looks(self._look, LOOK_S).now

    async def _look(self) -> dict[str, Any]:
        held, reviews, checks = await asyncio.gather(
            self._holders(), self._reviews(), self._gateway.readiness.checks()
        )
        addresses = sorted({one for owners in held.values() for one in owners.values()})
        answers = await asyncio.gather(*map(self._gateway.queries.metrics, addresses))
        workers = {
            address: numbers(text) if text is not None else None
            for address, text in zip(addresses, answers, strict=True)
        }
        partitions, prefix = self._gateway.queries.partitions, self._gateway.settings.prefix
        services = [
            service_state(name, f"{prefix}{name}", partitions, held.get(name, {}), workers)
            for name in SERVICES
        ]
        ages_s = self._gateway.lag.of_stores()
        stores = [self._store(name, age_s) for name, age_s in ages_s.items()]
        fine = all(text == "ok" for text in checks.values())
        heard = [one for one in workers.values() if one is not None]
        return {
            "at": views.time_of(time.time_ns() // 1_000_000),
            "state": _worst(
                [*(one["state"] for one in (*services, *stores)), "up" if fine else "degraded"]
            ),
            "gateway": {"state": "up" if fine else "degraded", "checks": checks},
            "services": services,
            "stores": stores,
            "breakers": _breakers(heard),
            "reviews": reviews,
            "ledger_imbalance": any(one.imbalance for one in heard) if heard else None,
        }

    async def _holders(self) -> dict[str, dict[int, str]]:
        """None of them where the broker does not answer: then nobody is known to work."""
        try:
            return await self._gateway.queries.holders(SERVICES)
        except (KafkaException, TimeoutError):
            return {}

    async def _reviews(self) -> dict[str, Any] | None:
        """Open ones, counted in the workers' tables; None while they are away."""
        queries, count, rows = self._gateway.queries, 0, 0
        try:
            for partition in range(queries.partitions):
                after: str | None = ""
                while after is not None:
                    found, after = await queries.listed("risk", partition, "review/", after, PAGE)
                    count += sum(row["status"] == ReviewStatus.OPEN for _, row in found)
                    rows += len(found)
                    if rows >= REVIEWS:
                        return {"open": count, "more": True}
        except Problem:
            return None
        return {"open": count, "more": False}

    def _store(self, name: str, age_s: float | None) -> dict[str, Any]:
        late = self._gateway.lag.is_late(name)
        state = "down" if age_s is None else "late" if late else "up"
        behind_s = None if age_s is None else round(age_s, 1)
        return {"store": name, "state": state, "behind_s": behind_s}


def service_state(
    name: str,
    app: str,
    partitions: int,
    owners: Mapping[int, str],
    workers: Mapping[str, Numbers | None],
) -> dict[str, Any]:
    """Of one service. `owners`: an address by partition; `workers`: None for one that does not answer."""
    asked = {address: workers[address] for address in set(owners.values())}
    heard = [one for one in asked.values() if one is not None]
    held = sum(workers[address] is not None for address in owners.values())
    stopped = sum(one.stopped[app] for one in heard)
    detail = None
    if not held:
        detail = "no worker answers"
    elif stopped:
        detail = f"stopped by a record: {stopped} of {partitions} partitions"
    elif held < partitions:
        detail = f"{held} of {partitions} partitions held"
    elif any(not one.ready.get(app, True) for one in heard):
        detail = "restores its tables"
    lags = [one.lag[app] for one in heard if app in one.lag]
    return {
        "service": name,
        "state": "down" if not held else "degraded" if detail else "up",
        "detail": detail,
        "partitions": partitions,
        "held": held,
        "workers": len(asked),
        "lag": sum(lags) if lags else None,
    }


def _worst(found: list[str]) -> str:
    """Of all: what is late or down somewhere degrades the whole; all down is down."""
    if all(state == "down" for state in found):
        return "down"
    return "up" if all(state == "up" for state in found) else "degraded"


def _breakers(workers: list[Numbers]) -> list[dict[str, Any]]:
    """Those of this process, and of all workers the worst by what they guard."""
    seen: dict[str, float] = {}
    for one in workers:
        for name, value in one.breakers.items():
            seen[name] = max(value, seen.get(name, 0))
    ours = [
        {"downstream": name, "state": state, "seen_by": "gateway"}
        for name, state in states().items()
    ]
    theirs = [
        {"downstream": name, "state": STATES[value], "seen_by": "workers"}
        for name, value in sorted(seen.items())
    ]
    return [*ours, *theirs]


async def get(call: Call) -> Answer:
    return answer(await call.gateway.watch.now())
