"""What a client gets when parts of the bank are away, and that nothing accepted is lost by it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
import uuid
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from confluent_kafka.admin import AdminClient

from deploy.local.processes import free_ports
from domain.user import user_key
from gateway.app import build_app
from gateway.errors import Problem
from gateway.queries import Queries
from gateway.services import Gateway
from settings import Settings
from tests.forked import command
from tests.gateway.stand import PASSWORD, Person, stand, town, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.local.kafka import Kafka
    from tests.gateway.stand import Got, Stand


@pytest.fixture(scope="module")
def own_bank(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A bank of two gateway processes, whose parts may be stopped."""
    directory = tmp_path_factory.mktemp("own")
    more = {"STREAMBANK_GATEWAY_PROCESSES": "2", "STREAMBANK_TRANSACTION_DEADLINE_S": "600"}
    with stand(kafka, directory, f"o{uuid.uuid4().hex[:8]}-", **more) as started:
        yield started


async def test_with_the_workers_away_commands_wait_and_reads_say_when_to_ask(
    own_bank: Stand,
) -> None:
    async with town(own_bank.url) as people:
        alice = await people.customer("alice")
        source, other = await alice.open("USD"), await alice.open("USD")
        admin = await people.admin()
        funding = await admin.pay(type="deposit", amount=100, destination_account_id=source)
        assert funding.status == 201
        # both processes have read who owns the account
        order = {"amount": 1, "source_account_id": source, "destination_account_id": other}
        for _ in range(20):
            assert (await alice.pay(**order)).status == 201
        own_bank.children["worker"].kill()
        accepted = await alice.pay(key="while away", wait=None, **order)
        assert accepted.status == 202
        read = await alice.get(f"/api/accounts/{source}")
        assert (read.status, read.code) == (503, "STATE_UNAVAILABLE")
        assert int(read.headers["Retry-After"]) > 0
        own_bank.children["worker"].start()

        async def read_again() -> bool:
            return (await alice.get(f"/api/accounts/{source}")).status == 200

        await until(read_again, "accounts are read again", 60)

        async def paid() -> bool:
            got = await alice.get(accepted.headers["Location"])
            return got.status == 200 and got.json["status"] == "completed"

        await until(paid, "what was accepted meanwhile is paid", 60)
        again = await alice.pay(key="while away", **order)
        assert again.json["transaction_id"] == accepted.json["transaction_id"]
        assert await alice.balance(source) == 79


async def test_a_report_that_was_due_while_the_workers_were_away_is_made_once(
    own_bank: Stand,
) -> None:
    """A run is named after its minute: what is listed says whether one was missed or made twice."""
    async with town(own_bank.url) as people:
        admin = await people.admin()
        body = {"title": "Minutely", "source": "accounts", "columns": ["account_id"]}
        body |= {"cron": "* * * * *", "period": "day"}
        planned = await admin.post("/api/report-schedules", body)
        assert planned.status == 201, planned.text
        path = planned.headers["Location"]
        due = datetime.fromisoformat(planned.json["next_at"])
        own_bank.children["worker"].kill()
        await asyncio.sleep(max(0.0, due.timestamp() - time.time()) + 0.5)
        own_bank.children["worker"].start()

        async def ran() -> Any:
            got = await admin.get(path)
            return got.json if got.status == 200 and got.json["runs"] else None

        await until(ran, "the schedule ran", 60)
        ended = await admin.ask("DELETE", path, {}, Prefer="wait=20")
        assert (ended.status, ended.json["active"]) == (200, False), ended.text
        runs = [
            f"{ended.json['schedule_id']}.{due + timedelta(minutes=n):%Y%m%dT%H%MZ}"
            for n in range(ended.json["runs"])
        ]
        assert ended.json["last_report_id"] == runs[-1]

        async def completed() -> Any:
            listed = (await admin.get("/api/reports?limit=200&status=completed")).json["items"]
            mine = {one["report_id"]: one for one in listed if one["title"] == "Minutely"}
            return mine if len(mine) >= len(runs) else None

        made = await until(completed, "the reports are made", 60)
        assert sorted(made) == runs
        assert {one["requested_by"] for one in made.values()} == {"clock"}


