"""Audit over a real log, and over copies of it that somebody laid hands on."""

from __future__ import annotations

import hmac
import itertools
import time
import uuid
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from domain.audit import (
    CHECKPOINT_MS,
    GENESIS,
    HEAD_MS,
    CheckpointTaken,
    EntriesChained,
    Head,
    HeadNoted,
    HeadTold,
    checkpoint_hash,
    digest,
    link,
    packed,
    unpacked,
)
from proof.chain import WATCHED
from proof.reader import LogRecord, Reader
from schemas.codec import Codec
from tests.agents.memory import PARTITIONS
from tests.system.conftest import Installation
from tests.system.test_command_line import refused
from tests.system.test_saga import pay, person
from topics import catalog
from topics.apply import apply
from topics.catalog import SCHEMAS, TOPICS
from travel.export import _entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


Log = list[LogRecord]
Logs = dict[tuple[str, int], Log]  # by topic without prefix and partition


@dataclass
class Chained:
    """An installation whose log is chained, and that log."""

    installation: Installation
    logs: Logs

    @property
    def busiest(self) -> tuple[str, int]:
        """The account partition in which the most was said."""
        partitions = [("account.events", partition) for partition in range(PARTITIONS)]
        return max(partitions, key=lambda at: len(self.logs[at]))


@pytest.fixture(scope="module")
def chained(running: Installation) -> Iterator[Chained]:
    client = running.client("account.events", "transaction.events", "risk.events", "payment.events")
    ann, bob = person(client, "ann"), person(client, "bob", 0)
    for amount_minor in range(1, 13):
        (end,) = client.ended(pay(client, ann, bob, amount_minor, owner=ann.user_id))
    assert end is not None
    client.close()
    secret = {"STREAMBANK_ADMIN_PASSWORD": "correct horse battery"}
    made = running.pipeline("create-admin", "--email", "a@bank.example", **secret)
    assert made.returncode == 0, made.stderr
    until_chained(running)
    return Chained(running, read(running))


def read(installation: Installation) -> Logs:
    reader = Reader({"bootstrap.servers": installation.bootstrap})
    logs = {
        (topic, partition): list(reader.records(f"{installation.prefix}{topic}", partition))
        for topic in (*WATCHED, "audit.events")
        for partition in range(PARTITIONS)
    }
    reader.close()
    return logs


def until_chained(installation: Installation) -> str:
    """What `audit verify` says once all is chained."""
    deadline_s = time.monotonic() + 60
    while True:
        done = installation.pipeline("audit", "verify")
        if done.returncode == 0 and " 0 records not chained yet" in done.stdout:
            return done.stdout
        assert time.monotonic() < deadline_s, done.stdout + done.stderr
        time.sleep(0.5)


def test_what_nobody_touched_is_as_it_should_be(chained: Chained) -> None:
    said = until_chained(chained.installation)
    assert said.endswith("all as it should be\n")
    entries = sum(len(log) for (topic, _), log in chained.logs.items() if topic != "audit.events")
    assert f"{entries:,} entries of" in said
    assert chained.installation.pipeline("verify").returncode == 0


# -- copies of the log ----------------------------------------------------------------------------


def copy(chained: Chained, change: Callable[[Logs], None]) -> Installation:
    """The log once more under another prefix, at the same offsets, with something changed."""
    there = chained.installation
    made = type(there)(there.bootstrap, there.directory)
    copied = [
        topic for topic in TOPICS if topic.name in (SCHEMAS, *(name for name, _ in chained.logs))
    ]
    where = catalog.Installation(namespace=made.prefix, partitions=PARTITIONS)
    apply({"bootstrap.servers": there.bootstrap}, where, copied)
    logs = {at: [*log] for at, log in chained.logs.items()}
    change(logs)
    with ThreadPoolExecutor(8) as pool:  # each waits for the broker, most of the time
        written = [
            pool.submit(write, there.bootstrap, f"{made.prefix}{topic}", partition, log)
            for (topic, partition), log in logs.items()
            if log
        ]
    for one in written:
        one.result()
    return made


