"""A load of everything that the bank does: orders of each kind, what they refer to ordered seconds before them.

prices, rates, cards --before--> transfers, payments and reversals, charges and refunds, withdrawals,
                                 exchanges by quote and without, holds and captures, registrations,
                                     ends of day with a report
"""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.load import OPERATOR, Bank
from domain.currency import BASE, RATES, RateSource, RequestQuote, SetRates
from domain.holds import PlaceHold
from domain.notification_recipients import SetPreferences
from domain.notification_rows import Channel, Choice, Kind
from domain.payment_methods import AddPaymentMethod, MethodKind
from domain.prices import PRICE_LIST, Price, SetPriceList
from domain.reporting import Definition, RunReport, Source
from domain.saga import Terms, TransactionType
from domain.settlement import RunSettlement
from domain.user import RegisterUser

FEE_MINOR = 3  # of a payment, in each currency
LATER_S = 4.0  # what refers to another order follows it after so long
# what the provider does, by the last two digits: declines, is pending first, loses its answer
TROUBLES = (13, 31, 41)
REPORTS = 3  # as the end of the day, each asked for twice
TEXTED = 5  # so many people are told by SMS too


@dataclass(slots=True)
class Mixed(Bank):
    """A bank whose people do everything; `transfers` orders some of it all."""

    addresses: list[str] = field(default_factory=list)  # of whom asked to be registered
    phones: dict[str, str] = field(default_factory=dict)  # by user_id
    reports: dict[str, int] = field(default_factory=dict)  # until when, Unix ms, by report_id
    _later: deque[tuple[float, Callable[[], str]]] = field(default_factory=deque)
    _chance: random.Random = field(default_factory=random.Random)

    def prepare(self) -> None:
        """Prices, rates, a card and an IBAN for each, and numbers for some."""
        self._chance.seed(self.seed)
        prices = tuple(
            Price(type=TransactionType.PAYMENT, currency=code, flat_minor=FEE_MINOR, rate_ppm=0)
            for code in ("USD", "EUR")
        )
        self._send("transaction", PRICE_LIST, SetPriceList(prices=prices, actor_id=OPERATOR))
        rates = SetRates(
            base=BASE,
            rates={"USD": "1.0837"},
            source=RateSource.OPERATOR,
            as_of_ms=None,
            max_age_s=86_400,
            spread_ppm=2_000,
            actor_id=OPERATOR,
            request_id="rates-of-the-load",
        )
        self._send("currency", RATES, rates)
        for account_id in self.accounts:
            user_id = self._person(account_id)
            for kind in MethodKind:
                self._send("payment", user_id, _method(user_id, kind))
        for account_id in self.accounts[:TEXTED]:
            user_id = self._person(account_id)
            self.phones[user_id] = f"+4930{len(self.phones):07d}"
            self._send("notification", user_id, _texts(user_id, self.phones[user_id]))
        self.flush()

    def transfers(self, count: int, hot_share: float = 0.0) -> list[str]:
        """Orders of all kinds, those first that were to follow earlier ones."""
        made: list[str] = []
        while len(made) < count:
            if self._later and self._later[0][0] <= time.monotonic():
                made.append(self._later.popleft()[1]())
            else:
                made.append(self._any(hot_share))
        return made

    def _any(self, hot_share: float) -> str:
        source, destination = self._chance.sample(self.accounts, 2)
        if self._chance.random() < hot_share:
            source = self.accounts[0] if destination != self.accounts[0] else source
        kinds = (self._pay, self._charge, self._withdraw, self._exchange, self._hold)
        if self._chance.random() < 0.03:
            self._register()
        if len(self.reports) < REPORTS and self._chance.random() < 0.005:
            self.end_the_day()
        if self._chance.random() < 0.5:
            return self.transfer(source, destination, self._amount())
        return self._chance.choice(kinds)(source, destination)

    def _amount(self) -> int:
        """Above one unit, so that its digits say no more than they should."""
        return self._chance.randint(1, 9) * 100 + self._chance.randint(1, 9)

    def _troubled(self) -> int:
        if self._chance.random() < 0.15:
            return self._chance.randint(1, 9) * 100 + self._chance.choice(TROUBLES)
        return self._amount()

    def _follow(self, order: Callable[[], str]) -> None:
        self._later.append((time.monotonic() + LATER_S, order))

    def _pay(self, source: str, destination: str) -> str:
        """With a fee; some of it is reversed, now and then twice."""
        amount = self._amount()
        made = self._order(TransactionType.PAYMENT, amount, source, destination)
        terms = Terms(original_transaction_id=made, fee_minor=-FEE_MINOR)
        for _ in range(self._chance.choice((0, 1, 1, 2))):
            back = partial(
                self._order, TransactionType.REVERSAL, amount, destination, source, terms
            )
            self._follow(back)
        return made

    def _charge(self, _source: str, account_id: str) -> str:
        """By card; some of it is given back, now and then more than there is."""
        amount = self._troubled()
        terms = Terms(payment_method_id=f"{self._person(account_id)}.card")
        made = self._order(TransactionType.PAYMENT, amount, None, account_id, terms)
        undo = Terms(original_transaction_id=made)
        for _ in range(self._chance.choice((0, 1, 2))):
            part = max(1, amount * self._chance.randint(3, 7) // 1000) * 100 + 1
            self._follow(partial(self._order, TransactionType.REFUND, part, account_id, None, undo))
        return made

    def _withdraw(self, source: str, _destination: str) -> str:
        method_id = f"{self._person(source)}.iban"
        terms = Terms(payment_method_id=method_id) if self._chance.random() < 0.5 else None
        return self._order(TransactionType.WITHDRAWAL, self._troubled(), source, None, terms)

    def _exchange(self, source: str, destination: str) -> str:
        """At the market's rate; another one follows by a quote, which now and then is used twice."""
        amount, user_id = self._amount(), self._person(source)
        quote_id = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        quote = RequestQuote(
            quote_id=quote_id,
            user_id=user_id,
            currency="USD",
            destination_currency="EUR",
            amount_minor=amount,
            hold_s=3_600,
            request_hash=quote_id,
        )
        self._send("currency", quote_id, quote)
        terms = Terms(destination_currency="EUR", quote_id=quote_id)
        for _ in range(self._chance.choice((1, 1, 2))):
            self._follow(
                partial(self._order, TransactionType.EXCHANGE, amount, source, source, terms)
            )
        market = Terms(destination_currency="EUR")
        return self._order(TransactionType.EXCHANGE, amount, source, destination, market)

    def _hold(self, source: str, destination: str) -> str:
        """Held beside a transfer, then captured, in part or whole, to an account or out of the bank."""
        amount, to = self._amount(), self._chance.choice((destination, destination, None))
        hold_id = f"{source}.{self._chance.getrandbits(64):016x}"
        hold = PlaceHold(
            hold_id=hold_id,
            account_id=source,
            owner_id=self._person(source),
            amount_minor=amount,
            currency="USD",
            destination_account_id=to,
            expires_s=86_400,
            description="",
            reference="",
            actor_id=OPERATOR,
            request_hash=hold_id,
        )
        self._send("account", source, hold)
        terms = Terms(hold_id=hold_id)
        for part in self._chance.choice(((amount,), (100,), (amount, 100))):
            self._follow(partial(self._order, TransactionType.CAPTURE, part, source, to, terms))
        return self.transfer(destination, source, 1)

    def _register(self) -> None:
        address = f"{self._chance.getrandbits(48):012x}@people.example"
        user_id = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        command = RegisterUser(
            user_id=user_id,
            address=address,
            email=address,
            name="somebody",
            password_hash="not a hash",
            roles=(),
            actor_id=user_id,
            request_hash=user_id,
        )
        self.addresses.append(address)
        for _ in range(self._chance.choice((1, 2))):  # asked twice is asked once
            self._send("user", address, command)

    def end_the_day(self) -> None:
        """Settlement closes what is open; a report says what has ended until a moment ago."""
        number, to_ms = len(self.reports), int(time.time() * 1000) - 1_000
        run = RunSettlement(run_id=f"run-{number}", day="", actor_id=OPERATOR, request_hash="")
        ended = Definition(
            title="Ends",
            source=Source.TRANSACTIONS,
            columns=("transaction_id", "status", "amount", "currency"),
            filters=(),
            group_by=(),
        )
        report = RunReport(
            report_id=f"report-{number}",
            definition=ended,
            from_ms=0,
            to_ms=to_ms,
            actor_id=OPERATOR,
            request_hash="",
        )
        self.reports[report.report_id] = to_ms
        for _ in range(2):
            self._send("settlement", run.run_id, run)
            self._send("reporting", report.report_id, report)


def _method(user_id: str, kind: MethodKind) -> AddPaymentMethod:
    fields: dict[str, Any] = (
        {"brand": "visa", "expiry_month": 12, "expiry_year": 2099, "country": "", "bank": ""}
        if kind is MethodKind.CARD
        else {"brand": "", "expiry_month": 0, "expiry_year": 0, "country": "DE", "bank": ""}
    )
    return AddPaymentMethod(
        method_id=f"{user_id}.{kind.value}",
        user_id=user_id,
        kind=kind,
        provider="sandbox",
        token=f"tok-00-{user_id}-{kind.value}",
        fingerprint=f"fingerprint of {user_id}",
        last_four="4242",
        holder="somebody",
        actor_id=user_id,
        request_hash=f"{user_id}.{kind.value}",
        **fields,
    )


def _texts(user_id: str, phone: str) -> SetPreferences:
    choice = Choice(kind=Kind.TRANSACTION_COMPLETED, channels=(Channel.IN_APP, Channel.SMS))
    return SetPreferences(
        user_id=user_id, choices=(choice,), phone=phone, device=None, actor_id=user_id
    )