async def with_money(people: Any) -> tuple[Person, dict[str, Any]]:
    """A customer who has 100, and an order of 5 from there to another account of hers."""
    alice = await people.customer("alice")
    source, other = await alice.open("USD"), await alice.open("USD")
    admin = await people.admin()
    await admin.pay(type="deposit", amount=100, destination_account_id=source)
    return alice, {"amount": 5, "source_account_id": source, "destination_account_id": other}


async def test_a_key_is_known_in_every_process(own_bank: Stand) -> None:
    """Each connection may reach another process, which remembers nothing of the first answer."""
    async with town(own_bank.url) as people:
        alice, order = await with_money(people)
        ids = set()
        for _ in range(8):
            async with town(own_bank.url) as fresh:
                alice.session = fresh.session
                got = await alice.pay(key="k", **order)
                assert got.status == 201, got.text
                ids.add(got.json["transaction_id"])
                changed = await alice.pay(key="k", **{**order, "amount": 6})
                assert (changed.status, changed.code) == (422, "IDEMPOTENCY_MISMATCH")
        alice.session = people.session
        assert len(ids) == 1
        assert await alice.balance(order["source_account_id"]) == 95


async def ask_everywhere(bank: Stand, person: Person, ask: Any) -> list[Got]:
    """The same question over connections of their own, which both processes get some of."""
    answers = []
    for _ in range(8):
        async with town(bank.url) as fresh:
            person.session = fresh.session
            answers.append(await ask())
    return answers


async def test_without_a_wait_the_service_decides_for_all_processes(own_bank: Stand) -> None:
    """A process that never saw the key answers 202; what is done is what came first, once."""
    async with town(own_bank.url) as people:
        alice, order = await with_money(people)
        first = await alice.pay(key="k", wait=None, **order)
        assert first.status == 202, first.text
        same = await ask_everywhere(own_bank, alice, lambda: alice.pay(key="k", wait=None, **order))
        changed = {**order, "amount": 6}
        others = await ask_everywhere(
            own_bank, alice, lambda: alice.pay(key="k", wait=None, **changed)
        )
        alice.session = people.session
        assert {got.status for got in same} <= {201, 202}
        assert {got.json["transaction_id"] for got in same} == {first.json["transaction_id"]}
        for got in others:
            assert got.status == 202 or (got.status, got.code) == (422, "IDEMPOTENCY_MISMATCH")
            if got.status == 202:
                assert got.headers["Location"] == first.headers["Location"]
        decided = await alice.pay(key="k", **changed)
        assert (decided.status, decided.code) == (422, "IDEMPOTENCY_MISMATCH")

        async def paid() -> bool:
            got = await alice.get(first.headers["Location"])
            return bool(got.status == 200 and got.json["status"] == "completed")

        await until(paid, "the first order is paid")
        assert (await alice.get(first.headers["Location"])).json["amount"] == 5
        assert (
            await alice.balance(order["source_account_id"]),
            await alice.balance(order["destination_account_id"]),
        ) == (95, 5)


async def test_at_once_at_both_processes_it_is_one_transfer(own_bank: Stand) -> None:
    async with town(own_bank.url) as people, AsyncExitStack() as towns:
        alice, order = await with_money(people)
        askers = []
        for _ in range(12):
            fresh = await towns.enter_async_context(town(own_bank.url))
            askers.append(Person(fresh.session, own_bank.url, alice.token))
        answers = await asyncio.gather(*(one.pay(key="k", **order) for one in askers))
        assert {got.status for got in answers} <= {201, 409}
        paid = [got.json["transaction_id"] for got in answers if got.status == 201]
        assert len(set(paid)) == 1
        assert (
            await alice.balance(order["source_account_id"]),
            await alice.balance(order["destination_account_id"]),
        ) == (95, 5)


async def test_a_refusal_is_the_same_everywhere(own_bank: Stand) -> None:
    async with town(own_bank.url) as people:
        alice = await people.customer("alice")
        source, other = await alice.open("USD"), await alice.open("USD")
        order = {"amount": 5, "source_account_id": source, "destination_account_id": other}
        answers = await ask_everywhere(own_bank, alice, lambda: alice.pay(key="k", **order))
        alice.session = people.session
        assert {(got.status, got.code) for got in answers} == {(422, "INSUFFICIENT_FUNDS")}
        assert len({got.json["transaction_id"] for got in answers}) == 1


