"""Rates and quotes: what a client may send, and what it is answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from domain.currency import AGE_LIMIT_S
from domain.exchange import MILLION, is_rate
from gateway.answers import Shown
from gateway.models import Amount, Body, Currency


def _rate(text: str) -> str:
    if not is_rate(text):
        raise PydanticCustomError(
            "BAD_RATE", "is no decimal text above zero, of 12 digits before the point and 15 behind"
        )
    return text


RateText = Annotated[
    str,
    StringConstraints(max_length=28),
    AfterValidator(_rate),
    Field(description="decimal, such as 1.0845", examples=["1.0845"]),
]


class NewRates(Body):
    """Units of other currencies for one of `base`: one as `quote` and `rate`, or several as `rates`."""

    base: Currency
    rates: Annotated[dict[Currency, RateText], Field(min_length=1, max_length=200)] | None = None
    quote: Currency | None = None
    rate: RateText | None = None
    spread_ppm: Annotated[int, Field(ge=0, lt=MILLION)] | None = Field(
        default=None, description="parts per million that customers get less; else the setting's"
    )
    max_age_s: Annotated[int, Field(ge=1, le=AGE_LIMIT_S)] | None = Field(
        default=None, description="seconds for which they are good; else the setting's"
    )

    @property
    def given(self) -> dict[str, str]:
        if self.rates is not None:
            return self.rates
        assert self.quote is not None
        assert self.rate is not None
        return {self.quote: self.rate}

    @model_validator(mode="after")
    def _fits(self) -> NewRates:
        for member in ("quote", "rate"):
            there = getattr(self, member) is not None
            if there and self.rates is not None:
                raise PydanticCustomError(
                    "NOT_ALLOWED", "has no place beside rates", {"pointer": f"/{member}"}
                )
            if not there and self.rates is None:
                raise PydanticCustomError(
                    "REQUIRED", "is needed, or rates", {"pointer": f"/{member}"}
                )
        if self.base in self.given:
            where = "/rates" if self.rates else "/quote"
            raise PydanticCustomError("SAME_CURRENCY", "is the base", {"pointer": where})
        return self


class NewQuote(Body):
    """The members of an exchange: without `amount` the quote serves any amount."""

    currency: Currency
    destination_currency: Currency
    amount: Amount | None = None

    @model_validator(mode="after")
    def _fits(self) -> NewQuote:
        if self.currency == self.destination_currency:
            raise PydanticCustomError(
                "SAME_CURRENCY",
                "is the currency of the source too",
                {"pointer": "/destination_currency"},
            )
        return self


class Rate(Shown):
    base: str
    quote: str
    rate: str = Field(description="decimal, of the market: units of `quote` for one of `base`")
    customer_rate: str = Field(description="what an exchange gets: the spread is taken off")
    spread_ppm: int
    as_of: str = Field(description="of its source; of a cross the older one")
    valid_until: str = Field(description="beyond it nothing is exchanged at it")
    stale: bool = Field(description="that time is over")
    set_at: str
    version: int = Field(description="counts what was set")


class Rates(Shown):
    base: str
    items: list[Rate]
    next_cursor: str | None


class Quote(Shown):
    quote_id: str
    user_id: str
    currency: str
    destination_currency: str
    amount: int | None = Field(description="minor units; null: any amount")
    destination_amount: int | None = Field(description="minor units that `amount` comes to")
    rate: str = Field(description="decimal: units of destination_currency for one of currency")
    market_rate: str
    spread_ppm: int
    status: str = Field(description="open or used; open beyond expires_at it is of no use")
    transaction_id: str | None = Field(description="of the exchange that used it")
    expires_at: str
    version: int
    created_at: str
