"""What can be wrong with bytes, and with schemas."""

from __future__ import annotations

from streaming.errors import Poison


class Unreadable(Poison):
    """These bytes are no message of ours: not today, not after a retry."""


class UnknownSchema(Unreadable):
    """No schema has this id here: garbage, or a writer newer than all that this worker can ask.

    Whether the partition may go on without the record is for its reader to say: a routed fact must
    not be passed by, a stranger's command may.
    """

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"no schema has the id {schema_id}")
        self.schema_id = schema_id


class SchemaMistake(Exception):
    """A schema, its dataclass and the lock file do not fit each other; the message says where."""
