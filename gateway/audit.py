"""Audit over HTTP: who did what, whether the chains hold, and an export that proves itself."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web
from confluent_kafka import KafkaException

from gateway import lists, pages, views
from gateway.answer import Answer, answer
from gateway.answers import Shown
from gateway.errors import Problem, state_unavailable
from gateway.past import LOG
from stores.questions import Wanted
from travel.errors import BadMoment, Refused, TooLarge
from travel.export import Asked
from travel.moments import moment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from gateway.call import Call
    from gateway.queries import Row
    from stores.questions import Questions
    from travel.trail import Result

VERIFY_S, TRAIL_S, EXPORT_S = 60.0, 10.0, 60.0
EXPORT_LIMIT = 200_000  # entries and digests of one export; the command line has no limit
FINDINGS = 100
CHUNK = 1 << 16
IN_MEMORY = 1 << 20


class Fact(Shown):
    event_id: str
    service: str
    type: str
    entity: str
    transaction_id: str | None
    actor: str | None
    address: str | None
    request_id: str | None
    correlation_id: str | None
    trace_id: str | None
    at: str
    entry: str
    link: str | None
    data: dict[str, Any]


class Facts(Shown):
    items: list[Fact]
    next_cursor: str | None


class FoundWrong(Shown):
    what: str
    where: str
    event_id: str | None
    said: str


class Verified(Shown):
    intact: bool
    entries: int
    chains: int
    waiting: int
    checkpoints: int
    last_checkpoint: dict[str, Any] | None
    found: int
    findings: list[FoundWrong]


def asked_of(query: Mapping[str, str]) -> Asked:
    """`?entity=&actor=&from=&to=`; 400 for a time that is none."""
    times = {name: time_in(query, name) for name in ("from", "to")}
    if None not in times.values() and times["from"] >= times["to"]:  # type: ignore[operator]
        raise Problem("BAD_QUERY", "from must lie before to")
    for name in ("entity", "actor"):
        if (text := query.get(name)) is not None and not 0 < len(text) <= 200:
            raise Problem("BAD_QUERY", f"{name} is an id")
    return Asked(
        entity=query.get("entity"),
        actor=query.get("actor"),
        from_ms=times["from"],
        to_ms=times["to"],
    )


async def trail(call: Call) -> Answer:
    """Facts, the oldest first: of one entity they are the history of its changes."""
    asked, limit = asked_of(call.query), pages.limit_of(call)
    start = lists.cursor_of(call).place

    async def of_store(store: Questions) -> tuple[list[Row], str | None]:
        wanted = Wanted(
            aggregate_id=asked.entity,
            actor_id=asked.actor,
            from_ms=asked.from_ms,
            to_ms=asked.to_ms,
        )
        page = await store.events(wanted, start, limit)
        following = lists.behind(page)
        links = await store.links([entry_of(row) for row in page.items])
        rows = [{**row, "link": links.get(entry_of(row))} for row in page.items]
        return rows, following.text() if following else None

    if call.gateway.reads.has_stores:
        rows, following = await call.gateway.reads.ask(call, "events", of_store)
    else:
        rows, following = await _of_log(call, asked, start, limit)
    cursor = pages.cursor(following) if following is not None else None
    return answer({"items": [_fact(row) for row in rows], "next_cursor": cursor})


def entry_of(row: Row) -> str:
    """Where a fact lies: <topic>-<partition>-<offset>, as findings and exports name it."""
    return f"{row['service']}.events-{row['partition']}-{row['offset']}"


async def _of_log(call: Call, asked: Asked, start: Any, limit: int) -> tuple[list[Row], str | None]:
    call.read_source = LOG
    rows = await _told(call.gateway.past.trail(asked, TRAIL_S))
    if start is not None:
        rows = [row for row in rows if (row["at_ms"], row["event_id"]) > start]
    shown = rows[:limit]
    if len(rows) <= limit:
        return shown, None
    return shown, lists.Cursor(None, (shown[-1]["at_ms"], shown[-1]["event_id"])).text()


def time_in(query: Mapping[str, str], name: str) -> int | None:
    """A time in the query, Unix ms; 400 for what is none."""
    text = query.get(name)
    if text is None:
        return None
    try:
        return moment(text)
    except BadMoment as exc:
        raise Problem("BAD_QUERY", f"{name}: {exc}") from exc


async def _told(asking: Any) -> Any:
    """What the log says; 422 when it is too much, 503 when it takes too long."""
    try:
        return await asking
    except Refused as exc:
        raise Problem("AUDIT_BROKEN", str(exc)) from exc
    except TooLarge as exc:
        raise Problem("AUDIT_TOO_LARGE", str(exc)) from exc
    except (KafkaException, TimeoutError) as exc:
        raise state_unavailable("the log could not be read in time") from exc


def _fact(row: Row) -> dict[str, Any]:
    return {
        "event_id": row["event_id"],
        "service": row["service"],
        "type": row["type"],
        "entity": row["aggregate_id"],
        "transaction_id": row["transaction_id"],
        "actor": row["actor_id"],
        "address": row.get("address"),
        "request_id": row.get("request_id"),
        "correlation_id": row["correlation_id"],
        "trace_id": row["trace_id"],
        "at": views.time_of(row["at_ms"]),
        "entry": entry_of(row),
        "link": row.get("link"),
        "data": row["data"],
    }


async def verify(call: Call) -> Answer:
    """All chains computed again, or what came after the last checkpoint before `from`."""
    from_ms = time_in(call.query, "from")
    call.read_source = LOG
    done: Result = await _told(call.gateway.past.verified(from_ms, VERIFY_S))
    last = done.last
    return answer(
        {
            "intact": not done.found,
            "entries": done.entries,
            "chains": done.chains,
            "waiting": done.waiting,
            "checkpoints": done.checkpoints,
            "last_checkpoint": last
            and {"number": last.number, "hash": last.hash, "at": views.time_of(last.at_ms)},
            "found": done.found,
            "findings": [
                {"what": one.what, "where": one.where, "event_id": one.event_id, "said": one.said}
                for one in done.findings[:FINDINGS]
            ],
        }
    )


async def export(call: Call, request: web.Request) -> web.StreamResponse:
    """NDJSON with its proof: see docs/audit.md. It is complete before its first byte goes out."""
    asked = asked_of(call.query)
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
        await _told(call.gateway.past.exported(asked, file, EXPORT_LIMIT, EXPORT_S))
        headers = {
            **call.headers,
            "Content-Type": "application/x-ndjson",
            "Content-Disposition": 'attachment; filename="audit.ndjson"',
        }
        response = web.StreamResponse(headers=headers)
        with suppress(ConnectionResetError):  # the client went away
            await response.prepare(request)
            await _send(file, response)
    return response


async def _send(file: IO[bytes], response: web.StreamResponse) -> None:
    file.seek(0)
    while chunk := file.read(CHUNK):
        await response.write(chunk)
    await response.write_eof()
