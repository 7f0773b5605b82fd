"""audit export and check: entries of a time as NDJSON, each line with its link, provable offline.

    {"kind": "export", from, to, entity, actor, chains: [{chain, number, link}]}   where each chain begins
    {"kind": "entry", chain, offset, at_ms, key, value, headers, event, link}      a record, whole
    {"kind": "digest", chain, offset, digest, link}                                one that is not shown
    {"kind": "end", entries, heads, checkpoint, signature}                         where each chain ends

Private facts, and what was not asked for, enter by their digests: the chain has no gaps. `check`
computes every link again from the file alone. Bytes are base64, headers are text (Latin-1).
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from domain.audit import CheckpointTaken, Head, checkpoint_hash, digest, link
from proof.chain import WATCHED, AuditLog, Links, audit_log
from schemas.errors import Unreadable
from travel.errors import Refused, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from proof.reader import LogRecord, Reader
    from travel.snapshot import Source

FORMAT = 1
PRIVATE = ".private"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an export or a list is of; `to_ms` excluded, None: not narrowed by this."""

    entity: str | None = None
    actor: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def shows(self, record: LogRecord) -> bool:
        """Whether a record is one of those asked for."""
        headers = record.headers
        if self.entity is not None and self.entity.encode() not in (
            record.key,
            headers.get("ce_subject"),
        ):
            return False
        if self.actor is not None and headers.get("actor") != self.actor.encode():
            return False
        return self.holds(record.at_ms)

    def holds(self, at_ms: int) -> bool:
        return (self.from_ms is None or at_ms >= self.from_ms) and (
            self.to_ms is None or at_ms < self.to_ms
        )


def signature(checkpoint: Mapping[str, Any], key: str) -> str | None:
    """HMAC-SHA256, hex, over a checkpoint's hash; None without a key."""
    return hmac.new(key.encode(), checkpoint["hash"].encode(), sha256).hexdigest() if key else None


def anchor(checkpoint: CheckpointTaken, key: str) -> dict[str, Any]:
    """A checkpoint as it is kept elsewhere."""
    kept = asdict(checkpoint)
    return {**kept, "signature": signature(kept, key)}


def anchored(data: bytes, key: str) -> CheckpointTaken:
    """The checkpoint that was kept. Raises Refused when it is none, or was changed."""
    try:
        found = orjson.loads(data)
        heads = tuple(Head(**head) for head in found["heads"])
        given = {name: found[name] for name in ("number", "entries", "previous", "hash", "at_ms")}
    except (ValueError, TypeError, KeyError) as exc:
        raise Refused("this is no checkpoint as `audit checkpoint` prints it") from exc
    one = CheckpointTaken(heads=heads, **given)
    if checkpoint_hash(one.number, one.heads, one.previous, one.at_ms) != one.hash:
        raise Refused(f"checkpoint {one.number}: its hash is not that of what it says")
    if key and not hmac.compare_digest(found.get("signature") or "", signature(found, key) or ""):
        raise Refused(f"checkpoint {one.number} was not signed with this key")
    return one


def export(
    source: Source, reader: Reader, asked: Asked, key: str, limit: int | None = None
) -> Iterator[bytes]:
    """The lines. Raises TooLarge when there are more than `limit` records to look at."""
    prefix, partitions = source.installation.namespace, source.installation.partitions
    log = audit_log(reader, prefix, source.codec, partitions)
    if log.findings:
        raise Refused(f"the audit log itself is not whole: {log.findings[0]}")
    parts = [
        _Part(topic, partition, log.chains[f"{topic}-{partition}"])
        for topic in WATCHED
        for partition in range(partitions)
        if f"{topic}-{partition}" in log.chains
    ]
    for part in parts:
        part.start = reader.offset_at(f"{prefix}{part.topic}", part.partition, asked.from_ms)
    total = 0
    yield _line(
        kind="export",
        format=FORMAT,
        **{name: getattr(asked, name) for name in ("entity", "actor", "from_ms", "to_ms")},
        chains=[part.begins() for part in parts],
    )
    for part in parts:
        records = reader.records(f"{prefix}{part.topic}", part.partition, part.start)
        for one in part.lines(records, asked, source.codec):
            total += 1
            if limit is not None and total > limit:
                raise TooLarge(f"more than {limit:,} entries: narrow it by from and to")
            yield one
    yield _line(**_end(parts, log, total, key))


def _end(parts: Iterable[_Part], log: AuditLog, total: int, key: str) -> dict[str, Any]:
    checkpoint = asdict(log.checkpoints[-1]) if log.checkpoints else None
    return {
        "kind": "end",
        "entries": total,
        "heads": [part.ends() for part in parts],
        "checkpoint": checkpoint,
        "signature": signature(checkpoint, key) if checkpoint else None,
    }


