"""What a log line says, and what it must never say."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from logs import HIDDEN, Context, JsonFormatter, bound, trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"


def line(message: str, level: int = logging.INFO, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("test", level, __file__, 1, message, (), None)
    vars(record).update(extra)
    return json.loads(JsonFormatter("account").format(record))


def test_one_object_with_the_fields_of_the_contract() -> None:
    found = line("opened", account_id="A1")
    assert list(found) == [
        "timestamp", "level", "service", "traceId", "userId", "message", "metadata",
    ]  # fmt: skip
    assert (found["level"], found["service"], found["message"]) == ("INFO", "account", "opened")
    assert found["metadata"]["account_id"] == "A1"
    assert found["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "name"),
    [(10, "DEBUG"), (20, "INFO"), (30, "WARN"), (40, "ERROR"), (50, "ERROR"), (5, "DEBUG")],
)
def test_levels(level: int, name: str) -> None:
    assert line("x", level)["level"] == name


def test_the_context_names_service_trace_and_user() -> None:
    with bound(Context(service="risk", trace_id=TRACE, user_id="U1")):
        found = line("scored")
    assert (found["service"], found["traceId"], found["userId"]) == ("risk", TRACE, "U1")
    assert line("after")["traceId"] is None


def test_secrets_never_get_out() -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
    found = line(f"got Bearer abc123 and {jwt}", headers={"Authorization": "x"}, password="p")
    assert found["message"] == f"got Bearer {HIDDEN} and {HIDDEN}"
    assert found["metadata"]["headers"] == {"Authorization": HIDDEN}
    assert found["metadata"]["password"] == HIDDEN


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [(f"00-{TRACE}-b7ad6b7169203331-01", TRACE), ("", None), (None, None), ("00-12-34-01", None)],
)
def test_trace_id_of_traceparent(traceparent: str | None, expected: str | None) -> None:
    assert trace_id(traceparent) == expected
