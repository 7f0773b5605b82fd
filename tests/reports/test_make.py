"""The making of reports: a disk that fails is answered, not raised; what is made already is not made again."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from agents.perform import Way
from domain.reporting import Definition, Outcome, ReportRequested, Source
from reports import make
from reports.effect import Computed, effect
from reports.files import progress_of
from reports.make import DEAD_S, Maker, Order, Unmade, progress
from settings import Settings
from travel.errors import TooLong

if TYPE_CHECKING:
    from pathlib import Path

TO_MS = 1_772_366_400_000
PAID = Definition(
    title="Paid", source=Source.PAYMENTS, columns=("amount",), filters=(), group_by=()
)
REQUEST = ReportRequested(
    report_id="R1",
    schedule_id="",
    definition=PAID,
    from_ms=0,
    to_ms=TO_MS,
    as_of_ms=TO_MS,
    attempt=1,
    actor_id="U-ann",
    request_hash="h",
    version=1,
    at_ms=TO_MS,
)
ORDER = Order(report_id="R1", definition=PAID, from_ms=0, to_ms=TO_MS, as_of_ms=TO_MS)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("STREAMBANK_REPORTS_DIR", str(tmp_path / "reports"))
    return Settings.load()


@pytest.fixture
def installed(
    kafka: Any, prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """With the empty topics of a report on payments."""
    monkeypatch.setenv("STREAMBANK_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("STREAMBANK_PREFIX", prefix)
    monkeypatch.setenv("STREAMBANK_PARTITIONS", "1")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    topics = [NewTopic(f"{prefix}payment.{name}", 1, 1) for name in ("inbox", "events")]
    for created in admin.create_topics(topics).values():
        created.result()
    return Settings.load()


def way(settings: Settings) -> Way:
    return Way(effect(settings), Computed(Maker(settings)))


async def test_a_directory_that_can_t_be_written_is_an_answer(settings: Settings) -> None:
    settings.reports_dir.write_text("no directory")
    answered = await way(settings).ask(REQUEST, {})
    assert answered.outcome is Outcome.UNKNOWN
    assert "FileExistsError" in answered.detail or "NotADirectoryError" in answered.detail
    with pytest.raises(Unmade):
        Maker(settings).make(ORDER)


async def test_a_file_that_can_t_be_read_is_an_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = settings.reports_dir / "gone.parquet"
    monkeypatch.setattr(Maker, "make", lambda _self, _order: gone)
    answered = await way(settings).ask(REQUEST, {})
    assert answered.outcome is Outcome.UNKNOWN


async def test_a_time_that_is_over_is_asked_again_later_and_not_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def too_long(_self: Maker, order: Order) -> Path:
        tries.append(order)
        raise TooLong("the query did not end within 120 s")

    monkeypatch.setattr(Maker, "make", too_long)
    answered = await way(settings).ask(REQUEST, {})
    assert (answered.outcome, answered.detail) == (
        Outcome.UNKNOWN,
        "the query did not end within 120 s",
    )
    assert tries == [ORDER]


async def test_what_is_made_is_not_made_again(
    installed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = way(installed)
    first = await asked.ask(REQUEST, {})
    assert (first.outcome, first.detail) == (Outcome.COMPLETED, "")
    monkeypatch.setattr(make, "run", None)
    assert await asked.ask(REQUEST, {}) == first


def test_a_damaged_file_is_made_again_and_another_report_of_the_id_has_another(
    installed: Settings,
) -> None:
    maker = Maker(installed)
    file = maker.make(ORDER)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert maker.make(ORDER).read_bytes() == whole
    assert maker.make(replace(ORDER, from_ms=1)) != file
    assert [one.suffix for one in installed.reports_dir.iterdir()] == [".parquet"] * 2


def aged(file: Path, seconds: float) -> Path:
    file.write_bytes(b'{"phase":"reading","records":7}')
    then_s = file.stat().st_mtime - seconds
    os.utime(file, (then_s, then_s))
    return file


def test_progress_that_one_who_was_killed_left_is_none(tmp_path: Path) -> None:
    aged(progress_of(tmp_path, "R1"), 10)
    assert progress(tmp_path, "R1") == {"phase": "reading", "records": 7}
    aged(progress_of(tmp_path, "R1"), DEAD_S + 1)
    assert progress(tmp_path, "R1") is None
    assert progress(tmp_path, "R2") is None


def test_what_is_tidied(settings: Settings) -> None:
    directory = settings.reports_dir
    directory.mkdir()
    stays = {aged(directory / f"a{kind}", DEAD_S + 1) for kind in (".parquet", ".txt")}
    stays |= {aged(directory / f"b{kind}", 10) for kind in (".partial", ".progress")}
    for kind in (".partial", ".progress"):
        aged(directory / f"c{kind}", DEAD_S + 1)
    aged(directory / "d.parquet", make.KEEP_S + 1)
    # as one that goes while it is looked at
    stays.add(directory / "e.progress")
    (directory / "e.progress").symlink_to(directory / "gone")
    Maker(settings)._tidy()
    assert {*directory.iterdir()} == stays
