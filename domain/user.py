"""Users: one person, one e-mail address, a set of roles.

    RegisterUser (keyed by address) --> AddressReserved --> UserRegistered (keyed by user_id)
    ClaimAddress (keyed by the new one) --> AddressClaimed --> EmailChanged --> AddressReleased

The address is an aggregate of its own, keyed by the normalised e-mail: that two people can't have
the same one is then a decision in one partition. A user who changes it has both for a moment. What
else belongs to a person stands in `credentials`, `session` and `kyc`; all is one service.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain import credentials, kyc, session
from domain.account import AccountOpened
from domain.credentials import (
    ChangePassword,
    ConfirmEmail,
    Credentials,
    CredentialsSet,
    EmailConfirmationRequested,
    EmailConfirmed,
    MailToken,
    MailTokenKept,
    PasswordChanged,
    PasswordResetRequested,
    RequestEmailConfirmation,
    RequestPasswordReset,
    ResetPassword,
)
from domain.credentials import credentials_key as credentials_key
from domain.decider import DUE, Changes, Decider, Due, RowKey, Rows, Tick
from domain.kyc import (
    DecideKyc,
    KycDecisionKept,
    KycDetailsKept,
    KycFile,
    KycLevelSet,
    KycOpen,
    KycRejected,
    KycSubmitted,
    SubmitKyc,
)
from domain.person import Role as Role
from domain.person import User as User
from domain.person import UserCommandRefused as UserCommandRefused
from domain.person import normalised, refuse
from domain.person import user_key as user_key
from domain.saga import Reason
from domain.session import (
    EndSession,
    EndSessions,
    OpenSession,
    RefreshSession,
    RefreshToken,
    Session,
    SessionEnded,
    SessionKept,
    SessionList,
    SessionOpened,
    SessionRefreshed,
    SessionsEnded,
    SessionsForgotten,
    SessionSlot,
)

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
    mail_id: str = ""  # of the mail that asks to confirm the address; empty: none is sent
    token_hash: str = ""  # of the token in that mail


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileChange:
    """What a user wants to be called and how to be reached; None: as it is."""

    name: str | None = None
    phone: str | None = None  # E.164; empty: none
    language: str | None = None  # BCP 47; empty: the bank's own


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeProfile:
    """Change what is in `change`."""

    user_id: str
    change: ProfileChange
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimAddress:
    """Change a user's e-mail, and what is in `change`. Arrives under `address`, the new one."""

    user_id: str
    address: str
    email: str
    claim_id: str  # names this claim, and the mail that asks to confirm it
    token_hash: str
    change: ProfileChange
    actor_id: str


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
    mail_id: str = ""
    token_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressClaimed:
    """Private: the address belongs to a user who has another one until they hear of it."""

    address: str
    user_id: str
    email: str
    claim_id: str
    token_hash: str
    change: ProfileChange
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReleased:
    """Private: the address is free again; its user has another one."""

    address: str
    user_id: str
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
class RolesSet:
    """The user's roles were replaced."""

    user_id: str
    roles: tuple[Role, ...]
    version: int
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileChanged:
    """What the user is called from now on, and how they can be reached."""

    user_id: str
    name: str
    phone: str
    language: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChanged:
    """The user has another e-mail, not confirmed yet. Who had the former one is told there too."""

    user_id: str
    email: str
    claim_id: str
    former_email: str
    former_address: str  # normalised: under which the address hears of it
    former_claim_id: str
    version: int
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
    request_hash: str  # of the registration; empty: the address came later
    claim_id: str = ""  # by which it was taken last; empty: by registering


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
    RegisterUser
    | AddressReserved
    | ClaimAddress
    | AddressClaimed
    | EmailChanged
    | ChangeProfile
    | SetRoles
    | SubmitKyc
    | DecideKyc
    | credentials.Command
    | session.Command
    | AccountOpened
    | Tick
)
Event: TypeAlias = (
    UserRegistered
    | ProfileChanged
    | EmailChanged
    | EmailConfirmationRequested
    | EmailConfirmed
    | RolesSet
    | KycSubmitted
    | KycLevelSet
    | KycRejected
    | PasswordResetRequested
    | PasswordChanged
    | SessionOpened
    | SessionRefreshed
    | SessionEnded
    | SessionsEnded
    | SessionsForgotten
    | AccountListed
    | UserCommandRefused
)
PrivateEvent: TypeAlias = (
    AddressReserved
    | AddressClaimed
    | AddressReleased
    | CredentialsSet
    | MailTokenKept
    | SessionKept
    | KycDetailsKept
    | KycDecisionKept
)


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event | PrivateEvent]:
    match message:
        case (
            RegisterUser() | AddressReserved() | ClaimAddress() | AddressClaimed() | EmailChanged()
        ):
            return _of_address(rows, message, at_ms)
        case ChangeProfile():
            return _change(rows, message, at_ms)
        case SetRoles():
            return _set_roles(rows, message, at_ms)
        case SubmitKyc() | DecideKyc():
            return kyc.decide(rows, message, at_ms)
        case (
            ChangePassword()
            | RequestPasswordReset()
            | ResetPassword()
            | RequestEmailConfirmation()
            | ConfirmEmail()
        ):
            return credentials.decide(rows, message, at_ms)
        case OpenSession() | RefreshSession() | EndSession() | EndSessions():
            return session.decide(rows, message, at_ms)
        case AccountOpened():
            return _list(rows, message, at_ms)
        case Tick():
            return session.forget(rows, message, at_ms)
        case _:
            assert_never(message)


