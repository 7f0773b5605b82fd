"""What this process knows of rows from their events: when each last changed, as far as it heard.

    tail thread: event --changes what is shown of its aggregate?--> its time, the broker's

A row's `updated_ms` is the time of the last event in it, so a copy of before is recognised by its
own time. Of the aggregates that were longest unheard of nothing is kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.account import (
    AccountArchived,
    AccountClosed,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
)
from domain.credentials import EmailConfirmed
from domain.currency import QuoteIssued, RatesSet
from domain.holds import HoldExpired, HoldPlaced, HoldVoided
from domain.kyc import KycLevelSet, KycRejected, KycSubmitted
from domain.payment import PaymentCredited
from domain.payment_refunds import RefundWithdrawn
from domain.risk import ReviewDecided
from domain.saga import (
    AccountCredited,
    AccountDebited,
    DebitReversed,
    PaymentFailed,
    PaymentProcessed,
    PaymentRequested,
    RateFixed,
    RefundFailed,
    RefundProcessed,
    RefundRequested,
    RefundReserved,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
)
from domain.services import DECIDERS
from domain.transaction import TransactionHeld
from domain.user import EmailChanged, ProfileChanged, RolesSet, UserRegistered
from schemas.codec import HEADER, header

if TYPE_CHECKING:
    from schemas.codec import Codec

ENTRIES = 100_000
SETTLED_MS = 1_000  # so long after an event all others of its millisecond are in a store too
CHANGING = frozenset(
    {
        UserRegistered,
        ProfileChanged,
        EmailChanged,
        EmailConfirmed,
        RolesSet,
        KycSubmitted,
        KycLevelSet,
        KycRejected,
        AccountOpened,
        AccountFrozen,
        AccountUnfrozen,
        AccountClosed,
        AccountArchived,
        HoldPlaced,
        HoldVoided,
        HoldExpired,
        AccountDebited,
        AccountCredited,
        DebitReversed,
        TransactionCreated,
        TransactionHeld,
        TransactionCompleted,
        TransactionFailed,
        TransactionCancelled,
        ReviewDecided,
        RatesSet,
        QuoteIssued,
        RateFixed,
        PaymentRequested,
        PaymentProcessed,
        PaymentFailed,
        PaymentCredited,
        RefundReserved,
        RefundWithdrawn,
        RefundRequested,
        RefundProcessed,
        RefundFailed,
    }
)


class Last(NamedTuple):
    """When an aggregate last changed, and whether more than once in that millisecond."""

    at_ms: int
    again: bool


class Known:
    """Written by the tail's thread, read by the event loop."""

    def __init__(self, codec: Codec, entries: int = ENTRIES) -> None:
        said = {event for decider in DECIDERS.values() for event in decider.events}
        # told by their schema ids; one that is newer than this code may change anything
        self._unchanging = frozenset(header(codec.id_of(event)) for event in said - CHANGING)
        self._last: OrderedDict[tuple[str, bytes], Last] = OrderedDict()
        self._entries = entries

    def heard(self, service: str, key: bytes, value: bytes, at_ms: int) -> None:
        """An event as it came."""
        if value[:HEADER] in self._unchanging:
            return
        before = self._last.get((service, key))
        if before is not None and before.at_ms >= at_ms:
            at_ms, again = before.at_ms, True
        else:
            again = False
        self._last[service, key] = Last(at_ms, again)
        self._last.move_to_end((service, key))
        if len(self._last) > self._entries:
            self._last.popitem(last=False)

    def has(self, service: str, aggregate_id: str) -> bool:
        """Whether an event of it was heard of that is still remembered."""
        return (service, aggregate_id.encode()) in self._last

    def is_fresh(self, service: str, aggregate_id: str, row: dict[str, Any]) -> bool:
        """False for a row of before the last event that was heard of."""
        last = self._last.get((service, aggregate_id.encode()))
        if last is None or row["updated_ms"] > last.at_ms:
            return True
        if row["updated_ms"] < last.at_ms:
            return False
        return not last.again or time.time() * 1000 - last.at_ms > SETTLED_MS
