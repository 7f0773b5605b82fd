"""What happens in the day: a chapter each, and what is told of it."""

from __future__ import annotations

import asyncio
import email
import email.policy
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from deploy.local.demo.client import Client, order, transfer
from deploy.local.demo.receiver import Receiver
from deploy.local.processes import StackError, say

NAMES = (
    "Ada",
    "Bela",
    "Chidi",
    "Dana",
    "Emeka",
    "Farah",
    "Goran",
    "Hana",
    "Ines",
    "Jun",
    "Kofi",
    "Lena",
)
PEOPLE = 200
TRANSFERS = 1_000
OPENING_MINOR = 500_00
VISA, DECLINED, ASKED_TWICE = "4242424242424242", "4000000000000002", "4000000000009235"
RATES = {"USD": "1.1052", "GBP": "0.8519", "JPY": "171.30"}
OFFICE = 20  # registrations at once: each takes a quarter of a second of a core
SEEN_S = 40.0


@dataclass(slots=True)
class Day:
    """The people of the day, and where its papers go."""

    session: aiohttp.ClientSession
    admin: Client
    papers: Path
    receiver: Receiver
    mail: Path  # where the local mail server leaves what it took
    people: list[Client] = field(default_factory=list)

    @property
    def named(self) -> list[Client]:
        """Those who order themselves; for the others an operator does."""
        return self.people[: len(NAMES)]

    def of(self, name: str) -> Client:
        return self.named[NAMES.index(name)]


async def opening(day: Day) -> None:
    """Rates and prices of the day."""
    say("the bank opens: rates and prices of the day")
    await day.admin.done("PUT", "/api/rates", {"base": "EUR", "rates": RATES})
    fees = {"prices": [{"type": "withdrawal", "currency": "EUR", "flat": 100, "rate_ppm": 2_000}]}
    await day.admin.done("PUT", "/api/price-list", fees)


async def people(day: Day) -> None:
    """They register and open an account each; an operator pays in."""
    say(f"{PEOPLE} people register and open accounts in EUR and USD")
    office = asyncio.Semaphore(OFFICE)

    async def one(n: int) -> Client:
        person = Client(day.session)
        async with office:
            await person.register(NAMES[n] if n < len(NAMES) else f"Person{n}")
            if n < len(NAMES):
                await person.log_in()
        body = {"currencies": ["EUR", "USD"], "name": person.name, "user_id": person.user_id}
        account = await day.admin.done("POST", "/api/accounts", body)
        person.accounts = dict.fromkeys(("EUR", "USD"), account["account_id"])
        paid_in = order(
            "deposit", OPENING_MINOR, "EUR", destination_account_id=person.accounts["EUR"]
        )
        await day.admin.done("POST", "/api/transactions", paid_in)
        return person

    day.people += await asyncio.gather(*(one(n) for n in range(PEOPLE)))


async def mail(day: Day) -> None:
    """Ada opens the mail that she was sent and confirms her address with what stands in it."""
    say("the mail is read")
    ada = day.of("Ada")
    until_s = time.monotonic() + SEEN_S
    while (found := _mail_to(day.mail, ada.email)) is None:
        if time.monotonic() > until_s:
            raise StackError(f"no mail for {ada.email} within {SEEN_S:.0f} s")
        await asyncio.sleep(0.2)
    subject, text = found
    token = max(text.split(), key=len)
    shown = await ada.done("POST", f"/api/users/{ada.user_id}/email/confirm", {"token": token})
    state = "confirmed" if shown["email_confirmed"] else "not confirmed"
    print(f"\nMail to Ada: {subject!r}; her address is {state}")


def _mail_to(directory: Path, address: str) -> tuple[str, str] | None:
    """Subject and text of a mail to somebody."""
    for path in directory.glob("*.eml"):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if str(message["To"]) == address and "onfirm" in str(message["Subject"]):
            body = message.get_body(("plain",))
            return str(message["Subject"]), body.get_content() if body else ""
    return None


async def known(day: Day) -> None:
    """Six of them show who they are; one is not believed."""
    say("compliance looks at who the customers are")
    levels = Counter[str]()
    for n, person in enumerate(day.named[:7]):
        body = {
            "level": 1,
            "full_name": f"{person.name} Example",
            "date_of_birth": "1990-05-17",
            "country": "DE",
        }
        await person.done("POST", f"/api/users/{person.user_id}/kyc", body)
        decision = {"decision": "approve" if n else "reject"}
        path = f"/api/users/{person.user_id}/kyc/decision"
        found = await day.admin.done("POST", path, decision)
        levels[str(found["status"])] += 1
    _counts("Known customers", levels)


