r"""Risk: a score from a list of rules, and a decision, before money moves.

    TransactionCreated --score--> RiskApproved | RiskDeclined | ReviewRequested
                                                                   \--DecideReview or 24 h--> ...

Keyed by the owner of the money. An approval reserves the order's amount of the owner's daily limit;
a transaction that came to nothing frees it again. The rules are `risk_rules`, what they obey is
`risk_config`, what is known of a customer `behaviour`, how a model learns it `anomaly`, and whom the
bank does not deal with `blacklist`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, get_args

from domain import behaviour, blacklist, risk_config
from domain.account import AccountOpened
from domain.anomaly import MODEL, named
from domain.bank_day import bank_day
from domain.behaviour import FEATURES, Customer, Recipient, customer_key
from domain.blacklist import (
    AddToBlacklist,
    BlacklistApplied,
    Blacklisted,
    BlacklistEntryAdded,
    BlacklistEntryRemoved,
    BlacklistKind,
    Held,
    HeldAccountKept,
    Holder,
    OwnerBarred,
    RemoveFromBlacklist,
    blacklist_key,
)
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
from domain.kyc import KycLevelSet
from domain.risk_config import (
    CONFIG,
    MILLION,
    Level,
    RiskConfig,
    RiskConfigApplied,
    RiskConfigRefused,
    RiskConfigSet,
    RiskConfiguration,
    SetRiskConfig,
    config_of,
)
from domain.risk_rules import (
    Case,
    Finding,
    daily_limit,
    day_key,
    findings,
    is_near_limit,
    reason_of,
    score_of,
)
from domain.saga import (
    Client,
    Order,
    RateFixed,
    Reason,
    ReversalGranted,
    ReviewRequested,
    RiskApproved,
    RiskDeclined,
    Step,
    TransactionCancelled,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
    debited_minor,
    traced,
    undoes,
)
from domain.transaction import DEADLINE_LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "risk"

LISTED = "listed/"  # the prefix of the entries in owners' lists
EXPIRE = "expire"  # the kind of a due row: nobody decided the review
REVIEW_MS = 24 * 3600 * 1000
RESERVED_DAYS = 3  # how many days of reservations an owner's row keeps
MINUTE_MS = 60 * 1000


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
class KycLevelKept:
    """Risk knows how far the bank knows this user; the limits of that level bind from here on."""

    user_id: str
    level: int
    version: int  # of the user, when that was said
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesExtracted:
    """How an order looked to the rules and the model: what other models can learn from."""

    transaction_id: str
    owner_id: str
    features: dict[str, int]  # in thousandths, see behaviour.FEATURES
    anomaly: int  # the model's word, 0 … 100
    model: str
    points: dict[str, int]  # by rule
    score: int
    verdict: str  # approved, in_review or declined
    config_version: int
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


Message: TypeAlias = (
    TransactionCreated
    | ReversalGranted
    | RateFixed
    | TransactionFailed
    | TransactionCancelled
    | DecideReview
    | AddToBlacklist
    | RemoveFromBlacklist
    | BlacklistEntryAdded
    | BlacklistEntryRemoved
    | OwnerBarred
    | AccountOpened
    | KycLevelSet
    | SetRiskConfig
    | RiskConfigSet
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
    | HeldAccountKept
    | OwnerBarred
    | FeaturesExtracted
    | KycLevelKept
    | RiskConfigSet
    | RiskConfigApplied
    | RiskConfigRefused
    | RiskCommandRefused
    | ScoresForgotten
)


def decide(rows: Rows, message: Message, at_ms: int) -> Sequence[Event]:
    match message:
        case TransactionCreated() | ReversalGranted() | RateFixed():
            return _score(rows, message, at_ms)
        case TransactionFailed() | TransactionCancelled():
            return _release(rows, message, at_ms)
        case DecideReview():
            return _decide_review(rows, message, at_ms)
        case AddToBlacklist() | RemoveFromBlacklist():
            return blacklist.change(message, at_ms)
        case BlacklistEntryAdded() | BlacklistEntryRemoved():
            return blacklist.apply(rows, message, at_ms)
        case OwnerBarred():
            return blacklist.bar(rows, message, at_ms)
        case AccountOpened():
            return blacklist.keep_account(rows, message, at_ms)
        case KycLevelSet():
            return _keep_level(rows, message, at_ms)
        case SetRiskConfig():
            return risk_config.set_config(rows, message, at_ms)
        case RiskConfigSet():
            return risk_config.apply_config(rows, message, at_ms)
        case Tick():
            return _tick(rows, message, at_ms)
        case _:
            assert_never(message)


def _score(
    rows: Rows, fact: TransactionCreated | ReversalGranted | RateFixed, at_ms: int
) -> Sequence[Event]:
    order = fact.order
    if score_key(order.transaction_id) in rows:
        return ()
    if at_ms > order.deadline_ms:
        return (_declined(order, 0, Reason.DEADLINE_PASSED, (), "risk", fact.steps, at_ms),)
    client = None if isinstance(fact, ReversalGranted) else fact.client
    if order.privileged:
        if not blacklist.barred(rows, order, client):
            return (_approved(order, 0, "risk", fact.steps, at_ms),)
        return _verdict(Case(order=order, at_ms=at_ms, blacklisted=True), rows, fact.steps)
    return _verdict(case_of(rows, order, client, at_ms), rows, fact.steps)


def case_of(rows: Rows, order: Order, client: Client | None, at_ms: int) -> Case:
    """What the rules look at when a customer orders; `rows`: those that `scoring_keys` names."""
    config = config_of(rows)
    owner: Owner | None = rows.get(owner_key(order.owner_id))
    customer: Customer | None = rows.get(customer_key(order.owner_id))
    is_new = behaviour.is_new_recipient(rows, order)
    features = behaviour.features(customer, order, is_new, at_ms)
    return Case(
        order=order,
        at_ms=at_ms,
        blacklisted=blacklist.barred(rows, order, client),
        config=config,
        reserved_minor=_reserved_minor(owner, order),
        in_minute=_orders_in_minute(owner, at_ms),
        customer=customer,
        is_new_recipient=is_new,
        features=features,
        anomaly=MODEL.score(customer.learnt if customer is not None else None, features),
        level=_level(config, customer),
    )


def scoring_keys(order: Order, client: Client | None) -> tuple[RowKey, ...]:
    """The rows that an order is scored by."""
    listed = blacklist.barring(order, client)
    return (
        (*_order_keys(order), *listed)
        if order.privileged
        else (
            *_order_keys(order),
            *listed,
            *_customer_keys(order),
        )
    )


def judged(case: Case) -> tuple[Sequence[Finding], int, ScoreState]:
    """What speaks against an order, its points, and what they lead to."""
    found = findings(case)
    score = score_of(found)
    if score >= case.config.decline_from:
        return found, score, ScoreState.DECLINED
    if score >= case.config.review_from:
        return found, score, ScoreState.IN_REVIEW
    return found, score, ScoreState.APPROVED


def _verdict(case: Case, rows: Rows, steps: tuple[Step, ...]) -> Sequence[Event]:
    """The decision, and now and then what it was decided from."""
    order, config, at_ms = case.order, case.config, case.at_ms
    found, score, state = judged(case)
    rules = tuple(finding.rule for finding in found)
    verdict: Verdict
    if state is ScoreState.DECLINED:
        verdict = _declined(order, score, reason_of(found), rules, "risk", steps, at_ms)
    elif state is ScoreState.IN_REVIEW:
        verdict = _review(order, score, rules, steps, at_ms)
    else:
        verdict = _approved(order, score, "risk", steps, at_ms)
    told = score >= config.features_from or _is_sampled(order, config.features_ppm)
    if told and not order.privileged:
        return verdict, _extracted(case, found, score, state, risk_config.version_of(rows))
    return (verdict,)


def _is_sampled(order: Order, ppm: int) -> bool:
    """The same orders whoever asks, and whenever."""
    if not ppm:
        return False
    digest = hashlib.sha256(order.transaction_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % MILLION < ppm


def _extracted(
    case: Case, found: Sequence[Finding], score: int, state: ScoreState, version: int
) -> FeaturesExtracted:
    return FeaturesExtracted(
        transaction_id=case.order.transaction_id,
        owner_id=case.order.owner_id,
        features=named(FEATURES, case.features),
        anomaly=case.anomaly,
        model=MODEL.name,
        points={finding.rule: finding.points for finding in found},
        score=score,
        verdict=state.value,
        config_version=version,
        at_ms=case.at_ms,
    )


def _level(config: RiskConfig, customer: Customer | None) -> Level:
    """A level that the configuration does not know is its highest."""
    level = customer.level if customer is not None else 0
    return config.levels[min(level, len(config.levels) - 1)]


def _keep_level(rows: Rows, fact: KycLevelSet, at_ms: int) -> Sequence[Event]:
    customer: Customer | None = rows.get(customer_key(fact.user_id))
    if customer is not None and customer.level_version >= fact.version:
        return ()
    return (
        KycLevelKept(user_id=fact.user_id, level=fact.level, version=fact.version, at_ms=at_ms),
    )


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


def _release(
    rows: Rows, fact: TransactionFailed | TransactionCancelled, at_ms: int
) -> Sequence[Event]:
    """The transaction came to nothing: its review is withdrawn, its share of the limit is free."""
    order = fact.order
    score: Score | None = rows.get(score_key(order.transaction_id))
    if score is None:
        return _declined_before_it_came(fact, at_ms)
    if score.state is ScoreState.IN_REVIEW:
        review: Review = rows[review_key(review_id(order))]
        return (_decided(review, ReviewStatus.WITHDRAWN, SERVICE, "", at_ms),)
    if score.state is not ScoreState.APPROVED:
        return ()
    return (
        RiskReleased(owner_id=order.owner_id, transaction_id=order.transaction_id, at_ms=at_ms),
    )


def _declined_before_it_came(
    fact: TransactionFailed | TransactionCancelled, at_ms: int
) -> Sequence[Event]:
    """What was cancelled may be on its way from whom it needed first: it is to meet a decline."""
    order = fact.order
    took_a_detour = order.type is TransactionType.EXCHANGE or undoes(order)
    if isinstance(fact, TransactionFailed) or not took_a_detour:
        return ()
    return (_declined(order, 0, Reason.CANCELLED, (), "risk", fact.steps, at_ms),)


def _decide_review(rows: Rows, command: DecideReview, at_ms: int) -> Sequence[Event]:
    """A person's word stands over the rules, save the daily limit: the day may have used it up."""
    review: Review | None = rows.get(review_key(command.review_id))
    if review is None:
        return _refuse(command, Reason.REVIEW_NOT_FOUND, at_ms)
    wanted = ReviewStatus.APPROVED if command.approve else ReviewStatus.DECLINED
    if review.status is wanted and review.actor_id == command.actor_id:
        return ()
    if command.actor_id in (review.order.owner_id, review.order.actor_id):
        return _refuse(command, Reason.OWN_CASE, at_ms)
    if review.status is not ReviewStatus.OPEN:
        return _refuse(command, Reason.REVIEW_DECIDED, at_ms)
    if command.approve and not 0 < command.deadline_s <= DEADLINE_LIMIT_S:
        return _refuse(command, Reason.INVALID_COMMAND, at_ms)
    word = _decided(review, wanted, command.actor_id, command.note, at_ms)
    order, steps = review.order, review.steps
    if not command.approve:
        return (word, _review_declined(review, Reason.REVIEW_DECLINED, at_ms))
    if daily_limit(_day_of(rows, order, at_ms)) is not None:
        return (word, _review_declined(review, Reason.DAILY_LIMIT, at_ms))
    resumed = replace(order, deadline_ms=at_ms + command.deadline_s * 1000)
    return (word, _approved(resumed, review.score, "review", steps, at_ms))


