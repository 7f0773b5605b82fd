"""Each service alone in a process of its own, each killed with -9 under a load of everything that the bank does.

Afterwards the money is right (`oracle`), and so is all beside it (`whole`): the provider's book, analytics'
counts, the audit's chains, what users were told, what was settled; and `verify` and `audit verify` say the same.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bench.load import Ends
from deploy.local.processes import free_ports
from pipeline import ALL
from tests.chaos import oracle, whole
from tests.chaos.mixed import Mixed
from tests.chaos.storm import Storm, decoder, facts
from tests.chaos.test_storm import OVERDRAFT, system
from tests.forked import ForkedChild
from topics.catalog import TOPICS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.system import System

PEOPLE = 20
DEPOSIT_MINOR = 50_000
SAID = [topic.name for topic in TOPICS if topic.kind in (Kind.EVENTS, Kind.PRIVATE)]


@contextmanager
def whole_bank(tmp_path: Path) -> Iterator[System]:
    """All services, each in a process of its own, a provider, and what takes their SMS."""
    rail_port, mail_port, texts_port, rates_port = free_ports(4)
    settings = {
        "STREAMBANK_RAIL_URL": f"http://127.0.0.1:{rail_port}",
        "STREAMBANK_REPORTS_DIR": str(tmp_path / "reports"),
        "STREAMBANK_SMTP_PORT": str(mail_port),
        "STREAMBANK_SMS_URL": f"http://127.0.0.1:{texts_port}/sms",
        "STREAMBANK_RATES_URL": f"http://127.0.0.1:{rates_port}/rates.xml",  # nobody is there
    }
    rail = ["deploy.local.provider", "--port", str(rail_port)]
    postbox = ["deploy.local.postbox", "--mail-port", str(mail_port), "--port", str(texts_port)]
    children = [
        ForkedChild("rail", [*rail, "--file", str(tmp_path / "rail.jsonl")], tmp_path),
        ForkedChild("postbox", [*postbox, "--directory", str(tmp_path / "post")], tmp_path),
    ]
    with system(tmp_path, **settings) as running:
        try:
            for child in children:
                child.start()
            applied = running.command("topics", "apply")
            assert applied.returncode == 0, applied.stderr
            for service in ALL:
                running.add(service, instance=f"{service}-0")
            for worker in running.workers:
                worker.wait_ready()
            yield running
        finally:
            for child in children:
                child.stop(grace_s=2)


def opened(running: System, seed: int) -> tuple[Mixed, Ends]:
    """People with accounts in two currencies, money, cards; prices and rates that each partition knows."""
    bank, ends = Mixed(running.bootstrap, seed=seed), Ends(running.bootstrap)
    bank.open(PEOPLE, OVERDRAFT, ("USD", "EUR"))
    bank.prepare()
    bank.deposit(bank.accounts, DEPOSIT_MINOR)
    bank.flush()
    ends.wait(bank.ordered)
    until(running, "currency.events", "RatesApplied", 3)
    until(running, "transaction.events", "PriceListApplied", 2)  # where it was set it holds already
    until(running, "payment.events", "PaymentMethodAdded", 2 * PEOPLE)
    until(running, "notification.events", "PreferencesSet", len(bank.phones))
    return bank, ends


def until(running: System, topic: str, event: str, count: int, timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while sum(fact.type == event for fact in facts(running, topic)) < count:
        assert time.monotonic() < deadline_s, f"{topic} has no {count} {event}"
        time.sleep(0.2)


def evidence(running: System, bank: Mixed, directory: Path) -> whole.Evidence:
    said, entries = whole.collect(running.bootstrap, SAID, decoder())
    return whole.Evidence(
        facts=said,
        entries=entries,
        decided=lines(directory / "rail.jsonl"),
        texted=lines(directory / "post" / "sms.jsonl"),
        addresses=bank.addresses,
        reports=bank.reports,
        deposited=PEOPLE * DEPOSIT_MINOR,
    )


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def at_rest(running: System, bank: Mixed, directory: Path, timeout_s: float) -> whole.Evidence:
    """What there is once all that is beside the money has caught up; as it is when that takes too long."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        there = evidence(running, bank, directory)
        if time.monotonic() > deadline_s or not whole.findings(there):
            return there
        time.sleep(1)


def judge(running: System, bank: Mixed, storm: Storm, directory: Path) -> None:
    # on a busy machine settlement heard of nothing to close while the storm blew
    until(running, "settlement.events", "ItemSettled", 1, 300)
    bank.end_the_day()
    bank.flush()
    until(running, "settlement.events", "BatchClosed", 1)
    there = at_rest(running, bank, directory, 90)
    transactions, accounts = there.facts["transaction.events"], there.facts["account.events"]
    limits = dict.fromkeys(bank.accounts, OVERDRAFT)
    context = f"seed {storm.seed}, {storm.said}\n{storm.count.table()}"
    assert oracle.findings(transactions, accounts, bank.ordered, limits) == [], context
    assert whole.findings(there) == [], context
    assert list(whole.unfound(there)) == []
    for command in (("verify",), ("audit", "verify")):
        done = running.command(*command)
        assert done.returncode == 0, f"{context}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.timeout(600)
def test_each_service_is_killed_under_load(tmp_path: Path) -> None:
    with whole_bank(tmp_path) as running:
        bank, ends = opened(running, seed=5)
        storm = Storm(running, bank, tmp_path / "marks", seed=5)
        storm.blow(1_200, 25, [storm.kill_in_turn], (0.3, 1.0))
        while set(ALL) - storm.count.all.keys():  # a busy machine starts them slowly
            storm.blow(50, 2, [storm.kill_in_turn], (0.1, 0.5))
        storm.settle(ends)
        print(storm.count.table())
        judge(running, bank, storm, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20, 24))
def test_long(tmp_path: Path, seed: int) -> None:
    """Each service is killed many times; workers are frozen too, and the broker is killed."""
    with whole_bank(tmp_path) as running:
        bank, ends = opened(running, seed=seed)
        storm = Storm(running, bank, tmp_path / "marks", seed=seed)
        actions = [storm.kill_in_turn] * 20 + [storm.freeze, storm.kill_broker]
        storm.blow(6_000, 240, actions, (0.2, 1.0))
        storm.settle(ends, 600)
        print(storm.count.table())
        judge(running, bank, storm, tmp_path)
