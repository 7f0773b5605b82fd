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
from typing import TYPE_CHECKING, Any

import aiohttp

from deploy.local.demo.client import Client, order, transfer
from deploy.local.demo.receiver import Receiver
from deploy.local.processes import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable

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
OFFICE = 20  # registrations at once: a password takes a quarter of a second of a core
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
    queue: asyncio.Task[list[Client]] | None = None  # of those who register while the day goes on
    began_s: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        print(f"\n{self.seconds:5.1f} s  {line}", flush=True)

    @property
    def seconds(self) -> float:
        """Of the day so far."""
        return time.monotonic() - self.began_s

    @property
    def named(self) -> list[Client]:
        """Those who order themselves; for the others an operator does."""
        return self.people[: len(NAMES)]

    def of(self, name: str) -> Client:
        return self.named[NAMES.index(name)]


async def opening(day: Day) -> None:
    """Rates and prices of the day."""
    day.say("The bank opens: rates and prices of the day")
    await day.admin.done("PUT", "/api/rates", {"base": "EUR", "rates": RATES})
    fees = {"prices": [{"type": "withdrawal", "currency": "EUR", "flat": 100, "rate_ppm": 2_000}]}
    await day.admin.done("PUT", "/api/price-list", fees)


async def people(day: Day) -> None:
    """Twelve who order themselves register and log in; the others queue while the day goes on."""
    day.say(
        f"{len(NAMES)} people register, log in and open accounts in EUR and USD; "
        f"{PEOPLE - len(NAMES)} more queue at the counter"
    )
    day.people += await _registered(day, NAMES)
    await asyncio.gather(*(person.log_in() for person in day.named))
    others = [f"Person{n}" for n in range(len(NAMES), PEOPLE)]
    day.queue = asyncio.create_task(_registered(day, others))
    await _opened(day, day.named)


async def _registered(day: Day, names: Iterable[str]) -> list[Client]:
    office = asyncio.Semaphore(OFFICE)

    async def one(name: str) -> Client:
        person = Client(day.session)
        async with office:
            await person.register(name)
        return person

    return await asyncio.gather(*(one(name) for name in names))


async def _opened(day: Day, people: Iterable[Client]) -> None:
    """An operator opens an account for each, then pays in: all at once, as a branch sends its day's work."""

    async def account(person: Client) -> None:
        body = {"currencies": ["EUR", "USD"], "name": person.name, "user_id": person.user_id}
        found = await day.admin.done("POST", "/api/accounts", body)
        person.accounts = dict.fromkeys(("EUR", "USD"), found["account_id"])

    async def pay_in(person: Client) -> None:
        destination = person.accounts["EUR"]
        body = order("deposit", OPENING_MINOR, "EUR", destination_account_id=destination)
        await day.admin.done("POST", "/api/transactions", body)

    await asyncio.gather(*(account(person) for person in people))
    await asyncio.gather(*(pay_in(person) for person in people))


async def crowd(day: Day) -> None:
    """The last of the queue; they get their accounts together."""
    assert day.queue is not None
    day.say("The queue at the counter is served")
    others = await day.queue
    day.say(
        f"{len(others)} accounts are opened and {_money(OPENING_MINOR)} EUR paid into each, by an operator"
    )
    await _opened(day, others)
    day.people += others


async def mail(day: Day) -> None:
    """Ada opens the mail that she was sent and confirms her address with what stands in it."""
    day.say("Ada reads the mail that the bank sent her")
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
    print(f"  {subject!r}: with what stands in it her address is {state}")


def _mail_to(directory: Path, address: str) -> tuple[str, str] | None:
    """Subject and text of a mail to somebody."""
    for path in directory.glob("*.eml"):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if str(message["To"]) == address and "onfirm" in str(message["Subject"]):
            body = message.get_body(("plain",))
            return str(message["Subject"]), body.get_content() if body else ""
    return None


async def known(day: Day) -> None:
    """Seven of them show who they are; one is not believed."""
    day.say("Compliance looks at who the customers say they are")
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
    _counts(levels)


async def cards(day: Day) -> None:
    """Pay-ins by card through the provider, which declines one and does not answer another at first."""
    day.say(
        f"{len(NAMES)} pay in by card: one is declined, one the provider answers only when asked again"
    )
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
    _counts(outcomes)


