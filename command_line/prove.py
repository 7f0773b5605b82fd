"""`verify` and `audit`: what the log says, computed again."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from command_line.broker import codec_of, reach_broker
from command_line.names import opened, picked, writable, writing
from command_line.shown import pass_over, show, tell
from pipeline import SERVICES
from proof import chain
from proof import stores as stores_proof
from proof.fold import expected
from proof.reader import Reader
from proof.run import Verification
from stores.configured import configured
from topics.catalog import Installation
from travel import export
from travel.moments import moment
from travel.snapshot import Source

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from command_line.main import Add
    from domain.audit import CheckpointTaken
    from schemas.codec import Codec
    from settings import Settings


def declare(add: Add) -> None:
    command = add("verify", verify, "compute all state again from the logs and compare")
    command.add_argument(
        "--decide", action="store_true", help="also decide again what the inboxes still hold"
    )
    command.add_argument(
        "--brief", action="store_true", help="totals and differences alone, no line a partition"
    )
    command.add_argument(
        "--service", action="append", metavar="SERVICE", help="only this one (may be repeated)"
    )

    command = add("audit", audit, "verify the chains of hashes, export them, check an export")
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    about = "compute all chains again from the event topics; names what does not fit, exit 1"
    action = actions.add_parser("verify", help=about, description=about)
    after = "trust what was before the last checkpoint before this time (RFC 3339)"
    action.add_argument("--from", dest="from_", metavar="TIME", help=after)
    anchor = "a checkpoint kept elsewhere"
    action.add_argument("--anchor", type=Path, metavar="FILE", help=anchor)
    about = "print the last checkpoint, to be kept elsewhere"
    actions.add_parser("checkpoint", help=about, description=about)
    about = "write entries with their proof into a file, NDJSON"
    action = actions.add_parser("export", help=about, description=about)
    action.add_argument("file", type=Path, metavar="FILE")
    action.add_argument("--from", dest="from_", metavar="TIME", help="RFC 3339")
    action.add_argument("--to", metavar="TIME", help="RFC 3339, excluded")
    action.add_argument("--entity", metavar="ID", help="only this aggregate")
    action.add_argument("--actor", metavar="ID", help="only what this user caused")
    about = "compute an export's links again, without a broker"
    action = actions.add_parser("check", help=about, description=about)
    action.add_argument("file", type=Path, metavar="FILE")
    action.add_argument("--anchor", type=Path, metavar="FILE", help=anchor)


def verify(settings: Settings, options: argparse.Namespace) -> int:
    names = picked(options.service or ["all"], tuple(SERVICES))
    reach_broker(settings)
    codec = codec_of(settings)
    progress = pass_over if options.brief else show
    run = Verification(settings.kafka, Installation.of(settings), codec, show, progress)
    right = run.run({name: SERVICES[name] for name in names}, options.decide)
    if not options.service:
        right = asyncio.run(_verify_stores(settings, codec, progress)) and right
    return 0 if right else 1


async def _verify_stores(settings: Settings, codec: Codec, progress: Callable[[str], None]) -> bool:
    there, right = configured(settings), True
    if not there:
        return True
    reader = Reader(settings.kafka)
    fold = partial(expected, reader, settings.prefix, codec, settings.partitions)
    try:
        said = await asyncio.to_thread(fold)
        for name, store in there.items():
            right = await stores_proof.verify(name, store, said, fold, show, progress) and right
    finally:
        reader.close()
        for store in there.values():
            await store.close()
    return right


def audit(settings: Settings, options: argparse.Namespace) -> int:
    """1 when something was changed, is missing, was added or changed places."""
    if options.action == "check":
        kept = _anchor(settings, options)
        with opened(options.file) as lines:
            return _checked(export.check(lines, settings.audit_key, kept))
    if options.action == "export":
        writable(options.file)
    reach_broker(settings)
    where, reader = Source.of(settings), Reader(settings.kafka)
    try:
        if options.action == "verify":
            return _audit_verify(settings, options, where, reader)
        if options.action == "checkpoint":
            return _audit_checkpoint(settings, where, reader)
        times = (options.from_, options.to)
        from_ms, to_ms = (None if text is None else moment(text) for text in times)
        asked = export.Asked(
            entity=options.entity, actor=options.actor, from_ms=from_ms, to_ms=to_ms
        )
        with writing(options.file), options.file.open("wb") as file:
            for line in export.export(where, reader, asked, settings.audit_key):
                file.write(line)
        show(f"{options.file} is written")
        return 0
    finally:
        reader.close()


def _anchor(settings: Settings, options: argparse.Namespace) -> CheckpointTaken | None:
    """The checkpoint that was kept elsewhere, if one was named."""
    if options.anchor is None:
        return None
    with opened(options.anchor) as file:
        return export.anchored(file.read(), settings.audit_key)


def _checked(done: export.Checked) -> int:
    for wrong in done.wrong[:20]:
        show(f"WRONG {wrong}")
    show(f"{done.entries:,} entries and {done.digests:,} digests of {done.chains} chains")
    show(f"{len(done.wrong):,} things are wrong" if done.wrong else "all as it should be")
    return 1 if done.wrong else 0


def _audit_verify(
    settings: Settings, options: argparse.Namespace, where: Source, reader: Reader
) -> int:
    kept = _anchor(settings, options)
    from_ms = None if options.from_ is None else moment(options.from_)
    installed = where.installation
    done = chain.verify(
        reader, installed.namespace, where.codec, installed.partitions, from_ms, tell, kept
    )
    for finding in done.findings[:20]:
        show(str(finding))
    if done.found > 20:
        show(f"and {done.found - 20:,} more")
    show(
        f"{done.entries:,} entries of {done.chains} chains computed again, "
        f"{done.checkpoints:,} checkpoints, {done.waiting:,} records not chained yet"
    )
    if not done.found:
        show("all as it should be")
    return 1 if done.found else 0


def _audit_checkpoint(settings: Settings, where: Source, reader: Reader) -> int:
    installed = where.installation
    log = chain.audit_log(reader, installed.namespace, where.codec, installed.partitions)
    if not log.checkpoints:
        raise LookupError("there is no checkpoint yet: the first is taken a minute after an event")
    show(orjson.dumps(export.anchor(log.checkpoints[-1], settings.audit_key)).decode())
    return 0
