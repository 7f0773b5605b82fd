"""Bodies and answers of payments, their methods, refunds and statements.

A number of a card or an IBAN is looked at here and handed to the provider; nothing that is wrong
with one repeats it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from schwifty import IBAN
from schwifty.exceptions import SchwiftyException

from gateway.answers import Shown
from gateway.models import Amount, Body, Currency, Id, MetaKey, MetaValue, Name, Plain

BRANDS = (  # prefixes of a card's number, and its lengths
    ("amex", ("34", "37"), {15}),
    ("visa", ("4",), {13, 16, 19}),
    ("mastercard", ("51", "52", "53", "54", "55", "22", "23", "24", "25", "26", "27"), {16}),
    ("discover", ("6011", "65"), {16, 19}),
    ("jcb", ("35",), {16, 19}),
    ("diners", ("36", "38", "39", "30"), {14, 16, 19}),
    ("maestro", ("50", "56", "57", "58", "6"), set(range(12, 20))),
)


def brand_of(number: str) -> str:
    """The brand of a card; `other` for one that none of the known begins like."""
    for brand, prefixes, lengths in BRANDS:
        if number.startswith(prefixes) and len(number) in lengths:
            return brand
    return "other"


def passes_luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    digits = [int(digit) for digit in reversed(number)]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _card(text: str) -> str:
    number = text.replace(" ", "").replace("-", "")
    if not (number.isascii() and number.isdecimal() and 12 <= len(number) <= 19):
        raise PydanticCustomError("BAD_CARD_NUMBER", "is no card number of 12 to 19 digits")
    if not passes_luhn(number):
        raise PydanticCustomError("BAD_CARD_NUMBER", "has a check digit that does not fit")
    return number


def _iban(text: str) -> str:
    try:
        return str(IBAN(text).compact)
    except SchwiftyException as exc:
        raise PydanticCustomError("BAD_IBAN", "is no IBAN that can be paid to") from exc


def bank_of(iban: str) -> tuple[str, str]:
    """Country and name of the bank; the name is empty where nobody knows it."""
    known = IBAN(iban)
    return str(known.country_code), str(known.bank_name or "")


class NewPaymentMethod(Body):
    """A card, or an IBAN. Neither number is kept."""

    type: Literal["card", "iban"]
    number: Annotated[str, StringConstraints(max_length=40), AfterValidator(_card)] | None = Field(
        default=None, description="of a card"
    )
    exp_month: Annotated[int, Field(ge=1, le=12)] | None = None
    exp_year: Annotated[int, Field(ge=2000, le=2099)] | None = None
    cvc: Annotated[str, StringConstraints(pattern=r"^[0-9]{3,4}$")] | None = Field(
        default=None, description="handed to the provider once, kept by nobody"
    )
    iban: Annotated[str, StringConstraints(max_length=50), AfterValidator(_iban)] | None = None
    name: Name | None = Field(default=None, description="whose name stands on it")
    user_id: Id | None = Field(default=None, description="for operators: whose it is")

    @model_validator(mode="after")
    def _fits(self) -> NewPaymentMethod:
        card = ("number", "exp_month", "exp_year")
        wanted = card if self.type == "card" else ("iban",)
        unwanted = ("iban",) if self.type == "card" else (*card, "cvc")
        for name in wanted:
            if getattr(self, name) is None:
                raise PydanticCustomError(
                    "REQUIRED",
                    f"is needed for a method of type {self.type}",
                    {"pointer": f"/{name}"},
                )
        for name in unwanted:
            if getattr(self, name) is not None:
                raise PydanticCustomError(
                    "NOT_ALLOWED",
                    f"has no place in a method of type {self.type}",
                    {"pointer": f"/{name}"},
                )
        return self


class NewPayment(Body):
    amount: Amount
    currency: Currency
    payment_method_id: Id
    destination_account_id: Id
    description: Annotated[str, StringConstraints(max_length=500), Plain] | None = None
    reference: Annotated[str, StringConstraints(max_length=140), Plain] | None = None
    metadata: Annotated[dict[MetaKey, MetaValue], Field(max_length=50)] | None = None


class NewRefund(Body):
    amount: Amount | None = Field(default=None, description="all that is left, if it is not said")
    description: Annotated[str, StringConstraints(max_length=500), Plain] | None = None


class PaymentMethod(Shown):
    payment_method_id: str
    user_id: str
    type: Literal["card", "iban"]
    brand: str | None = Field(description="of a card")
    last4: str
    exp_month: int | None
    exp_year: int | None
    country: str | None = Field(description="of an IBAN")
    bank: str | None = Field(description="of an IBAN, where it is known")
    name: str | None
    fingerprint: str = Field(description="the same for the same number")
    version: int
    created_at: str


class PaymentMethods(Shown):
    items: list[PaymentMethod]
    next_cursor: str | None


class RemovedMethod(Shown):
    payment_method_id: str
    removed: bool


class Payment(Shown):
    payment_id: str
    transaction_id: str
    status: Literal["pending", "completed", "failed", "cancelled"]
    provider_status: str | None = Field(
        description="requested, processed, credited, failed, refund_requested, refunded or "
        "refund_failed; null: not asked yet"
    )
    reason: str | None
    amount: int
    currency: str
    captured: int
    refunding: int = Field(description="of that: reserved for refunds under way")
    refunded: int = Field(description="of that: given back")
    payment_method_id: str | None
    destination_account_id: str | None
    provider_reference: str | None
    description: str | None
    version: int
    created_at: str
    completed_at: str | None


class Refund(Shown):
    refund_id: str
    payment_id: str
    transaction_id: str
    status: Literal["pending", "completed", "failed", "cancelled"]
    reason: str | None
    amount: int
    currency: str
    description: str | None
    version: int
    created_at: str
    completed_at: str | None


class Break(Shown):
    kind: Literal["missing_here", "missing_there", "amount_differs"]
    end_to_end_id: str
    payment_id: str | None
    provider_reference: str | None
    ours: int | None = Field(description="minor units; above zero: in")
    theirs: int | None
    line: int | None = Field(description="of the file")


class Statement(Shown):
    statement_id: str
    provider: str
    day: str
    currency: str
    status: Literal["comparing", "reconciled"]
    lines: int
    total: int = Field(description="minor units, the sum of the lines")
    matched: int
    missing_here: int
    missing_there: int
    amount_differs: int
    breaks: list[Break]
    next_cursor: str | None = Field(description="where its breaks go on")
    version: int
    created_at: str


class Taken(Shown):
    """A notice was read."""

    notice_id: str
    taken: Literal[True]
