"""The payment rail: a provider's HTTP interface, behind bulkhead, breaker, retries and time-outs.

What it did not say is UNKNOWN, never guessed: a payment that may have happened is asked for again,
under the same idempotency key.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
from prometheus_client import Counter, Histogram

from domain.payment import RailAnswered, RailOperation, RailOutcome
from domain.saga import PaymentRequested, RefundRequested
from resilience.breaker import Breaker, Rejected
from resilience.bulkhead import CALLS, Bulkhead
from resilience.guarded import through
from resilience.retry import retrying

if TYPE_CHECKING:
    from collections.abc import Mapping

Request: TypeAlias = PaymentRequested | RefundRequested
OUTCOMES = {"approved": RailOutcome.APPROVED, "declined": RailOutcome.DECLINED}
TIMEOUT_S = 5.0  # of one call

RESULTS = Counter("streambank_effects_total", "Effects by their result", ["downstream", "outcome"])
CALL_S = Histogram("streambank_effect_seconds", "Duration of one effect", ["downstream"])


class RailAway(Exception):
    """The rail could not be asked, or answered with an error of its own: worth another try."""


class Rail:
    """The payment rail over HTTP, behind bulkhead, breaker, retries and time-outs."""

    def __init__(self, url: str, session: aiohttp.ClientSession, breaker: Breaker) -> None:
        self.url = url.rstrip("/")
        self.session = session
        self.breaker = breaker
        self.bulkhead = Bulkhead("rail", CALLS)

    async def ask(self, request: Request, headers: Mapping[str, str]) -> RailAnswered:
        """What one attempt came to; never raises for what the rail does."""
        async with self.bulkhead.waiting():
            started_s = time.monotonic()
            try:
                answered = await self._through_breaker(request, headers)
            except (RailAway, Rejected) as exc:
                answered = answer(request, RailOutcome.UNKNOWN, "", str(exc))
            CALL_S.labels("rail").observe(time.monotonic() - started_s)
        RESULTS.labels("rail", answered.outcome).inc()
        return answered

    async def _through_breaker(self, request: Request, headers: Mapping[str, str]) -> RailAnswered:
        with through(self.breaker, RailAway):
            async for attempt in retrying(RailAway):
                with attempt:
                    answered = await self._call(request, headers)
        return answered

    async def _call(self, request: Request, headers: Mapping[str, str]) -> RailAnswered:
        key = effect_id(request)
        try:
            async with self.session.post(
                f"{self.url}/{resource(request)}",
                json=body(request),
                headers={**headers, "Idempotency-Key": key},
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            ) as response:
                status, said = response.status, await response.text()
                fields = await response.json() if response.ok else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise RailAway(f"{type(exc).__name__}: {exc}") from exc
        return read_answer(request, status, fields, said)


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
    """The rail's HTTP answer as a result; `RailAway` for one that says nothing of the payment."""
    if status >= 500 or status in (408, 425, 429):
        raise RailAway(f"the rail answered {status}")
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
