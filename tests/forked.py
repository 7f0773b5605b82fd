"""Processes of the program, forked from one that has imported it: a start costs no imports.

    python -m deploy.local … --> one process that imports all, once a test run --fork--> each that a test starts

A fork is a process of its own: its environment, its output, its signals, its end. It runs a module as `python -m`
does. The process that it is forked from runs no thread and has no client of a broker. That the program starts
without being forked is shown where its command line is tested, and by the local stack.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import wait as ready
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from deploy.local.processes import Child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PIPELINE = "pipeline"
ENDS_S = 180.0  # a command, on a machine that has much else to do
PR_SET_PDEATHSIG = 1
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.imported"])
_alone = Lock()  # a start looks after all processes: two threads must not read one's end


class Forked:
    """A process as `subprocess.Popen` shows it: `python -m module arguments`, all output into `log`.

    What it says on stderr goes into `errors`, if that is given.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None,
        log: Path,
        errors: Path | None = None,
    ) -> None:
        self.args = (module, *arguments)
        given = dict(os.environ if environment is None else environment)
        for file in (log, errors or log):
            file.touch()  # whoever reads it need not wait for the fork
        self._process: Any = _context.Process(
            target=_run, args=(self.args, given, log, errors or log), daemon=True
        )
        with _alone:
            self._process.start()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        with _alone:
            code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        ready([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedChild(Child):
    """A `Child` whose command is a module and its arguments."""

    def _launch(self) -> Any:
        module, *arguments = self.command
        return Forked(module, arguments, self.environment, self.log)


def command(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float = ENDS_S
) -> subprocess.CompletedProcess[str]:
    """Run a command of pipeline.py to its end, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as directory:
        out, errors = Path(directory, "out"), Path(directory, "errors")
        process = Forked(PIPELINE, arguments, environment, out, errors)
        try:
            code = process.wait(timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, code, out.read_text(), errors.read_text())


def _run(args: Sequence[str], environment: Mapping[str, str], log: Path, errors: Path) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()  # Ctrl-C reaches the tests alone, which stop all in order
    for file, number in ((log, 1), (errors, 2)):
        with file.open("ab") as opened:
            os.dup2(opened.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    module, *arguments = args
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
