r"""Payment methods: what a provider may charge, or pay out to, without anybody knowing its number.

    (absent) --AddPaymentMethod--> ACTIVE --RemovePaymentMethod--> REMOVED

Kept are the provider's token, a keyed fingerprint, the brand or bank, the last four characters and
the expiry. A method lies in its user's partition, under an id that begins with the user's; an order
that names one comes here first to ask whether it may be used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from domain.decider import FORGET, KEEP_FINAL_MS, Changes, RowKey, Rows, due_row
from domain.saga import (
    AccountDebited,
    Order,
    PaymentMethodChecked,
    Reason,
    RiskApproved,
    charges,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

METHODS_LIMIT = 20  # active methods of one user
TOKEN_LIMIT = 200  # characters


class MethodKind(StrEnum):
    CARD = "card"  # is charged
    IBAN = "iban"  # is paid out to


class MethodStatus(StrEnum):
    ACTIVE = "active"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPaymentMethod:
    """Keep a method that the provider has made a token of. Arrives under `user_id`."""

    method_id: str  # <user_id>.<unique>
    user_id: str
    kind: MethodKind
    provider: str
    token: str
    fingerprint: str  # HMAC-SHA256 of the number, hex: the same card is recognised, not known
    brand: str  # of a card: visa …
    last_four: str
    expiry_month: int  # 1 … 12; 0: an IBAN has none
    expiry_year: int
    country: str  # ISO 3166 code of an IBAN
    bank: str  # of an IBAN, where it is known
    holder: str
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePaymentMethod:
    """Use a method no more. Arrives under `user_id`."""

    method_id: str
    user_id: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethodAdded:
    """The method can be used."""

    method_id: str
    user_id: str
    kind: MethodKind
    provider: str
    token: str
    fingerprint: str
    brand: str
    last_four: str
    expiry_month: int
    expiry_year: int
    country: str
    bank: str
    holder: str
    request_hash: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethodRemoved:
    """The method can be used no more."""

    method_id: str
    user_id: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethodCommandRefused:
    """A command on a payment method was refused; nothing changed."""

    method_id: str
    user_id: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethod:
    """Row `method/<method_id>`."""

    method_id: str
    user_id: str
    kind: MethodKind
    provider: str
    token: str
    fingerprint: str
    brand: str
    last_four: str
    expiry_month: int
    expiry_year: int
    country: str
    bank: str
    holder: str
    status: MethodStatus
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethods:
    """Row `methods/<user_id>`: the active ones, at most METHODS_LIMIT, the oldest first."""

    user_id: str
    method_ids: tuple[str, ...]


MethodCommand: TypeAlias = AddPaymentMethod | RemovePaymentMethod
MethodEvent: TypeAlias = PaymentMethodAdded | PaymentMethodRemoved | PaymentMethodCommandRefused


def add(
    rows: Rows, command: AddPaymentMethod, at_ms: int
) -> tuple[PaymentMethodAdded | PaymentMethodCommandRefused, ...]:
    known: PaymentMethod | None = rows.get(method_key(command.method_id))
    if known is not None and known.request_hash == command.request_hash:
        return ()
    if known is not None:
        return _refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if not _is_addable(command):
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    if command.kind is MethodKind.CARD and _is_over(
        command.expiry_year, command.expiry_month, at_ms
    ):
        return _refuse(command, Reason.PAYMENT_METHOD_EXPIRED, at_ms)
    listed: PaymentMethods | None = rows.get(methods_key(command.user_id))
    if listed is not None and len(listed.method_ids) >= METHODS_LIMIT:
        return _refuse(command, Reason.PAYMENT_METHOD_LIMIT, at_ms)
    return (
        PaymentMethodAdded(
            method_id=command.method_id,
            user_id=command.user_id,
            kind=command.kind,
            provider=command.provider,
            token=command.token,
            fingerprint=command.fingerprint,
            brand=command.brand,
            last_four=command.last_four,
            expiry_month=command.expiry_month,
            expiry_year=command.expiry_year,
            country=command.country,
            bank=command.bank,
            holder=command.holder,
            request_hash=command.request_hash,
            version=1,
            at_ms=at_ms,
        ),
    )


def _is_addable(command: AddPaymentMethod) -> bool:
    """What looks like a number where it has no place is let in by nobody."""
    card = command.kind is MethodKind.CARD
    return (
        bool(command.user_id)
        and owner_of(command.method_id) == command.user_id
        and 0 < len(command.token) <= TOKEN_LIMIT
        and len(command.last_four) == 4
        and (1 <= command.expiry_month <= 12 if card else command.expiry_month == 0)
    )


def remove(
    rows: Rows, command: RemovePaymentMethod, at_ms: int
) -> tuple[PaymentMethodRemoved | PaymentMethodCommandRefused, ...]:
    method: PaymentMethod | None = rows.get(method_key(command.method_id))
    if method is None or method.user_id != command.user_id:
        return _refuse(command, Reason.PAYMENT_METHOD_NOT_FOUND, at_ms)
    if method.status is MethodStatus.REMOVED:
        return ()
    return (
        PaymentMethodRemoved(
            method_id=method.method_id,
            user_id=method.user_id,
            version=method.version + 1,
            at_ms=at_ms,
        ),
    )


def check(
    rows: Rows, fact: RiskApproved | AccountDebited, at_ms: int
) -> tuple[PaymentMethodChecked, ...]:
    """Whether the order's method may be used now. Asked twice it is answered twice: who pays decides once."""
    order = fact.order
    method: PaymentMethod | None = rows.get(method_key(method_of(order)))
    reason = _unusable(method, order, at_ms)
    return (
        PaymentMethodChecked(
            order=order,
            reason=reason,
            method_token=method.token if method is not None and reason is None else "",
            balances=fact.balances if isinstance(fact, AccountDebited) else (),
            at_ms=at_ms,
            steps=fact.steps,
        ),
    )


