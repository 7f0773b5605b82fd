"""Bodies at the edge: what a client may send, checked before anything else looks at it.

Nothing is converted: a number is a JSON integer, a text a JSON string. Unknown members are refused.
The models are the JSON schemas of the OpenAPI document too.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from domain.money import AMOUNT_LIMIT_MINOR, is_currency
from domain.prices import MILLION, PRICED, PRICES_LIMIT
from domain.user import Role
from gateway.errors import FieldError, Problem

DEPTH_LIMIT = 32
BULK_LIMIT = 1_000  # orders of one request
# pydantic's error types -> our stable codes; what is not here is INVALID
ERROR_CODES = {
    "missing": "REQUIRED",
    "extra_forbidden": "UNKNOWN_FIELD",
    "int_type": "NOT_AN_INTEGER",
    "int_from_float": "NOT_AN_INTEGER",
    "string_type": "NOT_A_STRING",
    "bool_type": "NOT_A_BOOLEAN",
    "list_type": "NOT_A_LIST",
    "dict_type": "NOT_AN_OBJECT",
    "model_type": "NOT_AN_OBJECT",
    "model_attributes_type": "NOT_AN_OBJECT",
    "greater_than_equal": "TOO_SMALL",
    "greater_than": "TOO_SMALL",
    "less_than_equal": "TOO_LARGE",
    "string_too_short": "TOO_SHORT",
    "string_too_long": "TOO_LONG",
    "too_short": "TOO_FEW",
    "too_long": "TOO_MANY",
    "literal_error": "UNKNOWN_VALUE",
    "enum": "UNKNOWN_VALUE",
    "string_pattern_mismatch": "BAD_FORMAT",
}
EMAIL = re.compile(r"^[^\s@<>()\[\],;:\\\"]{1,64}@[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])$")


def _plain(text: str) -> str:
    """No control characters, no half of a surrogate pair."""
    if not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise PydanticCustomError("CONTROL_CHARACTER", "has control characters")
    return text


def _currency(code: str) -> str:
    if not is_currency(code):
        raise PydanticCustomError("CURRENCY_UNKNOWN", "is no ISO 4217 code in upper case")
    return code


def _email(text: str) -> str:
    local, _, domain = text.partition("@")
    if not EMAIL.match(text) or "." not in domain or ".." in text or local[0] == ".":
        raise PydanticCustomError("BAD_EMAIL", "is no e-mail address")
    return text


Plain = AfterValidator(_plain)
Id = Annotated[str, StringConstraints(min_length=1, max_length=100), Plain]
Currency = Annotated[str, StringConstraints(max_length=3), AfterValidator(_currency)]
Amount = Annotated[int, Field(ge=1, le=AMOUNT_LIMIT_MINOR, description="in minor units")]
Limit = Annotated[int, Field(ge=0, le=AMOUNT_LIMIT_MINOR, description="in minor units")]
Email = Annotated[str, StringConstraints(max_length=254), Plain, AfterValidator(_email)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), Plain]
Password = Annotated[str, StringConstraints(min_length=8, max_length=256), Plain]
Note = Annotated[str, StringConstraints(max_length=500), Plain]
MetaKey = Annotated[str, StringConstraints(min_length=1, max_length=50), Plain]
MetaValue = Annotated[str, StringConstraints(max_length=500), Plain]


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Empty(Body):
    """Nothing: no body, or an empty object."""


class Registration(Body):
    email: Email
    password: Password
    name: Name


class Login(Body):
    email: Annotated[str, StringConstraints(min_length=1, max_length=254), Plain]
    password: Annotated[str, StringConstraints(min_length=1, max_length=1024), Plain]


class RefreshToken(Body):
    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Logout(Body):
    """The refresh token, the access token in Authorization, or both."""

    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None


class Roles(Body):
    roles: Annotated[
        list[Literal[tuple(role.value for role in Role)]],  # type: ignore[valid-type]
        Field(min_length=1, max_length=len(Role)),
    ]


class NewAccount(Body):
    currencies: Annotated[list[Currency], Field(min_length=1, max_length=50)]
    name: Annotated[str, StringConstraints(max_length=140), Plain] | None = None
    user_id: Id | None = None
    overdraft_limits: dict[Currency, Limit] | None = None

    @model_validator(mode="after")
    def _fits(self) -> NewAccount:
        if len(set(self.currencies)) != len(self.currencies):
            raise PydanticCustomError(
                "DUPLICATE_CURRENCY", "names a currency twice", {"pointer": "/currencies"}
            )
        if not set(self.overdraft_limits or {}) <= set(self.currencies):
            raise PydanticCustomError(
                "CURRENCY_NOT_HELD",
                "has a limit in a currency that the account does not hold",
                {"pointer": "/overdraft_limits"},
            )
        return self


class NewTransaction(Body):
    type: Literal["transfer", "deposit", "withdrawal", "payment", "exchange"]
    amount: Amount
    currency: Currency
    dry_run: Annotated[bool, Field(description="tell what would happen, and do nothing")] = False
    source_account_id: Id | None = None
    destination_account_id: Id | None = None
    destination_currency: Currency | None = None
    quote_id: Id | None = None
    payment_method_id: Annotated[
        Id | None, Field(description="of a withdrawal: the IBAN it is paid out to")
    ] = None
    description: Annotated[str, StringConstraints(max_length=500), Plain] | None = None
    reference: Annotated[str, StringConstraints(max_length=140), Plain] | None = None
    metadata: Annotated[dict[MetaKey, MetaValue], Field(max_length=50)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> NewTransaction:
        for member, wanted in (
            ("source_account_id", self.type != "deposit"),
            ("destination_account_id", self.type not in ("withdrawal", "exchange")),
            ("destination_currency", self.type == "exchange"),
        ):
            given = getattr(self, member) is not None
            if wanted and not given:
                raise PydanticCustomError(
                    "REQUIRED", f"is needed for a {self.type}", {"pointer": f"/{member}"}
                )
            optional = self.type == "exchange" and member == "destination_account_id"
            if given and not (wanted or optional):
                raise PydanticCustomError(
                    "NOT_ALLOWED", f"has no place in a {self.type}", {"pointer": f"/{member}"}
                )
        if self.payment_method_id is not None and self.type != "withdrawal":
            raise PydanticCustomError(
                "NOT_ALLOWED",
                f"has no place in a {self.type}",
                {"pointer": "/payment_method_id"},
            )
        if self.quote_id is not None and self.type != "exchange":
            raise PydanticCustomError(
                "NOT_ALLOWED", f"has no place in a {self.type}", {"pointer": "/quote_id"}
            )
        if self.destination_currency == self.currency:
            raise PydanticCustomError(
                "SAME_CURRENCY",
                "is the currency of the source too",
                {"pointer": "/destination_currency"},
            )
        if self.source_account_id == self.destination_account_id and self.type != "exchange":
            raise PydanticCustomError(
                "SAME_ACCOUNT",
                "is the source account too",
                {"pointer": "/destination_account_id"},
            )
        return self


class Undoing(Body):
    """What is said of a reversal or a refund; amount and accounts are the original's."""

    dry_run: Annotated[bool, Field(description="tell what would happen, and do nothing")] = False
    description: Annotated[str, StringConstraints(max_length=500), Plain] | None = None
    reference: Annotated[str, StringConstraints(max_length=140), Plain] | None = None
    metadata: Annotated[dict[MetaKey, MetaValue], Field(max_length=50)] | None = None


