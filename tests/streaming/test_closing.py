"""Clients are closed by threads that may wait for ever, and by nobody who has other things to do."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from streaming import Admin, close_client, close_member, closing
from tests.streaming.kit import create, until

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

PASSES = KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))


def closed(client: AdminClient) -> bool:
    try:
        client.poll(0)
    except RuntimeError:
        return True
    return False


def closes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that close a client, as they come."""
    names: list[str] = []
    close = closing._close

    def noted(client: Any) -> None:
        names.append(threading.current_thread().name)
        close(client)

    monkeypatch.setattr(closing, "_close", noted)
    return names


async def test_a_client_that_is_given_up_is_closed_by_another_thread(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, asked = closes(monkeypatch), []

    def question(client: AdminClient) -> str:
        asked.append(client)
        if len(asked) == 1:
            raise PASSES
        return "answer"

    with Admin({"bootstrap.servers": bootstrap}) as admin:
        assert admin.ask(question) == "answer"
        await until(lambda: closed(asked[0]))
        assert not closed(asked[1])
    await until(lambda: closed(asked[1]))
    assert names == ["closing", "closing"]


async def test_a_client_is_closed_once_nobody_asks_it(bootstrap: str) -> None:
    """What one thread gives up another one may still wait for."""
    asked: list[AdminClient] = []
    inside, on = threading.Event(), threading.Event()

    def slow(client: AdminClient) -> int:
        asked.append(client)
        inside.set()
        assert on.wait(30)
        return len(client.list_topics(timeout=10).brokers)

    def late(client: AdminClient) -> None:
        asked.append(client)
        raise TimeoutError

    with Admin({"bootstrap.servers": bootstrap}) as admin:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(admin.ask(slow)))
        thread.start()
        assert inside.wait(30)
        with pytest.raises(TimeoutError):
            admin.ask(late)
        await asyncio.sleep(0.5)
        assert not closed(asked[0])
        on.set()
        thread.join(30)
    assert found == [1]
    assert asked[0] is asked[1]
    await until(lambda: closed(asked[0]))


async def test_who_stops_does_not_wait_for_ever_for_a_consumer_to_close(
    bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(closing, "CLOSE_S", 0.5)
    topic, given, on = f"{prefix}t", threading.Event(), threading.Event()
    create(bootstrap, topic)
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{prefix}g"})
    member.subscribe([topic], on_assign=lambda *_: given.set(), on_revoke=lambda *_: on.wait(60))
    await until(lambda: member.poll(0.1) is None and given.is_set())
    close_member(member, "one")
    assert "one: its consumer is not closed after 0.5 s, and left to itself" in caplog.text
    on.set()


def test_a_consumer_that_closes_is_waited_for(bootstrap: str, prefix: str) -> None:
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{prefix}g"})
    assert close_client(member, 30)
    with pytest.raises(RuntimeError):
        member.poll(0)
