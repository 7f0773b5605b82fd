"""The files of a local stack, under `.local/`.

data/            Kafka's log, the stores, the rail's decisions, RocksDB, mails (`post/`): kept from start to start
run/             pid files, logs, where the running system is (`state.json`)
secrets.json     made once; admin.json: the first admin's e-mail and password
settings.env     where the running system is, as settings for commands in this tree
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from settings import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable


ROOT = Path(__file__).resolve().parent.parent.parent


def local_directory() -> Path:
    """Where everything of the local stack lives: STREAMBANK_LOCAL, else `.local` of this tree."""
    return Path(os.environ.get(LOCAL) or ROOT / ".local").resolve()


@dataclass(frozen=True, slots=True)
class Places:
    """The files of a local stack."""

    local: Path

    @property
    def run(self) -> Path:
        return self.local / "run"

    @property
    def data(self) -> Path:
        return self.local / "data"

    @property
    def pid(self) -> Path:
        return self.run / "stack.pid"

    @property
    def log(self) -> Path:
        return self.run / "stack.log"

    @property
    def state(self) -> Path:
        return self.run / "state.json"

    @property
    def admin(self) -> Path:
        return self.local / "admin.json"

    @property
    def admin_draft(self) -> Path:
        """As `admin`, before the system knows it."""
        return self.local / "admin.draft.json"

    @property
    def admin_password(self) -> Path:
        """For a moment: what `create-admin` reads."""
        return self.local / "admin.password"

    @property
    def secrets(self) -> Path:
        return self.local / "secrets.json"

    @property
    def settings(self) -> Path:
        return self.local / "settings.env"


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by the owner alone."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def made_once(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The content of a private JSON file, made when it is not there; what it lacks is added."""
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    made = {name: value for name, value in make().items() if name not in found}
    if made:
        found |= made
        write_private(path, json.dumps(found) + "\n")
    return found
