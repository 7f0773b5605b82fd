"""The bank in order: one partition, first come first served, so that a path reads as a story."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from domain.account import Account, FreezeAccount, OpenAccount
from domain.decider import DUE, Overlay, Tick, apply, due_at_ms, handle
from domain.ledger import sums, trial_balance
from domain.payment_methods import AddPaymentMethod, MethodKind
from domain.payment_rail import RailAnswered, RailOperation, RailOutcome
from domain.risk import FeaturesExtracted
from domain.saga import (
    PaymentRequested,
    Rail,
    RefundRequested,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionFailed,
    TransactionType,
)
from domain.services import DECIDERS
from domain.transaction import CancelTransaction, CreateTransaction
from topics.subscriptions import EVERY, gathers, relays, route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOON_MS = 1_790_000_000_000
FINAL = (TransactionCompleted, TransactionFailed, TransactionCancelled)
Request = PaymentRequested | RefundRequested


def answer(request: Request, outcome: RailOutcome) -> RailAnswered:
    ordered = request.order.type is TransactionType.REFUND
    return RailAnswered(
        transaction_id=request.payment_id,
        payment_id=request.payment_id,
        operation=(
            RailOperation.PAY if isinstance(request, PaymentRequested) else RailOperation.REFUND
        ),
        attempt=request.attempt,
        outcome=outcome,
        provider_reference="ref-1",
        detail="",
        refund_id=request.order.transaction_id if ordered else None,
        provider="sandbox",
        booked_on="2026-09-21",
    )


def opening(account_id: str, user_id: str, **changes: Any) -> OpenAccount:
    command = OpenAccount(
        account_id=account_id,
        user_id=user_id,
        name="",
        currencies=("USD",),
        overdraft_limits={},
        actor_id=user_id,
        request_hash="",
    )
    return replace(command, **changes)


def transfer(amount_minor: int, **changes: Any) -> CreateTransaction:
    """Ada orders money to Bob."""
    command = CreateTransaction(
        transaction_id="t1",
        type=TransactionType.TRANSFER,
        amount_minor=amount_minor,
        currency="USD",
        source_account_id="ada",
        destination_account_id="bob",
        owner_id="u-ada",
        actor_id="u-ada",
        privileged=False,
        rail=Rail.BOOK,
        deadline_s=30,
        description="",
        reference="",
        metadata={},
        request_hash="h1",
    )
    return replace(command, **changes)


def deposit(account_id: str, amount_minor: int, **changes: Any) -> CreateTransaction:
    """An operator books money from outside."""
    return replace(
        transfer(amount_minor),
        **{
            "transaction_id": f"d-{account_id}",
            "type": TransactionType.DEPOSIT,
            "source_account_id": None,
            "destination_account_id": account_id,
            "owner_id": f"u-{account_id}",
            "actor_id": "ops",
            "privileged": True,
            **changes,
        },
    )


def withdrawal(amount_minor: int, **changes: Any) -> CreateTransaction:
    """Ada takes money out."""
    changes = {"type": TransactionType.WITHDRAWAL, "destination_account_id": None, **changes}
    return transfer(amount_minor, **changes)


def method(method_id: str = "u-bob.card", **changes: Any) -> AddPaymentMethod:
    """Bob's card; an IBAN with `iban`."""
    fields: dict[str, Any] = {
        "method_id": method_id,
        "user_id": method_id.partition(".")[0],
        "kind": MethodKind.CARD,
        "provider": "sandbox",
        "token": f"tok-{method_id}",
        "fingerprint": "f" * 64,
        "brand": "visa",
        "last_four": "4242",
        "expiry_month": 12,
        "expiry_year": 2030,
        "country": "",
        "bank": "",
        "holder": "",
        "actor_id": "u-bob",
        "request_hash": "h1",
        **changes,
    }
    return AddPaymentMethod(**fields)


IBAN = {"kind": MethodKind.IBAN, "brand": "", "expiry_month": 0, "expiry_year": 0, "country": "DE"}


def pay_in(amount_minor: int, method_id: str = "u-bob.card", **changes: Any) -> CreateTransaction:
    """Bob's card is charged, for Bob's account."""
    changes = {
        "type": TransactionType.PAYMENT,
        "source_account_id": None,
        "destination_account_id": "bob",
        "owner_id": "u-bob",
        "actor_id": "u-bob",
        "terms": Terms(payment_method_id=method_id),
        **changes,
    }
    return transfer(amount_minor, **changes)


def refund(amount_minor: int, refund_id: str = "r1", **changes: Any) -> CreateTransaction:
    """So much of the payment t1 goes back."""
    changes = {
        "transaction_id": refund_id,
        "type": TransactionType.REFUND,
        "source_account_id": "bob",
        "destination_account_id": None,
        "owner_id": "u-bob",
        "privileged": True,
        "terms": Terms(original_transaction_id="t1"),
        **changes,
    }
    return transfer(amount_minor, **changes)


