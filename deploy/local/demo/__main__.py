"""`make demo`: the day, then `verify` and `audit verify`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from deploy.local.demo.client import Client
from deploy.local.demo.day import CHAPTERS, Day
from deploy.local.demo.receiver import Receiver
from deploy.local.places import ROOT, Places, local_directory
from deploy.local.processes import StackError, recorded, say

if TYPE_CHECKING:
    from collections.abc import Mapping

AT_ONCE = 200  # open connections


def main() -> int:
    places = Places(local_directory())
    ours = recorded(places.pid) is None
    if ours:
        say("no system runs: starting one")
        _command(sys.executable, "-m", "deploy.local", "up")
    try:
        asyncio.run(_day(places))
        print("\nverify: all state computed again from the logs\n", flush=True)
        proven = _command(sys.executable, "pipeline.py", "verify", check=False)
        print("\naudit verify: the chains of all that was said, linked again\n", flush=True)
        return proven or _command(sys.executable, "pipeline.py", "audit", "verify", check=False)
    except StackError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    finally:
        if ours:
            _command(sys.executable, "-m", "deploy.local", "down")


def _command(*command: str, check: bool = True) -> int:
    return subprocess.run(command, cwd=ROOT, check=check).returncode


async def _day(places: Places) -> None:
    state = json.loads(places.state.read_text())
    papers = places.local / "demo"
    papers.mkdir(parents=True, exist_ok=True)
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with (
        aiohttp.ClientSession(state["gateway"], connector=connector) as session,
        Receiver() as receiver,
    ):
        admin = await _admin(session, json.loads(places.admin.read_text()))
        day = Day(session, admin, papers, receiver, Path(state["mail"]))
        for chapter in CHAPTERS:
            await chapter(day)


async def _admin(session: aiohttp.ClientSession, known: Mapping[str, Any]) -> Client:
    admin = Client(session, name="admin", email=known["email"], password=known["password"])
    await admin.log_in()
    return admin


if __name__ == "__main__":
    sys.exit(main())