class BulkItem(NewTransaction):
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Bulk(RootModel[Any]):
    """Orders, each judged by itself."""

    model_config = ConfigDict(strict=True, frozen=True)
    root: Annotated[
        list[Any],
        Field(min_length=1, max_length=BULK_LIMIT),
        WithJsonSchema(
            {
                "type": "array",
                "minItems": 1,
                "maxItems": BULK_LIMIT,
                "items": BulkItem.model_json_schema(),
            }
        ),
    ]


class NewPrice(Body):
    type: Literal[tuple(kind.value for kind in PRICED)]  # type: ignore[valid-type]
    currency: Currency
    flat: Limit = 0
    rate_ppm: Annotated[int, Field(ge=0, le=MILLION, description="parts per million")] = 0
    minimum: Limit = 0
    maximum: Limit | None = None


class NewPriceList(Body):
    """The whole list: what is not in it costs nothing."""

    prices: Annotated[list[NewPrice], Field(max_length=PRICES_LIMIT)]

    @model_validator(mode="after")
    def _fits(self) -> NewPriceList:
        seen = set()
        for at, price in enumerate(self.prices):
            if (price.type, price.currency) in seen:
                where = {"pointer": f"/prices/{at}"}
                raise PydanticCustomError("DUPLICATE_PRICE", "has its price already", where)
            if price.maximum is not None and price.minimum > price.maximum:
                where = {"pointer": f"/prices/{at}/maximum"}
                raise PydanticCustomError("TOO_SMALL", "is below the minimum", where)
            seen.add((price.type, price.currency))
        return self


