"""The lists of `stores.questions` in MongoDB, and the indexes that answer them.

A list is sorted by time and then by _id, and each of its indexes is what it is narrowed to first,
then that order: `{order.owner_id: 1, created_ms: -1, _id: -1}`. A page begins where the last ended,
at an index entry, never at a count. No index is unique but that of _id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, DESCENDING, TEXT, IndexModel

from stores.catalog import ENTRIES, EVENTS, KINDS, LINKS
from stores.mongo_form import ACCOUNTS, GONE
from stores.mongo_form import field as named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stores.questions import Place, Wanted

DELETED_S = 24 * 3600  # how long what is left of a deleted document outlives it


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list: where it is, its order, and what it can be narrowed to."""

    collection: str
    time: str
    newest_first: bool = False
    leads: Mapping[str, str] = field(default_factory=dict)  # of Wanted: path; each with its index
    also: Mapping[str, str] = field(default_factory=dict)  # likewise; looked at while going along
    members: Mapping[str, str] = field(default_factory=dict)  # likewise; a map that must have it
    by_time: bool = False  # may be asked without any lead

    @property
    def order(self) -> list[tuple[str, int]]:
        direction = DESCENDING if self.newest_first else ASCENDING
        return [(self.time, direction), ("_id", direction)]

    def indexes(self) -> list[IndexModel]:
        firsts = [[(path, ASCENDING)] for path in self.leads.values()]
        if self.by_time:
            firsts.append([])
        return [IndexModel([*first, *self.order]) for first in firsts]

    def filter(self, wanted: Wanted, after: Place | None) -> dict[str, Any]:
        """Raises ValueError for a narrowing that this list does not know, or for none it needs."""
        asked = {name: value for name, value in _given(wanted) if not name.endswith("_ms")}
        unknown = asked.keys() - self.leads.keys() - self.also.keys() - self.members.keys()
        if unknown:
            raise ValueError(f"{self.collection} can't be narrowed to {min(unknown)}")
        if not self.by_time and not asked.keys() & self.leads.keys():
            raise ValueError(f"{self.collection} are listed by {' or '.join(self.leads)}")
        found: dict[str, Any] = {GONE: {"$exists": False}} if self.collection in REMOVED else {}
        for name, value in asked.items():
            if name in self.members:
                found[f"{self.members[name]}.{named(value)}"] = {"$exists": True}
            else:
                found[self.leads.get(name) or self.also[name]] = {"$eq": value}
        times = self._times(wanted, after)
        if times:
            found[self.time] = times
        if after:
            beyond = "$lt" if self.newest_first else "$gt"
            at_ms, last = after
            found["$or"] = [{self.time: {beyond: at_ms}}, {"_id": {beyond: last}}]
        return found

    def _times(self, wanted: Wanted, after: Place | None) -> dict[str, int]:
        """The bounds in the index; what lies behind a place of the same time is left to its _id."""
        times = {}
        if wanted.from_ms is not None:
            times["$gte"] = wanted.from_ms
        if wanted.to_ms is not None:
            times["$lt"] = wanted.to_ms
        if after and self.newest_first:
            times["$lte"] = after[0]
        elif after:
            times["$gte"] = max(after[0], times.get("$gte", after[0]))
        return times


def _given(wanted: Wanted) -> Sequence[tuple[str, Any]]:
    values = ((name, getattr(wanted, name)) for name in wanted.__slots__)
    return [(name, value) for name, value in values if value is not None]


REMOVED = frozenset(kind.name for kind in KINDS if kind.removed)

ACCOUNTS_OF = Listing(
    collection="accounts",
    time="created_ms",
    leads={"owner_id": "user_id"},
    also={"status": "status"},
    members={"currency": "balances"},
)
TRANSACTIONS = Listing(
    collection="transactions",
    time="created_ms",
    newest_first=True,
    leads={"owner_id": "order.owner_id", "account_id": ACCOUNTS},
    also={
        "status": "status",
        "type": "order.type",
        "currency": "order.currency",
        "actor_id": "order.actor_id",
    },
    by_time=True,
)
NOTIFICATIONS = Listing(
    collection="notifications",
    time="at_ms",
    newest_first=True,
    leads={"owner_id": "user_id"},
    also={"type": "template", "status": "status", "channel": "channel"},
)
REVIEWS = Listing(
    collection="reviews",
    time="created_ms",
    leads={"status": "status"},
    also={"owner_id": "order.owner_id", "transaction_id": "order.transaction_id"},
    by_time=True,
)
BLACKLIST = Listing(collection="blacklist", time="at_ms", by_time=True)
POSTINGS = Listing(
    collection=ENTRIES,
    time="at_ms",
    leads={"account_id": "account", "transaction_id": "transaction_id"},
    also={"currency": "currency"},
)
FACTS = Listing(
    collection=EVENTS,
    time="at_ms",
    leads={
        "aggregate_id": "aggregate_id",
        "transaction_id": "transaction_id",
        "type": "type",
        "actor_id": "actor_id",
    },
    by_time=True,
)
WINDOWS = Listing(collection="analytics_events", time="start_ms", leads={"type": "interval"})
RATES = Listing(collection="rates", time="at_ms", by_time=True)
RATE_HISTORY = Listing(
    collection="rate_history", time="at_ms", newest_first=True, leads={"pair": "pair"}
)
LISTINGS = (
    ACCOUNTS_OF,
    TRANSACTIONS,
    NOTIFICATIONS,
    REVIEWS,
    BLACKLIST,
    POSTINGS,
    FACTS,
)  # of the first number


def _words(*paths: str) -> IndexModel:
    """Words as they are, in no language; no field of a document chooses another one."""
    return IndexModel(
        [(path, TEXT) for path in paths],
        name="words",
        default_language="none",
        language_override="_language",
    )


def _first() -> dict[str, list[IndexModel]]:
    made = {listing.collection: listing.indexes() for listing in LISTINGS}
    made[EVENTS].pop()  # came later
    made["users"] = [_words("name", "email")]
    made["transactions"].append(_words("description", "reference"))
    made["blacklist"].append(_gone())
    return made


def _gone() -> IndexModel:
    """Of a collection of REMOVED: lets what is left of deleted documents go."""
    return IndexModel([(GONE, ASCENDING)], expireAfterSeconds=DELETED_S)


def _settlements() -> dict[str, list[IndexModel]]:
    return {
        "settlements": [IndexModel([("day", DESCENDING), ("_id", ASCENDING)])],
        "settlement_items": [IndexModel([("batch_id", ASCENDING), ("_id", ASCENDING)])],
        "settlement_breaks": [_gone()],
    }


def _reports() -> dict[str, list[IndexModel]]:
    by_time = [("created_ms", DESCENDING), ("_id", ASCENDING)]
    of_schedule = [("schedule_id", ASCENDING), *by_time]
    return {"reports": [IndexModel(by_time), IndexModel(of_schedule)]}


# What each number of the database added, by collection. Only ever appended to.
MIGRATIONS: tuple[Mapping[str, Sequence[IndexModel]], ...] = (
    _first(),
    {listing.collection: listing.indexes() for listing in (RATES, RATE_HISTORY)},
    {
        EVENTS: FACTS.indexes()[-1:],
        "analytics_events": [*WINDOWS.indexes(), _gone()],
        LINKS: [IndexModel([("chain", ASCENDING), ("number", ASCENDING)])],
    },
    _settlements(),
    _reports(),
)


def indexes(name: str, number: int = len(MIGRATIONS)) -> list[IndexModel]:
    """All indexes of a collection at this number."""
    return [index for step in MIGRATIONS[:number] for index in step.get(name, ())]
