"""Payments over HTTP: charge a payment method, look at it, give (part of) it back.

A payment is a transaction, whose id it has; what the provider did with it stands in payment's row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.payment_methods import owner_of
from domain.payment_rows import Status as ProviderStatus
from domain.payment_rows import payment_key
from domain.saga import Rail, Reason, Terms, TransactionType
from domain.transaction import CreateTransaction, TransactionCommandRefused
from domain.transaction import Status as TransactionStatus
from gateway import auth, views
from gateway.answer import Answer, answer
from gateway.client import client_of
from gateway.errors import invalid, not_found
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.payment_models import NewPayment, NewRefund
from gateway.reads import PAYMENTS, TRANSACTIONS
from gateway.transactions import FINAL, Creation, read

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard

NO_PAYMENT = "no such payment, or not yet"


async def create(call: Call) -> Answer:
    """202, or 201 with the payment when the client waits for its end."""
    body = call.body
    assert isinstance(body, NewPayment)

    async def first(identity: Identity) -> Answer:
        owner_id = await _owner(call, body)
        command = _command(
            call,
            identity,
            type=TransactionType.PAYMENT,
            amount_minor=body.amount,
            currency=body.currency,
            source_account_id=None,
            destination_account_id=body.destination_account_id,
            owner_id=owner_id,
            description=body.description or "",
            reference=body.reference or "",
            metadata=body.metadata or {},
            terms=Terms(payment_method_id=body.payment_method_id),
            client=await client_of(call, body.payment_method_id),
        )
        return await pursue(call, identity, _Charging(call, identity, command))

    return await once(call, identify(call), first)


async def _owner(call: Call, body: NewPayment) -> str:
    """Whose account and method: what is not the caller's looks like what is not there."""
    owner_id = await call.gateway.owners.of(body.destination_account_id)
    if owner_id is None or not (call.caller.privileged or owner_id == call.caller.user_id):
        raise invalid("/destination_account_id", Reason.ACCOUNT_NOT_FOUND, "is no account of yours")
    if owner_of(body.payment_method_id) != owner_id:
        detail = "is no payment method of the account's owner"
        raise invalid("/payment_method_id", Reason.PAYMENT_METHOD_NOT_FOUND, detail)
    return owner_id


def _command(call: Call, identity: Identity, **fields: Any) -> CreateTransaction:
    ordered: dict[str, Any] = {
        "transaction_id": identity.resource_id,
        "actor_id": call.caller.user_id,
        "privileged": call.caller.privileged,
        "rail": Rail.EXTERNAL,
        "deadline_s": call.gateway.settings.transaction_deadline_s,
        "reference": "",
        "metadata": {},
        "request_hash": identity.request_hash,
        **fields,
    }
    return CreateTransaction(**ordered)


class _Charging(Creation):
    """A charge on its way: it ends as its transaction does, told once payment knows of it too."""

    def __init__(self, call: Call, identity: Identity, command: CreateTransaction) -> None:
        super().__init__(call, identity, command)
        self.location = f"/api/payments/{self.key}"
        self.named = {"payment_id": self.key}

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if isinstance(event, TransactionCommandRefused):
            ours = heard.causation_id == self.identity.command_id
            return refused(self.call, event.reason, self.named) if ours else None
        return LOOK if isinstance(event, FINAL) else None

    async def looked(self) -> Answer | None:
        row = await read(self.call, self.key)
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        if row["status"] == TransactionStatus.PENDING:
            return None
        return await self.ended(row)

    async def ended(self, row: Row) -> Answer | None:
        paid = await self.call.gateway.queries.row("payment", self.key, payment_key(self.key))
        if paid is not None and paid["status"] == ProviderStatus.PROCESSED:
            return None  # it is about to hear that its money was credited, and can be refunded
        told = self.call.gateway.reads.told
        told(self.call, TRANSACTIONS, self.key, row["version"])
        if paid is not None:
            told(self.call, PAYMENTS, self.key, paid["version"])
        shown = _payment(row, paid)
        if row["status"] == TransactionStatus.COMPLETED:
            return answer(shown, 201)
        return refused(self.call, row["reason"], self.named, payment=shown)


async def get(call: Call) -> Answer:
    """As its transaction stands, and what the provider did."""
    payment_id = call.names["payment_id"]
    row = await _mine(call, payment_id, auth.STAFF_READS)
    paid = await call.gateway.reads.row(call, PAYMENTS, payment_id)
    return answer(views.picked(_payment(row, paid), call.query.get("fields")))


