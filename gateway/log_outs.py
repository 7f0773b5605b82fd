"""Tokens that were logged out, known to every process of one gateway.

    LogOuts, made before the fork --add--> one file in memory --has--> each reads what is new in it

A record is the token's `jti` and when it expires. The file has no name and goes with the processes:
a restart forgets it, and gateways on other machines never hear of it.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid

JTI = EXPIRES = 16  # bytes of a record; together they divide a page, so none is seen half written
RECORD = JTI + EXPIRES
READ = 1_000 * RECORD
FORGET_S = 60.0  # between two looks for what has expired


class LogOuts:
    """What was logged out since the start, and has not expired."""

    def __init__(self) -> None:
        self._file = os.memfd_create("log-outs")
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        self._read = 0
        self._expires_s: dict[str, int] = {}
        self._forget_s = 0.0

    def add(self, jti: str, expires_s: int) -> None:
        """`jti`: 32 hexadecimal digits. `expires_s`: unix seconds."""
        os.write(self._file, uuid.UUID(jti).bytes + expires_s.to_bytes(EXPIRES, "big"))

    def has(self, jti: str) -> bool:
        """True once any process of the gateway was told so."""
        while new := os.pread(self._file, READ, self._read):
            self._learn(new)
        return jti in self._expires_s

    def _learn(self, new: bytes) -> None:
        self._read += len(new)
        for at in range(0, len(new), RECORD):
            jti, expires = new[at : at + JTI], new[at + JTI : at + RECORD]
            self._expires_s[uuid.UUID(bytes=jti).hex] = int.from_bytes(expires, "big")
        now_s = time.time()
        if now_s > self._forget_s:
            self._expires_s = {jti: at_s for jti, at_s in self._expires_s.items() if at_s > now_s}
            self._forget_s = now_s + FORGET_S
