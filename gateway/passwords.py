"""Passwords: bcrypt in a few threads of its own, off the event loop.

bcrypt reads 72 bytes at most and stops at NUL, so it is given the base64 of the password's SHA-256
(44 characters): every byte of a long password counts.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

import bcrypt

from gateway.errors import Problem

WAITING_LIMIT = 64  # callers in line; beyond it they are sent away at once


def hashed(password: str, rounds: int) -> str:
    """The text to keep of a password; 12 rounds take 240 ms of one core, one more twice that."""
    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(rounds)).decode()


def matches(password: str, password_hash: str) -> bool:
    return bcrypt.checkpw(_digest(password), password_hash.encode())


def _digest(password: str) -> bytes:
    return base64.b64encode(hashlib.sha256(password.encode()).digest())


class Passwords:
    """`hashed` and `matches` for the event loop; a crowd beyond WAITING_LIMIT gets a Problem."""

    def __init__(self, rounds: int, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        self._waiting = 0
        self._rounds = rounds
        # what an unknown e-mail is checked against, so that it takes as long as a known one
        self._nobody = hashed("nobody", rounds)

    async def hash(self, password: str) -> str:
        return str(await self._run(hashed, password, self._rounds))

    async def check(self, password: str, password_hash: str | None) -> bool:
        """False for a wrong password; None as hash is nobody's, and takes as long."""
        right = await self._run(matches, password, password_hash or self._nobody)
        return bool(right) and password_hash is not None

    async def _run(self, *call: object) -> object:
        if self._waiting >= WAITING_LIMIT:
            raise Problem("OVERLOADED", headers={"Retry-After": "2"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, *call)  # type: ignore[arg-type]
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
