"""What compliance does to risk in a random day, and what must hold of it once all is quiet."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from domain import account, risk
from domain.bank_day import bank_day
from domain.blacklist import AddToBlacklist, Blacklisted, BlacklistKind, RemoveFromBlacklist
from domain.kyc import DecideKyc, KycDecision, KycDetails, SubmitKyc
from domain.risk import KycLevelKept, RiskApproved, RiskReleased
from domain.risk_config import CONFIG, DEFAULT, RiskConfigSet, SetRiskConfig, version_of
from domain.saga import TransactionCompleted, debited_minor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.domain.simulator import Bank

    Expect = Callable[[bool, str], None]

STAY = ("owner/", "blacklist/", "customer/", "holder/", "held/", CONFIG, "kyc/", "kyc-open/")


def act(bank: Bank, person: str) -> None:
    """A user on or off the blacklist, a level, or another configuration."""
    match bank.chance.randrange(4):
        case 0:
            command = AddToBlacklist(kind=BlacklistKind.USER, value=person, note="", actor_id="eve")
            bank.send("risk", person, command)
        case 1:
            off = RemoveFromBlacklist(kind=BlacklistKind.USER, value=person, actor_id="eve")
            bank.send("risk", person, off)
        case 2:
            know(bank, person)
        case _:
            configure(bank)


def know(bank: Bank, person: str) -> None:
    level = bank.chance.choice((1, 2))
    submission_id = f"{person}-{bank.delivered}"
    details = KycDetails(full_name=person, date_of_birth="1990-01-01", country="DE")
    bank.send(
        "user",
        person,
        SubmitKyc(
            user_id=person,
            level=level,
            details=details,
            submission_id=submission_id,
            actor_id=person,
        ),
    )
    bank.send(
        "user",
        person,
        DecideKyc(
            user_id=person,
            submission_id=submission_id,
            decision=KycDecision.APPROVE,
            level=level,
            note="",
            actor_id="eve",
        ),
    )


def configure(bank: Bank) -> None:
    chance = bank.chance
    rows = next(rows for place, rows in bank.rows.items() if place == ("risk", _home(bank)))
    config = replace(
        DEFAULT,
        recipient_points=chance.choice((0, 5, 50)),
        structuring_ppm=chance.choice((100_000, 900_000)),
        anomaly_points=chance.choice((0, 25, 100)),
        history_days=chance.choice((0, 7)),
        deviation_orders=chance.choice((2, 20)),
        features_from=chance.choice((0, 50, 101)),
        features_ppm=chance.choice((0, 500_000)),
    )
    version = version_of(rows) + (chance.random() < 0.1)
    bank.send("risk", CONFIG, SetRiskConfig(config=config, version=version, actor_id="eve"))


def _home(bank: Bank) -> int:
    """The partition that counts the configurations."""
    return bank.home(CONFIG)


def check(bank: Bank, expect: Expect) -> None:
    check_daily_limits(bank, expect)
    check_reserved(bank, expect)
    check_bars(bank, expect)
    check_configuration(bank, expect)


def check_daily_limits(bank: Bank, expect: Expect) -> None:
    """What is reserved of an owner's day is exactly what completed of it, never above the limit."""
    completed: Counter[tuple[str, str]] = Counter()
    for event in bank.finals():
        if isinstance(event, TransactionCompleted) and not event.order.privileged:
            day = f"{bank_day(event.order.created_ms)}/{event.order.currency}"
            completed[event.order.owner_id, day] += debited_minor(event.order)
    level: Counter[str] = Counter()
    for event in bank.all_events("risk"):
        if isinstance(event, KycLevelKept):
            level[event.user_id] = max(level[event.user_id], event.level)
    for _, row in bank.all_rows("risk"):
        if isinstance(row, risk.Owner):
            limit_minor = DEFAULT.levels[level[row.user_id]].day_minor
            for day, minor in row.reserved.items():
                wanted = completed[row.user_id, day]
                expect(minor == wanted, f"{row.user_id} {day}: {minor} reserved, {wanted} done")
                expect(minor <= limit_minor, f"above the limit: {row}")


def check_reserved(bank: Bank, expect: Expect) -> None:
    """What was given back was reserved before, once."""
    given: Counter[str] = Counter()
    for event in bank.all_events("risk"):
        if isinstance(event, RiskApproved):
            given[event.order.transaction_id] += 1
        elif isinstance(event, RiskReleased):
            given[event.transaction_id] -= 1
    expect(set(given.values()) <= {0, 1}, f"reserved and given back: {given}")


def check_bars(bank: Bank, expect: Expect) -> None:
    """Each partition bars the accounts of blacklisted users, and no others."""
    owners = {
        row.account_id: row.user_id
        for _, row in bank.all_rows("account")
        if isinstance(row, account.Account)
    }
    for place, rows in bank.rows.items():
        if place[0] != "risk":
            continue
        entries = [row for row in rows.values() if isinstance(row, Blacklisted)]
        users = {row.value for row in entries if row.kind is BlacklistKind.USER}
        barred = {row.value for row in entries if row.owner_id is not None}
        wanted = {account_id for account_id, user_id in owners.items() if user_id in users}
        expect(barred == wanted, f"{place}: barred {barred}, of {users} are {wanted}")
        expect(all(row.listed or row.owner_id for row in entries), f"{place}: {entries}")
    listed = [
        {key: row.listed for key, row in rows.items() if isinstance(row, Blacklisted)}
        for place, rows in bank.rows.items()
        if place[0] == "risk"
    ]
    expect(all(one == listed[0] for one in listed), f"partitions differ: {listed}")


def check_configuration(bank: Bank, expect: Expect) -> None:
    """The last configuration that was set holds in each partition."""
    set_ = [event for event in bank.all_events("risk") if isinstance(event, RiskConfigSet)]
    last = max(set_, key=lambda event: event.version, default=None)
    for place, rows in bank.rows.items():
        if place[0] == "risk":
            row = rows.get(CONFIG)
            holds = row is None if last is None else row is not None and row.config == last.config
            expect(holds, f"{place}: {row}, not {last}")
