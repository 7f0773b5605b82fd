"""Exactly-once Faust on librdkafka: the App, agents, tables and topics stay, the transport is ours.

    poll --records of each task--> agents --outputs, table changes, offsets--> one Kafka transaction

Knows nothing of banking. `README.md` beside this file states each guarantee and the test that shows it.
A name is loaded when it is first asked for: who only computes a key's partition, or reads a log, loads no Faust.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.admin import LATEST, READ_COMMITTED, Admin
    from streaming.app import App
    from streaming.closing import close_client, close_member
    from streaming.config import DriverConfig
    from streaming.context import Batch, current_batch, outside
    from streaming.errors import (
        DriverError,
        ExitCode,
        Fenced,
        Inconsistent,
        Misuse,
        NotOwned,
        Poison,
        RecordFailed,
        Unsupported,
        is_fatal,
    )
    from streaming.owners import partition_owners
    from streaming.partitioner import partition_of
    from streaming.stores import MemoryStore, Store
    from streaming.tables import Table, TableView
    from streaming.topics import Topic

# name -> its module
_HOMES = {
    "LATEST": "admin",
    "READ_COMMITTED": "admin",
    "Admin": "admin",
    "App": "app",
    "Batch": "context",
    "DriverConfig": "config",
    "DriverError": "errors",
    "ExitCode": "errors",
    "Fenced": "errors",
    "Inconsistent": "errors",
    "MemoryStore": "stores",
    "Misuse": "errors",
    "NotOwned": "errors",
    "Poison": "errors",
    "RecordFailed": "errors",
    "Store": "stores",
    "Table": "tables",
    "TableView": "tables",
    "Topic": "topics",
    "Unsupported": "errors",
    "close_client": "closing",
    "close_member": "closing",
    "current_batch": "context",
    "is_fatal": "errors",
    "outside": "context",
    "partition_of": "partitioner",
    "partition_owners": "owners",
}
__all__ = [
    "LATEST",
    "READ_COMMITTED",
    "Admin",
    "App",
    "Batch",
    "DriverConfig",
    "DriverError",
    "ExitCode",
    "Fenced",
    "Inconsistent",
    "MemoryStore",
    "Misuse",
    "NotOwned",
    "Poison",
    "RecordFailed",
    "Store",
    "Table",
    "TableView",
    "Topic",
    "Unsupported",
    "close_client",
    "close_member",
    "current_batch",
    "is_fatal",
    "outside",
    "partition_of",
    "partition_owners",
]


def __getattr__(name: str) -> object:
    """PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