def _day_of(rows: Rows, order: Order, at_ms: int) -> Case:
    """What the daily limit looks at."""
    return Case(
        order=order,
        at_ms=at_ms,
        reserved_minor=_reserved_minor(rows.get(owner_key(order.owner_id)), order),
        level=_level(config_of(rows), rows.get(customer_key(order.owner_id))),
    )


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
        case BlacklistApplied() | HeldAccountKept():
            return blacklist.evolve(rows, event)
        case RiskConfigSet() | RiskConfigApplied():
            return risk_config.configured(event)
        case KycLevelKept():
            return _levelled(rows, event)
        case ScoresForgotten():
            return forgotten(rows, event.due)
        case (
            BlacklistEntryAdded()
            | BlacklistEntryRemoved()
            | OwnerBarred()
            | FeaturesExtracted()
            | RiskConfigRefused()
            | RiskCommandRefused()
        ):
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
    leaving = [key, entry] if state is not ScoreState.IN_REVIEW else []
    if not order.privileged:
        behaved = _behaved(rows, event, before is None)
        changes |= behaved
        leaving += [row for row in behaved if row.startswith("recipient/")]
    if leaving:
        due, expiry = forget(rows, event.at_ms, *leaving)
        changes[due] = expiry
    return changes


def _behaved(rows: Rows, event: Verdict, is_new: bool) -> Changes:
    """What the order shows of the customer: that they ordered, and how, once it was approved."""
    order, at_ms = event.order, event.at_ms
    key = customer_key(order.owner_id)
    customer: Customer | None = rows.get(key)
    if is_new or customer is None:
        config = config_of(rows)
        near = is_near_limit(order, _level(config, customer), config)
        customer = behaviour.counted(rows, order, near, at_ms)
    if not isinstance(event, RiskApproved):
        return {key: customer}
    customer = behaviour.learnt_from(rows, customer, order, at_ms)
    return {key: customer, **behaviour.paid(rows, order, at_ms)}


