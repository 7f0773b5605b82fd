"""Bodies and answers of settlement."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from gateway.answers import Shown
from gateway.models import Body


def _day(text: str) -> str:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise PydanticCustomError("INVALID", "is no day, such as 2026-03-02")


class NewRun(Body):
    """Close the batches of this business day and of those before it."""

    day: Annotated[str, AfterValidator(_day)] | None = Field(
        default=None, description="YYYY-MM-DD; not said: the business day of now"
    )


class Run(Shown):
    run_id: str
    day: str
    status: Literal["pending", "completed"]
    closed: list[str] = Field(description="settlements that it closed")
    created_at: str


class _Settlement(Shown):
    settlement_id: str
    provider: str
    currency: str
    day: str = Field(description="a business day of TARGET")
    status: Literal["open", "closed", "reconciled", "broken"]
    items: int
    received: int = Field(description="minor units that came in, a sum")
    paid: int = Field(description="minor units that went out, as an amount")
    net: int = Field(description="to be transferred; above zero: the provider owes it")
    transfer_id: str = Field(description="EndToEndId of its transfer")
    closed_by: str | None = Field(description="user_id; clock: its day was over")
    run_id: str | None
    statement_id: str | None = Field(description="the last one held against it")
    break_count: int
    closes_at: str
    version: int
    created_at: str
    updated_at: str
    closed_at: str | None


class Settlements(Shown):
    items: list[_Settlement]
    next_cursor: str | None


class Break(Shown):
    kind: Literal["missing_there", "missing_here", "amount_differs", "twice"]
    end_to_end_id: str
    ours: int | None = Field(description="minor units; above zero: in")
    theirs: int | None
    line: int | None = Field(description="of the file")


class Settlement(_Settlement):
    breaks: list[Break]
    next_cursor: str | None = Field(description="where its breaks go on")


class Item(Shown):
    end_to_end_id: str
    payment_id: str
    amount: int = Field(description="minor units; above zero: the provider owes it")
    at: str


class Items(Shown):
    items: list[Item]
    next_cursor: str | None
