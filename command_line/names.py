"""Reads arguments: names of services, files, whole numbers; says what is not configured."""

from __future__ import annotations

import argparse
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from agents.errors import CannotStart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def picked(
    given: Sequence[str], known: Sequence[str], all_: Sequence[str] | None = None
) -> list[str]:
    """Those that are named; `all` names `all_`, else all that are known."""
    if unknown := [name for name in given if name not in (*known, "all")]:
        raise CannotStart(
            f"there is no service {unknown[0]}; there are {', '.join(known)}, and all"
        )
    named = {*given, *((all_ or known) if "all" in given else ())}
    return [name for name in known if name in named]


def not_configured(*stores: str) -> str:
    urls = [f"STREAMBANK_{store.upper()}_URL" for store in stores]
    return f"there is no {' and no '.join(stores)}: set {' or '.join(urls)}"


def opened(file: Path) -> BinaryIO:
    """To read. Raises CannotStart where there is none."""
    if not file.is_file():
        raise CannotStart(f"there is no file {file}")
    return file.open("rb")


def writable(file: Path) -> Path:
    """To be written once what it is to hold is known. Raises CannotStart where that can't be."""
    there = file if file.exists() else file.parent
    if file.is_dir() or not file.parent.is_dir() or not os.access(there, os.W_OK):
        raise CannotStart(f"{file} can't be written")
    return file


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Around what writes it. Raises CannotStart when that fails, as on a disk that is full."""
    try:
        yield
    except OSError as exc:
        raise CannotStart(f"{file} can't be written: {exc.strerror or exc}") from exc


def whole_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 0 < int(text) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000000")
    return int(text)


def seconds(text: str) -> int:
    return 0 if text == "0" else whole_number(text)
