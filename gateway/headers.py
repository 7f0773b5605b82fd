"""Request headers with a grammar: `traceparent` (W3C trace context) and `Prefer` (RFC 7240)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

WAIT_LIMIT_S = 30
TRACEPARENT = re.compile(r"^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$")


@dataclass(frozen=True, slots=True)
class Trace:
    """Trace context of a request: the client's trace id, a span id of our own."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def trace_of(traceparent: str | None) -> Trace:
    """Goes on with the client's trace; a new one without a valid header."""
    random = os.urandom(24).hex()
    match = TRACEPARENT.match(traceparent) if traceparent else None
    if match and set(match[1]) != {"0"} and set(match[2]) != {"0"}:
        return Trace(match[1], random[:16], match[3])
    return Trace(random[16:], random[:16], "01")


@dataclass(frozen=True, slots=True)
class Prefer:
    """What `Prefer` asked for: `wait_s` is None without a wait that can be honoured."""

    wait_s: int | None = None

    @property
    def applied(self) -> dict[str, str]:
        return {} if self.wait_s is None else {"Preference-Applied": f"wait={self.wait_s}"}


NOTHING = Prefer()


def prefer_of(header: str | None) -> Prefer:
    """`wait=N` in seconds, at most WAIT_LIMIT_S; anything else is not honoured."""
    if header is None:
        return NOTHING
    for part in header.split(","):
        name, _, value = part.split(";")[0].partition("=")
        value = value.strip().strip('"')
        if name.strip().lower() == "wait" and value.isascii() and value.isdecimal():
            return Prefer(min(int(value[:9]), WAIT_LIMIT_S))
    return NOTHING
