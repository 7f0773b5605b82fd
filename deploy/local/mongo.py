"""A stand-in for MongoDB as a child process: mongo-java-server 1.47, which speaks its protocol.

    mongo.url        # mongodb://127.0.0.1:23459/streambank?directConnection=true

It is NOT MongoDB, which no package registry carries. motor and PyMongo work with it: unique,
compound and sparse indexes, upserts, ordered bulk writes, $group, $lookup, $facet. It cannot do, or
does otherwise:

    transactions, change streams             refused: there are no sessions behind it
    TTL indexes                              taken, and nothing ever expires
    text indexes, $text                      taken; the search is refused
    updates by a pipeline, [{"$set": …}]      refused
    partial unique indexes                   unique over all documents: false duplicates
    $dateTrunc, $setWindowFields             refused
    validators                               not applied
    users and passwords                      none: it listens on loopback alone
    a renamed collection                     its next of the old name shows the same documents, and
                                             after a restart it is empty
    explain                                  refused

Of itself it also loses writes that it acknowledged when it is killed, and not the last of them
alone; ours commits with each of them (StandIn.java).

So what is written for MongoDB is tested here on its protocol, and says where it was not tested on
the real thing.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo.errors import PyMongoError

from deploy.local.maven import fetch_jars, java_program
from deploy.local.places import local_directory
from deploy.local.processes import StackError, locked
from deploy.local.server import ANSWER_S, HOST, NAME, Server

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent / "mongo_stand_in"
OPTIONS = ("-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class Mongo(Server):
    """One stand-in. It knows no passwords."""

    name = "mongo"

    @classmethod
    def fetch(cls) -> None:
        prepare()

    @property
    def url(self) -> str:
        return f"mongodb://{HOST}:{self.port}/{NAME}?directConnection=true"

    def answers(self) -> bool:
        limit_ms = int(ANSWER_S * 1000)
        client: pymongo.MongoClient[dict[str, Any]]
        try:
            with pymongo.MongoClient(
                self.url,
                serverSelectionTimeoutMS=200,
                connectTimeoutMS=limit_ms,
                socketTimeoutMS=limit_ms,
            ) as client:
                return bool(client.admin.command("ping")["ok"])
        except PyMongoError:
            return False

    def _prepared(self) -> tuple[list[str], Mapping[str, str] | None]:
        home = prepare()
        command = [str(java_program()), *OPTIONS, "-cp", f"{home / 'classes'}:{home / 'libs'}/*"]
        return [*command, "StandIn", str(self.port), str(self.directory / "data.mv")], None


def prepare() -> Path:
    """Fetch and compile what is missing, once, alone among processes. Raises StackError."""
    home = (local_directory() / "stores" / "mongo").resolve()
    classes, mark = home / "classes", home / "prepared"
    state = _state()
    with locked(home / "lock"):
        if not mark.exists() or mark.read_text() != state:
            mark.unlink(missing_ok=True)
            fetch_jars("the stand-in for MongoDB", HERE / "pom.xml", home / "libs")
            shutil.rmtree(classes, ignore_errors=True)
            _compile(home / "libs", classes)
            mark.write_text(state)
    return home


def _state() -> str:
    sources = b"".join((HERE / name).read_bytes() for name in ("pom.xml", "StandIn.java"))
    return hashlib.sha256(sources).hexdigest()


def _compile(libs: Path, classes: Path) -> None:
    class_path = ":".join(str(jar) for jar in libs.glob("*.jar"))
    compiler = "org.eclipse.jdt.internal.compiler.batch.Main"
    command = [str(java_program()), "-cp", class_path, compiler, "-17", "-nowarn"]
    command += ["-cp", class_path, "-d", str(classes), str(HERE / "StandIn.java")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"the stand-in for MongoDB does not compile:\n{done.stderr[-2000:]}")
