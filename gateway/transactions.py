"""Transactions over HTTP: order, list, read, follow, cancel."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from domain.payment_methods import owner_of
from domain.payment_rows import payment_key
from domain.saga import (
    Rail,
    Reason,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import (
    TRANSACTION,
    CancelTransaction,
    CreateTransaction,
    Status,
    TransactionCommandRefused,
    transaction_key,
)
from gateway import auth, lists, pages, views, whose
from gateway.answer import Answer, answer
from gateway.client import client_of
from gateway.errors import Problem, invalid, not_found
from gateway.models import NewTransaction
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.reads import ACCOUNTS, TRANSACTIONS
from gateway.rehearsal import rehearse
from stores.questions import Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Row as DomainRow
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard, Watch
    from stores.questions import Questions

FINAL = (TransactionCompleted, TransactionFailed, TransactionCancelled)
HEARTBEAT_S = 10.0
LOOK_S = 1.0
# what a dry run shows of the transaction that would be
REHEARSED = (
    "type",
    "status",
    "reason",
    "amount",
    "currency",
    "fee",
    "source_account_id",
    "destination_account_id",
    "original_transaction_id",
    "balances",
)


async def create(call: Call) -> Answer:
    """202, or 201 with the transaction when the client waits for its end."""
    body = call.body
    assert isinstance(body, NewTransaction)

    if body.dry_run:
        return await rehearsed(call, await _order(call, identify(call), body))

    async def first(identity: Identity) -> Answer:
        command = await _order(call, identity, body)
        return await pursue(call, identity, Creation(call, identity, command))

    return await once(call, identify(call), first)


async def _owner(call: Call, body: NewTransaction) -> str:
    """Who owns the money that is to move. What is not the caller's looks like what is not there."""
    privileged = call.caller.privileged
    if body.type == "deposit" and not privileged:
        raise Problem("FORBIDDEN", "deposits are for operators")
    member = "destination_account_id" if body.type == "deposit" else "source_account_id"
    owner_id = await whose.owner(call, getattr(body, member), f"/{member}")
    if call.prefer.wait_s and body.destination_account_id and not privileged:
        with suppress(Problem):  # the answer shows its balance too, should it be the caller's
            await call.gateway.owners.of(body.destination_account_id)
    return owner_id


def _destination(body: NewTransaction) -> str | None:
    """An exchange stays on its account where no other is named."""
    if body.type == "exchange":
        return body.destination_account_id or body.source_account_id
    return body.destination_account_id


async def _order(call: Call, identity: Identity, body: NewTransaction) -> CreateTransaction:
    owner_id = await _owner(call, body)
    return CreateTransaction(
        transaction_id=identity.resource_id,
        type=TransactionType(body.type),
        amount_minor=body.amount,
        currency=body.currency,
        source_account_id=body.source_account_id,
        destination_account_id=_destination(body),
        owner_id=owner_id,
        actor_id=call.caller.user_id,
        privileged=call.caller.privileged,
        rail=Rail.BOOK,
        deadline_s=call.gateway.settings.transaction_deadline_s,
        description=body.description or "",
        reference=body.reference or "",
        metadata=body.metadata or {},
        request_hash=identity.request_hash,
        terms=_terms(body, owner_id),
        client=await client_of(call, body.payment_method_id),
    )


def _terms(body: NewTransaction, owner_id: str) -> Terms | None:
    """What is to be had for it, or whose method it is paid out to: the account's owner's, or none."""
    if body.type == "exchange":
        return Terms(destination_currency=body.destination_currency, quote_id=body.quote_id)
    method_id = body.payment_method_id
    if method_id is None:
        return None
    if owner_of(method_id) != owner_id:
        detail = "is no payment method of the account's owner"
        raise invalid("/payment_method_id", Reason.PAYMENT_METHOD_NOT_FOUND, detail)
    return Terms(payment_method_id=method_id)


async def rehearsed(call: Call, command: CreateTransaction) -> Answer:
    """200 with what would become of the order, were it given now. Nothing is written anywhere."""
    row = views.plain(await rehearse(call.gateway, command))
    shown = await shown_fully(call, row)
    return answer({"dry_run": True} | {name: shown[name] for name in REHEARSED})


