r"""What a person proves themselves with: a password's hash, and tokens that reach them by mail.

    ChangePassword --> CredentialsSet, PasswordChanged, all other sessions end
    RequestPasswordReset --> PasswordResetRequested --mail--> ResetPassword --> the same, all end
    RequestEmailConfirmation --> EmailConfirmationRequested --mail--> ConfirmEmail --> EmailConfirmed

Hashes are private. The public requests name the mail that is to be sent, never its token: whoever
sends it computes that (`domain/mailed.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from domain import session
from domain.mailed import Purpose
from domain.person import User, refuse, user_key
from domain.saga import Reason
from domain.session import Cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Changes, RowKey, Rows
    from domain.person import UserCommandRefused
    from domain.session import SessionsEnded

LIFE_MS = {Purpose.CONFIRM: 3 * 24 * 3600 * 1000, Purpose.RESET: 3600 * 1000}  # of a mailed token
PAUSE_MS = 60 * 1000  # between two mails of one purpose to a user


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword:
    """Set a new password; who asks was checked against `verified_hash`. `change_id` names this."""

    user_id: str
    verified_hash: str
    password_hash: str
    change_id: str
    kept_session_id: str | None
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPasswordReset:
    """Mail a token that lets its reader set a new password; its hash comes along."""

    user_id: str
    mail_id: str
    token_hash: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPassword:
    """Set a new password, by a mailed token."""

    user_id: str
    token_hash: str
    password_hash: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEmailConfirmation:
    """Mail the token once more by which a user shows that mail reaches them."""

    user_id: str
    mail_id: str
    token_hash: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmEmail:
    """Mail reached the user: here is its token, by its hash."""

    user_id: str
    token_hash: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsSet:
    """Private: what the user proves themselves with."""

    user_id: str
    password_hash: str
    at_ms: int
    change_id: str = ""  # what led to it; empty: the registration


@dataclass(frozen=True, slots=True, kw_only=True)
class MailTokenKept:
    """Private: a mailed token, by its hash. It takes the place of the one before it."""

    user_id: str
    purpose: Purpose
    mail_id: str
    token_hash: str
    expires_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged:
    """The user has another password. `cause`: password_changed, or password_reset by mail."""

    user_id: str
    cause: Cause
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordResetRequested:
    """A mail is to take a token to the user, good until `expires_ms`, to set a new password."""

    user_id: str
    email: str
    name: str
    mail_id: str
    expires_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailConfirmationRequested:
    """A mail is to take a token to the user, good until `expires_ms`, to confirm the address."""

    user_id: str
    email: str
    name: str
    mail_id: str
    expires_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailConfirmed:
    """Mail to this address reaches the user."""

    user_id: str
    email: str
    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Row `credentials/<user_id>`: the hash of the password."""

    password_hash: str
    change_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailToken:
    """Row `mailed/<user_id>/<purpose>`, private: the token that is good now."""

    mail_id: str
    token_hash: str
    expires_ms: int
    sent_ms: int


Command = (
    ChangePassword | RequestPasswordReset | ResetPassword | RequestEmailConfirmation | ConfirmEmail
)
Said = (
    CredentialsSet
    | MailTokenKept
    | PasswordChanged
    | PasswordResetRequested
    | EmailConfirmationRequested
    | EmailConfirmed
)


def decide(
    rows: Rows, command: Command, at_ms: int
) -> Sequence[Said | SessionsEnded | UserCommandRefused]:
    user: User | None = rows.get(user_key(command.user_id))
    if user is None:
        return refuse(command, Reason.USER_NOT_FOUND, at_ms)
    match command:
        case ChangePassword():
            return _change(rows, command, at_ms)
        case RequestPasswordReset():
            if _is_fresh(rows, command.user_id, Purpose.RESET, at_ms):
                return ()
            return reset_mail(user, command.mail_id, command.token_hash, at_ms)
        case ResetPassword():
            return _reset(rows, command, at_ms)
        case RequestEmailConfirmation():
            if user.email_confirmed or _is_fresh(rows, command.user_id, Purpose.CONFIRM, at_ms):
                return ()
            return confirmation_mail(user, command.mail_id, command.token_hash, at_ms)
        case ConfirmEmail():
            return _confirm(rows, user, command, at_ms)


def _change(
    rows: Rows, command: ChangePassword, at_ms: int
) -> Sequence[Said | SessionsEnded | UserCommandRefused]:
    credentials: Credentials | None = rows.get(credentials_key(command.user_id))
    if credentials is not None and credentials.change_id == command.change_id:
        return ()
    if not (command.password_hash and command.change_id):
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    if credentials is None or credentials.password_hash != command.verified_hash:
        return refuse(command, Reason.PASSWORD_CHANGED, at_ms)
    kept, cause = command.kept_session_id, Cause.PASSWORD_CHANGED
    return (
        *_set(command, command.change_id, cause, at_ms),
        session.end_all(rows, command.user_id, kept, cause, command.change_id, at_ms),
    )


def _reset(
    rows: Rows, command: ResetPassword, at_ms: int
) -> Sequence[Said | SessionsEnded | UserCommandRefused]:
    credentials: Credentials | None = rows.get(credentials_key(command.user_id))
    if credentials is not None and credentials.change_id == command.token_hash:
        return ()
    if not command.password_hash:
        return refuse(command, Reason.INVALID_COMMAND, at_ms)
    if not _is_good(rows, command.user_id, Purpose.RESET, command.token_hash, at_ms):
        return refuse(command, Reason.TOKEN_INVALID, at_ms)
    mail: MailToken = rows[mailed_key(command.user_id, Purpose.RESET)]
    return (
        *_set(command, command.token_hash, Cause.PASSWORD_RESET, at_ms),
        session.end_all(rows, command.user_id, None, Cause.PASSWORD_RESET, mail.mail_id, at_ms),
    )


