r"""Reconciliation: what a provider's statement says, held against what we know the provider did.

    PaymentBooked --> BookingListed: a list for each provider, day and currency
    ReconcileStatement --> StatementCompared --> StatementPartSwept … --> StatementReconciled

The lines are looked up in the list of their day: matched, missing here, or of another amount. Then
the list is walked, SWEEP entries a message, for what the statement lacks: missing there. List and
statements of one provider, day and currency lie in one partition, under their booking key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from domain.decider import Changes, RowKey, Rows, expiry_key, forget
from domain.money import BALANCE_LIMIT_MINOR, is_currency
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LINES_LIMIT = 2_000  # of one statement
SWEEP = 200  # entries of the list that one message looks at
BREAKS_LIMIT = 5_000  # rows of one statement; what is beyond them is counted and told in events


class BreakKind(StrEnum):
    MISSING_HERE = "missing_here"  # the statement has it, we don't
    MISSING_THERE = "missing_there"  # we have it, the statement doesn't
    AMOUNT_DIFFERS = "amount_differs"


class StatementStatus(StrEnum):
    COMPARING = "comparing"
    RECONCILED = "reconciled"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentBooked:
    """payment: the provider moved money. Seen from its account: in is above zero, out below."""

    booking_key: str  # <provider>.<day>.<currency>
    end_to_end_id: str  # what the provider was told to write into its statement
    payment_id: str
    amount_minor: int
    provider_reference: str
    at_ms: int

    @property
    def book(self) -> str:
        """`<provider>.<currency>`: what its settlement is keyed by."""
        provider, _, currency = self.booking_key.rsplit(".", 2)
        return f"{provider}.{currency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingListed:
    """What the provider moved stands in the list of its day."""

    booking_key: str
    end_to_end_id: str
    payment_id: str
    amount_minor: int
    provider_reference: str
    number: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One entry of a provider's statement."""

    end_to_end_id: str
    provider_reference: str
    amount_minor: int  # above zero: in
    line: int  # of the file, or the entry's number


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileStatement:
    """Hold a statement against the list of its day. Arrives under the booking key."""

    statement_id: str  # <booking_key>.<unique>
    provider: str
    day: str  # YYYY-MM-DD of the provider
    currency: str
    lines: tuple[StatementLine, ...]
    actor_id: str
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementBreak:
    """Row `break/<statement_id>/<number>`, and a member of events: one thing that does not agree."""

    statement_id: str
    number: int
    kind: BreakKind
    end_to_end_id: str
    payment_id: str | None  # None: not known here
    provider_reference: str
    ours_minor: int | None
    theirs_minor: int | None
    line: int | None  # of the statement


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementCompared:
    """Each line of a statement was looked up; what it lacks is looked for next."""

    statement_id: str
    booking_key: str
    provider: str
    day: str
    currency: str
    lines: int
    seen: tuple[
        str, ...
    ]  # end-to-end ids of ours that the statement has, be it with another amount
    breaks: tuple[StatementBreak, ...]
    total_minor: int  # sum of the lines
    actor_id: str
    request_hash: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementPartSwept:
    """A part of our list was looked through for what the statement lacks."""

    statement_id: str
    booking_key: str
    swept: int  # so many entries by now
    done: bool
    breaks: tuple[StatementBreak, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementReconciled:
    """The outcome of a statement; its breaks were told before."""

    statement_id: str
    booking_key: str
    provider: str
    day: str
    currency: str
    lines: int
    matched: int
    missing_here: int
    missing_there: int
    amount_differs: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementCommandRefused:
    """A statement was refused; nothing changed."""

    statement_id: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookings:
    """Row `bookings/<booking_key>`: how long the list is, and which statement is held against it."""

    booking_key: str
    count: int
    comparing: str  # statement_id; "": none


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """Rows `booking/<booking_key>/<end_to_end_id>` and `booking-at/<booking_key>/<number>`: the same twice."""

    end_to_end_id: str
    payment_id: str
    amount_minor: int
    provider_reference: str
    number: int
    statement_id: str  # the last one that had it; "": none yet
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Row `statement/<statement_id>`."""

    statement_id: str
    provider: str
    day: str
    currency: str
    status: StatementStatus
    lines: int
    total_minor: int
    swept: int
    missing_here: int
    missing_there: int
    amount_differs: int
    actor_id: str
    request_hash: str
    version: int
    created_ms: int
    updated_ms: int

    @property
    def breaks(self) -> int:
        return self.missing_here + self.missing_there + self.amount_differs


ReconciliationMessage: TypeAlias = (
    PaymentBooked | ReconcileStatement | StatementCompared | StatementPartSwept
)
ReconciliationEvent: TypeAlias = (
    PaymentBooked
    | BookingListed
    | StatementCompared
    | StatementPartSwept
    | StatementReconciled
    | StatementCommandRefused
)


def reconcile(rows: Rows, message: ReconciliationMessage, at_ms: int) -> Sequence[Any]:
    match message:
        case PaymentBooked():
            return _list(rows, message, at_ms)
        case ReconcileStatement():
            return _compare(rows, message, at_ms)
        case _:
            return _sweep(rows, message, at_ms)


def _list(rows: Rows, fact: PaymentBooked, at_ms: int) -> Sequence[BookingListed]:
    if booking_key(fact.booking_key, fact.end_to_end_id) in rows:
        return ()
    bookings: Bookings | None = rows.get(bookings_key(fact.booking_key))
    return (
        BookingListed(
            booking_key=fact.booking_key,
            end_to_end_id=fact.end_to_end_id,
            payment_id=fact.payment_id,
            amount_minor=fact.amount_minor,
            provider_reference=fact.provider_reference,
            number=bookings.count if bookings else 0,
            at_ms=at_ms,
        ),
    )


def _compare(
    rows: Rows, command: ReconcileStatement, at_ms: int
) -> Sequence[StatementCompared | StatementCommandRefused]:
    known: Statement | None = rows.get(statement_key(command.statement_id))
    if known is not None and known.request_hash == command.request_hash:
        return ()
    if known is not None:
        return _refuse(command, Reason.IDEMPOTENCY_MISMATCH, at_ms)
    if not _is_readable(command):
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    bookings: Bookings | None = rows.get(bookings_key(_key(command)))
    if bookings is not None and bookings.comparing:  # its marks would be taken for this one's
        return _refuse(command, Reason.IN_FLIGHT, at_ms)
    seen: dict[str, None] = {}
    breaks: list[StatementBreak] = []
    for line in command.lines:
        booking: Booking | None = rows.get(booking_key(_key(command), line.end_to_end_id))
        if (
            booking is None or line.end_to_end_id in seen
        ):  # of two lines for one payment we have one
            breaks.append(_break(command, len(breaks), BreakKind.MISSING_HERE, line, None))
            continue
        seen[line.end_to_end_id] = None
        if booking.amount_minor != line.amount_minor:
            breaks.append(_break(command, len(breaks), BreakKind.AMOUNT_DIFFERS, line, booking))
    return (
        StatementCompared(
            statement_id=command.statement_id,
            booking_key=_key(command),
            provider=command.provider,
            day=command.day,
            currency=command.currency,
            lines=len(command.lines),
            seen=tuple(seen),
            breaks=tuple(breaks),
            total_minor=sum(line.amount_minor for line in command.lines),
            actor_id=command.actor_id,
            request_hash=command.request_hash,
            at_ms=at_ms,
        ),
    )


def _key(command: ReconcileStatement) -> str:
    return key_of(command.provider, command.day, command.currency)


def _is_readable(command: ReconcileStatement) -> bool:
    return (
        len(command.lines) <= LINES_LIMIT
        and sum(abs(line.amount_minor) for line in command.lines) <= BALANCE_LIMIT_MINOR
        and is_currency(command.currency)
        and home_of(command.statement_id) == _key(command)
    )


def _break(
    command: ReconcileStatement,
    number: int,
    kind: BreakKind,
    line: StatementLine,
    booking: Booking | None,
) -> StatementBreak:
    return StatementBreak(
        statement_id=command.statement_id,
        number=number,
        kind=kind,
        end_to_end_id=line.end_to_end_id,
        payment_id=booking.payment_id if booking else None,
        provider_reference=line.provider_reference,
        ours_minor=booking.amount_minor if booking else None,
        theirs_minor=line.amount_minor,
        line=line.line,
    )


def _sweep(
    rows: Rows, fact: StatementCompared | StatementPartSwept, at_ms: int
) -> Sequence[StatementPartSwept | StatementReconciled]:
    """The next part of our list; the last one tells the outcome too."""
    statement: Statement | None = rows.get(statement_key(fact.statement_id))
    start = _swept(fact)
    if statement is None or statement.status is StatementStatus.RECONCILED:
        return ()
    if statement.swept != start:
        return ()
    bookings: Bookings | None = rows.get(bookings_key(fact.booking_key))
    count = bookings.count if bookings else 0
    end = min(start + SWEEP, count)
    found = [rows.get(booking_at_key(fact.booking_key, number)) for number in range(start, end)]
    missing = [one for one in found if one is not None and one.statement_id != fact.statement_id]
    part = StatementPartSwept(
        statement_id=fact.statement_id,
        booking_key=fact.booking_key,
        swept=end,
        done=end == count,
        breaks=tuple(_lacking(statement, missing)),
        at_ms=at_ms,
    )
    return (part,) if end < count else (part, _outcome(statement, part, at_ms))


def _swept(fact: StatementCompared | StatementPartSwept) -> int:
    return fact.swept if isinstance(fact, StatementPartSwept) else 0


def _lacking(statement: Statement, missing: Sequence[Booking]) -> Iterator[StatementBreak]:
    for number, booking in enumerate(missing, statement.breaks):
        yield StatementBreak(
            statement_id=statement.statement_id,
            number=number,
            kind=BreakKind.MISSING_THERE,
            end_to_end_id=booking.end_to_end_id,
            payment_id=booking.payment_id,
            provider_reference=booking.provider_reference,
            ours_minor=booking.amount_minor,
            theirs_minor=None,
            line=None,
        )


def _outcome(statement: Statement, part: StatementPartSwept, at_ms: int) -> StatementReconciled:
    return StatementReconciled(
        statement_id=statement.statement_id,
        booking_key=part.booking_key,
        provider=statement.provider,
        day=statement.day,
        currency=statement.currency,
        lines=statement.lines,
        matched=statement.lines - statement.missing_here - statement.amount_differs,
        missing_here=statement.missing_here,
        missing_there=statement.missing_there + len(part.breaks),
        amount_differs=statement.amount_differs,
        at_ms=at_ms,
    )


def _refuse(
    command: ReconcileStatement, reason: Reason, at_ms: int
) -> tuple[StatementCommandRefused, ...]:
    return (
        StatementCommandRefused(
            statement_id=command.statement_id,
            command=type(command).__name__,
            reason=reason,
            at_ms=at_ms,
        ),
    )


def reconciled(rows: Rows, event: ReconciliationEvent) -> Changes:
    match event:
        case BookingListed():
            return _listed(rows, event)
        case StatementCompared():
            return _compared(rows, event)
        case StatementPartSwept():
            return _part_swept(rows, event)
        case StatementReconciled():
            return _ended(rows, event)
        case _:
            return {}


def _listed(rows: Rows, event: BookingListed) -> Changes:
    booking = Booking(
        end_to_end_id=event.end_to_end_id,
        payment_id=event.payment_id,
        amount_minor=event.amount_minor,
        provider_reference=event.provider_reference,
        number=event.number,
        statement_id="",
        at_ms=event.at_ms,
    )
    home = event.booking_key
    keys = booking_key(home, event.end_to_end_id), booking_at_key(home, event.number)
    due, expiry = forget(rows, event.at_ms, *keys)
    listed: Bookings | None = rows.get(bookings_key(home))
    comparing = listed.comparing if listed else ""
    bookings = Bookings(booking_key=home, count=event.number + 1, comparing=comparing)
    return {**dict.fromkeys(keys, booking), bookings_key(home): bookings, due: expiry}


def _compared(rows: Rows, event: StatementCompared) -> Changes:
    changes: dict[RowKey, Any] = {}
    for end_to_end_id in event.seen:
        key = booking_key(event.booking_key, end_to_end_id)
        booking = replace(rows[key], statement_id=event.statement_id)
        changes[key] = changes[booking_at_key(event.booking_key, booking.number)] = booking
    changes.update(_breaks(event.breaks))
    changes.update(_comparing(rows, event.booking_key, event.statement_id))
    changes[statement_key(event.statement_id)] = Statement(
        statement_id=event.statement_id,
        provider=event.provider,
        day=event.day,
        currency=event.currency,
        status=StatementStatus.COMPARING,
        lines=event.lines,
        total_minor=event.total_minor,
        swept=0,
        missing_here=_count(event.breaks, BreakKind.MISSING_HERE),
        missing_there=0,
        amount_differs=_count(event.breaks, BreakKind.AMOUNT_DIFFERS),
        actor_id=event.actor_id,
        request_hash=event.request_hash,
        version=1,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
    )
    return changes


def _part_swept(rows: Rows, event: StatementPartSwept) -> Changes:
    key = statement_key(event.statement_id)
    statement: Statement = rows[key]
    swept = replace(
        statement,
        swept=event.swept,
        missing_there=statement.missing_there + len(event.breaks),
        version=statement.version + 1,
        updated_ms=event.at_ms,
    )
    return {key: swept, **_breaks(event.breaks)}


def _ended(rows: Rows, event: StatementReconciled) -> Changes:
    key = statement_key(event.statement_id)
    statement: Statement = rows[key]
    numbers = range(min(statement.breaks, BREAKS_LIMIT))
    breaks = (break_key(event.statement_id, number) for number in numbers)
    due, expiry = forget(rows, event.at_ms, key, *breaks)
    ended = replace(
        statement,
        status=StatementStatus.RECONCILED,
        version=statement.version + 1,
        updated_ms=event.at_ms,
    )
    return {key: ended, due: expiry, **_comparing(rows, event.booking_key, "")}


def _comparing(rows: Rows, home: str, statement_id: str) -> Changes:
    listed: Bookings | None = rows.get(bookings_key(home))
    count = listed.count if listed else 0
    return {bookings_key(home): Bookings(booking_key=home, count=count, comparing=statement_id)}


def _breaks(breaks: Sequence[StatementBreak]) -> dict[RowKey, Any]:
    return {
        break_key(one.statement_id, one.number): one for one in breaks if one.number < BREAKS_LIMIT
    }


def _count(breaks: Sequence[StatementBreak], kind: BreakKind) -> int:
    return sum(one.kind is kind for one in breaks)


def end_to_end_id(effect_id: str) -> str:
    """A payment's or refund's id, as it fits into a statement (ISO 20022: 35 characters)."""
    return effect_id.replace("-", "").replace(".refund", "/R")[:35]


def key_of(provider: str, day: str, currency: str) -> str:
    """The booking key: under which list and statements of one day lie."""
    return f"{provider}.{day}.{currency}"


def home_of(statement_id: str) -> str:
    """The booking key in a statement's id."""
    return statement_id.rpartition(".")[0]


def bookings_key(home: str) -> RowKey:
    return f"bookings/{home}"


def booking_key(home: str, end_to_end_id: str) -> RowKey:
    return f"booking/{home}/{end_to_end_id}"


def booking_at_key(home: str, number: int) -> RowKey:
    return f"booking-at/{home}/{number}"


def statement_key(statement_id: str) -> RowKey:
    return f"statement/{statement_id}"


def break_key(statement_id: str, number: int) -> RowKey:
    return f"break/{statement_id}/{number}"


def reconciliation_keys(
    message: ReconciliationMessage | ReconciliationEvent,
) -> Sequence[RowKey]:
    """What a message is decided from, and what an event changes: some are both."""
    match message:
        case PaymentBooked() | BookingListed():
            home = message.booking_key
            expiry = expiry_key(message.at_ms)
            return (bookings_key(home), booking_key(home, message.end_to_end_id), expiry)
        case ReconcileStatement():
            lines = [booking_key(_key(message), line.end_to_end_id) for line in message.lines]
            return (statement_key(message.statement_id), bookings_key(_key(message)), *lines)
        case StatementCompared():
            seen = [booking_key(message.booking_key, one) for one in message.seen]
            return (*_sweep_keys(message), *seen)
        case StatementPartSwept():
            return _sweep_keys(message)
        case StatementReconciled():
            expiry = expiry_key(message.at_ms)
            return (statement_key(message.statement_id), bookings_key(message.booking_key), expiry)
        case _:
            return ()


def _sweep_keys(fact: StatementCompared | StatementPartSwept) -> tuple[RowKey, ...]:
    home, start = fact.booking_key, _swept(fact)
    part = [booking_at_key(home, number) for number in range(start, start + SWEEP)]
    return (statement_key(fact.statement_id), bookings_key(home), *part)
