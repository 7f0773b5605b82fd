r"""The blacklist: whom, and what, the bank does not deal with. It binds every order.

    AddToBlacklist --> BlacklistEntryAdded --a copy to each partition--> BlacklistApplied
                                     \--of a user: for each account they hold--> OwnerBarred --> …

An order names accounts, and the owner of its source alone. So that a blacklisted user can't receive
either, risk keeps which accounts a user holds (in the user's partition, as a chain: each row names
the account that was opened before), and bars each of them in all partitions. An account that a
blacklisted user opens is barred at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.account import AccountOpened
    from domain.decider import Changes, RowKey, Rows
    from domain.saga import Client, Order

HOLDER, HELD = "holder/", "held/"


class BlacklistKind(StrEnum):
    USER = "user"
    ACCOUNT = "account"
    IBAN = "iban"
    ADDRESS = "address"  # an IP address, or a network as `203.0.113.0/24`
    COUNTRY = "country"  # ISO 3166-1 alpha-2, of an IBAN or a card


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToBlacklist:
    """Decline whatever this takes part in. Arrives under `value`."""

    kind: BlacklistKind
    value: str
    note: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFromBlacklist:
    """Take an entry off the blacklist."""

    kind: BlacklistKind
    value: str
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlacklistEntryAdded:
    """An entry is on the blacklist; each risk partition hears it."""

    kind: BlacklistKind
    value: str
    note: str
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlacklistEntryRemoved:
    """An entry is off the blacklist; each risk partition hears it."""

    kind: BlacklistKind
    value: str
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlacklistApplied:
    """One risk partition knows of a change of the blacklist from here on."""

    kind: BlacklistKind
    value: str
    note: str
    present: bool
    at_ms: int
    owner_id: str | None = None  # the blacklisted user whose account this is: not listed by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAccountKept:
    """Risk knows that this user holds this account."""

    user_id: str
    account_id: str
    before: str | None  # the account that they opened before
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerBarred:
    """The owner of this account is on the blacklist (or, `present` false, no more): all hear it."""

    user_id: str
    account_id: str
    present: bool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blacklisted:
    """Row `blacklist/<kind>/<value>`, in each partition."""

    kind: BlacklistKind
    value: str
    note: str
    at_ms: int
    listed: bool = True  # by itself
    owner_id: str | None = None  # the blacklisted user whose account it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Row `holder/<user_id>`: the account that this user opened last."""

    user_id: str
    account_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Row `held/<user_id>/<account_id>`, and the account that was opened before it."""

    account_id: str
    before: str | None


Change = BlacklistEntryAdded | BlacklistEntryRemoved
Said = (
    BlacklistEntryAdded | BlacklistEntryRemoved | BlacklistApplied | HeldAccountKept | OwnerBarred
)


def change(command: AddToBlacklist | RemoveFromBlacklist, at_ms: int) -> Sequence[Said]:
    kind, value, actor_id = command.kind, command.value, command.actor_id
    if isinstance(command, RemoveFromBlacklist):
        return (BlacklistEntryRemoved(kind=kind, value=value, actor_id=actor_id, at_ms=at_ms),)
    return (
        BlacklistEntryAdded(
            kind=kind, value=value, note=command.note, actor_id=actor_id, at_ms=at_ms
        ),
    )


def apply(rows: Rows, fact: Change, at_ms: int) -> Sequence[Said]:
    """Where the accounts of the user are known, the last of them is barred next."""
    present = isinstance(fact, BlacklistEntryAdded)
    note = fact.note if isinstance(fact, BlacklistEntryAdded) else ""
    row: Blacklisted | None = rows.get(blacklist_key(fact.kind, fact.value))
    listed = row is not None and row.listed
    if listed is present and (row is None or not listed or row.note == note):
        return ()
    applied = BlacklistApplied(
        kind=fact.kind, value=fact.value, note=note, present=present, at_ms=at_ms
    )
    holder: Holder | None = rows.get(holder_key(fact.value))
    if fact.kind is not BlacklistKind.USER or holder is None or listed is present:
        return (applied,)
    return (applied, _barred(fact.value, holder.account_id, present, at_ms))


def keep_account(rows: Rows, fact: AccountOpened, at_ms: int) -> Sequence[Said]:
    user_id, account_id = fact.user_id, fact.account_id
    if held_key(user_id, account_id) in rows:
        return ()
    holder: Holder | None = rows.get(holder_key(user_id))
    before = holder.account_id if holder is not None else None
    kept = HeldAccountKept(user_id=user_id, account_id=account_id, before=before, at_ms=at_ms)
    if blacklist_key(BlacklistKind.USER, user_id) in rows:
        return (kept, _barred(user_id, account_id, True, at_ms))
    return (kept,)


def bar(rows: Rows, fact: OwnerBarred, at_ms: int) -> Sequence[Said]:
    """Each partition bars the account; the user's goes on to the one before it, as the user is now."""
    events: list[Said] = []
    row: Blacklisted | None = rows.get(blacklist_key(BlacklistKind.ACCOUNT, fact.account_id))
    if (row is not None and row.owner_id is not None) is not fact.present:
        events.append(
            BlacklistApplied(
                kind=BlacklistKind.ACCOUNT,
                value=fact.account_id,
                note="",
                present=fact.present,
                at_ms=at_ms,
                owner_id=fact.user_id,
            )
        )
    held: Held | None = rows.get(held_key(fact.user_id, fact.account_id))
    if held is not None and held.before is not None:
        present = blacklist_key(BlacklistKind.USER, fact.user_id) in rows
        events.append(_barred(fact.user_id, held.before, present, at_ms))
    return events