async def transfers(day: Day) -> None:
    """A thousand at once."""
    day.say(f"{TRANSFERS:,} transfers at once, each over HTTP to its final answer")
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
    _counts(outcomes)
    print(f"  in {seconds:.1f} s ({TRANSFERS / seconds:,.0f}/s)")


async def exchanges(day: Day) -> None:
    """Euros into dollars: at the rate of the day, and at one that was held."""
    day.say("Exchanges of euros into dollars")
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
        rate = "at a rate that was held" if n % 2 else "at the rate of the day"
        bought = _money(_moved(found, "USD"))
        lines.append(f"  {person.name:10} {_money(body['amount'])} EUR gave {bought} USD {rate}")
    print(*lines[:2], f"  and {len(lines) - 2} more", sep="\n")


async def trouble(day: Day) -> None:
    """Refused, put back, cancelled too late, undone: what a bank is for."""
    day.say("What does not go well, and how it is put right")
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
    for what, outcome in lines:
        print(f"  {what:34}{outcome}")
    await _trace(day, back["transaction_id"])


async def fraud(day: Day) -> None:
    """A ring passes money in a circle; after the first of them is listed nothing passes any more."""
    day.say("A ring of fraud passes money in a circle; its first account is on the blacklist")
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
    _counts(outcomes)


async def review(day: Day) -> None:
    """A large amount of somebody whom the bank hardly knows waits for a person, who lets it pass."""
    day.say("Hana orders an unusual transfer: it waits until compliance has looked at it")
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
        f"  810.00 EUR, score {found[0]['score']} ({rules}), approved by a person: {ended['status']}"
    )


async def webhooks(day: Day) -> None:
    """Lena's shop is told of each transaction; its server fails at first, and gets all in the end."""
    day.say("Lena's shop is told of its transactions by webhooks; its server fails at first")
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
        f"  {day.receiver.failed} tries failed, then {day.receiver.taken} of {len(sent)} arrived, signed"
    )


async def end_of_day(day: Day) -> None:
    """Batches are closed and held against the provider's statement; papers are written meanwhile."""
    day.say("End of day: settlement with the provider, a statement, a report")
    await asyncio.gather(_settled(day), _papers(day))


async def _settled(day: Day) -> None:
    await day.admin.done("POST", "/api/settlements/run", {})
    batches = await _until(day, "closed batches", "/api/settlements?limit=200", lambda items: [
        one for one in items if one["status"] != "open"
    ])  # fmt: skip
    for batch in batches:
        print(
            f"  batch {batch['settlement_id']}: {batch['items']} items, "
            f"net {_money(batch['net'])} {batch['currency']}"
        )


async def _papers(day: Day) -> None:
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
    download = f"/api/reports/{report['report_id']}/download?format="
    papers = {
        "statement-ada.pdf": await ada.file(statement),
        "report.pdf": await day.admin.file(f"{download}pdf"),
        "report.xlsx": await day.admin.file(f"{download}xlsx"),
    }
    for name, data in papers.items():
        (day.papers / name).write_bytes(data)
        print(f"  {day.papers / name}  {len(data):,} bytes")


async def numbers(day: Day) -> None:
    """What the day came to, by analytics."""
    day.say("What ended today, as analytics counted it")
    found = await day.admin.done(
        "GET", "/api/analytics/reports?metric=count&interval=day&group_by=type"
    )
    today = max((one["start"] for one in found["items"]), default="")
    for one in found["items"]:
        if one["start"] == today:
            print(f"  {one['type']:24}{one['completed']:>8,} completed{one['failed']:>6,} failed")


async def _trace(day: Day, transaction_id: str) -> None:
    trace = await day.admin.done("GET", f"/api/transactions/{transaction_id}/trace")
    print("\n  The trace of what was put back:")
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


def _money(amount_minor: int) -> str:
    """An amount of a currency with cents."""
    return f"{amount_minor / 100:,.2f}"


def _moved(found: Any, currency: str) -> int:
    for balance in found["balances"]:
        if balance["currency"] == currency:
            return int(balance["after"] - balance["before"])
    return 0


def _counts(counts: Counter[str]) -> None:
    for name, count in sorted(counts.items(), key=lambda row: -row[1]):
        print(f"  {name:24}{count:>8,}")


CHAPTERS = (
    opening,
    people,
    mail,
    known,
    cards,
    crowd,
    transfers,
    exchanges,
    trouble,
    fraud,
    review,
    webhooks,
    end_of_day,
    numbers,
)
