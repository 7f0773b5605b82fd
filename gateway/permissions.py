"""Who may do what: the one table. Routes name a permission's roles, and so do handlers.

A route whose `roles` are not a row of this table fails a test; so does one whose check differs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from domain.person import Role

if TYPE_CHECKING:
    from collections.abc import Mapping


class Permission(StrEnum):
    """What is allowed. `OWN` is everybody's, on what is theirs: handlers look at whose it is."""

    OWN = "own"
    READ_ANY = "read_any"  # users, accounts, transactions of anybody
    MOVE_ANY = "move_any"  # money on any account; deposits, rates, settlements
    SETTLE_SUSPENSE = "settle_suspense"  # say where money belongs that waits for a person
    FREEZE = "freeze"  # accounts
    READ_RISK = "read_risk"  # reviews, blacklist
    ASK_RISK = "ask_risk"  # what an order would score
    DECIDE_RISK = "decide_risk"
    READ_KYC = "read_kyc"  # what people submitted of themselves
    DECIDE_KYC = "decide_kyc"
    AUDIT = "audit"  # who did what, and its proof
    TELL = "tell"  # users things
    EDIT_TEXTS = "edit_texts"  # that they are told by
    WATCH = "watch"  # what runs, lags, is open
    REPORT = "report"  # files of the bank's books
    ANALYSE = "analyse"  # tables, SQL, analytics
    ADMINISTER = "administer"  # roles of users, whatever else nobody else may


_STAFF = frozenset({Role.SUPPORT, Role.OPERATOR, Role.COMPLIANCE, Role.SERVICE, Role.ADMIN})
_MONEY = frozenset({Role.OPERATOR, Role.SERVICE, Role.ADMIN})
_OFFICERS = frozenset({Role.COMPLIANCE, Role.ADMIN})

PERMISSIONS: Mapping[Permission, frozenset[Role]] = {
    Permission.OWN: frozenset(Role),
    Permission.READ_ANY: _STAFF,
    Permission.MOVE_ANY: _MONEY,
    Permission.SETTLE_SUSPENSE: frozenset({Role.OPERATOR, Role.ADMIN}),
    Permission.FREEZE: _MONEY | {Role.COMPLIANCE},
    Permission.READ_RISK: _OFFICERS | {Role.SUPPORT},
    Permission.ASK_RISK: _MONEY | _OFFICERS | {Role.SUPPORT},
    Permission.DECIDE_RISK: _OFFICERS,
    Permission.READ_KYC: _OFFICERS,
    Permission.DECIDE_KYC: _OFFICERS,
    Permission.AUDIT: _OFFICERS,
    Permission.TELL: _STAFF,
    Permission.EDIT_TEXTS: frozenset({Role.OPERATOR, Role.ADMIN}),
    Permission.WATCH: _STAFF | {Role.ANALYST},
    Permission.REPORT: _MONEY | {Role.ANALYST, Role.COMPLIANCE},
    Permission.ANALYSE: frozenset({Role.ANALYST, Role.ADMIN}),
    Permission.ADMINISTER: frozenset({Role.ADMIN}),
}


def granted(roles: frozenset[Role]) -> list[Permission]:
    """What someone with these roles may do."""
    return [one for one, allowed in PERMISSIONS.items() if not allowed.isdisjoint(roles)]
