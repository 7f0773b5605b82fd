"""Streambank on one page: what runs, and the command line.

    HTTP --> gateway --commands--> <service>.inbox --> worker SERVICE --facts--> <service>.events
                                         ^                   |
                                         +---- routed facts -+        (topics/subscriptions.py)
    worker perform   requested effects -> the world -> results in <service>.inbox
    worker relay     <service>.events -> inboxes off the money path
    worker observe   <service>.events -> digests for audit, points for analytics
    worker projections   changelogs, <service>.events -> MySQL, MongoDB: read models

Each service is one Faust app, its id its consumer group, with its own table; any set of them runs
in one process. What a service decides is in `domain/`, what it is connected to in `agents/`.

What takes long to load is imported where it is used: a worker loads no store that it does not fill,
a command no Faust.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import time
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import uvloop
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

import logs
import streaming
from agents import (
    account,
    analytics,
    audit,
    currency,
    notification,
    payment,
    reporting,
    risk,
    settlement,
    transaction,
    user,
)
from agents.ask import Question, Unanswered, ask
from agents.errors import CannotStart
from agents.observe import Observe
from agents.perform import Perform
from agents.project import Lost, Project, Written
from agents.recent import Recent
from agents.redrive import NoOrigin, redrive
from agents.relay import Relay
from agents.transact import Shell
from agents.wiring import Wiring
from domain.currency import (
    BASE,
    RATES,
    CurrencyCommandRefused,
    FeedScheduled,
    RateSource,
    RatesSet,
    ScheduleFeed,
    SetRates,
)
from domain.services import DECIDERS
from domain.user import RegisterUser, Role, UserCommandRefused, UserRegistered
from proof import chain
from proof import stores as stores_proof
from proof.fold import expected
from proof.mend import LEFT_S, Mend, NoFold, Running
from proof.positions import status
from proof.reader import Reader
from proof.rebuild import CutOff, Rebuild
from proof.run import Verification
from schemas.codec import Codec
from settings import BadSetting, Settings
from stores.catalog import NAMES as TABLES
from stores.catalog import OtherSchema, Unavailable
from stores.configured import MAKERS, Whole, configured, named
from stores.configured import NAMES as STORES
from topics import apply as topics_apply
from topics.catalog import SCHEMAS, TOPICS, Installation, Kind
from topics.schema_log import SchemaLog
from travel import export
from travel.errors import BadMoment, Refused, TooLarge
from travel.moments import moment, past, place
from travel.printed import csv_text, table
from travel.replay import Replay
from travel.snapshot import Source
from travel.timeline import Timeline, document, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agents.effect import Effect
    from agents.transact import Service
    from agents.worker import Workers
    from domain.audit import CheckpointTaken

SERVICES: dict[str, Service] = {
    service.name: service
    for service in (
        user.SERVICE,
        account.SERVICE,
        transaction.SERVICE,
        payment.SERVICE,
        notification.SERVICE,
        audit.SERVICE,
        analytics.SERVICE,
        risk.SERVICE,
        currency.SERVICE,
        settlement.SERVICE,
        reporting.SERVICE,
    )
}
PERFORM, RELAY, OBSERVE = "perform", "relay", "observe"
PROJECTIONS = {f"project-{name}": name for name in STORES}
RUNNABLE = (*SERVICES, PERFORM, RELAY, OBSERVE, *PROJECTIONS)
# `all` moves money; projections, for which nobody waits, are better off in a process of their own
ALL, PROJECTORS = (*SERVICES, PERFORM, RELAY, OBSERVE), "projections"
COMMAND_LINE = "command line"  # who orders what is ordered here
RATES_WAIT_S = 10.0
# off the money path: nobody's money waits for them, so they run at a lower priority where they can
BESIDE = tuple(
    name
    for name in ALL
    if name in ("notification", "audit", "analytics", "settlement", "reporting", RELAY, OBSERVE)
)
MONEY = tuple(name for name in ALL if name not in BESIDE)
GROUPS = {"money": MONEY, "beside": BESIDE}
BROKER_S = 5.0  # for the broker's first answer
# nobody waits for them: fewer, larger transactions
GATHER_S = {
    RELAY: 0.2,
    "notification": 0.2,
    OBSERVE: 0.5,
    "audit": 0.2,
    "analytics": 0.2,
    "settlement": 0.2,
    "reporting": 0.2,
}


def build(settings: Settings, services: Sequence[str]) -> Workers:
    """The workers of these services, ready to run in one process and event loop."""
    from agents.worker import Workers

    where = Installation.of(settings)
    workers = Workers(settings)
    lookup = SchemaLog(settings.kafka, f"{settings.prefix}{SCHEMAS}")
    recent = Recent() if len(services) > 1 else None
    written = _letting_go(settings) if PROJECTIONS.keys() & set(services) else None
    wiring = Wiring(
        kafka=settings.kafka,
        namespace=settings.prefix,
        instance=settings.instance,
        static_membership=settings.static_membership,
        session_timeout_s=settings.session_timeout_s,
        address=settings.ops_announced,
    )
    for name in services:
        codec = Codec(lookup)
        if name == PERFORM:
            workers.perform = Perform(wiring, codec, effects(settings))
        elif name in PROJECTIONS:
            workers.projects[name] = Project(
                wiring,
                codec,
                MAKERS[PROJECTIONS[name]](settings),
                written,
            )
        elif name == RELAY:
            workers.relay = Relay(_app(settings, RELAY), DECIDERS, codec, where, recent)
        elif name == OBSERVE:
            workers.observe = Observe(_app(settings, OBSERVE), codec, where, recent)
        else:
            app = _app(settings, name)
            workers.shells[name] = Shell(app, SERVICES[name], codec, where, recent)
    return workers


def effects(settings: Settings) -> tuple[Effect, ...]:
    """What `perform` does in the world."""
    from agents import delivery, rail, rates_feed
    from reports.effect import effect as reports_effect

    server = delivery.MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        username=settings.smtp_username,
        password=settings.smtp_password,
        sender=settings.mail_sender,
    )
    return (
        rail.effect(settings.rail_url, settings.provider),
        rates_feed.effect(
            settings.rates_url, settings.rate_max_age_s, settings.exchange_spread_ppm
        ),
        delivery.email(server, settings.mail_secret),
        delivery.sms(delivery.Provider(url=settings.sms_url, token=settings.sms_token)),
        delivery.push(delivery.Provider(url=settings.push_url, token=settings.push_token)),
        delivery.webhook(settings.webhook_keys, private_allowed=settings.webhook_private),
        reports_effect(settings),
    )


def _letting_go(settings: Settings) -> Written | None:
    """What lets go of copies in Redis once a store has what changed; None without Redis."""
    if not settings.redis_url:
        return None
    from stores.invalidation import Invalidation
    from stores.redis import Redis

    return Invalidation(Redis(settings.redis_url, settings.prefix)).written


def _app(settings: Settings, name: str) -> streaming.App:
    driver = streaming.DriverConfig(
        instance=settings.instance,
        bootstrap=settings.kafka_bootstrap,
        client_address=settings.ops_announced,
        kafka=settings.kafka_security,
        store=settings.table_store,
        state_dir=settings.state_dir,
        standby=settings.standby,
        static_membership=settings.static_membership,
        adopt_topology=settings.adopt_topology,
        batch_max=settings.batch_max,
        gather_s=GATHER_S.get(name, 0.0),
        session_timeout_s=settings.session_timeout_s,
        cycle_timeout_s=settings.cycle_timeout_s,
        transaction_timeout_s=settings.transaction_timeout_s,
    )
    return streaming.App(
        f"{settings.prefix}{name}",
        driver=driver,
        topic_partitions=settings.partitions,
        datadir=str(settings.state_dir),
    )


# -- the command line ---------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. A failure that a person can mend is one sentence on stderr and exit 1."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(Settings.load(), options))
    except (BadSetting, CannotStart, streaming.DriverError, LookupError, NoOrigin) as exc:
        return _fail(str(exc))
    except (CutOff, Lost, OtherSchema, Unanswered, Unavailable) as exc:
        return _fail(str(exc))
    except (topics_apply.TopicMismatch, BadMoment, NoFold, Refused, Running, TooLarge) as exc:
        return _fail(str(exc))
    except KafkaException as exc:
        said = exc.args[0]
        return _fail(f"Kafka: {said.str() if hasattr(said, 'str') else said}")
    except KeyboardInterrupt:
        return 130


def _fail(sentence: str) -> int:
    print(f"pipeline: {sentence}", file=sys.stderr)
    return 1


def worker(settings: Settings, options: argparse.Namespace) -> int:
    there = named(settings)
    possible = [name for name, store in PROJECTIONS.items() if store in there]
    asked = [
        one for name in options.services if name != PROJECTORS for one in GROUPS.get(name, (name,))
    ]
    if unset := [name for name in asked if name in PROJECTIONS and name not in possible]:
        raise CannotStart(_not_configured(PROJECTIONS[unset[0]]))
    chosen = set(_chosen(asked, RUNNABLE, ALL))
    if PROJECTORS in options.services:
        if not possible:
            raise CannotStart(_not_configured(*STORES))
        chosen.update(possible)
    names = [name for name in RUNNABLE if name in chosen]
    if options.ops_port is not None:
        settings = replace(settings, ops_port=options.ops_port)
    logs.configure("+".join(names) if len(names) < 3 else "worker", settings.log_level)
    _reach_broker(settings)
    topics_apply.check(settings.kafka, Installation.of(settings))
    if set(names) <= set(BESIDE):
        os.nice(settings.beside_nice)
    uvloop.run(_run(settings, names))
    return 0


async def _run(settings: Settings, names: Sequence[str]) -> None:
    await build(settings, names).run()


def gateway(settings: Settings, options: argparse.Namespace) -> int:
    from gateway.app import run

    if options.processes is not None:
        settings = replace(settings, gateway_processes=options.processes)
    _reach_broker(settings)
    return int(run(settings) or 0)


def topics(settings: Settings, _options: argparse.Namespace) -> int:
    _reach_broker(settings)
    done = topics_apply.apply(settings.kafka, Installation.of(settings))
    print("\n".join(done) if done else "all topics are as they should be")
    return 0


def stores(settings: Settings, _options: argparse.Namespace) -> int:
    return asyncio.run(_migrate(configured(settings)))


async def _migrate(stores: Mapping[str, Whole]) -> int:
    for name, store in stores.items():
        try:
            print(f"{name} is at {await store.migrate()}")
        finally:
            await store.close()
    if not stores:
        print("no store is configured")
    return 0


def projections(settings: Settings, options: argparse.Namespace) -> int:
    there = named(settings)
    if options.action == "rebuild" and options.store not in there:
        raise CannotStart(_not_configured(options.store))
    _reach_broker(settings)
    for name in there:
        if options.store in (None, name):
            asyncio.run(_project(settings, MAKERS[name](settings), options))
    return 0


async def _project(settings: Settings, store: Whole, options: argparse.Namespace) -> None:
    reader, prefix = Reader(settings.kafka), settings.prefix
    try:
        await store.check()
        if options.action == "status":
            found = await store.positions()
            for line in status(store.name, found, reader, prefix, settings.partitions):
                _show(line)
        else:
            run = Rebuild(store, reader, _codec(settings), prefix, settings.partitions, _show)
            for table in [options.table] if options.table else TABLES:
                await run.run(table)
    finally:
        reader.close()
        await store.close()


def _not_configured(*stores: str) -> str:
    urls = [f"STREAMBANK_{store.upper()}_URL" for store in stores]
    return f"there is no {' and no '.join(stores)}: set {' or '.join(urls)}"


def verify(settings: Settings, options: argparse.Namespace) -> int:
    names = _chosen(options.service or ["all"], tuple(SERVICES))
    _reach_broker(settings)
    codec = _codec(settings)
    progress = _pass_over if options.brief else _show
    run = Verification(settings.kafka, Installation.of(settings), codec, _show, progress)
    right = run.run({name: SERVICES[name] for name in names}, options.decide)
    if not options.service:
        right = asyncio.run(_verify_stores(settings, codec, progress)) and right
    return 0 if right else 1


def tables(settings: Settings, options: argparse.Namespace) -> int:
    names = _chosen(options.services or ["all"], tuple(SERVICES))
    _reach_broker(settings)
    run = Mend(settings.kafka, Installation.of(settings), _codec(settings), _show)
    try:
        written = sum(run.run(SERVICES[name].decider, options.wait) for name in names)
    finally:
        run.close()
    _show(f"{written:,} rows written anew")
    return 0


async def _verify_stores(settings: Settings, codec: Codec, progress: Callable[[str], None]) -> bool:
    there, right = configured(settings), True
    if not there:
        return True
    reader = Reader(settings.kafka)
    fold = partial(expected, reader, settings.prefix, codec, settings.partitions)
    try:
        said = await asyncio.to_thread(fold)
        for name, store in there.items():
            right = await stores_proof.verify(name, store, said, fold, _show, progress) and right
    finally:
        reader.close()
        for store in there.values():
            await store.close()
    return right


def audit_(settings: Settings, options: argparse.Namespace) -> int:
    """1 when something was changed, is missing, was added or changed places."""
    if options.action == "check":
        kept = _anchor(settings, options)
        with _opened(options.file) as lines:
            return _checked(export.check(lines, settings.audit_key, kept))
    _reach_broker(settings)
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
        with options.file.open("wb") as file:
            for line in export.export(where, reader, asked, settings.audit_key):
                file.write(line)
        _show(f"{options.file} is written")
        return 0
    finally:
        reader.close()


def _opened(file: Path) -> Any:
    if not file.is_file():
        raise CannotStart(f"there is no file {file}")
    return file.open("rb")


def _anchor(settings: Settings, options: argparse.Namespace) -> CheckpointTaken | None:
    """The checkpoint that was kept elsewhere, if one was named."""
    if options.anchor is None:
        return None
    with _opened(options.anchor) as file:
        return export.anchored(file.read(), settings.audit_key)


def _checked(done: export.Checked) -> int:
    for wrong in done.wrong[:20]:
        _show(f"WRONG {wrong}")
    _show(f"{done.entries:,} entries and {done.digests:,} digests of {done.chains} chains")
    _show(f"{len(done.wrong):,} things are wrong" if done.wrong else "all as it should be")
    return 1 if done.wrong else 0


def _audit_verify(
    settings: Settings, options: argparse.Namespace, where: Source, reader: Reader
) -> int:
    kept = _anchor(settings, options)
    from_ms = None if options.from_ is None else moment(options.from_)
    installed = where.installation
    done = chain.verify(
        reader, installed.namespace, where.codec, installed.partitions, from_ms, _tell, kept
    )
    for finding in done.findings[:20]:
        _show(str(finding))
    if done.found > 20:
        _show(f"and {done.found - 20:,} more")
    _show(
        f"{done.entries:,} entries of {done.chains} chains computed again, "
        f"{done.checkpoints:,} checkpoints, {done.waiting:,} records not chained yet"
    )
    if not done.found:
        _show("all as it should be")
    return 1 if done.found else 0


def _audit_checkpoint(settings: Settings, where: Source, reader: Reader) -> int:
    installed = where.installation
    log = chain.audit_log(reader, installed.namespace, where.codec, installed.partitions)
    if not log.checkpoints:
        raise LookupError("there is no checkpoint yet: the first is taken a minute after an event")
    _show(orjson.dumps(export.anchor(log.checkpoints[-1], settings.audit_key)).decode())
    return 0


def rates(settings: Settings, options: argparse.Namespace) -> int:
    """Import a document of rates once, or have the feed asked on a schedule."""
    from agents import rates_feed
    from resilience.downstream import Away

    if options.action == "every":
        command: Any = ScheduleFeed(every_s=options.seconds, actor_id=COMMAND_LINE)
    else:
        try:
            fixing = rates_feed.parsed(_document(options.source))
        except (rates_feed.BadRates, Away) as exc:
            raise CannotStart(f"nothing was changed: {exc}") from exc
        command = SetRates(
            base=BASE,
            rates=fixing.rates,
            source=RateSource.FEED,
            as_of_ms=fixing.as_of_ms,
            max_age_s=settings.rate_max_age_s,
            spread_ppm=settings.exchange_spread_ppm,
            actor_id=COMMAND_LINE,
            request_id=fixing.request_id,
        )
    _reach_broker(settings)
    question = Question(
        service="currency",
        key=RATES,
        command=command,
        actor_id=COMMAND_LINE,
        ends=(RatesSet, FeedScheduled, CurrencyCommandRefused),
    )
    said = ask(settings.kafka, settings.prefix, _codec(settings), question, RATES_WAIT_S)
    match said:
        case RatesSet():
            _show(f"{len(said.rates)} rates of {said.base} are set, version {said.version}")
        case FeedScheduled():
            _show(f"the feed is asked each {said.every_s} s" if said.every_s else "no more")
        case CurrencyCommandRefused():
            raise CannotStart(f"refused, nothing was changed: {said.reason}")
        case _:
            _show("nothing was said: it is so already, or no worker runs `currency`")
    return 0


def _document(source: str) -> bytes:
    """What is in a file or at a URL, bounded."""
    from agents import rates_feed

    if source.startswith(("http://", "https://")):
        return asyncio.run(rates_feed.once(source))
    file = Path(source)
    if not file.is_file():
        raise CannotStart(f"there is no file {source}")
    with file.open("rb") as opened:
        return opened.read(rates_feed.DOCUMENT_BYTES + 1)


def replay(settings: Settings, options: argparse.Namespace) -> int:
    """1 when the tables differ from what their events say."""
    (name,) = _chosen([options.service], tuple(SERVICES))
    to = None if options.to is None else place(options.to)
    _reach_broker(settings)
    done = Replay(settings.kafka, Installation.of(settings), _codec(settings), _tell).run(
        SERVICES[name].decider, to, options.key
    )
    rate = done.events / max(done.seconds, 0.001)
    summary = f"{done.events:,} events in {done.seconds:.1f} s, {rate:,.0f} events/s"
    if options.key is not None:
        _tell(summary)
        for _, row in sorted(done.found.items()):
            _show(_json(row))
        if not done.found:
            _tell(f"{options.key}: there is no such row then")
    else:
        _show(summary)
        for kind, count in sorted(done.kinds.items()):
            _show(f"{count:>12,} {kind}")
    if done.compared:
        tell = _show if options.key is None else _tell
        if done.different:
            tell(f"DIFFERENT from the kept table: {len(done.different)}, first {done.different[0]}")
        else:
            tell("equal to the kept table")
    return 1 if done.different or (options.key is not None and not done.found) else 0


def timeline(settings: Settings, options: argparse.Namespace) -> int:
    _reach_broker(settings)
    story = Timeline(settings.kafka, Installation.of(settings), _codec(settings))
    try:
        entries = story.of(options.id)
    finally:
        story.close()
    for line in [_json(document(entries))] if options.json else lines(entries):
        _show(line)
    return 0


def query(settings: Settings, options: argparse.Namespace) -> int:
    """A SELECT of an analyst; its rows to the terminal or into a file."""
    from travel.sql import Limits, Target, run

    at_ms = None if options.at is None else past(options.at, time.time_ns() // 1_000_000)
    output = None if options.output is None else Path(options.output)
    if options.format == "parquet" and output is None:
        raise Refused("Parquet is for files: say which by --output")
    _reach_broker(settings)
    limits = Limits(rows=options.rows, seconds=options.seconds)
    parquet = output if options.format == "parquet" else None
    target = Target(parquet=parquet) if parquet else None
    result = run(options.sql, at_ms, limits, target)
    if result.truncated:
        _tell(f"only the first {options.rows:,} rows: ask for more by --rows")
    if parquet is not None:
        return 0
    text = (
        csv_text(result)
        if options.format == "csv"
        else "".join(f"{line}\n" for line in table(result))
    )
    if output is None:
        print(text, end="", flush=True)
    else:
        output.write_text(text, newline="")
    return 0


def put_back(settings: Settings, options: argparse.Namespace) -> int:
    known = [topic.name for topic in TOPICS if topic.kind is Kind.DEAD]
    if unknown := [name for name in options.topics if name not in known]:
        raise CannotStart(f"{unknown[0]} is no dead-letter topic; there are {', '.join(known)}")
    _reach_broker(settings)
    for name in options.topics:
        count = redrive(settings.kafka, settings.prefix, name)
        print(f"{name}: {count} put back")
    return 0


def _chosen(
    given: Sequence[str], known: Sequence[str], all_: Sequence[str] | None = None
) -> list[str]:
    """Those that are named; `all` names `all_`, else all that are known."""
    if unknown := [name for name in given if name not in (*known, "all")]:
        raise CannotStart(
            f"there is no service {unknown[0]}; there are {', '.join(known)}, and all"
        )
    named = {*given, *((all_ or known) if "all" in given else ())}
    return [name for name in known if name in named]


def _reach_broker(settings: Settings) -> None:
    """Raises CannotStart unless the broker answers, and lets us in."""
    said: list[KafkaError] = []  # why, which the failed call does not tell
    try:
        options: dict[str, Any] = {**settings.kafka, "log_level": 0, "error_cb": said.append}
        admin = AdminClient(options)
    except KafkaException as exc:
        raise CannotStart(
            f"Kafka's files can't be used ({exc.args[0].str()}): correct STREAMBANK_KAFKA_SSL_CA, "
            "STREAMBANK_KAFKA_SSL_CERTIFICATE or STREAMBANK_KAFKA_SSL_KEY"
        ) from exc
    try:
        admin.list_topics(topic="__none", timeout=BROKER_S)
    except KafkaException as exc:
        admin.poll(0)
        raise CannotStart(_why_unreachable(settings, said, exc.args[0])) from exc


def _why_unreachable(settings: Settings, said: Sequence[KafkaError], failed: KafkaError) -> str:
    """One sentence: what the broker, or TLS, refused; else that nobody answers."""
    where = settings.kafka_bootstrap
    for error in said:
        if error.code() == KafkaError._AUTHENTICATION:
            return (
                f"Kafka at {where} does not let {settings.kafka_sasl_username!r} in by "
                f"{settings.kafka_sasl_mechanism}: correct STREAMBANK_KAFKA_SASL_USERNAME, "
                "STREAMBANK_KAFKA_SASL_PASSWORD or STREAMBANK_KAFKA_SASL_MECHANISM"
            )
        if error.code() == KafkaError._SSL:
            return (
                f"there is no TLS with Kafka at {where} ({error.str()}): correct "
                "STREAMBANK_KAFKA_SSL_CA, or STREAMBANK_KAFKA_SECURITY_PROTOCOL"
            )
    return (
        f"no Kafka answers at {where} over {settings.kafka_security_protocol} ({failed.str()}): "
        "start it, or correct STREAMBANK_KAFKA_BOOTSTRAP or STREAMBANK_KAFKA_SECURITY_PROTOCOL"
    )


def _codec(settings: Settings) -> Codec:
    return Codec(SchemaLog(settings.kafka, f"{settings.prefix}{SCHEMAS}"))


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _show(line: str) -> None:
    print(line, flush=True)


def _pass_over(line: str) -> None:
    """What a brief answer leaves out."""


def _tell(line: str) -> None:
    """What is no result, such as progress."""
    print(line, file=sys.stderr, flush=True)


ADMIN_WAIT_S = 30.0


def create_admin(settings: Settings, options: argparse.Namespace) -> int:
    """Register a user with all roles of an administrator; wait until the user service has done so."""
    password = _password(settings, options.password_file)
    _reach_broker(settings)
    command = _registration(options.email, password, settings.password_rounds)
    question = Question(
        service="user",
        key=command.address,
        command=command,
        actor_id=command.user_id,
        ends=(UserRegistered, UserCommandRefused),
    )
    outcome = ask(settings.kafka, settings.prefix, _codec(settings), question, ADMIN_WAIT_S)
    if outcome is None:
        raise CannotStart(
            f"the command was sent, but no worker answered within {ADMIN_WAIT_S:.0f} s: "
            "start `pipeline.py worker user`, then try again"
        )
    if isinstance(outcome, UserCommandRefused):
        raise CannotStart(f"{options.email} was refused: {outcome.reason}")
    print(f"{options.email} is an administrator, user_id {outcome.user_id}")
    return 0


def _password(settings: Settings, file: Path | None) -> str:
    if file is not None and not file.is_file():
        raise CannotStart(f"there is no file {file} to read the password from")
    password = file.read_text().strip() if file is not None else settings.admin_password
    if not password:
        raise CannotStart("no password: set STREAMBANK_ADMIN_PASSWORD or give --password-file")
    return password


def _registration(email: str, password: str, rounds: int) -> RegisterUser:
    from gateway.passwords import hashed

    user_id = str(uuid.uuid4())
    return RegisterUser(
        user_id=user_id,
        address=email.strip().lower(),
        email=email.strip(),
        name="administrator",
        password_hash=hashed(password, rounds),
        roles=(Role.ADMIN,),
        actor_id=user_id,
        request_hash=hashlib.sha256(user_id.encode()).hexdigest(),
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000000")
    return int(text)


def _seconds(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipeline.py",
        description="Streambank: money over Kafka, exactly once.",
        epilog="Settings come from the environment and .env: see docs/configuration.md.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    known = ", ".join(RUNNABLE)

    def add(name: str, run: Callable[[Settings, argparse.Namespace], int], about: str) -> Any:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        return command

    add_worker = add("worker", worker, "run services in this process until SIGTERM")
    groups = (
        f"{known}; all: {', '.join(ALL)}; money: those that move it; beside: the rest of all; "
        "projections: those of each configured store"
    )
    add_worker.add_argument("services", nargs="+", metavar="SERVICE", help=groups)
    add_worker.add_argument("--ops-port", type=int, help="port of the ops server")

    add_gateway = add("gateway", gateway, "serve HTTP")
    add_gateway.add_argument("--processes", type=int, help="processes that share the port")

    add_topics = add("topics", topics, "create the topics, or say why they can't be as they should")
    add_topics.add_argument("action", choices=["apply"], help="bring the broker up to the catalog")

    add_stores = add("stores", stores, "bring the schema of each store up to this program")
    add_stores.add_argument("action", choices=["migrate"], help="take the steps that are missing")

    add_projections = add("projections", projections, "look after what the stores are filled with")
    actions = add_projections.add_subparsers(required=True, dest="action", metavar="ACTION")
    about = "where each store stands in the logs, and how far behind"
    add_status = actions.add_parser("status", help=about, description=about)
    add_status.add_argument("store", nargs="?", choices=STORES)
    about = "build a store's tables anew from the logs while it is asked, and exchange them"
    add_rebuild = actions.add_parser("rebuild", help=about, description=about)
    add_rebuild.add_argument("store", choices=STORES)
    add_rebuild.add_argument("table", nargs="?", choices=TABLES, help="only this one")

    about = "write the rows that differ from what the events say; no worker of theirs may run"
    add_tables = add("tables", tables, "make the services' tables what their events say")
    actions = add_tables.add_subparsers(required=True, dest="action", metavar="ACTION")
    add_rebuild = actions.add_parser("rebuild", help=about, description=about)
    add_rebuild.add_argument("services", nargs="*", metavar="SERVICE", help=", ".join(SERVICES))
    left = "for workers that ended a moment ago to leave their group"
    add_rebuild.add_argument("--wait", type=float, default=LEFT_S, metavar="SECONDS", help=left)

    add_verify = add("verify", verify, "compute all state again from the logs and compare")
    add_verify.add_argument(
        "--decide", action="store_true", help="also decide again what the inboxes still hold"
    )
    add_verify.add_argument(
        "--brief", action="store_true", help="totals and differences alone, no line a partition"
    )
    add_verify.add_argument(
        "--service", action="append", metavar="SERVICE", help="only this one (may be repeated)"
    )

    add_audit = add("audit", audit_, "verify the chains of hashes, export them, check an export")
    doing = add_audit.add_subparsers(required=True, dest="action", metavar="ACTION")
    about = "compute all chains again from the event topics; names what does not fit, exit 1"
    add_one = doing.add_parser("verify", help=about, description=about)
    after = "trust what was before the last checkpoint before this time (RFC 3339)"
    add_one.add_argument("--from", dest="from_", metavar="TIME", help=after)
    anchor = "a checkpoint kept elsewhere"
    add_one.add_argument("--anchor", type=Path, metavar="FILE", help=anchor)
    about = "print the last checkpoint, to be kept elsewhere"
    doing.add_parser("checkpoint", help=about, description=about)
    about = "write entries with their proof into a file, NDJSON"
    add_one = doing.add_parser("export", help=about, description=about)
    add_one.add_argument("file", type=Path, metavar="FILE")
    add_one.add_argument("--from", dest="from_", metavar="TIME", help="RFC 3339")
    add_one.add_argument("--to", metavar="TIME", help="RFC 3339, excluded")
    add_one.add_argument("--entity", metavar="ID", help="only this aggregate")
    add_one.add_argument("--actor", metavar="ID", help="only what this user caused")
    about = "compute an export's links again, without a broker"
    add_one = doing.add_parser("check", help=about, description=about)
    add_one.add_argument("file", type=Path, metavar="FILE")
    add_one.add_argument("--anchor", type=Path, metavar="FILE", help=anchor)

    add_rates = add("rates", rates, "set rates from a document of the feed, now or on a schedule")
    actions = add_rates.add_subparsers(required=True, dest="action", metavar="ACTION")
    about = "set the rates of a document (the ECB's XML) now; a broken one changes nothing"
    add_import = actions.add_parser("import", help=about, description=about)
    add_import.add_argument("source", metavar="FILE|URL")
    about = "ask STREAMBANK_RATES_URL now and each SECONDS (60 to 604800); 0: no more"
    add_every = actions.add_parser("every", help=about, description=about)
    add_every.add_argument("seconds", type=_seconds, metavar="SECONDS")

    add_replay = add("replay", replay, "rebuild a service's tables from its events, to any time")
    add_replay.add_argument("service", metavar="SERVICE", help=", ".join(SERVICES))
    add_replay.add_argument(
        "--to",
        metavar="TIME",
        help="RFC 3339, or offsets of the event topic as partition:OFFSET,…; else the end, and compare",
    )
    add_replay.add_argument("--key", metavar="ROWKEY", help="one row, such as account/<account_id>")

    add_timeline = add("timeline", timeline, "what became of a transaction, an account or a user")
    add_timeline.add_argument("id", metavar="ID", help="transaction_id, account_id or user_id")
    add_timeline.add_argument("--json", action="store_true", help="in full, for machines")

    add_query = add("query", query, "ask one SELECT over tables and events: docs/tables.md")
    add_query.add_argument("sql", metavar="SQL", help='such as "SELECT status, count(*) FROM …"')
    add_query.add_argument("--at", metavar="TIME", help="as of then, RFC 3339; else now")
    add_query.add_argument("--format", choices=["table", "csv", "parquet"], default="table")
    add_query.add_argument("--output", metavar="FILE", help="write it there, not to the terminal")
    add_query.add_argument("--rows", type=_count, default=100_000, help="at most (100000)")
    add_query.add_argument("--seconds", type=_count, default=60, help="at most (60)")

    add_redrive = add("redrive", put_back, "put dead letters back where they came from")
    add_redrive.add_argument("topics", nargs="+", metavar="TOPIC", help="such as account.dead")

    add_admin = add("create-admin", create_admin, "register an administrator")
    add_admin.add_argument("--email", required=True)
    add_admin.add_argument(
        "--password-file", type=Path, help="else STREAMBANK_ADMIN_PASSWORD is read"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
