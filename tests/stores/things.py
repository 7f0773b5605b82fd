"""Documents, facts and entries that tests write into a store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from domain.analytics import NOTHING, Interval, Window, start_of, window_key
from stores.catalog import BY_NAME, KINDS, Batch, Change, Entry, Link, Said, change, json_of
from stores.questions import Wanted
from tests.domain.stories import NOON_MS, order

if TYPE_CHECKING:
    from stores.catalog import Document, Kind

USERS, ACCOUNTS, TRANSACTIONS, PAYMENTS, NOTIFICATIONS, REVIEWS, BLACKLIST = KINDS[:7]
RATES, RATE_HISTORY, QUOTES = (BY_NAME[name] for name in ("rates", "rate_history", "quotes"))
WINDOWS = BY_NAME["analytics_events"]


def user(name: str, version: int = 1, /, **more: Any) -> Change:
    document = {
        "user_id": name,
        "email": f"{name}@example.org",
        "name": name,
        "roles": ["customer"],
        "kyc_level": 0,
        "kyc_status": "unverified",
        "email_confirmed": False,
        "phone": "",
        "language": "",
        "claim_id": "",
        "version": version,
        "created_ms": NOON_MS,
        "updated_ms": NOON_MS + version,
        **more,
    }
    return Change(kind=USERS, key=name, version=version, document=document)


def account(account_id: str, owner: str, at_ms: int = NOON_MS, **more: Any) -> Change:
    document = {
        "account_id": account_id,
        "user_id": owner,
        "name": "",
        "status": "open",
        "balances": {"USD": 0},
        "version": 1,
        "created_ms": at_ms,
        **more,
    }
    return Change(kind=ACCOUNTS, key=account_id, version=1, document=document)


def transaction(name: str, at_ms: int = NOON_MS, version: int = 1, **more: Any) -> Change:
    """An order of `tests.domain.stories`; what Order has goes there, the rest into the row."""
    ordered = {key: more.pop(key) for key in tuple(more) if key in ORDERED}
    document = {
        "order": json_of(order(transaction_id=name, created_ms=at_ms, **ordered)),
        "description": "",
        "reference": "",
        "metadata": {},
        "status": "pending",
        "version": version,
        "created_ms": at_ms,
        "updated_ms": at_ms,
        **more,
    }
    return Change(kind=TRANSACTIONS, key=name, version=version, document=document)


ORDERED = ("owner_id", "source_account_id", "destination_account_id", "amount_minor", "currency")


def listed(value: str, at_ms: int = NOON_MS) -> Change:
    document = {
        "kind": "user",
        "value": value,
        "note": "",
        "at_ms": at_ms,
        "listed": True,
        "owner_id": None,
    }
    return Change(kind=BLACKLIST, key=f"user/{value}", version=at_ms, document=document)


def rate(quote: str, version: int, at_ms: int = NOON_MS, *, past: bool = False) -> Change:
    """A rate of the euro as it is, or as it was."""
    key = f"EUR-{quote}"
    document = {
        "pair": key, "base": "EUR", "quote": quote, "rate": f"1.{version}", "spread_ppm": 0,
        "source": "feed", "as_of_ms": at_ms, "expires_ms": at_ms + 1, "version": version,
        "at_ms": at_ms,
    }  # fmt: skip
    if past:
        key = f"{key}/{10**13 - 1 - at_ms:013d}.{10**9 - 1 - version:09d}"
    return Change(kind=RATE_HISTORY if past else RATES, key=key, version=version, document=document)


def unlisted(value: str) -> Change:
    return Change(kind=BLACKLIST, key=f"user/{value}", version=0, document=None)


def document(kind: Kind, key: str, **fields: Any) -> Change:
    return Change(kind=kind, key=key, version=1, document=fields)


def fact(event_id: str, at_ms: int = NOON_MS, **more: Any) -> Said:
    fields: dict[str, Any] = {
        "service": "account",
        "type": "AccountDebited",
        "aggregate_id": "ada",
        "transaction_id": "t1",
        "actor_id": "u-ada",
        "correlation_id": None,
        "causation_id": None,
        "trace_id": None,
        "address": None,
        "request_id": None,
        "partition": 0,
        "offset": 0,
        "data": {},
        **more,
    }
    return Said(event_id=event_id, at_ms=at_ms, **fields)


def entry(event_id: str, number: int = 0, at_ms: int = NOON_MS, **more: Any) -> Entry:
    fields: dict[str, Any] = {
        "account": "ada",
        "currency": "USD",
        "amount_minor": -2_000,
        "balance_minor": 0,
        "transaction_id": "t1",
        **more,
    }
    return Entry(event_id=event_id, number=number, at_ms=at_ms, **fields)


def link(chain: str, offset: int, number: int = 0) -> Link:
    return Link(
        entry=f"{chain}-{offset}",
        chain=chain,
        offset=offset,
        number=number,
        link=f"{number:064x}",
        at_ms=NOON_MS,
    )


def window(interval: Interval, start_ms: int, share: int = 0, version: int = 1) -> Change:
    """A window with one transfer."""
    figures = {"transfer/USD": replace(NOTHING, completed=version, volume_minor=2_000)}
    row = Window(interval=interval, start_ms=start_ms, figures=figures, version=version)
    found = change(WINDOWS, window_key(interval, start_ms, share), row)
    assert found is not None
    return found


def batch(*things: Change | Said | Entry | Link) -> Batch:
    made = Batch()
    for thing in things:
        match thing:
            case Change():
                made.add(thing)
            case Said():
                made.events.append(thing)
            case Entry():
                made.entries.append(thing)
            case Link():
                made.links.append(thing)
    return made


def names(items: list[Document] | Any, field: str = "account_id") -> list[Any]:
    return [item[field] for item in items]


async def links_and_windows(store: Any) -> None:
    """What any store does with what audit and analytics make of facts."""
    chain, log = ("audit.events", 0), ("analytics-table-changelog", 0)
    await store.write(
        chain, 0, 2, batch(link("account.events-0", 3), link("account.events-0", 5, 1))
    )
    await store.write(chain, 2, 3, batch(link("account.events-0", 5, 9)))  # told again, otherwise
    asked = ["account.events-0-5", "account.events-0-3", "account.events-1-3"]
    assert await store.links(asked) == {
        "account.events-0-3": f"{0:064x}",
        "account.events-0-5": f"{1:064x}",
    }
    assert await store.links([]) == {}
    at = [start_of(NOON_MS, Interval.HOUR) + n * 60_000 for n in range(4)]
    minutes = [window(Interval.MINUTE, one, share) for one in at for share in (0, 1)]
    await store.write(log, 0, 9, batch(*minutes, window(Interval.HOUR, at[0])))
    newer = window(Interval.MINUTE, at[1], 1, version=2)
    gone = Change(kind=WINDOWS, key=minutes[0].key, version=0, document=None)
    await store.write(log, 9, 11, batch(newer, gone))
    wanted = Wanted(type="minute", from_ms=at[0], to_ms=at[2])
    page = await store.windows(wanted, None, 2)
    rest = await store.windows(wanted, page.following, 2)
    assert [*page.items, *rest.items] == [
        minutes[1].document,
        minutes[2].document,
        newer.document,
    ]
    assert rest.following is None
