"""Risk: a score from a list of rules, and a decision, before money moves.

    TransactionCreated --score--> RiskApproved | RiskDeclined | ReviewRequested --DecideReview--> ...
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.saga import Reason


class BlacklistKind(StrEnum):
    USER = "user"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideReview:
    """A person's word on a review: approve or decline. `deadline_s` is the approved order's new deadline."""

    review_id: str  # <owner_id>.<transaction_id>
    approve: bool
    deadline_s: int
    actor_id: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToBlacklist:
    """Decline whatever this user or account takes part in. Arrives under `value`."""

    kind: BlacklistKind
    value: str
    note: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFromBlacklist:
    """Take an entry off the blacklist."""

    kind: BlacklistKind
    value: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlacklistEntryAdded:
    """An entry is on the blacklist; each risk partition hears it."""

    kind: BlacklistKind
    value: str
    note: str
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlacklistEntryRemoved:
    """An entry is off the blacklist; each risk partition hears it."""

    kind: BlacklistKind
    value: str
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlacklistApplied:
    """One risk partition knows of a change of the blacklist from here on."""

    kind: BlacklistKind
    value: str
    note: str
    present: bool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewDecided:
    """A person (or the clock) decided a review; the saga's own fact follows it."""

    review_id: str
    transaction_id: str
    approved: bool
    actor_id: str
    note: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskReleased:
    """The transaction moved nothing: what it reserved of the owner's daily limit is free again."""

    owner_id: str
    transaction_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskCommandRefused:
    """A command on a review was refused; nothing changed."""

    review_id: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int
