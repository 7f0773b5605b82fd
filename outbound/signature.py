"""Signatures of webhooks by Standard Webhooks (https://www.standardwebhooks.com), symmetric.

    webhook-signature: v1,<base64 of HMAC-SHA256(secret, "<webhook-id>.<webhook-timestamp>.<body>")>

An endpoint's secret is made from the installation's key, the endpoint's id and a number that grows
with each rotation: no topic, table or log ever holds it. While the installation's key is exchanged
both make a signature, and a receiver takes whichever it can check.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "whsec_"


def secret(key: str, endpoint_id: str, version: int) -> str:
    """What the receiver checks with: `whsec_` and 32 bytes in base64."""
    made = hmac.new(key.encode(), f"webhook/{endpoint_id}/{version}".encode(), hashlib.sha256)
    return PREFIX + base64.b64encode(made.digest()).decode()


def signature(secret: str, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """`v1,` and the signature of one message."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b"%b.%d.%b" % (webhook_id.encode(), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def headers(
    secrets: Sequence[str], webhook_id: str, timestamp_s: int, body: bytes
) -> Mapping[str, str]:
    """The three headers; a signature by each of the secrets."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(
            signature(one, webhook_id, timestamp_s, body) for one in secrets
        ),
    }
