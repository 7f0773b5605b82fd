"""The payment provider of development: an HTTP process that says yes, no, late, again, or twice.

    POST /tokens                    {type: card, number, …} | {type: iban, iban} → {"token", …}
    POST /payments, POST /refunds   Idempotency-Key, {payment_id, amount, currency, …} → the answer
    GET  /payments/{key}, /refunds/{key}                                   what was answered, or 404
    GET  /statement?day=&currency=                 its books of a day (camt.053), in that currency
    POST /settings                  {"errors": n}: the next n questions are answered with 500
    GET  /health

An answer is `{"status": "approved" | "declined" | "pending", "reference", "reason", "booked_on"}`.
A card's number, else the last two digits of the amount in minor units, choose what happens
(`CARDS`, `MAGIC`); all others are approved at once. One key is acted on once: asked again with the
same body it gets the same answer, with another body 422. What was decided is appended to a file and
known again after a restart; a number never is. Each decision is told by a signed notice too, where
somebody wants them (`deploy/local/notices.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from deploy.local.camt import statement
from deploy.local.notices import Notices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# last two digits of the amount → what happens; the tests go through this table
MAGIC: Mapping[int, str] = {
    13: "declined: the provider refuses",
    21: "approved, 2 s late",
    22: "approved, 8 s late: longer than who asks waits",
    31: "pending when asked first, approved when asked again",
    41: "approved, but the first answer is lost on the way: who asks again is answered again",
    51: "503 twice, then approved",
    61: "503 five times, longer than short retries last, then approved",
    71: "pending whenever it is asked: a notice alone says that it is approved",
    72: "pending likewise; the notice of the approval comes three times",
    73: "pending likewise; the notice that it is pending comes behind that of the approval",
    74: "pending likewise; a forged notice and one of an unknown payment come first",
    75: "declined, and then a notice says that it was approved all the same",
    91: "payment approved, its refund declined",
}
# what a card does, by its number: that of the table above
CARDS: Mapping[str, int] = {
    "4000000000000002": 13,
    "4000000000000119": 22,
    "4000000000000341": 91,
    "4000000000009235": 61,
    "4000000000003220": 71,
}
DELAYS_S = {21: 2.0, 22: 8.0}
ERRORS = {51: 2, 61: 5}
PENDING = 31
LOST = 41
DECLINED = 13
REFUND_DECLINED = 91
BY_NOTICE = frozenset({71, 72, 73, 74})
CHANGES_ITS_MIND = 75
TOKEN_PREFIX = "tok-"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the provider did about one key, for ever."""

    key: str
    kind: str  # payments or refunds
    body: str  # canonical JSON of what was asked
    status: str
    reference: str
    reason: str
    booked_on: str = ""  # empty: decided before days were noted down
    magic: int = 0

    @property
    def asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads(self.body)
        return asked

    def answer(self) -> dict[str, str]:
        return {
            "id": self.key,
            "status": self.status,
            "reference": self.reference,
            "reason": self.reason,
            "booked_on": self.booked_on,
        }


