"""Lists: `?limit=`, an opaque `?cursor=`, and whose list it is."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from gateway import auth
from gateway.errors import Problem

if TYPE_CHECKING:
    from gateway.call import Call

LIMIT, DEFAULT = 200, 50


def limit_of(call: Call) -> int:
    """How many items a page has: 1 to 200."""
    text = call.query.get("limit", str(DEFAULT))
    short = text.isascii() and text.isdecimal() and len(text) < 10
    if not short or not 1 <= int(text) <= LIMIT:
        raise Problem("BAD_QUERY", f"limit is a number from 1 to {LIMIT}")
    return int(text)


def cursor(place: int | str) -> str:
    """A place in a list as clients carry it."""
    return base64.urlsafe_b64encode(f"v1:{place}".encode()).decode().rstrip("=")


def text_of(call: Call) -> str | None:
    """The place in `?cursor=`; 400 for one that is not ours."""
    given = call.query.get("cursor")
    if not given:
        return None
    try:
        text = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode()
    except (binascii.Error, ValueError) as exc:
        raise _bad() from exc
    if not text.startswith("v1:"):
        raise _bad()
    return text[3:]


def place_of(call: Call, start: int) -> int:
    """The place in `?cursor=` as a number up to `start`; `start` without a cursor."""
    text = text_of(call)
    if text is None:
        return start
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise _bad()
    return min(int(text), start)


async def user_of(call: Call) -> str:
    """Whose list: the caller's own; staff may name a user, or an account and mean its owner."""
    user_id, account_id = call.query.get("user_id"), call.query.get("account_id")
    if user_id is not None and user_id != call.caller.user_id:
        if not call.caller.may(auth.STAFF_READS):
            raise Problem("FORBIDDEN", "you may list your own alone")
        return user_id
    if user_id is None and account_id is not None and call.caller.may(auth.STAFF_READS):
        return await call.gateway.owners.of(account_id) or call.caller.user_id
    return call.caller.user_id


def _bad() -> Problem:
    return Problem("BAD_QUERY", "the cursor is none of this list's")
