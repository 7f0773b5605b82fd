"""Users over HTTP: register, read, change, set roles, and all of one on one page."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

import orjson

from domain.credentials import credentials_key
from domain.mailed import Purpose, mailed_token, token_hash
from domain.person import normalised
from domain.saga import Reason
from domain.user import (
    USER,
    ChangeProfile,
    ClaimAddress,
    EmailChanged,
    ProfileChange,
    ProfileChanged,
    RegisterUser,
    Role,
    RolesSet,
    SetRoles,
    UserCommandRefused,
    UserRegistered,
    address_key,
    user_key,
)
from gateway import auth, pages, views
from gateway.answer import Answer, answer
from gateway.errors import Problem, invalid, not_found
from gateway.models import Registration, Roles
from gateway.outcome import LOOK, Identity, identify, once, pursue, refused
from gateway.reads import USERS
from gateway.user_models import Profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.call import Call
    from gateway.outcome import Look
    from gateway.queries import Row
    from gateway.waiting import Heard
    from stores.questions import Questions


FRESH_S = 15 * 60  # a login so long ago is a moment ago


def fingerprint(secret: str, body: Any) -> str:
    """A registration's fingerprint: keyed, for a bare hash of it would help to guess the password."""
    data = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def hash_of_mail(call: Call, purpose: Purpose, user_id: str, mail_id: str) -> str:
    """What is kept of the token that a mail will carry."""
    secret = call.gateway.settings.mail_secret
    return token_hash(mailed_token(secret, purpose, user_id, mail_id))


def client_address(call: Call) -> str:
    return call.origin.partition(" ")[0]


def own(call: Call) -> str:
    """The user_id in the path, which must be the caller's: 404 as for what does not exist."""
    user_id = call.names["user_id"]
    if user_id != call.caller.user_id:
        raise not_found("no such user, or not yet")
    return user_id


async def password_hash(call: Call, user_id: str) -> str | None:
    key = credentials_key(user_id)
    row = await call.gateway.queries.row("user", user_id, key, versioned=False)
    return None if row is None else str(row["password_hash"])


async def check_password(call: Call, password: str) -> str:
    """The hash that the caller's password fits; 422 when it fits none, 429 for too many of those."""
    user_id = call.caller.user_id
    async with call.gateway.throttle.attempt(user_id, client_address(call)):
        kept = await password_hash(call, user_id)
        if not await call.gateway.passwords.check(password, kept) or kept is None:
            raise invalid("/current_password", "WRONG_PASSWORD", "is not the password")
        return kept


async def register(call: Call) -> Answer:
    """202, or 201 with the user when the client waits; 409 EMAIL_TAKEN."""
    body = call.body
    assert isinstance(body, Registration)
    address = normalised(body.email)
    request_hash = fingerprint(call.gateway.settings.jwt_secret, call.raw_body)

    async def first(identity: Identity) -> Answer:
        if not identity.repeated:
            await _check_free(call, address, identity.resource_id)
        password_hash = (
            "" if identity.repeated else await call.gateway.passwords.hash(body.password)
        )
        registering = _Registering(call, identity, body, address, password_hash)
        return await pursue(call, identity, registering)

    return await once(call, identify(call, address, request_hash), first)


async def _check_free(call: Call, address: str, user_id: str) -> None:
    """Say at once that an address is taken; its service decides anyway, should nobody answer here."""
    try:
        row = await call.gateway.queries.row("user", address, address_key(address), versioned=False)
    except Problem as problem:
        if problem.status != 503:
            raise
        return
    if row is not None and row["user_id"] != user_id:
        raise Problem("EMAIL_TAKEN")


