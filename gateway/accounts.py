"""Accounts over HTTP: open, list, read, freeze, unfreeze, close, archive."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.account import (
    ACCOUNT,
    AccountArchived,
    AccountClosed,
    AccountCommandRefused,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    ArchiveAccount,
    CloseAccount,
    FreezeAccount,
    OpenAccount,
    Status,
    UnfreezeAccount,
    account_key,
)
from domain.saga import Reason
from domain.user import account_of_key, accounts_of_key
from gateway import auth, lists, pages, views, whose
from gateway.answer import Answer, answer
from gateway.errors import Problem, not_found
from gateway.models import NewAccount
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.past import LOG, moment_in
from gateway.reads import ACCOUNTS, TRANSACTIONS
from stores.questions import Wanted

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard
    from stores.questions import Page, Questions

LISTED_S = 1.0
NEWEST = 100  # entries of a list that are looked at for one that was just added


async def create(call: Call) -> Answer:
    """202, or 201 with the account when the client waits for it."""
    body = call.body
    assert isinstance(body, NewAccount)
    if body.overdraft_limits and not call.caller.privileged:
        raise Problem("FORBIDDEN", "overdraft limits are for operators")

    async def first(identity: Identity) -> Answer:
        user_id = await whose.holder(call, body.user_id, "you may open accounts for yourself alone")
        opening = _Opening(call, identity, body, user_id)
        given = await pursue(call, identity, opening)
        if given.status < 300:
            call.gateway.owners.learn(identity.resource_id, user_id)
        if given.status == 201:
            await _until_listed(call, user_id, identity.resource_id)
        return given

    return await once(call, identify(call), first)


async def _until_listed(call: Call, user_id: str, account_id: str) -> None:
    """The list of a user's accounts is a fact behind: one that was told of 201 finds it there."""
    queries, end_s = call.gateway.queries, time.monotonic() + LISTED_S
    partition = queries.partition(user_id)
    with suppress(Problem):  # the list is moving: the account is open all the same
        while time.monotonic() < end_s:
            head = await queries.row("user", user_id, accounts_of_key(user_id), versioned=False)
            count = head["accounts"] if head else 0
            keys = [account_of_key(user_id, at) for at in range(max(0, count - NEWEST), count)]
            entries = (await queries.rows("user", partition, keys)).values()
            if any(entry is not None and entry["account_id"] == account_id for entry in entries):
                return
            await asyncio.sleep(0.01)


class _Opening:
    """OpenAccount on its way."""

    service = "account"

    def __init__(self, call: Call, identity: Identity, body: NewAccount, user_id: str) -> None:
        self.call, self.identity = call, identity
        self.key = self.aggregate_id = identity.resource_id
        self.location = f"/api/accounts/{self.key}"
        self.named = {"account_id": self.key}
        self.command = OpenAccount(
            account_id=self.key,
            user_id=user_id,
            name=body.name or "",
            currencies=tuple(body.currencies),
            overdraft_limits=dict(body.overdraft_limits or {}),
            actor_id=call.caller.user_id,
            request_hash=identity.request_hash,
        )

    def heard(self, heard: Heard) -> Answer | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, AccountCommandRefused):
            return refused(self.call, event.reason, self.named)
        if not isinstance(event, AccountOpened):
            return None
        row = ACCOUNT.evolve({}, event)[account_key(self.key)]
        self.call.gateway.reads.told(self.call, ACCOUNTS, self.key, event.version)
        return answer(views.account(views.plain(row)), 201)

    async def looked(self) -> Answer | None:
        row = await read(self.call, self.key)
        if row is None:
            return None
        if row["request_hash"] != self.identity.request_hash:
            return refused(self.call, Reason.IDEMPOTENCY_MISMATCH, self.named)
        return answer(views.account(row), 201)


class Management(NamedTuple):
    """A command that changes an account's status, what it says, and the status then."""

    command: type[FreezeAccount | UnfreezeAccount | CloseAccount | ArchiveAccount]
    event: type[AccountFrozen | AccountUnfrozen | AccountClosed | AccountArchived]
    status: Status


