"""`worker` and `gateway`: what runs until it is told to stop."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop

import logs
from agents.errors import CannotStart
from command_line.broker import reach_broker
from command_line.names import not_configured, picked
from pipeline import ALL, BESIDE, GROUPS, PROJECTIONS, PROJECTORS, RUNNABLE, build
from stores.configured import NAMES as STORES
from stores.configured import named
from topics import apply as topics_apply
from topics.catalog import Installation

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from command_line.main import Add
    from settings import Settings


def declare(add: Add) -> None:
    command = add("worker", worker, "run services in this process until SIGTERM")
    groups = (
        f"{', '.join(RUNNABLE)}; all: {', '.join(ALL)}; money: those that move it; beside: the rest of all; "
        "projections: those of each configured store"
    )
    command.add_argument("services", nargs="+", metavar="SERVICE", help=groups)
    command.add_argument("--ops-port", type=int, help="port of the ops server")

    command = add("gateway", gateway, "serve HTTP")
    command.add_argument("--processes", type=int, help="processes that share the port")


def worker(settings: Settings, options: argparse.Namespace) -> int:
    there = named(settings)
    possible = [name for name, store in PROJECTIONS.items() if store in there]
    asked = [
        one for name in options.services if name != PROJECTORS for one in GROUPS.get(name, (name,))
    ]
    if unset := [name for name in asked if name in PROJECTIONS and name not in possible]:
        raise CannotStart(not_configured(PROJECTIONS[unset[0]]))
    chosen = set(picked(asked, RUNNABLE, ALL))
    if PROJECTORS in options.services:
        if not possible:
            raise CannotStart(not_configured(*STORES))
        chosen.update(possible)
    names = [name for name in RUNNABLE if name in chosen]
    if options.ops_port is not None:
        settings = replace(settings, ops_port=options.ops_port)
    logs.configure("+".join(names) if len(names) < 3 else "worker", settings.log_level)
    reach_broker(settings)
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
    reach_broker(settings)
    return int(run(settings) or 0)
