"""Lists out of the workers' tables: one partition after another, each in the order of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway import pages, views
from gateway.answer import Answer, answer
from gateway.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.call import Call
    from gateway.queries import Row

READS = 10  # questions to one worker for one page of a filtered list


class Scanned(NamedTuple):
    """Rows of a page, and where the list goes on; None: it is at its end."""

    rows: Sequence[Row]
    following: str | None


async def page(
    call: Call,
    service: str,
    prefix: str,
    wanted: Callable[[Row], bool],
    *,
    copied: bool = False,
) -> Scanned:
    """A page of the rows under a prefix that the service's workers index; short when few are wanted.

    `copied`: each partition holds all of them, and the first one answers.
    """
    queries, limit = call.gateway.queries, pages.limit_of(call)
    first, after = _start(call)
    found: list[Row] = []
    reads = 0
    for partition in range(1) if copied else range(first, queries.partitions):
        while True:
            if reads == READS or len(found) >= limit:
                return Scanned(found, f"{partition}:{after}")
            reads += 1
            asked = limit - len(found)
            some, following = await queries.listed(service, partition, prefix, after, asked)
            found += [row for _, row in some if wanted(row)]
            if following is None:
                break
            after = following
        after = ""
    return Scanned(found, None)


def shown(call: Call, items: Iterable[dict[str, Any]], following: str | None) -> Answer:
    """A page as its answer."""
    found = [views.picked(item, call.query.get("fields")) for item in items]
    cursor = pages.cursor(following) if following is not None else None
    return answer({"items": found, "next_cursor": cursor})


def _start(call: Call) -> tuple[int, str]:
    """Where a list goes on: partition and the last key that was seen there."""
    partition, _, after = (pages.text_of(call) or "0:").partition(":")
    if not (partition.isascii() and partition.isdecimal()):
        raise Problem("BAD_QUERY", "the cursor is none of this list's")
    return int(partition[:6]), after
