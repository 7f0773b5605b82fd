"""A provider's statements over HTTP: a file comes in, what does not agree comes out.

    POST camt.053 | CSV --read--> ReconcileStatement --> payment.inbox --> StatementReconciled

A file that can't be read whole changes nothing, and says what is wrong on which line.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from banking import camt053, csv_statement
from banking.statement import Unreadable
from domain.reconciliation import (
    BREAKS_LIMIT,
    ReconcileStatement,
    StatementCommandRefused,
    StatementLine,
    StatementReconciled,
    StatementStatus,
    break_key,
    home_of,
    key_of,
    statement_key,
)
from domain.saga import Reason
from gateway import pages, views
from gateway.answer import Answer, answer
from gateway.errors import FieldError, Problem, not_found
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.reads import STATEMENTS

if TYPE_CHECKING:
    from banking.statement import BankStatement
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard


async def upload(call: Call) -> Answer:
    """202, or 201 with the outcome when the client waits for it."""
    provider = call.query.get("provider", call.gateway.settings.provider)
    if provider != call.gateway.settings.provider:
        raise Problem("BAD_QUERY", "provider is none that moves money for us")
    told = told_in(call.raw_body)
    request_hash = hashlib.sha256(call.raw_body).hexdigest()

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Reconciling(call, identity, provider, told))

    return await once(call, identify(call, request_hash=request_hash), first)


def told_in(data: bytes) -> BankStatement:
    """The statement in a file: XML begins with <, anything else is CSV."""
    try:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
            return camt053.read(data)
        return csv_statement.read(data)
    except Unreadable as why:
        error = FieldError(pointer=f"/{why.line}", code="STATEMENT_UNREADABLE", detail=why.what)
        raise Problem("STATEMENT_UNREADABLE", str(why), errors=(error,)) from why


class _Reconciling:
    """ReconcileStatement on its way."""

    service = "payment"

    def __init__(self, call: Call, identity: Identity, provider: str, told: BankStatement) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = key_of(provider, told.day, told.currency)
        self.statement_id = f"{self.key}.{identity.resource_id}"
        self.location = f"/api/payments/statements/{self.statement_id}"
        self.named = {"statement_id": self.statement_id}
        self.command = ReconcileStatement(
            statement_id=self.statement_id,
            provider=provider,
            day=told.day,
            currency=told.currency,
            lines=tuple(
                StatementLine(
                    end_to_end_id=entry.end_to_end_id,
                    provider_reference=entry.reference,
                    amount_minor=entry.amount_minor,
                    line=entry.line,
                )
                for entry in told.entries
            ),
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if getattr(event, "statement_id", None) != self.statement_id:
            return None
        if isinstance(event, StatementCommandRefused):
            return refused(self.call, event.reason, self.named)
        return LOOK if isinstance(event, StatementReconciled) else None

    async def looked(self) -> Answer | None:
        row = await self.call.gateway.queries.row(
            "payment", self.key, statement_key(self.statement_id)
        )
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        if row["status"] == StatementStatus.COMPARING:
            return None
        self.call.gateway.reads.told(self.call, STATEMENTS, self.statement_id, row["version"])
        return answer(await _shown(self.call, row, 0, pages.DEFAULT), 201)


async def get(call: Call) -> Answer:
    """The outcome, and a page of what does not agree."""
    statement_id = call.names["statement_id"]
    row = await call.gateway.reads.row(call, STATEMENTS, statement_id)
    if row is None:
        raise not_found("no such statement, or not yet")
    total = _breaks(row)
    start = total - pages.place_of(call, total)
    shown = await _shown(call, row, start, pages.limit_of(call))
    return answer(views.picked(shown, call.query.get("fields")))


def _breaks(row: Row) -> int:
    found = row["missing_here"] + row["missing_there"] + row["amount_differs"]
    return int(min(found, BREAKS_LIMIT))


async def _shown(call: Call, row: Row, start: int, limit: int) -> dict[str, Any]:
    statement_id, total = row["statement_id"], _breaks(row)
    queries, end = call.gateway.queries, min(start + limit, total)
    keys = [break_key(statement_id, number) for number in range(start, end)]
    rows = await queries.rows("payment", queries.partition(home_of(statement_id)), keys)
    broken = row["missing_here"] + row["amount_differs"]
    return {
        "statement_id": statement_id,
        "provider": row["provider"],
        "day": row["day"],
        "currency": row["currency"],
        "status": row["status"],
        "lines": row["lines"],
        "total": row["total_minor"],
        "matched": row["lines"] - broken,
        "missing_here": row["missing_here"],
        "missing_there": row["missing_there"],
        "amount_differs": row["amount_differs"],
        "breaks": [_break(one) for one in rows.values() if one is not None],
        "next_cursor": pages.cursor(total - end) if end < total else None,
        "version": row["version"],
        "created_at": views.time_of(row["created_ms"]),
    }


def _break(row: Row) -> dict[str, Any]:
    return {
        "kind": row["kind"],
        "end_to_end_id": row["end_to_end_id"],
        "payment_id": row["payment_id"],
        "provider_reference": row["provider_reference"] or None,
        "ours": row["ours_minor"],
        "theirs": row["theirs_minor"],
        "line": row["line"],
    }