class Creation:
    """CreateTransaction on its way. The same fold as the service's makes the answer's row."""

    service = "transaction"

    def __init__(self, call: Call, identity: Identity, command: CreateTransaction) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.key = self.aggregate_id = identity.resource_id
        self.location = f"/api/transactions/{self.key}"
        self.named = {"transaction_id": self.key}
        self.rows: dict[str, DomainRow] = {}

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if isinstance(event, TransactionCommandRefused):
            ours = heard.causation_id == self.identity.command_id
            return self._refused(event.reason) if ours else None
        if getattr(event, "request_hash", self.identity.request_hash) != self.command.request_hash:
            return None
        key = transaction_key(self.key)
        if key not in self.rows and not isinstance(event, TransactionCreated):
            return LOOK if isinstance(event, FINAL) else None  # it began before our time
        for row_key, row in TRANSACTION.evolve(self.rows, event).items():
            if row is not None:
                self.rows[row_key] = row
        return self._ended(views.plain(self.rows[key])) if isinstance(event, FINAL) else None

    async def looked(self) -> Answer | None:
        row = await read(self.call, self.key)
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return self._refused(Reason.IDEMPOTENCY_MISMATCH)
        return self._ended(row) if row["status"] != Status.PENDING else None

    def _ended(self, row: Row) -> Answer:
        told = self.call.gateway.reads.told
        told(self.call, TRANSACTIONS, self.key, row["version"])
        for balance in row["balances"]:
            told(self.call, ACCOUNTS, balance["account_id"], balance["version"])
        shown = _shown(self.call, row)
        if row["status"] == Status.COMPLETED:
            return answer(shown, 201)
        return refused(self.call, row["reason"], self.named, transaction=shown)

    def _refused(self, reason: str) -> Answer:
        return refused(self.call, reason, self.named)


async def cancel(call: Call) -> Answer:
    """202, or 200 with the cancelled transaction; 422 TOO_LATE when money has moved."""
    transaction_id = call.names["transaction_id"]
    await mine(call, transaction_id, ordering=True)

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Cancellation(call, identity, transaction_id))

    return await once(call, identify(call), first)


