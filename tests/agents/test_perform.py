"""Effects as perform asks for them: the real rail and its bad days, downstreams that delay no other."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from agents.perform import Perform, Progress, Way
from agents.rail import Rail, effect
from agents.wiring import Wiring
from deploy.local.processes import free_ports
from deploy.local.provider import application
from domain.payment_rail import RailAnswered, RailOperation, RailOutcome
from domain.saga import (
    Order,
    PaymentRequested,
    Reason,
    RefundRequested,
    TransactionType,
)
from domain.saga import (
    Rail as By,
)
from resilience.breaker import Rejected, State
from resilience.downstream import KNOWN, Away, Downstreams
from resilience.guarded import states
from schemas.codec import Codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from agents.effect import Effect
    from deploy.local.kafka import Kafka


@pytest.fixture
async def rail_url() -> AsyncIterator[str]:
    runner = web.AppRunner(application())
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


def asked(amount_minor: int, payment_id: str = "P1", **more: Any) -> PaymentRequested:
    order = Order(
        transaction_id="T1", type=TransactionType.WITHDRAWAL, amount_minor=amount_minor,
        currency="USD", source_account_id="A1", destination_account_id=None, owner_id="U1",
        actor_id="U1", privileged=False, rail=By.EXTERNAL, created_ms=0, deadline_ms=1,
    )  # fmt: skip
    return PaymentRequested(
        order=order, payment_id=payment_id, attempt=1, balances=(), at_ms=0, steps=(), **more
    )


def paid(payment_id: str, account_id: str) -> PaymentRequested:
    request = asked(100, payment_id)
    return replace(request, order=replace(request.order, source_account_id=account_id))


@asynccontextmanager
async def rail(url: str) -> AsyncIterator[Way]:
    declared = effect(url, "sandbox")
    async with declared.open() as caller:
        yield Way(declared, caller)


@pytest.mark.parametrize(
    ("amount_minor", "outcome"),
    [
        (100, RailOutcome.APPROVED),
        (113, RailOutcome.DECLINED),
        (131, RailOutcome.UNKNOWN),  # pending: asked again later by its owner
        (141, RailOutcome.APPROVED),  # the first answer is lost on the way
        (151, RailOutcome.APPROVED),  # down twice
        (161, RailOutcome.UNKNOWN),  # down for longer than short retries last
    ],
)
async def test_what_an_attempt_comes_to(
    rail_url: str, amount_minor: int, outcome: RailOutcome
) -> None:
    async with rail(rail_url) as way:
        answered = await way.ask(asked(amount_minor), {})
    assert answered.outcome is outcome
    assert (answered.payment_id, answered.operation) == ("P1", RailOperation.PAY)
    assert bool(answered.provider_reference) is (outcome is RailOutcome.APPROVED) or (
        outcome is not RailOutcome.APPROVED
    )


async def test_asked_again_the_rail_answers_the_same(rail_url: str) -> None:
    async with rail(rail_url) as way:
        first, again = await way.ask(asked(100), {}), await way.ask(asked(100), {})
    assert first == again


async def test_a_refund_has_a_key_of_its_own(rail_url: str) -> None:
    payment = asked(100)
    refund = RefundRequested(
        order=payment.order, payment_id="P1", refund_id="P1.refund", provider_reference="r",
        attempt=2, reason=Reason.ACCOUNT_CLOSED, balances=(), at_ms=0, steps=(),
    )  # fmt: skip
    async with rail(rail_url) as way:
        paid, back = await way.ask(payment, {}), await way.ask(refund, {})
    assert (back.operation, back.attempt) == (RailOperation.REFUND, 2)
    assert back.provider_reference != paid.provider_reference


async def test_a_rail_that_is_away_is_unknown_and_opens_the_breaker() -> None:
    (port,) = free_ports(1)
    async with rail(f"http://127.0.0.1:{port}") as way:
        answers = await asyncio.gather(*(way.ask(asked(100), {}) for _ in range(10)))
        assert way.downstreams["rail"].breaker.state is State.OPEN
        answers.append(await way.ask(asked(100), {}))
    assert {answer.outcome for answer in answers} == {RailOutcome.UNKNOWN}
    assert "is open" in answers[-1].detail


async def test_no_more_than_its_places_are_asked_at_once(rail_url: str) -> None:
    async with rail(rail_url) as way:
        most, bulkhead = 0, way.downstreams["rail"].bulkhead

        async def ask(n: int) -> RailOutcome:
            nonlocal most
            answer = asyncio.ensure_future(way.ask(asked(121, f"P{n}"), {}))
            while not answer.done():
                most = max(most, bulkhead.taken)
                await asyncio.sleep(0.01)
            return (await answer).outcome

        outcomes = await asyncio.gather(*(ask(n) for n in range(20)))
    assert set(outcomes) == {RailOutcome.APPROVED}
    assert most == bulkhead.calls


def test_offsets_are_done_when_all_before_them_are_and_over_gaps() -> None:
    progress = Progress(next=3)
    for offset in (3, 5, 6, 9):  # markers of transactions lie between
        progress.take(offset)
    progress.finish(5)
    assert (progress.next, progress.under_way) == (3, 3)
    progress.finish(3)
    assert (progress.next, progress.under_way) == (6, 2)
    progress.finish(9)
    progress.finish(6)
    assert (progress.next, progress.under_way, progress.done) == (10, 0, set())


class Street:
    """HTTP downstreams of a test, one a path: `/dead…` never answers, all others do at once."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.most: Counter[str] = Counter()  # at once
        self._now: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.calls[name] += 1
        self._now[name] += 1
        self.most[name] = max(self.most[name], self._now[name])
        try:
            await asyncio.sleep(60 if name.startswith("dead") else 0)
        finally:
            self._now[name] -= 1
        return web.json_response({"status": "approved", "reference": name})


