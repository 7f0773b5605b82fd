"""Run the local stack.

python -m deploy.local run       foreground; Ctrl-C stops all in order
python -m deploy.local up        background; returns when all is ready
python -m deploy.local down | status | wipe | fetch
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from deploy.local.parts import answers
from deploy.local.places import ROOT, Places, local_directory
from deploy.local.processes import (
    Identity,
    StackError,
    identify,
    recorded,
    say,
    send,
    wait_gone,
)
from deploy.local.stack import (
    PROCESSES,
    STOP_S,
    STORES,
    end_leftovers,
    fetch,
    show,
    store_pid,
    supervise,
)
from settings import LOCAL, BadSetting, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

UP_S = 600.0  # a first start fetches Kafka and the stores


def up(places: Places, pipeline: str) -> bool:
    """A supervisor in the background; True when all is ready, False when it said why not."""
    running = recorded(places.pid)
    if running is None:
        places.run.mkdir(parents=True, exist_ok=True)
        places.state.unlink(missing_ok=True)
        running = _supervisor(places, pipeline)
        return _follow(places, running)
    say(f"the system runs already (pid {running.pid})")
    ready = _follow(places, running, shown=len(_said(places)))
    if ready:
        show(json.loads(places.state.read_text()))
    return ready


def _supervisor(places: Places, pipeline: str) -> Identity:
    """A process of its own session: it lives on when this one and its terminal are gone."""
    command = [sys.executable, "-m", "deploy.local", "supervise", "--pipeline", pipeline]
    with places.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, LOCAL: str(places.local)},
            cwd=ROOT,
            start_new_session=True,
        )
    identity = identify(process.pid)
    if identity is None:
        raise StackError(f"the supervisor ended at once:\n{places.log.read_text()}")
    return identity


def _follow(places: Places, supervisor: Identity, shown: int = 0) -> bool:
    """Pass on what the supervisor says until the system is ready (True) or it ends (False)."""
    until_s = time.monotonic() + UP_S
    while True:
        alive, ready = identify(supervisor.pid) == supervisor, places.state.exists()
        lines = _said(places)
        for line in lines[shown:]:
            say(line)
        shown = len(lines)
        if ready or not alive:
            return ready
        if time.monotonic() > until_s:
            raise StackError(f"the system is not ready after {UP_S:.0f} s; see {places.log}")
        time.sleep(0.05)


def _said(places: Places) -> list[str]:
    """What the supervisor in the background has said; one in the foreground says it there."""
    return places.log.read_text().splitlines() if places.log.exists() else []


def down(places: Places) -> None:
    """Stop the background system, or what is left of one; the data stays."""
    running = recorded(places.pid)
    if running is None:
        end_leftovers(places)
        say("nothing runs")
        return
    say("stopping …")
    send(running, signal.SIGTERM)
    if not wait_gone(running, 4 * STOP_S):
        raise StackError(f"the supervisor (pid {running.pid}) does not end; see {places.log}")
    say("stopped; the data is kept")


def status(places: Places) -> bool:
    """Show each part; True when all are ready."""
    running = recorded(places.pid)
    if running is None:
        say("nothing runs; make up starts it")
        return False
    state = json.loads(places.state.read_text()) if places.state.exists() else {}
    names = [name for name in reversed(PROCESSES) if name != "projector" or name in state]
    found = {name: recorded(places.run / f"{name}.pid") for name in names}
    stores = [kind.name for kind in STORES.values() if kind.name in state]
    found = {name: recorded(store_pid(places, name)) for name in stores} | found
    found = {"kafka": recorded(places.data / "kafka" / "kafka-1.pid"), **found}
    for name, process in found.items():
        print(f"  {name:9} {f'runs, pid {process.pid}' if process else 'does not run'}")
    if not state:
        print("starting or stopping")
        return False
    show(state)
    urls = [f"{state[name]}/readiness" for name in ("worker", "beside", "gateway")]
    return all(found.values()) and all(answers(url) for url in urls)


def wipe(places: Places) -> None:
    """Remove all data, secrets and logs; what was fetched stays. Raises StackError while it runs."""
    if recorded(places.pid) is not None:
        raise StackError("the system runs: stop it first (make down)")
    end_leftovers(places)
    for directory in (places.data, places.run):
        shutil.rmtree(directory, ignore_errors=True)
    admin = (places.admin, places.admin_draft, places.admin_password)
    for file in (*admin, places.secrets, places.settings):
        file.unlink(missing_ok=True)
    say("wiped")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local", description="The whole system on this machine."
    )
    actions = ("run", "up", "down", "status", "wipe", "fetch", "supervise")
    parser.add_argument("action", choices=actions)
    parser.add_argument("--pipeline", default="pipeline.py", help="the program of the services")
    options = parser.parse_args(arguments)
    places = Places(local_directory())
    try:
        return act(options.action, places, options.pipeline)
    except (StackError, BadSetting) as refused:
        say(str(refused))
        return 1
    except KeyboardInterrupt:
        return 130


def act(action: str, places: Places, pipeline: str) -> int:
    match action:
        case "run" | "supervise":
            supervise(places, pipeline)
        case "up":
            return 0 if up(places, pipeline) else 1
        case "down":
            down(places)
        case "wipe":
            wipe(places)
        case "fetch":
            fetch(Settings.load())
        case "status":
            return 0 if status(places) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
