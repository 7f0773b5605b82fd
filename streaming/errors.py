"""What can go wrong, by who must deal with it.

A `Poison` record goes where its topic's policy says. `RecordFailed` retries one record alone, `CommitFailed` looks
for the one that is the cause. `Misuse`, `Unsupported` and `NotOwned` are raised where the mistake is. A
`DriverError` ends the process with its exit code: nothing was committed, its supervisor starts it again from the
committed state.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError

if TYPE_CHECKING:
    from confluent_kafka import KafkaException
    from faust.types import TP


class ExitCode(IntEnum):
    """How a worker process ends when it must not go on."""

    FENCED = 70  # another process has our transactional id or partitions: restart
    INCONSISTENT = 71  # offsets, changelog and topology do not fit each other: a person must look
    STUCK = 72  # a record or a transaction took longer than it may: restart
    UNKNOWN_OUTCOME = 73  # the broker never told whether a transaction was committed: restart
    BROKEN = 74  # an error that nothing here expects: restart


class DriverError(Exception):
    """An error of the driver itself; ends the process with `exit_code`."""

    exit_code = ExitCode.BROKEN


class Fenced(DriverError):
    """Another process took over: nothing of ours may be written any more."""

    exit_code = ExitCode.FENCED


class Inconsistent(DriverError):
    """What the group, the changelog and the code say about the input do not fit each other."""

    exit_code = ExitCode.INCONSISTENT


class Stuck(DriverError):
    """An agent, or a transaction, did not come to an end in time."""

    exit_code = ExitCode.STUCK


class UnknownOutcome(DriverError):
    """A commit was asked for and never answered."""

    exit_code = ExitCode.UNKNOWN_OUTCOME


class Misuse(RuntimeError):
    """The code that runs on the driver does what would break exactly-once; the message says what to do."""


class Unsupported(NotImplementedError):
    """A part of Faust that is not exactly-once on this driver; the message says what to use instead."""


def refused(sentence: str) -> Any:
    """A method that is not supported: it raises Unsupported with this sentence, whatever it is given."""

    def method(self: Any, *args: Any, **kw: Any) -> Any:
        raise Unsupported(sentence)

    return method


class NotOwned(LookupError):
    """This process does not hold (or can't be sure to hold) the partition of a table: ask its owner."""


class Poison(Exception):
    """Raised by a value codec's `loads`: these bytes can't be read, today or ever.

    `stops` is for a record that must not be passed by: its partition stops instead.
    """

    stops = False


class RecordFailed(Exception):
    """An agent raised while it worked on `tp`@`offset` (None: it is not known at which record)."""

    def __init__(self, tp: TP, offset: int | None, cause: BaseException) -> None:
        super().__init__(f"{tp.topic}-{tp.partition}@{offset}: {cause!r}")
        self.tp, self.offset, self.cause = tp, offset, cause


class CommitFailed(Exception):
    """A transaction could not be committed, and it is not known which record is the cause."""


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that reported this error is broken for good.

    A broken consumer reports `_FATAL`, once, without the mark of a fatal error, and is silent ever after.
    """
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def kafka_error(exc: KafkaException) -> KafkaError:
    """What Kafka says in an exception; one that carries only text (a registry's client raises such) is no error of
    the transaction and never passes for an outage of it.
    """
    error = exc.args[0] if exc.args else None
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._APPLICATION, str(exc))
