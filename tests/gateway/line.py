"""A line between a client and the bank that can be cut: bytes both ways, until it is."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Line:
    """`url` leads to the bank while it is whole."""

    def __init__(self, url: str) -> None:
        there = urlsplit(url)
        assert there.hostname
        assert there.port
        self._there = (there.hostname, there.port)
        self._whole = True
        self._open: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def cut(self) -> None:
        """All that is under way ends, and nothing new comes through."""
        self._whole = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._there)
        ends = {writer, far_writer}
        self._open |= ends
        with suppress(ConnectionError):
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
        self._open -= ends
        for end in ends:
            end.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def line(url: str) -> AsyncIterator[Line]:
    found = Line(url)
    server = await found.listen()
    yield found
    found.cut()
    server.close()
