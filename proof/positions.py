"""How far each store is behind the logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stores.catalog import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from proof.reader import Reader
    from stores.catalog import At


def status(
    store: str, positions: Mapping[At, int], reader: Reader, namespace: str, partitions: int
) -> Iterator[str]:
    """A line a partition that holds anything. Markers of transactions take offsets too."""
    for topic in TOPICS:
        for partition in range(partitions):
            end = reader.bounds(f"{namespace}{topic}", partition)[1]
            at = positions.get((topic, partition), 0)
            if end:
                yield f"{store:<8} {topic}-{partition:<3} at {at:>11,} of {end:>11,}, {end - at:,} behind"
