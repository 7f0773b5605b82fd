"""`projections` and `tables`: what is kept is built anew from the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agents.errors import CannotStart
from command_line.broker import codec_of, reach_broker
from command_line.names import not_configured, picked
from command_line.shown import show
from pipeline import SERVICES
from proof.mend import LEFT_S, Mend
from proof.positions import status
from proof.reader import Reader
from proof.rebuild import Rebuild
from stores.catalog import NAMES as TABLES
from stores.configured import MAKERS, named
from stores.configured import NAMES as STORES
from topics.catalog import Installation

if TYPE_CHECKING:
    import argparse

    from command_line.main import Add
    from settings import Settings
    from stores.configured import Whole


def declare(add: Add) -> None:
    command = add("projections", projections, "look after what the stores are filled with")
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    about = "where each store stands in the logs, and how far behind"
    action = actions.add_parser("status", help=about, description=about)
    action.add_argument("store", nargs="?", choices=STORES)
    about = "build a store's tables anew from the logs while it is asked, and exchange them"
    action = actions.add_parser("rebuild", help=about, description=about)
    action.add_argument("store", choices=STORES)
    action.add_argument("table", nargs="?", choices=TABLES, help="only this one")

    command = add("tables", tables, "make the services' tables what their events say")
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    about = "write the rows that differ from what the events say; no worker of theirs may run"
    action = actions.add_parser("rebuild", help=about, description=about)
    action.add_argument("services", nargs="*", metavar="SERVICE", help=", ".join(SERVICES))
    left = "for workers that ended a moment ago to leave their group"
    action.add_argument("--wait", type=float, default=LEFT_S, metavar="SECONDS", help=left)


def projections(settings: Settings, options: argparse.Namespace) -> int:
    there = named(settings)
    if options.action == "rebuild" and options.store not in there:
        raise CannotStart(not_configured(options.store))
    reach_broker(settings)
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
                show(line)
        else:
            run = Rebuild(store, reader, codec_of(settings), prefix, settings.partitions, show)
            for table in [options.table] if options.table else TABLES:
                await run.run(table)
    finally:
        reader.close()
        await store.close()


def tables(settings: Settings, options: argparse.Namespace) -> int:
    names = picked(options.services or ["all"], tuple(SERVICES))
    reach_broker(settings)
    run = Mend(settings.kafka, Installation.of(settings), codec_of(settings), show)
    try:
        written = sum(run.run(SERVICES[name].decider, options.wait) for name in names)
    finally:
        run.close()
    show(f"{written:,} rows written anew")
    return 0