async def test_a_log_out_holds_in_every_process(own_bank: Stand) -> None:
    async with town(own_bank.url) as people:
        alice = await people.customer("alice")
        email = (await alice.get(f"/api/users/{alice.user_id}")).json["email"]
        words = {"email": email, "password": PASSWORD}
        tokens = (await people.stranger.post("/api/auth/login", words, wait=None)).json
        spare = {"refresh_token": tokens["refresh_token"]}
        before = await ask_everywhere(own_bank, alice, lambda: alice.get("/api/accounts"))
        assert {got.status for got in before} == {200}  # all know the token by now
        alice.session = people.session
        assert (await alice.post("/api/auth/logout", spare, wait=None)).status == 204
        after = await ask_everywhere(own_bank, alice, lambda: alice.get("/api/accounts"))
        assert {(got.status, got.code) for got in after} == {(401, "UNAUTHENTICATED")}
        again = await ask_everywhere(
            own_bank, alice, lambda: alice.post("/api/auth/refresh", spare, wait=None)
        )
        assert {(got.status, got.code) for got in again} == {(401, "UNAUTHENTICATED")}


async def test_a_killed_gateway_process_is_replaced(own_bank: Stand) -> None:
    parent = own_bank.children["gateway"].pid
    children = await asyncio.to_thread(_children, parent)
    assert len(children) == 2
    os.kill(children[0], signal.SIGKILL)

    async def replaced() -> bool:
        now = await asyncio.to_thread(_children, parent)
        return len(now) == 2 and children[0] not in now

    await until(replaced, "there are two processes again", 30)

    async def answers() -> bool:
        try:
            async with town(own_bank.url) as people:
                return (await people.stranger.get("/health")).status == 200
        except aiohttp.ClientError:
            return False

    await until(answers, "the gateway answers", 30)


async def test_a_client_of_the_broker_that_lost_it_is_replaced(own_bank: Stand) -> None:
    """Reads look up who answers them: one client that is lost must not end all reads for ever."""
    (nowhere,) = free_ports(1)
    kafka = {"bootstrap.servers": own_bank.bootstrap}
    token = own_bank.environment.get("STREAMBANK_INTERNAL_TOKEN", Settings().internal_token)
    queries = Queries(kafka, own_bank.prefix, 3, token)
    queries.start()
    queries.admin.client = AdminClient(
        {"bootstrap.servers": f"127.0.0.1:{nowhere}", "log_level": 2}
    )

    async def answered() -> bool:
        try:
            return await queries.row("user", "nobody", user_key("nobody")) is None
        except Problem:
            return False

    try:
        await until(answered, "a row is read", 30)
        assert await asyncio.to_thread(queries.brokers, 5.0) == 1
    finally:
        await queries.close()


def _children(parent: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def test_a_port_that_is_taken_is_one_sentence(own_bank: Stand) -> None:
    done = command("gateway", environment=own_bank.environment, timeout_s=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is in use" in done.stderr


async def test_without_a_broker_a_command_is_503_in_bounded_time() -> None:
    (port,) = free_ports(1)
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}", password_rounds=4)
    gateway = Gateway(settings)
    gateway.owners.learn("a", "alice")
    token = gateway.tokens.issue("alice", ["customer"])["access_token"]
    async with TestClient(TestServer(build_app(settings, gateway))) as client:
        body = {
            "type": "transfer",
            "amount": 1,
            "currency": "USD",
            "source_account_id": "a",
            "destination_account_id": "b",
        }
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
        for _ in range(2):  # the key stays free: nothing is known to be accepted
            response = await client.post("/api/transactions", json=body, headers=headers)
            assert response.status == 503
            assert (await response.json())["code"] == "BROKER_UNAVAILABLE"
            assert int(response.headers["Retry-After"]) > 0
        ready = await client.get("/readiness")
        assert ready.status == 503
        assert (await ready.json())["checks"]["broker"] != "ok"
