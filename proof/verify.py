"""verify: computes again, from the logs alone, what the system says; names the first difference.

    for each service and partition: fold(events below the cut) == rows of the changelog at the cut
    each event: its id in order and without gap; its postings sum to zero per currency, and are what the
        balances that it names moved by
    each account: its balance is the sum of all that was posted to it
    all accounts: no balance below its limit; clearing = what is in flight, zero when nothing is
    each transaction: at most one end
    with `decide`: what the inbox still holds, decided again by this code, gives the same bytes

It works on a running system: each changelog partition says which input offset it reflects, and that
is where its events are cut. Transactions are cut first and accounts last, so that whatever has
ended by the one cut has moved its money by the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from agents.envelope import Input, code, place
from domain.account import Account, Leg, LegState
from domain.decider import Decider, Overlay, apply, handle, put
from domain.holds import Hold, HoldStatus
from domain.ledger import CLEARING, SUSPENSE, SYSTEM_ACCOUNTS, SystemBalance, sums, trial_balance
from domain.saga import (
    Rail,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
)
from domain.suspense import SuspenseResolved
from proof.fold import UNFOLDABLE
from proof.reader import LogRecord
from schemas.errors import Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.transact import Transactor
    from domain.saga import Posting

FINAL = (TransactionCompleted, TransactionFailed, TransactionCancelled)
ORDER = (
    "transaction",
    "currency",
    "risk",
    "payment",
    "notification",
    "audit",
    "analytics",
    "settlement",
    "reporting",
    "user",
    "account",
)  # of the cuts


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where the logs and what is said do not fit each other."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Different(Exception):
    """Stops the walk through a partition at its first difference."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.difference = Difference(where=where, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One partition of one service, read from the logs."""

    decider: Decider
    partition: int
    inbox_topic: str
    cut: int  # rows reflect the inbox below it
    rows: Mapping[str, bytes]  # encoded, by key
    events: Iterable[LogRecord]  # in order of their ids
    inbox: Iterable[LogRecord] | None = None  # what it still holds; None: don't decide again
    inbox_start: int = 0  # its first offset

    @property
    def where(self) -> str:
        return f"{self.decider.service} partition {self.partition}"