class ReviewDecision(Body):
    decision: Literal["approve", "decline"]
    note: Note | None = None


class SqlQuery(Body):
    sql: Annotated[str, Field(min_length=1, max_length=20_000)]
    at: Annotated[str, Field(max_length=60)] | None = None


class _Duplicate(Exception):
    pass


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Duplicate(next(name for name in names if names.count(name) > 1))
    return members


_decoder = json.JSONDecoder(object_pairs_hook=_members)


def parsed(data: bytes) -> Any:
    """The JSON in a body. 400 for what is none, and for a member's name that appears twice.

    NaN and infinities, which JSON does not have but many writers write, come back as floats: the
    models refuse them with the member's name.
    """
    try:
        return _decoder.decode(data.decode())
    except _Duplicate as exc:
        shown = str(exc)[:60].encode("ascii", "backslashreplace").decode()
        raise Problem("DUPLICATE_MEMBER", f"the member {shown!r} appears twice") from exc
    except UnicodeDecodeError as exc:
        raise Problem("MALFORMED_JSON", "the body is not UTF-8") from exc
    except json.JSONDecodeError as exc:
        raise Problem("MALFORMED_JSON", f"at character {exc.pos}: {exc.msg}") from exc
    except (
        RecursionError,
        ValueError,
    ) as exc:  # nested too deep; an integer of thousands of digits
        raise Problem("MALFORMED_JSON", "the body is nested too deep or has huge numbers") from exc


def parsed_lines(data: bytes) -> list[Any]:
    """The JSON in each line (NDJSON); a line that is none becomes its Problem. Blank ones don't count."""
    return [_parsed_line(line) for line in data.split(b"\n") if line.strip()]


def _parsed_line(line: bytes) -> Any:
    try:
        return parsed(line)
    except Problem as problem:
        return problem


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], value: Any) -> Model:
    """The body as a model. 422 with a pointer to each thing that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        errors = [_field_error(error) for error in exc.errors(include_url=False)]
        raise Problem("INVALID_BODY", _summary(errors), errors=errors[:50]) from exc


def _field_error(error: Any) -> FieldError:
    where = error.get("ctx", {}).get("pointer") if isinstance(error.get("ctx"), dict) else None
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    pointer = where or "".join(
        "/" + part.replace("~", "~0").replace("/", "~1")[:100] for part in parts
    )
    kind = error["type"]
    code = kind if kind.isupper() else ERROR_CODES.get(kind, "INVALID")
    return FieldError(pointer=_safe(pointer), code=code, detail=error["msg"][:200])


def _safe(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text


def _summary(errors: list[FieldError]) -> str:
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"{first.pointer or 'the body'}: {first.detail}{more}"
