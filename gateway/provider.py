"""The payment provider, as the gateway meets it: it makes tokens of numbers, and it calls back.

number --POST /tokens--> token             behind bulkhead, breaker, retries and time-outs
notice --signature, time--> NotifyPayment --> payment.inbox
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from domain.payment_rail import NotifyPayment, RailOperation, RailOutcome
from gateway.answer import Answer, answer
from gateway.errors import Problem, not_found
from gateway.idempotency import named
from resilience.breaker import Rejected
from resilience.bulkhead import CALLS, Full
from resilience.downstream import Away, Downstream

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.payment_models import NewPaymentMethod

NOTICES = uuid.UUID(
    "4e1b9d53-7d0a-4a53-9f0a-8f6f5f0d6a11"
)  # never changes: command ids follow from it
TIMEOUT_S = 5.0
WINDOW_S = 300  # how old a notice's signature may be, or how far ahead of our clock
SIGNATURE = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
ID = re.compile(r"[\x21-\x7e]{1,100}")
OUTCOMES = {
    "approved": RailOutcome.APPROVED,
    "declined": RailOutcome.DECLINED,
    "pending": RailOutcome.UNKNOWN,
}


class CardTokens:
    """Makes the provider's token of a number; `close` it on its event loop."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._downstream = Downstream("provider", TIMEOUT_S, line=CALLS)
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        self._session = aiohttp.ClientSession()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def token(self, body: NewPaymentMethod, key: str) -> str:
        """The token of a card or an IBAN; 503 while the provider does not answer."""
        number = {"number": body.number, "cvc": body.cvc} if body.number else {"iban": body.iban}
        asked = {
            **number,
            "type": body.type,
            "exp_month": body.exp_month,
            "exp_year": body.exp_year,
        }
        told = {name: value for name, value in asked.items() if value is not None}
        try:
            return await self._downstream.ask(lambda: self._call(told, key))
        except (Away, Rejected, Full) as exc:
            detail = "the payment provider does not answer: repeat with the same key"
            raise Problem("PROVIDER_UNAVAILABLE", detail, headers={"Retry-After": "5"}) from exc

    async def _call(self, told: dict[str, Any], key: str) -> str:
        assert self._session is not None
        try:
            async with self._session.post(
                f"{self.url}/tokens", json=told, headers={"Idempotency-Key": key}
            ) as response:
                status = response.status
                fields = await response.json() if response.ok else {}
        except (aiohttp.ClientError, ValueError) as exc:
            raise Away(type(exc).__name__) from exc
        if status >= 500 or status in (408, 425, 429):
            raise Away(f"the provider answered {status}")
        made = fields.get("token") if isinstance(fields, dict) else None
        if not isinstance(made, str) or not ID.fullmatch(made):
            raise Problem("PROVIDER_REFUSED")
        return made


async def notice(call: Call) -> Answer:
    """200 once the broker has it: signed by the provider, not old, and about a payment."""
    settings, data = call.gateway.settings, call.raw_body
    if not hmac.compare_digest(call.names["provider"].encode(), settings.provider.encode()):
        raise not_found("no such provider")
    _check_signature(call, settings.provider_secret, data)
    command = _read(settings.provider, data)
    await call.gateway.commands.send(
        "payment",
        command.payment_id,
        command,
        command_id=str(named(NOTICES, hashlib.sha256(data).hexdigest())),
        traceparent=call.trace.traceparent,
        actor_id=f"provider:{settings.provider}",
        origin=call.origin,
    )
    return answer({"notice_id": command.notice_id, "taken": True})


def _check_signature(call: Call, secret: str, data: bytes) -> None:
    """401 for a notice that the provider did not sign, or signed at another time."""
    match = SIGNATURE.fullmatch(call.signature or "")
    at_s, given = (match[1], match[2]) if match else ("0", "0" * 64)
    wanted = hmac.new(secret.encode(), at_s.encode() + b"." + data, hashlib.sha256).hexdigest()
    signed = hmac.compare_digest(given, wanted)  # at any price in the same time
    if match is None or not signed or abs(time.time() - int(at_s)) > WINDOW_S:
        raise Problem("BAD_SIGNATURE")


def _read(provider: str, data: bytes) -> NotifyPayment:
    """The notice in a body. 400 for what can't be read: the provider signed garbage."""
    try:
        told = orjson.loads(data)
        fields = told["data"]
        kind, outcome = told["type"].split(".")[0], OUTCOMES[fields["status"]]
        operation = {"payment": RailOperation.PAY, "refund": RailOperation.REFUND}[kind]
        amount, booked_on = fields["amount"], fields.get("booked_on") or ""
        ids = [told["id"], fields["payment_id"], fields["currency"]]
        refund_id = fields.get("refund_id")
        texts = [*ids, *([refund_id] if operation is RailOperation.REFUND else [])]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise Problem("BAD_REQUEST", "the notice has not the members of one") from exc
    fits = all(isinstance(text, str) and ID.fullmatch(text) for text in texts)
    if not fits or type(amount) is not int or not 0 < amount <= 10**15:
        raise Problem("BAD_REQUEST", "the notice has members that can't be used")
    if booked_on and not (isinstance(booked_on, str) and DAY.fullmatch(booked_on)):
        raise Problem("BAD_REQUEST", "booked_on is no day")
    return NotifyPayment(
        notice_id=ids[0],
        provider=provider,
        payment_id=ids[1],
        refund_id=refund_id if operation is RailOperation.REFUND else None,
        operation=operation,
        outcome=outcome,
        amount_minor=amount,
        currency=ids[2],
        provider_reference=str(fields.get("reference") or "")[:200],
        booked_on=booked_on,
        detail=str(fields.get("reason") or "")[:500],
    )
