"""The external payment rail of development: an HTTP process that says yes, no, late, or again.

    POST /payments, POST /refunds   Idempotency-Key, {payment_id, amount, currency, …} → the answer
    GET  /payments/{key}, /refunds/{key}                                   what was answered, or 404
    GET  /health

An answer is `{"status": "approved" | "declined" | "pending", "reference", "reason"}`. The last
two digits of the amount, in minor units, choose what happens (`MAGIC`); all others are approved at
once. One key is acted on once: asked again with the same body it gets the same answer, with another
body 422. What was decided is appended to a file and known again after a restart.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

# last two digits of the amount → what happens; the tests go through this table
MAGIC: Mapping[int, str] = {
    13: "declined: the provider refuses",
    21: "approved, 2 s late",
    22: "approved, 8 s late: longer than who asks waits",
    31: "pending when asked first, approved when asked again",
    41: "approved, but the first answer is lost on the way: who asks again is answered again",
    51: "503 twice, then approved",
    61: "503 five times, longer than short retries last, then approved",
    91: "payment approved, its refund declined",
}
DELAYS_S = {21: 2.0, 22: 8.0}
ERRORS = {51: 2, 61: 5}
PENDING = 31
LOST = 41
DECLINED = 13
REFUND_DECLINED = 91


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rail did about one key, for ever."""

    key: str
    kind: str  # payments or refunds
    body: str  # canonical JSON of what was asked
    status: str
    reference: str
    reason: str

    def answer(self) -> dict[str, str]:
        return {
            "id": self.key,
            "status": self.status,
            "reference": self.reference,
            "reason": self.reason,
        }


class Rail:
    """The decisions, and how often each key was asked."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.decisions: dict[tuple[str, str], Decision] = {}
        self.asked: dict[tuple[str, str], int] = {}
        if file is not None and file.exists():
            self._recall(file)

    def decide(self, kind: str, key: str, body: Mapping[str, Any]) -> Decision:
        """The decision about this key, made now when it is new."""
        known = self.decisions.get((kind, key))
        if known is not None:
            return known
        status, reason = _verdict(kind, body["amount"] % 100)
        reference = "rail-" + hashlib.sha256(f"{kind}/{key}".encode()).hexdigest()[:16]
        decision = Decision(key, kind, canonical(body), status, reference, reason)
        self.decisions[kind, key] = decision
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps(asdict(decision)) + "\n")
        return decision

    def ask(self, kind: str, key: str) -> int:
        """How often this key has been asked, this time included."""
        self.asked[kind, key] = self.asked.get((kind, key), 0) + 1
        return self.asked[kind, key]

    def _recall(self, file: Path) -> None:
        whole = file.read_text().rpartition("\n")[0]  # a crash may have left half a line
        for line in whole.splitlines():
            decision = Decision(**json.loads(line))
            self.decisions[decision.kind, decision.key] = decision
        file.write_text(f"{whole}\n" if whole else "")


def _verdict(kind: str, digits: int) -> tuple[str, str]:
    if digits == DECLINED:
        return "declined", "the provider refuses"
    if digits == REFUND_DECLINED and kind == "refunds":
        return "declined", "the provider does not refund"
    return "approved", ""


def canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


RAIL = web.AppKey("rail", Rail)


async def post(request: web.Request) -> web.StreamResponse:
    """Payment or refund."""
    rail, kind = request.app[RAIL], request.path.strip("/")
    key = request.headers.get("Idempotency-Key", "")
    try:
        body = await request.json()
    except ValueError:
        return problem(400, "the body is not JSON")
    wrong = _wrong(key, body)
    if wrong:
        return problem(400, wrong)
    digits, asked = body["amount"] % 100, rail.ask(kind, key)
    if asked <= ERRORS.get(digits, 0):
        return problem(503, "the rail is down")
    decision = rail.decide(kind, key, body)
    if decision.body != canonical(body):
        return problem(422, "this Idempotency-Key was used for something else")
    if asked == 1:
        await asyncio.sleep(DELAYS_S.get(digits, 0))
    if asked == 1 and digits == LOST and request.transport is not None:
        request.transport.abort()
    if asked == 1 and digits == PENDING:
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
    decision = request.app[RAIL].decisions.get((kind, key))
    return problem(404, "never asked") if decision is None else web.json_response(decision.answer())


async def health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "decisions": len(request.app[RAIL].decisions)})


def problem(status: int, title: str) -> web.Response:
    return web.json_response(
        {"title": title, "status": status}, status=status, content_type="application/problem+json"
    )


def application(file: Path | None = None) -> web.Application:
    """The rail as an aiohttp application; `file` keeps its decisions."""
    app = web.Application()
    app[RAIL] = Rail(file)
    app.router.add_post("/payments", post)
    app.router.add_post("/refunds", post)
    app.router.add_get("/{kind:payments|refunds}/{key}", get)
    app.router.add_get("/health", health)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The external payment rail of development.",
        epilog="last two digits of the amount: "
        + "; ".join(f"{digits} {what}" for digits, what in MAGIC.items()),
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3012)
    parser.add_argument("--file", type=Path, help="keeps what was decided")
    options = parser.parse_args()
    if options.file:
        options.file.parent.mkdir(parents=True, exist_ok=True)
    web.run_app(
        application(options.file), host=options.host, port=options.port, print=None, access_log=None
    )


if __name__ == "__main__":
    main()
