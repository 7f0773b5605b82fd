"""All of a user on one page, gathered from several services at once.

    profile, accounts, transactions, notifications --each within PART_S--> one answer

A part that is down, or takes too long, is null and named; the others are there all the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from domain.person import Role
from gateway import accounts, auth, notifications, transactions, users
from gateway.answer import Answer, answer
from gateway.errors import Problem, not_found
from gateway.permissions import granted

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.call import Call

PART_S = 3.0
NEWEST = 10  # transactions and notifications
DOWN = object()


async def get(call: Call) -> Answer:
    """One's own; anybody's to staff."""
    user_id = call.names["user_id"]
    if user_id != call.caller.user_id and not call.caller.may(auth.STAFF_READS):
        raise not_found("no such user, or not yet")
    found = await asyncio.gather(
        _part(_items(accounts.listing(_of(call, user_id)))),
        _part(_items(transactions.listing(_of(call, user_id, limit=str(NEWEST))))),
        _part(_items(notifications.listing(_of(call, user_id, limit=str(NEWEST))))),
        _part(_profile(call)),
    )
    shown = dict(zip(("accounts", "transactions", "notifications", "profile"), found, strict=True))
    down = [name for name, part in shown.items() if part is DOWN]
    profile = None if "profile" in down else shown["profile"]
    roles = frozenset(Role(role) for role in profile["roles"]) if profile else frozenset()
    parts = {name: None if part is DOWN else part for name, part in shown.items()}
    return answer({"user_id": user_id, "permissions": granted(roles), **parts, "unavailable": down})


def _of(call: Call, user_id: str, **query: str) -> Call:
    """The call as the part's own route would get it."""
    return replace(call, query={"user_id": user_id, **query})


async def _part(asked: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(PART_S):
            return await asked
    except TimeoutError:
        return DOWN
    except Problem as problem:
        if problem.status != 503:
            raise
        return DOWN


async def _items(asked: Awaitable[Answer]) -> Any:
    return orjson.loads((await asked).body)["items"]


async def _profile(call: Call) -> Any:
    return orjson.loads((await users.get(replace(call, query={}))).body)
