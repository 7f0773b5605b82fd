"""`tables rebuild`: rows that an older program kept are made what the events say, and nothing else is."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from domain.account import AccountOpened, OpenAccount, account_key
from proof.reader import Reader
from schemas.codec import Codec
from streaming import partition_of
from tests.agents.memory import PARTITIONS
from tests.system.test_command_line import refused

if TYPE_CHECKING:
    from tests.system.bank import Client
    from tests.system.conftest import Installation

TABLE = "account-table-changelog"
NAMES = ("ann", "bob", "cleo", "dora")


def opened(client: Client) -> None:
    for name in NAMES:
        command = OpenAccount(
            account_id=name,
            user_id=f"U-{name}",
            name="",
            currencies=("USD",),
            overdraft_limits={},
            actor_id="ops",
            request_hash="",
        )
        client.send("account", name, command)
    client.flush()
    for name in NAMES:
        client.wait(lambda n=name: client.said(AccountOpened, account_id=n), f"the account {name}")


def kept(bank: Installation) -> dict[tuple[int, str], Any]:
    """The rows of all partitions."""
    reader, codec = Reader({"bootstrap.servers": bank.bootstrap}), Codec()
    found = {}
    for partition in range(PARTITIONS):
        cut = reader.cut(f"{bank.prefix}{TABLE}", f"{bank.prefix}account.inbox", partition)
        found.update({(partition, key): codec.decode(row) for key, row in cut.rows.items()})
    reader.close()
    return found


def test_rows_are_made_what_the_events_say(installation: Installation) -> None:
    client = installation.client("account.events")
    with installation.worker("account") as worker:
        opened(client)
        busy = installation.pipeline("tables", "rebuild", "account", "--wait", "0")
        refused(busy, "account has members, 1 now: stop its workers first")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    right = kept(installation)
    ann, bob, eve = (account_key(name) for name in ("ann", "bob", "eve"))
    other = client.codec.encode(next(row for (_, key), row in right.items() if key == bob))
    for key, name, value in ((ann, "ann", None), (bob, "cleo", other), (eve, "eve", other)):
        at = partition_of(name.encode(), PARTITIONS)
        where = account_key(name) if key == bob else key
        client.raw(TABLE, where.encode(), value, {}, at)  # gone, changed, more than there is
    client.flush()
    assert installation.pipeline("verify", "--service", "account").returncode == 1

    done = installation.pipeline("tables", "rebuild", "account")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "3 rows written anew"), done
    assert kept(installation) == right
    again = installation.pipeline("tables", "rebuild", "account")
    assert again.stdout.splitlines()[-1] == "0 rows written anew"
    with installation.worker("account"):
        assert installation.pipeline("verify", "--service", "account").returncode == 0
    client.close()
