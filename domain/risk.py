r"""Risk: a score from a list of rules, and a decision, before money moves.

    TransactionCreated --score--> RiskApproved | RiskDeclined | ReviewRequested
                                                                   \--DecideReview or 24 h--> ...

Keyed by the owner of the money. An approval reserves the order's amount of the owner's daily limit;
a transaction that came to nothing frees it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias, assert_never, get_args

from domain.bank_day import bank_day
from domain.decider import (
    DUE,
    Changes,
    Decider,
    Due,
    Expiry,
    RowKey,
    Rows,
    Tick,
    due_key,
    due_row,
    due_subject,
    expired,
    expiry_key,
    forget,
    forgotten,
    overdue,
    tick_keys,
)
from domain.saga import (
    Order,
    Reason,
    ReversalGranted,
    ReviewRequested,
    RiskApproved,
    RiskDeclined,
    Step,
    TransactionCancelled,
    TransactionCreated,
    TransactionFailed,
    debited_minor,
    traced,
)
from domain.transaction import DEADLINE_LIMIT_S

SERVICE = "risk"

DAILY_LIMIT_MINOR = 100_000  # per owner, bank day and currency
REVIEW_AMOUNT_MINOR = 80_000  # of one order
REVIEW_ORDERS_A_MINUTE = 30  # above it
DECLINE_ORDERS_A_MINUTE = 60  # above it
REVIEW_FROM, DECLINE_FROM = 50, 100  # points

LISTED = "listed/"  # the prefix of the entries in owners' lists
EXPIRE = "expire"  # the kind of a due row: nobody decided the review
REVIEW_MS = 24 * 3600 * 1000
RESERVED_DAYS = 3  # how many days of reservations an owner's row keeps
MINUTE_MS = 60 * 1000


class BlacklistKind(StrEnum):
    USER = "user"
    ACCOUNT = "account"


class ReviewStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"  # the transaction ended first


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideReview:
    """A person's word on a review; an approved order is to start within `deadline_s` seconds."""

    review_id: str  # <owner_id>.<transaction_id>
    approve: bool
    deadline_s: int
    actor_id: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToBlacklist:
    """Decline whatever this user or account takes part in. Arrives under `value`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewDecided:
    """A person (or the clock) decided a review; the saga's own fact follows it."""

    review_id: str
    transaction_id: str
    status: ReviewStatus
    actor_id: str
    note: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskReleased:
    """The transaction moved nothing: what it reserved of the owner's daily limit is free again."""

    owner_id: str
    transaction_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskCommandRefused:
    """A command on a review was refused; nothing changed."""

    review_id: str
    command: str  # name of the command's type
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresForgotten:
    """Scores, their list entries and reviews left the table: the due rows that said so."""

    due: tuple[RowKey, ...]
    listed: tuple[str, ...]  # `<owner_id>/<number>` of the entries
    at_ms: int


class ScoreState(StrEnum):
    """What a transaction's score led to."""

    APPROVED = "approved"
    DECLINED = "declined"
    IN_REVIEW = "in_review"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Row `score/<transaction_id>`: decided once, and what it reserved of the daily limit."""

    owner_id: str
    number: int  # of its entry in the owner's list
    state: ScoreState
    day: int  # of creation, see bank_day
    currency: str
    reserved_minor: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Row `owner/<user_id>`; its transactions are rows `listed/<user_id>/<0 … listed - 1>`."""

    user_id: str
    listed: int
    minute: int  # of the last order, minutes since 1970
    orders: int  # in that minute
    reserved: dict[str, int]  # minor units by `<day>/<currency>`, of the last days alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTransaction:
    """Row `listed/<owner_id>/<number>`."""

    transaction_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Row `review/<review_id>`: a person's task, then its outcome."""

    review_id: str
    order: Order
    score: int
    rules: tuple[str, ...]
    steps: tuple[Step, ...]
    status: ReviewStatus
    actor_id: str | None
    note: str
    version: int
    created_ms: int
    updated_ms: int
    decided_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blacklisted:
    """Row `blacklist/<kind>/<value>`, in each partition."""

    kind: BlacklistKind
    value: str
    note: str
    at_ms: int


