"""Payment methods over HTTP: a number comes in, goes to the provider, and is forgotten.

POST --check--> provider's token --AddPaymentMethod--> payment.inbox
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.payment_methods import (
    AddPaymentMethod,
    MethodKind,
    MethodStatus,
    PaymentMethodAdded,
    PaymentMethodCommandRefused,
    PaymentMethodRemoved,
    RemovePaymentMethod,
    method_key,
    methods_key,
    owner_of,
)
from domain.saga import Reason
from gateway import auth, pages, views, whose
from gateway.answer import Answer, answer
from gateway.client import of_number
from gateway.errors import not_found
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.payment_models import NewPaymentMethod, bank_of, brand_of
from gateway.reads import METHODS
from gateway.users import fingerprint

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard


async def create(call: Call) -> Answer:
    """202, or 201 with the method when the client waits. The body's fingerprint is keyed."""
    body = call.body
    assert isinstance(body, NewPaymentMethod)
    request_hash = fingerprint(call.gateway.settings.fingerprint_secret, call.raw_body)

    async def first(identity: Identity) -> Answer:
        user_id = await whose.holder(
            call, body.user_id, "you may add payment methods for yourself alone"
        )
        token = ""
        if not identity.repeated:
            token = await call.gateway.card_tokens.token(body, key=str(identity.scope))
        return await pursue(call, identity, _Adding(call, identity, body, user_id, token))

    return await once(call, identify(call, request_hash=request_hash), first)


class _Adding:
    """AddPaymentMethod on its way."""

    service = "payment"

    def __init__(
        self, call: Call, identity: Identity, body: NewPaymentMethod, user_id: str, token: str
    ) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = user_id
        self.method_id = f"{user_id}.{identity.resource_id}"
        self.location = f"/api/payment-methods/{self.method_id}"
        self.named = {"payment_method_id": self.method_id}
        self.command = _command(call, identity, body, self.method_id, token)

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, PaymentMethodCommandRefused):
            return refused(self.call, event.reason, self.named)
        if isinstance(event, PaymentMethodAdded):
            self.call.gateway.reads.told(self.call, METHODS, self.method_id, event.version)
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        row = await _read(self.call, self.method_id)
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        return answer(shown(row), 201)


def _command(
    call: Call, identity: Identity, body: NewPaymentMethod, method_id: str, token: str
) -> AddPaymentMethod:
    settings = call.gateway.settings
    number = body.number or body.iban or ""
    country, bank = bank_of(body.iban) if body.iban else ("", "")
    return AddPaymentMethod(
        method_id=method_id,
        user_id=owner_of(method_id),
        kind=MethodKind(body.type),
        provider=settings.provider,
        token=token,
        fingerprint=of_number(settings.fingerprint_secret, number),
        brand=brand_of(number) if body.number else "",
        last_four=number[-4:],
        expiry_month=body.exp_month or 0,
        expiry_year=body.exp_year or 0,
        country=country,
        bank=bank,
        holder=body.name or "",
        actor_id=call.caller.user_id,
        request_hash=identity.request_hash,
    )


async def listing(call: Call) -> Answer:
    """The active ones, the oldest first: a user has few. Staff may ask for those of another user."""
    user_id, limit = await pages.user_of(call), pages.limit_of(call)
    queries = call.gateway.queries
    listed = await queries.row("payment", user_id, methods_key(user_id), versioned=False)
    method_ids = listed["method_ids"] if listed else []
    start = len(method_ids) - pages.place_of(call, len(method_ids))
    keys = [method_key(one) for one in method_ids[start : start + limit]]
    rows = await queries.rows("payment", queries.partition(user_id), keys)
    call.read_source = "tables"
    items = [views.picked(shown(row), call.query.get("fields")) for row in rows.values() if row]
    left = len(method_ids) - start - limit
    return answer({"items": items, "next_cursor": pages.cursor(left) if left > 0 else None})


async def get(call: Call) -> Answer:
    row = await _mine(call, auth.STAFF_READS)
    return answer(views.picked(shown(row), call.query.get("fields")))


async def remove(call: Call) -> Answer:
    """202, or 200 when the client waits: it is not charged or paid out to any more."""
    row = await _mine(call, auth.MONEY)

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Removing(call, identity, row["method_id"]))

    return await once(call, identify(call), first)


class _Removing:
    """RemovePaymentMethod on its way."""

    service = "payment"

    def __init__(self, call: Call, identity: Identity, method_id: str) -> None:
        self.call, self.identity, self.method_id = call, identity, method_id
        self.key = self.aggregate_id = owner_of(method_id)
        self.location = "/api/payment-methods"
        self.named = {"payment_method_id": method_id}
        self.command = RemovePaymentMethod(
            method_id=method_id, user_id=owner_of(method_id), actor_id=call.caller.user_id
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, PaymentMethodCommandRefused):
            return refused(self.call, event.reason, self.named)
        if isinstance(event, PaymentMethodRemoved):
            self.call.gateway.reads.told(self.call, METHODS, self.method_id, event.version)
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        row = await _read(self.call, self.method_id)
        if row is not None and row["status"] == MethodStatus.ACTIVE:
            return None
        return answer({**self.named, "removed": True})


async def _read(call: Call, method_id: str) -> Row | None:
    return await call.gateway.queries.row("payment", owner_of(method_id), method_key(method_id))


async def _mine(call: Call, staff: Any) -> Row:
    """An active method, if it is the caller's or the caller is of these roles; 404 else."""
    method_id = call.names["payment_method_id"]
    mine = owner_of(method_id) == call.caller.user_id
    if not (mine or call.caller.may(staff)):
        raise not_found("no such payment method, or not yet")
    row = await call.gateway.reads.row(call, METHODS, method_id)
    if row is None or row["status"] != MethodStatus.ACTIVE:
        raise not_found("no such payment method, or not yet")
    return row


def shown(row: Row) -> dict[str, Any]:
    """Without the provider's token: it is nobody's business."""
    return {
        "payment_method_id": row["method_id"],
        "user_id": row["user_id"],
        "type": row["kind"],
        "brand": row["brand"] or None,
        "last4": row["last_four"],
        "exp_month": row["expiry_month"] or None,
        "exp_year": row["expiry_year"] or None,
        "country": row["country"] or None,
        "bank": row["bank"] or None,
        "name": row["holder"] or None,
        "fingerprint": row["fingerprint"],
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
    }
