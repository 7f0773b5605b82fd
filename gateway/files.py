"""Files as answers: made in a temporary file, then sent piece by piece."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from aiohttp import web

if TYPE_CHECKING:
    from gateway.call import Call

PIECE = 64 << 10
MEMORY = 1 << 20  # of a file; what is larger lies on disk


async def send(
    call: Call, request: web.Request, file: BinaryIO, media_type: str, name: str | None = None
) -> web.StreamResponse:
    """The whole file as the answer; with a name as one to be kept."""
    size = file.seek(0, 2)
    file.seek(0)
    headers = {**call.headers, "Content-Type": media_type, "Content-Length": str(size)}
    if call.read_source is not None:
        headers["X-Read-Source"] = call.read_source
    if name is not None:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        headers["Content-Disposition"] = f'attachment; filename="{plain}"'
    response = web.StreamResponse(headers=headers)
    with suppress(ConnectionResetError):  # the client went away
        await response.prepare(request)
        while piece := await asyncio.to_thread(file.read, PIECE):
            await response.write(piece)
        await response.write_eof()
    return response
