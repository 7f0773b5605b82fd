"""Transaction: orders and their one end. Commands arrive under transaction_id."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.transaction import TRANSACTION, CancelTransaction, CreateTransaction

SERVICE = Service(
    decider=TRANSACTION,
    command_keys={
        CreateTransaction: attrgetter("transaction_id"),
        CancelTransaction: attrgetter("transaction_id"),
    },
)
