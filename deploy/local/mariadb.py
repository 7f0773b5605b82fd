"""MariaDB as a child process, for the read models that speak MySQL: 10.11 on Debian 12.

    mariadb.url      # mysql://streambank:…@127.0.0.1:23457/streambank

Commits are on disk when they are answered, as in production. The one user may do everything in
databases whose name begins with `streambank`; there is no root. An empty data directory is made
once (5 s) and copied.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote

import pymysql
from pymysql.converters import escape_string

from deploy.local.debian import Debian, prepare
from deploy.local.places import local_directory, write_private
from deploy.local.processes import StackError, locked, say
from deploy.local.server import ANSWER_S, HOST, NAME, Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OPTIONS: Mapping[str, str] = {
    "bind-address": HOST,
    "skip-name-resolve": "ON",
    "socket": "mariadb.sock",  # in the data directory: a whole path may be longer than the 107 bytes of one
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_unicode_ci",
    "default-time-zone": "+00:00",
    "transaction-isolation": "READ-COMMITTED",
    "sql-mode": "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,"
    "ONLY_FULL_GROUP_BY,NO_ZERO_DATE,NO_ZERO_IN_DATE",
    "innodb-flush-log-at-trx-commit": "1",
    "skip-log-bin": "ON",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "16M",
    "max-connections": "200",
}
# what mariadb-install-db reads, in its order
SYSTEM_TABLES = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "fill_help_tables.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
)
NOBODY_ELSE = "DELETE FROM mysql.global_priv WHERE User IN ('root', '');\n"


class MariaDB(Server):
    """One MariaDB. A password given anew, or none, replaces that of the last start."""

    name = "mariadb"

    @classmethod
    def fetch(cls) -> None:
        template(prepare())

    @property
    def url(self) -> str:
        return f"mysql://{NAME}:{quote(self.password, safe='')}@{HOST}:{self.port}/{NAME}"

    def answers(self) -> bool:
        try:
            connection = pymysql.connect(
                host=HOST,
                port=self.port,
                user=NAME,
                password=self.password,
                database=NAME,
                connect_timeout=ANSWER_S,
                read_timeout=ANSWER_S,
                ssl_disabled=True,  # else each question reads all certificates of the machine
            )
        except pymysql.err.OperationalError:
            return False
        with connection, connection.cursor() as cursor:
            return bool(cursor.execute("SELECT 1"))

    def _prepared(self) -> tuple[list[str], Mapping[str, str]]:
        debian = prepare()
        data = self.directory / "data"
        if not data.exists():
            fresh = data.with_name("data.fresh")  # a crash must not leave half a directory
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(template(debian), fresh)
            fresh.rename(data)
        first = self.directory / "first.sql"
        write_private(first, _first(self.password))
        options = {**OPTIONS, "port": str(self.port), "init-file": str(first)}
        return _command(debian, data, options), debian.environment()


def _first(password: str) -> str:
    """What a start does before it lets anybody in; each statement on a line of its own."""
    user = f"'{NAME}'@'{HOST}'"
    return (
        f"CREATE DATABASE IF NOT EXISTS {NAME};\n"
        f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{escape_string(password)}';\n"
        f"GRANT ALL ON `{NAME}%`.* TO {user};\n"
    )


def _command(debian: Debian, data: Path, options: Mapping[str, str]) -> list[str]:
    share = debian.path("usr/share/mysql")
    places = {
        "datadir": str(data),
        "user": getpass.getuser(),  # root must say that it means it
        "lc-messages-dir": str(share),
        "character-sets-dir": str(share / "charsets"),
        "plugin-dir": str(debian.path("usr/lib/mysql/plugin")),
    }
    named = [f"--{name}={value}" for name, value in {**places, **options}.items()]
    return [str(debian.path("usr/sbin/mariadbd")), "--no-defaults", *named]


def template(debian: Debian) -> Path:
    """An empty data directory of this version, made once. Raises StackError."""
    home = (local_directory() / "stores" / "mariadb").resolve()
    made, mark = home / "template", home / "version"
    with locked(home / "lock"):
        if not mark.exists() or mark.read_text() != debian.version:
            mark.unlink(missing_ok=True)
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            _make(debian, made)
            mark.write_text(debian.version)
    return made


def _make(debian: Debian, data: Path) -> None:
    say("preparing MariaDB for fast starts (once) …")
    share = debian.path("usr/share/mysql")
    sql = ["CREATE DATABASE mysql;\n", "USE mysql;\n", "SET @auth_root_socket = NULL;\n"]
    sql += [(share / name).read_text() for name in SYSTEM_TABLES]
    options = {"innodb-log-file-size": OPTIONS["innodb-log-file-size"]}
    done = subprocess.run(
        [*_command(debian, data, options), "--bootstrap", "--enforce-storage-engine="],
        input="".join([*sql, NOBODY_ELSE]),
        env=debian.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"MariaDB could not make a data directory:\n{done.stderr[-2000:]}")
