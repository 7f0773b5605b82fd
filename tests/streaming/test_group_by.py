"""`stream.group_by`: each record once under its new key, through failures and kills in both halves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import faust
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

import streaming
from tests.streaming.kit import (
    App,
    Number,
    app,
    committed,
    create,
    positions,
    read,
    rows,
    running,
    until,
    values,
    wait_until,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Payment(faust.Record, serializer="json"):
    """Written under the payer; counted per payee."""

    payee: str | None
    amount: int


def payment(payee: str | None, amount: int) -> bytes:
    return Payment(payee=payee, amount=amount).dumps()


def received(name: str, bootstrap: str, partitions: int = 3, **driver: Any) -> App:
    """Adds what each payee received; says each new sum."""
    one = app(name, bootstrap, partitions, **driver)
    payments = one.topic(f"{name}.in", value_type=Payment)
    sums = one.topic(f"{name}.out", value_codec=Number())
    table = one.Table("sums", value_codec=Number(), default=int, partitions=partitions)

    @one.agent(payments, name="received")
    async def add(stream: Any) -> None:
        async for event in stream.group_by(Payment.payee).events():
            table[event.key] += event.value.amount
            sums.put(key=event.key, value=table[event.key], headers=event.message.headers)

    return one


def settings_of(bootstrap: str, topic: str) -> dict[str, str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    [future] = admin.describe_configs([resource]).values()
    return {name: entry.value for name, entry in future.result(30).items()}


async def test_values_headers_and_timestamps_pass_under_the_new_key(
    bootstrap: str, prefix: str
) -> None:
    name = f"{prefix}pay"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=3)
    inputs = [(b"payer%d" % n, payment(f"payee{n % 7}", n)) for n in range(200)]
    write(bootstrap, f"{name}.in", inputs, headers=[("h", b"1")], timestamp=1_700_000_000_123)
    async with running(received(name, bootstrap)):
        await until(lambda: len(read(bootstrap, f"{name}.out")) == 200)
    between = f"{name}-received-Payment.payee-repartition"
    copies = read(bootstrap, between)
    assert Counter(copy.value() for copy in copies) == Counter(value for _, value in inputs)
    for copy in copies:
        payee = Payment.loads(copy.value()).payee.encode()
        assert copy.key() == payee
        assert copy.partition() == streaming.partition_of(payee, 3)
        assert copy.headers() == [("h", b"1")]
        assert copy.timestamp()[1] == 1_700_000_000_123
    expected = {
        (streaming.partition_of(b"payee%d" % k, 3), b"payee%d" % k): b"%d" % sum(range(k, 200, 7))
        for k in range(7)
    }
    assert rows(bootstrap, f"{name}-sums-changelog") == expected
    settings = settings_of(bootstrap, between)
    assert settings["cleanup.policy"] == "delete"
    assert settings["retention.ms"] == "-1"


class Typed(faust.Record, serializer="json"):
    number: int
    share: Decimal
    maybe: int | None
    text: str


NEW_KEYS = {
    "number": (Typed.number, 7, b"7"),
    "share": (Typed.share, Decimal("1.50"), b'"1.50"'),
    "maybe": (Typed.maybe, 8, b"8"),
    "text": (Typed.text, "anna", b"anna"),
    "function": (lambda value: value.number, b"7", b"7"),
    "bytes": (lambda value: b"x", b"x", b"x"),
    "string": (lambda value: value.text, b"anna", b"anna"),
}


@pytest.mark.parametrize("name", NEW_KEYS)
@pytest.mark.parametrize("source", [{"key_type": int}, {"key_serializer": "json"}, {}])
async def test_the_new_key_has_a_type_of_its_own(name: str, source: dict[str, Any]) -> None:
    key, read_as, written = NEW_KEYS[name]
    one, seen = app("typed", "127.0.0.1:1"), []

    @one.agent(one.topic("payments", value_type=Typed, **source), name="a")
    async def agent(stream: Any) -> None:
        async for event in stream.group_by(key, name="n").events():
            seen.append(event.key)

    value = Typed(number=7, share=Decimal("1.50"), maybe=8, text="anna")
    async with agent.test_context() as trial:
        await trial.put(value, key=b"1")
        assert [sent.key for sent in trial.sent] == [written]
    assert seen == [read_as]


# -- failures -------------------------------------------------------------------------------------


def remainders(name: str, bootstrap: str, key: Callable[[int], Any], **driver: Any) -> App:
    one = app(name, bootstrap, 2, **driver)
    numbers = one.topic(f"{name}.in", value_codec=Number())
    out = one.topic(f"{name}.out", value_codec=Number())

    @one.agent(numbers, name="copy")
    async def copy(stream: Any) -> None:
        async for key_, value in stream.group_by(key, name="key").items():
            out.put(key=key_, value=value)

    return one


def fails_at_13(number: int) -> bytes:
    if number == 13:
        raise RuntimeError("no key for 13")
    return b"k"


def none_for_13(number: int) -> bytes | None:
    return None if number == 13 else b"k"


def wrong_for_13(number: int) -> Any:
    return object() if number == 13 else b"k"


@pytest.mark.parametrize("key", [fails_at_13, none_for_13, wrong_for_13])
async def test_a_value_without_a_key_stops_its_partition_alone(
    bootstrap: str, prefix: str, key: Callable[[int], Any]
) -> None:
    name = f"{prefix}keys"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    write(bootstrap, f"{name}.in", [(None, b"%d" % n) for n in range(30)], partition=0)
    write(bootstrap, f"{name}.in", [(None, b"%d" % n) for n in range(100, 400)], partition=1)
    one = remainders(name, bootstrap, key)
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 313)
        await until(lambda: one.consumer.suspects.stopped)
        [(tp, suspect)] = one.consumer.suspects.by_source.items()
        assert (tp.topic, tp.partition, suspect.offset) == (f"{name}.in", 0, 13)
    assert committed(bootstrap, name, f"{name}.in", 0) == 13
    async with running(remainders(name, bootstrap, lambda number: b"k")):
        await until(lambda: len(values(bootstrap, f"{name}.out")) >= 330)
    found = sorted(int(value or 0) for value in values(bootstrap, f"{name}.out"))
    assert found == [*range(30), *range(100, 400)]


async def test_the_sources_policy_holds_for_both_halves(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}policy"
    create(bootstrap, f"{name}.in", f"{name}.out", f"{name}.letters")
    one = app(name, bootstrap, attempts=2)
    source = one.topic(
        f"{name}.in", value_codec=Number(), on_error="dead-letter", dead_letters=f"{name}.letters"
    )
    out = one.topic(f"{name}.out", value_codec=Number())

    @one.agent(source, name="copy")
    async def copy(stream: Any) -> None:
        async for value in stream.group_by(fails_at_13, name="key"):
            if value == 17:
                raise RuntimeError("not 17")
            out.put(key=b"k", value=value)

    write(bootstrap, f"{name}.in", [(b"a", b"%d" % n) for n in range(20)] + [(b"a", b"x")])
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 18)
        await until(lambda: len(values(bootstrap, f"{name}.letters")) == 3)
    letters = {m.value(): dict(m.headers()) for m in read(bootstrap, f"{name}.letters")}
    assert set(letters) == {b"13", b"17", b"x"}
    origins = {value: headers["dead_letter_topic"] for value, headers in letters.items()}
    assert origins[b"13"] == origins[b"x"] == f"{name}.in".encode()
    assert origins[b"17"] == f"{name}-copy-key-repartition".encode()


async def test_after_the_body_failed_processors_and_filters_apply_once(
    bootstrap: str, prefix: str
) -> None:
    name = f"{prefix}again"
    create(bootstrap, f"{name}.in", f"{name}.out")
    one = app(name, bootstrap)
    numbers = one.topic(f"{name}.in", value_codec=Number())
    out = one.topic(f"{name}.out", value_codec=Number())
    failures = [21, 21, 41]
    grouped: list[Any] = []

    @one.agent(numbers, name="plus")
    async def plus(stream: Any) -> None:
        stream.add_processor(lambda value: value + 1)
        odd = stream.filter(lambda value: value % 2)
        tens = odd.group_by(lambda value: b"%d" % (value // 10), name="tens")
        tens.add_processor(lambda value: value * 100)
        grouped.append(tens)
        async for value in tens:
            if value // 100 in failures:
                failures.remove(value // 100)
                raise RuntimeError("told to fail")
            out.put(key=tens.current_event.key, value=value)

    for burst in ((10, 11, 20), (30, 31, 40), (50, 51, 60)):
        write(bootstrap, f"{name}.in", [(b"k", b"%d" % n) for n in burst])
    async with running(one):
        await until(lambda: len(values(bootstrap, f"{name}.out")) >= 6)
    found = [(message.key(), message.value()) for message in read(bootstrap, f"{name}.out")]
    assert found == [(b"%d" % n, b"%d" % (n * 1000 + 100)) for n in range(1, 7)]
    assert len(grouped) == 4
    assert len(set(map(id, grouped))) == 1
    # 11, 31, 51 and their like were filtered before they were written again
    assert values(bootstrap, f"{name}-plus-tens-repartition") == [
        b"10", b"20", b"30", b"40", b"50", b"60",
    ]  # fmt: skip


async def test_sinks_and_take_read_the_grouped_stream(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}sink"
    create(bootstrap, f"{name}.in", f"{name}.out")
    one = app(name, bootstrap)
    out = one.topic(f"{name}.out", value_codec=Number())

    @one.agent(one.topic(f"{name}.in", value_codec=Number()), name="sums", sink=[out])
    async def sums(stream: Any) -> Any:
        async for taken in stream.group_by(lambda value: b"k", name="k").take(10, within=1):
            yield sum(taken)

    write(bootstrap, f"{name}.in", [(b"k%d" % n, b"%d" % n) for n in range(95)])
    async with running(one):
        await until(lambda: sum(int(v or 0) for v in values(bootstrap, f"{name}.out")) >= 4465)
    assert sum(int(v or 0) for v in values(bootstrap, f"{name}.out")) == sum(range(95))


async def test_cancelling_the_agent_ends_both_halves(bootstrap: str, prefix: str) -> None:
    name = f"{prefix}cancel"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=2)
    one = remainders(name, bootstrap, lambda number: b"%d" % (number % 3))
    async with running(one):
        [made] = one.repartitions.values()
        first, agent = made._running, one.agents["copy"]
        [body] = [actor.actor_task for actor in agent._actors]
        agent.cancel()
        await until(lambda: first.done() and body.done())
        write(bootstrap, f"{name}.in", [(b"k%d" % n, b"%d" % n) for n in range(100)])
        await until(lambda: len(values(bootstrap, f"{name}.out")) >= 100)  # it was started again
        last = made._running
    assert last is not first
    assert last.done()
    assert sorted(int(v or 0) for v in values(bootstrap, f"{name}.out")) == list(range(100))


async def test_a_source_that_is_not_known_yet_has_its_topics_beside_it(
    bootstrap: str, prefix: str
) -> None:
    """What an app makes for itself has as many partitions as a source that a broker hears of late."""
    name = f"{prefix}late"
    create(bootstrap, f"{name}.out", partitions=2)

    def make() -> None:
        time.sleep(2.5)
        create(bootstrap, f"{name}.in", partitions=2)
        write(bootstrap, f"{name}.in", [(b"k%d" % n, b"%d" % n) for n in range(10)])

    made = asyncio.create_task(asyncio.to_thread(make))
    async with running(remainders(name, bootstrap, lambda number: b"%d" % (number % 3))):
        await made
        await until(lambda: len(values(bootstrap, f"{name}.out")) == 10)


# -- what is refused ------------------------------------------------------------------------------


async def reads_the_source(stream: Any) -> None:
    stream.group_by(str, name="n")
    async for _ in stream:
        pass


async def groups_after_reading(stream: Any) -> None:
    async for _ in stream:
        stream.group_by(str, name="n")


async def groups_twice(stream: Any) -> None:
    stream.group_by(str, name="n")
    stream.group_by(str, name="m")


async def groups_what_is_grouped(stream: Any) -> None:
    stream.group_by(str, name="n").group_by(str, name="m")


async def gives_no_name(stream: Any) -> None:
    stream.group_by(str)


async def gives_a_topic(stream: Any) -> None:
    stream.group_by(str, name="n", topic="t")


async def names_no_topic(stream: Any) -> None:
    stream.group_by(str, name="a/b")


async def wants_other_partitions(stream: Any) -> None:
    async for _ in stream.group_by(str, name="n", partitions=4):
        pass


async def never_reads(stream: Any) -> None:
    await asyncio.Event().wait()


async def leaves(stream: Any) -> None:
    stream.group_by(str, name="n")


async def noack(stream: Any) -> None:
    stream.noack()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (reads_the_source, "read the one that group_by answered"),
        (groups_twice, "group once in an agent"),
        (groups_what_is_grouped, "grouped already"),
        (gives_no_name, "needs name="),
        (gives_a_topic, "leave topic= out"),
        (names_no_topic, "can't be a topic's name"),
        (wants_other_partitions, "leave partitions= out"),
        (never_reads, "did not begin to read"),
        (leaves, "left its loop"),
        (noack, "noack"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_what_can_not_be_ends_the_app_with_a_sentence(
    bootstrap: str, prefix: str, body: Any, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.consumer.FIRST_READ_S", 1.0)
    create(bootstrap, f"{prefix}in", partitions=2)
    one = app(f"{prefix}refused", bootstrap, 2)
    one.agent(one.topic(f"{prefix}in", value_codec=Number()), name="agent")(body)
    failures: list[BaseException] = []
    one.fail_stop = failures.append  # type: ignore[method-assign]
    async with running(one, ready=False):
        await until(lambda: failures)
    assert isinstance(failures[0], (streaming.Misuse, streaming.Unsupported))
    assert sentence in str(failures[0])


async def test_concurrency_is_refused(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in")
    one = app(f"{prefix}refused", bootstrap)
    one.agent(one.topic(f"{prefix}in"), name="agent", concurrency=2)(wants_other_partitions)
    with pytest.raises(streaming.Unsupported, match="concurrency"):
        async with running(one):
            pass


async def test_too_late_it_fails_its_record(bootstrap: str, prefix: str) -> None:
    create(bootstrap, f"{prefix}in")
    write(bootstrap, f"{prefix}in", [(b"k", b"1")])
    one = app(f"{prefix}late", bootstrap, attempts=1)
    one.agent(one.topic(f"{prefix}in", value_codec=Number()), name="agent")(groups_after_reading)
    async with running(one):
        await until(lambda: one.consumer.suspects.stopped)
    assert committed(bootstrap, f"{prefix}late", f"{prefix}in") < 0


# -- exactly once ---------------------------------------------------------------------------------


def once(bootstrap: str, name: str, divisor: int) -> None:
    """Each input is in the repartition topic once, and from there in sums, rows and offsets once."""
    between = f"{name}-add-remainder-repartition"
    copies = read(bootstrap, between)
    inputs = [int(message.value() or b"") for message in read(bootstrap, f"{name}.in")]
    assert Counter((copy.key(), int(copy.value() or b"")) for copy in copies) == Counter(
        (b"r%d" % (number % divisor), number) for number in inputs
    )
    assert places(copies) == places(read(bootstrap, f"{name}.out"))
    outputs: Counter[Any] = Counter()
    sums: dict[Any, int] = defaultdict(int)
    for copy in copies:
        sums[copy.partition(), copy.key()] += int(copy.value() or b"")
        outputs[copy.key(), b"%d" % sums[copy.partition(), copy.key()]] += 1
    assert Counter((m.key(), m.value()) for m in read(bootstrap, f"{name}.out")) == outputs
    changelog = f"{name}-sums-changelog"
    assert rows(bootstrap, changelog) == {at: b"%d" % total for at, total in sums.items()}
    for partition, at in positions(bootstrap, changelog).items():
        assert at == {
            topic: committed(bootstrap, name, topic, partition) for topic in (f"{name}.in", between)
        }


def places(messages: Iterable[Any]) -> dict[Any, Any]:
    """Where each key lives: in one partition only."""
    found: dict[Any, Any] = {}
    for message in messages:
        assert found.setdefault(message.key(), message.partition()) == message.partition()
    return found


@pytest.mark.parametrize(
    ("point", "after"),
    [("key", 50), ("sum", 50), ("produced", 150), ("before commit", 3), ("committed", 3)],
)
def test_two_workers_one_killed(
    bootstrap: str, prefix: str, worker: Callable[..., Any], point: str, after: int
) -> None:
    name = f"{prefix}kill"
    create(bootstrap, f"{name}.in", f"{name}.out", partitions=3)
    common = {"bootstrap": bootstrap, "name": name, "partitions": 3, "group": 11}
    common["driver"] = {"batch_max": 100}

    def load(start: int) -> None:
        numbers = range(start, start + 900)
        write(bootstrap, f"{name}.in", [(b"k%d" % (n % 50), b"%d" % n) for n in numbers])

    first = worker("first", instance="0", die=point, after=after, **common)
    wait_until(lambda: first.said("ready with partitions [0, 1, 2]"))
    load(0)
    worker("other", instance="1", **common)
    count = 900

    def died() -> bool:  # it does its work while the other one joins, and after
        nonlocal count
        load(count)
        count += 900
        return first.process.poll() is not None

    wait_until(died)
    assert first.ended() == -9
    worker("again", instance="0", **common)
    wait_until(lambda: len(read(bootstrap, f"{name}.out")) >= count, 150)
    once(bootstrap, name, 11)
