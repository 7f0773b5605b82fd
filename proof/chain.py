"""audit verify: the chains of hashes computed again from the event topics, and what does not fit named.

    audit.events --EntriesChained--> links by chain --compared with--> <service>.events, .private
                 --CheckpointTaken--> heads         --compared with--> links

A link follows from the one before it and the entry's digest, so each entry is judged by itself: the
first that is wrong does not make all that follow wrong. What stands elsewhere than it was chained is
told from what was changed by trying the other places that are wrong too.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from domain.audit import (
    GENESIS,
    LINK,
    CheckpointTaken,
    EntriesChained,
    checkpoint_hash,
    digest,
    link,
    unpacked,
)
from proof.reader import LogRecord
from schemas.errors import Unreadable
from topics.catalog import TOPICS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from agents.transact import Codec
    from proof.reader import Reader

AUDIT_LOG = "audit.events"
WATCHED = tuple(
    topic.name
    for topic in TOPICS
    if topic.kind in (Kind.EVENTS, Kind.PRIVATE) and topic.name != AUDIT_LOG
)
FINDINGS = 1_000  # kept; the rest is counted
MOVED = 200  # entries of a chain that are wrong, up to which each is tried in the others' places


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What does not fit: changed, missing, added or reordered, and where."""

    what: str
    where: str  # <topic>-<partition>-<offset>
    event_id: str | None
    said: str

    def __str__(self) -> str:
        named = f" event {self.event_id}" if self.event_id else ""
        return f"{self.what.upper()} {self.where}{named}: {self.said}"


@dataclass(slots=True)
class Links:
    """One chain as audit wrote it: offsets and links of its entries. `base`: those before them."""

    base: int = 0
    before: bytes = GENESIS  # the link that the first of them follows
    offsets: array[int] = field(default_factory=lambda: array("q"))
    links: bytearray = field(default_factory=bytearray)
    gaps: dict[int, int] = field(default_factory=dict)  # before the n-th so many are not told of

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def count(self) -> int:
        """Entries of the whole chain."""
        return self.number(len(self.offsets))

    def number(self, n: int) -> int:
        """Which entry of the whole chain the n-th of these is."""
        return self.base + n + sum(lost for at, lost in self.gaps.items() if at <= n)

    def index(self, number: int) -> int | None:
        """The inverse; None: it is not among these."""
        n = number - self.base
        for at, lost in sorted(self.gaps.items()):
            if n >= at:
                n -= lost
                if n < at:
                    return None
        return n if -1 <= n < len(self.offsets) else None

    def at(self, n: int) -> bytes:
        """The n-th link of these; -1: the one before them."""
        return self.before if n < 0 else bytes(self.links[n * LINK : (n + 1) * LINK])


@dataclass(slots=True)
class Result:
    """What a verification came to."""

    entries: int = 0  # compared
    chains: int = 0
    waiting: int = 0  # records that audit has not chained yet
    checkpoints: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)
    last: CheckpointTaken | None = None

    def add(self, finding: Finding) -> None:
        self.found += 1
        if len(self.findings) < FINDINGS:
            self.findings.append(finding)


@dataclass(slots=True)
class AuditLog:
    """`audit.events`, read: links of each chain, and the checkpoints."""

    chains: dict[str, Links] = field(default_factory=dict)
    checkpoints: list[CheckpointTaken] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def take(self, record: LogRecord, event: Any) -> None:
        if isinstance(event, EntriesChained):
            self._join(record, event)
        elif isinstance(event, CheckpointTaken):
            self.checkpoints.append(event)

    def _join(self, record: LogRecord, event: EntriesChained) -> None:
        """Entries follow each other by their numbers, or something of audit itself is wrong."""
        links = self.chains.setdefault(event.chain, Links())
        where = f"{AUDIT_LOG}-{record.partition}-{record.offset}"
        hashes = unpacked(event.links)
        if event.first > links.count:
            said = f"entries {links.count} to {event.first - 1} of {event.chain} are not in the audit log"
            self._wrong("missing", where, record, said)
            links.gaps[len(links)] = event.first - links.count
        elif event.first < links.count:
            known = links.index(event.first) is not None
            what = "added" if known else "reordered"
            self._wrong(what, where, record, f"entry {event.first} of {event.chain} comes too late")
            return
        if len(hashes) != len(event.offsets) or sorted(event.offsets) != [*event.offsets]:
            said = f"{len(hashes)} links for {len(event.offsets)} entries"
            self._wrong("changed", where, record, said)
            return
        links.offsets.extend(event.offsets)
        links.links += b"".join(hashes)

    def _wrong(self, what: str, where: str, record: LogRecord, said: str) -> None:
        event_id = record.headers.get("ce_id", b"").decode(errors="replace")
        self.findings.append(Finding(what=what, where=where, event_id=event_id, said=said))


