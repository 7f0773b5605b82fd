"""A worker that is started again when it ends, as in production, unless a person must look first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.streaming.kit import Worker

NEEDS_A_PERSON = 71


class Supervised:
    """`codes`: how it ended so far. Leaves its last worker running for the fixture to end."""

    def __init__(self, start: Callable[[], Worker]) -> None:
        self._start, self.worker = start, start()
        self.codes: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Supervised:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            code = self.worker.process.poll()
            if code is not None:
                self.codes.append(code)
                if code == NEEDS_A_PERSON:
                    return
                self.worker = self._start()
