"""What a file says, before it is a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Money:
    """An amount: minor units of a currency that has `exponent` decimals."""

    minor: int
    currency: str
    exponent: int

    def text(self, grouped: bool = False) -> str:
        """As people write it: -1050, 2 → -10.50; with `grouped` 123456 → 1,234.56."""
        sign = "-" if self.minor < 0 else ""
        whole, rest = divmod(abs(self.minor), 10**self.exponent)
        shown = f"{whole:,}" if grouped else str(whole)
        return f"{sign}{shown}.{rest:0{self.exponent}d}" if self.exponent else f"{sign}{shown}"


Value: TypeAlias = "str | int | Money | datetime | None"  # times are UTC and know it


class Kind(StrEnum):
    """What a column holds, which says how it is set."""

    TEXT = "text"
    CODE = "code"  # an id: may be cut where there is little room
    NUMBER = "number"
    MONEY = "money"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `width`: its share of a page's width, beside the other columns' shares."""

    title: str
    kind: Kind = Kind.TEXT
    width: int = 10
    on_paper: bool = True  # else left out of a PDF, which has no room for all


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns. `rows` is gone through once, for each time that the table is written.

    `strong` says of a row whether it stands out, as a balance carried forward does.
    """

    title: str
    columns: Sequence[Column]
    rows: Iterable[Sequence[Value]]
    strong: frozenset[str] = frozenset()  # a row whose first cell is one of these stands out


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """A chart: a bar for each label. `shown` are the values as people read them."""

    title: str
    labels: Sequence[str]
    values: Sequence[int]
    shown: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A title, what it is about, and tables with like columns, which a CSV has under one head."""

    title: str
    issuer: str
    facts: Sequence[tuple[str, str]] = ()
    summary: Sequence[Table] = ()  # short tables that stand before all others
    chart: Bars | None = None
    tables: Sequence[Table] = field(default_factory=tuple)
    footer: str = ""
