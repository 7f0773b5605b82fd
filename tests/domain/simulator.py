"""The bank on one thread: real deciders, the real subscription table, a seeded world around them.

    commands, answers of the rail, ticks --> inbox partitions --handle--> events --route--> inboxes

Each inbox partition keeps its order; between partitions anything may overtake anything. Messages
come twice, services stall, the rail answers late, twice, not at all or against its own word, and
time jumps. After a run every law of `laws` must hold. One seed is one run, for ever:

    python -m tests.domain.simulator 4711      prints what happened in run 4711
"""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from domain import account, exchange, holds, payment_rows, risk, transaction
from domain.account import (
    ArchiveAccount,
    CloseAccount,
    FreezeAccount,
    LegState,
    OpenAccount,
    UnfreezeAccount,
)
from domain.blacklist import AddToBlacklist, BlacklistKind, RemoveFromBlacklist
from domain.currency import (
    RATES,
    AppliedRates,
    FeedAnswered,
    FetchOutcome,
    QuoteIssued,
    RatesFetched,
    RateSource,
    RatesRequested,
    RatesSet,
    RequestQuote,
    ScheduleFeed,
    SetRates,
)
from domain.decider import (
    DUE,
    FORGET,
    TICK_LIMIT,
    Decider,
    Overlay,
    Tick,
    apply,
    due_at_ms,
    due_kind,
    handle,
)
from domain.holds import Hold, HoldPlaced, HoldStatus, PlaceHold, VoidHold
from domain.ledger import CLEARING, FEES, POSITION, ROUNDING, sums, trial_balance
from domain.notification import NotificationRequested
from domain.notification_delivery import (
    KEEP,
    DeliveryAnswered,
    DeliveryRequested,
    Outcome,
    RedriveNotification,
)
from domain.notification_recipients import SetEndpoint, SetPreferences
from domain.notification_rows import Channel, Choice, Kind, Notification, source
from domain.notification_rows import Status as Told
from domain.payment import KEEP_CREDITED_MS
from domain.payment_methods import AddPaymentMethod, MethodKind, RemovePaymentMethod
from domain.payment_rail import NotifyPayment, RailAnswered, RailOperation, RailOutcome
from domain.payment_rows import Refund, RefundStatus, undo_id
from domain.prices import PRICE_LIST, PRICED, Price, SetPriceList
from domain.reconciliation import (
    PaymentBooked,
    ReconcileStatement,
    Statement,
    StatementLine,
    StatementReconciled,
    StatementStatus,
    end_to_end_id,
)
from domain.risk import DecideReview, ReviewStatus
from domain.saga import (
    AccountDebited,
    DebitReversed,
    Order,
    PaymentRequested,
    Rail,
    RateFixed,
    RefundRequested,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionFailed,
    TransactionType,
    debited_minor,
    fee_of,
    refunds,
    undoes,
)
from domain.services import DECIDERS
from domain.session import EXPIRED
from domain.suspense import ResolveSuspense, SuspensePaid
from domain.transaction import CancelTransaction, CreateTransaction
from domain.user import RegisterUser, Role
from tests.domain import (
    simulated_people,
    simulated_risk,
    simulated_settlement,
    simulated_suspense,
)
from topics.subscriptions import (
    EMAIL,
    EVERY,
    PUSH,
    SMS,
    WEBHOOK,
    Gathered,
    Route,
    gathers,
    relays,
    route,
)

DELIVERIES = (EMAIL, SMS, PUSH, WEBHOOK)
START_MS = 1_790_000_000_000
PARTITIONS = 3
FINAL = (TransactionCompleted, TransactionFailed, TransactionCancelled)
PEOPLE = ("ada", "bob", "cleo")
CURRENCIES = ("USD", "JPY")
ACCOUNTS = tuple(f"a{number}" for number in range(5))
NOWHERE = "a5"  # an account that does not exist
DAY = "2026-09-21"  # of all that the provider books


class Broken(AssertionError):
    """A law does not hold."""


@dataclass
class Odds:
    """How hostile one run's world is; probabilities."""

    duplicate: float
    late: float  # a message comes once more, when others have been heard since
    unknown: float
    lost: float
    stall: float
    jump: float
    stubborn: float  # the rail keeps what it should give back, and moves what it said no to

    @classmethod
    def drawn(cls, chance: random.Random) -> Odds:
        return cls(
            duplicate=chance.choice((0, 0.05, 0.3, 1)),
            late=chance.choice((0, 0, 0.05, 0.3)),
            unknown=chance.choice((0, 0.3, 0.8)),
            lost=chance.choice((0, 0.2)),
            stall=chance.choice((0, 0.02)),
            jump=chance.choice((0, 0.01, 0.05)),
            stubborn=chance.choice((0.1, 0.3, 0.3, 0.9)),
        )


@dataclass
class RailBooks:
    """What the provider really did, by idempotency key: the truth that our books must meet."""

    paid: set[str] = field(default_factory=set)
    declined: set[str] = field(default_factory=set)
    refunded: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)  # refunds refused for good