def audit_log(reader: Reader, namespace: str, codec: Codec, partitions: int) -> AuditLog:
    """All of it. A record that can't be read is a finding."""
    log = AuditLog()
    for partition in range(partitions):
        for record in reader.records(f"{namespace}{AUDIT_LOG}", partition):
            where = f"{AUDIT_LOG}-{partition}-{record.offset}"
            try:
                log.take(record, codec.decode(record.value or b""))
            except (Unreadable, ValueError) as why:
                finding = Finding(what="changed", where=where, event_id=None, said=str(why))
                log.findings.append(finding)
    log.checkpoints.sort(key=lambda one: one.number)
    return log


def cut(links: Links, count: int) -> Links:
    """The chain from its `count`-th entry on, which what was before is trusted for."""
    n = links.index(count - 1)
    if n is None or n < 0:
        return links
    return Links(
        base=count,
        before=links.at(n),
        offsets=links.offsets[n + 1 :],
        links=links.links[(n + 1) * LINK :],
        gaps={at - n - 1: lost for at, lost in links.gaps.items() if at > n},
    )


@dataclass(slots=True)
class Wrong:
    """An entry whose record does not give its link. `computed`: the link that the record gives."""

    n: int
    record: LogRecord
    computed: bytes
    told: str = "changed"  # what was: the record, or what audit says of it


def compare(chain: str, links: Links, records: Iterable[LogRecord], result: Result) -> None:
    """One chain against its topic partition, both in the order of their offsets."""
    topic, _, number = chain.rpartition("-")
    at = (topic, int(number))
    wrong: list[Wrong] = []
    n, entries = 0, len(links)
    end = links.offsets[-1] if entries else -1
    for record in records:
        while n < entries and links.offsets[n] < record.offset:
            result.add(_missing(chain, links, n))
            n += 1
        if n < entries and links.offsets[n] == record.offset:
            result.entries += 1
            _look(at, links, n, record, wrong)
            n += 1
        elif record.offset > end:
            result.waiting += 1
        elif n not in links.gaps:
            said = "audit has no entry for it, but later ones"
            result.add(_finding("added", chain, record, said))
    for missing in range(n, entries):
        result.add(_missing(chain, links, missing))
    for finding in _judged(at, links, wrong):
        result.add(finding)


def _entry(at: tuple[str, int], record: LogRecord, offset: int) -> bytes:
    """The digest of a record taken to be at `offset`."""
    return digest((*at, offset), record.at_ms, record.key, record.value, record.headers)


def _look(at: tuple[str, int], links: Links, n: int, record: LogRecord, wrong: list[Wrong]) -> None:
    """One record against its entry."""
    if n in links.gaps:
        return  # what it follows is not known
    entry = _entry(at, record, record.offset)
    computed = link(links.at(n - 1), entry)
    if computed == links.at(n):
        return
    last = wrong[-1] if wrong and wrong[-1].n == n - 1 else None
    if last is not None and link(last.computed, entry) == links.at(n):
        last.told = "link"  # both records are right: audit's word on the first is not
        return
    wrong.append(Wrong(n, record, computed))


def _judged(at: tuple[str, int], links: Links, wrong: list[Wrong]) -> Iterator[Finding]:
    """Those that were chained in each other's places, and those that were changed."""
    chain = f"{at[0]}-{at[1]}"
    others = [one.n for one in wrong] if len(wrong) <= MOVED else []
    for one in wrong:
        number = links.number(one.n)
        if one.told == "link":
            said = f"the audit log has another link for entry {number} than its record gives"
            yield _finding("changed", chain, one.record, said)
        elif (moved := _moved(at, links, one, others)) is not None:
            said = f"it was chained at offset {moved}"
            yield _finding("reordered", chain, one.record, said)
        else:
            yield _finding("changed", chain, one.record, f"it is not what entry {number} was")


