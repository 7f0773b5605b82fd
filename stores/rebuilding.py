"""What a store offers to have one of its tables built anew beside the one that is asked, and compared.

begin_rebuild --> rebuild … --> swap
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from stores.catalog import At, Batch, Document


class Rebuilding(Protocol):
    """`name` is one of `catalog.NAMES`. All raise Unavailable while the store does not answer."""

    async def begin_rebuild(self, name: str) -> None:
        """An empty place beside that of `name`, whatever an earlier one left there."""

    async def rebuild(self, name: str, following: int, batch: Batch) -> None:
        """Write what a batch says of `name` into it; no position moves."""

    async def swap(self, name: str, positions: Mapping[At, int]) -> None:
        """Exchange them, and put the positions of the sources of `name` back to these."""

    def scan(self, name: str) -> AsyncIterator[tuple[str, Document]]:
        """All documents by key; events and entries by their ids."""
