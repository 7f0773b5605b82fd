"""KYC over HTTP: a user says who they are, an officer looks and decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.kyc import (
    OPEN,
    DecideKyc,
    KycDecision,
    KycDetails,
    KycLevelSet,
    KycRejected,
    KycSubmitted,
    SubmitKyc,
    kyc_key,
)
from domain.person import KycStatus, UserCommandRefused
from domain.saga import Reason
from gateway import pages, users, views
from gateway.answer import Answer, answer
from gateway.errors import Problem, not_found
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.permissions import PERMISSIONS, Permission
from gateway.reads import USERS
from gateway.user_models import KycDecided, KycSubmission

if TYPE_CHECKING:
    from typing import Any

    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard

SHOWN = 4  # last characters of a number that its owner is shown


async def submit(call: Call) -> Answer:
    """202, or 200 with the submission when the client waits. For oneself alone."""
    body = call.body
    assert isinstance(body, KycSubmission)
    user_id = users.own(call)

    async def first(identity: Identity) -> Answer:
        command = SubmitKyc(
            user_id=user_id,
            level=body.level,
            details=_details(body),
            submission_id=identity.command_id,
            actor_id=call.caller.user_id,
        )
        return await pursue(call, identity, _Deciding(call, identity, command))

    return await once(call, _identified(call), first)


def _identified(call: Call) -> Identity:
    """Its fingerprint is keyed: a bare hash would help to guess what someone said."""
    secret = call.gateway.settings.jwt_secret
    return identify(call, request_hash=users.fingerprint(secret, call.raw_body))


def _details(body: KycSubmission) -> KycDetails:
    document, address = body.document, body.address
    return KycDetails(
        full_name=body.full_name,
        date_of_birth=body.date_of_birth,
        country=body.country,
        street=address.street if address else "",
        postal_code=address.postal_code if address else "",
        city=address.city if address else "",
        document_kind=document.kind if document else "",
        document_number=document.number if document else "",
        document_country=document.country if document else "",
        personal_number=body.personal_number or "",
    )


async def decide(call: Call) -> Answer:
    """202, or 200 with what became of the submission. Nobody decides their own case."""
    body = call.body
    assert isinstance(body, KycDecided)
    user_id = call.names["user_id"]
    user, file = await _read(call, user_id)
    if user is None:
        raise not_found("no such user, or not yet")
    if file is None:
        return refused(call, Reason.KYC_NOT_PENDING, {"user_id": user_id})
    decision = KycDecision(body.decision)
    command = DecideKyc(
        user_id=user_id,
        submission_id=body.submission_id or file["submission_id"],
        decision=decision,
        level=(body.level or file["level"]) if decision is KycDecision.APPROVE else 0,
        note=body.note or "",
        actor_id=call.caller.user_id,
    )

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Deciding(call, identity, command))

    return await once(call, identify(call), first)


class _Deciding:
    """SubmitKyc or DecideKyc on its way."""

    service = "user"

    def __init__(self, call: Call, identity: Identity, command: SubmitKyc | DecideKyc) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.key = self.aggregate_id = command.user_id
        self.location = f"/api/users/{self.key}/kyc"
        self.named = {"user_id": self.key}

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        event = heard.event
        if isinstance(event, UserCommandRefused):
            return refused(self.call, event.reason, self.named)
        if isinstance(event, KycSubmitted | KycLevelSet | KycRejected):
            self.call.gateway.reads.told(self.call, USERS, self.key, event.version)
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        user, file = await _read(self.call, self.key)
        if user is None or file is None or file["submission_id"] != self.command.submission_id:
            return None
        if isinstance(self.command, DecideKyc) and not self._is_decided(file):
            return None
        # first answers are kept for repeats, and no copy of what someone said is to lie about
        return answer({**_shown(self.call, user, file), "details": None})

    def _is_decided(self, file: Row) -> bool:
        assert isinstance(self.command, DecideKyc)
        approved = self.command.decision is KycDecision.APPROVE
        status = KycStatus.VERIFIED if approved else KycStatus.REJECTED
        return bool(file["status"] == status and file["decided_by"] == self.command.actor_id)


async def get(call: Call) -> Answer:
    """What was submitted last and what became of it: one's own, or anybody's to an officer."""
    user_id = call.names["user_id"]
    if user_id != call.caller.user_id and not _is_officer(call):
        raise not_found("no such user, or not yet")
    user, file = await _read(call, user_id)
    if user is None:
        raise not_found("no such user, or not yet")
    return answer(_shown(call, user, file))


async def listing(call: Call) -> Answer:
    """Who waits for an officer, in no order of time: they are few."""
    limit, start = pages.limit_of(call), pages.text_of(call) or "0|"
    number, _, after = start.partition("|")
    queries = call.gateway.queries
    known = number.isascii() and number.isdecimal() and len(number) < 7
    if not known or int(number) >= queries.partitions:
        raise Problem("BAD_QUERY", "the cursor is none of this list's")
    items: list[Row] = []
    following: str | None = None
    for partition in range(int(number), queries.partitions):
        rows, more = await queries.listed("user", partition, OPEN, after, limit - len(items))
        items += [row for _, row in rows]
        after = ""
        if more is not None or (len(items) == limit and partition + 1 < queries.partitions):
            following = f"{partition}|{more}" if more is not None else f"{partition + 1}|"
            break
    shown = [
        {
            "user_id": row["user_id"],
            "level": row["level"],
            "submitted_at": views.time_of(row["submitted_ms"]),
        }
        for row in items
    ]
    return answer({"items": shown, "next_cursor": pages.cursor(following) if following else None})


async def _read(call: Call, user_id: str) -> tuple[Row | None, Row | None]:
    user = await users.read(call, user_id)
    if user is None:
        return None, None
    key = kyc_key(user_id)
    return user, await call.gateway.queries.row("user", user_id, key, versioned=False)


def _is_officer(call: Call) -> bool:
    return call.caller.may(PERMISSIONS[Permission.READ_KYC])


def _shown(call: Call, user: Row, file: Row | None) -> dict[str, Any]:
    return {
        "user_id": user["user_id"],
        "level": user["kyc_level"],
        "status": user["kyc_status"],
        "submission_id": file["submission_id"] if file else None,
        "requested_level": file["level"] if file else None,
        "details": _masked(call, file["details"]) if file else None,
        "note": (file["note"] or None) if file else None,
        "submitted_at": views.time_of(file["submitted_ms"]) if file else None,
        "decided_at": views.time_of(file["decided_ms"]) if file else None,
    }


def _masked(call: Call, details: dict[str, str]) -> dict[str, str]:
    """What was said, without what was left out; numbers by their end, save to an officer."""
    shown = {name: text for name, text in details.items() if text}
    if _is_officer(call):
        return shown
    for name in ("document_number", "personal_number"):
        if name in shown:
            text = shown[name]
            hidden = len(text) - (SHOWN if len(text) >= 2 * SHOWN else 0)
            shown[name] = "*" * hidden + text[hidden:]
    return shown
