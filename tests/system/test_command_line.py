"""What a person gets who mistypes, starts too early, or starts twice: a sentence, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from agents.envelope import SERVICES
from command_line.main import parser
from deploy.local.processes import free_ports
from tests.system.conftest import ROOT, Installation

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.local.kafka import Kafka


PROGRAM = [sys.executable, str(ROOT / "pipeline.py")]


def refused(result: object, *words: str) -> None:
    """One sentence on stderr, with these words; not a traceback; not exit 0."""
    assert result.returncode != 0  # type: ignore[attr-defined]
    said = result.stderr  # type: ignore[attr-defined]
    assert said.startswith("pipeline: "), said
    assert "Traceback" not in said
    for word in words:
        assert word in said


@pytest.fixture
def nowhere(tmp_path: Path) -> Installation:
    """An installation whose broker is away."""
    (port,) = free_ports(1)
    return Installation(f"127.0.0.1:{port}", tmp_path)


COMMANDS = """worker gateway topics stores create-admin verify audit projections tables rates redrive replay
    timeline query"""


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: pipeline.py {command}" in capsys.readouterr().out


def test_the_program_lists_its_commands() -> None:
    shown = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert not [name for name in COMMANDS.split() if name not in shown.stdout]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "٣", "1000000001", "9" * 5_000, "many", ""])
def test_a_number_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["query", "select 1", f"--rows={text}"])
    assert ended.value.code == 2
    assert "is no whole number from 1 to 1000000000" in capsys.readouterr().err


def test_a_start_loads_only_what_it_needs() -> None:
    """Each of these takes as long as all else together."""
    heavy = ["aiohttp", "duckdb", "faust", "jinja2", "pymongo", "pymysql", "redis"]
    code = (
        f"import sys, command_line.main; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("arguments", [("worker", "all"), ("gateway",)])
def test_it_starts_and_ends_as_a_person_has_it(
    installation: Installation, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The program itself: what other tests start is forked."""
    log = tmp_path / "log"
    port = {"STREAMBANK_GATEWAY_PORT": str(installation.ops_port)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, *arguments], env=installation.environment | port, stdout=out, stderr=out
        )
    try:
        installation.until_ready(process, log)
        process.terminate()
        assert process.wait(30) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def test_an_unknown_service(nowhere: Installation) -> None:
    refused(nowhere.pipeline("worker", "acount"), "acount", *SERVICES, "perform", "relay", "all")


def test_a_bad_setting(nowhere: Installation) -> None:
    bad = nowhere.pipeline("worker", "all", STREAMBANK_PARTITIONS="three")
    refused(bad, "STREAMBANK_PARTITIONS", "three")


def test_the_broker_is_away(nowhere: Installation) -> None:
    commands = (["worker", "all"], ["topics", "apply"], ["verify"])
    with ThreadPoolExecutor() as pool:  # each waits for the broker
        for done in pool.map(lambda command: nowhere.pipeline(*command), commands):
            refused(done, "no Kafka answers at", nowhere.bootstrap)


def test_topics_are_missing(kafka: Kafka, tmp_path: Path) -> None:
    bare = Installation(kafka.bootstrap, tmp_path)
    refused(bare.pipeline("worker", "all"), "topics are missing", "topics apply")


def test_partition_counts_that_do_not_match(installation: Installation) -> None:
    some = (
        ["worker", "all"], ["topics", "apply"], ["gateway"], ["verify"], ["replay", "account"],
        ["tables", "rebuild", "account"], ["redrive", "account.dead"], ["timeline", "A-x"],
    )  # fmt: skip
    for command in some:
        other = installation.pipeline(*command, STREAMBANK_PARTITIONS="5")
        refused(other, "3 partitions", "5")


def test_a_port_in_use(running: Installation) -> None:
    refused(running.pipeline("worker", "risk"), str(running.ops_port), "in use", "--ops-port")


def test_places_that_cant_be_had(running: Installation, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    other = {"STREAMBANK_OPS_PORT": str(running.beside_port)}
    state = running.pipeline("worker", "risk", STREAMBANK_STATE_DIR=str(file / "state"), **other)
    refused(state, "STREAMBANK_STATE_DIR", "file/state")
    host = running.pipeline("worker", "risk", STREAMBANK_OPS_HOST="192.0.2.1", **other)
    refused(host, "STREAMBANK_OPS_HOST", "192.0.2.1")
    refused(running.pipeline("worker", "risk", STREAMBANK_SKIP="risk.inbox"), "STREAMBANK_SKIP")


def test_no_such_dead_letters(installation: Installation) -> None:
    refused(installation.pipeline("redrive", "acount.dead"), "acount.dead", "account.dead")


def test_the_first_admin_once(running: Installation, tmp_path: Path) -> None:
    refused(running.pipeline("create-admin", "--email", "a@b.example"), "no password")
    file = tmp_path / "password"
    file.write_text("correct horse battery staple\n")
    command = ("create-admin", "--email", "Root@Bank.example", "--password-file", str(file))
    made = running.pipeline(*command)
    assert made.returncode == 0, made.stderr
    assert "is an administrator" in made.stdout
    refused(running.pipeline(*command), "EMAIL_TAKEN")


def test_files_that_cant_be_written_are_told_before_the_broker_is_asked(
    nowhere: Installation, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    for place in ("none/x", "file/x", "."):
        file = str(tmp_path / place)
        for command in (
            ["query", "SELECT 1", "--format", "csv", "--output", file],
            ["query", "SELECT 1", "--format", "parquet", "--output", file],
            ["audit", "export", file],
        ):
            refused(nowhere.pipeline(*command), str(tmp_path / place), "can't be written")


def test_a_full_disk_is_one_sentence(installation: Installation) -> None:
    query = ["query", "SELECT 1", "--format", "csv", "--output", "/dev/full"]
    for command in (query, ["audit", "export", "/dev/full"]):
        refused(installation.pipeline(*command), "/dev/full", "No space left")
