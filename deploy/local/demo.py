"""A day at the bank, over HTTP: `make demo`, on the running system or one started for it.

People register and open accounts, an operator pays money in, 1,000 transfers are ordered at once, one is refused, one
is put back because its recipient is frozen. Printed: the outcomes, one trace, the trial balance, `verify`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from deploy.local.places import ROOT, Places, local_directory
from deploy.local.processes import StackError, recorded, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PEOPLE = ("Ada", "Bela", "Chidi", "Dana", "Emeka", "Farah", "Goran", "Hana")
TRANSFERS = 1_000
AT_ONCE = 200  # open connections
OPENING_MINOR = 5_000_00


@dataclass(slots=True)
class Client:
    """One person at the gateway."""

    session: aiohttp.ClientSession
    token: str = ""
    user_id: str = ""
    accounts: dict[str, str] = field(default_factory=dict)  # name -> account_id

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON of one request; waits for the outcome, repeats on 503 with the same key."""
        sent = {"Prefer": "wait=30", **headers}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if method == "POST":
            sent.setdefault("Idempotency-Key", str(uuid.uuid4()))
        for _ in range(30):
            async with self.session.request(method, path, json=body, headers=sent) as answer:
                if answer.status != 503:
                    return answer.status, await answer.json(content_type=None)
                await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
        raise StackError(f"{method} {path}: the gateway said 503 for too long")

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        """As `call`, for what must succeed."""
        status, found = await self.call(method, path, body)
        if status not in {200, 201}:
            raise StackError(f"{method} {path} answered {status}: {json.dumps(found)}")
        return found

    async def log_in(self, email: str, password: str) -> None:
        found = await self.done("POST", "/api/auth/login", {"email": email, "password": password})
        self.token = found["access_token"]


def main() -> int:
    places = Places(local_directory())
    ours = recorded(places.pid) is None
    if ours:
        say("no system runs: starting one")
        _command(sys.executable, "-m", "deploy.local", "up")
    try:
        state = json.loads(places.state.read_text())
        admin = json.loads(places.admin.read_text())
        asyncio.run(_day(state["gateway"], admin))
        print("\nverify: all state computed again from the logs\n")
        return _command(sys.executable, "pipeline.py", "verify", check=False)
    except StackError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    finally:
        if ours:
            _command(sys.executable, "-m", "deploy.local", "down")


def _command(*command: str, check: bool = True) -> int:
    return subprocess.run(command, cwd=ROOT, check=check).returncode


async def _day(url: str, admin: Mapping[str, str]) -> None:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        operator = Client(session)
        await operator.log_in(admin["email"], admin["password"])
        people = await _open(session, operator)
        outcomes = await _transfers(operator, people)
        refused = await _refused(people)
        put_back = await _put_back(operator, people)
        _table("Outcomes", outcomes)
        for name, found in (("refused", refused), ("put back", put_back)):
            print(f"  {name}: {found['status']}, {found.get('reason')}")
        await _trace(operator, put_back["transaction_id"])
        await _balances(operator, people)


async def _open(session: aiohttp.ClientSession, operator: Client) -> Mapping[str, Client]:
    say(f"{len(PEOPLE)} people register and open an account each; an operator pays in")
    people = {name: Client(session) for name in PEOPLE}

    async def open_one(name: str, person: Client) -> None:
        email, password = f"{name.lower()}.{uuid.uuid4().hex[:8]}@example.org", uuid.uuid4().hex
        body = {"email": email, "password": password, "name": name}
        person.user_id = (await person.done("POST", "/api/users", body))["user_id"]
        await person.log_in(email, password)
        account = await person.done("POST", "/api/accounts", {"currencies": ["USD"], "name": name})
        person.accounts["USD"] = account["account_id"]
        deposit = {
            "type": "deposit",
            "amount": OPENING_MINOR,
            "currency": "USD",
            "destination_account_id": account["account_id"],
        }
        await operator.done("POST", "/api/transactions", deposit)

    await asyncio.gather(*(open_one(name, person) for name, person in people.items()))
    return people


def _order(source: Client, destination: Client, amount_minor: int) -> dict[str, Any]:
    return {
        "type": "transfer",
        "amount": amount_minor,
        "currency": "USD",
        "source_account_id": source.accounts["USD"],
        "destination_account_id": destination.accounts["USD"],
    }


async def _transfers(operator: Client, people: Mapping[str, Client]) -> Counter[str]:
    say(f"{TRANSFERS:,} transfers at once")
    clients = list(people.values())
    started = time.monotonic()

    async def one(n: int) -> str:
        source, destination = clients[n % len(clients)], clients[(n * 3 + 1) % len(clients)]
        if source is destination:
            destination = clients[(n + 1) % len(clients)]
        _, found = await operator.call(
            "POST", "/api/transactions", _order(source, destination, 1 + n % 500)
        )
        return str(
            found.get("status") if isinstance(found.get("status"), str) else found.get("code")
        )

    outcomes = Counter(await asyncio.gather(*(one(n) for n in range(TRANSFERS))))
    seconds = time.monotonic() - started
    say(f"each with its final answer after {seconds:.1f} s ({TRANSFERS / seconds:,.0f}/s)")
    return outcomes


async def _refused(people: Mapping[str, Client]) -> Any:
    """Ada orders more than she has: nothing moves."""
    body = _order(people["Ada"], people["Bela"], 60_000)
    for _ in range(20):
        _, found = await people["Ada"].call("POST", "/api/transactions", body)
        if found.get("code"):
            break
    status, shown = await people["Ada"].call("GET", f"/api/transactions/{found['transaction_id']}")
    assert status == 200, shown
    return shown


async def _put_back(operator: Client, people: Mapping[str, Client]) -> Any:
    """Hana is frozen when money for her arrives: the debit is put back on Goran's account."""
    goran, hana = people["Goran"], people["Hana"]
    await operator.done("POST", f"/api/accounts/{hana.accounts['USD']}/freeze")
    _, found = await goran.call("POST", "/api/transactions", _order(goran, hana, 12_34))
    await operator.done("POST", f"/api/accounts/{hana.accounts['USD']}/unfreeze")
    return (await goran.call("GET", f"/api/transactions/{found['transaction_id']}"))[1]


async def _trace(operator: Client, transaction_id: str) -> None:
    trace = await operator.done("GET", f"/api/transactions/{transaction_id}/trace")
    print(f"\nTrace of {transaction_id} (put back)\n")
    for step in trace["steps"]:
        print(f"  {step['at']:28} {step['service']:14} {step['step']:10} {step['outcome']}")


async def _balances(operator: Client, people: Mapping[str, Client]) -> None:
    print("\nTrial balance of the day (USD, minor units)\n")
    total = 0
    for name, person in people.items():
        account = await operator.done("GET", f"/api/accounts/{person.accounts['USD']}")
        amount_minor = account["balances"][0]["amount"]
        total += amount_minor
        print(f"  {name:16}{amount_minor:>14,}")
    paid_in = OPENING_MINOR * len(people)
    print(f"  {'world':16}{-paid_in:>14,}   (paid in by the operator)")
    print(f"  {'sum':16}{total - paid_in:>14,}   must be 0")
    if total != paid_in:
        raise StackError(f"the trial balance is off by {total - paid_in} minor units")


def _table(title: str, counts: Mapping[str, int]) -> None:
    print(f"\n{title} of {sum(counts.values()):,} transfers\n")
    rows: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda row: -row[1])
    for name, count in rows:
        print(f"  {name:20}{count:>8,}")


if __name__ == "__main__":
    sys.exit(main())