@dataclass(slots=True)
class _Part:
    """One chain's part of an export: from its first entry at or behind `start`, to the last taken."""

    topic: str
    partition: int
    links: Links
    start: int = 0
    taken: int = 0

    @property
    def chain(self) -> str:
        return f"{self.topic}-{self.partition}"

    @property
    def first(self) -> int:
        """The index of the first entry."""
        offsets = self.links.offsets
        low, high = 0, len(offsets)
        while low < high:
            middle = (low + high) // 2
            if offsets[middle] < self.start:
                low = middle + 1
            else:
                high = middle
        return low

    def begins(self) -> dict[str, Any]:
        first = self.first
        return {"chain": self.chain, "number": first, "link": self.links.at(first - 1).hex()}

    def ends(self) -> dict[str, Any]:
        last = self.first + self.taken
        return {"chain": self.chain, "count": last, "link": self.links.at(last - 1).hex()}

    def lines(self, records: Iterable[LogRecord], asked: Asked, codec: Any) -> Iterator[bytes]:
        n, entries = self.first, len(self.links)
        for record in records:
            if n == entries or (asked.to_ms is not None and record.at_ms >= asked.to_ms):
                return
            if record.offset != self.links.offsets[n]:
                raise Refused(f"{self.chain} at {record.offset} is not as audit has it: verify it")
            found = {"chain": self.chain, "offset": record.offset, "link": self.links.at(n).hex()}
            if self.topic.endswith(PRIVATE) or not asked.shows(record):
                place = (self.topic, self.partition, record.offset)
                entry = digest(place, record.at_ms, record.key, record.value, record.headers)
                yield _line(kind="digest", **found, digest=entry.hex())
            else:
                yield _line(kind="entry", **found, **_shown(record, codec))
            n += 1
            self.taken += 1


def _shown(record: LogRecord, codec: Any) -> dict[str, Any]:
    try:
        event = codec.decode(record.value or b"")
    except Unreadable:
        event = None
    return {
        "at_ms": record.at_ms,
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": {name: value.decode("latin-1") for name, value in record.headers.items()},
        "type": type(event).__name__ if event is not None else None,
        "event": event,
    }


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _line(**members: Any) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


# -- check: the file alone ------------------------------------------------------------------------


@dataclass(slots=True)
class Checked:
    """What a file came to. `wrong`: a sentence for each thing that does not fit, with its line."""

    entries: int = 0
    digests: int = 0
    chains: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Chain:
    count: int
    link: bytes
    links: dict[int, str] = field(default_factory=dict)  # by how many entries there were


def check(lines: Iterable[bytes], key: str = "", anchor: CheckpointTaken | None = None) -> Checked:
    """Compute all links of an export again. With `key` its signature too.

    `anchor`: a checkpoint that was kept elsewhere, which the chains must agree with.
    """
    done, chains, ended = Checked(), dict[str, _Chain](), False
    for number, text in enumerate(lines, 1):
        try:
            line = orjson.loads(text)
            ended = _checked(line, number, chains, done, key) or ended
        except (ValueError, KeyError, TypeError) as exc:
            done.wrong.append(f"line {number} can't be read: {type(exc).__name__}")
    if not ended:
        done.wrong.append("the file has no end: lines are missing")
    for name in _disagreeing(anchor.heads, chains) if anchor else ():
        done.wrong.append(f"{name} is not as the anchor has it")
    done.chains = len(chains)
    return done


def _checked(
    line: dict[str, Any], number: int, chains: dict[str, _Chain], done: Checked, key: str
) -> bool:
    """One line; True for the last."""
    match line["kind"]:
        case "export":
            for one in line["chains"]:
                chains[one["chain"]] = _Chain(one["number"], bytes.fromhex(one["link"]))
        case "entry" | "digest" as kind:
            shown = kind == "entry"
            entry = _entry(line) if shown else bytes.fromhex(line["digest"])
            chain = chains[line["chain"]]
            chain.count += 1
            chain.link = link(chain.link, entry)
            if chain.link.hex() != line["link"]:
                where = f"{line['chain']}-{line['offset']}"
                done.wrong.append(f"line {number}, {where}: its link does not follow")
                chain.link = bytes.fromhex(line["link"])  # so that what is right after it is right
            chain.links[chain.count] = line["link"]
            done.entries += shown
            done.digests += not shown
        case "end":
            done.wrong += _wrong_end(line, chains, done, key)
            return True
        case _:
            raise ValueError(line["kind"])
    return False


def _entry(line: dict[str, Any]) -> bytes:
    topic, _, partition = line["chain"].rpartition("-")
    key, value = (None if line[n] is None else b64decode(line[n]) for n in ("key", "value"))
    headers = {name: text.encode("latin-1") for name, text in line["headers"].items()}
    return digest((topic, int(partition), line["offset"]), line["at_ms"], key, value, headers)


def _wrong_end(
    line: dict[str, Any], chains: dict[str, _Chain], done: Checked, key: str
) -> Iterator[str]:
    if line["entries"] != done.entries + done.digests:
        yield f"it says {line['entries']} entries and has {done.entries + done.digests}"
    for head in line["heads"]:
        chain = chains[head["chain"]]
        if (head["count"], head["link"]) != (chain.count, chain.link.hex()):
            yield f"{head['chain']} does not end as the file says"
    checkpoint = line["checkpoint"]
    if checkpoint is None:
        return
    heads = [Head(**head) for head in checkpoint["heads"]]
    hashed = checkpoint_hash(
        checkpoint["number"], heads, checkpoint["previous"], checkpoint["at_ms"]
    )
    if hashed != checkpoint["hash"]:
        yield "the checkpoint's hash is not that of what it says"
    for name in _disagreeing(heads, chains):
        yield f"{name} is not as the checkpoint has it"
    if key and not hmac.compare_digest(line["signature"] or "", signature(checkpoint, key) or ""):
        yield "the checkpoint was not signed with this key"


def _disagreeing(heads: Iterable[Head], chains: Mapping[str, _Chain]) -> Iterator[str]:
    """Chains that have another link where these heads have theirs. What the file has not is not known."""
    for head in heads:
        known = chains[head.chain].links.get(head.count) if head.chain in chains else None
        if known is not None and known != head.link:
            yield head.chain
