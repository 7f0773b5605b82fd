"""Risk: scores, reviews and the blacklist. A decision on a review arrives under its owner."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.risk import RISK, AddToBlacklist, DecideReview, RemoveFromBlacklist

SERVICE = Service(
    decider=RISK,
    command_keys={
        DecideReview: lambda command: command.review_id.split(".")[0],
        AddToBlacklist: attrgetter("value"),
        RemoveFromBlacklist: attrgetter("value"),
    },
)