def _levelled(rows: Rows, event: KycLevelKept) -> Changes:
    key = customer_key(event.user_id)
    customer: Customer = rows.get(key) or Customer(user_id=event.user_id, amounts={})
    return {key: replace(customer, level=event.level, level_version=event.version)}


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


def _reserved_minor(owner: Owner | None, order: Order) -> int:
    return owner.reserved.get(day_key(order), 0) if owner is not None else 0


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


def keys(message: Message | Event) -> Sequence[RowKey]:  # noqa: C901 - a case a message
    match message:
        case TransactionCreated() | RateFixed():
            return scoring_keys(message.order, message.client)
        case ReversalGranted():
            return scoring_keys(message.order, None)
        case RiskApproved() | RiskDeclined() | ReviewRequested():
            order = message.order
            behaved = () if order.privileged else _customer_keys(order)
            return (*_order_keys(order), *behaved, expiry_key(message.at_ms))
        case TransactionFailed() | TransactionCancelled():
            return (*_order_keys(message.order), review_key(review_id(message.order)))
        case DecideReview():
            owner_id = message.review_id.rpartition(".")[0]
            return (*_review_keys(message.review_id), customer_key(owner_id), CONFIG)
        case ReviewDecided():
            return (*_review_keys(message.review_id), expiry_key(message.at_ms))
        case ScoresForgotten():
            return message.due
        case RiskReleased():
            return (score_key(message.transaction_id), owner_key(message.owner_id))
        case BlacklistEntryAdded() | BlacklistEntryRemoved():
            return (
                blacklist_key(message.kind, message.value),
                blacklist.holder_key(message.value),
            )
        case BlacklistApplied():
            return (blacklist_key(message.kind, message.value),)
        case OwnerBarred():
            return blacklist.bar_keys(message)
        case AccountOpened():
            return (
                blacklist.held_key(message.user_id, message.account_id),
                blacklist.holder_key(message.user_id),
                blacklist_key(BlacklistKind.USER, message.user_id),
            )
        case KycLevelSet() | KycLevelKept():
            return (customer_key(message.user_id),)
        case SetRiskConfig() | RiskConfigSet():
            return (CONFIG,)
        case Tick():
            return tick_keys(message)
        case _:
            return ()