async def cards(day: Day) -> None:
    """Pay-ins by card through the provider, which declines one and does not answer another at first."""
    say("pay-ins by card")
    outcomes = Counter[str]()

    async def one(person: Client, number: str, amount: int) -> None:
        card = {"type": "card", "number": number, "exp_month": 12, "exp_year": 2035, "cvc": "123"}
        method = await person.done("POST", "/api/payment-methods", card)
        body = {
            "amount": amount,
            "currency": "EUR",
            "payment_method_id": method["payment_method_id"],
            "destination_account_id": person.accounts["EUR"],
        }
        _, found = await person.call("POST", "/api/payments", body)
        outcomes[str(found.get("reason") or found.get("status") or found.get("code"))] += 1
        if person is day.of("Ada"):
            path = f"/api/payments/{found['payment_id']}/refunds"
            await person.done("POST", path, {"amount": 12_00})
            outcomes["refunded in part"] += 1

    orders = []
    for n, person in enumerate(day.named):
        number = DECLINED if person is day.of("Bela") else VISA
        orders.append(one(person, ASKED_TWICE if n == 2 else number, 150_00 + n))
    await asyncio.gather(*orders)
    _counts("Pay-ins by card", outcomes)


async def transfers(day: Day) -> None:
    """A thousand at once."""
    say(f"{TRANSFERS:,} transfers at once")
    crowd = day.people
    started = time.monotonic()

    async def one(n: int) -> str:
        source, destination = crowd[n % len(crowd)], crowd[(n * 7 + 1) % len(crowd)]
        if source is destination:
            destination = crowd[(n + 1) % len(crowd)]
        _, found = await day.admin.call(
            "POST", "/api/transactions", transfer(source, destination, 1 + n % 90)
        )
        return str(found.get("reason") or found.get("status"))

    outcomes = Counter(await asyncio.gather(*(one(n) for n in range(TRANSFERS))))
    seconds = time.monotonic() - started
    say(f"each with its final answer after {seconds:.1f} s ({TRANSFERS / seconds:,.0f}/s)")
    _counts("Transfers", outcomes)


async def exchanges(day: Day) -> None:
    """Euros into dollars: at the rate of the day, and at one that was held."""
    say("exchanges")
    lines = []
    for n, person in enumerate(day.named[:8]):
        body = order(
            "exchange",
            20_00 + n,
            "EUR",
            source_account_id=person.accounts["EUR"],
            destination_account_id=person.accounts["USD"],
            destination_currency="USD",
        )
        if n % 2:
            asked = {"currency": "EUR", "destination_currency": "USD", "amount": body["amount"]}
            quote = await person.done("POST", "/api/quotes", asked)
            body["quote_id"] = quote["quote_id"]
        found = await person.done("POST", "/api/transactions", body)
        lines.append(f"  {person.name:10} {body['amount']:>6} EUR  {_moved(found, 'USD'):>6} USD")
    print("\nExchanges (minor units)\n", *lines[:4], sep="\n")


async def trouble(day: Day) -> None:
    """Refused, put back, cancelled too late, undone: what a bank is for."""
    say("what does not go well")
    ada, bela, goran, hana = (day.of(name) for name in ("Ada", "Bela", "Goran", "Hana"))
    lines = []
    poor = await bela.refused("POST", "/api/transactions", transfer(bela, ada, 79_900, "USD"))
    lines.append(("no funds", poor.get("reason") or poor.get("code")))
    await day.admin.done("POST", f"/api/accounts/{hana.accounts['EUR']}/freeze")
    back = await goran.refused("POST", "/api/transactions", transfer(goran, hana, 12_34))
    await day.admin.done("POST", f"/api/accounts/{hana.accounts['EUR']}/unfreeze")
    lines.append(("recipient frozen: put back", back.get("reason") or back.get("code")))
    sent = await goran.done("POST", "/api/transactions", transfer(goran, ada, 7_77))
    path = f"/api/transactions/{sent['transaction_id']}"
    late = await goran.refused("POST", f"{path}/cancel")
    lines.append(("cancelled after it moved", late.get("code")))
    undone = await day.admin.done("POST", f"{path}/reverse", {})
    lines.append(("reversed by an operator", undone["status"]))
    held = {"account_id": ada.accounts["EUR"], "amount": 30_00, "currency": "EUR"}
    hold = await ada.done(
        "POST", "/api/holds", {**held, "destination_account_id": bela.accounts["EUR"]}
    )
    taken = await ada.done("POST", f"/api/holds/{hold['hold_id']}/capture", {"amount": 18_50})
    lines.append(("held 30.00, taken 18.50", taken["status"]))
    print("\nWhat did not go well, and what was put right\n")
    for what, outcome in lines:
        print(f"  {what:34}{outcome}")
    await _trace(day, back["transaction_id"])


async def fraud(day: Day) -> None:
    """A ring passes money in a circle; after the first of them is listed nothing passes any more."""
    say("a ring of fraud")
    ring = day.named[8:12]
    boss = ring[0]
    listed = {"kind": "account", "value": boss.accounts["EUR"], "note": "ring"}
    await day.admin.done("POST", "/api/risk/blacklist", listed)
    outcomes = Counter[str]()
    for n, person in enumerate(ring):
        for other in (ring[(n + 1) % len(ring)], boss):
            if other is not person:
                _, found = await person.call(
                    "POST", "/api/transactions", transfer(person, other, 95_00)
                )
                outcomes[str(found.get("reason") or found.get("code") or found.get("status"))] += 1
    _counts("The ring's orders", outcomes)


