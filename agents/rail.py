"""The payment rail: a provider's HTTP interface, as an effect.

    POST /payments, /refunds   Idempotency-Key, {payment_id, amount, currency, type, method?, …}
    --> {"status": "approved" | "declined" | "pending", "reference", "reason", "booked_on"}

What it did not say is UNKNOWN, never guessed: a payment that may have happened is asked for again,
under the same idempotency key.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp

from agents.effect import Effect
from domain.payment_rail import RailAnswered, RailOperation, RailOutcome
from domain.reconciliation import end_to_end_id
from domain.saga import PaymentRequested, RefundRequested, refunds
from resilience.downstream import Away
from topics.subscriptions import RAIL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

Request: TypeAlias = PaymentRequested | RefundRequested
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
OUTCOMES = {"approved": RailOutcome.APPROVED, "declined": RailOutcome.DECLINED}


def effect(url: str, provider: str) -> Effect:
    """Payments and refunds, asked of the rail at `url`, whose books are those of `provider`."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Rail]:
        async with aiohttp.ClientSession() as session:
            yield Rail(url, session, provider)

    return Effect(
        name="rail",
        owner="payment",
        requests=RAIL,
        types=(PaymentRequested, RefundRequested),
        key=lambda answered: answered.transaction_id,
        open=connected,
    )


class Rail:
    """The payment rail over HTTP: one downstream."""

    def __init__(self, url: str, session: aiohttp.ClientSession, provider: str) -> None:
        self.url = url.rstrip("/")
        self.session = session
        self.provider = provider

    def downstream(self, _request: Request) -> str:
        return "rail"

    async def call(self, request: Request, headers: Mapping[str, str]) -> RailAnswered:
        key = effect_id(request)
        try:
            async with self.session.post(
                f"{self.url}/{resource(request)}",
                json=body(request),
                headers={**headers, "Idempotency-Key": key},
            ) as response:
                status, said = response.status, await response.text()
                fields = await response.json() if response.ok else {}
        except (aiohttp.ClientError, ValueError) as exc:
            raise Away(f"{type(exc).__name__}: {exc}") from exc
        return replace(read_answer(request, status, fields, said), provider=self.provider)

    def unanswered(self, request: Request, why: Exception) -> RailAnswered:
        return answer(request, RailOutcome.UNKNOWN, detail=str(why))


def effect_id(request: Request) -> str:
    """The idempotency key: the same on every try of the same effect."""
    return request.refund_id if isinstance(request, RefundRequested) else request.payment_id


def resource(request: Request) -> str:
    return "refunds" if isinstance(request, RefundRequested) else "payments"


def body(request: Request) -> dict[str, Any]:
    """What the rail is told; amounts in minor units."""
    order = request.order
    fields: dict[str, Any] = {
        "payment_id": request.payment_id,
        "end_to_end_id": end_to_end_id(effect_id(request)),
        "amount": order.amount_minor,
        "currency": order.currency,
        "type": order.type,
        "source_account_id": order.source_account_id,
        "destination_account_id": order.destination_account_id,
    }
    if isinstance(request, RefundRequested):
        fields["refund_id"] = request.refund_id
        fields["provider_reference"] = request.provider_reference
    elif request.method_token:
        fields["method"] = request.method_token
    return fields


def read_answer(request: Request, status: int, fields: Any, said: str) -> RailAnswered:
    """The rail's HTTP answer as a result; `Away` for one that says nothing of the payment."""
    if status >= 500 or status in (408, 425, 429):
        raise Away(f"the rail answered {status}")
    if status >= 400:
        return answer(request, RailOutcome.UNKNOWN, detail=f"the rail answered {status}: {said}")
    if not isinstance(fields, dict):
        detail = f"the rail answered no object: {said}"
        return answer(request, RailOutcome.UNKNOWN, detail=detail)
    outcome = OUTCOMES.get(str(fields.get("status")), RailOutcome.UNKNOWN)
    said_by_it = {name: str(fields.get(name) or "") for name in ("reference", "reason")}
    return answer(
        request,
        outcome,
        reference=said_by_it["reference"],
        detail=said_by_it["reason"],
        booked_on=day(fields.get("booked_on")),
    )


def day(text: Any) -> str:
    """A day as the provider writes it, YYYY-MM-DD; empty for anything else."""
    return text if isinstance(text, str) and DAY.fullmatch(text) else ""


def answer(
    request: Request,
    outcome: RailOutcome,
    *,
    reference: str = "",
    detail: str = "",
    booked_on: str = "",
) -> RailAnswered:
    refund = isinstance(request, RefundRequested)
    ordered = refunds(request.order)
    return RailAnswered(
        transaction_id=request.payment_id,
        payment_id=request.payment_id,
        operation=RailOperation.REFUND if refund else RailOperation.PAY,
        attempt=request.attempt,
        outcome=outcome,
        provider_reference=reference[:200],
        detail=detail[:500],
        refund_id=effect_id(request) if ordered else None,
        booked_on=booked_on,
    )
