"""What the rules of risk obey: limits, thresholds and weights, set whole and counted by version.

    SetRiskConfig --> RiskConfigSet --a copy to each partition--> RiskConfigApplied

The command arrives under CONFIG, so that one partition counts the versions. DEFAULT holds until one
is set: each soft rule alone changes nothing; the two that compare an order with the customer's own
past (once there is one), the deviation of its amount and the model, together send it to a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from domain.behaviour import MEMORY
from domain.money import AMOUNT_LIMIT_MINOR
from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.decider import Changes, RowKey, Rows

CONFIG: RowKey = "config"  # the key of the row, and of what arrives about it
LEVELS = 3  # 0 unverified, 1 basic, 2 full
POINTS = 100  # of a certain no
MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a customer of one KYC level may order, in minor units of whatever currency it is."""

    transaction_minor: int  # in one order
    day_minor: int  # in a bank day and currency
    review_minor: int  # an order from here on is looked at by a person


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskConfig:
    """Limits, thresholds and weights. Set whole; orders are scored by the one of their moment."""

    levels: tuple[Level, ...]  # of KYC levels 0, 1, 2
    review_from: int = 50  # points
    decline_from: int = 100
    amount_points: int = 50  # from a level's review_minor on
    minute_review: int = 30  # orders above it
    minute_decline: int = 60
    hour_review: int = 500
    hour_decline: int = 1_000
    day_review: int = 2_000
    day_decline: int = 4_000
    structuring_ppm: int = 100_000  # so much below review_minor is just below
    structuring_points: int = 10
    structuring_orders: int = 3  # of one day; from so many on an order needs a person
    recipient_points: int = 5  # the first payment to a recipient
    night_points: int = 5
    night_from: int = 0  # hours of the bank's clock; equal: there is no night
    night_to: int = 5
    history_days: int = 7  # on which a customer ordered before, for the two rules that compare
    deviation_points: int = 25
    deviation_milli: int = 4_000  # thousandths of a deviation above the mean
    deviation_orders: int = 20  # earlier ones to compare with
    anomaly_points: int = 25
    anomaly_from: int = 75  # of the model's 0 … 100
    features_from: int = 50  # points from which on the feature vector is said; above 100: never
    features_ppm: int = 0  # of the other orders of customers, by their ids


DEFAULT = RiskConfig(
    levels=(
        Level(transaction_minor=100_000, day_minor=100_000, review_minor=80_000),
        Level(transaction_minor=1_000_000, day_minor=2_000_000, review_minor=800_000),
        Level(transaction_minor=10_000_000, day_minor=20_000_000, review_minor=8_000_000),
    )
)


def makes_sense(config: RiskConfig) -> bool:
    """Limits in their order, points within a hundred, hours of a day."""
    points = (
        config.amount_points,
        config.structuring_points,
        config.recipient_points,
        config.night_points,
        config.deviation_points,
        config.anomaly_points,
    )
    pairs = (
        (config.minute_review, config.minute_decline),
        (config.hour_review, config.hour_decline),
        (config.day_review, config.day_decline),
        (config.review_from, config.decline_from),
    )
    return (
        len(config.levels) == LEVELS
        and all(map(_is_level, config.levels))
        and all(0 <= each <= POINTS for each in points)
        and all(0 < low <= high <= MILLION for low, high in pairs)
        and config.decline_from <= POINTS
        and all(0 <= ppm <= MILLION for ppm in (config.structuring_ppm, config.features_ppm))
        and all(0 <= hour <= 24 for hour in (config.night_from, config.night_to))
        and 0 < config.structuring_orders <= MILLION
        and 0 <= config.history_days <= MILLION
        and 0 < config.deviation_orders <= MEMORY
        and 0 <= config.deviation_milli <= MILLION
        and 0 < config.anomaly_from <= POINTS
        and 0 <= config.features_from <= POINTS + 1
    )


def _is_level(level: Level) -> bool:
    return (
        0 <= level.transaction_minor <= level.day_minor <= AMOUNT_LIMIT_MINOR
        and 0 < level.review_minor <= AMOUNT_LIMIT_MINOR
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRiskConfig:
    """Score orders by this from now on. A command of compliance; `version`: of what it replaces."""

    config: RiskConfig
    version: int
    actor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskConfigSet:
    """Orders are scored by this from here on; each risk partition hears it."""

    version: int
    config: RiskConfig
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskConfigApplied:
    """One risk partition scores by this from here on."""

    version: int
    config: RiskConfig
    actor_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskConfigRefused:
    """A configuration makes no sense, or replaces one that was replaced before."""

    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskConfiguration:
    """Row `config`, in each partition."""

    config: RiskConfig
    actor_id: str  # who set it
    version: int
    updated_ms: int


Said = RiskConfigSet | RiskConfigApplied | RiskConfigRefused


def config_of(rows: Rows) -> RiskConfig:
    row: RiskConfiguration | None = rows.get(CONFIG)
    return row.config if row is not None else DEFAULT


def version_of(rows: Rows) -> int:
    """0: the default, which nobody set."""
    row: RiskConfiguration | None = rows.get(CONFIG)
    return row.version if row is not None else 0


def set_config(rows: Rows, command: SetRiskConfig, at_ms: int) -> Sequence[Said]:
    """The same again says nothing: it holds already."""
    version = version_of(rows)
    if version and config_of(rows) == command.config:
        return ()
    if not makes_sense(command.config):
        return (RiskConfigRefused(reason=Reason.INVALID_COMMAND, at_ms=at_ms),)
    if command.version != version:
        return (RiskConfigRefused(reason=Reason.VERSION_PASSED, at_ms=at_ms),)
    return (
        RiskConfigSet(
            version=version + 1, config=command.config, actor_id=command.actor_id, at_ms=at_ms
        ),
    )


def apply_config(rows: Rows, fact: RiskConfigSet, at_ms: int) -> Sequence[Said]:
    """Where it was set it holds already."""
    if version_of(rows) >= fact.version:
        return ()
    return (
        RiskConfigApplied(
            version=fact.version, config=fact.config, actor_id=fact.actor_id, at_ms=at_ms
        ),
    )


def configured(event: RiskConfigSet | RiskConfigApplied) -> Changes:
    row = RiskConfiguration(
        config=event.config,
        actor_id=event.actor_id,
        version=event.version,
        updated_ms=event.at_ms,
    )
    return {CONFIG: row}
