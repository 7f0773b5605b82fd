"""Bodies and answers of suspense."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gateway.answers import Shown
from gateway.models import Amount, Body, Currency, Id, Note


class Resolution(Body):
    """What becomes of all of it. `amount` and `currency` are those that the item shows."""

    action: Literal["pay", "return", "recover", "write_off"] = Field(
        description="a credit: pay, write_off; a debit: return, to its source; a loss: recover, write_off"
    )
    amount: Amount
    currency: Currency
    account_id: Id | None = Field(
        default=None,
        description="of pay: whom, in the same currency; without it the account that the credit was for",
    )
    note: Note | None = None

    @model_validator(mode="after")
    def _fits(self) -> Resolution:
        if self.account_id is not None and self.action != "pay":
            raise PydanticCustomError(
                "NOT_ALLOWED", "is for what is paid", {"pointer": "/account_id"}
            )
        return self


class Suspended(Shown):
    suspense_id: str
    kind: Literal["credit", "debit", "loss"]
    status: Literal["open", "paying", "paid", "returned", "recovered", "written_off"]
    amount: int = Field(description="minor units; of a loss: what the provider owes")
    currency: str
    account_id: str = Field(description="that it came from")
    user_id: str = Field(description="the owner of the money")
    transaction_id: str
    reason: str = Field(description="why it could not stay, or go on")
    action: str | None = Field(description="what is tried, or settled it")
    to_account_id: str | None = Field(description="that is to be credited, or was")
    refusal: str | None = Field(description="why the last account did not take it")
    resolution_id: str | None
    resolved_by: str | None = Field(description="user_id of whose word it was")
    note: str | None
    version: int
    created_at: str
    updated_at: str


class SuspendedItems(Shown):
    items: list[Suspended]
    next_cursor: str | None
