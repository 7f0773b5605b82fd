r"""Knowing the customer: a person says who they are, an officer decides, a level follows.

    SubmitKyc --> PENDING --approve--> VERIFIED, level 1 or 2
                     \------reject---> REJECTED, the level as it was

What a person says of themselves is private, and so is what the officer noted: `user.events` says
only that something was submitted, and which level followed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from domain.person import KycStatus, User, refuse, user_key
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Changes, RowKey, Rows
    from domain.person import UserCommandRefused

LEVELS = range(1, 3)  # that can be asked for: 1 basic, 2 full
OPEN = "kyc-open/"


class KycDecision(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class KycDetails:
    """Who someone says they are. What a level does not ask for is empty."""

    full_name: str
    date_of_birth: str  # YYYY-MM-DD
    country: str  # ISO 3166-1 alpha-2, of residence
    street: str = ""
    postal_code: str = ""
    city: str = ""
    document_kind: str = ""  # passport, id_card, driving_licence
    document_number: str = ""
    document_country: str = ""  # who issued it
    personal_number: str = ""  # tax or social security number


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitKyc:
    """Ask for a level. `submission_id` names this submission: told twice is told once."""

    user_id: str
    level: int
    details: KycDetails
    submission_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideKyc:
    """An officer's word on the submission that they looked at; `level`: what is given."""

    user_id: str
    submission_id: str
    decision: KycDecision
    level: int
    note: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KycSubmitted:
    """A person asks for a level; an officer is to decide."""

    user_id: str
    level: int
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KycDetailsKept:
    """Private: what was submitted."""

    user_id: str
    level: int
    details: KycDetails
    submission_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KycLevelSet:
    """The bank knows the user to this level: 0 unverified, 1 basic, 2 full."""

    user_id: str
    level: int
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KycRejected:
    """The submission did not convince; the level stays as it was."""

    user_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KycDecisionKept:
    """Private: who decided, and why."""

    user_id: str
    decision: KycDecision
    note: str
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KycFile:
    """Row `kyc/<user_id>`, private: the last submission and what became of it."""

    user_id: str
    level: int
    details: KycDetails
    submission_id: str
    status: KycStatus
    note: str
    submitted_ms: int
    decided_ms: int | None = None
    decided_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KycOpen:
    """Row `kyc-open/<user_id>`: a submission waits for an officer."""

    user_id: str
    level: int
    submitted_ms: int


Command = SubmitKyc | DecideKyc
Said = KycSubmitted | KycDetailsKept | KycLevelSet | KycRejected | KycDecisionKept


def decide(rows: Rows, command: Command, at_ms: int) -> Sequence[Said | UserCommandRefused]:
    match command:
        case SubmitKyc():
            return _submit(rows, command, at_ms)
        case DecideKyc():
            return _decide(rows, command, at_ms)


def _submit(rows: Rows, command: SubmitKyc, at_ms: int) -> Sequence[Said | UserCommandRefused]:
    user: User | None = rows.get(user_key(command.user_id))
    file: KycFile | None = rows.get(kyc_key(command.user_id))
    if user is None:
        return refuse(command, Reason.USER_NOT_FOUND, at_ms)
    if file is not None and file.submission_id == command.submission_id:
        return ()
    if command.level not in LEVELS or not command.submission_id:
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    if user.kyc_status is KycStatus.PENDING:
        return refuse(command, Reason.KYC_PENDING, at_ms)
    if command.level <= user.kyc_level:
        return refuse(command, Reason.KYC_LEVEL_HELD, at_ms)
    return (
        KycDetailsKept(
            user_id=command.user_id,
            level=command.level,
            details=command.details,
            submission_id=command.submission_id,
            at_ms=at_ms,
        ),
        KycSubmitted(
            user_id=command.user_id, level=command.level, version=user.version + 1, at_ms=at_ms
        ),
    )


def _decide(rows: Rows, command: DecideKyc, at_ms: int) -> Sequence[Said | UserCommandRefused]:
    user: User | None = rows.get(user_key(command.user_id))
    file: KycFile | None = rows.get(kyc_key(command.user_id))
    if user is None:
        return refuse(command, Reason.USER_NOT_FOUND, at_ms)
    if command.actor_id == command.user_id:
        return refuse(command, Reason.OWN_CASE, at_ms)
    if file is None or file.submission_id != command.submission_id:
        return refuse(command, Reason.KYC_NOT_PENDING, at_ms)
    if _is_done(user, file, command):
        return ()
    if file.status is not KycStatus.PENDING:
        return refuse(command, Reason.KYC_NOT_PENDING, at_ms)
    if command.decision is KycDecision.APPROVE and not user.kyc_level < command.level <= file.level:
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    return (
        KycDecisionKept(
            user_id=command.user_id,
            decision=command.decision,
            note=command.note,
            actor_id=command.actor_id,
            at_ms=at_ms,
        ),
        _outcome(user, command, at_ms),
    )


def _is_done(user: User, file: KycFile, command: DecideKyc) -> bool:
    """The same officer said the same before."""
    if file.decided_by != command.actor_id:
        return False
    if command.decision is KycDecision.APPROVE:
        return file.status is KycStatus.VERIFIED and user.kyc_level == command.level
    return file.status is KycStatus.REJECTED


def _outcome(user: User, command: DecideKyc, at_ms: int) -> KycLevelSet | KycRejected:
    version = user.version + 1
    if command.decision is KycDecision.APPROVE:
        return KycLevelSet(user_id=user.user_id, level=command.level, version=version, at_ms=at_ms)
    return KycRejected(user_id=user.user_id, version=version, at_ms=at_ms)


def known(event: KycSubmitted | KycLevelSet | KycRejected) -> dict[str, Any]:
    """What the event says of the user's own row."""
    match event:
        case KycSubmitted():
            return {"kyc_status": KycStatus.PENDING}
        case KycLevelSet():
            return {"kyc_status": KycStatus.VERIFIED, "kyc_level": event.level}
        case KycRejected():
            return {"kyc_status": KycStatus.REJECTED}


def evolve(rows: Rows, event: Said) -> Changes:
    """What changes beside the user's own row."""
    match event:
        case KycDetailsKept():
            return {kyc_key(event.user_id): _filed(event)}
        case KycDecisionKept():
            file: KycFile = rows[kyc_key(event.user_id)]
            approved = event.decision is KycDecision.APPROVE
            decided = replace(
                file,
                status=KycStatus.VERIFIED if approved else KycStatus.REJECTED,
                note=event.note,
                decided_ms=event.at_ms,
                decided_by=event.actor_id,
            )
            return {kyc_key(event.user_id): decided}
        case KycSubmitted():
            waits = KycOpen(user_id=event.user_id, level=event.level, submitted_ms=event.at_ms)
            return {open_key(event.user_id): waits}
        case KycLevelSet() | KycRejected():
            return {open_key(event.user_id): None}


def _filed(event: KycDetailsKept) -> KycFile:
    return KycFile(
        user_id=event.user_id,
        level=event.level,
        details=event.details,
        submission_id=event.submission_id,
        status=KycStatus.PENDING,
        note="",
        submitted_ms=event.at_ms,
    )


def kyc_key(user_id: str) -> RowKey:
    return f"kyc/{user_id}"


def open_key(user_id: str) -> RowKey:
    return f"{OPEN}{user_id}"
