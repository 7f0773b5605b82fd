"""Account: who may hold money, and what moves it. Commands arrive under account_id."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.account import (
    ACCOUNT,
    ArchiveAccount,
    CloseAccount,
    FreezeAccount,
    OpenAccount,
    ReturnSuspended,
    UnfreezeAccount,
)
from domain.holds import PlaceHold, VoidHold
from domain.suspense import ResolveSuspense

SERVICE = Service(
    decider=ACCOUNT,
    command_keys={
        OpenAccount: attrgetter("account_id"),
        FreezeAccount: attrgetter("account_id"),
        UnfreezeAccount: attrgetter("account_id"),
        CloseAccount: attrgetter("account_id"),
        ArchiveAccount: attrgetter("account_id"),
        ReturnSuspended: attrgetter("account_id"),
        ResolveSuspense: attrgetter("account_id"),
        PlaceHold: attrgetter("account_id"),
        VoidHold: attrgetter("account_id"),
    },
)
