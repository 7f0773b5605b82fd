"""One bank for all tests of the gateway; each test brings people and accounts of its own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.gateway.stand import stand, town

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from deploy.local.kafka import Kafka
    from tests.gateway.stand import Stand, Town


@pytest.fixture(scope="package")
def bank(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Never stop its processes: others ask them too. It ends with the last test of the gateway.

    On a busy machine no transaction of its worker may be too old: that would end the worker, and
    with it all tests after.
    """
    directory = tmp_path_factory.mktemp("bank")
    more = {"STREAMBANK_TRANSACTION_TIMEOUT_S": "60", "STREAMBANK_SESSION_TIMEOUT_S": "30"}
    with stand(kafka, directory, f"g{uuid.uuid4().hex[:8]}-", **more) as started:
        yield started


@pytest.fixture
async def people(bank: Stand) -> AsyncIterator[Town]:
    ended = bank.revive()
    async with town(bank.url) as found:
        yield found
    assert not ended, f"ended after the test before this one began, started again: {ended}"
