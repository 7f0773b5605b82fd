"""Bodies and answers of risk: entries of the blacklist, an order to score, the configuration."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from domain.blacklist import BlacklistKind
from domain.money import LONG_MAX
from domain.risk_config import DEFAULT, LEVELS, MILLION, RiskConfig
from gateway.answers import Shown
from gateway.client import listed_address
from gateway.models import Amount, Body, Id, NewTransaction, Note

COUNTRY = re.compile(r"[A-Z]{2}")
IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
HASH = re.compile(r"[0-9a-f]{64}")
KINDS = tuple(kind.value for kind in BlacklistKind)


class BlacklistRemoval(Body):
    kind: Literal[KINDS]  # type: ignore[valid-type]
    value: Id

    @model_validator(mode="after")
    def _is_its_kind(self) -> BlacklistRemoval:
        if written(self.kind, self.value) is None:
            raise PydanticCustomError(
                "BAD_FORMAT", f"is no {self.kind} that can be listed", {"pointer": "/value"}
            )
        return self

    @property
    def listed(self) -> str:
        """The value as the blacklist writes it."""
        return written(self.kind, self.value) or self.value


class BlacklistEntry(BlacklistRemoval):
    note: Note | None = None


def is_hash(value: str) -> bool:
    """What an IBAN is listed by."""
    return HASH.fullmatch(value) is not None


def written(kind: str, value: str) -> str | None:
    """One way to write each thing; None for what is no such thing."""
    match BlacklistKind(kind):
        case BlacklistKind.USER | BlacklistKind.ACCOUNT:
            return None if "/" in value else value
        case BlacklistKind.IBAN:
            iban = value.replace(" ", "").upper()
            return value if is_hash(value) else iban if IBAN.fullmatch(iban) else None
        case BlacklistKind.ADDRESS:
            return listed_address(value)
        case BlacklistKind.COUNTRY:
            return value if COUNTRY.fullmatch(value) else None


class OrderToScore(NewTransaction):
    """An order, as it would be given, and what the gateway would know of its client."""

    privileged: Annotated[
        bool, Field(description="as an operator, a service or an admin would order it")
    ] = False
    address: Annotated[str, StringConstraints(max_length=45)] | None = None
    iban: Annotated[str, StringConstraints(max_length=42)] | None = None
    country: Annotated[str, StringConstraints(max_length=2)] | None = None

    @field_validator("iban", "address", "country")
    @classmethod
    def _is_one(cls, value: str | None, info: Any) -> str | None:
        if value is None:
            return None
        found = written(info.field_name, value)
        if found is None:
            raise PydanticCustomError("BAD_FORMAT", f"is no {info.field_name}")
        return found


class LevelLimits(Body):
    transaction: Amount
    day: Amount
    review: Amount


_numbers: dict[str, Any] = {
    each.name: (
        Annotated[int, Field(ge=0, le=MILLION)],
        getattr(DEFAULT, each.name),
    )
    for each in fields(RiskConfig)
    if each.name != "levels"
}
_levels = [
    LevelLimits(transaction=level.transaction_minor, day=level.day_minor, review=level.review_minor)
    for level in DEFAULT.levels
]


_members: dict[str, Any] = {
    "levels": (
        Annotated[
            list[LevelLimits],
            Field(min_length=LEVELS, max_length=LEVELS, description="of KYC levels 0, 1 and 2"),
        ],
        _levels,
    ),
    "version": (
        Annotated[
            int | None,
            Field(ge=0, le=LONG_MAX, description="of the configuration that this replaces"),
        ],
        None,
    ),
    **_numbers,
}
NewRiskConfig: Any = create_model("NewRiskConfig", __base__=Body, **_members)
NewRiskConfig.__doc__ = "All that the rules obey; what is not named is as in the beginning."


# answers


_shown: dict[str, Any] = {
    "levels": (list[LevelLimits], ...),
    "version": (Annotated[int, Field(description="0: nobody set one")], ...),
    "updated_at": (str | None, ...),
    "updated_by": (str | None, ...),
    **dict.fromkeys(_numbers, (int, ...)),
}
RiskConfigShown: Any = create_model("RiskConfigShown", __base__=Shown, **_shown)


class RuleShown(Shown):
    rule: str
    points: int
    reason: str


class LimitsShown(Shown):
    transaction: int
    day: int
    day_left: int
    review: int


class Scored(Shown):
    user_id: str = Field(description="whose money it is")
    score: int = Field(description="0 to 100")
    decision: Literal["approve", "review", "decline"]
    reason: str | None = Field(description="why it would be declined")
    rules: list[RuleShown] = Field(description="what spoke against it")
    features: dict[str, int] = Field(description="in thousandths: see docs/risk.md")
    anomaly: int = Field(description="the model's word, 0 to 100")
    model: str
    level: int = Field(description="KYC level of the user")
    limits: LimitsShown = Field(description="minor units, for this user and currency today")
    config_version: int
