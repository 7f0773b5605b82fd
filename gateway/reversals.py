"""Reversals and refunds: a new transaction that undoes a completed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.saga import Rail, Reason, Terms, TransactionType
from domain.transaction import CreateTransaction
from gateway import auth
from gateway.errors import Problem, invalid
from gateway.models import Undoing
from gateway.outcome import identify, once, pursue
from gateway.transactions import Creation, mine, rehearsed

if TYPE_CHECKING:
    from gateway.answer import Answer
    from gateway.call import Call
    from gateway.outcome import Identity
    from gateway.queries import Row


async def reverse(call: Call) -> Answer:
    """202, or 201 with the new transaction; 422 with why the original can't be undone."""
    body = call.body
    assert isinstance(body, Undoing)
    original = await mine(call, call.names["transaction_id"])
    kind = await _kind(call, original)
    if body.dry_run:
        return await rehearsed(call, await _undoing(call, identify(call), original, kind, body))

    async def first(identity: Identity) -> Answer:
        command = await _undoing(call, identity, original, kind, body)
        return await pursue(call, identity, Creation(call, identity, command))

    return await once(call, identify(call), first)


async def _kind(call: Call, original: Row) -> TransactionType:
    """The bank reverses what it likes; whoever received a payment may refund it. 403 else."""
    if call.caller.may(auth.MONEY):
        return TransactionType.REVERSAL
    order = original["order"]
    receiver = order["destination_account_id"]
    paid = order["type"] == TransactionType.PAYMENT and receiver is not None
    if paid and await call.gateway.owners.of(receiver) == call.caller.user_id:
        return TransactionType.REFUND
    raise Problem("FORBIDDEN", "operators reverse; who received a payment may refund it")


async def _undoing(
    call: Call, identity: Identity, original: Row, kind: TransactionType, body: Undoing
) -> CreateTransaction:
    """The opposite order; whether it may be is the original's to say, when it hears of it."""
    order, terms = original["order"], original["order"].get("terms") or {}
    source, destination = order["destination_account_id"], order["source_account_id"]
    owner_id = await call.gateway.owners.of(source or destination)
    if owner_id is None:
        raise invalid("", Reason.ACCOUNT_NOT_FOUND, "an account of the transaction is not there")
    returned = terms.get("fee_minor", 0) if kind is TransactionType.REVERSAL else 0
    return CreateTransaction(
        transaction_id=identity.resource_id,
        type=kind,
        amount_minor=order["amount_minor"],
        currency=order["currency"],
        source_account_id=source,
        destination_account_id=destination,
        owner_id=owner_id,
        actor_id=call.caller.user_id,
        privileged=call.caller.privileged,
        rail=Rail.BOOK,
        deadline_s=call.gateway.settings.transaction_deadline_s,
        description=body.description or "",
        reference=body.reference or "",
        metadata=body.metadata or {},
        request_hash=identity.request_hash,
        terms=Terms(
            original_transaction_id=order["transaction_id"],
            fee_minor=-returned,
        ),
    )