class Scenario:
    """Services with one partition each; each message is heard `times` times."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.now_ms = NOON_MS
        self.queue: deque[tuple[str, Any]] = deque()
        self.rows: dict[str, dict[str, Any]] = {service: {} for service in DECIDERS}
        self.said: list[Any] = []
        self.events: dict[str, list[Any]] = {service: [] for service in DECIDERS}
        self.handled: list[tuple[str, type]] = []
        self.asked: list[Request] = []  # of the rail
        self.rail: Callable[[Request], Sequence[RailOutcome]] = lambda _: (RailOutcome.APPROVED,)

    def send(self, message: Any, service: str = "transaction") -> Scenario:
        self.queue.extend([(service, message)] * self.times)
        return self

    def run(self, until: type | None = None) -> Scenario:
        """Deliver until nothing is left, or until a fact of this kind was said."""
        while self.queue:
            before = len(self.said)
            self.deliver()
            if until is not None and any(isinstance(event, until) for event in self.said[before:]):
                break
        return self

    def deliver(self) -> None:
        service, message = self.queue.popleft()
        self.handled.append((service, type(message)))
        events, changes = handle(DECIDERS[service], self.rows[service], message, self.now_ms)
        for key, row in changes.items():
            if row is None:
                self.rows[service].pop(key, None)
            else:
                self.rows[service][key] = row
        for event in events:
            self.said.append(event)
            self.events[service].append(event)
            for topic, key in (*route(event), *relays(event)):
                assert key is EVERY or isinstance(key, str)
                self.pass_on(topic, event)
            if (part := gathers(event)) is not None:
                (topic, _), gathered = part
                self.pass_on(topic, gathered.message((gathered.part(event),)))

    def pass_on(self, topic: str, event: Any) -> None:
        if topic == "rates.inbox":
            return
        if topic == "rail.inbox":
            self.asked.append(event)
            for outcome in self.rail(event):
                self.send(answer(event, outcome), "payment")
        elif topic.partition(".")[0] in DECIDERS:
            self.send(event, topic.partition(".")[0])

    def wait(self, seconds: int) -> Scenario:
        """Time passes; whoever waited for it is told."""
        self.now_ms += seconds * 1000
        for service, rows in self.rows.items():
            due = tuple(k for k in rows if k.startswith(DUE) and due_at_ms(k) <= self.now_ms)
            if due:
                self.send(Tick(due=due), service)
        return self.run()

    def cancel(self, transaction_id: str = "t1") -> Scenario:
        return self.send(CancelTransaction(transaction_id=transaction_id, actor_id="u-ada"))

    def freeze(self, account_id: str) -> Scenario:
        return self.send(FreezeAccount(account_id=account_id, actor_id="ops"), "account")

    def account(self, account_id: str) -> Account:
        row = self.rows["account"][f"account/{account_id}"]
        assert isinstance(row, Account)
        return row

    def balances(self) -> dict[str, int]:
        return {
            row.account_id: row.balances["USD"]
            for row in self.rows["account"].values()
            if isinstance(row, Account)
        }

    def final(self, transaction_id: str = "t1") -> Any:
        """The one end of the transaction."""
        ends = [
            event
            for event in self.said
            if isinstance(event, FINAL) and event.order.transaction_id == transaction_id
        ]
        assert len(ends) == 1, ends
        return ends[0]

    def facts(self) -> list[str]:
        """What was said of the transaction t1, beside the saga left out."""
        return [
            type(event).__name__
            for event in self.said
            if getattr(getattr(event, "order", event), "transaction_id", "") == "t1"
            and not isinstance(event, FeaturesExtracted)
        ]

    def check(self) -> None:
        """Books balance, nothing is in flight, tables are the fold of the events."""
        for event in self.said:
            assert not any(sums(getattr(event, "postings", ())).values())
        trial = trial_balance(self.rows["account"].values())
        assert sum(trial.values()) == 0
        assert trial.get(("clearing", "USD"), 0) == 0
        for service, events in self.events.items():
            overlay = Overlay({})
            apply(DECIDERS[service], overlay, events)
            assert self.rows[service] == {k: r for k, r in overlay.changes.items() if r}


def bank(times: int = 1, ada: int = 50_000, bob: int = 10_000) -> Scenario:
    """Ada and Bob have accounts with money in them."""
    scenario = Scenario(times)
    for account_id in ("ada", "bob"):
        scenario.send(opening(account_id, f"u-{account_id}"), "account")
    scenario.run()
    for account_id, amount_minor in (("ada", ada), ("bob", bob)):
        scenario.send(deposit(account_id, amount_minor)).run()
    scenario.handled.clear()
    return scenario