AddressMessage: TypeAlias = (
    RegisterUser | AddressReserved | ClaimAddress | AddressClaimed | EmailChanged
)


def _of_address(rows: Rows, message: AddressMessage, at_ms: int) -> Sequence[Event | PrivateEvent]:
    match message:
        case RegisterUser():
            return _reserve(rows, message, at_ms)
        case AddressReserved():
            return _register(rows, message, at_ms)
        case ClaimAddress():
            return _claim(rows, message, at_ms)
        case AddressClaimed():
            return _move(rows, message, at_ms)
        case EmailChanged():
            return _release(rows, message, at_ms)
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
            mail_id=command.mail_id,
            token_hash=command.token_hash,
        ),
    )


def _register(rows: Rows, fact: AddressReserved, at_ms: int) -> Sequence[Event | PrivateEvent]:
    if user_key(fact.user_id) in rows:
        return ()
    registered = UserRegistered(
        user_id=fact.user_id,
        email=fact.email,
        name=fact.name,
        roles=fact.roles,
        version=1,
        at_ms=at_ms,
    )
    mail = (fact.mail_id, fact.token_hash, at_ms)
    return (
        CredentialsSet(user_id=fact.user_id, password_hash=fact.password_hash, at_ms=at_ms),
        registered,
        *(credentials.confirmation_mail(_registered(registered), *mail) if fact.mail_id else ()),
    )


def _claim(rows: Rows, command: ClaimAddress, at_ms: int) -> Sequence[Event | PrivateEvent]:
    address: Address | None = rows.get(address_key(command.address))
    if address is not None and address.user_id != command.user_id:
        return refuse(command, Reason.EMAIL_TAKEN, at_ms)
    if address is not None and address.claim_id == command.claim_id:
        return ()
    if not (command.address and command.user_id and command.claim_id):
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    return (
        AddressClaimed(
            address=command.address,
            user_id=command.user_id,
            email=command.email,
            claim_id=command.claim_id,
            token_hash=command.token_hash,
            change=command.change,
            at_ms=at_ms,
        ),
    )


def _move(rows: Rows, fact: AddressClaimed, at_ms: int) -> Sequence[Event | PrivateEvent]:
    user: User | None = rows.get(user_key(fact.user_id))
    if user is None:
        return refuse(fact, Reason.USER_NOT_FOUND, at_ms)
    if user.claim_id == fact.claim_id:
        return ()
    changed = _profile(user, fact.change, at_ms)
    version = user.version + len(changed) + 1
    moved = EmailChanged(
        user_id=user.user_id,
        email=fact.email,
        claim_id=fact.claim_id,
        former_email=user.email,
        former_address=normalised(user.email),
        former_claim_id=user.claim_id,
        version=version,
        at_ms=at_ms,
    )
    named = fact.change.name or user.name
    now = replace(user, email=fact.email, name=named, version=version)
    mail = credentials.confirmation_mail(now, fact.claim_id, fact.token_hash, at_ms)
    return (*changed, moved, *mail)


def _release(rows: Rows, fact: EmailChanged, at_ms: int) -> Sequence[PrivateEvent]:
    """The former address is free, unless the user claimed it anew in the meantime."""
    address: Address | None = rows.get(address_key(fact.former_address))
    if address is None or address.user_id != fact.user_id:
        return ()
    if address.claim_id != fact.former_claim_id:
        return ()
    return (AddressReleased(address=fact.former_address, user_id=fact.user_id, at_ms=at_ms),)


def _change(rows: Rows, command: ChangeProfile, at_ms: int) -> Sequence[Event]:
    user: User | None = rows.get(user_key(command.user_id))
    if user is None:
        return refuse(command, Reason.USER_NOT_FOUND, at_ms)
    if command.change.name == "":
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    return _profile(user, command.change, at_ms)


