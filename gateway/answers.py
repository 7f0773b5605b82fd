"""What the gateway answers, as the OpenAPI document describes it. Tests hold real answers to it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.saga import TransactionType


class Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FieldProblem(Shown):
    pointer: str = Field(description="JSON pointer (RFC 6901) into the body")
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457. Some problems name the resource too, such as `transaction_id`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="stable; the list stands in this document")
    trace_id: str
    errors: list[FieldProblem] | None = None


class Accepted(BaseModel):
    """The command is with the broker. The id of the resource stands beside `status`."""

    status: Literal["pending"]


class Tokens(Shown):
    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"]
    expires_in: int = Field(description="seconds")
    user_id: str


class KnownAs(Shown):
    level: int = Field(description="0 unverified, 1 basic, 2 full")
    status: Literal["unverified", "pending", "verified", "rejected"]


class User(Shown):
    user_id: str
    email: str
    name: str
    roles: list[str]
    email_confirmed: bool
    phone: str | None
    language: str | None
    kyc: KnownAs
    version: int
    created_at: str
    updated_at: str


class TableRow(Shown):
    table: str
    key: str
    at: str | None = Field(description="as of then; null: now")
    row: dict[str, Any] = Field(description="as the service keeps it: see docs/tables.md")


class QueryColumn(Shown):
    name: str
    type: str = Field(description="DuckDB's")


class QueryResult(Shown):
    columns: list[QueryColumn]
    rows: list[list[Any]] = Field(description="integers beyond 64 bits and decimals are text")
    truncated: bool = Field(description="there were more rows than are shown")


class AccountBalance(Shown):
    currency: str
    amount: int = Field(description="minor units")
    available: int
    held: int
    overdraft_limit: int


class Account(Shown):
    account_id: str
    user_id: str
    name: str
    status: Literal["open", "frozen", "closed", "archived"]
    balances: list[AccountBalance]
    version: int
    created_at: str
    updated_at: str


class MovedBalance(Shown):
    account_id: str
    currency: str
    before: int
    after: int


class Transaction(Shown):
    transaction_id: str
    type: Literal[tuple(kind.value for kind in TransactionType)]  # type: ignore[valid-type]
    status: Literal["pending", "completed", "failed", "cancelled"]
    reason: str | None
    amount: int
    currency: str
    source_account_id: str | None
    destination_account_id: str | None
    destination_currency: str | None = Field(description="of an exchange")
    destination_amount: int | None = Field(description="minor units of it, once the rate is fixed")
    rate: str | None = Field(description="decimal: units of it for one of `currency`")
    quote_id: str | None
    description: str | None
    reference: str | None
    metadata: dict[str, str]
    fee: int = Field(description="minor units, beside the amount; negative: given back")
    original_transaction_id: str | None = Field(description="what it undoes")
    review_id: str | None
    balances: list[MovedBalance] = Field(description="of accounts that the caller may see")
    version: int
    created_at: str
    completed_at: str | None


class Rehearsed(Shown):
    """What would become of an order, as far as it is known now."""

    dry_run: Literal[True]
    type: Literal[tuple(kind.value for kind in TransactionType)]  # type: ignore[valid-type]
    status: Literal["completed", "failed", "pending"] = Field(
        description="pending: a person would have to decide"
    )
    reason: str | None
    amount: int
    currency: str
    fee: int
    source_account_id: str | None
    destination_account_id: str | None
    original_transaction_id: str | None
    balances: list[MovedBalance]


class BulkResult(Shown):
    """Of one order; `code`, `detail` and `errors` where it was refused, or is not known."""

    index: int
    idempotency_key: str | None
    status: Literal["pending", "completed", "failed", "cancelled", "refused", "unknown"] = Field(
        description="refused: not accepted; unknown: repeat it with the same key"
    )
    transaction_id: str | None
    code: str | None
    detail: str | None
    errors: list[FieldProblem] | None


class BulkResults(Shown):
    items: list[BulkResult] = Field(description="one for each order, in the orders' order")


class PriceShown(Shown):
    type: str
    currency: str
    flat: int = Field(description="minor units, of every order")
    rate_ppm: int = Field(description="parts per million of the amount, rounded half to even")
    minimum: int
    maximum: int | None


class PriceList(Shown):
    prices: list[PriceShown]
    version: int = Field(description="0: none was ever set")
    updated_at: str | None
    updated_by: str | None


class TraceStep(Shown):
    step: str
    service: str
    outcome: str
    at: str


class Trace(Shown):
    transaction_id: str
    steps: list[TraceStep]


class Review(Shown):
    review_id: str
    transaction_id: str
    user_id: str
    status: Literal["open", "approved", "declined", "withdrawn"]
    score: int
    rules: list[str]
    type: str
    amount: int
    currency: str
    source_account_id: str | None
    destination_account_id: str | None
    note: str | None
    decided_by: str | None
    version: int
    created_at: str
    decided_at: str | None


class Blacklisted(Shown):
    kind: Literal["user", "account", "iban", "address", "country"]
    value: str
    note: str | None
    listed: bool = Field(description="by itself; else because of its owner")
    owner_id: str | None = Field(description="the blacklisted user whose account it is")
    added_at: str


class Removed(Shown):
    kind: str
    value: str
    removed: bool


class Entry(Shown):
    entry_id: str
    transaction_id: str
    account_id: str
    amount: int = Field(description="minor units that were added; negative: taken")
    currency: str
    balance: int | None = Field(description="after it, in this currency")
    at: str


class Entries(Shown):
    items: list[Entry]
    next_cursor: str | None


class Users(Shown):
    items: list[User]
    next_cursor: str | None


class Transactions(Shown):
    items: list[Transaction]
    next_cursor: str | None


class Accounts(Shown):
    items: list[Account]
    next_cursor: str | None


class Reviews(Shown):
    items: list[Review]
    next_cursor: str | None


class Blacklist(Shown):
    items: list[Blacklisted]
    next_cursor: str | None