class Provider:
    """The decisions, how often each key was asked, and what tokens stand for."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.decisions: dict[tuple[str, str], Decision] = {}
        self.asked: dict[tuple[str, str], int] = {}
        self.errors = 0
        if file is not None and file.exists():
            self._recall(file)

    def magic(self, kind: str, body: Mapping[str, Any]) -> int:
        """What is to happen: by the card that is, or was, charged; else by the amount."""
        method = body.get("method")
        paid = self.decisions.get(("payments", str(body.get("payment_id"))))
        if kind == "refunds" and method is None and paid is not None:
            method = paid.asked.get("method")
        by_card = magic_of(method) if isinstance(method, str) else 0
        return by_card or int(body["amount"]) % 100

    def decide(self, kind: str, key: str, body: Mapping[str, Any], magic: int) -> Decision:
        """The decision about this key, made now when it is new."""
        known = self.decisions.get((kind, key))
        if known is not None:
            return known
        status, reason = _verdict(kind, magic)
        reference = "rail-" + hashlib.sha256(f"{kind}/{key}".encode()).hexdigest()[:16]
        day = datetime.now(UTC).date().isoformat()
        return self.keep(
            Decision(key, kind, canonical(body), status, reference, reason, day, magic)
        )

    def keep(self, decision: Decision) -> Decision:
        self.decisions[decision.kind, decision.key] = decision
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps(asdict(decision)) + "\n")
        return decision

    def ask(self, kind: str, key: str) -> int:
        """How often this key has been asked, this time included."""
        self.asked[kind, key] = self.asked.get((kind, key), 0) + 1
        return self.asked[kind, key]

    def booked(self, day: str, currency: str) -> list[Decision]:
        """What moved money on a day, in the order of its decision."""
        return [
            decision
            for decision in self.decisions.values()
            if decision.status == "approved"
            and decision.booked_on == day
            and decision.asked.get("currency") == currency
        ]

    def _recall(self, file: Path) -> None:
        whole = file.read_text().rpartition("\n")[0]  # a crash may have left half a line
        for line in whole.splitlines():
            decision = Decision(**json.loads(line))
            self.decisions[decision.kind, decision.key] = decision
        file.write_text(f"{whole}\n" if whole else "")


def _verdict(kind: str, magic: int) -> tuple[str, str]:
    if magic in (DECLINED, CHANGES_ITS_MIND) and kind == "payments":
        return "declined", "the provider refuses"
    if magic == REFUND_DECLINED and kind == "refunds":
        return "declined", "the provider does not refund"
    return "approved", ""


def canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def token(number: str, key: str) -> str:
    """A name for a number that does not tell it; a magic card's says what it does."""
    magic = CARDS.get(number, 0)
    return f"{TOKEN_PREFIX}{magic:02d}-{hashlib.sha256(os.urandom(16) + key.encode()).hexdigest()[:24]}"


def magic_of(method: str) -> int:
    digits = method.removeprefix(TOKEN_PREFIX)[:2]
    return int(digits) if digits.isdecimal() else 0


PROVIDER = web.AppKey("provider", Provider)
NOTICES = web.AppKey("notices", Notices)
TOKENS = web.AppKey("tokens", dict[str, str])  # by Idempotency-Key


async def tokens(request: web.Request) -> web.Response:
    """Card or IBAN → what the provider calls it from now on."""
    try:
        body = await request.json()
    except ValueError:
        return problem(400, "the body is not JSON")
    number = body.get("number") or body.get("iban") if isinstance(body, dict) else None
    if not isinstance(number, str) or not 8 <= len(number) <= 34:
        return problem(400, "neither number nor iban is there")
    if request.app[PROVIDER].errors > 0:
        request.app[PROVIDER].errors -= 1
        return problem(500, "the provider is out of order")
    key = request.headers.get("Idempotency-Key", "")
    made = request.app[TOKENS].setdefault(key, token(number, key)) if key else token(number, key)
    return web.json_response({"token": made}, status=201)


async def post(request: web.Request) -> web.StreamResponse:
    """Payment or refund."""
    provider, kind = request.app[PROVIDER], request.path.strip("/")
    key = request.headers.get("Idempotency-Key", "")
    try:
        body = await request.json()
    except ValueError:
        return problem(400, "the body is not JSON")
    wrong = _wrong(key, body)
    if wrong:
        return problem(400, wrong)
    if provider.errors > 0:
        provider.errors -= 1
        return problem(500, "the provider is out of order")
    magic, asked = provider.magic(kind, body), provider.ask(kind, key)
    if asked <= ERRORS.get(magic, 0):
        return problem(503, "the rail is down")
    new = (kind, key) not in provider.decisions
    decision = provider.decide(kind, key, body, magic)
    if decision.body != canonical(body):
        return problem(422, "this Idempotency-Key was used for something else")
    if new:
        request.app[NOTICES].tell(decision, _told(kind, magic))
    if new and magic == CHANGES_ITS_MIND and kind == "payments":
        approved = Decision(**{**asdict(decision), "status": "approved", "reason": ""})
        request.app[NOTICES].tell(approved, ("late",))
        provider.keep(approved)
    return await _answer(request, decision, kind, asked)


