"""A bank whose topics are lists: real transactors, schemas and subscriptions, no broker."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from agents.envelope import Input
from agents.relay import copies
from agents.transact import Gathering, Transactor
from domain.account import OpenAccount
from domain.saga import Rail, TransactionType
from domain.transaction import CreateTransaction
from pipeline import SERVICES
from proof.reader import LogRecord
from proof.verify import ORDER, Difference, Different, Evidence, Sums, across, walk
from schemas.codec import Codec
from schemas.errors import Unreadable
from streaming import partition_of

if TYPE_CHECKING:
    from agents.recent import Recent

PARTITIONS = 3
START_MS = 1_800_000_000_000


class Bank:
    """Commands in, `run` until nothing moves, then look at `logs` and `rows`."""

    def __init__(self, recent: Recent | None = None, together: bool = False) -> None:
        """`together`: a transaction takes all that is there, so that credits gather."""
        self.codec = Codec()
        self.together = together
        self.gatherings: dict[str, Gathering] = defaultdict(Gathering)
        self.transactors = {
            n: Transactor(s, self.codec, PARTITIONS, recent) for n, s in SERVICES.items()
        }
        self.logs: dict[tuple[str, int], list[LogRecord]] = defaultdict(list)
        self.rows: dict[tuple[str, int], dict[str, Any]] = defaultdict(dict)
        self.read: dict[tuple[str, int], int] = defaultdict(int)
        self.now_ms = START_MS

    def write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: dict[str, bytes],
        partition: int = -1,
    ) -> LogRecord:
        if partition < 0:
            partition = partition_of(key or b"", PARTITIONS)
        log = self.logs[topic, partition]
        self.now_ms += 1
        record = LogRecord(topic, partition, len(log), self.now_ms, key, value, headers)
        log.append(record)
        return record

    def command(self, service: str, key: str, command: Any, **headers: bytes) -> LogRecord:
        given = {"ce_source": b"/gateway", "ce_id": f"c{self.now_ms}".encode(), **headers}
        return self.write(f"{service}.inbox", key.encode(), self.codec.encode(command), given)

    def run(self) -> None:
        while any(self._step(name, p) for name in SERVICES for p in range(PARTITIONS)) or any(
            self._commit(name) for name in list(self.gatherings)
        ):
            pass

    def _commit(self, name: str) -> bool:
        """A transaction of a service ends: True when it had something to say at its end."""
        said = list(self.gatherings.pop(name).said(self.codec.encode))
        for out in said:
            self.write(out.topic, out.key, out.value, dict(out.headers), out.partition)
        return bool(said)

    def _step(self, name: str, partition: int) -> bool:
        inbox, at = f"{name}.inbox", self.read[name, partition]
        log = self.logs[inbox, partition]
        if at >= len(log):
            return False
        self.read[name, partition] = at + 1
        record, transactor = log[at], self.transactors[name]
        source = Input(inbox, partition, record.offset, record.at_ms, record.headers)
        try:
            message = transactor.read(source, record.key, record.value)
        except Unreadable as why:
            if not source.foreign:
                raise
            said, changes = [transactor.dead(source, record.key, record.value, why)], {}
        else:
            rows = self.rows[name, partition]
            said, changes = transactor.decide(rows, message, source, self.gatherings[name])
        for key, row in changes.items():
            if row is None:
                self.rows[name, partition].pop(key, None)
            else:
                self.rows[name, partition][key] = row
        for out in said:
            self.write(out.topic, out.key, out.value, dict(out.headers), out.partition)
            if out.topic.endswith(".events"):
                self._relay(out.key, out.value or b"", dict(out.headers))
        if not self.together and name in self.gatherings:
            self._commit(name)
        return True

    def _relay(self, key: bytes | None, value: bytes, headers: dict[str, bytes]) -> None:
        for topic, to, partition in copies(self.codec.decode(value), PARTITIONS):
            self.write(topic, to or key, value, headers, partition)

    def events(self, service: str, kind: type | None = None) -> list[Any]:
        found = [
            self.codec.decode(record.value or b"")
            for partition in range(PARTITIONS)
            for record in self.logs[f"{service}.events", partition]
        ]
        return [event for event in found if kind is None or isinstance(event, kind)]

    def row(self, service: str, key: str) -> Any:
        found = [self.rows[service, p].get(key) for p in range(PARTITIONS)]
        return next((row for row in found if row is not None), None)

    def evidence(self, name: str, partition: int, decide: bool = True) -> Evidence:
        logs = [self.logs[f"{name}.{kind}", partition] for kind in ("events", "private")]
        events = sorted((r for log in logs for r in log), key=_order)
        inbox = self.logs[f"{name}.inbox", partition]
        rows = {k: self.codec.encode(row) for k, row in self.rows[name, partition].items()}
        return Evidence(
            decider=SERVICES[name].decider,
            partition=partition,
            inbox_topic=f"{name}.inbox",
            cut=self.read[name, partition],
            rows=rows,
            events=events,
            inbox=inbox if decide else None,
            inbox_start=inbox[0].offset if inbox else 0,
        )

    def differences(self, decide: bool = True) -> list[Difference]:
        """What verify says about these logs."""
        total, found = Sums(), []
        for name in ORDER:
            for partition in range(PARTITIONS):
                try:
                    walk(self.evidence(name, partition, decide), self.transactors[name], total)
                except Different as exc:
                    found.append(exc.difference)
        return found + list(across(total))


def _order(record: LogRecord) -> tuple[int, int]:
    _, offset, n = record.headers["ce_id"].decode().rsplit("-", 2)
    return int(offset), int(n)


def open_account(account_id: str, user_id: str = "U-ann", overdraft: int = 0) -> OpenAccount:
    return OpenAccount(
        account_id=account_id,
        user_id=user_id,
        name="everyday",
        currencies=("USD",),
        overdraft_limits={"USD": overdraft},
        actor_id=user_id,
        request_hash="h",
    )


def order(
    transaction_id: str,
    source: str | None,
    destination: str | None,
    amount_minor: int = 100,
    *,
    kind: TransactionType = TransactionType.TRANSFER,
    rail: Rail = Rail.BOOK,
    owner: str = "U-ann",
    privileged: bool = True,
    deadline_s: int = 60,
) -> CreateTransaction:
    return CreateTransaction(
        transaction_id=transaction_id,
        type=kind,
        amount_minor=amount_minor,
        currency="USD",
        source_account_id=source,
        destination_account_id=destination,
        owner_id=owner,
        actor_id=owner,
        privileged=privileged,
        rail=rail,
        deadline_s=deadline_s,
        description="",
        reference="",
        metadata={},
        request_hash=f"hash of {transaction_id}",
    )


def bank_with_money(recent: Recent | None = None, together: bool = False) -> Bank:
    """Ann has 10,000 minor USD in A-ann, Bob has A-bob, empty."""
    bank = Bank(recent, together)
    bank.command("account", "A-ann", open_account("A-ann"))
    bank.command("account", "A-bob", open_account("A-bob", "U-bob"))
    bank.run()
    deposit = order("T-in", None, "A-ann", 10_000, kind=TransactionType.DEPOSIT)
    bank.command("transaction", "T-in", deposit)
    bank.run()
    return bank
