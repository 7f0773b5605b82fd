"""What a projection makes of records: batches by row, and what it tells others of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents.project import Piece, Progress, Project, batch_of
from agents.wiring import Wiring
from domain.blacklist import Blacklisted, BlacklistKind
from domain.person import Role, User
from proof.reader import LogRecord
from proof.rebuild import Told
from schemas.codec import Codec
from stores.catalog import Unavailable
from tests.stores.mysql_database import fresh
from tests.stores.things import batch, user

if TYPE_CHECKING:
    from deploy.local.mariadb import MariaDB
    from stores.catalog import At, Batch

USERS: At = ("user-table-changelog", 0)
RISK: At = ("risk-table-changelog", 0)
CODEC = Codec()
ADA = User(
    user_id="ada", email="ada@example.org", name="Ada", roles=(Role.CUSTOMER,),
    version=1, created_ms=1, updated_ms=1,
)  # fmt: skip
LISTED = Blacklisted(kind=BlacklistKind.USER, value="mal", note="", at_ms=1)


def log(at: At, *told: tuple[str, Any]) -> list[Told]:
    """Records of a changelog: of each row its state, bytes, or None."""
    return [
        Told(LogRecord(*at, offset, 1, key.encode(), encoded(value), {}))
        for offset, (key, value) in enumerate(told)
    ]


def encoded(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else CODEC.encode(value)


@pytest.mark.parametrize(
    ("at", "told", "kept", "following"),
    [
        (USERS, [("user/ada", ADA)], {"ada": True}, 1),
        (USERS, [("user/ada", ADA), ("user/ada", None)], {"ada": True}, 2),
        (USERS, [("user/ada", None)], {}, 1),
        (USERS, [("user/ada", b"?"), ("user/ada", ADA)], {"ada": True}, 2),
        (USERS, [("user/ada", ADA), ("user/ada", b"?")], {"ada": True}, 1),
        (USERS, [("user/ada", b"?"), ("user/ada", None)], {}, 0),
        (RISK, [("blacklist/user/mal", LISTED)], {"user/mal": True}, 1),
        (
            RISK,
            [("blacklist/user/mal", LISTED), ("blacklist/user/mal", None)],
            {"user/mal": False},
            2,
        ),
    ],
)
def test_of_each_row_its_last_state(
    at: At, told: list[tuple[str, Any]], kept: dict[str, bool], following: int
) -> None:
    batch, reached = batch_of(CODEC, at, log(at, *told))
    assert {one.key: one.document is not None for one in batch.changes.values()} == kept
    assert reached == following


async def test_what_was_written_is_told_when_the_answer_was_lost(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    async def written(batch: Batch) -> None:
        told.append(batch)

    async with fresh(mariadb) as store:
        write = store.write

        async def cut_off(*what: Any) -> None:
            monkeypatch.setattr(store, "write", write)
            await write(*what)
            raise Unavailable("the connection was lost")

        monkeypatch.setattr(store, "write", cut_off)
        project = Project(Wiring(kafka={}), CODEC, store, written)
        project._progress[USERS] = Progress(1, 3, 0)
        piece = Piece(USERS, 1, 0, 3, 1, batch(user("ada", 3)))
        await project._write(piece)
        assert await store.positions() == {USERS: 3}
    assert told == [piece.batch]
