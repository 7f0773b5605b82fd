"""`make demo`: the day, then `verify` and `audit verify`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import time
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
    if ours or not places.state.exists():  # or it is just starting: waits until it is ready
        _command("-m", "deploy.local", "up")
    try:
        asyncio.run(_day(places))
        return _proofs()
    except StackError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    finally:
        if ours:
            _command("-m", "deploy.local", "down")


def _command(*command: str) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


# the command, and what it computes
PROOFS = {
    ("verify", "--brief"): "every balance, row and table of the stores, computed from the logs",
    ("audit", "verify"): "the chains of hashes over all that was said, linked again",
}


def _proofs() -> int:
    """All proofs side by side, each with its answer; 0 when nothing is wrong."""
    print("\nThe proofs, from the logs alone", flush=True)
    started_s = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "pipeline.py", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in PROOFS
    ]
    codes = []
    for (command, what), proof in zip(PROOFS.items(), running, strict=True):
        answer, progress = proof.communicate()
        codes.append(proof.returncode)
        print(f"\n  {' '.join(('pipeline.py', *command))}: {what}\n")
        print(textwrap.indent(answer + (progress if proof.returncode else ""), "    "), flush=True)
    print(f"  both after {time.monotonic() - started_s:.1f} s")
    return max(codes)


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
        print(f"A day in the bank's life, over HTTP at {state['gateway']} (its documents: /docs)")
        try:
            for chapter in CHAPTERS:
                await chapter(day)
        finally:
            if day.queue is not None:
                day.queue.cancel()
        print(f"\nThe day took {day.seconds:.0f} s")


async def _admin(session: aiohttp.ClientSession, known: Mapping[str, Any]) -> Client:
    admin = Client(session, name="admin", email=known["email"], password=known["password"])
    await admin.log_in()
    return admin


if __name__ == "__main__":
    sys.exit(main())