def _moved(at: tuple[str, int], links: Links, one: Wrong, others: list[int]) -> int | None:
    """The offset at which a record was chained, if it is another one."""
    for m in others:
        entry = _entry(at, one.record, links.offsets[m])
        if m != one.n and link(links.at(m - 1), entry) == links.at(m):
            return links.offsets[m]
    return None


def _missing(chain: str, links: Links, n: int) -> Finding:
    said = f"entry {links.number(n)} is not in the log"
    where = f"{chain}-{links.offsets[n]}"
    return Finding(what="missing", where=where, event_id=None, said=said)


def _finding(what: str, chain: str, record: LogRecord, said: str) -> Finding:
    event_id = record.headers.get("ce_id", b"").decode(errors="replace") or None
    return Finding(what=what, where=f"{chain}-{record.offset}", event_id=event_id, said=said)


def check_checkpoints(log: AuditLog, result: Result) -> None:
    """Each follows the one before and hashes to what it says; each head is a link of its chain."""
    previous: CheckpointTaken | None = None
    for one in log.checkpoints:
        result.checkpoints += 1
        where = f"checkpoint {one.number}"
        for said in _against(one, previous, log.chains):
            what = "missing" if "there" in said else "changed"
            result.add(Finding(what=what, where=where, event_id=None, said=said))
        previous = one
    result.last = previous


def _against(
    one: CheckpointTaken, previous: CheckpointTaken | None, chains: Mapping[str, Links]
) -> Iterator[str]:
    number, before = (previous.number, previous.hash) if previous else (0, GENESIS.hex())
    if one.number != number + 1:
        yield f"checkpoints {number + 1} to {one.number - 1} are not there"
    elif one.previous != before:
        yield "it does not follow the one before"
    if checkpoint_hash(one.number, one.heads, one.previous, one.at_ms) != one.hash:
        yield "its hash is not that of what it says"
    yield from disagreeing(one, chains)


def disagreeing(one: CheckpointTaken, chains: Mapping[str, Links]) -> Iterator[str]:
    """Heads of a checkpoint that are no links of their chains, a sentence each."""
    for head in one.heads:
        links = chains.get(head.chain, Links())
        n = links.index(head.count - 1)
        if head.count > links.count:
            yield f"{head.chain} had {head.count} entries then, and {links.count} are there now"
        elif n is not None and n >= 0 and links.at(n).hex() != head.link:
            yield f"{head.chain} had another link after {head.count} entries"


def verify(
    reader: Reader,
    namespace: str,
    codec: Codec,
    partitions: int,
    from_ms: int | None = None,
    show: Callable[[str], None] = lambda _: None,
    anchor: CheckpointTaken | None = None,
) -> Result:
    """All chains. `from_ms`: only what came after the last checkpoint before then, which is trusted.

    `anchor`: a checkpoint that was kept elsewhere, which the chains must agree with.
    """
    log, result = audit_log(reader, namespace, codec, partitions), Result()
    for finding in log.findings:
        result.add(finding)
    check_checkpoints(log, result)
    for said in disagreeing(anchor, log.chains) if anchor else ():
        where = f"anchor, checkpoint {anchor.number if anchor else 0}"
        result.add(Finding(what="changed", where=where, event_id=None, said=said))
    trusted = trusted_before(log.checkpoints, from_ms)
    for topic in WATCHED:
        for partition in range(partitions):
            chain = f"{topic}-{partition}"
            links, start = log.chains.get(chain, Links()), None
            if chain in trusted:
                head = trusted[chain]
                links, start = cut(links, head.count), head.offset + 1
            records = reader.records(f"{namespace}{topic}", partition, start)
            before = result.entries
            compare(chain, links, records, result)
            result.chains += bool(links.count)
            if result.entries > before:
                show(f"{chain}: {result.entries - before:,} entries")
    return result


def trusted_before(checkpoints: Iterable[CheckpointTaken], from_ms: int | None) -> dict[str, Any]:
    """The heads of the last checkpoint at or before a time, by chain; none without a time."""
    found: CheckpointTaken | None = None
    for one in checkpoints if from_ms is not None else ():
        if from_ms is not None and one.at_ms <= from_ms:
            found = one
    return {head.chain: head for head in found.heads} if found else {}
