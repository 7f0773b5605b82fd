"""The payment rail: a provider's HTTP interface, as an effect.

What it did not say is UNKNOWN, never guessed: a payment that may have happened is asked for again,
under the same idempotency key.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp

from agents.effect import Effect
from domain.payment import RailAnswered, RailOperation, RailOutcome
from domain.saga import PaymentRequested, RefundRequested
from resilience.downstream import Away
from topics.subscriptions import RAIL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

Request: TypeAlias = PaymentRequested | RefundRequested
OUTCOMES = {"approved": RailOutcome.APPROVED, "declined": RailOutcome.DECLINED}


def effect(url: str) -> Effect:
    """Payments and refunds, asked of the rail at `url`."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Rail]:
        async with aiohttp.ClientSession() as session:
            yield Rail(url, session)

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

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self.session = session

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
        return read_answer(request, status, fields, said)

    def unanswered(self, request: Request, why: Exception) -> RailAnswered:
        return answer(request, RailOutcome.UNKNOWN, "", str(why))


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
        "amount": order.amount_minor,
        "currency": order.currency,
        "type": order.type,
        "source_account_id": order.source_account_id,
        "destination_account_id": order.destination_account_id,
    }
    if isinstance(request, RefundRequested):
        fields["refund_id"] = request.refund_id
        fields["provider_reference"] = request.provider_reference
    return fields


def read_answer(request: Request, status: int, fields: Any, said: str) -> RailAnswered:
    """The rail's HTTP answer as a result; `Away` for one that says nothing of the payment."""
    if status >= 500 or status in (408, 425, 429):
        raise Away(f"the rail answered {status}")
    if status >= 400:
        return answer(request, RailOutcome.UNKNOWN, "", f"the rail answered {status}: {said}")
    if not isinstance(fields, dict):
        return answer(request, RailOutcome.UNKNOWN, "", f"the rail answered no object: {said}")
    outcome = OUTCOMES.get(str(fields.get("status")), RailOutcome.UNKNOWN)
    reference, detail = fields.get("reference"), fields.get("reason")
    return answer(request, outcome, str(reference or ""), str(detail or ""))


def answer(request: Request, outcome: RailOutcome, reference: str, detail: str) -> RailAnswered:
    refund = isinstance(request, RefundRequested)
    return RailAnswered(
        transaction_id=request.order.transaction_id,
        payment_id=request.payment_id,
        operation=RailOperation.REFUND if refund else RailOperation.PAY,
        attempt=request.attempt,
        outcome=outcome,
        provider_reference=reference,
        detail=detail[:500],
    )