def _barred(user_id: str, account_id: str, present: bool, at_ms: int) -> OwnerBarred:
    return OwnerBarred(user_id=user_id, account_id=account_id, present=present, at_ms=at_ms)


def evolve(rows: Rows, event: Said) -> Changes:
    match event:
        case BlacklistApplied():
            key = blacklist_key(event.kind, event.value)
            return {key: _applied(rows.get(key), event)}
        case HeldAccountKept():
            held = Held(account_id=event.account_id, before=event.before)
            return {
                held_key(event.user_id, event.account_id): held,
                holder_key(event.user_id): Holder(
                    user_id=event.user_id, account_id=event.account_id
                ),
            }
        case BlacklistEntryAdded() | BlacklistEntryRemoved() | OwnerBarred():
            return {}


def _applied(row: Blacklisted | None, event: BlacklistApplied) -> Blacklisted | None:
    """None: neither listed by itself nor the account of one who is."""
    if row is None:
        row = Blacklisted(
            kind=event.kind, value=event.value, note="", at_ms=event.at_ms, listed=False
        )
    if event.owner_id is None:
        row = replace(row, listed=event.present, note=event.note, at_ms=event.at_ms)
    else:
        owner_id = event.owner_id if event.present else None
        row = replace(row, owner_id=owner_id, at_ms=event.at_ms)
    return row if row.listed or row.owner_id is not None else None


def barred(rows: Rows, order: Order, client: Client | None) -> bool:
    """True when someone or something that takes part in an order is on the blacklist."""
    return any(key in rows for key in barring(order, client))


def barring(order: Order, client: Client | None) -> list[RowKey]:
    """The entries any of which would decline an order."""
    found = [f"blacklist/user/{order.owner_id}"]
    if order.source_account_id:
        found.append(f"blacklist/account/{order.source_account_id}")
    if order.destination_account_id:
        found.append(f"blacklist/account/{order.destination_account_id}")
    if client is not None:
        found += [f"blacklist/address/{address}" for address in client.addresses]
        found += [f"blacklist/country/{country}" for country in client.countries]
        if client.iban:
            found.append(f"blacklist/iban/{client.iban}")
    return found


def blacklist_key(kind: BlacklistKind, value: str) -> RowKey:
    return f"blacklist/{kind.value}/{value}"


def holder_key(user_id: str) -> RowKey:
    return f"{HOLDER}{user_id}"


def held_key(user_id: str, account_id: str) -> RowKey:
    return f"{HELD}{user_id}/{account_id}"


def bar_keys(fact: OwnerBarred) -> tuple[RowKey, ...]:
    return (
        blacklist_key(BlacklistKind.ACCOUNT, fact.account_id),
        blacklist_key(BlacklistKind.USER, fact.user_id),
        held_key(fact.user_id, fact.account_id),
    )
