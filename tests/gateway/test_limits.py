"""How much a customer may order, by how well the bank knows them: from the first order to a higher level."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.gateway.test_end_to_end import deposit, funded
from tests.gateway.test_users import BASIC

if TYPE_CHECKING:
    from tests.gateway.stand import Got, Person, Town


async def send(person: Person, source: str, destination: str, amount: int) -> Got:
    to = {"source_account_id": source, "destination_account_id": destination}
    return await person.pay(amount=amount, **to)


def outcome(got: Got) -> tuple[int, str]:
    """The status, and the code of a problem or what became of the transaction."""
    return got.status, got.code if got.status >= 400 else str(got.json["status"])


async def test_a_level_raises_what_may_be_ordered_from_the_next_order_on(people: Town) -> None:
    alice, source = await funded(people, "alice", 4_000_000)
    other = await (await people.customer("bob")).open("USD")
    officer = await people.staff("compliance")
    kyc = f"/api/users/{alice.user_id}/kyc"
    too_much, day_over = (422, "TRANSACTION_LIMIT"), (422, "DAILY_LIMIT")
    done = (201, "completed")

    # unverified: 100,000 in one order and a day
    assert outcome(await send(alice, source, other, 100_001)) == day_over
    assert outcome(await send(alice, source, other, 70_000)) == done
    refused = await send(alice, source, other, 30_001)
    assert outcome(refused) == day_over
    failed = (await alice.get(f"/api/transactions/{refused.json['transaction_id']}")).json
    assert (failed["status"], failed["reason"], failed["balances"]) == ("failed", "DAILY_LIMIT", [])
    assert await alice.balance(source) == 3_930_000
    assert outcome(await send(alice, source, other, 30_000)) == done

    # asked for, or rejected: nothing has changed
    assert (await alice.post(kyc, BASIC)).json["status"] == "pending"
    assert outcome(await send(alice, source, other, 1)) == day_over
    word = {"decision": "reject", "note": "the name is not that of the document"}
    assert (await officer.post(f"{kyc}/decision", word)).json["status"] == "rejected"
    told = (await alice.get(kyc)).json
    assert (told["status"], told["level"], told["note"]) == ("rejected", 0, word["note"])
    assert outcome(await send(alice, source, other, 1)) == day_over

    # verified: 1,000,000 in one order and 2,000,000 a day, of which 100,000 are gone
    assert (await alice.post(kyc, BASIC)).status == 200
    approved = await officer.post(f"{kyc}/decision", {"decision": "approve"})
    assert (approved.json["status"], approved.json["level"]) == ("verified", 1)
    assert outcome(await send(alice, source, other, 700_000)) == done
    assert outcome(await send(alice, source, other, 1_000_001)) == too_much
    assert outcome(await send(alice, source, other, 700_000)) == done
    assert outcome(await send(alice, source, other, 500_001)) == day_over
    assert outcome(await send(alice, source, other, 500_000)) == done
    assert await alice.balance(source) == 2_000_000


async def test_one_customers_level_is_no_one_elses(people: Town) -> None:
    alice, mine = await funded(people, "alice", 200_000)
    bob, his = await funded(people, "bob", 200_000)
    officer, operator = await people.staff("compliance"), await people.staff("operator")
    kyc = f"/api/users/{alice.user_id}/kyc"
    assert (await alice.post(kyc, BASIC)).status == 200
    for person, path in ((bob, kyc), (officer, kyc), (operator, kyc)):
        assert outcome(await person.post(path, BASIC)) == (404, "NOT_FOUND")
    for person in (alice, bob, operator):
        got = await person.post(f"{kyc}/decision", {"decision": "approve"})
        assert outcome(got) == (403, "FORBIDDEN")
    assert outcome(await send(alice, mine, his, 100_001)) == (422, "DAILY_LIMIT")
    assert (await officer.post(f"{kyc}/decision", {"decision": "approve"})).status == 200
    assert outcome(await send(alice, mine, his, 100_001)) == (201, "completed")
    assert outcome(await send(bob, his, mine, 100_001)) == (422, "DAILY_LIMIT")


async def test_the_bound_is_of_customers_and_of_what_leaves_them(people: Town) -> None:
    """What others pay in, and what an operator orders, counts for nothing."""
    alice, source = await funded(people, "alice", 150_000)
    _, other = await funded(people, "bob", 1)
    operator = await people.staff("operator")
    await deposit(people, source, 150_000)
    assert outcome(await send(operator, source, other, 150_000)) == (201, "completed")
    assert outcome(await send(alice, source, other, 70_000)) == (201, "completed")
