"""The stores that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stores.catalog import Store
from stores.mongo import MongoDB
from stores.mysql import MySQL
from stores.questions import Questions
from stores.rebuilding import Rebuilding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settings import Settings

NAMES = ("mysql", "mongodb")


class Whole(Store, Questions, Rebuilding, Protocol):
    """All that is asked of a store."""


def configured(settings: Settings) -> dict[str, Whole]:
    """By name; each opens its connections at its first call."""
    return {store.name: store for store in _stores(settings)}


def _stores(settings: Settings) -> Iterator[Whole]:
    if settings.mysql_url:
        yield MySQL(settings.mysql_url)
    if settings.mongodb_url:
        yield MongoDB(settings.mongodb_url, settings.mongodb_client)