FREEZE = Management(FreezeAccount, AccountFrozen, Status.FROZEN)
UNFREEZE = Management(UnfreezeAccount, AccountUnfrozen, Status.OPEN)
CLOSE = Management(CloseAccount, AccountClosed, Status.CLOSED)
ARCHIVE = Management(ArchiveAccount, AccountArchived, Status.ARCHIVED)


async def freeze(call: Call) -> Answer:
    return await _manage(call, FREEZE)


async def unfreeze(call: Call) -> Answer:
    return await _manage(call, UNFREEZE)


async def close(call: Call) -> Answer:
    """The owner closes, or an operator."""
    return await _manage(call, CLOSE)


async def archive(call: Call) -> Answer:
    """Likewise. The account is read as before, and in the list of archived ones alone."""
    return await _manage(call, ARCHIVE)


async def _manage(call: Call, management: Management) -> Answer:
    """202, or 200 with the account when the client waits; 422 with why not."""
    account_id = call.names["account_id"]
    owner_id = await call.gateway.owners.of(account_id)
    if owner_id is None or not (call.caller.may(auth.FREEZERS) or owner_id == call.caller.user_id):
        raise not_found("no such account, or not yet")

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Managed(call, identity, account_id, management))

    return await once(call, identify(call), first)


class _Managed:
    """A change of status on its way."""

    service = "account"

    def __init__(
        self, call: Call, identity: Identity, account_id: str, management: Management
    ) -> None:
        self.call, self.identity, self.management = call, identity, management
        self.key = self.aggregate_id = account_id
        self.location = f"/api/accounts/{account_id}"
        self.named = {"account_id": account_id}
        self.command = management.command(account_id=account_id, actor_id=call.caller.user_id)

    def heard(self, heard: Heard) -> Answer | Look | None:
        event = heard.event
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(event, AccountCommandRefused):
            return refused(self.call, event.reason, self.named)
        if isinstance(event, self.management.event):
            self.call.gateway.reads.told(self.call, ACCOUNTS, self.key, event.version)
            return LOOK
        return None

    async def looked(self) -> Answer | None:
        row = await read(self.call, self.key)
        if row is None or row["status"] != self.management.status:
            return None
        return answer(views.account(row))


async def read(call: Call, account_id: str) -> Row | None:
    return await call.gateway.queries.row("account", account_id, account_key(account_id))


async def get(call: Call) -> Answer:
    row = await mine(call)
    return answer(views.picked(views.account(row), call.query.get("fields")))


async def mine(call: Call) -> Row:
    """The account, now or then, if the caller may see it; 404 else."""
    account_id, at_ms = call.names["account_id"], moment_in(call.query)
    if at_ms is None:
        row = await call.gateway.reads.row(call, ACCOUNTS, account_id)
    else:
        row = await call.gateway.past.row("account", account_key(account_id), at_ms)
        call.read_source = LOG
    if row is None or not (
        row["user_id"] == call.caller.user_id or call.caller.may(auth.STAFF_READS)
    ):
        raise not_found("no such account, or not yet, or not then")
    call.gateway.owners.learn(row["account_id"], row["user_id"])
    return row


async def listing(call: Call) -> Answer:
    """In the order of their opening, archived ones if asked for. Staff may ask for another user's."""
    listed = await lists.accounts(call, await pages.user_of(call), call.query.get("status"))
    items: list[Any] = [
        views.picked(views.account(row), call.query.get("fields")) for row in listed.rows
    ]
    return answer({"items": items, "next_cursor": listed.next_cursor})


async def entries(call: Call) -> Answer:
    """What was posted to an account, the oldest first: the stores alone know."""
    account_id = (await mine(call))["account_id"]
    reads, limit, start = call.gateway.reads, pages.limit_of(call), lists.cursor_of(call)
    wanted = Wanted(account_id=account_id, currency=call.query.get("currency"))

    async def of_store(store: Questions) -> Page:
        return await store.entries(wanted, start.place, limit)

    page = await reads.ask(call, "entries", of_store, kinds=(ACCOUNTS, TRANSACTIONS))
    items = [views.picked(views.entry(row), call.query.get("fields")) for row in page.items]
    return answer({"items": items, "next_cursor": lists.Listed((), lists.behind(page)).next_cursor})
