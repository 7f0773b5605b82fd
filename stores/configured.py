"""The stores that the settings name: the driver of each is loaded where it is used, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stores.catalog import Store
from stores.questions import Questions
from stores.rebuilding import Rebuilding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from settings import Settings


class Whole(Store, Questions, Rebuilding, Protocol):
    """All that is asked of a store."""


def _mysql(settings: Settings) -> Whole:
    from stores.mysql import MySQL

    return MySQL(settings.mysql_url)


def _mongodb(settings: Settings) -> Whole:
    from stores.mongo import MongoDB

    return MongoDB(settings.mongodb_url, settings.mongodb_client)


MAKERS: Mapping[str, Callable[[Settings], Whole]] = {"mysql": _mysql, "mongodb": _mongodb}
NAMES = tuple(MAKERS)


def named(settings: Settings) -> list[str]:
    """The names of those that are configured."""
    return [name for name in NAMES if getattr(settings, f"{name}_url")]


def configured(settings: Settings) -> dict[str, Whole]:
    """By name; each opens its connections at its first call."""
    return {name: MAKERS[name](settings) for name in named(settings)}
