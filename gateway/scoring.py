"""Risk over HTTP: what the rules would say of an order, and what they obey."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from domain.anomaly import MODEL, named
from domain.behaviour import FEATURES
from domain.risk import ScoreState, case_of, judged, scoring_keys
from domain.risk_config import (
    CONFIG,
    DEFAULT,
    Level,
    RiskConfig,
    RiskConfigRefused,
    SetRiskConfig,
    version_of,
)
from domain.risk_rules import reason_of
from domain.saga import Client, Order, Rail, Reason, TransactionType
from gateway import views
from gateway.answer import Answer, answer
from gateway.client import addresses_of, of_number
from gateway.errors import invalid
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.rehearsal import as_row
from gateway.risk_models import OrderToScore

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard

SERVICE = "risk"
DECISIONS = {
    ScoreState.APPROVED: "approve",
    ScoreState.IN_REVIEW: "review",
    ScoreState.DECLINED: "decline",
}
NUMBERS = [each.name for each in fields(RiskConfig) if each.name != "levels"]


async def score(call: Call) -> Answer:
    """200. Read from the owner's rows; nothing is written, and nobody is told."""
    body = call.body
    assert isinstance(body, OrderToScore)
    order, client = await _order(call, body), _client(call, body)
    keys = scoring_keys(order, client)
    queries = call.gateway.queries
    found = await queries.rows(SERVICE, queries.partition(order.owner_id), keys)
    rows = {key: as_row(SERVICE, row) for key, row in found.items() if row is not None}
    case = case_of(rows, order, client, order.created_ms)
    against, points, state = judged(case)
    level = case.level
    return answer(
        {
            "user_id": order.owner_id,
            "score": points,
            "decision": DECISIONS[state],
            "reason": reason_of(against) if state is ScoreState.DECLINED else None,
            "rules": [
                {"rule": one.rule, "points": one.points, "reason": one.reason} for one in against
            ],
            "features": named(FEATURES, case.features),
            "anomaly": case.anomaly,
            "model": MODEL.name,
            "level": case.customer.level if case.customer is not None else 0,
            "limits": {
                "transaction": level.transaction_minor,
                "day": level.day_minor,
                "day_left": max(0, level.day_minor - case.reserved_minor),
                "review": level.review_minor,
            },
            "config_version": version_of(rows),
        }
    )


async def _order(call: Call, body: OrderToScore) -> Order:
    member = "source_account_id" if body.source_account_id else "destination_account_id"
    owner_id = await call.gateway.owners.of(getattr(body, member))
    if owner_id is None:
        raise invalid(f"/{member}", Reason.ACCOUNT_NOT_FOUND, "is no account")
    now_ms = int(time.time() * 1000)
    return Order(
        transaction_id=str(uuid.uuid4()),
        type=TransactionType(body.type),
        amount_minor=body.amount,
        currency=body.currency,
        source_account_id=body.source_account_id,
        destination_account_id=body.destination_account_id,
        owner_id=owner_id,
        actor_id=call.caller.user_id if body.privileged else owner_id,
        privileged=body.privileged,
        rail=Rail.BOOK,
        created_ms=now_ms,
        deadline_ms=now_ms,
    )


def _client(call: Call, body: OrderToScore) -> Client:
    iban = body.iban or ""
    countries = {country for country in (body.country, iban[:2]) if country}
    return Client(
        addresses=addresses_of(body.address or ""),
        iban=of_number(call.gateway.settings.fingerprint_secret, iban) if iban else "",
        countries=tuple(sorted(countries)),
    )


# the configuration


async def config(call: Call) -> Answer:
    row = await call.gateway.queries.row(SERVICE, CONFIG, CONFIG)
    return answer(views.picked(_shown(row), call.query.get("fields")))


async def configure(call: Call) -> Answer:
    """202, or 200 with the configuration: from then on orders are scored by it."""
    body: Any = call.body

    async def first(identity: Identity) -> Answer:
        version = body.version
        if version is None:
            row = await call.gateway.queries.row(SERVICE, CONFIG, CONFIG)
            version = row["version"] if row is not None else 0
        command = SetRiskConfig(config=_config(body), version=version, actor_id=call.caller.user_id)
        return await pursue(call, identity, _Setting(call, identity, command))

    return await once(call, identify(call), first)


def _config(body: Any) -> RiskConfig:
    levels = tuple(
        Level(transaction_minor=one.transaction, day_minor=one.day, review_minor=one.review)
        for one in body.levels
    )
    return RiskConfig(levels=levels, **{name: getattr(body, name) for name in NUMBERS})


class _Setting:
    """SetRiskConfig on its way."""

    service = SERVICE
    location = "/api/risk/config"
    key = aggregate_id = CONFIG

    def __init__(self, call: Call, identity: Identity, command: SetRiskConfig) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.named: dict[str, str] = {}
        self.wanted = views.plain(command.config)

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, RiskConfigRefused):
            return refused(self.call, heard.event.reason, self.named)
        return LOOK

    async def looked(self) -> Answer | None:
        """Once every partition knows: whoever orders, it binds."""
        queries = self.call.gateway.queries
        asked = (queries.rows(SERVICE, one, (CONFIG,)) for one in range(queries.partitions))
        rows = [found[CONFIG] for found in await asyncio.gather(*asked)]
        if any(row is None or row["config"] != self.wanted for row in rows):
            return None
        row = rows[queries.partition(CONFIG)]
        assert row is not None
        queries.saw(SERVICE, CONFIG, row["version"])
        return answer(_shown(row))


def _shown(row: Row | None) -> dict[str, Any]:
    config = row["config"] if row is not None else views.plain(DEFAULT)
    return {
        **{name: config[name] for name in NUMBERS},
        "levels": [
            {
                "transaction": level["transaction_minor"],
                "day": level["day_minor"],
                "review": level["review_minor"],
            }
            for level in config["levels"]
        ],
        "version": row["version"] if row is not None else 0,
        "updated_at": views.time_of(row["updated_ms"]) if row is not None else None,
        "updated_by": row["actor_id"] if row is not None else None,
    }
