"""What a projection makes of records: batches by row, and what it tells others of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from agents.project import Lost, Piece, Progress, Project, batch_of
from agents.wiring import Wiring
from domain.blacklist import Blacklisted, BlacklistKind
from domain.person import Role, User
from proof.reader import LogRecord
from proof.rebuild import Told
from schemas.codec import Codec
from stores.catalog import Unavailable
from stores.mysql import MySQL
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


class Said:
    """A record, or an error, as a consumer gives it."""

    def __init__(self, at: At, code: int | None = None) -> None:
        self._at, self._code = at, code

    def topic(self) -> str:
        return self._at[0]

    def partition(self) -> int:
        return self._at[1]

    def error(self) -> KafkaError | None:
        return None if self._code is None else KafkaError(self._code)


class Consuming:
    """A consumer that gives what it is told to, and notes where it was sent."""

    def __init__(self, *given: Said) -> None:
        self.given = list(given)
        self.sought: list[tuple[str, int, int]] = []

    def poll(self, _: float) -> Said | None:
        return self.given.pop(0) if self.given else None

    def seek(self, where: Any) -> None:
        self.sought.append((where.topic, where.partition, where.offset))

    def pause(self, _: list[Any]) -> None: ...

    def resume(self, _: list[Any]) -> None: ...

    def unassign(self) -> None: ...

    def get_watermark_offsets(self, *_: Any) -> tuple[int, int]:
        return 7, 9


def reading(consumer: Consuming) -> Project:
    """A projection that has one partition."""
    project = Project(Wiring(kafka={}), CODEC, MySQL("mysql://nobody@127.0.0.1/none"))
    project._consumer = consumer
    project._progress[USERS] = Progress(next(project._turns), 3, 3)
    return project


def test_what_the_broker_says_while_a_batch_is_written_is_heard() -> None:
    with pytest.raises(Lost, match="stands at offset 3 of user-table-changelog-0"):
        reading(Consuming(Said(USERS, KafkaError._AUTO_OFFSET_RESET)))._touch()
    with pytest.raises(KafkaException):
        reading(Consuming(Said(USERS, KafkaError._FATAL)))._touch()
    reading(Consuming(Said(USERS, KafkaError._PARTITION_EOF)))._touch()
    reading(Consuming(Said(USERS, KafkaError._ALL_BROKERS_DOWN)))._touch()


def test_a_partition_that_is_taken_away_is_not_put_back() -> None:
    consumer = Consuming()
    project = reading(consumer)

    class Taken(dict[Any, Any]):
        """The Kafka thread is quicker than who just looked."""

        def get(self, at: Any, _: Any = None) -> Any:
            found = super().get(at)
            project._revoked(consumer, [])
            return found

    project._progress = Taken(project._progress)
    project._again(USERS, 5)
    assert project._progress == {}
    project._progress = {USERS: Progress(next(project._turns), 8, 8)}  # given to us again
    project._seek({at: p.turn for at, p in project._progress.items()})
    assert consumer.sought == []


def test_what_was_read_before_a_seek_is_not_taken_for_what_comes_after() -> None:
    """The turn that begins after a poll began is sought by the next one."""
    consumer = Consuming()
    project = reading(consumer)
    turns = {at: p.turn for at, p in project._progress.items()}
    project._again(USERS, 1)
    project._seek(turns)
    assert consumer.sought == []
    project._seek({at: p.turn for at, p in project._progress.items()})
    assert consumer.sought == [(*USERS, 1)]


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
