"""How commands that take long say it: results on stdout at once, all else on stderr."""

from __future__ import annotations

import sys
from typing import Any

import orjson


def json_text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def show(line: str) -> None:
    print(line, flush=True)


def pass_over(line: str) -> None:
    """What a brief answer leaves out."""


def tell(line: str) -> None:
    """What is no result, such as progress."""
    print(line, file=sys.stderr, flush=True)
