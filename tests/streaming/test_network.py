"""The network fails between a request and its answer: whatever was lost, each input counts once.

A proxy stands before the broker and its rules name the worker's client id, so that only the worker suffers.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from deploy.local.kafka import Kafka
from streaming import ExitCode
from tests.streaming.kit import committed, create, wait_until
from tests.streaming.proxy import (
    ADD_OFFSETS,
    ADD_PARTITIONS,
    END_TXN,
    HOST,
    INIT_PRODUCER_ID,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    Proxy,
    Rule,
)
from tests.streaming.supervised import NEEDS_A_PERSON, Supervised
from tests.streaming.test_kills import check, drained, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APIS = (PRODUCE, ADD_PARTITIONS, ADD_OFFSETS, TXN_OFFSET_COMMIT, END_TXN)
WAYS = ("cut before", "cut after", "delay", "drop", "mute")
# small batches: there is always a next one to be worked on while a transaction waits for its answer
QUICK = {"kafka": {"socket.timeout.ms": 1000}, "batch_max": 10}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[Kafka]:
    """A broker that tells everybody, itself too, to come through the proxy."""
    directory = tmp_path_factory.mktemp("proxied")
    through = {"advertised.listeners": f"PLAINTEXT://{HOST}:{proxy.port}"}
    kafka = Kafka(directory, options=through, orphaned=signal.SIGKILL)
    proxy.target = kafka.port()
    with kafka:
        yield kafka
    shutil.rmtree(directory)


@pytest.fixture
def bootstrap(kafka: Kafka, proxy: Proxy) -> str:
    return f"{HOST}:{proxy.port}"


@pytest.fixture
def adder(bootstrap: str, prefix: str, worker: Callable[..., Any]) -> Iterator[Supervised]:
    """A supervised adder that is ready, and has committed."""
    name = f"{prefix}net"
    create(bootstrap, f"{name}.in", f"{name}.out")
    options = {"bootstrap": bootstrap, "name": name, "instance": "0", "driver": QUICK}
    with Supervised(lambda: worker("adder", **options)) as adder:
        load(bootstrap, name, 10)
        wait_until(lambda: drained(bootstrap, name, 10))
        yield adder


def settled(bootstrap: str, name: str, count: int, adder: Supervised) -> bool:
    assert NEEDS_A_PERSON not in adder.codes, adder.worker.text[-2000:]
    return committed(bootstrap, name, f"{name}.in") >= count and drained(bootstrap, name, count)


@pytest.mark.parametrize(
    "ways", [WAYS[:2], pytest.param(WAYS[2:], marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_requests_and_answers_lost(
    bootstrap: str, prefix: str, proxy: Proxy, adder: Supervised, ways: tuple[str, ...]
) -> None:
    name, count = f"{prefix}net", 10
    for api in APIS:
        for way in ways:
            rule = proxy.add(Rule({api}, way, client=f"{name}.0", times=1, delay_s=0.3))
            load(bootstrap, name, 20)
            count += 20
            wait_until(lambda count=count: settled(bootstrap, name, count, adder))
            proxy.lift(rule)
            assert rule.hits == 1, (api, way)
    check(bootstrap, name)
    assert adder.codes == []  # none of it is a reason to start anew


def test_a_client_that_waits_for_a_forgotten_coordinator_is_given_up(
    bootstrap: str, prefix: str, proxy: Proxy, worker: Callable[..., Any]
) -> None:
    """Where it begins anew with its brokers, librdkafka does not come back from sending offsets.

    Unless a connection that idles is closed, at which it looks again: here none is.
    """
    name = f"{prefix}net"
    create(bootstrap, f"{name}.in", f"{name}.out")
    hanging = {"metadata.recovery.strategy": "rebootstrap", "connections.max.idle.ms": 0}
    hangs = {**QUICK, "kafka": {**QUICK["kafka"], **hanging}}
    options = {"bootstrap": bootstrap, "name": name, "instance": "0", "driver": hangs}
    with Supervised(lambda: worker("adder", **options)) as adder:
        load(bootstrap, name, 10)
        wait_until(lambda: drained(bootstrap, name, 10))
        for count in range(30, 430, 20):
            if adder.codes:
                break
            rule = proxy.add(Rule({PRODUCE}, "cut after", client=f"{name}.0", times=1))
            load(bootstrap, name, 20)
            wait_until(lambda count=count: settled(bootstrap, name, count, adder))
            proxy.lift(rule)
        assert set(adder.codes) == {ExitCode.STUCK}, "or librdkafka is repaired: needed no more"
    check(bootstrap, name)


def test_a_start_without_answers(
    bootstrap: str, prefix: str, proxy: Proxy, worker: Callable[..., Any]
) -> None:
    name = f"{prefix}net"
    create(bootstrap, f"{name}.in", f"{name}.out")
    load(bootstrap, name, 20)
    rules = [
        proxy.add(Rule({INIT_PRODUCER_ID}, way, client=f"{name}.0", times=1))
        for way in ("cut before", "cut after", "mute")
    ]
    worker("adder", bootstrap=bootstrap, name=name, instance="0", driver=QUICK)
    wait_until(lambda: drained(bootstrap, name, 20))
    for rule in rules:
        proxy.lift(rule)
        assert rule.hits == 1
    check(bootstrap, name)


def _unknown(
    bootstrap: str, name: str, proxy: Proxy, adder: Supervised, way: str, seconds: float
) -> None:
    """No EndTxn is answered for `seconds`, while records keep coming."""
    rule = proxy.add(Rule({END_TXN}, way, client=f"{name}.0"))
    load(bootstrap, name, 200)
    wait_until(lambda: rule.hits)
    lifted = threading.Timer(seconds, proxy.lift, (rule,))
    lifted.start()
    load(bootstrap, name, 100)
    wait_until(lambda: settled(bootstrap, name, 310, adder), seconds + 90)
    lifted.join()
    check(bootstrap, name)


def test_a_commit_unknown_for_seconds_is_asked_for_again(
    bootstrap: str, prefix: str, proxy: Proxy, adder: Supervised
) -> None:
    """The broker has committed at once; the worker only hears of it after one whole call timed out."""
    _unknown(bootstrap, f"{prefix}net", proxy, adder, "cut after", 11)
    assert adder.worker.said("asks for the commit again")
    assert adder.codes == []


def test_a_commit_that_never_arrives_is_taken_again(
    bootstrap: str, prefix: str, proxy: Proxy, adder: Supervised
) -> None:
    """The coordinator gives the transaction up while the worker still asks: all of it is done anew."""
    _unknown(bootstrap, f"{prefix}net", proxy, adder, "cut before", 6)


@pytest.mark.long
@pytest.mark.timeout(420)
@pytest.mark.parametrize("way", ["cut before", "cut after", "mute"])
def test_a_commit_unknown_for_minutes(
    bootstrap: str, prefix: str, proxy: Proxy, adder: Supervised, way: str
) -> None:
    _unknown(bootstrap, f"{prefix}net", proxy, adder, way, 120)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_bad_network_for_minutes(
    bootstrap: str, prefix: str, proxy: Proxy, adder: Supervised
) -> None:
    """Every way of every API in turn, some requests at a time, under steady load."""
    name, count, end = f"{prefix}net", 10, time.monotonic() + 180
    while time.monotonic() < end:
        for api in APIS:
            for way in WAYS:
                rule = proxy.add(Rule({api}, way, client=f"{name}.0", times=3, delay_s=1))
                load(bootstrap, name, 50)
                count += 50
                wait_until(lambda c=count: settled(bootstrap, name, c, adder))
                proxy.lift(rule)
    check(bootstrap, name)