class _Cancellation:
    """CancelTransaction on its way: it ends as the transaction does, or with a refusal."""

    service = "transaction"

    def __init__(self, call: Call, identity: Identity, transaction_id: str) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = transaction_id
        self.location = f"/api/transactions/{transaction_id}"
        self.named = {"transaction_id": transaction_id}
        self.command = CancelTransaction(
            transaction_id=transaction_id, actor_id=call.caller.user_id
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if isinstance(event, TransactionCommandRefused):
            ours = heard.answers(self.identity.command_id)
            return refused(self.call, event.reason, self.named) if ours else None
        if isinstance(event, TransactionCompleted | TransactionFailed):
            return refused(self.call, Reason.TOO_LATE, self.named)
        return LOOK if isinstance(event, TransactionCancelled) else None

    async def looked(self) -> Answer | None:
        row = await read(self.call, self.key)
        if row is None or row["status"] == Status.PENDING:
            return None
        if row["status"] != Status.CANCELLED:
            return refused(self.call, Reason.TOO_LATE, self.named)
        return answer(await shown_fully(self.call, row))


async def read(call: Call, transaction_id: str) -> Row | None:
    return await call.gateway.queries.row(
        "transaction", transaction_id, transaction_key(transaction_id)
    )


async def mine(call: Call, transaction_id: str, ordering: bool = False) -> Row:
    """The row, if the caller may see it (`ordering`: may give orders about it); 404 else."""
    row = await call.gateway.reads.row(call, TRANSACTIONS, transaction_id)
    if row is None:
        raise not_found("no such transaction, or not yet")
    caller, order = call.caller, row["order"]
    if caller.may(auth.MONEY if ordering else auth.STAFF_READS):
        return row
    if caller.user_id in (order["owner_id"], order["actor_id"]):
        return row
    destination = order["destination_account_id"]
    received = not ordering and row["status"] == Status.COMPLETED and destination is not None
    if received and await call.gateway.owners.of(destination) == caller.user_id:
        return row
    raise not_found("no such transaction, or not yet")


async def get(call: Call) -> Answer:
    row = await mine(call, call.names["transaction_id"])
    return answer(views.picked(await shown_fully(call, row), call.query.get("fields")))


async def trace(call: Call) -> Answer:
    """Its steps; of one that waits for the rail those that payment knows, as the transaction hears of the end alone."""
    transaction_id = call.names["transaction_id"]
    row = await mine(call, transaction_id)
    if not row["completed_ms"]:
        with suppress(Problem):  # while its partition moves: what the transaction knows
            key = payment_key(transaction_id)
            paid = await call.gateway.queries.row("payment", transaction_id, key)
            if paid is not None and len(paid["steps"]) > len(row["steps"]):
                row = {**row, "steps": paid["steps"]}
    return answer(views.trace(row))


async def listing(call: Call) -> Answer:
    """The newest first. Staff may ask for those of another user, or of an account."""
    if call.query.get("q"):
        return await _search(call, call.query["q"])
    query, user_id = call.query, await pages.user_of(call)
    wanted = _narrowed(call)
    listed = await lists.transactions(call, user_id, wanted, lambda row: _wanted(call, row))
    items = [views.picked(await shown_fully(call, row), query.get("fields")) for row in listed.rows]
    return answer({"items": items, "next_cursor": listed.next_cursor})


def _narrowed(call: Call) -> Wanted:
    query = call.query
    return Wanted(
        account_id=query.get("account_id"),
        type=query.get("type"),
        status=query.get("status"),
        currency=query.get("currency"),
    )


async def _search(call: Call, words: str) -> Answer:
    """Those whose description or reference has the words: the caller's own; any to staff."""
    reads, limit = call.gateway.reads, pages.limit_of(call)
    of_all = call.caller.may(auth.STAFF_READS) and "user_id" not in call.query
    wanted = replace(_narrowed(call), owner_id=None if of_all else await pages.user_of(call))

    async def of_store(store: Questions) -> Sequence[Row]:
        return await store.search_transactions(words, wanted, limit)

    found = await reads.ask(call, "transactions", of_store, kinds=(TRANSACTIONS,))
    rows = [row for row in await reads.renewed(TRANSACTIONS, found) if _wanted(call, row)]
    items = [views.picked(await shown_fully(call, row), call.query.get("fields")) for row in rows]
    return answer({"items": items, "next_cursor": None})


def _wanted(call: Call, row: Row) -> bool:
    query, order = call.query, row["order"]
    account_id = query.get("account_id")
    return (
        query.get("status", row["status"]) == row["status"]
        and query.get("type", order["type"]) == order["type"]
        and query.get("currency", order["currency"]) == order["currency"]
        and account_id in (None, order["source_account_id"], order["destination_account_id"])
    )


def _shown(call: Call, row: Row) -> dict[str, Any]:
    """With the balances of accounts that are known to be the caller's; all of them to staff."""
    caller, owners = call.caller, call.gateway.owners
    staff = caller.may(auth.STAFF_READS)
    order = row["order"]

    def may_see(account_id: str) -> bool:
        if staff:
            return True
        source = order["source_account_id"] or order["destination_account_id"]
        if account_id == source:
            return bool(order["owner_id"] == caller.user_id)
        return owners.known(account_id) == caller.user_id

    return views.transaction(row, may_see)


async def shown_fully(call: Call, row: Row) -> dict[str, Any]:
    """As `_shown`, once the owner of the destination is known."""
    destination = row["order"]["destination_account_id"]
    if destination is not None and row["balances"] and not call.caller.may(auth.STAFF_READS):
        await call.gateway.owners.of(destination)
    return _shown(call, row)


async def events(call: Call, request: web.Request) -> web.StreamResponse:
    """Server-sent events: the transaction now and after each change, until it is final."""
    transaction_id = call.names["transaction_id"]
    with call.gateway.waiting.watch("transaction", transaction_id) as watch:
        row: Row | None = await mine(call, transaction_id)
        headers = {**call.headers, "Content-Type": "text/event-stream"}
        response = web.StreamResponse(headers=headers)
        with suppress(ConnectionResetError):  # the client went away
            await response.prepare(request)
            await _follow(call, watch, row, response)
        return response


async def _follow(call: Call, watch: Watch, row: Row | None, response: web.StreamResponse) -> None:
    version, said_s = 0, time.monotonic()
    shown: Any = await _shown_or_moving(call, row)
    while await call.may_go_on():
        if row is not None and shown is not None and row["version"] > version:
            version, said_s = row["version"], time.monotonic()
            await response.write(_event(version, shown))
            if row["status"] != Status.PENDING:
                return
        elif time.monotonic() - said_s > HEARTBEAT_S:
            said_s = time.monotonic()
            await response.write(b": still there\n\n")
        heard = await watch.next(LOOK_S)
        try:
            row = await read(call, call.names["transaction_id"])
            if heard is not None and row is not None and row["version"] == version:
                await asyncio.sleep(0.02)  # its worker committed, and is about to show it
                row = await read(call, call.names["transaction_id"])
        except Problem:
            row = None  # the partition is moving: look again
        shown = await _shown_or_moving(call, row)


async def _shown_or_moving(call: Call, row: Row | None) -> dict[str, Any] | None:
    """None while the partition that knows whose account it is moves: look again."""
    try:
        return await shown_fully(call, row) if row is not None else None
    except Problem:
        return None


def _event(version: int, value: Any) -> bytes:
    return b"id: %d\nevent: transaction\ndata: %s\n\n" % (version, orjson.dumps(value))
