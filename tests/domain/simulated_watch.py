"""Audit and analytics beside a bank that has lived: they read its log in a world as hostile as its own.

    log of a run --Observe: a few records of a few partitions at a time--> RecordsRead, PointsRead
                                                          --inboxes--> audit, analytics

Each partition keeps its order, between them anything overtakes anything. The reader is thrown back
and says again what it said, cut otherwise; messages come twice; days pass between two records.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agents.observe import FINAL, Seen, point_of
from domain.analytics import (
    DAY_MS,
    GRACE_MS,
    KEEP_MINUTES_MS,
    KEEP_USERS_MS,
    LENGTH_MS,
    MINUTE_MS,
    NOTHING,
    Behaviour,
    Figures,
    Interval,
    Point,
    PointsRead,
    UserDay,
    Window,
    added,
    figures_of,
    start_of,
)
from domain.audit import (
    GENESIS,
    HEADS,
    CheckpointTaken,
    EntriesChained,
    checkpoint_hash,
    digest,
    link,
    unpacked,
)
from domain.decider import DUE, Tick, due_at_ms, handle
from tests.domain.simulator import PARTITIONS, Bank, Broken, check_keys
from topics.subscriptions import route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from domain.decider import Decider

WATCHERS = ("audit", "analytics")
OUTCOMES = {kind.rpartition(b".")[2].decode(): outcome for kind, outcome in FINAL.items()}


@dataclass(frozen=True)
class Record:
    """One record of an event topic."""

    offset: int
    at_ms: int
    event: Any

    @property
    def headers(self) -> dict[str, bytes]:
        return {"ce_type": f"streambank.{type(self.event).__name__}".encode()}


class Watch:
    """The two services, what they were told and what they said."""

    def __init__(self, bank: Bank, deciders: Mapping[str, Decider]) -> None:
        self.bank, self.deciders = bank, {name: deciders[name] for name in WATCHERS}
        self.chance = random.Random(bank.seed)
        self.twice = self.chance.choice((0, 0.2, 1))
        self.thrown_back = self.chance.choice((0, 1, 5))  # times
        self.days = self.chance.choice((0, 0.01, 0.1))
        self.logs = self._logs()
        self.read = dict.fromkeys(self.logs, 0)  # how many records of each
        places = [(name, n) for name in WATCHERS for n in range(PARTITIONS)]
        self.inboxes: dict[tuple[str, int], deque[Any]] = {place: deque() for place in places}
        self.rows: dict[tuple[str, int], dict[str, Any]] = {place: {} for place in places}
        self.events: dict[tuple[str, int], list[Any]] = {place: [] for place in places}
        self.counted: dict[int, list[tuple[Point, int]]] = defaultdict(list)  # as first delivered
        self._known: set[tuple[int, int]] = set()
        self.now_ms = 0

    def _logs(self) -> dict[tuple[str, int], list[Record]]:
        """Markers of transactions take an offset here and there."""
        logs: dict[tuple[str, int], list[Record]] = {}
        for (service, n), events in self.bank.events.items():
            private = self.bank.deciders[service].private_events
            if service == "audit":
                continue
            for event in events:
                kind = "private" if isinstance(event, private) else "events"
                log = logs.setdefault((f"{service}.{kind}", n), [])
                offset = log[-1].offset + self.chance.choice((1, 1, 2)) if log else 0
                log.append(Record(offset, event.at_ms, event))
        return logs

    def entry(self, at: tuple[str, int], record: Record) -> bytes:
        value = repr(record.event).encode()
        return digest((*at, record.offset), record.at_ms, b"key", value, record.headers)

    # what happens

    def run(self) -> None:
        """Until all is read, decided, and told in a checkpoint."""
        while True:
            unread = [at for at, log in self.logs.items() if self.read[at] < len(log)]
            full = [place for place, inbox in self.inboxes.items() if inbox]
            if unread and (not full or self.chance.random() < 0.3):
                self._read(self.chance.sample(unread, self.chance.randint(1, len(unread))))
            elif full:
                self._deliver(self.chance.choice(full))
            elif self.thrown_back:
                self._throw_back()
            elif not self._wait():
                return
            if self.chance.random() < self.days:
                self.now_ms += self.chance.choice((MINUTE_MS, DAY_MS, 3 * DAY_MS))
            if self.chance.random() < 0.05:
                self._tick()

    def _read(self, some: list[tuple[str, int]]) -> None:
        """One transaction of the reader."""
        seen = Seen()
        for at in some:
            first = self.read[at]
            taken = self.logs[at][first : first + self.chance.choice((1, 3, 20))]
            self.read[at] += len(taken)
            for record in taken:
                self._see(seen, at, record)
        for topic, key, partition, _, message in seen.said():
            service = topic.partition(".")[0]
            home = self.bank.home(key.decode()) if partition < 0 else partition
            for _ in range(1 + (self.chance.random() < self.twice)):
                self.inboxes[service, home].append(message)
        if self.thrown_back and self.chance.random() < 0.05:
            self._throw_back()

    def _see(self, seen: Seen, at: tuple[str, int], record: Record) -> None:
        topic, partition = at
        self.now_ms = max(self.now_ms, record.at_ms)
        seen.records.setdefault(at, []).append((record.offset, self.entry(at, record)))
        outcome = OUTCOMES.get(type(record.event).__name__)
        if topic == "transaction.events" and outcome is not None:
            counting = self.bank.home(record.event.order.owner_id)
            points = seen.points.setdefault((partition, counting), [])
            points.append(point_of(record.event, outcome, record.offset))

    def _throw_back(self) -> None:
        """It reads again from somewhere before."""
        self.thrown_back -= 1
        for at, count in self.read.items():
            self.read[at] = self.chance.randint(0, count)

    def _deliver(self, place: tuple[str, int]) -> None:
        message = self.inboxes[place].popleft()
        decider, rows = self.deciders[place[0]], self.rows[place]
        if isinstance(message, PointsRead):
            self._note(message)
        if self.bank.seed % 10 == 0:
            check_keys(decider, rows, message, self.now_ms)
        events, changes = handle(decider, rows, message, self.now_ms)
        for key, row in changes.items():
            if isinstance(row, Window) and row.interval is Interval.MINUTE:
                expect(not gone(row.start_ms, self.now_ms), f"made when it had left: {row}")
            if row is not None:
                rows[key] = row
            else:
                del rows[key]
        for event in events:
            self.events[place].append(event)
            for topic, key in route(event):
                assert isinstance(key, str)
                self.inboxes[topic.partition(".")[0], self.bank.home(key)].append(event)

    def _note(self, message: PointsRead) -> None:
        for point in message.points:
            if (message.source, point.offset) not in self._known:
                self._known.add((message.source, point.offset))
                self.counted[message.partition].append((point, self.now_ms))

    def _due(self) -> dict[tuple[str, int], list[str]]:
        return {
            place: sorted(key for key in rows if key.startswith(DUE))
            for place, rows in self.rows.items()
        }

    def _tick(self) -> None:
        for place, due in self._due().items():
            passed = tuple(key for key in due if due_at_ms(key) <= self.now_ms)
            if passed:
                self.inboxes[place].append(Tick(due=passed))

    def _wait(self) -> bool:
        """Let time pass until a head or a checkpoint is due; False when none is."""
        found = [keys for (name, _), keys in self._due().items() if name == "audit"]
        due = [due_at_ms(key) for keys in found for key in keys]
        if not due:
            return False
        self.now_ms = max(self.now_ms, min(due))
        self._tick()
        return True

    # what must hold

    def check(self) -> None:
        self._check_chains()
        self._check_checkpoints()
        for n in range(PARTITIONS):
            self._check_windows(n)
        self._check_people()

    def _chains(self) -> dict[str, list[tuple[int, bytes]]]:
        """Offsets and links as audit said them."""
        found: dict[str, list[tuple[int, bytes]]] = {}
        for (name, n), events in self.events.items():
            for event in events if name == "audit" else ():
                if isinstance(event, EntriesChained):
                    chain = found.setdefault(event.chain, [])
                    expect(self.bank.home(event.chain) == n, f"{event.chain} is said in {n}")
                    expect(event.first == len(chain), f"{event.chain} has a gap, or says again")
                    chain += zip(event.offsets, unpacked(event.links), strict=True)
        return found

    def _check_chains(self) -> None:
        """Every record is in its chain once, in its place, and each link follows from the one before."""
        chains = self._chains()
        expect(len(chains) == len(self.logs), "there is a chain for each log")
        for at, log in self.logs.items():
            before, chain = GENESIS, chains[f"{at[0]}-{at[1]}"]
            expect(
                [offset for offset, _ in chain] == [one.offset for one in log], f"entries of {at}"
            )
            for record, (_, said) in zip(log, chain, strict=True):
                before = link(before, self.entry(at, record))
                expect(said == before, f"{at} breaks at {record.offset}")

    def _check_checkpoints(self) -> None:
        """Each follows the one before, says more, and agrees with the chains; the last has all."""
        chains, place = self._chains(), ("audit", self.bank.home("checkpoint"))
        number, previous, entries = 0, GENESIS.hex(), 0
        for one in self.events[place]:
            if not isinstance(one, CheckpointTaken):
                continue
            expect(
                (one.number, one.previous) == (number + 1, previous), f"{one.number} follows none"
            )
            found = checkpoint_hash(one.number, one.heads, one.previous, one.at_ms)
            expect(one.hash == found, f"the hash of checkpoint {one.number}")
            for head in one.heads:
                said = chains[head.chain][head.count - 1]
                expect(said == (head.offset, bytes.fromhex(head.link)), f"{head} is no link")
            expect(one.entries > entries, f"checkpoint {one.number} says nothing new")
            number, previous, entries = one.number, one.hash, one.entries
        expect(entries == sum(map(len, self.logs.values())), "the last checkpoint has all entries")
        expect(self.rows[place][HEADS].number == number, "the row knows the last checkpoint")

    def _check_windows(self, n: int) -> None:
        """Each window has the sum of its points, and counts as late what came behind its grace."""
        sums: dict[tuple[Interval, int], dict[str, Figures]] = defaultdict(dict)
        days: dict[tuple[str, int], dict[str, Figures]] = defaultdict(dict)
        latest_ms = 0
        for point, at_ms in self.counted[n]:
            minute_ms = start_of(point.at_ms, Interval.MINUTE)
            late = latest_ms >= minute_ms + MINUTE_MS + GRACE_MS
            latest_ms = max(latest_ms, point.at_ms)
            for interval in Interval:
                window = (interval, start_of(point.at_ms, interval))
                if interval is Interval.MINUTE and gone(window[1], at_ms):
                    continue
                grow(sums[window], point, late)
            day_ms = start_of(point.at_ms, Interval.DAY)
            if day_ms + DAY_MS + KEEP_USERS_MS > at_ms:
                grow(days[point.user_id, day_ms], point, late)
        kept = [row for row in self.rows["analytics", n].values() if isinstance(row, Window)]
        for row in kept:
            expect(row.figures == sums[row.interval, row.start_ms], f"the sum of {row}")
        for row in self.rows["analytics", n].values():
            if isinstance(row, UserDay):
                expect(row.figures == days.pop((row.user_id, row.start_ms)), f"the sum of {row}")
        for user_id, day_ms in days:
            left = day_ms + DAY_MS + KEEP_USERS_MS <= self.now_ms
            expect(left, f"the day {day_ms} of {user_id} is not there")
        there = {(row.interval, row.start_ms) for row in kept}
        for interval, start_ms in sums.keys() - there:
            minute = interval is Interval.MINUTE and gone(start_ms, self.now_ms)
            expect(minute, f"the {interval} from {start_ms} of {n} is not there")

    def _check_people(self) -> None:
        """All that ended is in the hours, the days and the people's rows, whoever counts it."""
        ended = Counter(type(event).__name__ for event in self.bank.finals())
        volume: Counter[str] = Counter()
        for event in self.bank.finals():
            if type(event).__name__ == "TransactionCompleted":
                volume[f"{event.order.type}/{event.order.currency}"] += event.order.amount_minor
        rows = [row for n in range(PARTITIONS) for row in self.rows["analytics", n].values()]
        for interval in (Interval.HOUR, Interval.DAY):
            windows = [r for r in rows if isinstance(r, Window) and r.interval is interval]
            self._expect_all(windows, ended, volume, f"all of the {interval}s")
        people = [row for row in rows if isinstance(row, Behaviour)]
        self._expect_all(people, ended, volume, "what people did")
        expect(sum(sum(one.hours) for one in people) == ended.total(), "the hours of people")

    def _expect_all(
        self, rows: list[Any], ended: Counter[str], volume: Counter[str], what: str
    ) -> None:
        found: Counter[str] = Counter()
        count = 0
        for row in rows:
            for name, figures in row.figures.items():
                found[name] += figures.volume_minor
                count += figures.completed + figures.failed + figures.cancelled
        expect(count == ended.total(), f"{what}: {count} of {ended.total()}")
        expect(+found == +volume, f"{what}: {found}, {volume}")


def grow(figures: dict[str, Figures], point: Point, late: bool) -> None:
    name = f"{point.type}/{point.currency}"
    figures[name] = added(figures.get(name, NOTHING), figures_of(point, late))


def gone(start_ms: int, at_ms: int) -> bool:
    """Whether a minute's time is over."""
    return start_ms + LENGTH_MS[Interval.MINUTE] + KEEP_MINUTES_MS <= at_ms


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


def watch(bank: Bank, deciders: Mapping[str, Decider]) -> Watch:
    """The log of this bank, watched to its end; raises Broken."""
    made = Watch(bank, deciders)
    made.run()
    made.check()
    return made
