"""What the processes of the tests are made of, imported once: see `forked`."""

import gc

import agents.delivery
import agents.rail
import agents.rates_feed
import agents.worker
import command_line.main
import gateway.app
import pipeline
import reports.effect
import stores.invalidation
import stores.mongo
import stores.mysql
import streaming.app
import travel.sql

__all__ = [
    "agents",
    "command_line",
    "gateway",
    "pipeline",
    "reports",
    "stores",
    "streaming",
    "travel",
]
# no collection of a fork walks, and so copies, what all of them share
gc.freeze()