class Bank:
    """All services, their inboxes, tables and events."""

    def __init__(
        self, seed: int, deciders: Mapping[str, Decider] = DECIDERS, strict: bool = False
    ) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.odds = Odds.drawn(self.chance)
        self.deciders = deciders
        self.strict = strict
        self.now_ms = START_MS + self.chance.randrange(40 * 24 * 3600 * 1000)
        places = [(name, n) for name in deciders for n in range(PARTITIONS)]
        self.inboxes: dict[tuple[str, int], deque[tuple[Any, int]]] = {p: deque() for p in places}
        self.rail: deque[PaymentRequested | RefundRequested] = deque()
        self.late: list[tuple[tuple[str, int], Any]] = []
        self.relay: deque[Any] = deque()
        self.post: deque[DeliveryRequested] = deque()
        self.arrived: set[str] = set()  # notifications that somebody outside has got
        self.gathering: list[tuple[Route, Gathered, Any]] = []
        self.rows: dict[tuple[str, int], dict[str, Any]] = {place: {} for place in places}
        self.events: dict[tuple[str, int], list[Any]] = {place: [] for place in places}
        self.due: dict[tuple[str, int], set[str]] = {place: set() for place in places}
        self.log: list[Any] = []  # what was delivered or posted outside, for a post-mortem
        self.delivered = 0
        self.books = RailBooks()
        self.orders: dict[str, CreateTransaction] = {}
        self.holds: dict[str, PlaceHold] = {}
        self.words: dict[str, ResolveSuspense] = {}  # on what is in suspense: the first of each id
        self.quotes: dict[str, RequestQuote] = {}
        self.rates = 0  # how often they were set
        self.logins: dict[str, dict[str, list[str]]] = {}  # by person and session: tokens given
        self.stalled: str | None = None

    # the wires

    def home(self, key: str) -> int:
        """The partition of an aggregate."""
        return crc32(key.encode()) % PARTITIONS

    def send(self, service: str, key: str, message: Any) -> None:
        """Append to the inbox; now and then twice, be it much later."""
        place = (service, self.home(key))
        self.inboxes[place].append((message, self.now_ms))
        repeats = self.odds.late and not isinstance(
            message, ScheduleFeed
        )  # it would go on for ever
        if repeats and self.chance.random() < self.odds.late:
            self.late.append((place, message))
        if self.odds.duplicate and self.chance.random() < self.odds.duplicate:
            self.inboxes[place].append((message, self.now_ms))

    def repeat_one(self) -> None:
        """Something that was sent before comes once more."""
        place, message = self.late.pop(self.chance.randrange(len(self.late)))
        self.inboxes[place].append((message, self.now_ms))

    def deliver(self, place: tuple[str, int]) -> None:
        message, at_ms = self.inboxes[place].popleft()
        decider, rows = self.deciders[place[0]], self.rows[place]
        self.delivered += 1
        if self.strict:
            check_keys(decider, rows, message, at_ms)
        events, changes = handle(decider, rows, message, at_ms)
        for key, row in changes.items():
            if row is not None:
                rows[key] = row
            elif rows.pop(key, None) is None:
                raise Broken(f"{key} leaves the table and was not there")
            if key.startswith(DUE):
                (self.due[place].discard if row is None else self.due[place].add)(key)
            elif key.startswith("account/"):
                check_limits(row)
        for event in events:
            self.say(place, event)
        self.log.append((at_ms, place, message, events))

    def say(self, place: tuple[str, int], event: Any) -> None:
        if any(sums(getattr(event, "postings", ())).values()):
            raise Broken(f"postings do not sum to zero: {event}")
        self.events[place].append(event)
        for topic, key in route(event):
            service, _, kind = topic.partition(".")
            if topic == "rail.inbox":
                self.rail.append(event)
            elif topic == "rates.inbox":
                self.send("currency", RATES, fetched(self, event))
            elif topic == "reports.inbox":
                simulated_settlement.answer(self, event)
            elif topic in DELIVERIES:
                self.post.append(event)
            elif kind == "inbox" and key is EVERY:
                for n in range(PARTITIONS):
                    self.inboxes[service, n].append((event, self.now_ms))
            elif kind == "inbox":
                self.send(service, key, event)
        if relays(event):
            self.relay.append(event)
        if (part := gathers(event)) is not None:
            self.gathering.append((*part, part[1].part(event)))

    def gather(self) -> None:
        """One transaction ends: what its facts say together is said."""
        together: dict[tuple[str, int, Gathered], list[tuple[str, Any]]] = defaultdict(list)
        for (topic, key), gathered, part in self.gathering:
            service = topic.partition(".")[0]
            together[service, crc32(key.encode()) % PARTITIONS, gathered].append((key, part))
        self.gathering.clear()
        for (service, _, gathered), parts in together.items():
            self.send(service, parts[0][0], gathered.message(tuple(part for _, part in parts)))

    def relay_one(self) -> None:
        event = self.relay.popleft()
        for topic, key in relays(event):
            self.send(topic.partition(".")[0], key, event)

    def deliver_one(self) -> None:
        """The world takes a message or not; its answer may be lost or double."""
        request, chance = self.post.popleft(), self.chance
        outcome = chance.choice([*Outcome, Outcome.DELIVERED, Outcome.FAILED])
        if outcome is Outcome.DELIVERED:
            self.arrived.add(request.notification_id)
        if chance.random() < self.odds.lost:
            return
        answered = DeliveryAnswered(
            notification_id=request.notification_id,
            user_id=request.user_id,
            attempt=request.attempt,
            outcome=outcome,
            detail="",
        )
        for _ in range(chance.choice((1, 1, 2))):
            self.send("notification", request.user_id, answered)

    def perform_one(self) -> None:
        """The rail acts once per idempotency key; its answer may be lost, unclear or double."""
        request, chance = self.rail.popleft(), self.chance
        if isinstance(request, PaymentRequested):
            operation, key = RailOperation.PAY, request.payment_id
            yes, no = self.books.paid, self.books.declined
        else:
            operation, key = RailOperation.REFUND, request.refund_id
            yes, no = self.books.refunded, self.books.kept
        if key not in yes | no:
            refuses = 0.3 if operation is RailOperation.PAY else self.odds.stubborn
            (no if chance.random() < refuses else yes).add(key)
        if chance.random() < self.odds.lost:
            return
        outcome = RailOutcome.APPROVED if key in yes else RailOutcome.DECLINED
        if chance.random() < self.odds.unknown:
            outcome = RailOutcome.UNKNOWN
        self.answer(request, operation, outcome)
        if chance.random() < 0.2:
            self.answer(request, operation, outcome)
        if (
            operation is RailOperation.PAY
            and key in no
            and chance.random() < self.odds.stubborn / 3
        ):
            no.discard(key)  # it said no and then moved the money all the same
            yes.add(key)
            self.answer(request, operation, RailOutcome.APPROVED)

    def answer(
        self,
        request: PaymentRequested | RefundRequested,
        operation: RailOperation,
        outcome: RailOutcome,
    ) -> None:
        payment_id = request.payment_id
        if self.chance.random() < 0.2:  # it is told by a notice, which comes back by HTTP
            self.send("payment", payment_id, notice_of(request, operation, outcome))
            return
        ordered = refunds(request.order)
        answer = RailAnswered(
            transaction_id=payment_id,
            payment_id=payment_id,
            operation=operation,
            attempt=request.attempt,
            outcome=outcome,
            provider_reference=f"ref-{payment_id}",
            detail="",
            refund_id=request.order.transaction_id if ordered else None,
            provider="sandbox",
            booked_on=DAY,
        )
        self.send("payment", payment_id, answer)

    def tick(self, place: tuple[str, int]) -> bool:
        """A tick for what is due in this partition, if anything is."""
        if not (due := self.due[place]):
            return False
        limit = f"{DUE}{self.now_ms + 1:013d}"  # keys sort by time
        if not (passed := sorted([key for key in due if key < limit])):
            return False
        tick = Tick(due=tuple(passed[: self.chance.choice((1, 3, TICK_LIMIT))]))
        for _ in range(1 + (self.chance.random() < self.odds.duplicate)):
            self.inboxes[place].append((tick, self.now_ms))
        return True

    # the world

    def step(self) -> bool:
        """Let one thing happen; False when nothing can until time passes."""
        chance, odds = self.chance, self.odds
        self.now_ms += chance.randrange(30)
        if odds.jump and chance.random() < odds.jump:
            self.now_ms += chance.choice((2_000, 30_000, 3_600_000))
        if odds.stall and chance.random() < odds.stall:
            self.stalled = chance.choice((None, *self.deciders))
        filled = [place for place, inbox in self.inboxes.items() if inbox]
        places = [place for place in filled if place[0] != self.stalled]
        if not places:
            self.stalled = None
            places = filled
        outside = [self.perform_one] * bool(self.rail) + [self.relay_one] * bool(self.relay)
        outside += [self.gather] * bool(self.gathering) + [self.deliver_one] * bool(self.post)
        outside += [self.repeat_one] * bool(self.late)
        if outside and (not places or chance.random() < 0.2):
            chance.choice(outside)()
        elif places:
            self.deliver(chance.choice(places))
        else:
            return False
        if chance.random() < 0.02:
            self.tick(chance.choice(tuple(self.due)))
        return True

    def settle(self, until_ms: int | None = None) -> None:
        """Run until nothing can happen any more, letting time pass wherever somebody waits for it.

        `until_ms`: also forget what is due to be forgotten by then.
        """
        for _ in range(100_000):
            if self.step():
                continue
            next_due = [min(due) for due in self.due.values() if due]
            waiting = [
                key
                for key in next_due
                if until_ms is not None or due_kind(key) not in (FORGET, KEEP, EXPIRED)
            ]
            if not waiting:
                return
            self.now_ms = max(self.now_ms, due_at_ms(min(waiting)))
            for place in self.due:
                self.tick(place)
        raise Broken("it never comes to rest")

    # what one looks at

    def all_rows(self, service: str) -> Iterator[tuple[str, Any]]:
        for n in range(PARTITIONS):
            yield from self.rows[service, n].items()

    def all_events(self, service: str) -> Iterator[Any]:
        for n in range(PARTITIONS):
            yield from self.events[service, n]

    def finals(self) -> list[Any]:
        return [event for event in self.all_events("transaction") if isinstance(event, FINAL)]


