"""Money under failure: 5,000 transfers through all services, each a process of its own, while things break.

After each storm an independent reader and `verify` must find every acknowledged transfer exactly once final,
postings zero-sum, clearing zero, no balance below its limit. `make chaos` blows the long form.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from bench.load import Bank, Ends
from bench.system import System
from deploy.local.kafka import QUICK
from tests.chaos import oracle
from tests.chaos.storm import Storm, facts
from tests.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = {
    "STREAMBANK_SESSION_TIMEOUT_S": "4",
    "STREAMBANK_STATIC_MEMBERSHIP": "true",
    "STREAMBANK_TRANSACTION_TIMEOUT_S": "6",
    "STREAMBANK_CYCLE_TIMEOUT_S": "5",
}
OVERDRAFT = 1_000
# transfers, and the seconds over which they are ordered
FORMS = [
    pytest.param(2_000, 20, id="short"),
    pytest.param(5_000, 45, id="long", marks=pytest.mark.long),
]
forms = pytest.mark.parametrize(("transfers", "seconds"), FORMS)


def system(tmp_path: Path, nodes: int = 1, **settings: str) -> System:
    marks = tmp_path / "marks"
    marks.mkdir()
    return System(
        tmp_path,
        nodes=nodes,
        java=QUICK,
        spawn=partial(Forked, "tests.chaos.worker"),
        settings={**SETTINGS, **settings, "MARKS": str(marks)},
    )


@pytest.fixture
def one_node(tmp_path: Path) -> Iterator[System]:
    with system(tmp_path) as running:
        running.start(split=True)
        yield running


@pytest.fixture
def three_nodes(tmp_path: Path) -> Iterator[System]:
    with system(tmp_path, nodes=3) as running:
        running.start(split=True)
        yield running


def opened(running: System, seed: int, accounts: int = 40) -> tuple[Bank, Ends]:
    """A bank whose people have money, some of them so little that transfers are refused."""
    bank, ends = Bank(running.bootstrap, seed=seed), Ends(running.bootstrap)
    bank.open(accounts, OVERDRAFT)
    for n, account_id in enumerate(bank.accounts):
        bank.deposit([account_id], 100 if n % 4 == 0 else 100_000)
    bank.flush()
    ends.wait(bank.ordered)
    return bank, ends


def judge(running: System, bank: Bank, storm: Storm) -> None:
    """The independent reader, `verify`, and the controls of the reader on this very log."""
    transactions = facts(running, "transaction.events")
    accounts = facts(running, "account.events")
    limits = dict.fromkeys(bank.accounts, OVERDRAFT)
    context = f"seed {storm.seed}, {storm.said}"
    assert oracle.findings(transactions, accounts, bank.ordered, limits) == [], context
    verified = running.command("verify")
    assert verified.returncode == 0, (
        f"{context}\n{verified.stdout[-2000:]}{verified.stderr[-2000:]}"
    )
    finals = [n for n, fact in enumerate(transactions) if fact.type in oracle.FINALS]
    moved = [n for n, fact in enumerate(accounts) if fact.value.get("postings")]
    for spoil in (oracle.without, oracle.doubled, oracle.changed):
        middle = finals[len(finals) // 2], moved[len(moved) // 2]
        assert oracle.findings(spoil(transactions, middle[0]), accounts, bank.ordered, limits), (
            spoil
        )
        assert oracle.findings(transactions, spoil(accounts, middle[1]), bank.ordered, limits), (
            spoil
        )


@pytest.mark.timeout(600)
@forms
def test_killed_frozen_and_joined(
    one_node: System, tmp_path: Path, transfers: int, seconds: int
) -> None:
    """Kills, zombies, workers that join and leave."""
    bank, ends = opened(one_node, seed=1)
    storm = Storm(one_node, bank, tmp_path / "marks", seed=1)
    actions = [storm.kill] * 8 + [storm.freeze, storm.join, storm.join]
    storm.blow(transfers, seconds, actions, (0.3, 1.2))
    storm.settle(ends)
    print(storm.count.table())
    assert storm.count.all.total() > seconds // 8, storm.count.table()
    judge(one_node, bank, storm)


@pytest.mark.timeout(600)
@forms
def test_without_broker(one_node: System, tmp_path: Path, transfers: int, seconds: int) -> None:
    """The broker is killed and restarted, again and again, while workers are killed too."""
    bank, ends = opened(one_node, seed=4)
    storm = Storm(one_node, bank, tmp_path / "marks", seed=4)
    storm.blow(transfers, seconds, [storm.kill, storm.kill, storm.kill_broker], (0.5, 3))
    storm.settle(ends, 300)
    judge(one_node, bank, storm)


@pytest.mark.timeout(600)
@forms
def test_three_nodes_lose_leaders_and_coordinators(
    three_nodes: System, tmp_path: Path, transfers: int, seconds: int
) -> None:
    """RF 3, min ISR 2: each node, and with it leaders and coordinators, is killed in turn."""
    bank, ends = opened(three_nodes, seed=2)
    storm = Storm(three_nodes, bank, tmp_path / "marks", seed=2)
    storm.blow(transfers, seconds, [storm.kill_broker, storm.kill], (2, 5))
    storm.settle(ends, 300)
    judge(three_nodes, bank, storm)


@pytest.mark.timeout(600)
@forms
def test_cut_at_points(tmp_path: Path, transfers: int, seconds: int) -> None:
    """The account service dies at a point of its transaction, again and again, then at the next point."""
    points = ("offsets", "before commit", "committed")
    with system(tmp_path, CUT=f"account:{points[0]}:12") as running:
        running.start(split=True)
        bank, ends = opened(running, seed=3, accounts=40)
        storm = Storm(running, bank, tmp_path / "marks", seed=3)
        [account] = [worker for worker in running.workers if worker.services == ("account",)]
        for point in points:
            account.environment["CUT"] = f"account:{point}:12"
            account.kill()
            storm.blow(transfers // 3, seconds // 4, [lambda: None], (0.2, 0.4))
            deadline = time.monotonic() + 90  # a busy machine starts a worker in many seconds
            while account.log.read_text().count(f"cut at {point}\n") < 2:
                assert time.monotonic() < deadline, point
                storm.blow(50, 2, [lambda: None], (0.2, 0.4))
        storm.settle(ends)
        judge(running, bank, storm)
        said = account.log.read_text()
        for point in points:
            assert said.count(f"cut at {point}\n") > 1, point


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(10, 18))
def test_long_storm(one_node: System, tmp_path: Path, seed: int) -> None:
    """Hundreds of kills of ready workers and inside of transactions, over 8 seeds."""
    bank, ends = opened(one_node, seed=seed)
    storm = Storm(one_node, bank, tmp_path / "marks", seed=seed)
    actions = [storm.kill] * 12 + [storm.freeze, storm.join, storm.kill_broker]
    storm.blow(10_000, 240, actions, (0.3, 1.0))
    storm.settle(ends, 600)
    print(storm.count.table())
    judge(one_node, bank, storm)
