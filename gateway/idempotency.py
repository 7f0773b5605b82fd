r"""Asked twice is asked once: what a process remembers of Idempotency-Keys.

    (absent) --begin--> IN PROGRESS --finish--> ANSWERED | ACCEPTED (202: the end is not known yet)
                             \----forget----> (absent): nothing was accepted, the key is free

Memory is bounded, and each process has its own: it only saves work and gives the first answer
again. That a repeat is the same command holds without it, for all ids are derived from the scope
(caller, route, key) and the body, and the service that owns the aggregate knows them.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.answer import Answer
from gateway.errors import Problem

NAMESPACE = uuid.UUID("6f3c1c0e-53f1-4a9b-9d5c-0d5a7a3d5b10")  # never changes: ids follow from it
KEY_LENGTH = 255
KEPT_S = 24 * 3600
ENTRIES = 200_000
ANSWER_BYTES = 32 << 20  # of all answers kept


def key_of(header: str | None) -> str | None:
    """The key in an Idempotency-Key header, bare or quoted; None without one. 400 for a bad one."""
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not 1 <= len(key) <= KEY_LENGTH:
        raise Problem("IDEMPOTENCY_KEY_INVALID", f"it has 1 to {KEY_LENGTH} characters")
    if not (key.isascii() and key.isprintable()):
        raise Problem("IDEMPOTENCY_KEY_INVALID", "it has printable ASCII characters only")
    return key


def named(namespace: uuid.UUID, name: str) -> uuid.UUID:
    """What `uuid.uuid5` answers, in half of its time."""
    digest = hashlib.sha1(namespace.bytes + name.encode(), usedforsecurity=False).digest()
    return uuid.UUID(bytes=digest[:16], version=5)


def scope_of(caller: str, route: str, key: str | None) -> uuid.UUID:
    """The scope of a request, which ids are derived from; random without a key."""
    if key is None:
        return uuid.uuid4()
    return named(NAMESPACE, f"{caller}\n{route}\n{key}")


def hash_of(body: Any) -> str:
    """The fingerprint of a body: the same for any order of members and any white space."""
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(slots=True)
class Entry:
    """What became of the first request of a scope. `answer` is None while in progress."""

    request_hash: str
    since_s: float
    answer: Answer | None = None
    accepted: bool = False  # answered 202: a repeat asks for the present state


class Idempotency:
    """The memory of one process."""

    def __init__(self, entries: int = ENTRIES, answer_bytes: int = ANSWER_BYTES) -> None:
        self._entries: OrderedDict[uuid.UUID, Entry] = OrderedDict()
        self._limit, self._limit_bytes = entries, answer_bytes
        self._bytes = 0

    def begin(self, scope: uuid.UUID, request_hash: str) -> Entry | None:
        """None for a first request, which is in progress from now on; else what became of it.

        409 while the first one is in progress, 422 for another body.
        """
        entry = self._entries.get(scope)
        now_s = time.monotonic()
        if entry is not None and now_s - entry.since_s > KEPT_S and entry.answer is not None:
            self.forget(scope)
            entry = None
        if entry is None:
            self._entries[scope] = Entry(request_hash, now_s)
            self._shrink()
            return None
        if entry.request_hash != request_hash:
            raise Problem("IDEMPOTENCY_MISMATCH")
        if entry.answer is None and not entry.accepted:
            raise Problem("IDEMPOTENCY_IN_PROGRESS", headers={"Retry-After": "1"})
        return entry

    def finish(self, scope: uuid.UUID, answer: Answer) -> None:
        """Remember the answer; of a 202 only that there was one."""
        entry = self._entries.get(scope)
        if entry is None:
            return
        if answer.status == 202:
            entry.accepted = True
            return
        if entry.answer is None:
            self._bytes += answer.size
        entry.answer = answer
        self._shrink()

    def forget(self, scope: uuid.UUID) -> None:
        """Nothing was accepted: the key is free again."""
        entry = self._entries.pop(scope, None)
        if entry is not None and entry.answer is not None:
            self._bytes -= entry.answer.size

    def _shrink(self) -> None:
        """Let the oldest go; one in progress too, which the owning service then recognises."""
        while len(self._entries) > self._limit or self._bytes > self._limit_bytes:
            _, entry = self._entries.popitem(last=False)
            if entry.answer is not None:
                self._bytes -= entry.answer.size
