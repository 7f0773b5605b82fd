"""Logs: one JSON object a line, `timestamp, level, service, traceId, userId, message, metadata`.

    configure("account")                      once per process
    bound(Context(service="account", trace_id=…))   around the work on one message or request

What runs inside `bound` logs with that context, libraries too. Secrets never get out: values
under the names in `SECRET` and anything that looks like a token are replaced.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = {
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
}
SECRET = re.compile(
    r"password|secret|token|authorization|cookie|api_?key|iban|card|credential|email|phone", re.I
)
# a JWT, or what follows the word Bearer
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=Bearer )\S+")
HIDDEN = "[hidden]"
QUIET = ("aiohttp.access", "asyncio", "faust", "mode", "aiokafka")
LIFE = ("Starting...", "Stopping...", "-Stopped!", "Shutting down...", "Gathering service tasks...")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Whose work this is."""

    service: str
    trace_id: str | None = None
    user_id: str | None = None


class Bound(Protocol):
    """What a log line takes its context from: a `Context`, or something that finds it when asked."""

    @property
    def service(self) -> str: ...

    @property
    def trace_id(self) -> str | None: ...

    @property
    def user_id(self) -> str | None: ...


context: ContextVar[Bound | None] = ContextVar("log_context", default=None)


@contextmanager
def bound(value: Context) -> Iterator[None]:
    """Log with this context inside the block."""
    token = context.set(value)
    try:
        yield
    finally:
        context.reset(token)


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C `traceparent` header, None when there is none or it is malformed."""
    parts = traceparent.split("-") if traceparent else ()
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None


def configure(service: str, level: str = "INFO") -> None:
    """Send everything that is logged to stderr as JSON. `level` is a name of `LEVELS`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    handler.addFilter(_says_something)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for name in QUIET:
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))


def _says_something(record: logging.LogRecord) -> bool:
    """Faust tells of each part of it that starts or stops; errors of theirs are told anyway."""
    return record.levelno > logging.INFO or not str(record.msg).endswith(LIFE)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; `extra` fields become `metadata`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        bound_to = context.get()
        line = {
            "timestamp": timestamp(record.created),
            "level": _level(record.levelno),
            "service": bound_to.service if bound_to else self.service,
            "traceId": bound_to.trace_id if bound_to else None,
            "userId": bound_to.user_id if bound_to else None,
            "message": TOKEN.sub(HIDDEN, record.getMessage()),
            "metadata": self._metadata(record),
        }
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()

    def _metadata(self, record: logging.LogRecord) -> dict[str, Any]:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        extra["logger"] = record.name
        if record.exc_info:
            extra["exception"] = TOKEN.sub(HIDDEN, self.formatException(record.exc_info))
        return {name: _clean(name, value) for name, value in extra.items()}


def timestamp(seconds: float) -> str:
    """Unix seconds as RFC 3339 with milliseconds and Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _level(number: int) -> str:
    return next((name for name, least in LEVELS.items() if number >= least), "DEBUG")


def _clean(name: str, value: Any) -> Any:
    if SECRET.search(name):
        return HIDDEN
    if isinstance(value, dict):
        return {key: _clean(str(key), item) for key, item in value.items()}
    return TOKEN.sub(HIDDEN, value) if isinstance(value, str) else value
