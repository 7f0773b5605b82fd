"""Whose it is, or will be: what is not the caller's looks like what is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.saga import Reason
from domain.user import user_key
from gateway.errors import Problem, invalid

if TYPE_CHECKING:
    from gateway.call import Call


async def holder(call: Call, user_id: str | None, forbidden: str) -> str:
    """Whose a new thing will be: the caller's, or that of the user whom an operator names.

    `forbidden`: what a customer who names another one is told.
    """
    if user_id is None or user_id == call.caller.user_id:
        return call.caller.user_id
    if not call.caller.privileged:
        raise Problem("FORBIDDEN", forbidden)
    if await call.gateway.queries.row("user", user_id, user_key(user_id)) is None:
        raise invalid("/user_id", Reason.USER_NOT_FOUND, "is no user")
    return user_id


async def owner(call: Call, account_id: str, pointer: str) -> str:
    """Whose money it is: the caller's, or anyone's for those who may move it."""
    privileged = call.caller.privileged
    owner_id = await call.gateway.owners.of(account_id)
    if owner_id is None or not (privileged or owner_id == call.caller.user_id):
        detail = "is no account of yours" if not privileged else "is no account"
        raise invalid(pointer, Reason.ACCOUNT_NOT_FOUND, detail)
    return owner_id
