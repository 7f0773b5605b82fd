"""Users: one person, one e-mail address, a set of roles.

    RegisterUser (keyed by address) --> AddressReserved --> UserRegistered (keyed by user_id)

The address is an aggregate of its own, keyed by the normalised e-mail: that two people can't have
the same one is then a decision in one partition. Credentials are private facts, never in
`user.events`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain import kyc
from domain.account import AccountOpened
from domain.decider import DUE, Changes, Decider, Due, RowKey, Rows, Tick
from domain.kyc import DecideKyc as DecideKyc
from domain.kyc import KycDecisionKept as KycDecisionKept
from domain.kyc import KycDetails as KycDetails
from domain.kyc import KycDetailsKept as KycDetailsKept
from domain.kyc import KycFile as KycFile
from domain.kyc import KycLevelSet as KycLevelSet
from domain.kyc import KycOpen as KycOpen
from domain.kyc import KycRejected as KycRejected
from domain.kyc import KycSubmitted as KycSubmitted
from domain.kyc import SubmitKyc as SubmitKyc
from domain.person import KycStatus, refuse
from domain.person import Role as Role
from domain.person import User as User
from domain.person import UserCommandRefused as UserCommandRefused
from domain.person import user_key as user_key
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterUser:
    """Register a person. Arrives under `address`, the normalised e-mail; no password, its hash."""

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
class Address:
    """Row `address/<address>`: whose it is."""

    user_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Row `credentials/<user_id>`: the hash of the password."""

    password_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountList:
    """Row `accounts-of/<user_id>`; the entries are rows `account-of/<user_id>/<0 … accounts - 1>`.

    It stands beside the user's row because an account may be heard of before its user.
    """

    user_id: str
    accounts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAccount:
    """Rows `account-of/<user_id>/<number>` and, to list it once, `has-account/<user_id>/<id>`."""

    account_id: str
    number: int
    at_ms: int


Message: TypeAlias = (
    RegisterUser | AddressReserved | SetRoles | SubmitKyc | DecideKyc | AccountOpened | Tick
)
Event: TypeAlias = (
    UserRegistered
    | RolesSet
    | KycSubmitted
    | KycLevelSet
    | KycRejected
    | AccountListed
    | UserCommandRefused
)
PrivateEvent: TypeAlias = AddressReserved | CredentialsSet | KycDetailsKept | KycDecisionKept


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event | PrivateEvent]:
    match message:
        case RegisterUser():
            return _reserve(rows, message, at_ms)
        case AddressReserved():
            return _register(rows, message, at_ms)
        case SetRoles():
            return _set_roles(rows, message, at_ms)
        case SubmitKyc():
            return kyc.submit(rows, message, at_ms)
        case DecideKyc():
            return kyc.decide(rows, message, at_ms)
        case AccountOpened():
            return _list(rows, message, at_ms)
        case Tick():
            return ()
        case _:
            assert_never(message)


def _reserve(rows: Rows, command: RegisterUser, at_ms: int) -> Sequence[Event | PrivateEvent]:
    address: Address | None = rows.get(address_key(command.address))
    if address is not None and address.user_id != command.user_id:
        return refuse(command, Reason.EMAIL_TAKEN, at_ms)
    if address is not None and address.request_hash != command.request_hash:
        return refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if address is not None:
        return ()
    if not (command.address and command.user_id and command.password_hash):
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    return (
        AddressReserved(
            address=command.address,
            user_id=command.user_id,
            email=command.email,
            name=command.name,
            password_hash=command.password_hash,
            roles=command.roles,
            request_hash=command.request_hash,
            at_ms=at_ms,
        ),
    )


def _register(rows: Rows, fact: AddressReserved, at_ms: int) -> Sequence[Event | PrivateEvent]:
    if user_key(fact.user_id) in rows:
        return ()
    return (
        CredentialsSet(user_id=fact.user_id, password_hash=fact.password_hash, at_ms=at_ms),
        UserRegistered(
            user_id=fact.user_id,
            email=fact.email,
            name=fact.name,
            roles=fact.roles,
            version=1,
            at_ms=at_ms,
        ),
    )


def _set_roles(rows: Rows, command: SetRoles, at_ms: int) -> Sequence[Event]:
    user: User | None = rows.get(user_key(command.user_id))
    if user is None:
        return refuse(command, Reason.USER_NOT_FOUND, at_ms)
    if user.roles == command.roles:
        return ()
    return (
        RolesSet(
            user_id=command.user_id,
            roles=command.roles,
            version=user.version + 1,
            actor_id=command.actor_id,
            at_ms=at_ms,
        ),
    )


