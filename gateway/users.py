"""Users over HTTP: register, log in, refresh, log out, read, set roles."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import orjson

from domain.saga import Reason
from domain.user import (
    USER,
    RegisterUser,
    Role,
    RolesSet,
    SetRoles,
    UserCommandRefused,
    UserRegistered,
    address_key,
    credentials_key,
    user_key,
)
from gateway import auth, pages, views
from gateway.answer import Answer, answer
from gateway.errors import Problem, invalid, not_found
from gateway.models import Login, Logout, RefreshToken, Registration, Roles
from gateway.outcome import LOOK, Identity, identify, once, pursue, refused
from gateway.reads import USERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.call import Call
    from gateway.outcome import Look
    from gateway.queries import Row
    from gateway.waiting import Heard
    from stores.questions import Questions


def normalised(email: str) -> str:
    """The address that can be had once: an e-mail without regard to case."""
    return email.strip().lower()


def fingerprint(secret: str, body: Any) -> str:
    """A registration's fingerprint: keyed, for a bare hash of it would help to guess the password."""
    data = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


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


async def login(call: Call) -> Answer:
    """Tokens for e-mail and password; 401 says nothing about which of the two was wrong."""
    body = call.body
    assert isinstance(body, Login)
    queries = call.gateway.queries
    address = normalised(body.email)
    owner = await queries.row("user", address, address_key(address), versioned=False)
    user_id = owner["user_id"] if owner is not None else None
    user: Row | None = None
    password_hash = None
    if user_id is not None and (user := await read(call, user_id)) is not None:
        credentials = await queries.row("user", user_id, credentials_key(user_id), versioned=False)
        password_hash = credentials["password_hash"] if credentials is not None else None
    if not await call.gateway.passwords.check(body.password, password_hash) or user is None:
        raise Problem("INVALID_CREDENTIALS", headers={"WWW-Authenticate": "Bearer"})
    return _tokens(call, user)


async def refresh(call: Call) -> Answer:
    """New tokens, with the roles of now."""
    body = call.body
    assert isinstance(body, RefreshToken)
    tokens = call.gateway.tokens
    user = await read(call, tokens.refreshed(body.refresh_token))
    if user is None:
        raise auth.unauthenticated("the user is gone")
    return _tokens(call, user)


async def logout(call: Call) -> Answer:
    body = call.body
    assert isinstance(body, Logout)
    tokens = call.gateway.tokens
    if body.refresh_token is None and call.authorization is None:
        raise invalid("/refresh_token", "REQUIRED", "is needed, or the access token's header")
    if body.refresh_token is not None:
        tokens.withdraw(body.refresh_token)
    if call.authorization is not None:
        tokens.withdraw_access(call.authorization)
    return Answer(204)


def _tokens(call: Call, user: Row) -> Answer:
    issued = call.gateway.tokens.issue(user["user_id"], [Role(role) for role in user["roles"]])
    return answer(issued, headers={"Cache-Control": "no-store"})


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