Message: TypeAlias = (
    TransactionCreated
    | ReversalGranted
    | TransactionFailed
    | TransactionCancelled
    | DecideReview
    | AddToBlacklist
    | RemoveFromBlacklist
    | BlacklistEntryAdded
    | BlacklistEntryRemoved
    | Tick
)
Verdict: TypeAlias = RiskApproved | RiskDeclined | ReviewRequested
Event: TypeAlias = (
    Verdict
    | RiskReleased
    | ReviewDecided
    | BlacklistEntryAdded
    | BlacklistEntryRemoved
    | BlacklistApplied
    | RiskCommandRefused
    | ScoresForgotten
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule holds against an order: points of a hundred, and the reason of a decline."""

    rule: str
    points: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Case:
    """What the rules look at."""

    order: Order
    owner: Owner | None
    blacklisted: bool
    at_ms: int


def blacklist(case: Case) -> Finding | None:
    if not case.blacklisted:
        return None
    return Finding(rule="blacklist", points=100, reason=Reason.BLACKLISTED)


def daily_limit(case: Case) -> Finding | None:
    """What the owner ordered on the order's day, with this order, stays within the limit."""
    order = case.order
    key = _reserve_key(bank_day(order.created_ms), order.currency)
    reserved_minor = case.owner.reserved.get(key, 0) if case.owner else 0
    if reserved_minor + debited_minor(order) <= DAILY_LIMIT_MINOR:
        return None
    return Finding(rule="daily_limit", points=100, reason=Reason.DAILY_LIMIT)


def amount(case: Case) -> Finding | None:
    if case.order.amount_minor < REVIEW_AMOUNT_MINOR:
        return None
    return Finding(rule="amount", points=50, reason=Reason.RISK_DECLINED)


def velocity(case: Case) -> Finding | None:
    """Orders in this minute, this one too."""
    orders = _orders_in_minute(case.owner, case.at_ms) + 1
    if orders <= REVIEW_ORDERS_A_MINUTE:
        return None
    points = 100 if orders > DECLINE_ORDERS_A_MINUTE else 50
    return Finding(rule="velocity", points=points, reason=Reason.RISK_DECLINED)


Rule: TypeAlias = Callable[[Case], Finding | None]
RULES_FOR_ALL: tuple[Rule, ...] = (blacklist,)
RULES_OF_BEHAVIOUR: tuple[Rule, ...] = (daily_limit, velocity, amount)  # bind what customers order


def findings(case: Case) -> list[Finding]:
    """What the rules hold against an order, in the order of the rules."""
    rules = RULES_FOR_ALL if case.order.privileged else RULES_FOR_ALL + RULES_OF_BEHAVIOUR
    return [finding for rule in rules if (finding := rule(case)) is not None]


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case TransactionCreated() | ReversalGranted():
            return _score(rows, message, at_ms)
        case TransactionFailed() | TransactionCancelled():
            return _release(rows, message.order, at_ms)
        case DecideReview():
            return _decide_review(rows, message, at_ms)
        case AddToBlacklist():
            return (
                BlacklistEntryAdded(
                    kind=message.kind,
                    value=message.value,
                    note=message.note,
                    actor_id=message.actor_id,
                    at_ms=at_ms,
                ),
            )
        case RemoveFromBlacklist():
            return (
                BlacklistEntryRemoved(
                    kind=message.kind, value=message.value, actor_id=message.actor_id, at_ms=at_ms
                ),
            )
        case BlacklistEntryAdded() | BlacklistEntryRemoved():
            return _apply_blacklist(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _score(rows: Rows, fact: TransactionCreated | ReversalGranted, at_ms: int) -> Sequence[Event]:
    order = fact.order
    if score_key(order.transaction_id) in rows:
        return ()
    if at_ms > order.deadline_ms:
        return (_declined(order, 0, Reason.DEADLINE_PASSED, (), "risk", fact.steps, at_ms),)
    found = findings(
        Case(
            order=order,
            owner=rows.get(owner_key(order.owner_id)),
            blacklisted=any(key in rows for key in _blacklist_keys(order)),
            at_ms=at_ms,
        )
    )
    score = min(100, sum(finding.points for finding in found))
    rules = tuple(finding.rule for finding in found)
    if score >= DECLINE_FROM:
        reason = max(found, key=lambda finding: finding.points).reason
        return (_declined(order, score, reason, rules, "risk", fact.steps, at_ms),)
    if score >= REVIEW_FROM:
        return (_review(order, score, rules, fact.steps, at_ms),)
    return (_approved(order, score, "risk", fact.steps, at_ms),)


def _approved(
    order: Order, score: int, step: str, steps: tuple[Step, ...], at_ms: int
) -> RiskApproved:
    steps = traced(steps, step, SERVICE, "approved", at_ms)
    return RiskApproved(order=order, score=score, at_ms=at_ms, steps=steps)


def _declined(
    order: Order,
    score: int,
    reason: Reason,
    rules: tuple[str, ...],
    step: str,
    steps: tuple[Step, ...],
    at_ms: int,
) -> RiskDeclined:
    return RiskDeclined(
        order=order,
        score=score,
        reason=reason,
        rules=rules,
        at_ms=at_ms,
        steps=traced(steps, step, SERVICE, reason, at_ms),
    )


def _review(
    order: Order, score: int, rules: tuple[str, ...], steps: tuple[Step, ...], at_ms: int
) -> ReviewRequested:
    return ReviewRequested(
        order=order,
        review_id=review_id(order),
        score=score,
        rules=rules,
        at_ms=at_ms,
        steps=traced(steps, "risk", SERVICE, "review", at_ms),
    )


def _release(rows: Rows, order: Order, at_ms: int) -> Sequence[Event]:
    """The transaction came to nothing: its review is withdrawn, its share of the limit is free."""
    score: Score | None = rows.get(score_key(order.transaction_id))
    if score is None:
        return ()
    if score.state is ScoreState.IN_REVIEW:
        review: Review = rows[review_key(review_id(order))]
        return (_decided(review, ReviewStatus.WITHDRAWN, SERVICE, "", at_ms),)
    if score.state is not ScoreState.APPROVED:
        return ()
    return (
        RiskReleased(owner_id=order.owner_id, transaction_id=order.transaction_id, at_ms=at_ms),
    )


def _decide_review(rows: Rows, command: DecideReview, at_ms: int) -> Sequence[Event]:
    """A person's word stands over the rules, save the daily limit: the day may have used it up."""
    review: Review | None = rows.get(review_key(command.review_id))
    if review is None:
        return _refuse(command, Reason.REVIEW_NOT_FOUND, at_ms)
    wanted = ReviewStatus.APPROVED if command.approve else ReviewStatus.DECLINED
    if review.status is wanted and review.actor_id == command.actor_id:
        return ()
    if review.status is not ReviewStatus.OPEN:
        return _refuse(command, Reason.REVIEW_DECIDED, at_ms)
    if command.approve and not 0 < command.deadline_s <= DEADLINE_LIMIT_S:
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    word = _decided(review, wanted, command.actor_id, command.note, at_ms)
    order, steps = review.order, review.steps
    if not command.approve:
        return (word, _review_declined(review, Reason.REVIEW_DECLINED, at_ms))
    owner = rows.get(owner_key(order.owner_id))
    if daily_limit(Case(order=order, owner=owner, blacklisted=False, at_ms=at_ms)) is not None:
        return (word, _review_declined(review, Reason.DAILY_LIMIT, at_ms))
    resumed = replace(order, deadline_ms=at_ms + command.deadline_s * 1000)
    return (word, _approved(resumed, review.score, "review", steps, at_ms))


def _decided(
    review: Review, status: ReviewStatus, actor_id: str, note: str, at_ms: int
) -> ReviewDecided:
    return ReviewDecided(
        review_id=review.review_id,
        transaction_id=review.order.transaction_id,
        status=status,
        actor_id=actor_id,
        note=note,
        at_ms=at_ms,
    )


def _review_declined(review: Review, reason: Reason, at_ms: int) -> RiskDeclined:
    steps = review.steps
    return _declined(review.order, review.score, reason, review.rules, "review", steps, at_ms)


def _apply_blacklist(
    rows: Rows, fact: BlacklistEntryAdded | BlacklistEntryRemoved, at_ms: int
) -> Sequence[Event]:
    present = isinstance(fact, BlacklistEntryAdded)
    note = fact.note if isinstance(fact, BlacklistEntryAdded) else ""
    row: Blacklisted | None = rows.get(blacklist_key(fact.kind, fact.value))
    if (row is not None) is present and (row is None or row.note == note):
        return ()
    return (
        BlacklistApplied(kind=fact.kind, value=fact.value, note=note, present=present, at_ms=at_ms),
    )


def _tick(rows: Rows, tick: Tick, at_ms: int) -> Sequence[Event]:
    events: list[Event] = []
    if due := expired(rows, tick, at_ms):
        gone = [key for expiry in due for key in rows[expiry].keys]
        listed = tuple(key.removeprefix(LISTED) for key in gone if key.startswith(LISTED))
        events.append(ScoresForgotten(due=due, listed=listed, at_ms=at_ms))
    for key in overdue(rows, tick, EXPIRE, at_ms):
        review: Review = rows[due_subject(key)]
        events.append(_decided(review, ReviewStatus.DECLINED, SERVICE, "nobody decided", at_ms))
        events.append(_review_declined(review, Reason.REVIEW_EXPIRED, at_ms))
    return events


def _refuse(command: DecideReview, reason: Reason, at_ms: int) -> Sequence[Event]:
    return (
        RiskCommandRefused(
            review_id=command.review_id,
            command=type(command).__name__,
            reason=reason,
            at_ms=at_ms,
        ),
    )


def evolve(rows: Rows, event: Event) -> Changes:
    match event:
        case RiskApproved():
            reserved_minor = 0 if event.order.privileged else debited_minor(event.order)
            return _scored(rows, event, ScoreState.APPROVED, reserved_minor)
        case RiskDeclined():
            return _scored(rows, event, ScoreState.DECLINED, 0)
        case ReviewRequested():
            return {**_scored(rows, event, ScoreState.IN_REVIEW, 0), **_reviewed(event)}
        case RiskReleased():
            return _released(rows, event)
        case ReviewDecided():
            return _review_decided(rows, event)
        case BlacklistApplied():
            key = blacklist_key(event.kind, event.value)
            return {key: _blacklisted(event) if event.present else None}
        case ScoresForgotten():
            return forgotten(rows, event.due)
        case BlacklistEntryAdded() | BlacklistEntryRemoved() | RiskCommandRefused():
            return {}
        case _:
            assert_never(event)


def _scored(rows: Rows, event: Verdict, state: ScoreState, reserved_minor: int) -> Changes:
    """The score, its entry in the owner's list if it is the first verdict, and the owner."""
    order = event.order
    key = score_key(order.transaction_id)
    before: Score | None = rows.get(key)
    owner: Owner | None = rows.get(owner_key(order.owner_id))
    score = Score(
        owner_id=order.owner_id,
        number=before.number if before else (owner.listed if owner else 0),
        state=state,
        day=bank_day(order.created_ms),
        currency=order.currency,
        reserved_minor=reserved_minor,
        at_ms=event.at_ms,
    )
    entry = listed_key(order.owner_id, score.number)
    changes: dict[RowKey, Any] = {key: score}
    if before is None:
        changes[entry] = ListedTransaction(
            transaction_id=order.transaction_id, at_ms=order.created_ms
        )
    if before is None or reserved_minor:
        changes[owner_key(order.owner_id)] = _owner(owner, order, score, before is None)
    if state is not ScoreState.IN_REVIEW:
        due, expiry = forget(rows, event.at_ms, key, entry)
        changes[due] = expiry
    return changes


def _owner(owner: Owner | None, order: Order, score: Score, is_new: bool) -> Owner:
    reserved = owner.reserved if owner else {}
    return Owner(
        user_id=order.owner_id,
        listed=(owner.listed if owner else 0) + is_new,
        minute=score.at_ms // MINUTE_MS,
        orders=_orders_in_minute(owner, score.at_ms) + (is_new and not order.privileged),
        reserved=_reserve(reserved, score) if score.reserved_minor else reserved,
    )


def _reserve(reserved: dict[str, int], score: Score) -> dict[str, int]:
    """The reservations with one more; those of days gone by are let go."""
    oldest = score.day - RESERVED_DAYS
    kept = {key: minor for key, minor in reserved.items() if int(key.split("/")[0]) > oldest}
    key = _reserve_key(score.day, score.currency)
    kept[key] = kept.get(key, 0) + score.reserved_minor
    return kept


def _reserve_key(day: int, currency: str) -> str:
    return f"{day}/{currency}"


def _orders_in_minute(owner: Owner | None, at_ms: int) -> int:
    return owner.orders if owner is not None and owner.minute == at_ms // MINUTE_MS else 0


def _reviewed(event: ReviewRequested) -> Changes:
    key = review_key(event.review_id)
    due, row = due_row(event.at_ms + REVIEW_MS, EXPIRE, key)
    review = Review(
        review_id=event.review_id,
        order=event.order,
        score=event.score,
        rules=event.rules,
        steps=event.steps,
        status=ReviewStatus.OPEN,
        actor_id=None,
        note="",
        version=1,
        created_ms=event.at_ms,
        updated_ms=event.at_ms,
        decided_ms=None,
    )
    return {key: review, due: row}


def _review_decided(rows: Rows, event: ReviewDecided) -> Changes:
    key = review_key(event.review_id)
    review: Review = rows[key]
    decided = replace(
        review,
        status=event.status,
        actor_id=event.actor_id,
        note=event.note,
        version=review.version + 1,
        updated_ms=event.at_ms,
        decided_ms=event.at_ms,
    )
    undue = due_key(review.created_ms + REVIEW_MS, EXPIRE, key)
    changes: dict[RowKey, Any] = {key: decided, undue: None}
    leaving = [key]
    if event.status is ReviewStatus.WITHDRAWN:
        key = score_key(event.transaction_id)
        score: Score = rows[key]
        changes[key] = replace(score, state=ScoreState.RELEASED)
        leaving += (key, listed_key(score.owner_id, score.number))
    due, expiry = forget(rows, event.at_ms, *leaving)
    changes[due] = expiry
    return changes


def _released(rows: Rows, event: RiskReleased) -> Changes:
    key = score_key(event.transaction_id)
    score: Score = rows[key]
    owner: Owner = rows[owner_key(event.owner_id)]
    day = _reserve_key(score.day, score.currency)
    reserved = owner.reserved
    if day in reserved:
        reserved = {**reserved, day: reserved[day] - score.reserved_minor}
    return {
        key: replace(score, state=ScoreState.RELEASED, reserved_minor=0),
        owner_key(event.owner_id): replace(owner, reserved=reserved),
    }


def _blacklisted(event: BlacklistApplied) -> Blacklisted:
    return Blacklisted(kind=event.kind, value=event.value, note=event.note, at_ms=event.at_ms)


def review_id(order: Order) -> str:
    return f"{order.owner_id}.{order.transaction_id}"


def score_key(transaction_id: str) -> RowKey:
    return f"score/{transaction_id}"


def owner_key(user_id: str) -> RowKey:
    return f"owner/{user_id}"


def listed_key(owner_id: str, number: int) -> RowKey:
    return f"{LISTED}{owner_id}/{number:010d}"


def review_key(review_id: str) -> RowKey:
    return f"review/{review_id}"


def blacklist_key(kind: BlacklistKind, value: str) -> RowKey:
    return f"blacklist/{kind.value}/{value}"


def _blacklist_keys(order: Order) -> list[RowKey]:
    accounts = (order.source_account_id, order.destination_account_id)
    return [
        blacklist_key(BlacklistKind.USER, order.owner_id),
        *[blacklist_key(BlacklistKind.ACCOUNT, account) for account in accounts if account],
    ]


def keys(message: Message | Event) -> Sequence[RowKey]:
    match message:
        case TransactionCreated() | ReversalGranted():
            return (*_order_keys(message.order), *_blacklist_keys(message.order))
        case RiskApproved() | RiskDeclined():
            return (*_order_keys(message.order), expiry_key(message.at_ms))
        case ReviewRequested():
            return _order_keys(message.order)
        case TransactionFailed() | TransactionCancelled():
            return (*_order_keys(message.order), review_key(review_id(message.order)))
        case DecideReview():
            return _review_keys(message.review_id)
        case ReviewDecided():
            return (*_review_keys(message.review_id), expiry_key(message.at_ms))
        case ScoresForgotten():
            return message.due
        case RiskReleased():
            return (score_key(message.transaction_id), owner_key(message.owner_id))
        case BlacklistEntryAdded() | BlacklistEntryRemoved():
            return (blacklist_key(message.kind, message.value),)
        case Tick():
            return tick_keys(message)
        case _:
            return ()


def _review_keys(review_id: str) -> tuple[RowKey, RowKey, RowKey]:
    owner_id, _, transaction_id = review_id.rpartition(".")
    return review_key(review_id), owner_key(owner_id), score_key(transaction_id)


def _order_keys(order: Order) -> tuple[RowKey, RowKey]:
    return score_key(order.transaction_id), owner_key(order.owner_id)


def aggregate_id(event: Event) -> str:
    match event:
        case RiskApproved() | RiskDeclined() | ReviewRequested():
            return event.order.owner_id
        case RiskReleased():
            return event.owner_id
        case ReviewDecided() | RiskCommandRefused():
            return event.review_id
        case BlacklistEntryAdded() | BlacklistEntryRemoved() | BlacklistApplied():
            return event.value
        case ScoresForgotten():
            return event.due[0]
        case _:
            assert_never(event)


RISK = Decider(
    service=SERVICE,
    messages=get_args(Message),
    events=get_args(Event),
    rows=(Owner, Score, ListedTransaction, Review, Blacklisted, Due, Expiry),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, "review/", "blacklist/"),
)
