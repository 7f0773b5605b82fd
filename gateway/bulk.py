"""Many orders in one request: each is taken, refused and remembered as if it had come alone.

All that are taken go to the broker in one round; the answer comes when it has acknowledged them. Where
the client waits for their ends the rows are asked for together until all have one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from domain.account import account_key
from domain.saga import Reason
from domain.transaction import transaction_key
from gateway import transactions
from gateway.answer import Answer, answer, problem_answer
from gateway.errors import CODES, FieldError, Problem
from gateway.headers import NOTHING
from gateway.idempotency import hash_of, key_of
from gateway.models import Bulk, NewTransaction, validated
from gateway.reads import ACCOUNTS, TRANSACTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.call import Call
    from gateway.queries import Row

PATH = "/api/transactions"
ENDS = ("completed", "failed", "cancelled")
FIRST_LOOK_S, LOOK_S = 0.05, 0.5


async def create(call: Call) -> Answer:
    """One result for each order, in their order: 200 when all are known, 202 while some are pending."""
    body = call.body
    assert isinstance(body, Bulk)
    items = body.root
    await _learn_owners(call, items)
    tasks: list[asyncio.Task[Answer]] = []
    last: dict[str, asyncio.Task[Answer]] = {}  # by key: a key that comes again waits for the first
    for item in items:
        key = _key(item)
        task = asyncio.create_task(_one(call, item, last.get(key or "")))
        tasks.append(task)
        if key is not None:
            last[key] = task
    given = await asyncio.gather(*tasks)
    results = [
        _result(at, item, one) for at, (item, one) in enumerate(zip(items, given, strict=True))
    ]
    if call.prefer.wait_s:
        await _wait(call, results, items, time.monotonic() + call.prefer.wait_s)
    pending = any(result["status"] == "pending" for result in results)
    headers = {"Location": PATH, **call.prefer.applied}
    return answer({"items": results}, 202 if pending else 200, headers=headers)


async def _learn_owners(call: Call, items: Iterable[Any]) -> None:
    """Who owns the accounts, asked for together; of what does not answer each order asks again."""
    owners, queries = call.gateway.owners, call.gateway.queries
    members = ("source_account_id", "destination_account_id")
    told = [item.get(name) for item in items if isinstance(item, dict) for name in members]
    # what is no id at all is for its order's validation to refuse, not for all orders to fail by
    named = {one for one in told if isinstance(one, str) and one.isascii()}
    wanted = [one for one in named if owners.known(one) is None]
    try:
        rows = await queries.gather("account", ((one, account_key(one)) for one in wanted))
    except Problem:
        return
    for row in rows.values():
        if row is not None:
            owners.learn(row["account_id"], row["user_id"])


async def _one(call: Call, item: Any, after: asyncio.Task[Answer] | None) -> Answer:
    if after is not None:
        await asyncio.wait([after])
    try:
        return await transactions.create(_alone(call, item))
    except Problem as problem:
        return problem_answer(problem, PATH, call.trace.trace_id)


def _alone(call: Call, item: Any) -> Call:
    """The call as it would be if the order had come alone, with its key in the header."""
    if isinstance(item, Problem):
        raise item
    if not isinstance(item, dict):
        raise _wrong("", "NOT_AN_OBJECT", "is no object")
    order = {name: value for name, value in item.items() if name != "idempotency_key"}
    key = item.get("idempotency_key")
    if key is None:
        raise Problem("IDEMPOTENCY_KEY_MISSING", "each order of a bulk has its idempotency_key")
    if not isinstance(key, str):
        raise _wrong("/idempotency_key", "NOT_A_STRING", "is no text")
    body = validated(NewTransaction, order)
    if body.dry_run:
        raise _wrong("/dry_run", "NOT_ALLOWED", "has no place in a bulk")
    return replace(
        call,
        path=PATH,
        route=f"POST {PATH}",
        body=body,
        raw_body=order,
        idempotency_key=key_of(key),
        prefer=NOTHING,
    )


async def _wait(
    call: Call, results: Iterable[dict[str, Any]], items: Sequence[Any], end_s: float
) -> None:
    """Put the ends into the results as they come, until all are there or the time is over."""
    pending = [result for result in results if result["status"] == "pending"]
    pause_s = FIRST_LOOK_S
    while pending and (left_s := end_s - time.monotonic()) > 0:
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LOOK_S)
        asked = ((one["transaction_id"], transaction_key(one["transaction_id"])) for one in pending)
        try:
            rows = await call.gateway.queries.gather("transaction", asked)
        except Problem:  # the partition is moving: look again
            continue
        for result in pending:
            row = rows[transaction_key(result["transaction_id"])]
            if row is not None:
                _end(call, result, row, items[result["index"]])
        pending = [result for result in pending if result["status"] == "pending"]


def _end(call: Call, result: dict[str, Any], row: Row, item: Any) -> None:
    status, code = row["status"], row["reason"]
    order = {name: value for name, value in item.items() if name != "idempotency_key"}
    if row["request_hash"] != hash_of(order):
        status, code = "refused", Reason.IDEMPOTENCY_MISMATCH
    result["status"] = str(status)
    if code is not None:
        result["code"], result["detail"] = str(code), CODES[code][1]
    reads = call.gateway.reads
    if status in ENDS:
        reads.told(call, TRANSACTIONS, result["transaction_id"], row["version"])
        for balance in row["balances"]:
            reads.told(call, ACCOUNTS, balance["account_id"], balance["version"])


def _wrong(pointer: str, code: str, detail: str) -> Problem:
    error = FieldError(pointer=pointer, code=code, detail=detail)
    return Problem("INVALID_BODY", f"{pointer or 'the order'}: {detail}", errors=(error,))


def _key(item: Any) -> str | None:
    key = item.get("idempotency_key") if isinstance(item, dict) else None
    return key if isinstance(key, str) and key.isascii() else None


def _result(at: int, item: Any, given: Answer) -> dict[str, Any]:
    said = orjson.loads(given.body)
    refusal = given.status >= 400
    ended = said.get("transaction", {}).get("status") if refusal else said["status"]
    unknown = "unknown" if given.status >= 500 else "refused"
    return {
        "index": at,
        "idempotency_key": _key(item),
        "status": ended if ended in (*ENDS, "pending") else unknown,
        "transaction_id": said.get("transaction_id"),
        "code": said["code"] if refusal else None,
        "detail": said["detail"] if refusal else None,
        "errors": said.get("errors") if refusal else None,
    }
