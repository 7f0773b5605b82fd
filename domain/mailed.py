"""Tokens that a mail carries, so that only who reads it can say them.

A token follows from the id of its mail by a secret that the gateway and the mail's sender share. So
no topic has it: the public fact that asks for the mail names the mail's id, the private one keeps
the token's hash, and whoever fills in the mail computes the token again.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum


class Purpose(StrEnum):
    """What a token lets its bearer do."""

    CONFIRM = "confirm"  # say that mail to an address reaches them
    RESET = "reset"  # set a new password


def mailed_token(secret: str, purpose: Purpose, user_id: str, mail_id: str) -> str:
    """`<user_id>.<64 hexadecimal digits>`."""
    key = hashlib.sha256(secret.encode()).digest()
    text = "\n".join((purpose, user_id, mail_id)).encode()
    return f"{user_id}.{hashlib.blake2b(text, key=key, digest_size=32).hexdigest()}"


def token_hash(token: str) -> str:
    """What is kept of a token: SHA-256, hex. It has 256 bits, so the hash needs no salt."""
    return hashlib.sha256(token.encode()).hexdigest()
