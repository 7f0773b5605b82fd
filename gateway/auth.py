"""Who calls: JSON Web Tokens (RFC 7519, HS256), roles, and what a role may do.

An access token says who (`sub`) and which roles; a refresh token only who, so that a new access
token gets the roles of that moment. A verified token is kept until it expires: checking it again
would cost more than the rest of a request.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from domain.user import Role
from gateway.errors import Problem
from gateway.log_outs import LogOuts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ISSUER = "streambank"
REFRESH_S = 30 * 24 * 3600
CACHED_TOKENS = 20_000

ALL = frozenset(Role)
STAFF_READS = frozenset({Role.SUPPORT, Role.OPERATOR, Role.COMPLIANCE, Role.SERVICE, Role.ADMIN})
MONEY = frozenset({Role.OPERATOR, Role.SERVICE, Role.ADMIN})  # moves money on any account
FREEZERS = MONEY | {Role.COMPLIANCE}
RISK_READS = frozenset({Role.COMPLIANCE, Role.SUPPORT, Role.ADMIN})
RISK_ASKS = RISK_READS | MONEY
RISK_WORD = frozenset({Role.COMPLIANCE, Role.ADMIN})
AUDITORS = frozenset({Role.COMPLIANCE, Role.ADMIN})
TELLERS = MONEY | {Role.SUPPORT, Role.COMPLIANCE}  # tell users things
EDITORS = frozenset({Role.OPERATOR, Role.ADMIN})  # of the texts
ANALYSTS = frozenset({Role.ANALYST, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    user_id: str
    roles: frozenset[Role]

    def may(self, roles: Iterable[Role]) -> bool:
        """True when one of the caller's roles is among these."""
        return not self.roles.isdisjoint(roles)

    @property
    def privileged(self) -> bool:
        """Its orders meet the blacklist alone, not the rules of behaviour."""
        return self.may(MONEY)


NOBODY = Caller(user_id="", roles=frozenset())


class Tokens:
    """Issues and verifies tokens. `access_s`: life of an access token in seconds."""

    def __init__(
        self,
        secret: str,
        access_s: int,
        log_outs: LogOuts | None = None,
        told: Callable[[str, int], None] | None = None,
    ) -> None:
        self._secret = secret
        self.access_s = access_s
        self._verified: dict[str, tuple[Caller, float, str]] = {}  # with its end and its jti
        self._log_outs = log_outs or LogOuts()
        self._told = told  # of each token that was logged out, its jti and when it expires

    def issue(self, user_id: str, roles: Iterable[Role]) -> dict[str, Any]:
        """The answer to a login."""
        now = int(time.time())
        access = {"typ": "access", "roles": sorted(roles), "exp": now + self.access_s}
        refresh = {"typ": "refresh", "exp": now + REFRESH_S}
        return {
            "access_token": self._sign(user_id, now, access),
            "refresh_token": self._sign(user_id, now, refresh),
            "token_type": "Bearer",
            "expires_in": self.access_s,
            "user_id": user_id,
        }

    def _sign(self, user_id: str, now: int, claims: dict[str, Any]) -> str:
        own = {"iss": ISSUER, "sub": user_id, "iat": now, "jti": uuid.uuid4().hex}
        return jwt.encode(own | claims, self._secret, algorithm="HS256")

    def caller(self, authorization: str | None) -> Caller:
        """Who an Authorization header stands for; 401 when for nobody."""
        scheme, _, token = (authorization or "").partition(" ")
        known = self._verified.get(token)
        if known is not None and scheme.lower() == "bearer" and known[1] > time.time():
            self._still_in(known[2])
            return known[0]
        if scheme.lower() != "bearer" or not token:
            raise unauthenticated("send Authorization: Bearer <access token>")
        claims = self._claims(token.strip(), "access")
        try:
            roles = frozenset(Role(name) for name in claims["roles"])
        except (KeyError, TypeError, ValueError) as exc:
            raise unauthenticated("the token's roles can't be read") from exc
        caller = Caller(user_id=claims["sub"], roles=roles)
        if len(self._verified) >= CACHED_TOKENS:
            self._verified.clear()
        self._verified[token] = (caller, float(claims["exp"]), claims["jti"])
        return caller

    def refreshed(self, token: str) -> str:
        """The user whom a refresh token stands for; 401 when it stands for none."""
        return str(self._claims(token, "refresh")["sub"])

    def withdraw(self, token: str) -> None:
        """Log out: this gateway takes the refresh token no more. 401 when it is none."""
        self._withdraw(self._claims(token, "refresh"))

    def withdraw_access(self, authorization: str) -> None:
        """The same for the access token in a header; what is none any more is let go."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise unauthenticated("send Authorization: Bearer <access token>")
        self._withdraw(self._claims(token.strip(), "access"))

    def _withdraw(self, claims: dict[str, Any]) -> None:
        self._log_outs.add(claims["jti"], int(claims["exp"]))
        if self._told is not None:
            self._told(claims["jti"], int(claims["exp"]))

    def _still_in(self, jti: str) -> None:
        if self._log_outs.has(jti):
            raise unauthenticated("the token was logged out")

    def _claims(self, token: str, kind: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                issuer=ISSUER,
                options={"require": ["exp", "sub", "jti", "iss"]},
            )
        except jwt.ExpiredSignatureError as exc:
            raise unauthenticated("the token has expired") from exc
        except (jwt.InvalidTokenError, ValueError) as exc:
            raise unauthenticated("the token is not valid") from exc
        if claims.get("typ") != kind:
            raise unauthenticated(f"this is no {kind} token")
        self._still_in(claims["jti"])
        return claims


def unauthenticated(detail: str) -> Problem:
    return Problem("UNAUTHENTICATED", detail, headers={"WWW-Authenticate": "Bearer"})