def _told(kind: str, magic: int) -> tuple[str, ...]:
    """How the notices of a decision misbehave."""
    if kind != "payments":
        return ()
    return {72: ("thrice",), 73: ("reordered",), 74: ("forged", "unknown")}.get(magic, ())


async def _answer(
    request: web.Request, decision: Decision, kind: str, asked: int
) -> web.StreamResponse:
    magic, payments = decision.magic, kind == "payments"
    if asked == 1:
        await asyncio.sleep(DELAYS_S.get(magic, 0))
    if asked == 1 and magic == LOST and request.transport is not None:
        request.transport.abort()
    if (asked == 1 and magic == PENDING) or (payments and magic in BY_NOTICE):
        return web.json_response({**decision.answer(), "status": "pending"}, status=202)
    return web.json_response(decision.answer())


def _wrong(key: str, body: Any) -> str | None:
    """Why this cannot be asked; None when it can."""
    if not key:
        return "the header Idempotency-Key is missing"
    if not isinstance(body, dict) or not isinstance(body.get("payment_id"), str):
        return "payment_id is missing"
    amount = body.get("amount")
    if not isinstance(amount, int) or isinstance(amount, bool) or amount <= 0:
        return "amount is not a positive integer of minor units"
    return None


async def get(request: web.Request) -> web.Response:
    kind, key = request.match_info["kind"], request.match_info["key"]
    decision = request.app[PROVIDER].decisions.get((kind, key))
    return problem(404, "never asked") if decision is None else web.json_response(decision.answer())


async def statements(request: web.Request) -> web.Response:
    """What it booked on a day, today by default, as camt.053."""
    day = request.query.get("day") or datetime.now(UTC).date().isoformat()
    currency = request.query.get("currency", "EUR")
    booked = request.app[PROVIDER].booked(day, currency)
    text = statement(day, currency, booked)
    return web.Response(body=text, content_type="application/xml", charset="utf-8")


async def settings(request: web.Request) -> web.Response:
    body = await request.json()
    request.app[PROVIDER].errors = int(body["errors"])
    return web.json_response({"errors": request.app[PROVIDER].errors})


async def health(request: web.Request) -> web.Response:
    decisions = len(request.app[PROVIDER].decisions)
    return web.json_response({"status": "ok", "decisions": decisions})


def problem(status: int, title: str) -> web.Response:
    return web.json_response(
        {"title": title, "status": status}, status=status, content_type="application/problem+json"
    )


def application(
    file: Path | None = None, notify_url: str = "", secret: str = ""
) -> web.Application:
    """The provider as an aiohttp application; `file` keeps its decisions."""
    app = web.Application()
    app[PROVIDER] = Provider(file)
    app[NOTICES] = Notices(notify_url, secret)
    app[TOKENS] = {}
    app.router.add_post("/tokens", tokens)
    app.router.add_post("/payments", post)
    app.router.add_post("/refunds", post)
    app.router.add_get("/{kind:payments|refunds}/{key}", get)
    app.router.add_get("/statement", statements)
    app.router.add_post("/settings", settings)
    app.router.add_get("/health", health)

    async def telling(app: web.Application) -> AsyncIterator[None]:
        async with app[NOTICES]:
            yield

    app.cleanup_ctx.append(telling)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The payment provider of development.",
        epilog="last two digits of the amount: "
        + "; ".join(f"{digits} {what}" for digits, what in MAGIC.items()),
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3012)
    parser.add_argument("--file", type=Path, help="keeps what was decided")
    parser.add_argument("--notify", default="", help="URL that its signed notices go to")
    options = parser.parse_args()
    if options.file:
        options.file.parent.mkdir(parents=True, exist_ok=True)
    secret = os.environ.get("STREAMBANK_PROVIDER_SECRET", "")
    app = application(options.file, options.notify, secret)
    web.run_app(app, host=options.host, port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
