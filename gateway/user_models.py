"""Bodies of the user service's routes, and what they answer."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from gateway.answers import Account, Shown, Transaction, User
from gateway.models import Body, Email, Id, Name, Note, Password, Plain
from gateway.notification_models import Notification  # noqa: TC001 - pydantic reads it

PHONE = r"^(\+[1-9][0-9]{6,14})?$"
LANGUAGE = r"^([a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3})?$"
COUNTRY = re.compile(r"^[A-Z]{2}$")
OLDEST = date(1900, 1, 1)

Token = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=1024), Plain]


def _birth(text: str) -> str:
    try:
        born = date.fromisoformat(text)
    except ValueError as exc:
        raise PydanticCustomError("BAD_DATE", "is no date such as 1990-12-31") from exc
    if born.isoformat() != text:  # a week's day, for instance
        raise PydanticCustomError("BAD_DATE", "is no date such as 1990-12-31")
    if not born >= OLDEST:
        raise PydanticCustomError("BAD_DATE", "is before 1900")
    if born > datetime.now(UTC).date() + timedelta(days=1):  # it may be tomorrow where they are
        raise PydanticCustomError("BAD_DATE", "is in the future")
    return text


def _country(code: str) -> str:
    if not COUNTRY.fullmatch(code):
        raise PydanticCustomError("COUNTRY_UNKNOWN", "is no ISO 3166 code of two letters")
    return code


Day = Annotated[str, StringConstraints(min_length=10, max_length=10), AfterValidator(_birth)]
Country = Annotated[str, AfterValidator(_country)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), Plain]
Number = Annotated[str, StringConstraints(min_length=1, max_length=50), Plain]


class Profile(Body):
    """What is to change. For another e-mail: a login of a moment ago, or the password."""

    name: Name | None = None
    email: Email | None = None
    phone: Annotated[str, Field(pattern=PHONE, description="E.164; empty: none")] | None = None
    language: Annotated[str, Field(pattern=LANGUAGE, max_length=35)] | None = None
    current_password: Secret | None = None

    @model_validator(mode="after")
    def _fits(self) -> Profile:
        if not self.model_fields_set - {"current_password"}:
            raise PydanticCustomError("REQUIRED", "names nothing to change")
        for member in sorted(self.model_fields_set):
            if getattr(self, member) is None:
                raise PydanticCustomError("NOT_ALLOWED", "is null", {"pointer": f"/{member}"})
        return self


class NewPassword(Body):
    current_password: Secret
    new_password: Password


class PasswordReset(Body):
    """`email`: mail a token to it. `token` and `new_password`: what the mail said, and the new one."""

    email: Annotated[str, StringConstraints(min_length=1, max_length=254), Plain] | None = None
    token: Token | None = None
    new_password: Password | None = None

    @model_validator(mode="after")
    def _fits(self) -> PasswordReset:
        asks, does = self.email is not None, self.token is not None
        if asks == does:
            detail = "is needed, or token and new_password; not both"
            raise PydanticCustomError("REQUIRED", detail, {"pointer": "/email"})
        if does != (self.new_password is not None):
            raise PydanticCustomError(
                "REQUIRED", "goes with the token", {"pointer": "/new_password"}
            )
        return self


class EmailToken(Body):
    """The token that a mail brought; without one the mail is sent again."""

    token: Token | None = None


class EndedSession(Body):
    """Which one; without `session_id` all, `others`: save the one that asks."""

    session_id: Id | None = None
    others: bool = False


class Document(Body):
    kind: Literal["passport", "id_card", "driving_licence"]
    number: Number
    country: Country


class PostalAddress(Body):
    street: Line
    postal_code: Annotated[str, StringConstraints(min_length=1, max_length=20), Plain]
    city: Line


class KycSubmission(Body):
    """Level 1: who one is. Level 2: shown by a document, and where one lives."""

    level: Annotated[int, Field(ge=1, le=2)] = 1
    full_name: Name
    date_of_birth: Day
    country: Country
    address: PostalAddress | None = None
    document: Document | None = None
    personal_number: Number | None = None

    @model_validator(mode="after")
    def _fits(self) -> KycSubmission:
        for member in ("document", "address") if self.level > 1 else ():
            if getattr(self, member) is None:
                raise PydanticCustomError(
                    "REQUIRED", "is needed for level 2", {"pointer": f"/{member}"}
                )
        return self


class KycDecided(Body):
    """`level`: what is given on approval, else what was asked for."""

    decision: Literal["approve", "reject"]
    level: Annotated[int, Field(ge=1, le=2)] | None = None
    submission_id: Id | None = None
    note: Note | None = None


# answers


class Session(Shown):
    session_id: str
    client: str | None = Field(description="User-Agent of who logged in")
    address: str | None = Field(description="from which they came")
    current: bool = Field(description="the one that asks")
    opened_at: str
    refreshed_at: str
    expires_at: str


class SessionItems(Shown):
    items: list[Session]
    next_cursor: None


class Ended(Shown):
    status: Literal["ended"]


class Kyc(Shown):
    user_id: str
    level: int = Field(description="what the bank gives the user now")
    status: Literal["unverified", "pending", "verified", "rejected"]
    submission_id: str | None
    requested_level: int | None
    details: dict[str, str] | None = Field(
        description="as submitted, when it is asked for; numbers in full to officers alone"
    )
    note: str | None
    submitted_at: str | None
    decided_at: str | None


class KycItem(Shown):
    user_id: str
    level: int = Field(description="what is asked for")
    submitted_at: str


class KycItems(Shown):
    items: list[KycItem]
    next_cursor: str | None


class Overview(Shown):
    """Each part as its own route answers it; null: it is down, and named in `unavailable`."""

    user_id: str
    profile: User | None
    permissions: list[str]
    accounts: list[Account] | None
    transactions: list[Transaction] | None
    notifications: list[Notification] | None
    unavailable: list[str]
