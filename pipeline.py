"""Streambank on one page: what runs.

    HTTP --> gateway --commands--> <service>.inbox --> worker SERVICE --facts--> <service>.events
                                         ^                   |
                                         +---- routed facts -+        (topics/subscriptions.py)
    worker perform   requested effects -> the world -> results in <service>.inbox
    worker relay     <service>.events -> inboxes off the money path
    worker observe   <service>.events -> digests for audit, points for analytics
    worker projections   changelogs, <service>.events -> MySQL, MongoDB: read models

Each service is one Faust app, its id its consumer group, with its own table; any set of them runs
in one process. `relay` and `observe` are apps without a table, `perform` and projections plain
consumers. What a service decides is in `domain/`, what it is connected to in `agents/`; the gateway
is `gateway/app.py`, the commands are in `command_line/`.

What takes long to load is imported where it is used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

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
from agents.observe import Observe
from agents.perform import Perform
from agents.project import Project, Written
from agents.recent import Recent
from agents.relay import Relay
from agents.transact import Shell
from agents.wiring import Wiring
from domain.services import DECIDERS
from schemas.codec import Codec
from stores.configured import MAKERS
from stores.configured import NAMES as STORES
from topics.catalog import SCHEMAS, Installation
from topics.schema_log import SchemaLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.effect import Effect
    from agents.transact import Service
    from agents.worker import Workers
    from settings import Settings

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
# `all` is the bank without its stores: projections, for which nobody waits, are better off in a process of their own
ALL, PROJECTORS = (*SERVICES, PERFORM, RELAY, OBSERVE), "projections"
# off the money path: nobody waits for them, so a process that runs only these gives way (`command_line/run.py`)
BESIDE = ("notification", "audit", "analytics", "settlement", "reporting", RELAY, OBSERVE)
MONEY = tuple(name for name in ALL if name not in BESIDE)
GROUPS = {"money": MONEY, "beside": BESIDE}
# seconds between two transactions, at least: fewer and larger ones
GATHER_S = {**dict.fromkeys(BESIDE, 0.2), OBSERVE: 0.5}


def build(settings: Settings, services: Sequence[str]) -> Workers:
    """The workers of these services, ready to run in one process and event loop."""
    from agents.worker import Workers

    where = Installation.of(settings)
    workers = Workers(settings)
    lookup = SchemaLog(settings.kafka, f"{settings.prefix}{SCHEMAS}")
    # facts said in this process need not be decoded again by another service of it
    recent = Recent() if len(services) > 1 else None
    written = _letting_go(settings) if PROJECTIONS.keys() & set(services) else None
    wiring = Wiring(
        kafka=settings.kafka,
        namespace=settings.prefix,
        instance=settings.instance,
        static_membership=settings.static_membership,
        session_timeout_s=settings.session_timeout_s,
        address=settings.ops_announced,
        skip=frozenset(settings.skip),
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
        skip=frozenset(settings.skip),
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
        env={},  # else Faust takes APP_VERSION and others of its own; a version would be another group
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; answers its exit code.

    It imports this module by its name, which `python pipeline.py` so loads twice: nothing here keeps state.
    """
    from command_line.main import main

    return main(arguments)


if __name__ == "__main__":
    sys.exit(main())