async def refund(call: Call) -> Answer:
    """202, or 201 with the refund: all that is left of the payment, or as much as is said."""
    body = call.body
    assert isinstance(body, NewRefund)
    payment_id = call.names["payment_id"]
    row = await _mine(call, payment_id, auth.MONEY)

    async def first(identity: Identity) -> Answer:
        order = row["order"]
        command = _command(
            call,
            identity,
            type=TransactionType.REFUND,
            amount_minor=body.amount or await _left(call, payment_id) or order["amount_minor"],
            currency=order["currency"],
            source_account_id=order["destination_account_id"],
            destination_account_id=None,
            owner_id=order["owner_id"],
            privileged=True,  # it goes back where it came from: no rule of behaviour binds it
            description=body.description or "",
            terms=Terms(original_transaction_id=payment_id),
        )
        return await pursue(call, identity, _Refunding(call, identity, command, payment_id))

    return await once(call, identify(call), first)


async def _left(call: Call, payment_id: str) -> int:
    """What may still be refunded, minor units: the service decides, should it change meanwhile."""
    paid = await call.gateway.queries.row("payment", payment_id, payment_key(payment_id))
    if paid is None:
        return 0
    return int(paid["captured_minor"] - paid["refunding_minor"] - paid["refunded_minor"])


class _Refunding(_Charging):
    """A refund on its way: it ends as its transaction does."""

    def __init__(
        self, call: Call, identity: Identity, command: CreateTransaction, payment_id: str
    ) -> None:
        super().__init__(call, identity, command)
        self.location = f"/api/payments/{payment_id}/refunds/{self.key}"
        self.named = {"refund_id": self.key, "payment_id": payment_id}

    async def ended(self, row: Row) -> Answer | None:
        self.call.gateway.reads.told(self.call, TRANSACTIONS, self.key, row["version"])
        shown = _refund(row)
        if row["status"] == TransactionStatus.COMPLETED:
            return answer(shown, 201)
        return refused(self.call, row["reason"], self.named, refund=shown)


async def get_refund(call: Call) -> Answer:
    payment_id, refund_id = call.names["payment_id"], call.names["refund_id"]
    row = await call.gateway.reads.row(call, TRANSACTIONS, refund_id)
    terms = (row["order"].get("terms") or {}) if row is not None else {}
    if row is None or terms.get("original_transaction_id") != payment_id:
        raise not_found("no such refund, or not yet")
    if not (row["order"]["owner_id"] == call.caller.user_id or call.caller.may(auth.STAFF_READS)):
        raise not_found("no such refund, or not yet")
    return answer(views.picked(_refund(row), call.query.get("fields")))


async def _mine(call: Call, payment_id: str, staff: Any) -> Row:
    """The transaction of a charge, if it is the caller's or the caller is of these roles; 404 else."""
    row = await call.gateway.reads.row(call, TRANSACTIONS, payment_id)
    if row is None or not _is_charge(row):
        raise not_found(NO_PAYMENT)
    if not (row["order"]["owner_id"] == call.caller.user_id or call.caller.may(staff)):
        raise not_found(NO_PAYMENT)
    return row


def _is_charge(row: Row) -> bool:
    order = row["order"]
    return order["rail"] == Rail.EXTERNAL and order["source_account_id"] is None


def _payment(row: Row, paid: Row | None) -> dict[str, Any]:
    order = row["order"]
    terms = order.get("terms") or {}
    amounts = {"captured": "captured_minor", "refunding": "refunding_minor"}
    amounts["refunded"] = "refunded_minor"
    return {
        "payment_id": order["transaction_id"],
        "transaction_id": order["transaction_id"],
        "status": row["status"],
        "provider_status": paid["status"] if paid else None,
        "reason": row["reason"],
        "amount": order["amount_minor"],
        "currency": order["currency"],
        **{name: paid[minor] if paid else 0 for name, minor in amounts.items()},
        "payment_method_id": terms.get("payment_method_id"),
        "destination_account_id": order["destination_account_id"],
        "provider_reference": (paid["provider_reference"] or None) if paid else None,
        "description": row["description"] or None,
        "version": row["version"] + (paid["version"] if paid else 0),
        "created_at": views.time_of(row["created_ms"]),
        "completed_at": views.time_of(row["completed_ms"]),
    }


def _refund(row: Row) -> dict[str, Any]:
    order = row["order"]
    terms = order.get("terms") or {}
    return {
        "refund_id": order["transaction_id"],
        "payment_id": terms.get("original_transaction_id"),
        "transaction_id": order["transaction_id"],
        "status": row["status"],
        "reason": row["reason"],
        "amount": order["amount_minor"],
        "currency": order["currency"],
        "description": row["description"] or None,
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
        "completed_at": views.time_of(row["completed_ms"]),
    }