def _list(rows: Rows, fact: AccountOpened, at_ms: int) -> Sequence[Event]:
    if has_account_key(fact.user_id, fact.account_id) in rows:
        return ()
    listing: AccountList | None = rows.get(accounts_of_key(fact.user_id))
    number = listing.accounts if listing else 0
    return (
        AccountListed(user_id=fact.user_id, account_id=fact.account_id, number=number, at_ms=at_ms),
    )


def evolve(rows: Rows, event: Event | PrivateEvent) -> Changes:
    match event:
        case AddressReserved():
            address = Address(user_id=event.user_id, request_hash=event.request_hash)
            return {address_key(event.address): address}
        case UserRegistered():
            return {user_key(event.user_id): _registered(event)}
        case CredentialsSet():
            return {credentials_key(event.user_id): Credentials(password_hash=event.password_hash)}
        case RolesSet():
            return _changed(rows, event, roles=event.roles)
        case KycSubmitted():
            return {
                **kyc.evolve(rows, event),
                **_changed(rows, event, kyc_status=KycStatus.PENDING),
            }
        case KycLevelSet():
            known = {"kyc_status": KycStatus.VERIFIED, "kyc_level": event.level}
            return {**kyc.evolve(rows, event), **_changed(rows, event, **known)}
        case KycRejected():
            return {
                **kyc.evolve(rows, event),
                **_changed(rows, event, kyc_status=KycStatus.REJECTED),
            }
        case KycDetailsKept() | KycDecisionKept():
            return kyc.evolve(rows, event)
        case AccountListed():
            return _listed(event)
        case UserCommandRefused():
            return {}
        case _:
            assert_never(event)


def _changed(rows: Rows, event: Any, **members: Any) -> Changes:
    """The user's row with what the event says of it."""
    key = user_key(event.user_id)
    row: User = rows[key]
    return {key: replace(row, version=event.version, updated_ms=event.at_ms, **members)}


def _registered(event: UserRegistered) -> User:
    return User(
        user_id=event.user_id,
        email=event.email,
        name=event.name,
        roles=event.roles,
        version=event.version,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
    )


def _listed(event: AccountListed) -> Changes:
    listing = AccountList(user_id=event.user_id, accounts=event.number + 1)
    entry = ListedAccount(account_id=event.account_id, number=event.number, at_ms=event.at_ms)
    return {
        accounts_of_key(event.user_id): listing,
        account_of_key(event.user_id, event.number): entry,
        has_account_key(event.user_id, event.account_id): entry,
    }


def address_key(address: str) -> RowKey:
    return f"address/{address}"


def credentials_key(user_id: str) -> RowKey:
    return f"credentials/{user_id}"


def accounts_of_key(user_id: str) -> RowKey:
    return f"accounts-of/{user_id}"


def account_of_key(user_id: str, number: int) -> RowKey:
    return f"account-of/{user_id}/{number:010d}"


def has_account_key(user_id: str, account_id: str) -> RowKey:
    return f"has-account/{user_id}/{account_id}"


def keys(message: Message | Event | PrivateEvent) -> Sequence[RowKey]:
    match message:
        case RegisterUser():
            return (address_key(message.address),)
        case AccountOpened():
            account = has_account_key(message.user_id, message.account_id)
            return (accounts_of_key(message.user_id), account)
        case AddressReserved() | SetRoles() | RolesSet():
            return (user_key(message.user_id),)
        case SubmitKyc() | DecideKyc():
            return (user_key(message.user_id), kyc.kyc_key(message.user_id))
        case KycSubmitted() | KycLevelSet() | KycRejected():
            return (user_key(message.user_id),)
        case KycDecisionKept():
            return (kyc.kyc_key(message.user_id),)
        case (
            Tick()
            | UserRegistered()
            | CredentialsSet()
            | AccountListed()
            | UserCommandRefused()
            | KycDetailsKept()
        ):
            return ()
        case _:
            assert_never(message)


def aggregate_id(event: Event | PrivateEvent) -> str:
    return event.address if isinstance(event, AddressReserved) else event.user_id


USER = Decider(
    service="user",
    messages=get_args(Message),
    events=get_args(Event),
    private_events=get_args(PrivateEvent),
    rows=(Address, User, Credentials, AccountList, ListedAccount, KycFile, KycOpen, Due),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, kyc.OPEN),
)
