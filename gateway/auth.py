"""Who calls: JSON Web Tokens (RFC 7519, HS256), roles, and what a role may do.

An access token says who (`sub`), which roles, and of which session (`sid`) that began when
(`auth_time`); a refresh token only who and of which session, so that a new access token gets the
roles of that moment. A verified token is kept until it expires: checking it again would cost more
than the rest of a request. Whether its session lives is asked in `gateway/sessions.py`.
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
from gateway.permissions import PERMISSIONS, Permission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ISSUER = "streambank"
REFRESH_S = 30 * 24 * 3600
CACHED_TOKENS = 20_000

ALL = PERMISSIONS[Permission.OWN]
STAFF_READS = PERMISSIONS[Permission.READ_ANY]
MONEY = PERMISSIONS[Permission.MOVE_ANY]
SUSPENSE_WORD = PERMISSIONS[Permission.SETTLE_SUSPENSE]
FREEZERS = PERMISSIONS[Permission.FREEZE]
RISK_READS = PERMISSIONS[Permission.READ_RISK]
RISK_ASKS = PERMISSIONS[Permission.ASK_RISK]
RISK_WORD = PERMISSIONS[Permission.DECIDE_RISK]
KYC_READS = PERMISSIONS[Permission.READ_KYC]
KYC_WORD = PERMISSIONS[Permission.DECIDE_KYC]
AUDITORS = PERMISSIONS[Permission.AUDIT]
TELLERS = PERMISSIONS[Permission.TELL]
EDITORS = PERMISSIONS[Permission.EDIT_TEXTS]
WATCHERS = PERMISSIONS[Permission.WATCH]
REPORTERS = PERMISSIONS[Permission.REPORT]
ANALYSTS = PERMISSIONS[Permission.ANALYSE]
ADMINS = PERMISSIONS[Permission.ADMINISTER]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    user_id: str
    roles: frozenset[Role]
    session_id: str = ""  # empty: a token without a session, as tools issue them
    auth_s: int = 0  # when the session began, Unix seconds

    def may(self, roles: Iterable[Role]) -> bool:
        """True when one of the caller's roles is among these."""
        return not self.roles.isdisjoint(roles)

    @property
    def privileged(self) -> bool:
        """Its orders meet the blacklist alone, not the rules of behaviour."""
        return self.may(MONEY)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of its session."""

    user_id: str
    session_id: str
    token_id: str
    auth_s: int


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

    def issue(
        self,
        user_id: str,
        roles: Iterable[Role],
        session_id: str = "",
        refresh_id: str | None = None,
        auth_s: int | None = None,
    ) -> dict[str, Any]:
        """The answer to a login. `refresh_id`: the refresh token's `jti`."""
        now = int(time.time())
        session = {"sid": session_id, "auth_time": auth_s or now} if session_id else {}
        access = {"typ": "access", "roles": sorted(roles), "exp": now + self.access_s, **session}
        refresh = {"typ": "refresh", "exp": now + REFRESH_S, **session}
        if refresh_id is not None:
            refresh["jti"] = refresh_id
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
        scheme, _, rest = (authorization or "").partition(" ")
        token = rest.strip()
        known = self._verified.get(token)
        if known is not None and scheme.lower() == "bearer" and known[1] > time.time():
            self._still_in(known[2])
            return known[0]
        if scheme.lower() != "bearer" or not token:
            raise unauthenticated("send Authorization: Bearer <access token>")
        claims = self._claims(token, "access")
        try:
            roles = frozenset(Role(name) for name in claims["roles"])
        except (KeyError, TypeError, ValueError) as exc:
            raise unauthenticated("the token's roles can't be read") from exc
        said = _claimed(claims)
        caller = Caller(said.user_id, roles, said.session_id, said.auth_s)
        if len(self._verified) >= CACHED_TOKENS:
            self._verified.clear()
        ended_by = said.session_id or said.token_id
        self._verified[token] = (caller, float(claims["exp"]), ended_by)
        return caller

    def refreshed(self, token: str) -> Claims:
        """The session that a refresh token stands for; 401 when it stands for none."""
        claims = _claimed(self._claims(token, "refresh"))
        if not claims.session_id:
            raise unauthenticated("the token is of no session: log in")
        return claims

    def ending(self, token: str) -> dict[str, Any]:
        """The claims of a refresh token that is to be withdrawn. 401 when it is none."""
        return self._claims(token, "refresh", ended=True)

    def ending_access(self, authorization: str) -> dict[str, Any]:
        """The same of the access token in a header: one that has expired names its session, too."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise unauthenticated("send Authorization: Bearer <access token>")
        return self._claims(token.strip(), "access", ended=True)

    def withdraw(self, claims: dict[str, Any]) -> Claims:
        """Log out: this gateway takes no token of the session any more."""
        said = _claimed(claims)
        ended = said.session_id or said.token_id
        until_s = int(time.time()) + REFRESH_S if said.session_id else int(claims["exp"])
        if not self._log_outs.has(ended):
            self._log_outs.add(ended, until_s)
            if self._told is not None:
                self._told(ended, until_s)
        return said

    def _still_in(self, jti: str) -> None:
        if self._log_outs.has(jti):
            raise unauthenticated("the token was logged out")

    def _claims(self, token: str, kind: str, *, ended: bool = False) -> dict[str, Any]:
        """`ended`: an access token that has expired, and a token of a session that has ended, will do."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                issuer=ISSUER,
                # no clock but the issuer's says when it was issued, and that may go a second before ours
                options={
                    "require": ["exp", "sub", "jti", "iss"],
                    "verify_iat": False,
                    "verify_exp": kind != "access" or not ended,
                },
            )
        except jwt.ExpiredSignatureError as exc:
            raise unauthenticated("the token has expired") from exc
        except (jwt.InvalidTokenError, ValueError) as exc:
            raise unauthenticated("the token is not valid") from exc
        if claims.get("typ") != kind:
            raise unauthenticated(f"this is no {kind} token")
        if not ended:
            self._still_in(str(claims.get("sid") or claims["jti"]))
        return claims


def _claimed(claims: dict[str, Any]) -> Claims:
    began_s = claims.get("auth_time")
    return Claims(
        user_id=str(claims["sub"]),
        session_id=str(claims.get("sid") or ""),
        token_id=str(claims["jti"]),
        auth_s=began_s if isinstance(began_s, int) else 0,
    )


def unauthenticated(detail: str) -> Problem:
    return Problem("UNAUTHENTICATED", detail, headers={"WWW-Authenticate": "Bearer"})