def notice_of(
    request: PaymentRequested | RefundRequested, operation: RailOperation, outcome: RailOutcome
) -> NotifyPayment:
    """What the provider's web hook tells of a request."""
    return NotifyPayment(
        notice_id="evt",
        provider="sandbox",
        payment_id=request.payment_id,
        refund_id=request.refund_id if isinstance(request, RefundRequested) else None,
        operation=operation,
        outcome=outcome,
        amount_minor=request.order.amount_minor,
        currency=request.order.currency,
        provider_reference=f"ref-{request.payment_id}",
        booked_on=DAY,
        detail="",
    )


class Declared(Mapping[str, Any]):
    """Rows of which only the declared ones may be read."""

    def __init__(self, rows: Mapping[str, Any], keys: set[str]) -> None:
        self.rows, self.keys_ = rows, keys

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys_:
            raise Broken(f"reads {key}, which `keys` does not name")
        return self.rows[key]

    def __iter__(self) -> Iterator[str]:
        raise Broken("walks over all rows")

    def __len__(self) -> int:
        raise Broken("counts all rows")


def check_keys(decider: Decider, rows: Mapping[str, Any], message: Any, at_ms: int) -> None:
    """`decide` and `evolve` read only what `keys` names."""
    events = decider.decide(Declared(rows, set(decider.keys(message))), message, at_ms)
    overlay = Overlay(rows)
    for event in events:
        declared = Declared(overlay, set(decider.keys(event)))
        overlay.changes.update(decider.evolve(declared, event))
        decider.aggregate_id(event)


def check_limits(row: account.Account) -> None:
    for currency, balance_minor in row.balances.items():
        held_minor = row.held.get(currency, 0)
        if balance_minor - held_minor < -row.overdraft_limits.get(currency, 0):
            raise Broken(f"what is not held is below its limit: {row}")
        if held_minor < 0:
            raise Broken(f"less than nothing is held: {row}")
    if row.open_legs < 0:
        raise Broken(f"fewer than no legs are open: {row}")
    gone = row.status in (account.Status.CLOSED, account.Status.ARCHIVED)
    if gone and (row.open_legs or row.held or any(row.balances.values())):
        raise Broken(f"a closed account has money or waits for it: {row}")


# what people do


def populate(bank: Bank) -> None:
    for person in PEOPLE:
        bank.send("user", f"{person}@example.org", registration(person))
    for number in range(5):
        bank.send("account", f"a{number}", opening(bank, number))
    set_rates(bank)
    for person in PEOPLE:
        for kind in MethodKind:
            bank.send("payment", person, a_method(person, kind))
    bank.settle()
    for number in range(5):
        for currency in CURRENCIES:
            if bank.chance.random() < 0.7:
                fund(bank, f"a{number}", currency, bank.chance.randrange(1, 400_000))
    bank.settle()


def registration(person: str) -> RegisterUser:
    return RegisterUser(
        user_id=person,
        address=f"{person}@example.org",
        email=f"{person.title()}@example.org",
        name=person.title(),
        password_hash="$2b$12$…",
        roles=(Role.CUSTOMER,),
        actor_id=person,
        request_hash=person,
    )


def opening(bank: Bank, number: int) -> OpenAccount:
    currencies = CURRENCIES if bank.chance.random() < 0.8 else CURRENCIES[:1]
    return OpenAccount(
        account_id=f"a{number}",
        user_id=PEOPLE[number % len(PEOPLE)],
        name="",
        currencies=currencies,
        overdraft_limits=bank.chance.choice(({}, {"USD": 5_000})),
        actor_id="ops",
        request_hash="",
    )


def order(bank: Bank, **changes: Any) -> CreateTransaction:
    """Order something; sends it."""
    chance, n = bank.chance, len(bank.orders)
    source, destination = chance.sample(ACCOUNTS, 2)
    if chance.random() < 0.1:
        destination = NOWHERE
    command = CreateTransaction(
        transaction_id=f"t{n}",
        type=TransactionType.TRANSFER,
        amount_minor=chance.choice((1, 70, 4_000, 30_000, 60_000, 85_000, 110_000)),
        currency=chance.choice(("USD", "USD", "USD", "JPY")),
        source_account_id=source,
        destination_account_id=destination,
        owner_id=PEOPLE[int(source[1:]) % len(PEOPLE)],
        actor_id="ops",
        privileged=chance.random() < 0.5,
        rail=chance.choice((Rail.BOOK, Rail.BOOK, Rail.EXTERNAL)),
        deadline_s=chance.choice((1, 5, 60, 600)),
        description="",
        reference="",
        metadata={},
        request_hash=f"h{n}",
    )
    return give(bank, replace(command, **changes))


def give(bank: Bank, command: CreateTransaction) -> CreateTransaction:
    bank.orders[command.transaction_id] = command
    bank.send("transaction", command.transaction_id, command)
    return command


def fund(bank: Bank, account_id: str, currency: str, amount_minor: int) -> CreateTransaction:
    return order(
        bank,
        type=TransactionType.DEPOSIT,
        source_account_id=None,
        destination_account_id=account_id,
        currency=currency,
        amount_minor=amount_minor,
        owner_id=PEOPLE[int(account_id[1:]) % len(PEOPLE)],
        privileged=True,
        deadline_s=86_400,
    )