def _set(
    command: ChangePassword | ResetPassword, change_id: str, cause: Cause, at_ms: int
) -> tuple[CredentialsSet, PasswordChanged]:
    set_ = CredentialsSet(
        user_id=command.user_id,
        password_hash=command.password_hash,
        at_ms=at_ms,
        change_id=change_id,
    )
    return set_, PasswordChanged(user_id=command.user_id, cause=cause, at_ms=at_ms)


def _confirm(
    rows: Rows, user: User, command: ConfirmEmail, at_ms: int
) -> Sequence[Said | UserCommandRefused]:
    if user.email_confirmed:
        return ()
    if not _is_good(rows, user.user_id, Purpose.CONFIRM, command.token_hash, at_ms):
        return refuse(command, Reason.TOKEN_INVALID, at_ms)
    return (
        EmailConfirmed(
            user_id=user.user_id, email=user.email, version=user.version + 1, at_ms=at_ms
        ),
    )


def _is_good(rows: Rows, user_id: str, purpose: Purpose, token_hash: str, at_ms: int) -> bool:
    kept: MailToken | None = rows.get(mailed_key(user_id, purpose))
    return kept is not None and kept.token_hash == token_hash and at_ms < kept.expires_ms


def _is_fresh(rows: Rows, user_id: str, purpose: Purpose, at_ms: int) -> bool:
    """Such a mail was asked for a moment ago: one who asks again is not heard."""
    kept: MailToken | None = rows.get(mailed_key(user_id, purpose))
    return kept is not None and at_ms - kept.sent_ms < PAUSE_MS


def confirmation_mail(
    user: User, mail_id: str, token_hash: str, at_ms: int
) -> tuple[MailTokenKept, EmailConfirmationRequested]:
    """`user` as they are from now on: the mail goes to their address."""
    kept = _mail_token(user, Purpose.CONFIRM, mail_id, token_hash, at_ms)
    asked = EmailConfirmationRequested(
        user_id=user.user_id,
        email=user.email,
        name=user.name,
        mail_id=mail_id,
        expires_ms=kept.expires_ms,
        at_ms=at_ms,
    )
    return kept, asked


def reset_mail(
    user: User, mail_id: str, token_hash: str, at_ms: int
) -> tuple[MailTokenKept, PasswordResetRequested]:
    kept = _mail_token(user, Purpose.RESET, mail_id, token_hash, at_ms)
    asked = PasswordResetRequested(
        user_id=user.user_id,
        email=user.email,
        name=user.name,
        mail_id=mail_id,
        expires_ms=kept.expires_ms,
        at_ms=at_ms,
    )
    return kept, asked


def _mail_token(
    user: User, purpose: Purpose, mail_id: str, token_hash: str, at_ms: int
) -> MailTokenKept:
    return MailTokenKept(
        user_id=user.user_id,
        purpose=purpose,
        mail_id=mail_id,
        token_hash=token_hash,
        expires_ms=at_ms + LIFE_MS[purpose],
        at_ms=at_ms,
    )


def evolve(rows: Rows, event: Said) -> Changes:
    """What changes beside the user's own row."""
    match event:
        case CredentialsSet():
            row = Credentials(password_hash=event.password_hash, change_id=event.change_id)
            return {credentials_key(event.user_id): row}
        case MailTokenKept():
            kept = MailToken(
                mail_id=event.mail_id,
                token_hash=event.token_hash,
                expires_ms=event.expires_ms,
                sent_ms=event.at_ms,
            )
            return {mailed_key(event.user_id, event.purpose): kept}
        case PasswordChanged():  # by whichever way: a mailed token is good no more
            return _without(rows, mailed_key(event.user_id, Purpose.RESET))
        case EmailConfirmed():
            return _without(rows, mailed_key(event.user_id, Purpose.CONFIRM))
        case PasswordResetRequested() | EmailConfirmationRequested():
            return {}


def _without(rows: Rows, key: RowKey) -> Changes:
    return {key: None} if key in rows else {}


def credentials_key(user_id: str) -> RowKey:
    return f"credentials/{user_id}"


def mailed_key(user_id: str, purpose: Purpose) -> RowKey:
    return f"mailed/{user_id}/{purpose}"


def keys(command: Command | Said) -> Sequence[RowKey]:
    user_id = command.user_id
    match command:
        case PasswordChanged():
            return (mailed_key(user_id, Purpose.RESET),)
        case EmailConfirmed():
            return (user_key(user_id), mailed_key(user_id, Purpose.CONFIRM))
        case (
            CredentialsSet()
            | MailTokenKept()
            | PasswordResetRequested()
            | EmailConfirmationRequested()
        ):
            return ()
        case _:
            return _keys_of_command(command)


def _keys_of_command(command: Command) -> Sequence[RowKey]:
    user_id = command.user_id
    kept = command.kept_session_id if isinstance(command, ChangePassword) else None
    return (
        user_key(user_id),
        credentials_key(user_id),
        mailed_key(user_id, Purpose.RESET),
        mailed_key(user_id, Purpose.CONFIRM),
        *session.kept_keys(user_id, kept),
    )
