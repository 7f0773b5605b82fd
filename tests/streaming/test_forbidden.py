"""A topic that the worker may not write to: only the record that wants to is isolated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.streaming.kit import Number, app, committed, create, rows, running, until, values, write

if TYPE_CHECKING:
    from collections.abc import Callable

ACLS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
BAD = 40


def read_only(bootstrap: str, topic: str) -> None:
    """All may read it, nobody may write to it."""
    acl = AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL,
        "User:*", "*", AclOperation.READ, AclPermissionType.ALLOW,
    )  # fmt: skip
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_acls([acl]).values():
        future.result(30)


@pytest.mark.parametrize("noise", [0, 50_000])
async def test_only_the_record_is_isolated(
    cluster: Callable[..., Any], prefix: str, noise: int
) -> None:
    """With noise the refusal is known before all is written: then not even the offsets can be sent."""
    bootstrap = cluster(options=ACLS).bootstrap
    create(bootstrap, f"{prefix}in", f"{prefix}out", partitions=2)
    create(bootstrap, f"{prefix}forbidden")
    read_only(bootstrap, f"{prefix}forbidden")
    one = app(f"{prefix}bad", bootstrap, 2, attempts=2)
    out = one.topic(f"{prefix}out", value_codec=Number())
    forbidden = one.topic(f"{prefix}forbidden", value_codec=Number())
    table = one.Table("rows", value_codec=Number(), default=int, partitions=2)

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for key, value in stream.items():
            table[key] += 1
            (forbidden if value == BAD else out).put(value=value)
            for _ in range(noise if value == BAD else 0):
                out.put(value=value)

    async with running(one):
        for part, numbers in ((0, range(60)), (1, range(100, 300))):
            write(bootstrap, f"{prefix}in", [(b"%d" % part, b"%d" % n) for n in numbers], part)
        await until(lambda: one.failure or one.consumer.suspects.stopped)
        assert one.failure is None
        await until(lambda: len(values(bootstrap, f"{prefix}out")) == 240)
    assert committed(bootstrap, f"{prefix}bad", f"{prefix}in", 0) == BAD
    assert rows(bootstrap, f"{prefix}bad-rows-changelog") == {(0, b"0"): b"40", (1, b"1"): b"200"}
    assert values(bootstrap, f"{prefix}forbidden") == []