@pytest.fixture
async def street() -> AsyncIterator[tuple[Street, str]]:
    street, app = Street(), web.Application()
    app.router.add_post("/{name}/payments", street.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield street, f"http://127.0.0.1:{port}"
    await runner.cleanup()


class ByAccount(Rail):
    """A rail for each source account."""

    def downstream(self, request: Any) -> str:
        return str(request.order.source_account_id)

    async def call(self, request: Any, headers: Any) -> Any:
        return await Rail(f"{self.url}/{self.downstream(request)}", self.session, "sandbox").call(
            request, headers
        )


def by_account(url: str, timeout_s: float, line: int | None) -> Effect:
    @asynccontextmanager
    async def connected() -> AsyncIterator[Rail]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield ByAccount(url, session, "sandbox")

    return replace(effect(url, "sandbox"), open=connected, timeout_s=timeout_s, line=line)


class Log:
    """Requests in, results out, by plain clients; one partition each."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap, self.prefix = bootstrap, prefix
        self.codec = Codec()
        names = ("rail.inbox", "payment.inbox", "payment.dead")
        topics = [NewTopic(f"{prefix}{name}", 1, 1) for name in names]
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        for made in self.admin.create_topics(topics).values():
            made.result(30)

    def request(self, requests: Iterable[PaymentRequested]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for request in requests:
            producer.produce(
                f"{self.prefix}rail.inbox",
                self.codec.encode(request),
                request.payment_id,
                headers=[("ce_source", b"/payment")],
            )
        assert producer.flush(30) == 0

    def results(self, count: int, timeout_s: float) -> list[RailAnswered]:
        """The first `count` results in their order, fewer where time is over."""
        given = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "reads",
            "enable.auto.commit": False,
        }
        consumer = Consumer(given)
        consumer.assign([TopicPartition(f"{self.prefix}payment.inbox", 0, 0)])
        found: list[RailAnswered] = []
        deadline_s = time.monotonic() + timeout_s
        while len(found) < count and time.monotonic() < deadline_s:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                found.append(self.codec.decode(message.value()))
        consumer.close()
        return found

    def committed(self) -> int:
        asked = [ConsumerGroupTopicPartitions(f"{self.prefix}perform")]
        (found,) = self.admin.list_consumer_group_offsets(asked).values()
        return int(found.result(30).topic_partitions[0].offset)


@asynccontextmanager
async def performing(log: Log, declared: Effect) -> AsyncIterator[Perform]:
    wiring = Wiring(kafka={"bootstrap.servers": log.bootstrap}, namespace=log.prefix)
    perform = Perform(wiring, Codec(), (declared,))
    running = asyncio.create_task(perform.run())
    try:
        yield perform
    finally:
        perform.stop()
        await running


async def test_a_dead_downstream_delays_no_other_of_its_topic(
    kafka: Kafka, prefix: str, street: tuple[Street, str]
) -> None:
    seen, url = street
    log = Log(kafka.bootstrap, prefix)
    log.request(paid(f"D{n}", "dead") for n in range(2500))
    log.request(paid(f"L{n}", "live") for n in range(100))
    async with performing(log, by_account(url, timeout_s=2.0, line=100)):
        # one attempt at the dead one takes 8 s: its answers lie behind all of these
        first = await asyncio.to_thread(log.results, 2500, 30.0)
        lives = [one for one in first if one.payment_id.startswith("L")]
        assert {one.outcome for one in lives} == {RailOutcome.APPROVED}
        assert len(lives) == 100
        handed_back = [one for one in first if "in line" in one.detail]
        assert len(first) == 2500
        assert len(handed_back) == 2500 - 100
        rest = await asyncio.to_thread(log.results, 2600, 60.0)
    assert {one.payment_id for one in rest} >= {f"D{n}" for n in range(2500)}
    assert seen.most["dead"] == 15
    assert log.committed() == 2600


async def test_results_behind_a_slow_one_are_said_and_offsets_wait_for_it(
    kafka: Kafka, prefix: str, street: tuple[Street, str]
) -> None:
    _, url = street
    log = Log(kafka.bootstrap, prefix)
    log.request([paid("D0", "dead"), *(paid(f"L{n}", "live") for n in range(50))])
    async with performing(log, by_account(url, timeout_s=2.0, line=20)) as perform:
        assert len(await asyncio.to_thread(log.results, 50, 10.0)) == 50
        ((_, progress),) = perform._progress.items()
        for _ in range(1_000):  # a result is read here before its producer knows of it
            if progress.under_way == 1:
                break
            await asyncio.sleep(0.01)
        assert (progress.next, progress.under_way) == (0, 1)
        assert len(await asyncio.to_thread(log.results, 51, 40.0)) == 51
    assert log.committed() == 51


async def test_each_downstream_has_a_breaker_of_its_own_and_idle_ones_go() -> None:
    downstreams = Downstreams(timeout_s=0.05)

    async def away() -> None:
        raise Away("closed")

    async def fine() -> str:
        return "well"

    results = await asyncio.gather(
        *(downstreams["shut"].ask(away) for _ in range(10)), return_exceptions=True
    )
    assert {type(one) for one in results} == {Away}
    with pytest.raises(Rejected):
        await downstreams["shut"].ask(fine)
    assert await downstreams["open"].ask(fine) == "well"
    assert states()["shut"] is State.OPEN
    for n in range(KNOWN):
        assert await downstreams[f"d{n}"].ask(fine) == "well"
    assert "shut" not in states()
    assert await downstreams["shut"].ask(fine) == "well"  # forgotten, so asked again


async def test_what_takes_longer_than_its_time_is_cut_off() -> None:
    downstream = Downstreams(timeout_s=0.05)["slow"]
    with pytest.raises(Away, match=r"no answer within 0\.05 s"):
        await downstream.ask(lambda: asyncio.sleep(60))