def write(bootstrap: str, topic: str, partition: int, log: Log) -> None:
    """Records at their offsets: markers of transactions take the offsets between them."""
    writers, at = Writers(bootstrap), 0
    plain, whole = writers.plain, writers.whole
    for n, record in enumerate(log):
        if (gap := record.offset - at) > 1:
            whole.begin_transaction()
            for _ in range(gap - 1):
                whole.produce(topic, b"", partition=partition)
            assert whole.flush(30) == 0
            whole.abort_transaction(30)
            writers.until(topic, partition, record.offset)
        else:
            assert gap == 0, "one offset is left free by the record before it alone"
        alone = n + 1 < len(log) and log[n + 1].offset - record.offset == 2
        producer = whole if alone else plain
        if alone:
            whole.begin_transaction()
        producer.produce(
            topic,
            record.value,
            record.key,
            partition,
            timestamp=record.at_ms,
            headers=[*record.headers.items()],
        )
        assert producer.flush(30) == 0
        at = record.offset + 1 + alone
        if alone:
            whole.commit_transaction(30)
            writers.until(topic, partition, at)
    writers.close()


class Writers:
    """What writes a copy."""

    def __init__(self, bootstrap: str) -> None:
        settings = {"bootstrap.servers": bootstrap, "linger.ms": 0}
        self.plain = Producer({**settings, "enable.idempotence": True})
        self.whole = Producer({**settings, "transactional.id": f"copy-{uuid.uuid4()}"})
        self.whole.init_transactions(30)
        self._looks = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "copy",
                "isolation.level": "read_uncommitted",
            }
        )

    def until(self, topic: str, partition: int, end: int) -> None:
        """A marker is written a moment after its transaction has ended."""
        at, deadline_s = TopicPartition(topic, partition), time.monotonic() + 30
        while self._looks.get_watermark_offsets(at, 10)[1] < end:
            assert time.monotonic() < deadline_s
            time.sleep(0.002)

    def close(self) -> None:
        self._looks.close()


def found(installation: Installation) -> list[str]:
    """The findings of a verification that must have some."""
    done = installation.pipeline("audit", "verify")
    assert done.returncode == 1, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.split(" ")[0].isupper()]


