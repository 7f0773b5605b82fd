"""Signatures, held to the example of Standard Webhooks and to what a receiver checks."""

from __future__ import annotations

import base64

from outbound.signature import headers, secret, signature


def test_the_example_of_the_specification() -> None:
    made = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_one_endpoints_and_one_versions_alone() -> None:
    made = {secret(key, one, n) for key in ("k", "l") for one in ("u.1", "u.2") for n in (1, 2)}
    assert len(made) == 8
    assert all(len(base64.b64decode(one.removeprefix("whsec_"))) == 32 for one in made)
    assert secret("k", "u.1", 1) == secret("k", "u.1", 1)


def test_while_keys_are_exchanged_there_is_a_signature_by_each() -> None:
    secrets = [secret(key, "u.1", 1) for key in ("new", "old")]
    made = headers(secrets, "n1", 1, b"{}")
    assert made["webhook-signature"].split(" ") == [signature(s, "n1", 1, b"{}") for s in secrets]
    assert (made["webhook-id"], made["webhook-timestamp"]) == ("n1", "1")
