"""Risk: scores, reviews, the blacklist. A decision on a review arrives under its owner, a configuration
under CONFIG.
"""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.blacklist import AddToBlacklist, RemoveFromBlacklist
from domain.risk import RISK, DecideReview
from domain.risk_config import CONFIG, SetRiskConfig

SERVICE = Service(
    decider=RISK,
    command_keys={
        DecideReview: lambda command: command.review_id.split(".")[0],
        AddToBlacklist: attrgetter("value"),
        RemoveFromBlacklist: attrgetter("value"),
        SetRiskConfig: lambda _: CONFIG,
    },
)