class _Registering:
    """RegisterUser on its way: the address answers first, the user a fact later."""

    service = "user"

    def __init__(
        self, call: Call, identity: Identity, body: Registration, address: str, password_hash: str
    ) -> None:
        self.call, self.identity = call, identity
        self.key = address
        self.aggregate_id = identity.resource_id
        self.location = f"/api/users/{identity.resource_id}"
        self.named = {"user_id": identity.resource_id}
        self.command = RegisterUser(
            user_id=identity.resource_id,
            address=address,
            email=body.email,
            name=body.name,
            password_hash=password_hash,
            roles=(Role.CUSTOMER,),
            actor_id=identity.resource_id,
            request_hash=identity.request_hash,
            mail_id=identity.command_id,
            token_hash=hash_of_mail(
                call, Purpose.CONFIRM, identity.resource_id, identity.command_id
            ),
        )

    def heard(self, heard: Heard) -> Answer | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, UserCommandRefused):
            named = {} if event.reason is Reason.EMAIL_TAKEN else self.named
            return refused(self.call, event.reason, named)
        if not isinstance(event, UserRegistered):
            return None
        row = USER.evolve({}, event)[user_key(event.user_id)]
        self.call.gateway.reads.told(self.call, USERS, event.user_id, event.version)
        return answer(views.user(views.plain(row)), 201)

    async def looked(self) -> Answer | None:
        queries = self.call.gateway.queries
        address = await queries.row("user", self.key, address_key(self.key), versioned=False)
        if address is None:
            return None
        if address["user_id"] != self.aggregate_id:
            return refused(self.call, Reason.EMAIL_TAKEN, {})
        if address["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        row = await read(self.call, self.aggregate_id)
        return answer(views.user(row), 201) if row is not None else None


async def read(call: Call, user_id: str) -> Row | None:
    return await call.gateway.queries.row("user", user_id, user_key(user_id))


async def get(call: Call) -> Answer:
    user_id = call.names["user_id"]
    if user_id != call.caller.user_id and not call.caller.may(auth.STAFF_READS):
        raise not_found("no such user, or not yet")
    row = await call.gateway.reads.row(call, USERS, user_id)
    if row is None:
        raise not_found("no such user, or not yet")
    return answer(views.picked(views.user(row), call.query.get("fields")))


async def change(call: Call) -> Answer:
    """202, or 200 with the user. One's own; an admin may change anybody's but the e-mail."""
    body = call.body
    assert isinstance(body, Profile)
    user_id = call.names["user_id"]
    mine = user_id == call.caller.user_id
    if not mine and (body.email is not None or not call.caller.may(auth.ADMINS)):
        raise not_found("no such user, or not yet")
    user = await read(call, user_id)
    if user is None:
        raise not_found("no such user, or not yet")
    moves = body.email is not None and body.email != user["email"]
    if moves:
        await _check_fresh(call, body)
        assert body.email is not None
        await _check_free(call, normalised(body.email), user_id)

    async def first(identity: Identity) -> Answer:
        command = _profile_command(call, identity, user_id, body, moves)
        return await pursue(call, identity, _ProfileChanging(call, identity, command))

    request_hash = fingerprint(call.gateway.settings.jwt_secret, call.raw_body)
    return await once(call, identify(call, request_hash=request_hash), first)


async def _check_fresh(call: Call, body: Profile) -> None:
    """Another e-mail is another way into the account: a token that lay about is not enough."""
    if body.current_password is not None:
        await check_password(call, body.current_password)
    elif time.time() - call.caller.auth_s > FRESH_S:
        raise invalid("/current_password", "REQUIRED", "is needed: the last login is long ago")


def _profile_command(
    call: Call, identity: Identity, user_id: str, body: Profile, moves: bool
) -> ChangeProfile | ClaimAddress:
    change = ProfileChange(name=body.name, phone=body.phone, language=body.language)
    actor_id = call.caller.user_id
    if not moves or body.email is None:
        return ChangeProfile(user_id=user_id, change=change, actor_id=actor_id)
    mail_id = identity.command_id
    return ClaimAddress(
        user_id=user_id,
        address=normalised(body.email),
        email=body.email,
        claim_id=mail_id,
        token_hash=hash_of_mail(call, Purpose.CONFIRM, user_id, mail_id),
        change=change,
        actor_id=actor_id,
    )


class _ProfileChanging:
    """ChangeProfile or ClaimAddress on its way; the address answers first, the user a fact later."""

    service = "user"

    def __init__(
        self, call: Call, identity: Identity, command: ChangeProfile | ClaimAddress
    ) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.aggregate_id = command.user_id
        self.key = command.address if isinstance(command, ClaimAddress) else command.user_id
        self.location = f"/api/users/{command.user_id}"
        self.named = {"user_id": command.user_id}

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        event = heard.event
        if isinstance(event, UserCommandRefused):
            return refused(self.call, event.reason, self.named)
        if isinstance(event, ProfileChanged | EmailChanged):
            reads = self.call.gateway.reads
            reads.told(self.call, USERS, self.aggregate_id, event.version)
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        row = await read(self.call, self.aggregate_id)
        if row is None:
            return None
        command, change = self.command, self.command.change
        if isinstance(command, ClaimAddress) and row["claim_id"] != command.claim_id:
            return None
        wanted = {"name": change.name, "phone": change.phone, "language": change.language}
        if any(text is not None and row[name] != text for name, text in wanted.items()):
            return None
        return answer(views.user(row))


async def search(call: Call) -> Answer:
    """Users whose name or e-mail has the words of `?q=`, the best match first."""
    words = call.query.get("q")
    if not words:
        raise Problem("BAD_QUERY", "q is what to look for: words of a name or an e-mail")
    reads, limit = call.gateway.reads, pages.limit_of(call)

    async def of_store(store: Questions) -> Sequence[Row]:
        return await store.search_users(words, limit)

    found = await reads.ask(call, "users", of_store, kinds=(USERS,))
    rows = await reads.renewed(USERS, found)
    items = [views.picked(views.user(row), call.query.get("fields")) for row in rows]
    return answer({"items": items, "next_cursor": None})


async def set_roles(call: Call) -> Answer:
    """202, or 200 with the user when the admin waits."""
    body = call.body
    assert isinstance(body, Roles)
    user_id = call.names["user_id"]
    if await read(call, user_id) is None:
        raise not_found("no such user, or not yet")
    roles = tuple(Role(name) for name in dict.fromkeys(body.roles))

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _RoleSetting(call, identity, user_id, roles))

    return await once(call, identify(call), first)


class _RoleSetting:
    """SetRoles on its way."""

    service = "user"

    def __init__(
        self, call: Call, identity: Identity, user_id: str, roles: tuple[Role, ...]
    ) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = user_id
        self.location = f"/api/users/{user_id}"
        self.named = {"user_id": user_id}
        self.command = SetRoles(user_id=user_id, roles=roles, actor_id=call.caller.user_id)

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, UserCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        if isinstance(heard.event, RolesSet):
            self.call.gateway.reads.told(self.call, USERS, self.key, heard.event.version)
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        row = await read(self.call, self.key)
        if row is None or row["roles"] != list(self.command.roles):
            return None
        return answer(views.user(row))
