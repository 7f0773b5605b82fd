"""Risk over HTTP: the queue of reviews, a person's word on one, the blacklist."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from domain.blacklist import (
    AddToBlacklist,
    BlacklistEntryAdded,
    BlacklistEntryRemoved,
    BlacklistKind,
    RemoveFromBlacklist,
    blacklist_key,
)
from domain.risk import DecideReview, ReviewDecided, ReviewStatus, RiskCommandRefused, review_key
from gateway import lists, pages, scans, views
from gateway.answer import Answer, answer
from gateway.client import of_number
from gateway.errors import not_found, state_unavailable
from gateway.models import ReviewDecision
from gateway.outcome import LOOK, identify, once, pursue, refused
from gateway.reads import REVIEWS
from gateway.risk_models import BlacklistEntry, BlacklistRemoval, is_hash
from gateway.scans import Scanned
from stores.questions import Wanted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.call import Call
    from gateway.outcome import Identity, Look
    from gateway.queries import Row
    from gateway.waiting import Heard
    from stores.questions import Page, Place, Questions


async def reviews(call: Call) -> Answer:
    """One partition after another, each in the order of its keys. `?status=open` and the like."""
    status = call.query.get("status")

    async def of_tables() -> Scanned:
        return await scans.page(
            call, "risk", "review/", lambda row: status in (None, row["status"])
        )

    async def of_store(store: Questions, after: Place | None) -> Page:
        return await store.reviews(Wanted(status=status), after, pages.limit_of(call))

    rows, following = await _listed(call, "reviews", of_tables, of_store)
    return scans.shown(call, map(views.review, rows), following)


async def review(call: Call) -> Answer:
    row = await call.gateway.reads.row(call, REVIEWS, call.names["review_id"])
    if row is None:
        raise not_found("no such review, or not yet")
    return answer(views.picked(views.review(row), call.query.get("fields")))


async def blacklist(call: Call) -> Answer:
    """All partitions hold the whole blacklist: the first one answers."""
    kind = call.query.get("kind")

    async def of_tables() -> Scanned:
        prefix = f"blacklist/{kind}/" if kind else "blacklist/"
        return await scans.page(call, "risk", prefix, lambda _: True, copied=True)

    async def of_store(store: Questions, after: Place | None) -> Page:
        return await store.blacklist(after, pages.limit_of(call))

    rows, following = await _listed(call, "blacklist", of_tables, of_store)
    wanted = (row for row in rows if kind in (None, row["kind"]))
    return scans.shown(call, map(views.blacklisted, wanted), following)


async def _listed(
    call: Call,
    name: str,
    of_tables: Callable[[], Awaitable[Scanned]],
    of_store: Callable[[Questions, Place | None], Awaitable[Page]],
) -> Scanned:
    """The tables' list, or a store's while they are away. A list goes on in what it began in."""
    text = pages.text_of(call) or ""
    stored = lists.cursor_of(call) if text.startswith("|") else None

    async def in_store(store: Questions) -> Scanned:
        if text and stored is None:
            raise state_unavailable("this list began in the workers' tables; begin it anew")
        page = await of_store(store, stored.place if stored else None)
        following = lists.behind(page)
        return Scanned(page.items, following.text() if following else None)

    return await call.gateway.reads.ask(call, name, in_store, None if stored else of_tables)


async def decide(call: Call) -> Answer:
    """202, or 200 with the review when the client waits; 422 REVIEW_DECIDED."""
    body = call.body
    assert isinstance(body, ReviewDecision)
    review_id = call.names["review_id"]
    if await _review(call, review_id) is None:
        raise not_found("no such review, or not yet")

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Deciding(call, identity, review_id, body))

    return await once(call, identify(call), first)


class _Deciding:
    """DecideReview on its way."""

    service = "risk"

    def __init__(
        self, call: Call, identity: Identity, review_id: str, body: ReviewDecision
    ) -> None:
        self.call, self.identity = call, identity
        self.key = review_id.split(".")[0]
        self.aggregate_id = review_id
        self.location = f"/api/risk/reviews/{review_id}"
        self.named = {"review_id": review_id}
        approve = body.decision == "approve"
        self.status = ReviewStatus.APPROVED if approve else ReviewStatus.DECLINED
        self.command = DecideReview(
            review_id=review_id,
            approve=approve,
            deadline_s=call.gateway.settings.transaction_deadline_s,
            actor_id=call.caller.user_id,
            note=body.note or "",
        )

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        if isinstance(heard.event, RiskCommandRefused):
            return refused(self.call, heard.event.reason, self.named)
        return LOOK if isinstance(heard.event, ReviewDecided) else None

    async def looked(self) -> Answer | None:
        row = await _review(self.call, self.aggregate_id)
        if row is None or row["status"] != self.status:
            return None
        if row["actor_id"] != self.call.caller.user_id:
            return None
        return answer(views.review(row))


async def _review(call: Call, review_id: str) -> Row | None:
    owner_id = review_id.split(".")[0]
    return await call.gateway.queries.row("risk", owner_id, review_key(review_id))


async def add(call: Call) -> Answer:
    """202, or 201 with the entry: from then on no order of this user or account passes."""
    body = call.body
    assert isinstance(body, BlacklistEntry)
    command = AddToBlacklist(
        kind=BlacklistKind(body.kind),
        value=_value(call, body),
        note=body.note or "",
        actor_id=call.caller.user_id,
    )

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Listing(call, identity, command))

    return await once(call, identify(call), first)


async def remove(call: Call) -> Answer:
    """202, or 200 when the client waits. The entry stands in the body or in the query."""
    body = call.body
    assert isinstance(body, BlacklistRemoval)
    command = RemoveFromBlacklist(
        kind=BlacklistKind(body.kind), value=_value(call, body), actor_id=call.caller.user_id
    )

    async def first(identity: Identity) -> Answer:
        return await pursue(call, identity, _Listing(call, identity, command))

    return await once(call, identify(call), first)


def _value(call: Call, body: BlacklistRemoval) -> str:
    """An IBAN is listed by its hash; one that stands in the list may be named by that."""
    if body.kind != BlacklistKind.IBAN or is_hash(body.value):
        return body.listed
    return of_number(call.gateway.settings.fingerprint_secret, body.listed)


class _Listing:
    """A change of the blacklist on its way."""

    service = "risk"
    location = "/api/risk/blacklist"

    def __init__(
        self, call: Call, identity: Identity, command: AddToBlacklist | RemoveFromBlacklist
    ) -> None:
        self.call, self.identity, self.command = call, identity, command
        self.key = self.aggregate_id = command.value
        self.named = {"kind": str(command.kind), "value": command.value}
        self.adds = isinstance(command, AddToBlacklist)

    def heard(self, heard: Heard) -> Answer | Look | None:
        if not heard.answers(self.identity.command_id):
            return None
        said = isinstance(heard.event, BlacklistEntryAdded | BlacklistEntryRemoved)
        return LOOK if said else None

    async def looked(self) -> Answer | None:
        """Once every partition knows: whoever orders, it binds."""
        key = blacklist_key(self.command.kind, self.command.value)
        queries = self.call.gateway.queries
        asked = (queries.rows("risk", one, (key,)) for one in range(queries.partitions))
        rows = [found[key] for found in await asyncio.gather(*asked)]
        if any((row is not None) is not self.adds for row in rows):
            return None
        if rows[0] is None:
            return answer({**self.named, "removed": True})
        return answer(views.blacklisted(rows[0]), 201)
