"""Users: one person, one e-mail address, a set of roles.

    RegisterUser (keyed by address) --> AddressReserved --> UserRegistered (keyed by user_id)

The address is an aggregate of its own, keyed by the normalised e-mail: that two people can't have the same one
is then a decision in one partition. Credentials are private facts, never in `user.events`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.saga import Reason


class Role(StrEnum):
    CUSTOMER = "customer"
    SUPPORT = "support"
    OPERATOR = "operator"
    COMPLIANCE = "compliance"
    ANALYST = "analyst"
    ADMIN = "admin"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterUser:
    """Register a person. Arrives under `address`, the normalised e-mail; the password only as its hash."""

    user_id: str
    address: str
    email: str
    name: str
    password_hash: str
    roles: tuple[Role, ...]
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRoles:
    """Replace a user's roles."""

    user_id: str
    roles: tuple[Role, ...]
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReserved:
    """Private: the address belongs to this user from now on."""

    address: str
    user_id: str
    email: str
    name: str
    password_hash: str
    roles: tuple[Role, ...]
    request_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRegistered:
    """The user exists."""

    user_id: str
    email: str
    name: str
    roles: tuple[Role, ...]
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsSet:
    """Private: what the user proves themselves with."""

    user_id: str
    password_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolesSet:
    """The user's roles were replaced."""

    user_id: str
    roles: tuple[Role, ...]
    version: int
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountListed:
    """The user's list of accounts has one more, as its entry `number` (from 0)."""

    user_id: str
    account_id: str
    number: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCommandRefused:
    """A command on a user or an address was refused; nothing changed."""

    user_id: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Row `address/<address>`: whose it is."""

    user_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Row `user/<user_id>`. The user's accounts are rows `account-of/<user_id>/<0 … accounts - 1>`."""

    user_id: str
    email: str
    name: str
    roles: tuple[Role, ...]
    accounts: int
    version: int
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Row `credentials/<user_id>`: the hash of the password."""

    password_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAccount:
    """Row `account-of/<user_id>/<number>`, and `has-account/<user_id>/<account_id>` to list it once."""

    account_id: str
    number: int
    at_ms: int