def a_method(person: str, kind: MethodKind) -> AddPaymentMethod:
    card = kind is MethodKind.CARD
    return AddPaymentMethod(
        method_id=f"{person}.{kind}",
        user_id=person,
        kind=kind,
        provider="sandbox",
        token=f"tok-{person}-{kind}",
        fingerprint="",
        brand="visa" if card else "",
        last_four="4242",
        expiry_month=12 if card else 0,
        expiry_year=2099 if card else 0,
        country="" if card else "DE",
        bank="",
        holder="",
        actor_id=person,
        request_hash=kind,
    )


def charge(bank: Bank) -> None:
    """Somebody pays in by card; now and then by what is no card of theirs."""
    chance, account_id = bank.chance, bank.chance.choice((*ACCOUNTS, NOWHERE))
    person = PEOPLE[int(account_id[1:]) % len(PEOPLE)]
    kind = MethodKind.CARD if chance.random() < 0.9 else MethodKind.IBAN
    method_id = f"{person if chance.random() < 0.9 else 'bob'}.{kind}"
    order(
        bank,
        type=TransactionType.PAYMENT,
        source_account_id=None,
        destination_account_id=account_id,
        owner_id=person,
        terms=Terms(payment_method_id=method_id),
    )


def pay_out(bank: Bank) -> None:
    account_id = bank.chance.choice(ACCOUNTS)
    person = PEOPLE[int(account_id[1:]) % len(PEOPLE)]
    order(
        bank,
        type=TransactionType.WITHDRAWAL,
        source_account_id=account_id,
        destination_account_id=None,
        owner_id=person,
        terms=Terms(payment_method_id=f"{person}.{bank.chance.choice([*MethodKind])}"),
    )


def is_charge(it: CreateTransaction) -> bool:
    return it.type is TransactionType.PAYMENT and it.source_account_id is None


