"""Anomaly: how unlike a customer's earlier orders this one is, learnt from those orders alone.

    features --score--> 0 … 100        features --update--> what was learnt, one order longer

A `Model` is two pure functions over a small state, so that the fold of the log learns the same again.
`Ellipse` is the one in use: it keeps the mean and the covariance of the last orders (exponentially
weighted, after Welford's update) and answers how far an order lies from the mean, in deviations, with
all features together: the square of Mahalanobis' distance, d². An order whose features are each
ordinary may still lie far out when they never came together.

All is integers. Features are thousandths of a unit that a person would call a step (doubling an
amount, say); means have ten bits more, covariances twenty. d² is a ratio of two determinants, made
without fractions (Bareiss), so no rounding depends on a machine. The state never grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Features: TypeAlias = tuple[int, ...]  # thousandths; which ones, `behaviour.FEATURES` says

BITS = 10  # of a mean beyond the features' thousandths
MEMORY = 64  # orders that count: older ones fade
WARM = 20  # orders before there is anything to compare with
RIDGE = (250 << BITS) ** 2  # a quarter of a unit: what never varied is still allowed to
FAR = 17  # d² that one order in a hundred passes, of six features that are normally distributed
# a feature that one customer never varied must not make numbers beyond 64 bits
LIMIT = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What a model knows of one customer. `covariances`: the upper triangle, row after row."""

    seen: int  # orders, up to MEMORY
    means: tuple[int, ...]
    covariances: tuple[int, ...]


class Model(Protocol):
    """Features in, 0 (as ever) to 100 (never seen) out; learns one order at a time."""

    name: str

    def score(self, learnt: Learnt | None, features: Features) -> int:
        """0 until enough was learnt."""

    def update(self, learnt: Learnt | None, features: Features) -> Learnt:
        """What is known with this order."""


class Ellipse:
    """See the head of the module."""

    name = "ellipse-1"

    def score(self, learnt: Learnt | None, features: Features) -> int:
        """50 at d² = FAR, towards 100 beyond."""
        if learnt is None or learnt.seen < WARM:
            return 0
        away = _away(learnt, features)
        n = len(away)
        bordered = [[0] * (n + 1) for _ in range(n + 1)]
        at = 0
        for i in range(n):
            bordered[i][n] = bordered[n][i] = away[i]
            for j in range(i, n):
                bordered[i][j] = bordered[j][i] = learnt.covariances[at]
                at += 1
            bordered[i][i] += RIDGE
        whole, part = _determinants(bordered)
        return 100 * part // (part + FAR * whole)

    def update(self, learnt: Learnt | None, features: Features) -> Learnt:
        """The weight of an order is one in all so far, at least one in MEMORY."""
        n = len(features)
        if learnt is None:
            return Learnt(
                seen=1,
                means=tuple([_clamped(x) << BITS for x in features]),
                covariances=(0,) * (n * (n + 1) // 2),
            )
        weight = min(learnt.seen + 1, MEMORY)
        away = _away(learnt, features)
        products = [away[i] * away[j] for i in range(n) for j in range(i, n)]
        return Learnt(
            seen=weight,
            means=tuple([m + d // weight for m, d in zip(learnt.means, away, strict=True)]),
            covariances=tuple(
                [
                    c + (p * (weight - 1) // weight - c) // weight
                    for c, p in zip(learnt.covariances, products, strict=True)
                ]
            ),
        )


def _away(learnt: Learnt, features: Features) -> list[int]:
    return [(_clamped(x) << BITS) - m for x, m in zip(features, learnt.means, strict=True)]


def _clamped(feature: int) -> int:
    return max(-LIMIT, min(LIMIT, feature))


def _determinants(matrix: list[list[int]]) -> tuple[int, int]:
    """Of a covariance matrix C bordered by a vector v: det C, and det C · vᵀC⁻¹v.

    Bareiss: each division leaves nothing. The leading minors of C are its pivots, all positive.
    """
    n = len(matrix) - 1
    before = 1
    for k in range(n):
        pivot = matrix[k][k]
        for i in range(k + 1, n + 1):
            for j in range(k + 1, n + 1):
                matrix[i][j] = (matrix[i][j] * pivot - matrix[i][k] * matrix[k][j]) // before
        before = pivot
    return before, -matrix[n][n]


MODEL: Model = Ellipse()


def log2(n: int) -> int:
    """Thousandths of the binary logarithm of n ≥ 1, straight between powers of two."""
    bits = n.bit_length() - 1
    return bits * 1000 + ((n - (1 << bits)) * 1000 >> bits)


def named(names: Sequence[str], features: Features) -> dict[str, int]:
    """Features as people and other models read them."""
    return dict(zip(names, features, strict=True))
