"""The questions that a store answers: the same in MongoDB and MySQL, so that one can stand in for the other.

Each is answered from an index and is bounded: a page of at most `limit` documents and where to go
on. All raise `stores.catalog.Unavailable` while the store does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from stores.catalog import Document

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stores.catalog import At, Kind

# the place behind a document in a list, which is sorted by time and then by id: opaque to clients
Place: TypeAlias = tuple[int, str]  # Unix ms, id


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Documents of a list, and the place from which the next page goes on; None: there is none."""

    items: Sequence[Document]
    following: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list is narrowed to; None or empty: not by this. Times are Unix ms, `to_ms` excluded."""

    owner_id: str | None = None  # whose: user_id of accounts, owner_id of transactions
    account_id: str | None = None  # of either side of a transaction
    transaction_id: str | None = None
    aggregate_id: str | None = None
    actor_id: str | None = None
    type: str | None = None
    status: str | None = None
    currency: str | None = None
    pair: str | None = None  # of currencies, as EUR-USD
    channel: str | None = None  # of notifications
    from_ms: int | None = None
    to_ms: int | None = None


class Questions(Protocol):
    """What a store answers. Documents are as `catalog.Change.document`: rows of the services' tables."""

    name: str

    async def document(self, kind: Kind, key: str) -> Document | None:
        """One document by its key."""

    async def documents(self, kind: Kind, keys: Collection[str]) -> Mapping[str, Document]:
        """Those of the keys that are there."""

    async def accounts(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """Accounts by owner, the oldest first."""

    async def transactions(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """Transactions by owner, account or time (one of them at least), the newest first."""

    async def notifications(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """A user's notifications, the newest first."""

    async def reviews(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """Reviews by status, the oldest first."""

    async def blacklist(self, after: Place | None, limit: int) -> Page:
        """What is on the blacklist, the oldest entry first."""

    async def rates(self, after: Place | None, limit: int) -> Page:
        """The rates of now, those first that were set the longest ago."""

    async def rate_history(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """The rates of a pair, the newest first."""

    async def entries(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """Ledger entries of an account or a transaction, the oldest first; the fields of `catalog.Entry`."""

    async def events(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """Facts by aggregate, transaction, type or actor, the oldest first; the fields of `catalog.Said`."""

    async def links(self, entries: Collection[str]) -> Mapping[str, str]:
        """The links of those entries of audit's chains that are there, hex, by where they lie."""

    async def windows(self, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """Windows of analytics by interval (`type`) and their start, the oldest first."""

    async def search_users(self, text: str, limit: int) -> Sequence[Document]:
        """Users whose name or e-mail has these words, the best match first."""

    async def search_transactions(
        self, text: str, wanted: Wanted, limit: int
    ) -> Sequence[Document]:
        """Wanted transactions whose description or reference has these words, the best match first."""

    async def positions(self) -> Mapping[At, int]:
        """Up to which offset each partition is in the store."""
