"""Bodies and answers of holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from domain.holds import HOLD_LIMIT_S
from gateway.answers import Shown
from gateway.models import Amount, Body, Currency, Id, Plain

WEEK_S = 7 * 24 * 3600


class NewHold(Body):
    account_id: Id
    amount: Amount
    currency: Currency
    destination_account_id: Id | None = Field(
        default=None,
        description="who gets what is captured; without it, it leaves as a withdrawal does",
    )
    expires_in: int = Field(
        default=WEEK_S, ge=1, le=HOLD_LIMIT_S, description="seconds; a week if not said"
    )
    description: Annotated[str, StringConstraints(max_length=500), Plain] | None = None
    reference: Annotated[str, StringConstraints(max_length=140), Plain] | None = None

    @model_validator(mode="after")
    def _fits(self) -> NewHold:
        if self.account_id == self.destination_account_id:
            raise PydanticCustomError(
                "SAME_ACCOUNT",
                "is the account that the money is held on",
                {"pointer": "/destination_account_id"},
            )
        return self


class Capture(Body):
    """Take all that is held, or `amount` of it; the rest is free again."""

    amount: Amount | None = None


class Hold(Shown):
    hold_id: str
    account_id: str
    destination_account_id: str | None
    amount: int = Field(description="minor units that were held")
    captured_amount: int = Field(description="minor units of it that were taken")
    currency: str
    status: Literal["open", "captured", "voided", "expired", "returned", "refused"]
    reason: str | None = Field(description="of a refusal")
    transaction_id: str | None = Field(description="of the capture")
    description: str | None
    reference: str | None
    version: int
    created_at: str
    updated_at: str
    expires_at: str
