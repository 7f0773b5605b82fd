"""The command line of `pipeline.py`: each command is a function of settings and its options, declared beside it.

    run      worker, gateway                        prove    verify, audit
    install  topics, stores, create-admin           mend     projections, tables
    order    rates, redrive                         look     replay, timeline, query

What takes long to load is imported where it is used: a worker loads no store that it does not fill, and of the other
commands only `gateway` loads anything of Faust, its types.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

import streaming
from agents.ask import Unanswered
from agents.errors import CannotStart
from agents.project import Lost
from agents.redrive import NoOrigin
from command_line import install, look, mend, order, prove, run
from proof.mend import NoFold, Running
from proof.rebuild import CutOff
from settings import BadSetting, Settings
from stores.catalog import OtherSchema, Unavailable
from topics.apply import TopicMismatch
from travel.errors import BadMoment, Refused, TooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

Run = Callable[[Settings, argparse.Namespace], int]
Add = Callable[[str, Run, str], argparse.ArgumentParser]

# what a person can mend: its sentence says how
EXPECTED = (
    BadMoment,
    BadSetting,
    CannotStart,
    CutOff,
    LookupError,
    Lost,
    NoFold,
    NoOrigin,
    OtherSchema,
    Refused,
    Running,
    TooLarge,
    TopicMismatch,
    Unanswered,
    Unavailable,
    streaming.DriverError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; answers its exit code. A failure that a person can mend is one sentence on stderr and 1."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(Settings.load(), options))
    except EXPECTED as exc:
        return _fail(str(exc))
    except KafkaException as exc:
        said = exc.args[0]
        return _fail(f"Kafka: {said.str() if hasattr(said, 'str') else said}")
    except KeyboardInterrupt:
        return 130


def _fail(sentence: str) -> int:
    print(f"pipeline: {sentence}", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """All commands with their options and help."""
    whole = argparse.ArgumentParser(
        prog="pipeline.py",
        description="Streambank: money over Kafka, exactly once.",
        epilog="Settings come from the environment and .env: see docs/configuration.md.",
    )
    commands: Any = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, does: Run, about: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=does)
        return command

    for module in (run, install, prove, mend, order, look):
        module.declare(add)
    return whole
