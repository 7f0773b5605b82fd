"""What takes the mails, SMS and push messages of development: an SMTP server and an HTTP process.

    SMTP                    each mail becomes <directory>/mail/<time>-<n>.eml
    POST /sms, POST /push   each message becomes a line of <directory>/sms.jsonl, push.jsonl
    GET  /messages          all of them as JSON, the newest last;  GET /health

The beginning of an address (or of a number or device) chooses what happens (`MAGIC`); all others
are taken at once. HTTP remembers `Idempotency-Key`: asked again it takes nothing twice.
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiosmtpd.smtp import SMTP

if TYPE_CHECKING:
    from collections.abc import Mapping

# what an address begins with → what happens; the tests go through this table
MAGIC: Mapping[str, str] = {
    "bounce": "refused for good: 550, over HTTP 400",
    "greylist": "refused twice for now, then taken: 451, over HTTP 503",
    "slow": "taken after 8 s: longer than who sends waits",
    "garbage": "answered with what is no answer, then taken",
    "drop": "the connection is cut, then taken",
}
SLOW_S = 8.0
GREYLISTED = 2  # times
KEPT = 1_000  # messages that GET /messages answers


class Postbox:
    """What has arrived, and how often whom was tried."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.messages: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.keys: set[str] = set()

    def trouble(self, address: str) -> str | None:
        """What is to go wrong with this try; None: nothing."""
        kind = next((name for name in MAGIC if address.startswith(name)), None)
        if kind is None:
            return None
        self.tries[address] += 1
        most = {"bounce": 1 << 30, "greylist": GREYLISTED}.get(kind, 1)
        return kind if self.tries[address] <= most else None

    def keep(self, channel: str, message: dict[str, Any], raw: bytes | None = None) -> None:
        self.messages.append({"channel": channel, **message})
        del self.messages[:-KEPT]
        if self.directory is None:
            return
        if raw is not None:
            at = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            path = self.directory / "mail" / f"{at}-{len(self.messages):04d}-{time.time_ns()}.eml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
            return
        with (self.directory / f"{channel}.jsonl").open("a") as file:
            file.write(json.dumps(message) + "\n")


class Handler:
    """The hooks of aiosmtpd."""

    def __init__(self, postbox: Postbox) -> None:
        self.postbox = postbox

    async def handle_RCPT(
        self, server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        match self.postbox.trouble(address):
            case "bounce":
                return "550 5.1.1 no such mailbox"
            case "greylist":
                return "451 4.7.1 not yet"
            case "slow":
                await asyncio.sleep(SLOW_S)
            case "garbage":
                return "\x00\xff what did you say?"
            case "drop":
                server.transport.abort()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        raw = envelope.original_content or envelope.content
        found = email.message_from_bytes(raw, policy=email.policy.default)
        body, html = found.get_body(("plain",)), found.get_body(("html",))
        message = {
            "id": found["Message-ID"],
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos[0],
            "subject": found["Subject"],
            "text": body.get_content() if body else "",
            "html": html.get_content() if html else "",
        }
        self.postbox.keep("email", message, raw)
        return "250 OK"


POSTBOX = web.AppKey("postbox", Postbox)


async def take(request: web.Request) -> web.StreamResponse:
    postbox, channel = request.app[POSTBOX], request.path.strip("/")
    key = request.headers.get("Idempotency-Key", "")
    try:
        message = await request.json()
    except ValueError:
        return web.json_response({"title": "no JSON"}, status=400)
    if not (key and isinstance(message, dict) and isinstance(message.get("to"), str)):
        return web.json_response({"title": "a key, and a number or device, are needed"}, status=400)
    match postbox.trouble(message["to"]):
        case "bounce":
            return web.json_response({"title": "no such recipient"}, status=400)
        case "greylist":
            return web.json_response({"title": "not yet"}, status=503)
        case "slow":
            await asyncio.sleep(SLOW_S)
        case "garbage" | "drop" as kind:
            assert request.transport is not None
            if kind == "garbage":
                request.transport.write(b"\x00\xff what did you say?\r\n\r\n")
            request.transport.close()
    if key not in postbox.keys:
        postbox.keys.add(key)
        postbox.keep(channel, message)
    return web.json_response({"status": "taken"})


async def messages(request: web.Request) -> web.Response:
    return web.json_response(request.app[POSTBOX].messages)


async def health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def application(postbox: Postbox) -> web.Application:
    app = web.Application()
    app[POSTBOX] = postbox
    app.router.add_post("/sms", take)
    app.router.add_post("/push", take)
    app.router.add_get("/messages", messages)
    app.router.add_get("/health", health)
    return app


async def smtp(postbox: Postbox, host: str, port: int) -> asyncio.Server:
    """The SMTP server, listening."""
    handler = Handler(postbox)
    return await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, hostname="postbox.localhost", enable_SMTPUTF8=True), host, port
    )


async def serve(options: argparse.Namespace) -> None:
    postbox = Postbox(options.directory)
    mail = await smtp(postbox, options.host, options.mail_port)
    runner = web.AppRunner(application(postbox), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, options.host, options.port).start()
    await mail.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The mail server and message provider of development.",
        epilog="an address begins with: "
        + "; ".join(f"{name}: {what}" for name, what in MAGIC.items()),
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--mail-port", type=int, default=3014)
    parser.add_argument("--port", type=int, default=3015)
    parser.add_argument("--directory", type=Path, help="keeps what has arrived")
    options = parser.parse_args()
    if options.directory:
        options.directory.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
