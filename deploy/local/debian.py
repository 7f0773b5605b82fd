"""Programs out of Debian packages, unpacked under `.local/`: no root, no service.

Fetched once, with what they need that this machine has not installed. A program that the machine
has installed itself is used from there.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.places import local_directory
from deploy.local.processes import StackError, locked, say

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What is fetched together. `files`: by package the program that it is fetched for."""

    name: str  # for people
    directory: str  # under `.local/`
    files: Mapping[str, str]
    size: str
    without: str  # what to do where it can't be fetched


STORES = Programs(
    name="MariaDB and Redis",
    directory="stores/debian",
    files={"mariadb-server-core": "usr/sbin/mariadbd", "redis-server": "usr/bin/redis-server"},
    size="9 MB",
    without="install MariaDB 10.11 and Redis 7, or set STREAMBANK_LOCAL_STORES=none",
)


class Debian:
    """The unpacked packages under `root`, over what the machine has installed."""

    def __init__(self, root: Path, programs: Programs) -> None:
        self.root, self.programs = root, programs

    def path(self, name: str) -> Path:
        """Where the file `usr/…` lies."""
        unpacked = self.root / name
        return unpacked if unpacked.exists() else Path("/") / name

    @property
    def complete(self) -> bool:
        """All programs are there."""
        return all(self.path(name).exists() for name in self.programs.files.values())

    def environment(self) -> dict[str, str]:
        """Ours, with the unpacked libraries."""
        libraries = [
            str(path)
            for inside in ("", "/pulseaudio")  # whose own library is found by its package's place
            for path in self.root.glob(f"usr/lib/*-linux-gnu*{inside}")
        ]
        given = os.environ.get("LD_LIBRARY_PATH")
        joined = ":".join([*libraries, given] if given else libraries)
        return {**os.environ, "LD_LIBRARY_PATH": joined} if joined else dict(os.environ)

    @property
    def version(self) -> str:
        """Changes with the packages, those that the machine has installed too."""
        programs = [self.path(name).resolve() for name in self.programs.files.values()]
        return "".join(f"{program} {program.stat().st_size}\n" for program in programs)


def prepare(programs: Programs = STORES) -> Debian:
    """Fetch what is missing, once, alone among processes. Raises StackError."""
    home = (local_directory() / programs.directory).resolve()
    debian = Debian(home / "root", programs)
    with locked(home / "lock"):
        if not debian.complete:
            _fetch(home, debian.root, programs)
    return debian


def _fetch(home: Path, root: Path, programs: Programs) -> None:
    name, without = programs.name, programs.without
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise StackError(f"apt-get fetches {name}, and this machine has none: {without}")
    say(f"fetching {name} from Debian ({programs.size} and the list of packages, once) …")
    apt, fresh = home / "apt", home / "root.part"
    for directory in (apt, fresh):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    (apt / "lists" / "partial").mkdir(parents=True)
    _apt(apt, "update")  # into a place of our own; a source that is away may not be needed
    planned = _apt(apt, "--simulate", "--no-install-recommends", "install", *programs.files)
    names = re.findall(r"^Inst (\S+)", planned.stdout, re.MULTILINE)
    done = _apt(apt, "download", *names) if names else planned
    if done.returncode or not names:
        raise StackError(f"{name} could not be fetched: {without}\n{done.stderr[-2000:]}")
    for archive in sorted(apt.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", str(archive), str(fresh)], check=True)
    shutil.rmtree(root, ignore_errors=True)
    fresh.rename(root)
    shutil.rmtree(apt)


def _apt(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run in `home` and with its lists there, as whoever we are."""
    options: Sequence[str] = (
        f"Dir::State::Lists={home}/lists",
        f"Dir::Cache={home}",
        f"Dir::Cache::Archives={home}",
        f"APT::Sandbox::User={getpass.getuser()}",
        "Acquire::Languages=none",
    )
    return subprocess.run(
        ["apt-get", "-q", *(f"-o{option}" for option in options), *arguments],
        cwd=home,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
