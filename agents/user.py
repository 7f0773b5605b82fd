"""User: registration and roles. A registration arrives under its address."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.user import USER, RegisterUser, SetRoles

SERVICE = Service(
    decider=USER,
    command_keys={
        RegisterUser: attrgetter("address"),
        SetRoles: attrgetter("user_id"),
    },
)
