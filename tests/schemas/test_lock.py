"""What may be released, and what `python -m schemas.lock` says and writes."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from domain.saga import Step
from schemas import lock, records, released
from schemas.records import fingerprint, names, schema_id, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEP = names()[Step]
NOTE = {"name": "note", "type": ["null", "string"], "default": None, "doc": "free text"}

Change = "Callable[[Any], None]"


@pytest.fixture
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation of its own, with nothing released yet."""
    monkeypatch.setattr(released, "LOCK", tmp_path / "ids.lock.json")
    monkeypatch.setattr(released, "TEXTS", tmp_path / "released")
    clear()
    yield tmp_path / "ids.lock.json"
    monkeypatch.undo()
    clear()


def clear() -> None:
    for cached in (records.records, records.whole, released.releases, released.by_id):
        cached.cache_clear()


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Changes Step's schema as an editor would; its dataclass is taken to have followed."""
    monkeypatch.setattr(lock, "disagreements", list)

    def change(how: Callable[[Any], None]) -> None:
        all_records = copy.deepcopy(dict(records.records()))
        how(all_records[STEP])
        monkeypatch.setattr(records, "records", lambda: all_records)
        monkeypatch.setattr(lock, "records", lambda: all_records)
        records.whole.cache_clear()

    return change


def test_nothing_is_left_to_release() -> None:
    """After a change of a schema: `make schemas`, and commit what it wrote."""
    planned = lock.plan()
    assert list(planned.refused) == []
    assert [f"{new.name} version {new.version}" for new in planned.new] == []


def test_the_lock_file_is_what_the_texts_say() -> None:
    """The released ids can be made again from the texts, and every text is in the lock file."""
    paths = set()
    for name, versions in released.releases().items():
        for number, version in enumerate(versions, 1):
            schema = json.loads(version.text())
            assert records.full_name(schema) == name
            assert version.version == number
            assert (version.fingerprint, version.id) == (fingerprint(schema), schema_id(schema))
            paths.add(version.path)
    assert set(released.TEXTS.rglob("*.avsc")) == paths


def test_a_first_release_and_nothing_more_to_do(
    lock_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lock.main(["--check"]) == 1
    assert not lock_file.exists()
    assert lock.main([]) == 0
    assert f"{STEP} version 1 released" in capsys.readouterr().out
    assert json.loads(lock_file.read_text())[STEP] == [
        {"version": 1, "id": schema_id(whole(STEP)), "fingerprint": fingerprint(whole(STEP))}
    ]
    before = lock_file.read_bytes()
    assert lock.main(["--check"]) == 0
    assert lock.main([]) == 0
    assert lock_file.read_bytes() == before


def test_a_field_with_a_default_is_a_new_version_of_all_that_carry_it(
    lock_file: Path, edit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.main([])
    capsys.readouterr()
    edit(lambda step: step["fields"].append(NOTE))
    assert lock.main([]) == 0
    said = capsys.readouterr().out
    assert f"{STEP} version 2 released" in said
    assert "streambank.account.AccountDebited version 2 released" in said
    assert "streambank.account.AccountOpened" not in said
    assert [v["version"] for v in json.loads(lock_file.read_text())[STEP]] == [1, 2]


def test_docs_are_no_version(lock_file: Path, edit: Any) -> None:
    lock.main([])
    edit(lambda step: step.update(doc="One line of a trace."))
    assert lock.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            lambda step: step["fields"].append({"name": "note", "type": "string"}),
            f"{STEP}: it can't read version 1: note is not written and has no default",
        ),
        (
            lambda step: step["fields"].pop(),
            f"{STEP}: version 1 can't read it: at_ms is not written and has no default",
        ),
        (
            lambda step: step["fields"][0].update(type="long"),
            f"{STEP}: it can't read version 1: step is written as string and read as long",
        ),
    ],
)
def test_a_break_is_refused_and_nothing_is_written(
    lock_file: Path, edit: Any, capsys: pytest.CaptureFixture[str], how: Any, sentence: str
) -> None:
    lock.main([])
    before = lock_file.read_bytes()
    edit(how)
    assert lock.main([]) == 1
    said = capsys.readouterr().err
    assert f"refused: {sentence}" in said
    assert "refused: streambank.account.AccountDebited: " in said
    assert lock_file.read_bytes() == before


def test_what_was_released_can_not_go(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.main([])
    monkeypatch.setattr(lock, "records", lambda: {STEP: records.records()[STEP]})
    assert lock.main([]) == 1
    assert "AccountDebited was released and is gone" in capsys.readouterr().err


def test_two_schemas_with_one_id_are_refused(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "schema_id", lambda _: 7)
    assert lock.main([]) == 1
    assert "have the same id 7" in capsys.readouterr().err
    assert not lock_file.exists()


def test_another_argument_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert lock.main(["--all"]) == 2
    assert "usage" in capsys.readouterr().err
