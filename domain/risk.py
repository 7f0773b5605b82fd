"""Risk: a score from a list of rules, and a decision, before money moves.

TransactionCreated --score--> RiskApproved | RiskDeclined | ReviewRequested --DecideReview--> ...
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.decider import RowKey
from domain.saga import Order, Reason, Step


class BlacklistKind(StrEnum):
    USER = "user"
    ACCOUNT = "account"


class ReviewStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"  # the transaction ended first


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
    status: ReviewStatus
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresForgotten:
    """Scores, their list entries and reviews left the table: the due rows that said so."""

    due: tuple[RowKey, ...]
    at_ms: int


class ScoreState(StrEnum):
    """What a transaction's score led to."""

    APPROVED = "approved"
    DECLINED = "declined"
    IN_REVIEW = "in_review"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Row `score/<transaction_id>`: decided once, and what it reserved of the daily limit."""

    owner_id: str
    number: int  # of its entry in the owner's list
    state: ScoreState
    day: int  # of creation, see bank_day
    currency: str
    reserved_minor: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Row `owner/<user_id>`. The owner's transactions are rows `listed/<user_id>/<0 … listed - 1>`."""

    user_id: str
    listed: int
    minute: int  # of the last order, minutes since 1970
    orders: int  # in that minute
    reserved: dict[str, int]  # minor units by `<day>/<currency>`, of the last days alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTransaction:
    """Row `listed/<owner_id>/<number>`."""

    transaction_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Row `review/<review_id>`: a person's task, then its outcome."""

    review_id: str
    order: Order
    score: int
    rules: tuple[str, ...]
    steps: tuple[Step, ...]
    status: ReviewStatus
    actor_id: str | None
    note: str
    version: int
    created_ms: int
    updated_ms: int
    decided_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blacklisted:
    """Row `blacklist/<kind>/<value>`, in each partition."""

    kind: BlacklistKind
    value: str
    note: str
    at_ms: int
