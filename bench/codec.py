"""What encoding and decoding one AccountDebited costs: `python -m bench.codec`.

Contenders, each to and from the dataclass unless it says dict:

    codec          schemas.codec: functions made for the type
    fastavro+made  fastavro's C with dict ↔ dataclass functions made for the type
    fastavro dict  fastavro's C from and to a dict: what a program without dataclasses would pay
    orjson         JSON of the dataclass, decoded to a dict

CPU time, best of several rounds, so that what runs beside it counts less; ratios are to
`fastavro dict`.
"""

from __future__ import annotations

import io
import time
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import fastavro
import orjson

from domain.ledger import move
from domain.saga import AccountDebited, Balance, Order, Rail, Step, TransactionType, traced
from schemas.codec import Codec
from schemas.records import names, records, types, whole

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, TIMES = 25, 2_000


def sample() -> AccountDebited:
    """As in a book transfer: three or four steps, two postings, one balance."""
    at_ms = 1_764_000_000_123
    alice, bob, user = (str(uuid.uuid4()) for _ in range(3))
    order = Order(
        transaction_id=str(uuid.uuid4()),
        type=TransactionType.TRANSFER,
        amount_minor=10_500,
        currency="USD",
        source_account_id=alice,
        destination_account_id=bob,
        owner_id=user,
        actor_id=user,
        privileged=False,
        rail=Rail.BOOK,
        created_ms=at_ms - 80,
        deadline_ms=at_ms + 30_000,
    )
    steps: tuple[Step, ...] = ()
    for step, service, outcome in (
        ("validate", "transaction", "valid"),
        ("risk", "risk", "approved"),
        ("debit", "account", "debited"),
        ("payment", "account", "book"),
    ):
        steps = traced(steps, step, service, outcome, at_ms - 10 + len(steps))
    balance = Balance(
        account_id=alice, currency="USD", before_minor=1_000_000, after_minor=989_500, version=17
    )
    return AccountDebited(
        order=order,
        postings=move("USD", 10_500, alice, "clearing"),
        balances=(balance,),
        at_ms=at_ms,
        steps=steps,
    )


def dict_functions(name: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Dataclass → dict and back as generated expressions: the best that fastavro's interface allows."""
    found: dict[str, Any] = {kind.__name__: kind for kind in types().values()}
    found |= {"TransactionType": TransactionType, "Rail": Rail}

    def to_dict(schema: Any, value: str) -> str:
        if isinstance(schema, str) and schema in records():
            fields = records()[schema]["fields"]
            inner = ", ".join(
                f"'{f['name']}': {to_dict(f['type'], value + '.' + f['name'])}" for f in fields
            )
            return f"{{{inner}}}"
        if isinstance(schema, dict):
            return f"[{to_dict(schema['items'], 'item')} for item in {value}]"
        return value

    def from_dict(schema: Any, value: str, field: str = "") -> str:
        if isinstance(schema, str) and schema in records():
            inner = ", ".join(
                f"{f['name']}=" + from_dict(f["type"], f"{value}['{f['name']}']", f["name"])
                for f in records()[schema]["fields"]
            )
            return f"{schema.split('.')[-1]}({inner})"
        if isinstance(schema, dict):
            return f"tuple([{from_dict(schema['items'], 'item')} for item in {value}])"
        enum = {"type": "TransactionType", "rail": "Rail"}.get(field)
        return f"{enum}({value})" if enum else value

    code = f"to = lambda value: {to_dict(name, 'value')}\nof = lambda value: {from_dict(name, 'value')}"
    exec(code, found)
    return found["to"], found["of"]


def best_us(calls: list[tuple[Callable[[Any], Any], Any]]) -> list[float]:
    """CPU microseconds of each call in its best round; rounds alternate, noise meets all alike."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for n, (function, argument) in enumerate(calls):
            start = time.thread_time()
            for _ in range(TIMES):
                function(argument)
            best[n] = min(best[n], (time.thread_time() - start) / TIMES * 1e6)
    return best


def main() -> None:
    event, codec = sample(), Codec()
    name = names()[AccountDebited]
    schema = fastavro.parse_schema(whole(name))
    to, of = dict_functions(name)

    def write(value: Any) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, value)
        return out.getvalue()

    def read(data: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(data), schema, None)

    plain = asdict(event)
    body, framed = write(plain), codec.encode(event)
    assert framed[5:] == body
    assert codec.decode(framed) == of(read(body)) == event
    assert write(to(event)) == body
    json = orjson.dumps(event)
    sizes = {
        "codec": len(framed),
        "fastavro+made": len(body),
        "fastavro dict": len(body),
        "orjson": len(json),
    }
    costs_us = best_us(
        [
            (codec.encode, event),
            (codec.decode, framed),
            (lambda value: write(to(value)), event),
            (lambda data: of(read(data)), body),
            (write, plain),
            (read, body),
            (orjson.dumps, event),
            (orjson.loads, json),
        ]
    )
    rows = [
        (label, size, costs_us[2 * n], costs_us[2 * n + 1])
        for n, (label, size) in enumerate(sizes.items())
    ]
    base = rows[2]
    print(f"{'AccountDebited':15}{'bytes':>6}{'encode µs':>11}{'MB/s':>7}{'ratio':>7}", end="")
    print(f"{'decode µs':>11}{'MB/s':>7}{'ratio':>7}")
    for label, size, encode_us, decode_us in rows:
        print(f"{label:15}{size:6}", end="")
        for cost_us, base_us in ((encode_us, base[2]), (decode_us, base[3])):
            print(f"{cost_us:11.2f}{size / cost_us:7.0f}{base_us / cost_us:7.2f}", end="")
        print()


if __name__ == "__main__":
    main()
