"""Holds over HTTP: reserve, capture, void, read.

A capture is a transaction: its answer has the hold as it is then, and its id; what became of it is
at /api/transactions too, with steps and events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.account import AccountCommandRefused
from domain.holds import (
    HoldPlaced,
    HoldRefused,
    HoldStatus,
    HoldVoided,
    PlaceHold,
    VoidHold,
    account_of,
    hold_key,
    placed,
)
from domain.saga import (
    Rail,
    Reason,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import CreateTransaction, Status, TransactionCommandRefused
from gateway import auth, transactions, views, whose
from gateway.answer import Answer, answer
from gateway.errors import invalid, not_found
from gateway.holds_models import Capture, NewHold
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.reads import ACCOUNTS, HOLDS

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard


def shown(row: Row) -> dict[str, Any]:
    return {
        "hold_id": row["hold_id"],
        "account_id": row["account_id"],
        "destination_account_id": row["destination_account_id"],
        "amount": row["amount_minor"],
        "captured_amount": row["captured_minor"],
        "currency": row["currency"],
        "status": row["status"],
        "reason": row["reason"],
        "transaction_id": row["transaction_id"],
        "description": row["description"] or None,
        "reference": row["reference"] or None,
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
        "updated_at": views.time_of(row["updated_ms"]),
        "expires_at": views.time_of(row["expires_ms"]),
    }


async def create(call: Call) -> Answer:
    """202, or 201 with the hold when the client waits for it; 422 with why nothing is held."""
    body = call.body
    assert isinstance(body, NewHold)

    async def first(identity: Identity) -> Answer:
        owner_id = await _owner(call, body)
        return await pursue(call, identity, _Placing(call, identity, body, owner_id))

    return await once(call, identify(call), first)


async def _owner(call: Call, body: NewHold) -> str:
    """Whose money is to be held: the caller's, or anyone's for those who may move it."""
    owner_id = await whose.owner(call, body.account_id, "/account_id")
    destination = body.destination_account_id
    if destination is not None and await call.gateway.owners.of(destination) is None:
        raise invalid("/destination_account_id", Reason.ACCOUNT_NOT_FOUND, "is no account")
    return owner_id


class _Placing:
    """PlaceHold on its way."""

    service = "account"

    def __init__(self, call: Call, identity: Identity, body: NewHold, owner_id: str) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = body.account_id
        self.hold_id = f"{body.account_id}.{identity.resource_id}"
        self.location = f"/api/holds/{self.hold_id}"
        self.named = {"hold_id": self.hold_id}
        self.command = PlaceHold(
            hold_id=self.hold_id,
            account_id=body.account_id,
            owner_id=owner_id,
            amount_minor=body.amount,
            currency=body.currency,
            destination_account_id=body.destination_account_id,
            expires_s=body.expires_in,
            description=body.description or "",
            reference=body.reference or "",
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )

    def heard(self, heard: Heard) -> Answer | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, HoldRefused | AccountCommandRefused):
            return refused(self.call, event.reason, self.named)
        if not isinstance(event, HoldPlaced):
            return None
        row = views.plain(placed(event)[hold_key(self.hold_id)])
        _told(self.call, row, event.version)
        return answer(shown(row), 201)

    async def looked(self) -> Answer | None:
        row = await _read(self.call, self.hold_id)
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        if row["status"] == HoldStatus.REFUSED:
            return refused(self.call, row["reason"], self.named)
        return answer(shown(row), 201)


async def void(call: Call) -> Answer:
    """202, or 200 with the hold that holds nothing any more; 422 when it had ended otherwise."""
    row = await _mine(call, ordering=True)

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Voiding(call, identity, row))

    return await once(call, identify(call), first)


class _Voiding:
    """VoidHold on its way."""

    service = "account"

    def __init__(self, call: Call, identity: Identity, row: Row) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = row["account_id"]
        self.hold_id = row["hold_id"]
        self.location = f"/api/holds/{self.hold_id}"
        self.named = {"hold_id": self.hold_id}
        self.command = VoidHold(
            hold_id=self.hold_id, account_id=self.key, actor_id=call.caller.user_id
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, AccountCommandRefused):
            return refused(self.call, event.reason, self.named)
        if not isinstance(event, HoldVoided):
            return None
        self.call.gateway.reads.told(self.call, ACCOUNTS, self.key, event.version)
        return LOOK

    async def looked(self) -> Answer | None:
        row = await _read(self.call, self.hold_id)
        if row is None or row["status"] != HoldStatus.VOIDED:
            return None
        _told(self.call, row)
        return answer(shown(row))


async def capture(call: Call) -> Answer:
    """202, or 200 with the captured hold once its money has arrived; 422 with why it has not."""
    row, body = await _mine(call, ordering=True), call.body
    assert isinstance(body, Capture)
    if body.amount is not None and body.amount > row["amount_minor"]:
        raise invalid("/amount", Reason.HOLD_EXCEEDED, "is more than is held")

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Capturing(call, identity, row, body))

    return await once(call, identify(call), first)


class _Capturing:
    """The transaction of a capture on its way."""

    service = "transaction"

    def __init__(self, call: Call, identity: Identity, row: Row, body: Capture) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = identity.resource_id
        self.hold_id = row["hold_id"]
        self.location = f"/api/transactions/{self.key}"
        self.named = {"hold_id": self.hold_id, "transaction_id": self.key}
        self.command = CreateTransaction(
            transaction_id=self.key,
            type=TransactionType.CAPTURE,
            amount_minor=body.amount or row["amount_minor"],
            currency=row["currency"],
            source_account_id=row["account_id"],
            destination_account_id=row["destination_account_id"],
            owner_id=row["user_id"],
            actor_id=call.caller.user_id,
            privileged=call.caller.privileged,
            rail=Rail.BOOK,
            deadline_s=call.gateway.settings.transaction_deadline_s,
            description=row["description"],
            reference=row["reference"],
            metadata={},
            request_hash=identity.request_hash,
            terms=Terms(hold_id=self.hold_id),
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if isinstance(event, TransactionCommandRefused):
            ours = heard.causation_id == self.identity.command_id
            return refused(self.call, event.reason, self.named) if ours else None
        if not isinstance(event, TransactionCompleted | TransactionFailed | TransactionCancelled):
            return None
        if event.request_hash != self.identity.request_hash:
            return None
        for balance in event.balances:
            told = self.call.gateway.reads.told
            told(self.call, ACCOUNTS, balance.account_id, balance.version)
        return (
            refused(self.call, event.reason, self.named)
            if isinstance(event, TransactionFailed)
            else LOOK
        )

    async def looked(self) -> Answer | None:
        row = await transactions.read(self.call, self.key)
        if row is None or row["status"] == Status.PENDING:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        if row["status"] != Status.COMPLETED:
            return refused(self.call, row["reason"], self.named)
        hold = await _read(self.call, self.hold_id)
        if hold is None or hold["transaction_id"] != self.key:
            return None
        _told(self.call, hold)
        return answer(shown(hold))


def _told(call: Call, row: Row, account_version: int | None = None) -> None:
    told = call.gateway.reads.told
    told(call, HOLDS, row["hold_id"], row["version"])
    if account_version is not None:
        told(call, ACCOUNTS, row["account_id"], account_version)


async def _read(call: Call, hold_id: str) -> Row | None:
    return await call.gateway.queries.row("account", account_of(hold_id), hold_key(hold_id))


async def get(call: Call) -> Answer:
    row = await _mine(call)
    return answer(views.picked(shown(row), call.query.get("fields")))


async def _mine(call: Call, ordering: bool = False) -> Row:
    """The hold, if the caller may see it (`ordering`: may give orders about it); 404 else."""
    row = await call.gateway.reads.row(call, HOLDS, call.names["hold_id"])
    staff = call.caller.may(auth.MONEY if ordering else auth.STAFF_READS)
    if row is None or not (staff or row["user_id"] == call.caller.user_id):
        raise not_found("no such hold, or not yet")
    return row
