"""What a traveller or an analyst is told in one sentence."""

from __future__ import annotations


class BadMoment(Exception):
    """A time or a place that can't be travelled to."""


class Refused(Exception):
    """SQL that is not one SELECT over the tables, or that DuckDB can't run."""


class TooLarge(Exception):
    """A query that did not end within its time or memory, or whose answer is too large."""


class TooLong(TooLarge):
    """A query whose time was over: where nobody else takes the core it may end."""
