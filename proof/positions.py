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
    """A line a partition that holds anything. Behind are offsets, none where no record is left to be read."""
    for topic in TOPICS:
        for partition in range(partitions):
            name = f"{namespace}{topic}"
            end = reader.bounds(name, partition)[1]
            at = positions.get((topic, partition), 0)
            behind = end - at if reader.goes_on(name, partition, at) else 0
            if end:
                yield f"{store:<8} {topic}-{partition:<3} at {at:>11,} of {end:>11,}, {behind:,} behind"
