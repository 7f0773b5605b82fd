"""The price list over HTTP: what orders cost, read by staff and set by operators."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from domain.prices import (
    PRICE_LIST,
    Price,
    PriceListRefused,
    PriceListSet,
    SetPriceList,
    listed,
)
from domain.saga import TransactionType
from gateway import views
from gateway.answer import Answer, answer
from gateway.models import NewPriceList
from gateway.outcome import LOOK, identify, once, pursue, refused

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard

SERVICE = "transaction"


async def get(call: Call) -> Answer:
    row = await call.gateway.queries.row(SERVICE, PRICE_LIST, PRICE_LIST)
    return answer(views.picked(_shown(row), call.query.get("fields")))


async def put(call: Call) -> Answer:
    """202, or 200 with the list: from then on whatever is ordered costs what it says."""
    body = call.body
    assert isinstance(body, NewPriceList)
    command = SetPriceList(
        prices=tuple(
            Price(
                type=TransactionType(price.type),
                currency=price.currency,
                flat_minor=price.flat,
                rate_ppm=price.rate_ppm,
                minimum_minor=price.minimum,
                maximum_minor=price.maximum,
            )
            for price in body.prices
        ),
        actor_id=call.caller.user_id,
    )

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Setting(call, identity, command))

    return await once(call, identify(call), first)


class _Setting:
    """SetPriceList on its way."""

    service = SERVICE
    location = "/api/price-list"
    key = aggregate_id = PRICE_LIST

    def __init__(self, call: Call, identity: Identity, command: SetPriceList) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.named: dict[str, str] = {}
        event = PriceListSet(version=0, prices=command.prices, actor_id="", at_ms=0)
        self.wanted = views.plain(listed(event)[PRICE_LIST])["prices"]

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, PriceListRefused):
            return refused(self.call, heard.event.reason, self.named)
        return LOOK

    async def looked(self) -> Answer | None:
        """Once every partition knows: whatever is ordered costs that."""
        queries = self.call.gateway.queries
        asked = (queries.rows(SERVICE, one, (PRICE_LIST,)) for one in range(queries.partitions))
        rows = [found[PRICE_LIST] for found in await asyncio.gather(*asked)]
        if any(row is None or row["prices"] != self.wanted for row in rows):
            return None
        row = rows[queries.partition(PRICE_LIST)]
        assert row is not None
        queries.saw(SERVICE, PRICE_LIST, row["version"])
        return answer(_shown(row))


def _shown(row: Row | None) -> dict[str, Any]:
    prices = row["prices"].values() if row is not None else ()
    return {
        "prices": [
            {
                "type": price["type"],
                "currency": price["currency"],
                "flat": price["flat_minor"],
                "rate_ppm": price["rate_ppm"],
                "minimum": price["minimum_minor"],
                "maximum": price["maximum_minor"],
            }
            for price in prices
        ],
        "version": row["version"] if row is not None else 0,
        "updated_at": views.time_of(row["updated_ms"]) if row is not None else None,
        "updated_by": row["actor_id"] if row is not None else None,
    }
