"""Users: one address, one person; what is private stays private."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from domain.account import AccountOpened
from domain.credentials import CredentialsSet
from domain.saga import Reason
from domain.user import (
    USER,
    AccountListed,
    AddressReserved,
    RegisterUser,
    Role,
    RolesSet,
    SetRoles,
    UserCommandRefused,
    UserRegistered,
)
from tests.domain.stories import NOON_MS, then

ADA = RegisterUser(
    user_id="u-ada",
    address="ada@example.org",
    email="Ada@example.org",
    name="Ada",
    password_hash="$2b$12$ada",
    roles=(Role.CUSTOMER,),
    actor_id="u-ada",
    request_hash="h",
)
RESERVED = then(USER, [], ADA)
REGISTERED = [*RESERVED, *then(USER, [], RESERVED[0])]
SET_ROLES = SetRoles(user_id="u-ada", roles=(Role.OPERATOR, Role.CUSTOMER), actor_id="root")


def test_a_registration_reserves_the_address_then_makes_the_user() -> None:
    assert [type(event) for event in REGISTERED] == [
        AddressReserved,
        CredentialsSet,
        UserRegistered,
    ]
    assert then(USER, REGISTERED, ADA) == []
    assert then(USER, REGISTERED, RESERVED[0]) == []


def test_no_public_event_has_a_password_hash() -> None:
    assert "password_hash" not in {field.name for event in USER.events for field in fields(event)}
    assert {AddressReserved, CredentialsSet} <= set(USER.private_events)


@pytest.mark.parametrize(
    ("given", "command", "reason"),
    [
        (RESERVED, replace(ADA, user_id="u-eve", request_hash="e"), Reason.EMAIL_TAKEN),
        (RESERVED, replace(ADA, request_hash="e"), Reason.IDEMPOTENCY_MISMATCH),
        ([], replace(ADA, password_hash=""), Reason.INVALID_COMMAND),
        ([], SET_ROLES, Reason.USER_NOT_FOUND),
    ],
)
def test_a_refused_command(given: list[Any], command: Any, reason: Reason) -> None:
    assert then(USER, given, command) == [
        UserCommandRefused(
            user_id=command.user_id,
            command=type(command).__name__,
            reason=reason,
            at_ms=NOON_MS,
        )
    ]


def test_roles_are_replaced() -> None:
    (said,) = then(USER, REGISTERED, SET_ROLES)
    assert isinstance(said, RolesSet)
    assert said.version == 2
    assert then(USER, [*REGISTERED, said], SET_ROLES) == []


def opened(account_id: str) -> AccountOpened:
    return AccountOpened(
        account_id=account_id,
        user_id="u-ada",
        name="",
        currencies=("USD",),
        overdraft_limits={},
        request_hash="",
        version=1,
        at_ms=NOON_MS,
    )


def test_accounts_are_listed_once_each_even_before_their_user_is_known() -> None:
    given: list[Any] = []
    for account_id in ("a", "b", "a"):
        given += then(USER, given, opened(account_id))
    assert given == [
        AccountListed(user_id="u-ada", account_id="a", number=0, at_ms=NOON_MS),
        AccountListed(user_id="u-ada", account_id="b", number=1, at_ms=NOON_MS),
    ]
