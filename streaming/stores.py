"""The committed state of one table partition: what a prefix of its changelog says.

A store holds only what was committed, together with the changelog offset up to which it is that state
(`next_offset`). Whoever opens it later reads the changelog from there: a store is never wrong, only old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Store(Protocol):
    """Bytes by key, and the changelog offset that they reflect."""

    next_offset: int  # the changelog's records below this are in the store
    position: bytes | None  # the last position record among them
    as_of_s: float  # when the last of them was written, Unix time

    def get(self, key: bytes) -> bytes | None:
        """The committed value of a key."""

    def apply(
        self,
        changes: Iterable[tuple[bytes, bytes | None]],
        position: bytes | None,
        next_offset: int,
        as_of_s: float,
    ) -> None:
        """Take changes (None deletes), position, offset and time in at once, or none of them."""

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All committed pairs whose key starts with `prefix`."""

    def __len__(self) -> int: ...

    def clear(self) -> None:
        """Forget everything; `next_offset` is 0 again."""

    def close(self) -> None: ...


class MemoryStore:
    """A dict; restored from the changelog at each start."""

    __slots__ = ("as_of_s", "data", "next_offset", "position")

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.position: bytes | None = None
        self.next_offset, self.as_of_s = 0, 0.0

    def get(self, key: bytes) -> bytes | None:
        return self.data.get(key)

    def apply(
        self,
        changes: Iterable[tuple[bytes, bytes | None]],
        position: bytes | None,
        next_offset: int,
        as_of_s: float,
    ) -> None:
        changes = list(changes)
        self.data.update(changes)  # type: ignore[arg-type]  # without the deleted ones, in a moment
        for key in [key for key, value in changes if value is None]:
            if self.data.get(key, b"") is None:  # its last word, in the log's order
                del self.data[key]
        if position is not None:
            self.position = position
        self.next_offset, self.as_of_s = next_offset, as_of_s

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        if not prefix:
            return iter(list(self.data.items()))
        return iter([(k, v) for k, v in self.data.items() if k.startswith(prefix)])

    def __len__(self) -> int:
        return len(self.data)

    def clear(self) -> None:
        self.data.clear()
        self.position, self.next_offset, self.as_of_s = None, 0, 0.0

    def close(self) -> None:
        """Nothing to let go of."""
