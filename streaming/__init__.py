"""Exactly-once Faust on librdkafka: the App, agents, tables and topics stay, the transport is ours.

    poll --records of each task--> agents --outputs, table changes, offsets--> one Kafka transaction

Knows nothing of banking. `README.md` beside this file states each guarantee and the test that shows it.
"""

from streaming.admin import LATEST, READ_COMMITTED, Admin
from streaming.app import App
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
    "current_batch",
    "is_fatal",
    "outside",
    "partition_of",
    "partition_owners",
]
