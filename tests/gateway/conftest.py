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


@pytest.fixture(scope="session")
def bank(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Never stop its processes: others ask them too."""
    directory = tmp_path_factory.mktemp("bank")
    with stand(kafka, directory, f"g{uuid.uuid4().hex[:8]}-") as started:
        yield started


@pytest.fixture
async def people(bank: Stand) -> AsyncIterator[Town]:
    async with town(bank.url) as found:
        yield found
