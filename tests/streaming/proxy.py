"""A TCP proxy before one broker that reads Kafka's request headers and breaks chosen requests.

    with Proxy() as proxy:
        ... a broker with advertised.listeners at proxy.port ...
        proxy.target = broker's own port
        rule = proxy.add(Rule({END_TXN}, "cut after", client="sums.", times=1))

A rule breaks requests of an API by clients whose client id starts with `client`:

    cut before   the request never reaches the broker, the connection ends
    cut after    the broker does what it was asked, the connection ends instead of an answer
    drop         the request never reaches the broker, no answer comes
    mute         the broker does what it was asked, no answer comes
    delay        the answer comes `delay_s` later

Requests on a connection are answered in order, so what comes after a delayed or muted one waits or is mute too.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

HOST = "127.0.0.1"
PRODUCE, INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = (
    0, 22, 24, 25, 26, 28,
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Rule:
    """What happens to the next `times` matching requests; `hits` counts them."""

    apis: set[int]
    do: str
    client: str = ""
    times: int = 1_000_000
    delay_s: float = 0.0
    hits: int = 0


class Cut(Exception):
    """The connection ends here, on purpose."""


class Proxy:
    """Runs in a thread of its own; rules may be changed from any other."""

    def __init__(self) -> None:
        self.target: int | None = None
        self.port = 0
        self._rules: tuple[Rule, ...] = ()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def add(self, rule: Rule) -> Rule:
        self._rules = (*self._rules, rule)
        return rule

    def lift(self, rule: Rule) -> None:
        self._rules = tuple(one for one in self._rules if one is not rule)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def _rule(self, api: int, client: str) -> Rule | None:
        for rule in self._rules:
            if api in rule.apis and client.startswith(rule.client) and rule.hits < rule.times:
                rule.hits += 1
                return rule
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            assert self.target is not None
            there, to_broker = await asyncio.open_connection(HOST, self.target)
            ends.append(to_broker)
            asked: deque[tuple[int, Rule | None]] = deque()  # correlation ids without answer yet
            pumps = [
                asyncio.ensure_future(self._requests(reader, to_broker, asked)),
                asyncio.ensure_future(self._answers(there, writer, asked)),
            ]
            _, left = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in left:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:  # the broker is away: so are we
            pass
        finally:
            for end in ends:
                end.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        broker: asyncio.StreamWriter,
        asked: deque[tuple[int, Rule | None]],
    ) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                frame = await _frame(reader)
                api, _, correlation, length = struct.unpack_from(">hhih", frame)
                client = frame[10 : 10 + max(0, length)].decode()
                rule = self._rule(api, client)
                if rule is not None and rule.do == "cut before":
                    return
                if rule is not None and rule.do == "drop":
                    continue
                asked.append((correlation, rule))
                broker.write(struct.pack(">i", len(frame)) + frame)
                await broker.drain()

    async def _answers(
        self,
        broker: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: deque[tuple[int, Rule | None]],
    ) -> None:
        mute = False
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                frame = await _frame(broker)
                correlation, rule = asked.popleft()
                assert struct.unpack_from(">i", frame)[0] == correlation
                if rule is not None and rule.do == "cut after":
                    return
                mute = mute or (rule is not None and rule.do == "mute")
                if mute:
                    continue
                if rule is not None and rule.do == "delay":
                    await asyncio.sleep(rule.delay_s)
                writer.write(struct.pack(">i", len(frame)) + frame)
                await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)