def _unusable(method: PaymentMethod | None, order: Order, at_ms: int) -> Reason | None:
    if method is None or method.status is MethodStatus.REMOVED:
        return Reason.PAYMENT_METHOD_NOT_FOUND
    if method.user_id != order.owner_id:  # who shares the partition sees it, and may not use it
        return Reason.PAYMENT_METHOD_NOT_FOUND
    charged = charges(order)
    if (method.kind is MethodKind.CARD) is not charged:
        return Reason.PAYMENT_METHOD_UNSUITABLE
    if charged and _is_over(method.expiry_year, method.expiry_month, at_ms):
        return Reason.PAYMENT_METHOD_EXPIRED
    return None


def _is_over(year: int, month: int, at_ms: int) -> bool:
    """A card is good to the end of its month, UTC."""
    now = datetime.fromtimestamp(at_ms // 1000, UTC)
    return (year, month) < (now.year, now.month)


def _refuse(
    command: MethodCommand, reason: Reason, at_ms: int
) -> tuple[PaymentMethodCommandRefused, ...]:
    return (
        PaymentMethodCommandRefused(
            method_id=command.method_id,
            user_id=command.user_id,
            command=type(command).__name__,
            reason=reason,
            at_ms=at_ms,
        ),
    )


def added(rows: Rows, event: PaymentMethodAdded) -> Changes:
    listed: PaymentMethods | None = rows.get(methods_key(event.user_id))
    method_ids = (*(listed.method_ids if listed else ()), event.method_id)
    return {
        method_key(event.method_id): PaymentMethod(
            method_id=event.method_id,
            user_id=event.user_id,
            kind=event.kind,
            provider=event.provider,
            token=event.token,
            fingerprint=event.fingerprint,
            brand=event.brand,
            last_four=event.last_four,
            expiry_month=event.expiry_month,
            expiry_year=event.expiry_year,
            country=event.country,
            bank=event.bank,
            holder=event.holder,
            status=MethodStatus.ACTIVE,
            request_hash=event.request_hash,
            version=event.version,
            created_ms=event.at_ms,
            updated_ms=event.at_ms,
        ),
        methods_key(event.user_id): PaymentMethods(user_id=event.user_id, method_ids=method_ids),
    }


def removed(rows: Rows, event: PaymentMethodRemoved) -> Changes:
    key, list_key = method_key(event.method_id), methods_key(event.user_id)
    method: PaymentMethod = rows[key]
    listed: PaymentMethods = rows[list_key]
    method_ids = tuple(one for one in listed.method_ids if one != event.method_id)
    due, due_row_ = due_row(event.at_ms + KEEP_FINAL_MS, FORGET, key)
    return {
        key: replace(
            method, status=MethodStatus.REMOVED, version=event.version, updated_ms=event.at_ms
        ),
        list_key: replace(listed, method_ids=method_ids) if method_ids else None,
        due: due_row_,
    }


def method_of(order: Order) -> str:
    """The id of the method that the order names; empty: none."""
    return (order.terms.payment_method_id if order.terms else None) or ""


def owner_of(method_id: str) -> str:
    """The user in a method's id."""
    return method_id.rpartition(".")[0]


def method_key(method_id: str) -> RowKey:
    return f"method/{method_id}"


def methods_key(user_id: str) -> RowKey:
    return f"methods/{user_id}"


def method_keys(message: MethodCommand | MethodEvent) -> Sequence[RowKey]:
    return (method_key(message.method_id), methods_key(message.user_id))
