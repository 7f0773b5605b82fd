"""Transaction: orders and their one end. Commands arrive under transaction_id, or as the price list."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.prices import PRICE_LIST, SetPriceList
from domain.transaction import TRANSACTION, CancelTransaction, CreateTransaction

SERVICE = Service(
    decider=TRANSACTION,
    command_keys={
        CreateTransaction: attrgetter("transaction_id"),
        CancelTransaction: attrgetter("transaction_id"),
        SetPriceList: lambda _: PRICE_LIST,
    },
)