@dataclass(slots=True)
class Sums:
    """What is counted over all partitions."""

    events: int = 0
    decided: int = 0
    rows: int = 0
    unread: int = 0  # inbox records above the cuts
    # minor units by system account or `customers`, and currency
    trial_balance: Counter[tuple[str, str]] = field(default_factory=Counter)
    # minor units by transaction and currency
    in_clearing: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_suspense: Counter[tuple[str, str]] = field(default_factory=Counter)  # likewise
    settled: set[str] = field(default_factory=set)  # transactions of which nothing is suspended
    created: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)  # by transaction and fact
    settles_later: set[str] = field(default_factory=set)  # their end does not wait for the ledger
    open_legs: set[str] = field(default_factory=set)  # of sources, by row key

    def add(self, other: Sums) -> None:
        for name in ("events", "decided", "rows", "unread"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in (
            "trial_balance",
            "in_clearing",
            "in_suspense",
            "settled",
            "created",
            "ended",
            "moved",
            "settles_later",
            "open_legs",
        ):
            getattr(self, name).update(getattr(other, name))


def walk(evidence: Evidence, transactor: Transactor, total: Sums) -> None:
    """Fold one partition and compare. Raises `Different` at the first difference."""
    rows: dict[str, Any] = {}
    posted: Counter[tuple[str, str]] = Counter()
    inbox = _Inbox(evidence, transactor)
    last = -1
    for offset, group in groupby(_ordered(evidence), key=lambda found: found[0]):
        if offset >= evidence.cut:
            break
        inbox.silent(rows, last + 1, offset)
        records = [record for _, _, record in group]
        events = [_decoded(evidence, transactor, record) for record in records]
        inbox.decided(rows, offset, records)
        for event in events:
            _check_event(evidence, event, total)
            _post(evidence, event, posted)
        _fold(evidence, rows, events)
        total.events += len(events)
        last = offset
    inbox.silent(rows, last + 1, evidence.cut)
    total.decided += inbox.count
    total.rows += len(rows)
    total.open_legs.update(
        key for key, row in rows.items() if isinstance(row, Leg) and row.state is LegState.DEBITED
    )
    _check_holds(evidence, rows)
    _check_balances(evidence, rows, posted)
    ledger = [row for row in rows.values() if isinstance(row, (Account, SystemBalance))]
    total.trial_balance.update(trial_balance(ledger))
    _compare(evidence, transactor, rows)


def _ordered(evidence: Evidence) -> Iterator[tuple[int, int, LogRecord]]:
    """Events with the input offset and number of their id; ids must rise without a gap."""
    before, n_before = -1, -1
    for record in evidence.events:
        where = f"{evidence.where}, {record.topic} at {record.offset}"
        try:
            at = place(record.headers.get("ce_id", b""))
        except ValueError as exc:
            raise Different(where, f"no event id: {record.headers.get('ce_id')!r}") from exc
        if (at.topic, at.partition) != (evidence.inbox_topic, evidence.partition):
            raise Different(where, f"decided from another log: {record.headers['ce_id']!r}")
        expected = n_before + 1 if at.offset == before else 0
        if at.offset < before or at.n != expected:
            raise Different(
                where, f"event {at.offset}-{at.n} comes after {before}-{n_before}: not in order"
            )
        before, n_before = at.offset, at.n
        yield at.offset, at.n, record


def _decoded(evidence: Evidence, transactor: Transactor, record: LogRecord) -> Any:
    try:
        return transactor.codec.decode(record.value or b"")
    except Unreadable as exc:
        where = f"{evidence.where}, {record.topic} at {record.offset}"
        raise Different(where, f"can't be read: {exc}") from exc


def _fold(evidence: Evidence, rows: dict[str, Any], events: list[Any]) -> None:
    try:
        changes = apply(evidence.decider, Overlay(rows), events)
    except UNFOLDABLE as exc:
        names = ", ".join(type(event).__name__ for event in events)
        what = f"this program can't fold {names} ({type(exc).__name__}: {exc})"
        raise Different(evidence.where, what) from exc
    put(rows, changes)
    for key, row in changes.items():
        if isinstance(row, Account):
            for currency, balance_minor in row.balances.items():
                if row.available(currency) < 0:
                    raise Different(
                        evidence.where, f"{key} is at {balance_minor} {currency}: below its limit"
                    )


def _check_event(evidence: Evidence, event: Any, total: Sums) -> None:
    kind, order = type(event).__name__, getattr(event, "order", None)
    transaction_id = order.transaction_id if order is not None else ""
    if isinstance(event, TransactionCreated):
        total.created[transaction_id] += 1
    elif isinstance(event, FINAL):
        total.ended[transaction_id] += 1
        if len(event.steps) == 1:  # an order that makes no sense ends in its first step
            total.created[transaction_id] += 1
        if event.order.destination_account_id is None and event.order.rail is Rail.EXTERNAL:
            total.settles_later.add(transaction_id)
    postings: tuple[Posting, ...] = getattr(event, "postings", ())
    for currency, amount_minor in sums(postings).items():
        if amount_minor:
            what = f"{kind} of {transaction_id} is off by {amount_minor} {currency}"
            raise Different(evidence.where, what)
    if postings:
        total.moved[transaction_id, kind] += 1
    if isinstance(event, SuspenseResolved):
        total.settled.add(transaction_id)
    for posting in postings:
        if posting.account == CLEARING:
            total.in_clearing[transaction_id, posting.currency] += posting.amount_minor
        elif posting.account == SUSPENSE:
            total.in_suspense[transaction_id, posting.currency] += posting.amount_minor


def _post(evidence: Evidence, event: Any, posted: Counter[tuple[str, str]]) -> None:
    """What the event posts to customers' accounts is what it says that their balances moved by."""
    postings = [p for p in getattr(event, "postings", ()) if p.account not in SYSTEM_ACCOUNTS]
    touched = {(posting.account, posting.currency) for posting in postings}
    # a credit names the balance of its debit, too, which is kept elsewhere
    named = [b for b in getattr(event, "balances", ()) if (b.account_id, b.currency) in touched]
    before = {key: posted[key] for key in touched}
    for posting in postings:
        posted[posting.account, posting.currency] += posting.amount_minor
    for balance in named:
        key = balance.account_id, balance.currency
        if balance.before_minor != before[key]:
            what = (
                f"{type(event).__name__} says that {balance.account_id} was at {balance.before_minor} "
                f"{balance.currency}, what was posted to it before is {before[key]}"
            )
            raise Different(evidence.where, what)
        before[key] = balance.after_minor
    for key, minor in before.items():
        if minor != posted[key]:
            what = (
                f"{type(event).__name__} says that {key[0]} is at {minor} {key[1]}, "
                f"with what it posts it is {posted[key]}"
            )
            raise Different(evidence.where, what)


def _check_balances(
    evidence: Evidence, rows: Mapping[str, Any], posted: Mapping[tuple[str, str], int]
) -> None:
    """Each account has what was posted to it, all along."""
    kept = {
        (row.account_id, currency): minor
        for row in rows.values()
        if isinstance(row, Account)
        for currency, minor in row.balances.items()
    }
    for key in sorted(kept.keys() | posted.keys()):
        minor, sum_minor = kept.get(key, 0), posted.get(key, 0)
        if minor != sum_minor:
            what = (
                f"account {key[0]} has {minor} {key[1]}, what was posted to it sums to {sum_minor}"
            )
            raise Different(evidence.where, what)


def _check_holds(evidence: Evidence, rows: dict[str, Any]) -> None:
    """What each account holds is the sum of its open holds."""
    held: Counter[tuple[str, str]] = Counter()
    for row in rows.values():
        if isinstance(row, Hold) and row.status is HoldStatus.OPEN:
            held[row.account_id, row.currency] += row.amount_minor
    for row in rows.values():
        for currency, minor in row.held.items() if isinstance(row, Account) else ():
            held[row.account_id, currency] -= minor
    for (account_id, currency), minor in held.items():
        if minor:
            what = f"account {account_id} holds {-minor} {currency} more than its open holds do"
            raise Different(evidence.where, what)


def _compare(evidence: Evidence, transactor: Transactor, rows: dict[str, Any]) -> None:
    for key in sorted(rows.keys() | evidence.rows.keys()):
        data, folded = evidence.rows.get(key), rows.get(key)
        kept = None if data is None else transactor.codec.decode(data)
        if kept != folded:
            what = f"row {key} at input offset {evidence.cut}: kept {kept}, events say {folded}"
            raise Different(evidence.where, what)


class _Inbox:
    """The inbox beside the events, decided again where it still holds a record.

    Only what this version of the code decided can be compared. An input about which nothing was
    said tells no version; it is compared while the event before it was ours.
    """

    def __init__(self, evidence: Evidence, transactor: Transactor) -> None:
        self.evidence, self.transactor = evidence, transactor
        self.records = None if evidence.inbox is None else iter(evidence.inbox)
        self.next: LogRecord | None = None
        self.ours = False
        self.count = 0
        self._advance()

    def _advance(self) -> None:
        self.next = None if self.records is None else next(self.records, None)

    def silent(self, rows: Mapping[str, Any], start: int, end: int) -> None:
        """Inputs from `start` to before `end`, about which nothing was said."""
        while self.next is not None and self.next.offset < end:
            if self.ours and self.next.offset >= start:
                self._compare(rows, self.next, [])
            self._advance()

    def decided(self, rows: Mapping[str, Any], offset: int, events: list[LogRecord]) -> None:
        """The input at `offset`, about which these events were said."""
        if self.records is None or offset < self.evidence.inbox_start:
            return
        self.ours = events[0].headers.get("code") == code()
        if self.next is None or self.next.offset != offset:
            where = f"{self.evidence.inbox_topic}-{self.evidence.partition} at {offset}"
            raise Different(where, "events were decided from a record that is not there")
        if self.ours:
            self._compare(rows, self.next, [event.value or b"" for event in events])
        self._advance()

    def _compare(self, rows: Mapping[str, Any], record: LogRecord, said: list[bytes]) -> None:
        source = Input(record.topic, record.partition, record.offset, record.at_ms, record.headers)
        where = f"{record.topic}-{record.partition} at {record.offset}"
        try:
            message = self.transactor.read(source, record.key, record.value)
        except Unreadable as exc:
            if not source.foreign:
                raise Different(where, f"an input that can't be read was passed by: {exc}") from exc
            again: list[bytes] = []
        else:
            events, _ = handle(self.evidence.decider, rows, message, source.at_ms)
            again = [self.transactor.codec.encode(event) for event in events]
        self.count += 1
        if again != said:
            decode = self.transactor.codec.decode
            what = f"said {[decode(v) for v in said]}, decided again {[decode(v) for v in again]}"
            raise Different(where, what)


def across(total: Sums) -> Iterator[Difference]:
    """What must hold over all partitions together."""
    for transaction_id, times in total.ended.items():
        if times > 1:
            yield Difference(where="transaction", what=f"{transaction_id} ended {times} times")
        if total.created and transaction_id not in total.created:
            yield Difference(where="transaction", what=f"{transaction_id} ended, never created")
    for (transaction_id, kind), times in total.moved.items():
        if times > 1:
            yield Difference(where="ledger", what=f"{transaction_id}: {kind} {times} times")
    idle = not total.unread and not total.created.keys() - total.ended.keys()
    for (transaction_id, currency), amount_minor in total.in_clearing.items():
        ended = transaction_id in total.ended and transaction_id not in total.settles_later
        if amount_minor and (idle or ended):
            what = f"{transaction_id} has ended with {amount_minor} {currency} left in clearing"
            yield Difference(where="ledger", what=what)
    yield from _left_in_suspense(total) if idle else ()
    for leg in sorted(total.open_legs) if idle else ():
        yield Difference(where="account", what=f"nothing is in flight but {leg} is open")
    for (account, currency), amount_minor in total.trial_balance.items():
        if amount_minor and idle and account == CLEARING:
            what = f"nothing is in flight but clearing has {amount_minor} {currency}"
            yield Difference(where="ledger", what=what)
    for currency, amount_minor in off_balance(total).items():
        what = f"the trial balance is off by {amount_minor} {currency}"
        yield Difference(where="ledger", what=what)


def off_balance(total: Sums) -> Mapping[str, int]:
    """What the trial balance does not sum to zero by, by currency."""
    totals: Counter[str] = Counter()
    for (_, currency), amount_minor in total.trial_balance.items():
        totals[currency] += amount_minor
    return {currency: minor for currency, minor in sorted(totals.items()) if minor}


def _left_in_suspense(total: Sums) -> Iterator[Difference]:
    """What is settled has left it. Asked when all is read: who was paid may be cut before who pays."""
    for (transaction_id, currency), amount_minor in total.in_suspense.items():
        if amount_minor and transaction_id in total.settled:
            what = f"{transaction_id} is settled with {amount_minor} {currency} left in suspense"
            yield Difference(where="ledger", what=what)
