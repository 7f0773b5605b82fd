"""Suspense in the simulated bank: operators pay, return, recover and write off, also what is none of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from domain.account import ReturnSuspended, SuspendedCredit
from domain.ledger import SUSPENSE, WRITTEN_OFF
from domain.suspense import (
    ACTIONS,
    ResolveSuspense,
    SuspenseAction,
    SuspenseItem,
    SuspenseKind,
    SuspenseOpened,
    SuspensePaid,
    SuspenseResolved,
    SuspenseStatus,
)

if TYPE_CHECKING:
    from tests.domain.simulator import Bank

Expect = Callable[[bool, str], None]
IDS = 4  # so few for an item that they are used again


def items(bank: Bank) -> Iterator[SuspenseItem]:
    for _, row in [*bank.all_rows("account")]:
        if isinstance(row, SuspenseItem):
            yield row


def act(bank: Bank, accounts: tuple[str, ...]) -> None:
    """Somebody's word on an item: mostly one that fits, at times again, or another under its id."""
    chance, found = bank.chance, [*items(bank)]
    if not found:
        return
    item = chance.choice(found)
    action = chance.choice([*sorted(ACTIONS[item.kind]), chance.choice([*SuspenseAction])])
    pays = action is SuspenseAction.PAY
    command = ResolveSuspense(
        suspense_id=item.suspense_id if chance.random() < 0.95 else f"{item.account_id}.none",
        account_id=item.account_id,
        resolution_id=f"{item.suspense_id}-{chance.randrange(IDS)}",
        action=action,
        amount_minor=item.order.amount_minor + (chance.random() < 0.05),
        currency=item.order.currency,
        to_account_id=chance.choice((None, *accounts)) if pays else None,
        note="",
        actor_id="ops",
        request_hash="",
    )
    command = replace(command, request_hash=str(hash_of(command)))
    bank.words.setdefault(command.resolution_id, command)
    bank.send("account", item.account_id, command)
    if chance.random() < 0.3:
        bank.send("account", item.account_id, bank.words[command.resolution_id])


def hash_of(command: ResolveSuspense) -> tuple[object, ...]:
    return (command.suspense_id, command.action, command.amount_minor, command.to_account_id)


def end(bank: Bank) -> None:
    """All debits go back, and most credits to their account, by the one command or the other."""
    for item in items(bank):
        if item.status is not SuspenseStatus.OPEN:
            continue
        if item.kind is SuspenseKind.LOSS or bank.chance.random() < 0.3:
            if item.kind is not SuspenseKind.DEBIT:
                continue
            word = ResolveSuspense(
                suspense_id=item.suspense_id,
                account_id=item.account_id,
                resolution_id=f"{item.suspense_id}-end",
                action=SuspenseAction.RETURN,
                amount_minor=item.order.amount_minor,
                currency=item.order.currency,
                to_account_id=None,
                note="",
                actor_id="ops",
                request_hash="end",
            )
            bank.words[word.resolution_id] = word
            bank.send("account", item.account_id, word)
            continue
        command = ReturnSuspended(
            account_id=item.account_id, transaction_id=item.order.transaction_id, actor_id="ops"
        )
        bank.send("account", item.account_id, command)


def check(bank: Bank, trial: dict[tuple[str, str], int], expect: Expect) -> None:
    """Each item is settled at most once; what is open is what `suspense` has, by currency."""
    ends: Counter[str] = Counter()
    open_minor: Counter[str] = Counter()
    gone_minor: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    for event in bank.all_events("account"):
        match event:
            case SuspenseOpened():
                opened[event.suspense_id] += 1
                sign = -1 if event.kind is SuspenseKind.LOSS else 1
                open_minor[event.order.currency] += sign * event.order.amount_minor
            case SuspensePaid():
                paid[event.order.transaction_id] += 1
            case SuspenseResolved():
                ends[event.suspense_id] += 1
                sign = -1 if event.kind is SuspenseKind.LOSS else 1
                open_minor[event.order.currency] -= sign * event.order.amount_minor
                if event.action is SuspenseAction.WRITE_OFF:
                    gone_minor[event.order.currency] += sign * event.order.amount_minor
    for counts in (opened, paid, ends):
        expect(set(counts.values()) <= {1}, f"more than once: {counts}")
    for item in items(bank):
        expect(item.status is not SuspenseStatus.PAYING, f"no answer came: {item}")
        ended = item.status is not SuspenseStatus.OPEN
        expect(ended is (item.suspense_id in ends), f"its end is not said, or not kept: {item}")
        expect(item.suspense_id in opened, f"never opened: {item}")
    for _, row in bank.all_rows("account"):
        if isinstance(row, SuspendedCredit) and not row.paid:
            home = f"{row.order.destination_account_id}.{row.order.transaction_id}"
            expect(home not in ends, f"settled, and to be paid: {row}")
    for currency in {*open_minor, *(code for name, code in trial if name == SUSPENSE)}:
        found = trial.get((SUSPENSE, currency), 0)
        expect(found == open_minor[currency], f"suspense: {found}, not {open_minor[currency]}")
        written = trial.get((WRITTEN_OFF, currency), 0)
        expect(written == gone_minor[currency], f"written off: {written}, not {gone_minor}")


def open_keys(bank: Bank) -> tuple[str, ...]:
    """Rows of what nobody settled: they stay."""
    return tuple(
        key
        for key, row in bank.all_rows("account")
        if getattr(row, "status", None) is SuspenseStatus.OPEN or getattr(row, "paid", 1) is False
    )
