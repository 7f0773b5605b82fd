"""Suspense over HTTP: what waits for a person, and a person's word on it.

    GET list, item     POST resolve --> paid | returned | recovered | written_off, or why not

Items lie in the workers' tables, with the account that they came from; an id begins with that
account's. What is settled leaves them after a month: the events, the entries and the audit stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.account import AccountCommandRefused
from domain.saga import Reason
from domain.suspense import (
    SUSPENDED,
    ResolveSuspense,
    SuspenseAction,
    SuspenseResolutionRefused,
    SuspenseResolved,
    SuspenseStatus,
    home_of,
    item_key,
    resolution_key,
)
from gateway import scans, views
from gateway.answer import Answer, answer
from gateway.errors import not_found
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.suspense_models import Resolution

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard

SERVICE = "account"
STANDING = frozenset({SuspenseStatus.OPEN, SuspenseStatus.PAYING})
FILTERS = ("kind", "currency")


def shown(row: Row) -> dict[str, Any]:
    order = row["order"]
    return {
        "suspense_id": row["suspense_id"],
        "kind": row["kind"],
        "status": row["status"],
        "amount": order["amount_minor"],
        "currency": order["currency"],
        "account_id": row["account_id"],
        "user_id": order["owner_id"],
        "transaction_id": order["transaction_id"],
        "reason": row["reason"],
        "action": row["action"],
        "to_account_id": row["to_account_id"],
        "refusal": row["refusal"],
        "resolution_id": row["resolution_id"],
        "resolved_by": row["actor_id"],
        "note": row["note"] or None,
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
        "updated_at": views.time_of(row["updated_ms"]),
    }


async def listing(call: Call) -> Answer:
    """One partition after another, each in the order of its keys; without a status what stands."""
    status = call.query.get("status")
    asked = {name: call.query[name] for name in FILTERS if name in call.query}

    def wanted(row: Row) -> bool:
        if row["status"] not in (STANDING if status is None else (status,)):
            return False
        return all({**row, **row["order"]}[name] == value for name, value in asked.items())

    found = await scans.page(call, SERVICE, SUSPENDED, wanted)
    return scans.shown(call, map(shown, found.rows), found.following)


async def get(call: Call) -> Answer:
    row = await _item(call)
    return answer(views.picked(shown(row), call.query.get("fields")))


async def _item(call: Call) -> Row:
    suspense_id = call.names["suspense_id"]
    key = item_key(suspense_id)
    row = await call.gateway.queries.row(SERVICE, home_of(suspense_id), key)
    if row is None:
        raise not_found("nothing stands in suspense under this id")
    return row


async def resolve(call: Call) -> Answer:
    """202, or 200 with the item as it is settled; 422 with why it is not."""
    body = call.body
    assert isinstance(body, Resolution)

    async def first(identity: Identity) -> Answer:
        row = await _item(call)
        return await pursue(call, identity, _Resolving(call, identity, row, body))

    return await once(call, identify(call), first)


class _Resolving:
    """ResolveSuspense on its way."""

    service = SERVICE

    def __init__(self, call: Call, identity: Identity, row: Row, body: Resolution) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = row["account_id"]
        self.suspense_id = row["suspense_id"]
        self.location = f"/api/suspense/{self.suspense_id}"
        self.named = {"suspense_id": self.suspense_id}
        self.command = ResolveSuspense(
            suspense_id=self.suspense_id,
            account_id=self.key,
            resolution_id=identity.resource_id,
            action=SuspenseAction(body.action),
            amount_minor=body.amount,
            currency=body.currency,
            to_account_id=body.account_id,
            note=body.note or "",
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if isinstance(event, AccountCommandRefused):
            ours = heard.answers(self.identity.command_id)
            return refused(self.call, event.reason, self.named) if ours else None
        if not isinstance(event, SuspenseResolved | SuspenseResolutionRefused):
            return None
        if event.resolution_id != self.identity.resource_id:
            return None
        self.call.gateway.queries.saw(SERVICE, item_key(self.suspense_id), event.version)
        if isinstance(event, SuspenseResolutionRefused):
            return refused(self.call, event.reason, self.named)
        return LOOK

    async def looked(self) -> Answer | None:
        """The first word on an id stands, whatever became of the item since."""
        queries = self.call.gateway.queries
        keys = (item_key(self.suspense_id), resolution_key(self.identity.resource_id))
        rows = await queries.rows(SERVICE, queries.partition(self.key), keys)
        item, word = (rows[key] for key in keys)
        if item is None or word is None:
            return None
        if word["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        if word["reason"] is not None:
            return refused(self.call, word["reason"], self.named)
        return answer(shown(item)) if item["status"] not in STANDING else None