def test_a_copy_at_the_same_offsets_is_as_good(chained: Chained) -> None:
    done = copy(chained, lambda _: None).pipeline("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_way_of_tampering_is_named(chained: Chained) -> None:
    """One record changed, one gone, one more, two in each other's place: in one log."""
    at = chained.busiest
    log = chained.logs[at]
    named: dict[str, str] = {}

    def event(record: LogRecord) -> str:
        return record.headers["ce_id"].decode()

    def change(logs: Logs) -> None:
        mine = logs[at]
        chain = f"{at[0]}-{at[1]}"
        named["CHANGED"] = f"{chain}-{mine[1].offset} event {event(mine[1])}"
        mine[1] = replace(mine[1], headers={**mine[1].headers, "actor": b"somebody else"})
        one, two = mine[3], mine[5]
        named["REORDERED"] = f"{chain}-{one.offset} event {event(two)}"
        mine[3] = replace(two, offset=one.offset)
        mine[5] = replace(one, offset=two.offset)
        gone = mine.pop(8)
        named["MISSING"] = f"{chain}-{gone.offset}:"
        free = next(a.offset + 1 for a, b in itertools.pairwise(mine) if b.offset - a.offset == 2)
        mine.append(replace(log[2], offset=free))
        mine.sort(key=lambda record: record.offset)
        named["ADDED"] = f"{chain}-{free} event {event(log[2])}"

    lines = found(copy(chained, change))
    for what, where in named.items():
        assert any(line.startswith(f"{what} {where}") for line in lines), (what, where, lines)
    assert len(lines) == 5, lines  # of two that changed places both are named


def test_an_audit_log_that_was_changed_is_found(chained: Chained) -> None:
    codec = Codec()
    chain = "-".join(map(str, chained.busiest))
    of_chain = [
        (at, n)
        for at, log in chained.logs.items()
        if at[0] == "audit.events"
        for n, record in enumerate(log)
        if record.key == chain.encode() and b"EntriesChained" in record.headers["ce_type"]
    ]

    def change(logs: Logs) -> None:
        at, n = of_chain[1]
        record = logs[at][n]
        event = codec.decode(record.value or b"")
        links = unpacked(event.links)
        links[0] = bytes(32)
        logs[at][n] = replace(record, value=codec.encode(replace(event, links=packed(links))))

    (line,) = found(copy(chained, change))[:1]
    assert line.startswith(f"CHANGED {chain}-"), line

    def lose(logs: Logs) -> None:
        at, n = of_chain[1]
        logs[at].pop(n)

    lines = found(copy(chained, lose))
    assert lines[0].startswith("MISSING audit.events-"), lines


# -- exports --------------------------------------------------------------------------------------


def test_an_export_proves_itself(chained: Chained, tmp_path: Path) -> None:
    file = tmp_path / "export.ndjson"
    there = chained.installation
    done = there.pipeline("audit", "export", str(file))
    assert done.returncode == 0, done.stderr
    nowhere = {"STREAMBANK_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    checked = there.pipeline("audit", "check", str(file), **nowhere)
    assert checked.returncode == 0, checked.stdout
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    entries = [line for line in lines if line["kind"] == "entry"]
    assert {line["kind"] for line in lines} == {"export", "entry", "digest", "end"}
    assert not [line for line in entries if ".private" in line["chain"]]
    assert b64encode(b"password").decode() not in file.read_text()
    (opened, *_) = (line for line in entries if line["type"] == "AccountOpened")
    for name, value in (
        ("key", b64encode(b"other").decode()),
        ("at_ms", opened["at_ms"] + 1),
        ("headers", {**opened["headers"], "actor": "other"}),
    ):
        other = [{**line, name: value} if line is opened else line for line in lines]
        assert wrong(there, tmp_path, other) == 1
    assert wrong(there, tmp_path, [line for line in lines if line is not opened]) == 1
    assert wrong(there, tmp_path, lines[:-1]) == 1


def wrong(installation: Installation, directory: Path, lines: list[Any]) -> int:
    file = directory / f"{uuid.uuid4()}.ndjson"
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    done = installation.pipeline("audit", "check", str(file))
    assert "WRONG" in done.stdout
    return done.returncode


def test_an_export_of_one_account_still_has_no_gap(chained: Chained, tmp_path: Path) -> None:
    (opened, *_) = chained.logs[chained.busiest]
    entity = (opened.key or b"").decode()
    file = tmp_path / "one.ndjson"
    done = chained.installation.pipeline("audit", "export", str(file), "--entity", entity)
    assert done.returncode == 0, done.stderr
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    shown = [line for line in lines if line["kind"] == "entry"]
    mine = [r for log in chained.logs.values() for r in log if r.key == entity.encode()]
    assert len(shown) == len(mine)
    assert chained.installation.pipeline("audit", "check", str(file)).returncode == 0


# -- checkpoints: what holds when everything that lies in the log is computed anew ---------------

KEY = {"STREAMBANK_AUDIT_KEY": "a-key-that-lies-elsewhere"}


@dataclass(frozen=True)
class Kept:
    """The log when a checkpoint was there, that checkpoint as it was printed, and its file."""

    chained: Chained
    anchor: dict[str, Any]
    file: Path


@pytest.fixture(scope="module")
def kept(chained: Chained, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A minute after the first event; most of it has passed when this is asked for."""
    there, deadline_s = chained.installation, time.monotonic() + 150
    while (printed := there.pipeline("audit", "checkpoint", **KEY)).returncode:
        assert "there is no checkpoint yet" in printed.stderr
        assert time.monotonic() < deadline_s
        time.sleep(1)
    file = tmp_path_factory.mktemp("elsewhere") / "anchor.json"
    file.write_text(printed.stdout)
    return Kept(Chained(there, read(there)), orjson.loads(printed.stdout), file)


def said(logs: Logs, *kinds: type) -> list[Any]:
    """Events of audit of these kinds, in the order of their time."""
    codec = Codec()
    found = [
        (record.at_ms, codec.decode(record.value or b""))
        for (topic, _), log in logs.items()
        if topic == "audit.events"
        for record in log
    ]
    return [e for _, e in sorted(found, key=lambda one: one[0]) if isinstance(e, kinds)]


def test_a_checkpoint_is_taken_in_its_time_and_has_all_heads(kept: Kept) -> None:
    logs, anchor = kept.chained.logs, kept.anchor
    (taken, *_) = said(logs, CheckpointTaken)
    (grown, *_) = said(logs, EntriesChained)
    (noted, *_) = said(logs, HeadNoted)
    assert 0 <= noted.at_ms - (grown.at_ms + HEAD_MS) < 20_000
    assert 0 <= taken.at_ms - (noted.at_ms + CHECKPOINT_MS) < 20_000
    assert (taken.number, taken.previous) == (1, GENESIS.hex())
    assert taken.hash == checkpoint_hash(1, taken.heads, taken.previous, taken.at_ms)
    assert taken.entries == sum(head.count for head in taken.heads)
    links: dict[str, list[str]] = {}
    for event in sorted(said(logs, EntriesChained), key=lambda one: one.first):
        links.setdefault(event.chain, []).extend(one.hex() for one in unpacked(event.links))
    assert {head.chain for head in taken.heads} >= {"-".join(map(str, kept.chained.busiest))}
    assert [links[head.chain][head.count - 1] for head in taken.heads] == [
        head.link for head in taken.heads
    ]
    assert anchor["hash"] in [one.hash for one in said(logs, CheckpointTaken)]
    done = kept.chained.installation.pipeline("audit", "verify", "--anchor", str(kept.file), **KEY)
    assert (done.returncode, " 0 checkpoints" in done.stdout) == (0, False), done.stdout


def test_an_anchor_is_signed(kept: Kept, tmp_path: Path) -> None:
    there, anchor = kept.chained.installation, kept.anchor
    expected = hmac.new(KEY["STREAMBANK_AUDIT_KEY"].encode(), anchor["hash"].encode(), "sha256")
    assert anchor["signature"] == expected.hexdigest()
    other = there.pipeline("audit", "verify", "--anchor", str(kept.file), STREAMBANK_AUDIT_KEY="x")
    refused(other, "was not signed with this key")
    changed = tmp_path / "anchor.json"
    changed.write_bytes(orjson.dumps({**anchor, "at_ms": anchor["at_ms"] + 1}))
    refused(
        there.pipeline("audit", "verify", "--anchor", str(changed), **KEY),
        "its hash is not that of what it says",
    )
    assert there.pipeline("audit", "checkpoint").stdout.strip().endswith('"signature":null}')


def forge(logs: Logs, at: tuple[str, int], *, checkpoints: bool) -> None:
    """The second record of a partition says something else, and its chain was computed anew from there.

    `checkpoints`: those too, with all that was said of heads.
    """
    codec, chain, log = Codec(), f"{at[0]}-{at[1]}", logs[at]
    log[1] = replace(log[1], headers={**log[1].headers, "actor": b"somebody else"})
    links, before = list[bytes](), GENESIS
    for one in log:
        entry = digest((*at, one.offset), one.at_ms, one.key, one.value, one.headers)
        links.append(before := link(before, entry))

    def headed(head: Head) -> Head:
        return replace(head, link=links[head.count - 1].hex()) if head.chain == chain else head

    hashes = {GENESIS.hex(): GENESIS.hex()}

    def anew(event: Any) -> Any:
        match event:
            case EntriesChained() if event.chain == chain:
                some = links[event.first : event.first + len(event.offsets)]
                return replace(event, links=packed(some))
            case HeadTold() | HeadNoted() if checkpoints:
                return replace(event, head=headed(event.head))
            case CheckpointTaken() if checkpoints:
                heads, previous = tuple(map(headed, event.heads)), hashes[event.previous]
                found = checkpoint_hash(event.number, heads, previous, event.at_ms)
                hashes[event.hash] = found
                return replace(event, heads=heads, previous=previous, hash=found)
            case _:
                return event

    for (topic, _), audit in logs.items():
        if topic == "audit.events":
            audit[:] = [
                replace(one, value=codec.encode(anew(codec.decode(one.value or b""))))
                for one in audit
            ]


def test_a_chain_that_was_computed_anew_is_found_by_a_checkpoint(kept: Kept) -> None:
    at = kept.chained.busiest
    (line, *others) = found(copy(kept.chained, lambda logs: forge(logs, at, checkpoints=False)))
    assert line.startswith("CHANGED checkpoint 1: "), line
    assert f"{at[0]}-{at[1]} had another link after" in line
    assert all(other.startswith("CHANGED checkpoint ") for other in others), others


def test_checkpoints_that_were_computed_anew_are_found_by_an_anchor(kept: Kept) -> None:
    """Whoever can write all topics can make all of it agree, but for what lies elsewhere."""
    at = kept.chained.busiest
    forged = copy(kept.chained, lambda logs: forge(logs, at, checkpoints=True))
    alone = forged.pipeline("audit", "verify")
    assert alone.returncode == 0, alone.stdout
    done = forged.pipeline("audit", "verify", "--anchor", str(kept.file), **KEY)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("CHANGED")]
    assert line.startswith(f"CHANGED anchor, checkpoint {kept.anchor['number']}: {at[0]}-{at[1]}")
    exported = forged.directory / "forged.ndjson"
    assert forged.pipeline("audit", "export", str(exported)).returncode == 0
    assert forged.pipeline("audit", "check", str(exported)).returncode == 0
    for more in (("--anchor", str(kept.file)), ()):  # by the anchor, or by what nobody could sign
        checked = forged.pipeline("audit", "check", str(exported), *more, **KEY)
        assert checked.returncode == 1, checked.stdout
        assert "WRONG" in checked.stdout


def test_an_export_that_was_computed_anew_is_found_by_its_checkpoint(
    kept: Kept, tmp_path: Path
) -> None:
    there, file = kept.chained.installation, tmp_path / "export.ndjson"
    assert there.pipeline("audit", "export", str(file), **KEY).returncode == 0
    checked = there.pipeline("audit", "check", str(file), "--anchor", str(kept.file), **KEY)
    assert checked.returncode == 0, checked.stdout
    assert there.pipeline("audit", "check", str(file), STREAMBANK_AUDIT_KEY="x").returncode == 1
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    topic, partition = kept.chained.busiest
    chain, before, changed = f"{topic}-{partition}", GENESIS.hex(), False
    for line in lines:
        if line.get("chain") != chain:
            continue
        if line["kind"] == "entry" and not changed:
            line["headers"]["actor"], changed = "somebody else", True
        entry = bytes.fromhex(line["digest"]) if line["kind"] == "digest" else _entry(line)
        before = line["link"] = link(bytes.fromhex(before), entry).hex()
    for head in lines[-1]["heads"]:
        head["link"] = before if head["chain"] == chain else head["link"]
    forged = tmp_path / "forged.ndjson"
    forged.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    checked = there.pipeline("audit", "check", str(forged))
    assert checked.returncode == 1
    (wrong_line,) = [line for line in checked.stdout.splitlines() if line.startswith("WRONG")]
    assert wrong_line == f"WRONG {chain} is not as the checkpoint has it"


def test_what_audit_says_and_reads_is_kept_for_ever_and_its_inbox_is_not(chained: Chained) -> None:
    there = chained.installation
    names = [*WATCHED, "audit.events", "audit.inbox"]
    asked = [
        ConfigResource(ConfigResource.Type.TOPIC, f"{there.prefix}{name}", None) for name in names
    ]
    admin = AdminClient({"bootstrap.servers": there.bootstrap})
    kept_ms = {
        name: future.result(10)["retention.ms"].value
        for name, future in zip(names, admin.describe_configs(asked).values(), strict=True)
    }
    week_ms = str(7 * 24 * 3600 * 1000)
    assert kept_ms.pop("audit.inbox") == week_ms
    assert set(kept_ms.values()) == {"-1"}
