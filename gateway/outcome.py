r"""From a command to its answer: once for a key, and waiting as long as the client prefers.

    begin (Idempotency-Key) --> watch --> send --> hear, look --> answer
                                            \--> 202, when nobody waits or the time is over

What became of a command is heard from its service's events. A repeat of a finished command causes
no event, so the row is looked at too.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.answer import Answer, answer, problem_answer
from gateway.errors import CODES, FieldError, Problem
from gateway.idempotency import hash_of, named, scope_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from domain.saga import Reason
    from gateway.call import Call
    from gateway.waiting import Heard


class Look(Enum):
    LOOK = "look"


LOOK: Final = Look.LOOK
FIRST_LOOK_S = 0.5  # after so long without an event the row is looked at
LOOK_S = 1.0
SHOWN_S = 1.0  # a worker that committed shows the row within milliseconds


@dataclass(frozen=True, slots=True)
class Identity:
    """What a request is called everywhere: `scope` names what it creates, `command_id` the command."""

    scope: uuid.UUID
    command_id: str
    request_hash: str
    repeated: bool = False  # its first answer was 202: accepted, not to be sent again

    @property
    def resource_id(self) -> str:
        return str(self.scope)

    def again(self) -> Identity:
        return Identity(self.scope, self.command_id, self.request_hash, repeated=True)


class Pursuit(Protocol):
    """One command on its way: what it is, and how its end is recognised."""

    service: str  # whose inbox
    key: str  # the inbox key
    aggregate_id: str  # whose events tell the end
    command: Any
    location: str
    named: dict[str, str]  # the members of a 202 that name the resource

    @abstractmethod
    def heard(self, heard: Heard) -> Answer | Look | None:
        """The answer, if this event is the end; LOOK if it is and the rows tell the answer."""

    @abstractmethod
    async def looked(self) -> Answer | None:
        """The answer, if the rows show the end."""


def identify(call: Call, caller: str | None = None, request_hash: str | None = None) -> Identity:
    """Names a request after caller, route and key, and its command after the body too.

    `caller`: what stands for one without token.
    """
    scope = scope_of(
        caller or call.caller.user_id, f"{call.route} {call.path}", call.idempotency_key
    )
    request_hash = request_hash or hash_of(call.raw_body)
    if call.idempotency_key is None:
        return Identity(scope, str(uuid.uuid4()), request_hash)
    return Identity(scope, str(named(scope, request_hash)), request_hash)


async def once(
    call: Call, identity: Identity, first: Callable[[Identity], Awaitable[Answer]]
) -> Answer:
    """Do it for the first request of a key; give a repeat its answer again."""
    if call.idempotency_key is None:
        return await first(identity)
    memory, scope = call.gateway.idempotency, identity.scope
    entry = memory.begin(scope, identity.request_hash)
    if entry is None:
        given = await _known_elsewhere(call, identity)
        if given is None:
            return await _remembered(call, identity, first)
        memory.finish(scope, given)
    else:
        given = entry.answer
    if given is None or given.status == 202:
        given = await first(identity.again())
        memory.finish(scope, given)
        call.gateway.shared.finish(scope, identity.request_hash, given)
    headers = {**given.headers, **call.prefer.applied, "Idempotent-Replayed": "true"}
    if not call.prefer.applied:
        headers.pop("Preference-Applied", None)
    return Answer(given.status, given.body, headers, given.content_type)


async def _known_elsewhere(call: Call, identity: Identity) -> Answer | None:
    """What another process answered first under this key."""
    try:
        return await call.gateway.shared.begin(identity.scope, identity.request_hash)
    except BaseException:
        call.gateway.idempotency.forget(identity.scope)
        raise


async def _remembered(
    call: Call, identity: Identity, first: Callable[[Identity], Awaitable[Answer]]
) -> Answer:
    memory = call.gateway.idempotency
    try:
        given = await first(identity)
    except BaseException:
        memory.forget(identity.scope)
        call.gateway.shared.forget(identity.scope, identity.request_hash)
        raise
    memory.finish(identity.scope, given)
    call.gateway.shared.finish(identity.scope, identity.request_hash, given)
    return given


async def pursue(call: Call, identity: Identity, pursuit: Pursuit) -> Answer:
    """Send the command, unless it was, and answer as the client prefers."""
    gateway = call.gateway
    wait_s = call.prefer.wait_s
    if identity.repeated:
        if (found := await _look(pursuit)) is not None:
            return _with(found, pursuit, call)
        if not wait_s:
            return _accepted(pursuit, call)
    if not wait_s:
        await _send(call, identity, pursuit)
        return _accepted(pursuit, call)
    with gateway.waiting.watch(pursuit.service, pursuit.aggregate_id) as watch:
        if not identity.repeated:
            await _send(call, identity, pursuit)
        end_s = time.monotonic() + wait_s
        look_s = time.monotonic() + (0 if identity.repeated else FIRST_LOOK_S)
        while (now_s := time.monotonic()) < end_s:
            heard = await watch.next(min(end_s, look_s) - now_s)
            said = pursuit.heard(heard) if heard is not None else None
            found = await _until_shown(pursuit) if said is LOOK else said
            if found is None and time.monotonic() >= look_s:
                look_s = time.monotonic() + LOOK_S
                found = await _look(pursuit)
            if found is not None:
                return _with(found, pursuit, call)
    return _accepted(pursuit, call)


async def _until_shown(pursuit: Pursuit) -> Answer | None:
    """The end was heard of: look until the rows show it."""
    end_s = time.monotonic() + SHOWN_S
    while True:
        found = await _look(pursuit)
        if found is not None or time.monotonic() > end_s:
            return found
        await asyncio.sleep(0.01)


async def _look(pursuit: Pursuit) -> Answer | None:
    """The rows may be moving while the command is on its way: then the events tell, or 202 does."""
    try:
        return await pursuit.looked()
    except Problem as problem:
        if problem.status != 503:
            raise
        return None


async def _send(call: Call, identity: Identity, pursuit: Pursuit) -> None:
    await call.gateway.commands.send(
        pursuit.service,
        pursuit.key,
        pursuit.command,
        command_id=identity.command_id,
        traceparent=call.trace.traceparent,
        actor_id=call.caller.user_id,
        origin=call.origin,
    )


def _accepted(pursuit: Pursuit, call: Call) -> Answer:
    headers = {"Location": pursuit.location, **call.prefer.applied}
    return answer({**pursuit.named, "status": "pending"}, 202, headers=headers)


def _with(found: Answer, pursuit: Pursuit, call: Call) -> Answer:
    found.headers.update({"Location": pursuit.location, **call.prefer.applied})
    return found


def refused(call: Call, reason: Reason | str, named: dict[str, str], **members: Any) -> Answer:
    """The answer to a command that its service refused: 422 (or what the code's status is)."""
    code = str(reason)
    errors = (FieldError(pointer="", code=code, detail=CODES[code][1]),)
    problem = Problem(code, errors=errors, members={"reason": code, **named, **members})
    return problem_answer(problem, call.path, call.trace.trace_id)
