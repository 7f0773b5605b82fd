"""User: who someone is. A registration arrives under its address, all else under the user_id."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.user import USER, DecideKyc, RegisterUser, SetRoles, SubmitKyc

SERVICE = Service(
    decider=USER,
    command_keys={
        RegisterUser: attrgetter("address"),
        SetRoles: attrgetter("user_id"),
        SubmitKyc: attrgetter("user_id"),
        DecideKyc: attrgetter("user_id"),
    },
)