async def review(day: Day) -> None:
    """A large amount of somebody whom the bank hardly knows waits for a person, who lets it pass."""
    say("a review, decided")
    hana, dana = day.of("Hana"), day.of("Dana")
    paid_in = order("deposit", 900_00, "EUR", destination_account_id=hana.accounts["EUR"])
    await day.admin.done("POST", "/api/transactions", paid_in)
    ordering = asyncio.create_task(
        hana.call("POST", "/api/transactions", transfer(hana, dana, 810_00))
    )
    found = await _until(day, "a review", "/api/risk/reviews?status=open&limit=200", lambda items: [
        one for one in items if one["user_id"] == hana.user_id
    ])  # fmt: skip
    review_id = found[0]["review_id"]
    decision = {"decision": "approve", "note": "asked by telephone"}
    await day.admin.done("POST", f"/api/risk/reviews/{review_id}/decision", decision)
    _, ended = await ordering
    rules = ", ".join(found[0]["rules"])
    print(
        f"\nReview of 810.00 EUR: score {found[0]['score']} ({rules}), approved: {ended['status']}"
    )


async def webhooks(day: Day) -> None:
    """Lena's shop is told of each transaction; its server fails at first, and gets all in the end."""
    say("a webhook consumer that fails and recovers")
    lena, ada = day.of("Lena"), day.of("Ada")
    path = "/api/webhook-endpoints"
    await lena.done("PUT", path, {"url": day.receiver.url})
    sent = [
        await lena.done("POST", "/api/transactions", transfer(lena, ada, 100 + n)) for n in range(3)
    ]
    await day.receiver.until(failed=1, within_s=SEEN_S)
    day.receiver.recover()
    await day.receiver.until(taken=len(sent), within_s=SEEN_S)
    print(
        f"\nWebhooks: {day.receiver.failed} tries failed, {day.receiver.taken} of {len(sent)} arrived, signed"
    )


async def end_of_day(day: Day) -> None:
    """Batches are closed, the provider's statement is held against the books, papers are written."""
    say("end of day: settlement, statements, a report")
    await day.admin.done("POST", "/api/settlements/run", {})
    batches = await _until(day, "closed batches", "/api/settlements?limit=200", lambda items: [
        one for one in items if one["status"] != "open"
    ])  # fmt: skip
    print("\nSettlements\n")
    for batch in batches:
        print(
            f"  {batch['settlement_id']:34}{batch['items']:>5} items, net {batch['net']:>9,} {batch['currency']}"
        )
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    ada = day.of("Ada")
    statement = f"/api/accounts/{ada.accounts['EUR']}/statements?from={today}&format=pdf"
    body = {
        "title": "Transfers of the day",
        "source": "transactions",
        "columns": ["amount"],
        "group_by": ["type", "status"],
        "from": today,
    }
    report = await day.admin.done("POST", "/api/reports", body)
    papers = {
        "statement-ada.pdf": await ada.file(statement),
        "report.pdf": await day.admin.file(
            f"/api/reports/{report['report_id']}/download?format=pdf"
        ),
        "report.xlsx": await day.admin.file(
            f"/api/reports/{report['report_id']}/download?format=xlsx"
        ),
    }
    print("\nPapers\n")
    for name, data in papers.items():
        (day.papers / name).write_bytes(data)
        print(f"  {day.papers / name}  {len(data):,} bytes")


async def numbers(day: Day) -> None:
    """What the day came to, by analytics and by the accounts."""
    found = await day.admin.done(
        "GET", "/api/analytics/reports?metric=count&interval=day&group_by=type"
    )
    print("\nAnalytics: what ended today, by type\n")
    today = max((one["start"] for one in found["items"]), default="")
    for one in found["items"]:
        if one["start"] == today:
            print(f"  {one['type']:24}{one['completed']:>8,} completed{one['failed']:>6,} failed")


async def _trace(day: Day, transaction_id: str) -> None:
    trace = await day.admin.done("GET", f"/api/transactions/{transaction_id}/trace")
    print("\nTrace of what was put back\n")
    for step in trace["steps"]:
        print(f"  {step['at']:28} {step['service']:14} {step['step']:10} {step['outcome']}")


async def _until(day: Day, what: str, path: str, pick: Any) -> Any:
    """What `pick` finds in a list, looked at until it finds something."""
    until_s = time.monotonic() + SEEN_S
    while time.monotonic() < until_s:
        found = pick((await day.admin.done("GET", path))["items"])
        if found:
            return found
        await asyncio.sleep(0.2)
    raise StackError(f"there was no {what} within {SEEN_S:.0f} s")


def _moved(found: Any, currency: str) -> int:
    for balance in found["balances"]:
        if balance["currency"] == currency:
            return int(balance["after"] - balance["before"])
    return 0


def _counts(title: str, counts: Counter[str]) -> None:
    print(f"\n{title}\n")
    for name, count in sorted(counts.items(), key=lambda row: -row[1]):
        print(f"  {name:24}{count:>8,}")


CHAPTERS = (
    opening,
    people,
    mail,
    known,
    cards,
    transfers,
    exchanges,
    trouble,
    fraud,
    review,
    webhooks,
    end_of_day,
    numbers,
)
