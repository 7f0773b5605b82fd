"""The rail as perform asks it: the real rail process, its good and its bad days."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from agents.perform import Progress
from agents.rail import Rail
from deploy.local.processes import free_ports
from deploy.local.rail import application
from domain.payment import RailOperation, RailOutcome
from domain.saga import (
    Order,
    PaymentRequested,
    Reason,
    RefundRequested,
    TransactionType,
)
from domain.saga import (
    Rail as Way,
)
from resilience.breaker import Breaker, Limits, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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
        actor_id="U1", privileged=False, rail=Way.EXTERNAL, created_ms=0, deadline_ms=1,
    )  # fmt: skip
    return PaymentRequested(
        order=order, payment_id=payment_id, attempt=1, balances=(), at_ms=0, steps=(), **more
    )


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
    async with aiohttp.ClientSession() as session:
        answered = await Rail(rail_url, session, Breaker("rail")).ask(asked(amount_minor), {})
    assert answered.outcome is outcome
    assert (answered.payment_id, answered.operation) == ("P1", RailOperation.PAY)
    assert bool(answered.provider_reference) is (outcome is RailOutcome.APPROVED) or (
        outcome is not RailOutcome.APPROVED
    )


async def test_asked_again_the_rail_answers_the_same(rail_url: str) -> None:
    async with aiohttp.ClientSession() as session:
        rail = Rail(rail_url, session, Breaker("rail"))
        first, again = await rail.ask(asked(100), {}), await rail.ask(asked(100), {})
    assert first == again


async def test_a_refund_has_a_key_of_its_own(rail_url: str) -> None:
    payment = asked(100)
    refund = RefundRequested(
        order=payment.order, payment_id="P1", refund_id="P1.refund", provider_reference="r",
        attempt=2, reason=Reason.ACCOUNT_CLOSED, balances=(), at_ms=0, steps=(),
    )  # fmt: skip
    async with aiohttp.ClientSession() as session:
        rail = Rail(rail_url, session, Breaker("rail"))
        paid, back = await rail.ask(payment, {}), await rail.ask(refund, {})
    assert (back.operation, back.attempt) == (RailOperation.REFUND, 2)
    assert back.provider_reference != paid.provider_reference


async def test_a_rail_that_is_away_is_unknown_and_opens_the_breaker() -> None:
    (port,) = free_ports(1)
    async with aiohttp.ClientSession() as session:
        breaker = Breaker("rail", Limits(least_calls=2))
        rail = Rail(f"http://127.0.0.1:{port}", session, breaker)
        answers = await asyncio.gather(*(rail.ask(asked(100), {}) for _ in range(2)))
        assert breaker.state is State.OPEN
        answers.append(await rail.ask(asked(100), {}))
    assert {answer.outcome for answer in answers} == {RailOutcome.UNKNOWN}
    assert "is open" in answers[-1].detail


async def test_no_more_than_its_places_are_asked_at_once(rail_url: str) -> None:
    async with aiohttp.ClientSession() as session:
        rail = Rail(rail_url, session, Breaker("rail"))
        most = 0

        async def ask(n: int) -> RailOutcome:
            nonlocal most
            answer = asyncio.ensure_future(rail.ask(asked(121, f"P{n}"), {}))
            while not answer.done():
                most = max(most, rail.bulkhead.taken)
                await asyncio.sleep(0.01)
            return (await answer).outcome

        outcomes = await asyncio.gather(*(ask(n) for n in range(20)))
    assert set(outcomes) == {RailOutcome.APPROVED}
    assert most == rail.bulkhead.calls


def test_offsets_are_done_when_all_before_them_are_and_over_gaps() -> None:
    progress = Progress(next=3)
    for offset in (3, 5, 6, 9):  # markers of transactions lie between
        progress.take(offset)
    progress.finish(5)
    assert (progress.next, progress.taken) == (3, 4)
    progress.finish(3)
    assert (progress.next, progress.taken) == (6, 2)
    progress.finish(9)
    progress.finish(6)
    assert (progress.next, progress.taken, progress.done) == (10, 0, set())
