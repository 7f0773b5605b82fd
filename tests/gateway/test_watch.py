"""What ops see: states out of what workers say, and the route that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.watch import SERVICES, Numbers, Status, numbers, service_state
from tests.gateway.stand import until
from tests.gateway.test_end_to_end import funded

if TYPE_CHECKING:
    from tests.gateway.stand import Stand, Town

APP, HERE, THERE = "bank-account", "here:1", "there:2"
METRICS = """# HELP streaming_lag_records Committed records of a source not yet read
streaming_lag_records{app="bank-account",partition="0",topic="bank-account.inbox"} 3.0
streaming_lag_records{app="bank-account",partition="1",topic="bank-account.inbox"} 4.0
streaming_lag_records{app="bank-risk",partition="1",topic="bank-risk.inbox"} 5.0
streaming_stopped_partitions{app="bank-risk"} 1.0
streaming_ready{app="bank-account"} 1.0
streambank_breaker_state{downstream="rail \\"a\\""} 2.0
streambank_ledger_imbalance_minor{currency="USD",partition="0"} 0.0
streambank_other{app="bank-account"} 9.0
"""


def test_what_is_read_of_metrics() -> None:
    found = numbers(METRICS)
    assert found.lag == {"bank-account": 7, "bank-risk": 5}
    assert found.stopped["bank-risk"] == 1
    assert found.ready == {"bank-account": True}
    assert found.breakers == {'rail "a"': 2}
    assert not found.imbalance
    assert numbers('streambank_ledger_imbalance_minor{currency="USD"} -1.0').imbalance


def state(
    owners: dict[int, str], workers: dict[str, Numbers | None]
) -> tuple[str, str | None, int | None]:
    found = service_state("account", APP, 3, owners, workers)
    return found["state"], found["detail"], found["lag"]


FINE = numbers(METRICS)
STOPPED = numbers(f'streaming_stopped_partitions{{app="{APP}"}} 1')
RESTORING = numbers(f'streaming_ready{{app="{APP}"}} 0')
ALL = {0: HERE, 1: HERE, 2: THERE}


@pytest.mark.parametrize(
    ("owners", "workers", "expected"),
    [
        (ALL, {HERE: FINE, THERE: FINE}, ("up", None, 14)),
        ({}, {}, ("down", "no worker answers", None)),
        (ALL, {HERE: None, THERE: None}, ("down", "no worker answers", None)),
        (ALL, {HERE: None, THERE: FINE}, ("degraded", "1 of 3 partitions held", 7)),
        ({0: HERE, 1: HERE}, {HERE: FINE}, ("degraded", "2 of 3 partitions held", 7)),
        (
            ALL,
            {HERE: FINE, THERE: STOPPED},
            ("degraded", "stopped by a record: 1 of 3 partitions", 7),
        ),
        (ALL, {HERE: FINE, THERE: RESTORING}, ("degraded", "restores its tables", 7)),
    ],
)
def test_a_service_is_as_its_workers_say(
    owners: dict[int, str],
    workers: dict[str, Numbers | None],
    expected: tuple[str, str | None, int | None],
) -> None:
    assert state(owners, workers) == expected


async def test_the_state_of_a_running_bank(people: Town, bank: Stand) -> None:
    support = await people.staff("support")

    async def up() -> Status | None:
        got = await support.get("/api/status")
        assert got.status == 200, got.text
        # no address of any process gets out
        assert "127.0.0.1" not in got.text
        assert bank.environment["STREAMBANK_OPS_PORT"] not in got.text
        found = Status.model_validate_json(got.text)
        return found if found.state == "up" else None

    found = await until(up, "all is up", 60)
    assert [one.service for one in found.services] == [*SERVICES]
    assert {(one.held, one.workers) for one in found.services} == {(3, 1)}
    assert found.ledger_imbalance is False
    assert found.stores == []

    async def idle() -> bool:
        found = await up()
        return found is not None and not any(one.lag for one in found.services)

    await until(idle, "nobody is behind", 30)


async def test_the_queue_of_reviews_is_counted(people: Town) -> None:
    compliance = await people.staff("compliance")

    async def opened() -> int:
        return int((await compliance.get("/api/status")).json["reviews"]["open"])

    before = await opened()
    ada, source = await funded(people, "ada", 1_000_000)
    _, destination = await funded(people, "bob", 1)
    # so large a share of what they may move in a day: a person is asked
    await ada.pay(
        amount=90_000, source_account_id=source, destination_account_id=destination, wait=1
    )

    async def more() -> bool:
        return await opened() > before

    await until(more, "a review waits", 30)


async def test_who_may_not_see_it(people: Town) -> None:
    customer = await people.customer("ada")
    assert (await customer.get("/api/status")).status == 403
    assert (await people.stranger.get("/api/status")).status == 401