def _profile(user: User, change: ProfileChange, at_ms: int) -> tuple[ProfileChanged, ...]:
    """The fact that follows, if anything is other than it was."""
    named, phone, language = change.name, change.phone, change.language
    said = ProfileChanged(
        user_id=user.user_id,
        name=user.name if named is None else named,
        phone=user.phone if phone is None else phone,
        language=user.language if language is None else language,
        version=user.version + 1,
        at_ms=at_ms,
    )
    same = (said.name, said.phone, said.language) == (user.name, user.phone, user.language)
    return () if same else (said,)


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
        case AddressReserved() | AddressClaimed() | AddressReleased():
            return {address_key(event.address): _address(rows, event)}
        case UserRegistered():
            return {user_key(event.user_id): _registered(event)}
        case ProfileChanged() | EmailChanged() | RolesSet():
            return _changed(rows, event, **_members(event))
        case EmailConfirmed():
            return {
                **credentials.evolve(rows, event),
                **_changed(rows, event, email_confirmed=True),
            }
        case KycSubmitted() | KycLevelSet() | KycRejected():
            return {**kyc.evolve(rows, event), **_changed(rows, event, **kyc.known(event))}
        case KycDetailsKept() | KycDecisionKept():
            return kyc.evolve(rows, event)
        case (
            CredentialsSet()
            | MailTokenKept()
            | PasswordChanged()
            | PasswordResetRequested()
            | EmailConfirmationRequested()
        ):
            return credentials.evolve(rows, event)
        case (
            SessionOpened()
            | SessionRefreshed()
            | SessionEnded()
            | SessionsEnded()
            | SessionsForgotten()
            | SessionKept()
        ):
            return session.evolve(rows, event)
        case AccountListed():
            return _listed(event)
        case UserCommandRefused():
            return {}
        case _:
            assert_never(event)


def _address(
    rows: Rows, event: AddressReserved | AddressClaimed | AddressReleased
) -> Address | None:
    match event:
        case AddressReserved():
            return Address(user_id=event.user_id, request_hash=event.request_hash)
        case AddressClaimed():
            former: Address | None = rows.get(address_key(event.address))
            request_hash = former.request_hash if former else ""
            return Address(
                user_id=event.user_id, request_hash=request_hash, claim_id=event.claim_id
            )
        case AddressReleased():
            return None


def _members(event: ProfileChanged | EmailChanged | RolesSet) -> dict[str, Any]:
    """What the event says of the user's row, beside its version and time."""
    match event:
        case ProfileChanged():
            return {"name": event.name, "phone": event.phone, "language": event.language}
        case EmailChanged():
            return {"email": event.email, "claim_id": event.claim_id, "email_confirmed": False}
        case RolesSet():
            return {"roles": event.roles}


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


def accounts_of_key(user_id: str) -> RowKey:
    return f"accounts-of/{user_id}"


def account_of_key(user_id: str, number: int) -> RowKey:
    return f"account-of/{user_id}/{number:010d}"


def has_account_key(user_id: str, account_id: str) -> RowKey:
    return f"has-account/{user_id}/{account_id}"


def keys(message: Message | Event | PrivateEvent) -> Sequence[RowKey]:
    if isinstance(message, AddressMessage):
        return _keys_of_address(message)
    if isinstance(message, credentials.Command | credentials.Said):
        return credentials.keys(message)
    if isinstance(message, session.Command | session.Said | Tick):
        return session.keys(message)
    match message:
        case AccountOpened():
            account = has_account_key(message.user_id, message.account_id)
            return (accounts_of_key(message.user_id), account)
        case SubmitKyc() | DecideKyc():
            return (user_key(message.user_id), kyc.kyc_key(message.user_id))
        case KycDecisionKept():
            return (kyc.kyc_key(message.user_id),)
        case (
            ChangeProfile()
            | SetRoles()
            | RolesSet()
            | ProfileChanged()
            | KycSubmitted()
            | KycLevelSet()
            | KycRejected()
        ):
            return (user_key(message.user_id),)
        case _:  # what makes a row anew, or changes none
            return ()


def _keys_of_address(message: AddressMessage) -> Sequence[RowKey]:
    """What is read of an address, and of its user: such a fact is read under either key."""
    match message:
        case RegisterUser() | ClaimAddress():
            return (address_key(message.address),)
        case AddressReserved():
            return (user_key(message.user_id),)
        case AddressClaimed():
            return (user_key(message.user_id), address_key(message.address))
        case EmailChanged():
            return (user_key(message.user_id), address_key(message.former_address))
        case _:
            assert_never(message)


def aggregate_id(event: Event | PrivateEvent) -> str:
    match event:
        case AddressReserved() | AddressClaimed() | AddressReleased():
            return event.address
        case SessionsForgotten():
            return event.due[0]
        case _:
            return event.user_id


USER = Decider(
    service="user",
    messages=get_args(Message),
    events=get_args(Event),
    private_events=get_args(PrivateEvent),
    rows=(
        Address,
        User,
        Credentials,
        MailToken,
        Session,
        SessionList,
        SessionSlot,
        RefreshToken,
        KycFile,
        KycOpen,
        AccountList,
        ListedAccount,
        Due,
    ),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, kyc.OPEN),
)
