"""User: who someone is. What claims an address arrives under it, all else under the user_id."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.credentials import (
    ChangePassword,
    ConfirmEmail,
    RequestEmailConfirmation,
    RequestPasswordReset,
    ResetPassword,
)
from domain.kyc import DecideKyc, SubmitKyc
from domain.session import EndSession, EndSessions, OpenSession, RefreshSession
from domain.user import USER, ChangeProfile, ClaimAddress, RegisterUser, SetRoles

OF_A_USER = (
    ChangeProfile,
    SetRoles,
    SubmitKyc,
    DecideKyc,
    ChangePassword,
    RequestPasswordReset,
    ResetPassword,
    RequestEmailConfirmation,
    ConfirmEmail,
    OpenSession,
    RefreshSession,
    EndSession,
    EndSessions,
)
SERVICE = Service(
    decider=USER,
    command_keys={
        RegisterUser: attrgetter("address"),
        ClaimAddress: attrgetter("address"),
        **dict.fromkeys(OF_A_USER, attrgetter("user_id")),
    },
)
