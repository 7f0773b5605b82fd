"""Payments: money that leaves through a provider's rail.

    AccountDebited (external) --> REQUESTED --RailAnswered--> PROCESSED | FAILED
                                      \\--tick: asked again until the rail's answer is known
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RailOutcome(StrEnum):
    """What one attempt at the rail came to; UNKNOWN is asked again, never guessed."""

    APPROVED = "approved"
    DECLINED = "declined"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RailAnswered:
    """The result of asking the rail, said by `perform` into the payment inbox."""

    transaction_id: str
    payment_id: str
    attempt: int
    outcome: RailOutcome
    provider_reference: str
    detail: str