def _review_keys(review_id: str) -> tuple[RowKey, RowKey, RowKey]:
    owner_id, _, transaction_id = review_id.rpartition(".")
    return review_key(review_id), owner_key(owner_id), score_key(transaction_id)


def _customer_keys(order: Order) -> tuple[RowKey, ...]:
    return (CONFIG, customer_key(order.owner_id), *behaviour.recipient_keys(order))


def _order_keys(order: Order) -> tuple[RowKey, RowKey]:
    return score_key(order.transaction_id), owner_key(order.owner_id)


def aggregate_id(event: Event) -> str:
    match event:
        case RiskApproved() | RiskDeclined() | ReviewRequested():
            return event.order.owner_id
        case RiskReleased() | FeaturesExtracted():
            return event.owner_id
        case HeldAccountKept() | OwnerBarred() | KycLevelKept():
            return event.user_id
        case RiskConfigSet() | RiskConfigApplied() | RiskConfigRefused():
            return CONFIG
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
    rows=(
        Owner,
        Score,
        ListedTransaction,
        Review,
        Blacklisted,
        Holder,
        Held,
        Customer,
        Recipient,
        RiskConfiguration,
        Due,
        Expiry,
    ),
    keys=keys,
    decide=decide,
    evolve=evolve,
    aggregate_id=aggregate_id,
    indexes=(DUE, "review/", "blacklist/"),
)
