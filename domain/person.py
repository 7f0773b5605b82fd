"""A person as the user service keeps them: what its parts (`user`, `kyc`, `session`) share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from domain.saga import Reason

if TYPE_CHECKING:
    from domain.decider import RowKey


class Role(StrEnum):
    CUSTOMER = "customer"
    SUPPORT = "support"
    OPERATOR = "operator"
    COMPLIANCE = "compliance"
    ANALYST = "analyst"
    ADMIN = "admin"
    SERVICE = "service"


class KycStatus(StrEnum):
    """How the bank's look at who someone is stands; the level that it gave stands beside it."""

    UNVERIFIED = "unverified"
    PENDING = "pending"
    VERIFIED = "verified"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Row `user/<user_id>`."""

    user_id: str
    email: str
    name: str
    roles: tuple[Role, ...]
    version: int
    created_ms: int
    updated_ms: int
    kyc_level: int = 0  # 0 unverified, 1 basic, 2 full
    kyc_status: KycStatus = KycStatus.UNVERIFIED
    email_confirmed: bool = False
    phone: str = ""  # E.164; empty: none is known
    language: str = ""  # BCP 47, such as `en`; empty: the bank's own
    claim_id: str = ""  # by which the address was taken; empty: by registering


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCommandRefused:
    """A command on a user or an address was refused; nothing changed."""

    user_id: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


def refuse(command: Any, reason: Reason, at_ms: int) -> tuple[UserCommandRefused, ...]:
    """`command` is one of the user service's: it names a user_id."""
    kind = type(command).__name__
    return (UserCommandRefused(user_id=command.user_id, command=kind, reason=reason, at_ms=at_ms),)


def user_key(user_id: str) -> RowKey:
    return f"user/{user_id}"


def normalised(email: str) -> str:
    """The address that can be had once: an e-mail without regard to case."""
    return email.strip().lower()