def refund(bank: Bank) -> None:
    """Some of a payment is to go back, whatever became of it; more than it was, too."""
    payments = [o for o in bank.orders.values() if is_charge(o)]
    credited = [
        bank.orders[row.payment_id]
        for _, row in bank.all_rows("payment")
        if isinstance(row, payment_rows.Payment) and row.status is payment_rows.Status.CREDITED
    ]
    if credited and bank.chance.random() < 0.8:
        payments = credited
    if not payments:
        return
    paid = bank.chance.choice(payments[-3:])
    order(
        bank,
        type=TransactionType.REFUND,
        source_account_id=paid.destination_account_id,
        destination_account_id=None,
        owner_id=paid.owner_id,
        currency=paid.currency if bank.chance.random() < 0.9 else "JPY",
        amount_minor=max(1, paid.amount_minor * bank.chance.choice((1, 2, 3, 5)) // 4),
        terms=Terms(original_transaction_id=paid.transaction_id),
    )


def manage_methods(bank: Bank) -> None:
    person, kind = bank.chance.choice(PEOPLE), bank.chance.choice([*MethodKind])
    if bank.chance.random() < 0.5:
        bank.send("payment", person, a_method(person, kind))
        return
    method_id = f"{person}.{kind}"
    command = RemovePaymentMethod(method_id=method_id, user_id=person, actor_id=person)
    bank.send("payment", person, command)


def reconcile(bank: Bank, currency: str, unique: str) -> None:
    """The provider's statement of all that it moved arrives."""
    lines = tuple(
        StatementLine(
            end_to_end_id=key,
            provider_reference="",
            amount_minor=amount_minor,
            line=number,
        )
        for number, (key, amount_minor) in enumerate(moved(bank, currency).items())
    )
    home = f"sandbox.{DAY}.{currency}"
    command = ReconcileStatement(
        statement_id=f"{home}.{unique}",
        provider="sandbox",
        day=DAY,
        currency=currency,
        lines=lines,
        actor_id="ops",
        request_hash=unique,
    )
    bank.send("payment", home, command)


def moved(bank: Bank, currency: str) -> dict[str, int]:
    """What the provider really moved, by what it was asked under: in above zero."""
    found = {}
    for key in sorted(bank.books.paid | bank.books.refunded):
        it = bank.orders[key.removesuffix(".refund")]
        comes_in = is_charge(it) is (key == it.transaction_id)
        if it.currency == currency:
            found[end_to_end_id(key)] = it.amount_minor if comes_in else -it.amount_minor
    return found


def pay(bank: Bank, number: int) -> None:
    match number:
        case 31 | 32:
            charge(bank)
        case 33 | 34:
            refund(bank)
        case 35:
            pay_out(bank)
        case _ if bank.chance.random() < 0.5:
            manage_methods(bank)
        case _:
            reconcile(bank, "USD", f"s{bank.now_ms}")


def act(bank: Bank) -> None:  # noqa: C901 - a case an action
    """One thing that somebody does."""
    chance = bank.chance
    account_id = chance.choice(ACCOUNTS)
    if chance.random() < 0.1:
        be_told(bank, chance.choice(PEOPLE))
    if chance.random() < 0.15:
        simulated_settlement.act(bank)
    if chance.random() < 0.2:
        simulated_suspense.act(bank, (*ACCOUNTS, NOWHERE))
    match chance.randrange(40):
        case 0 | 1 | 2 | 3 | 4 | 5 | 16:
            order(bank)
        case 6:
            fund(bank, account_id, chance.choice(CURRENCIES), chance.randrange(1, 90_000))
        case 7:
            withdrawal = TransactionType.WITHDRAWAL
            order(bank, type=withdrawal, destination_account_id=None)
        case 8 | 9 if bank.orders:
            cancel(bank, chance.choice([*bank.orders][-4:]))
        case 10:
            bank.send("account", account_id, FreezeAccount(account_id=account_id, actor_id="ops"))
        case 11:
            thaw = UnfreezeAccount(account_id=account_id, actor_id="ops")
            bank.send("account", account_id, thaw)
        case 12:
            leave(bank, account_id)
        case 13:
            blacklist(bank, account_id)
        case 37 | 38 | 39:
            simulated_people.live(bank, PEOPLE)
        case number if number > 30:
            pay(bank, number)
        case 15 if chance.random() < 0.1:
            for _ in range(80):  # a machine gone wild
                order(bank, source_account_id="a0", destination_account_id="a1", owner_id="ada")
        case 27 | 28:
            changed = change_money(bank)
            if chance.random() < 0.4:
                cancel(bank, changed.transaction_id)
        case 29:
            ask_quote(bank)
        case 30 if chance.random() < 0.5:
            set_rates(bank)
        case 30:
            every = ScheduleFeed(every_s=chance.choice((0, 60, 3_600)), actor_id="ops")
            bank.send("currency", RATES, every)
        case 14 if bank.orders:
            repeat(bank, bank.orders[chance.choice([*bank.orders])])
        case 18 | 19 | 20:
            use_holds(bank, account_id)
        case 21 | 22 | 23 if bank.orders:
            ended = [order_id for order_id in completed(bank) if order_id in bank.orders]
            recent = [*bank.orders][-4:]
            original = bank.orders[chance.choice(ended[-6:] if ended[6:] else recent)]
            for _ in range(chance.choice((1, 1, 3))):  # whoever asks again finds it undone
                undo(bank, original)
        case 24:
            order(bank, type=TransactionType.PAYMENT)
        case 25:
            set_prices(bank)
        case 26:
            simulated_risk.act(bank, chance.choice(PEOPLE))
        case _:
            decide_reviews(bank)


def undo(bank: Bank, original: CreateTransaction) -> None:
    """Order its opposite, whatever became of it; now and then not quite the opposite."""
    chance = bank.chance
    source, destination = original.destination_account_id, original.source_account_id
    kind = chance.choice(
        (TransactionType.REVERSAL, TransactionType.REVERSAL, TransactionType.REFUND)
    )
    fee_minor = 0
    for key, row in transactions(bank):
        if key == f"transaction/{original.transaction_id}":
            fee_minor = -transaction.returned_fee_minor(row.order, kind)
    order(
        bank,
        type=kind,
        amount_minor=original.amount_minor + (chance.random() < 0.1),
        currency=original.currency,
        source_account_id=source,
        destination_account_id=destination,
        owner_id=PEOPLE[int((source or destination or NOWHERE)[1:]) % len(PEOPLE)],
        rail=Rail.BOOK,
        terms=Terms(original_transaction_id=original.transaction_id, fee_minor=fee_minor),
    )


def set_prices(bank: Bank) -> None:
    prices = [
        Price(
            type=kind,
            currency=bank.chance.choice(CURRENCIES),
            flat_minor=bank.chance.choice((0, 3, 40)),
            rate_ppm=bank.chance.choice((0, 1_500)),
        )
        for kind in PRICED
        if bank.chance.random() < 0.6
    ]
    bank.send("transaction", PRICE_LIST, SetPriceList(prices=tuple(prices), actor_id="ops"))


def use_holds(bank: Bank, account_id: str) -> None:
    """Reserve something, or take or let go of what was reserved before."""
    if not bank.holds or bank.chance.random() < 0.4:
        place_hold(bank, account_id)
        return
    hold = bank.chance.choice([*bank.holds.values()][-3:])
    if bank.chance.random() < 0.1:  # not what it was held for
        hold = replace(hold, destination_account_id=NOWHERE)
    if bank.chance.random() < 0.3:
        void = VoidHold(hold_id=hold.hold_id, account_id=hold.account_id, actor_id="ops")
        bank.send("account", hold.account_id, void)
        return
    taken_minor = bank.chance.choice((1, hold.amount_minor, hold.amount_minor + 1))
    order(
        bank,
        type=TransactionType.CAPTURE,
        amount_minor=taken_minor,
        currency=hold.currency,
        source_account_id=hold.account_id,
        destination_account_id=hold.destination_account_id,
        owner_id=hold.owner_id,
        rail=Rail.BOOK,
        terms=Terms(hold_id=hold.hold_id),
    )


def be_told(bank: Bank, user_id: str) -> None:
    """Choose channels, define an endpoint or switch one, or put back what was given up."""
    chance = bank.chance
    match chance.randrange(3):
        case 0:
            channels = chance.sample((Channel.EMAIL, Channel.SMS, Channel.PUSH), 2)
            choice = Choice(kind=Kind.TRANSACTION_COMPLETED, channels=(Channel.IN_APP, *channels))
            command: Any = SetPreferences(
                user_id=user_id, choices=(choice,), phone="+41", device=None, actor_id=user_id
            )
        case 1:
            name = chance.choice("xy")
            command = SetEndpoint(
                user_id=user_id,
                endpoint_id=f"{user_id}.{name}",
                url=f"https://{name}.example/hook",
                kinds=chance.choice(((), (Kind.TRANSACTION_FAILED,))),
                enabled=chance.random() < 0.8,
                actor_id=user_id,
            )
        case _:
            given_up = [
                row.notification_id
                for _, row in bank.all_rows("notification")
                if isinstance(row, Notification) and row.status == Told.DEAD
            ]
            command = RedriveNotification(
                notification_id=chance.choice([*given_up, "nobody.t0"]),
                user_id=user_id,
                actor_id="ops",
            )
    bank.send("notification", user_id, command)


def place_hold(bank: Bank, account_id: str) -> None:
    chance, name = bank.chance, f"h{len(bank.holds)}"
    others = [one for one in (*ACCOUNTS, NOWHERE) if one != account_id]
    command = PlaceHold(
        hold_id=f"{account_id}.{name}",
        account_id=account_id,
        owner_id=PEOPLE[int(account_id[1:]) % len(PEOPLE)],
        amount_minor=chance.choice((1, 4_000, 30_000, 110_000)),
        currency=chance.choice(("USD", "USD", "JPY")),
        destination_account_id=chance.choice((None, *others)),
        expires_s=chance.choice((1, 60, 86_400)),
        description="",
        reference="",
        actor_id="ops",
        request_hash=name,
    )
    bank.holds[command.hold_id] = command
    bank.send("account", account_id, command)


def set_rates(bank: Bank) -> None:
    """What a euro is worth, for an hour or for days; at times of one currency alone."""
    chance = bank.chance
    rates = {"USD": f"1.0{chance.randrange(100)}", "JPY": f"16{chance.randrange(10)}.7"}
    if chance.random() < 0.2:
        del rates[chance.choice(CURRENCIES)]
    bank.rates += 1
    command = SetRates(
        base="EUR",
        rates=rates,
        source=chance.choice((RateSource.OPERATOR, RateSource.FEED)),
        as_of_ms=chance.choice((None, None, bank.now_ms - 60_000)),
        max_age_s=chance.choice((600, 432_000)),
        spread_ppm=chance.choice((0, 5_000)),
        actor_id="ops",
        request_id=f"r{bank.rates}",
    )
    bank.send("currency", RATES, command)


def fetched(bank: Bank, request: RatesRequested) -> RatesFetched:
    """The feed: it may be away, and has the same rates for a while."""
    day_ms = bank.now_ms // 3_600_000 * 3_600_000
    works = bank.chance.random() < 0.7
    return RatesFetched(
        fetch_id=request.fetch_id,
        outcome=FetchOutcome.FETCHED if works else FetchOutcome.FAILED,
        base="EUR",
        rates={"USD": "1.08", "JPY": "160"} if works else {},
        as_of_ms=day_ms,
        max_age_s=432_000,
        spread_ppm=0,
        request_id=f"f{day_ms}",
        detail="" if works else "away",
    )


def ask_quote(bank: Bank) -> RequestQuote:
    chance, quote_id = bank.chance, f"q{len(bank.quotes)}"
    source, destination = chance.sample(CURRENCIES, 2)
    command = RequestQuote(
        quote_id=quote_id,
        user_id=chance.choice(PEOPLE),
        currency=source,
        destination_currency=destination,
        amount_minor=chance.choice((None, None, 4_000)),
        hold_s=chance.choice((5, 3_600)),
        request_hash=quote_id,
    )
    bank.quotes[quote_id] = command
    bank.send("currency", quote_id, command)
    return command


def change_money(bank: Bank) -> CreateTransaction:
    """An exchange on one account or between two, by a quote of anybody's or at the market's rate."""
    chance = bank.chance
    source, destination = chance.sample(CURRENCIES, 2)
    account_id = chance.choice(ACCOUNTS)
    quote_id = None
    if chance.random() < 0.5:
        quote = ask_quote(bank) if chance.random() < 0.5 or not bank.quotes else None
        quote = quote or bank.quotes[chance.choice([*bank.quotes])]
        quote_id = quote.quote_id
        if chance.random() < 0.8:
            source, destination = quote.currency, quote.destination_currency
            account_id = f"a{PEOPLE.index(quote.user_id)}"
    return order(
        bank,
        type=TransactionType.EXCHANGE,
        rail=Rail.BOOK,
        currency=source,
        source_account_id=account_id,
        destination_account_id=chance.choice((account_id, account_id, *ACCOUNTS, NOWHERE)),
        owner_id=PEOPLE[int(account_id[1:]) % len(PEOPLE)],
        terms=Terms(destination_currency=destination, quote_id=quote_id),
    )


def leave(bank: Bank, account_id: str) -> None:
    """Send all that is there elsewhere, and close while it may still be on its way."""
    row = next((row for key, row in bank.all_rows("account") if key == f"account/{account_id}"))
    for currency, minor in row.balances.items():
        if minor > 0 and bank.chance.random() < 0.9:
            order(
                bank,
                source_account_id=account_id,
                owner_id=row.user_id,
                currency=currency,
                amount_minor=minor,
                privileged=True,
            )
    for _ in range(bank.chance.randrange(40)):
        bank.step()
    bank.send("account", account_id, CloseAccount(account_id=account_id, actor_id="ops"))
    bank.send("account", account_id, ArchiveAccount(account_id=account_id, actor_id="ops"))


def cancel(bank: Bank, transaction_id: str) -> None:
    command = CancelTransaction(transaction_id=transaction_id, actor_id="ops")
    bank.send("transaction", transaction_id, command)


def repeat(bank: Bank, command: CreateTransaction) -> None:
    """The same order again, or another body under its id, which must change nothing."""
    other = bank.chance.choice((command, replace(command, amount_minor=1, request_hash="other")))
    bank.send("transaction", command.transaction_id, other)


def blacklist(bank: Bank, account_id: str) -> None:
    entry = {"kind": BlacklistKind.ACCOUNT, "value": account_id, "actor_id": "eve"}
    if bank.chance.random() < 0.5:
        bank.send("risk", account_id, AddToBlacklist(note="", **entry))
    else:
        bank.send("risk", account_id, RemoveFromBlacklist(**entry))


def decide_reviews(bank: Bank) -> None:
    for _, row in [*bank.all_rows("risk")]:
        if isinstance(row, risk.Review) and bank.chance.random() < 0.7:
            command = DecideReview(
                review_id=row.review_id,
                approve=bank.chance.random() < 0.7,
                deadline_s=bank.chance.choice((1, 60)),
                actor_id="eve",
                note="",
            )
            bank.send("risk", row.order.owner_id, command)


def run(
    seed: int,
    deciders: Mapping[str, Decider] = DECIDERS,
    *,
    actions: int = 30,
    strict: bool = False,
) -> Bank:
    """One run, its laws checked; raises Broken."""
    bank = Bank(seed, deciders, strict)
    populate(bank)
    for _ in range(actions):
        act(bank)
        for _ in range(bank.chance.randrange(12)):
            bank.step()
    bank.send("currency", RATES, ScheduleFeed(every_s=0, actor_id="ops"))
    simulated_settlement.end(bank)
    bank.settle()
    for _ in range(bank.chance.randrange(8)):
        simulated_suspense.act(bank, (*ACCOUNTS, NOWHERE))
        for _ in range(bank.chance.randrange(4)):
            bank.step()
    bank.settle()
    simulated_suspense.end(bank)
    for currency in CURRENCIES:
        reconcile(bank, currency, "last")
    bank.settle()
    laws(bank)
    return bank


# what must hold once all is quiet


def laws(bank: Bank) -> None:
    check_ends(bank)
    check_quiet(bank)
    check_money(bank)
    check_undone(bank)
    check_holds(bank)
    check_exchanges(bank)
    simulated_risk.check(bank, expect)
    check_rail(bank)
    check_refunds(bank)
    check_statements(bank)
    simulated_settlement.check(bank, expect)
    check_lists(bank)
    check_told(bank)
    simulated_people.check(bank, expect)
    check_fold(bank)
    check_repeats(bank)
    check_forgetting(bank)


def expect(holds: bool, sentence: str) -> None:
    if not holds:
        raise Broken(sentence)


def check_ends(bank: Bank) -> None:
    """Every transaction that was started ends exactly once, with its whole trace."""
    ends = Counter(event.order.transaction_id for event in bank.finals())
    expect(ends == Counter(bank.orders.keys()), f"ends {ends} for {[*bank.orders]}")
    rows = {row.order.transaction_id: row for _, row in transactions(bank)}
    for event in bank.finals():
        row = rows[event.order.transaction_id]
        expect(row.status is not transaction.Status.PENDING, f"final and pending: {row}")
        expect(row.steps == event.steps, f"the row's trace is another: {row}")
        names = [step.step for step in event.steps]
        times = [step.at_ms for step in event.steps]
        expect(names[0] == "validate" and times == sorted(times), f"trace: {event.steps}")
        if isinstance(event, TransactionCompleted):
            expect(names[-2:] != ["complete", "complete"], f"trace: {names}")
            expect(names[-1] == "complete" and "risk" in names, f"trace: {names}")


def transactions(bank: Bank) -> list[tuple[str, transaction.Transaction]]:
    return [
        (key, row)
        for key, row in bank.all_rows("transaction")
        if isinstance(row, transaction.Transaction)
    ]


OPEN_REFUNDS = (RefundStatus.RESERVED, RefundStatus.REQUESTED)


def check_quiet(bank: Bank) -> None:
    """Nobody waits for anything."""
    for _, row in bank.all_rows("account"):
        match row:
            case account.Account():
                expect(row.open_legs == 0, f"waits for the end of a leg: {row}")
            case account.Leg():
                expect(row.state not in (LegState.DEBITED, LegState.SUSPENDED), f"open: {row}")
    asking = (payment_rows.Status.REQUESTED, payment_rows.Status.REFUND_REQUESTED)
    for _, row in bank.all_rows("payment"):
        if isinstance(row, payment_rows.Payment):
            expect(row.status not in asking, f"the rail never answered: {row}")
        elif isinstance(row, Refund):
            expect(row.status not in OPEN_REFUNDS, f"a refund has no end: {row}")
        elif isinstance(row, Statement):
            expect(row.status is StatementStatus.RECONCILED, f"never reconciled: {row}")
    for _, row in bank.all_rows("risk"):
        if isinstance(row, risk.Review):
            expect(row.status is not ReviewStatus.OPEN, f"undecided: {row}")


def check_money(bank: Bank) -> None:
    """Balances are what completed and nothing else; the books balance; nothing is in flight."""
    rows = [row for _, row in bank.all_rows("account")]
    trial = trial_balance(rows)
    by_currency: Counter[str] = Counter()
    for (name, currency), minor in trial.items():
        by_currency[currency] += minor
        expect(name != CLEARING or minor == 0, f"{name}: {minor} {currency}")
    simulated_suspense.check(bank, trial, expect)
    expect(not any(by_currency.values()), f"trial balance: {trial}")
    expected: defaultdict[tuple[str | None, str], int] = defaultdict(int)
    for event in bank.finals():
        if isinstance(event, TransactionCompleted):
            order = event.order
            expected[order.source_account_id, order.currency] -= debited_minor(order)
            currency, amount_minor = exchange.credited(order)
            expected[order.destination_account_id, currency] += amount_minor
            expected[FEES, order.currency] += fee_of(order)
            expected[FEES, currency] += order.terms.spread_minor if order.terms else 0
    for currency in by_currency:
        earned_minor = trial.get((FEES, currency), 0)
        wanted = expected[FEES, currency]
        expect(earned_minor == wanted, f"fees: {earned_minor}, not {wanted} {currency}")
    for event in bank.all_events("account"):
        if isinstance(event, SuspensePaid):
            order = event.order
            expected[event.balances[-1].account_id, order.currency] += order.amount_minor
    for row in rows:
        if isinstance(row, account.Account):
            for currency, minor in row.balances.items():
                wanted = expected[row.account_id, currency]
                expect(minor == wanted, f"{row.account_id}: {minor}, not {wanted} {currency}")


def check_holds(bank: Bank) -> None:
    """Each hold has its end; what was taken of it was taken once, and never more than was held."""
    placed = {e.hold_id: e for e in bank.all_events("account") if isinstance(e, HoldPlaced)}
    taken: defaultdict[str, list[str]] = defaultdict(list)
    for event in bank.all_events("account"):
        hold_id = holds.captured_hold(event.order) if isinstance(event, AccountDebited) else None
        if hold_id is not None:
            taken[hold_id].append(event.order.transaction_id)
            held_minor = placed[hold_id].amount_minor
            expect(event.order.amount_minor <= held_minor, f"taken of {held_minor}: {event}")
    back = {
        event.order.transaction_id
        for event in bank.all_events("account")
        if isinstance(event, DebitReversed)
    }
    rows = {row.hold_id: row for _, row in bank.all_rows("account") if isinstance(row, Hold)}
    expect(rows.keys() == bank.holds.keys(), f"holds {[*rows]}, ordered {[*bank.holds]}")
    for hold_id, row in rows.items():
        expect(row.status is not HoldStatus.OPEN, f"without end: {row}")
        expect(len(taken[hold_id]) <= 1, f"taken more than once: {row}")
        came_back = bool(back.intersection(taken[hold_id]))
        status = HoldStatus.RETURNED if came_back else HoldStatus.CAPTURED
        expect(bool(taken[hold_id]) is (row.status is status), f"taken by {taken}: {row}")
    for _, row in bank.all_rows("account"):
        expect(not getattr(row, "held", None), f"holds something with no hold open: {row}")


def completed(bank: Bank) -> dict[str, Order]:
    """The orders that did what they should, by transaction_id."""
    return {
        event.order.transaction_id: event.order
        for event in bank.finals()
        if isinstance(event, TransactionCompleted)
    }


def check_undone(bank: Bank) -> None:
    """A transaction is undone at most once, only when it completed, and by its opposite."""
    done = completed(bank)
    undone: dict[str, str] = {}
    for order in done.values():
        if not undoes(order):
            continue
        original_id = order.terms.original_transaction_id
        expect(original_id not in undone, f"{original_id} was undone twice")
        undone[original_id] = order.transaction_id
        original = done.get(original_id)
        expect(original is not None, f"{original_id} was undone and had not completed")
        back = (order.destination_account_id, order.source_account_id, order.amount_minor)
        went = (original.source_account_id, original.destination_account_id, original.amount_minor)
        expect(back == went, f"{order} is not the opposite of {original}")
    for key, row in bank.all_rows("transaction"):
        if isinstance(row, transaction.Reversal):
            if key.startswith("grant/"):
                continue
            original_id = key.removeprefix("reversal/")
            wanted = undone.get(original_id)
            expect(row.reversal_id == wanted, f"{original_id} is granted to {row}, not {wanted}")


def check_exchanges(bank: Bank) -> None:
    """One rate an exchange, one exchange a quote; both sides or none, the rest is the bank's."""
    fixed = [event for event in bank.all_events("currency") if isinstance(event, RateFixed)]
    orders = Counter(event.order.transaction_id for event in fixed)
    quotes = Counter(terms.quote_id for event in fixed if (terms := event.order.terms).quote_id)
    expect(not orders or max(orders.values()) == 1, f"rates fixed twice: {orders}")
    expect(not quotes or max(quotes.values()) == 1, f"quotes used twice: {quotes}")
    said = {
        event.quote_id: event
        for event in bank.all_events("currency")
        if isinstance(event, QuoteIssued)
    }
    for event in fixed:
        quote = said.get(event.order.terms.quote_id)
        own = quote is None or quote.user_id in (event.order.owner_id, event.order.actor_id)
        expect(own, f"someone else's quote was used: {event}")
    wanted: Counter[tuple[str, str]] = Counter()
    for event in bank.finals():
        order = event.order
        if (
            not isinstance(event, TransactionCompleted)
            or order.type is not TransactionType.EXCHANGE
        ):
            continue
        currency, amount_minor = exchange.credited(order)
        terms = order.terms
        expect(orders[order.transaction_id] == 1 and amount_minor > 0, f"without a rate: {order}")
        wanted[POSITION, order.currency] += order.amount_minor
        wanted[POSITION, currency] -= amount_minor + terms.spread_minor + terms.rounding_minor
        wanted[FEES, currency] += terms.spread_minor
        wanted[ROUNDING, currency] += terms.rounding_minor
        expect(abs(terms.rounding_minor) < 2, f"more than rounding: {terms}")
    trial = trial_balance(row for _, row in bank.all_rows("account"))
    for name in (POSITION, ROUNDING):
        for code in CURRENCIES:
            found = trial.get((name, code), 0)
            expect(found == wanted[name, code], f"{name}: {found}, not {wanted[name, code]} {code}")
    answers = Counter(
        e.fetch_id for e in bank.all_events("currency") if isinstance(e, FeedAnswered)
    )
    asked = {e.fetch_id for e in bank.all_events("currency") if isinstance(e, RatesRequested)}
    expect(answers == Counter(asked), f"asked of the feed {asked}, answered {answers}")
    sets = sum(isinstance(event, RatesSet) for event in bank.all_events("currency"))
    applied = [row for _, row in bank.all_rows("currency") if isinstance(row, AppliedRates)]
    expect({row.version for row in applied} == {sets}, f"{sets} sets of rates, applied {applied}")


def check_rail(bank: Bank) -> None:
    """The provider moved the money of what completed, and gave back, or keeps, all other."""
    for event in bank.finals():
        order = event.order
        if order.rail is not Rail.EXTERNAL:
            continue
        key = order.transaction_id
        if refunds(order):
            done = isinstance(event, TransactionCompleted)
            expect(done is (key in bank.books.refunded), f"the provider says otherwise of {key}")
            continue
        moved = key in bank.books.paid and undo_id(key) not in bank.books.refunded
        if isinstance(event, TransactionCompleted):
            expect(moved, f"{key} completed without its payment")
        else:
            expect(not moved or undo_id(key) in bank.books.kept, f"{key} was paid, yet ended")


def check_refunds(bank: Bank) -> None:
    """What went back of a payment is what its row says, and never more than was captured."""
    back: Counter[str] = Counter()
    for event in bank.finals():
        if isinstance(event, TransactionCompleted) and refunds(event.order):
            back[event.order.terms.original_transaction_id] += event.order.amount_minor
    for _, row in bank.all_rows("payment"):
        if isinstance(row, payment_rows.Payment):
            refunded = back[row.payment_id]
            expect(row.refunding_minor == 0, f"reserved for ever: {row}")
            expect(row.refunded_minor == refunded, f"{refunded} went back: {row}")
            expect(refunded <= row.captured_minor, f"more went back than was captured: {row}")


def check_statements(bank: Bank) -> None:
    """The provider's book is ours: what it moved is booked once, and its statement agrees."""
    booked = Counter(
        event.end_to_end_id
        for event in bank.all_events("payment")
        if isinstance(event, PaymentBooked)
    )
    really = Counter(map(end_to_end_id, bank.books.paid | bank.books.refunded))
    expect(booked == really, f"booked {booked}, moved {really}")
    last = [
        event
        for event in bank.all_events("payment")
        if isinstance(event, StatementReconciled) and event.statement_id.endswith(".last")
    ]
    for event in last:
        broken = event.missing_here + event.missing_there + event.amount_differs
        expect(not broken, f"the statement does not agree: {event}")
    expect(len(last) == len(CURRENCIES), f"statements: {last}")


def check_lists(bank: Bank) -> None:
    """Each owner's list has each scored order once; each account is listed; each end is told."""
    listed = Counter(
        row.transaction_id
        for _, row in bank.all_rows("risk")
        if isinstance(row, risk.ListedTransaction)
    )
    scored = [key[len("score/") :] for key, _ in bank.all_rows("risk") if key.startswith("score/")]
    expect(listed == Counter(scored), f"listed {listed}, scored {scored}")
    told = Counter(
        source(event.notification_id)
        for event in bank.all_events("notification")
        if isinstance(event, NotificationRequested)
        and event.channel == Channel.IN_APP
        and event.template.startswith("transaction_")
    )
    ends = Counter(
        event.order.transaction_id
        for event in bank.finals()
        if not isinstance(event, TransactionCancelled)
    )
    expect(told == ends, f"told {told}, ended {ends}")
    accounts = [key for key, _ in bank.all_rows("user") if key.startswith("account-of/")]
    expect(len(accounts) == 5, f"accounts listed: {accounts}")


def check_told(bank: Bank) -> None:
    """What left the bank was told once, and has arrived or was given up."""
    names = Counter(
        event.notification_id
        for event in bank.all_events("notification")
        if isinstance(event, NotificationRequested)
    )
    expect(set(names.values()) <= {1}, f"told more than once: {names}")
    for _, row in bank.all_rows("notification"):
        if isinstance(row, Notification):
            expect(row.status in (Told.DELIVERED, Told.DEAD), f"neither arrived nor dead: {row}")
            outside = row.channel != Channel.IN_APP and row.status == Told.DELIVERED
            expect(not outside or row.notification_id in bank.arrived, f"nobody has it: {row}")


def check_fold(bank: Bank) -> None:
    """The tables are the fold of the events."""
    for place, events in bank.events.items():
        overlay = Overlay({})
        apply(bank.deciders[place[0]], overlay, events)
        folded = {key: row for key, row in overlay.changes.items() if row is not None}
        expect(folded == bank.rows[place], f"{place}: the fold differs from the table")


def check_repeats(bank: Bank) -> None:
    """Asked twice is asked once, however much later."""
    said = {place: len(events) for place, events in bank.events.items()}
    for person in PEOPLE:
        address = f"{person}@example.org"
        if any(key == f"address/{address}" for key, _ in bank.all_rows("user")):
            bank.send("user", address, registration(person))
    for command in bank.orders.values():
        bank.send("transaction", command.transaction_id, command)
    for hold in bank.holds.values():
        bank.send("account", hold.account_id, hold)
    for word in bank.words.values():
        bank.send("account", word.account_id, word)
    for event in [*bank.all_events("currency")]:
        if isinstance(event, QuoteIssued):
            bank.send("currency", event.quote_id, bank.quotes[event.quote_id])
    bank.settle()
    again = {place: len(events) for place, events in bank.events.items()}
    expect(again == said, f"a repeated command said something new: {said} {again}")


def check_forgetting(bank: Bank) -> None:
    """Half a year later what is final has left the tables, and the books are as they were."""
    before = trial_balance(row for _, row in bank.all_rows("account"))
    bank.settle(until_ms=bank.now_ms + KEEP_CREDITED_MS)
    after = trial_balance(row for _, row in bank.all_rows("account"))
    expect(before == after, f"forgetting moved money: {before} {after}")
    stay = (
        PRICE_LIST,
        "account/",
        "ledger/",
        "user/",
        "address/",
        "credentials/",
        *simulated_risk.STAY,
        *simulated_settlement.STAY,
    )
    stay += ("recipient/", "listing/", "accounts-of/", "account-of/", "has-account/")
    stay += ("rate/", "rate-board/", "rate-applied/", "rate-feed/")
    stay += ("method/", "methods/", "bookings/")
    stay += simulated_suspense.open_keys(bank)
    stay += ("sessions-of/", "session-slot/", "mailed/", "kyc/", "kyc-open/")
    left = [key for rows in bank.rows.values() for key in rows if not key.startswith(stay)]
    expect(not left, f"never forgotten: {left}")
    check_fold(bank)


def main() -> None:
    seed = int(sys.argv[1])
    bank = Bank(seed)
    try:
        bank = run(seed, strict=True)
    except Broken as broken:
        print(f"seed {seed}: {broken}")
    for at_ms, (service, n), message, events in bank.log:
        said = ", ".join(type(event).__name__ for event in events) or "-"
        print(f"{at_ms} {service}/{n}: {type(message).__name__} -> {said}")


if __name__ == "__main__":
    main()
