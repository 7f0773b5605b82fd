"""Dry runs: the services' own deciders over copies of their rows, and nothing leaves this process.

    command --decide, evolve--> events --route--> the next service … --> the transaction as it would end

What a row says is read from the workers' tables when it is first needed. A rail is taken to say yes;
what others do meanwhile is not known. So the answer is what would happen if all stayed as it is.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict, deque
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from domain.decider import DUE, Overlay
from domain.payment_rail import RailAnswered, RailOperation, RailOutcome
from domain.saga import PaymentRequested
from domain.services import DECIDERS
from domain.transaction import TRANSACTION, Status, Transaction, transaction_key
from topics.subscriptions import route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from domain.transaction import CreateTransaction
    from gateway.queries import Row
    from gateway.services import Gateway

HOPS_LIMIT = 100  # messages of one rehearsal; a saga has a dozen


async def rehearse(gateway: Gateway, command: CreateTransaction) -> Transaction:
    """The transaction as it would end, or wait for a person, were it ordered now.

    Problem 503 while the tables that it needs are moving.
    """
    return await _Rehearsal(gateway, command).run()


class _Rehearsal:
    def __init__(self, gateway: Gateway, command: CreateTransaction) -> None:
        # an id of its own: the order itself may have been given under the caller's key
        self.command = replace(command, transaction_id=str(uuid.uuid4()))
        self.at_ms = int(time.time() * 1000)
        self.queries = gateway.queries
        self.rows: defaultdict[tuple[str, int], Overlay] = defaultdict(lambda: Overlay({}))
        self.queue: deque[tuple[str, str, Any]] = deque()

    async def run(self) -> Transaction:
        key = transaction_key(self.command.transaction_id)
        at = TRANSACTION.service, self.queries.partition(self.command.transaction_id)
        self.queue.append((TRANSACTION.service, self.command.transaction_id, self.command))
        for _ in range(HOPS_LIMIT):
            if not self.queue:
                break
            await self.handle(*self.queue.popleft())
            row: Transaction | None = self.rows[at].get(key)
            if row is not None and (row.status is not Status.PENDING or row.review_id):
                break
        found: Transaction = self.rows[at][key]
        return found

    async def handle(self, service: str, key: str, message: Any) -> None:
        decider, partition = DECIDERS[service], self.queries.partition(key)
        rows = self.rows[service, partition]
        await self.fetch(service, partition, decider.keys(message))
        for event in decider.decide(rows, message, self.at_ms):
            await self.fetch(service, partition, decider.keys(event))
            rows.changes.update(decider.evolve(rows, event))
            if isinstance(event, PaymentRequested):
                self.queue.append(("payment", event.order.transaction_id, _paid(event)))
            for topic, target in route(event):
                heard_by, _, kind = topic.partition(".")
                if kind == "inbox" and heard_by in DECIDERS and isinstance(target, str):
                    self.queue.append((heard_by, target, event))

    async def fetch(self, service: str, partition: int, keys: Iterable[str]) -> None:
        """Read what was not read yet; of what is new with this order there is nothing to read."""
        rows, own = self.rows[service, partition], self.command.transaction_id
        wanted = {
            key
            for key in keys
            if key not in rows.changes and own not in key and not key.startswith(DUE)
        }
        if wanted:
            found = await self.queries.rows(service, partition, [*wanted])
            rows.changes.update({key: as_row(service, found[key]) for key in wanted})


def _paid(request: PaymentRequested) -> RailAnswered:
    return RailAnswered(
        transaction_id=request.order.transaction_id,
        payment_id=request.payment_id,
        operation=RailOperation.PAY,
        attempt=request.attempt,
        outcome=RailOutcome.APPROVED,
        provider_reference="",
        detail="",
    )


def as_row(service: str, shown: Row | None) -> Any:
    """A row of a service again, from the JSON in which its worker shows it."""
    return None if shown is None else _readers(service)[frozenset(shown)].validate_python(shown)


@cache
def _readers(service: str) -> Mapping[frozenset[str], TypeAdapter[Any]]:
    """By the names of their members, which no two kinds of rows of a service have alike."""
    rows = DECIDERS[service].rows
    readers: dict[frozenset[str], TypeAdapter[Any]] = {
        frozenset(field.name for field in fields(row)): TypeAdapter(row) for row in rows
    }
    assert len(readers) == len(rows), f"two kinds of rows of {service} have the same members"
    return readers
