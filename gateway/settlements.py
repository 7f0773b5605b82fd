"""Settlement over HTTP: batches of what a provider moved, their transfer, and the bank's word on it.

    POST run --> each partition closes its open batches --> BatchClosed
    GET instruction: pain.001, the transfer of the net amount between the provider's account and ours
    POST statement (camt.053 | CSV) --> RECONCILED | BROKEN, and what does not agree

A run is over once no partition has an open batch of its day that was there when it was asked for:
the rows say so, for each partition, and a client that waits is answered then.
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import date
from typing import TYPE_CHECKING, Any

from banking import pain001
from domain.calendar import day_of, next_business_day
from domain.saga import Reason
from domain.settlement import (
    OPEN,
    BankEntry,
    BatchReconciled,
    ReconcileBatch,
    RunSettlement,
    SettlementCommandRefused,
    SettlementRunRequested,
    Status,
    batch_key,
    break_key,
    closed_key,
    home_of,
    item_key,
    run_key,
    transfer_id,
)
from gateway import pages, scans, views
from gateway.answer import Answer, answer
from gateway.errors import Problem, not_found
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.provider_statements import told_in
from gateway.reads import SETTLEMENT_BREAKS, SETTLEMENT_ITEMS, SETTLEMENTS
from gateway.settlement_models import NewRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from banking.statement import BankStatement
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard
    from settings import Settings
    from stores.catalog import Kind
    from stores.questions import Questions

SERVICE = "settlement"
XML = "application/xml"


# a run


async def run(call: Call) -> Answer:
    """202, or 200 with the run once each partition has closed what it had."""
    body = call.body
    assert isinstance(body, NewRun)

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Running(call, identity, body.day or ""))

    return await once(call, identify(call), first)


class _Running:
    """RunSettlement on its way."""

    service = SERVICE

    def __init__(self, call: Call, identity: Identity, day: str) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = identity.resource_id
        self.location = f"/api/settlements/runs/{self.key}"
        self.named = {"run_id": self.key}
        self.command = RunSettlement(
            run_id=self.key,
            day=day,
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        if isinstance(heard.event, SettlementCommandRefused):
            ours = heard.answers(self.identity.command_id)
            return refused(self.call, heard.event.reason, self.named) if ours else None
        return LOOK if isinstance(heard.event, SettlementRunRequested) else None

    async def looked(self) -> Answer | None:
        row = await _run(self.call, self.key)
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        shown = await _shown_run(self.call, self.key, row)
        return answer(shown) if shown["status"] == "completed" else None


async def _run(call: Call, run_id: str) -> Row | None:
    return await call.gateway.queries.row(SERVICE, run_id, run_key(run_id), versioned=False)


async def _shown_run(call: Call, run_id: str, row: Row) -> dict[str, Any]:
    queries = call.gateway.queries
    keys = (OPEN, closed_key(run_id))
    asked = (queries.rows(SERVICE, one, keys) for one in range(queries.partitions))
    found = await asyncio.gather(*asked)
    waiting = [
        batch
        for rows in found
        for batch in (rows[OPEN] or {"batches": ()})["batches"]
        if batch["day"] <= row["day"] and batch["created_ms"] <= row["at_ms"]
    ]
    closed = [one for rows in found for one in (rows[keys[1]] or {"batch_ids": ()})["batch_ids"]]
    return {
        "run_id": run_id,
        "day": row["day"],
        "status": "pending" if waiting else "completed",
        "closed": sorted(closed),
        "created_at": views.time_of(row["at_ms"]),
    }


async def get_run(call: Call) -> Answer:
    run_id = call.names["run_id"]
    row = await _run(call, run_id)
    if row is None:
        raise not_found("no such run, or not yet")
    return answer(views.picked(await _shown_run(call, run_id, row), call.query.get("fields")))


# batches


async def listing(call: Call) -> Answer:
    """One partition after another, each in the order of its keys."""
    asked = {name: call.query[name] for name in FILTERS if name in call.query}
    found = await scans.page(
        call,
        SERVICE,
        SETTLEMENTS.prefix,
        lambda row: all(row[name] == value for name, value in asked.items()),
    )
    return scans.shown(call, map(_shown, found.rows), found.following)


FILTERS = ("status", "provider", "currency", "day")


async def get(call: Call) -> Answer:
    """The batch, and a page of what the last statement says differently."""
    row = await _batch(call)
    return answer(views.picked(await _with_breaks(call, row), call.query.get("fields")))


async def _batch(call: Call) -> Row:
    row = await call.gateway.reads.row(call, SETTLEMENTS, call.names["settlement_id"])
    if row is None:
        raise not_found("no such settlement, or not yet")
    return row


async def _with_breaks(call: Call, row: Row) -> dict[str, Any]:
    source, batch_id, total = call.read_source, row["batch_id"], row["breaks"]
    start, end = _span(call, total)
    keys = [break_key(batch_id, number) for number in range(start, end)]
    found = await _numbered(call, SETTLEMENT_BREAKS, batch_id, keys)
    call.read_source = source
    return {
        **_shown(row),
        "breaks": [_break(one) for one in found if one["version"] <= row["version"]],
        "next_cursor": _following(total, end),
    }


async def items(call: Call) -> Answer:
    """What is in the batch, in the order in which it came."""
    row = await _batch(call)
    total = row["items"]
    start, end = _span(call, total)
    keys = [item_key(row["batch_id"], number) for number in range(start, end)]
    found = await _numbered(call, SETTLEMENT_ITEMS, row["batch_id"], keys)
    shown = [views.picked(_item(one), call.query.get("fields")) for one in found]
    return answer({"items": shown, "next_cursor": _following(total, end)})


def _span(call: Call, total: int) -> tuple[int, int]:
    start = total - pages.place_of(call, total)
    return start, min(start + pages.limit_of(call), total)


def _following(total: int, end: int) -> str | None:
    return pages.cursor(total - end) if end < total else None


async def _numbered(call: Call, kind: Kind, batch_id: str, keys: Sequence[str]) -> list[Row]:
    """Rows by their keys: of the tables, or of a store once they have left those."""
    queries = call.gateway.queries

    async def of_tables() -> list[Row]:
        rows = await queries.rows(SERVICE, queries.partition(home_of(batch_id)), keys)
        return [row for row in rows.values() if row is not None]

    async def of_store(store: Questions) -> list[Row]:
        known = [kind.key(key) for key in keys]
        found = await store.documents(kind, known)
        return [found[key] for key in known if key in found]

    reads = call.gateway.reads
    found = await reads.ask(call, kind.name, of_store, of_tables, kinds=(kind,), tables_first=True)
    if len(found) < len(keys) and reads.has_stores:
        found = await reads.ask(call, kind.name, of_store, kinds=(kind,))
    return found


# the transfer


async def instruction(call: Call) -> Answer:
    """pain.001 for the party that owes; the same batch gives the same bytes."""
    row = await _batch(call)
    if row["status"] == Status.OPEN:
        raise Problem("SETTLEMENT_OPEN")
    if not row["net_minor"]:
        raise Problem("SETTLEMENT_EMPTY")
    transfer = transfer_of(row, call.gateway.settings)
    headers = {
        "Content-Disposition": f'attachment; filename="pain.001-{transfer.transfer_id}.xml"',
    }
    return Answer(200, pain001.document(transfer), headers, XML)


def transfer_of(row: Row, settings: Settings) -> pain001.Transfer:
    """The transfer of a closed batch: to us when its net amount is above zero."""
    ours = pain001.Party(name=settings.bank_name, iban=settings.bank_iban, bic=settings.bank_bic)
    theirs = pain001.Party(
        name=settings.provider_name, iban=settings.provider_iban, bic=settings.provider_bic
    )
    to_us = row["net_minor"] > 0
    # closed late, it can't be carried out on the day behind its own any more
    last = max(date.fromisoformat(row["day"]), day_of(row["closed_ms"]))
    return pain001.Transfer(
        transfer_id=transfer_id(row["batch_id"]),
        initiator=settings.bank_name,
        debtor=theirs if to_us else ours,
        creditor=ours if to_us else theirs,
        amount_minor=abs(row["net_minor"]),
        currency=row["currency"],
        on=next_business_day(last),
        created_ms=row["closed_ms"],
        remittance=f"Settlement {row['batch_id']}",
    )


# the bank's statement


async def upload(call: Call) -> Answer:
    """202, or 200 with the batch as the statement leaves it."""
    row = await _batch(call)
    told = told_in(call.raw_body)
    if told.currency != row["currency"]:
        raise Problem(
            "STATEMENT_UNREADABLE", f"it is of {told.currency}, the settlement of {row['currency']}"
        )
    request_hash = hashlib.sha256(call.raw_body).hexdigest()

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Reconciling(call, identity, row["batch_id"], told))

    return await once(call, identify(call, request_hash=request_hash), first)


class _Reconciling:
    """ReconcileBatch on its way."""

    service = SERVICE

    def __init__(self, call: Call, identity: Identity, batch_id: str, told: BankStatement) -> None:
        self.call, self.identity = call, identity
        self.key, self.aggregate_id = home_of(batch_id), batch_id
        self.location = f"/api/settlements/{batch_id}"
        self.named = {"settlement_id": batch_id}
        self.command = ReconcileBatch(
            batch_id=batch_id,
            statement_id=identity.resource_id,
            currency=told.currency,
            entries=tuple(
                BankEntry(
                    end_to_end_id=entry.end_to_end_id,
                    amount_minor=entry.amount_minor,
                    line=entry.line,
                )
                for entry in told.entries
            ),
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, SettlementCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        return LOOK if isinstance(heard.event, BatchReconciled) else None

    async def looked(self) -> Answer | None:
        batch_id = self.command.batch_id
        row = await self.call.gateway.queries.row(SERVICE, self.key, batch_key(batch_id))
        if row is None or row["statement_id"] != self.command.statement_id:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        self.call.gateway.reads.told(self.call, SETTLEMENTS, batch_id, row["version"])
        return answer(await _with_breaks(self.call, row))


# what is shown


def _shown(row: Row) -> dict[str, Any]:
    return {
        "settlement_id": row["batch_id"],
        "provider": row["provider"],
        "currency": row["currency"],
        "day": row["day"],
        "status": row["status"],
        "items": row["items"],
        "received": row["in_minor"],
        "paid": row["out_minor"],
        "net": row["net_minor"],
        "transfer_id": transfer_id(row["batch_id"]),
        "closed_by": row["closed_by"] or None,
        "run_id": row["run_id"] or None,
        "statement_id": row["statement_id"] or None,
        "break_count": row["breaks"],
        "closes_at": views.time_of(row["due_ms"]),
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
        "updated_at": views.time_of(row["updated_ms"]),
        "closed_at": views.time_of(row["closed_ms"]),
    }


def _break(row: Row) -> dict[str, Any]:
    return {
        "kind": row["kind"],
        "end_to_end_id": row["end_to_end_id"],
        "ours": row["ours_minor"],
        "theirs": row["theirs_minor"],
        "line": row["line"],
    }


def _item(row: Row) -> dict[str, Any]:
    return {
        "end_to_end_id": row["end_to_end_id"],
        "payment_id": row["payment_id"],
        "amount": row["amount_minor"],
        "at": views.time_of(row["at_ms"]),
    }
