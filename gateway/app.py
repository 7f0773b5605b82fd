"""The gateway's process: build it, run it, several of them on one port.

    run --fork--> process 1 … N, each with its own loop, all listening on the port (SO_REUSEPORT)

The parent starts a process again that ended, and ends with all of them on SIGTERM or SIGINT; a
process whose parent is gone ends too.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import sys
import time
from typing import TYPE_CHECKING

import uvloop
from aiohttp import web

import logs
from gateway.edge import endpoint, finish, outermost
from gateway.log_outs import LogOuts
from gateway.routes import BULK_BYTES, ROUTES
from gateway.services import Gateway
from resilience.garbage import collect_rarely

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 1024
GRACE_S = 5.0  # for requests under way when the process is to end
RESTART_S = 1.0
GATEWAY = web.AppKey("gateway", Gateway)


def build_app(settings: Settings, gateway: Gateway | None = None) -> web.Application:
    """The aiohttp application of one process; its parts start and stop with it."""
    gateway = gateway or Gateway(settings)
    app = web.Application(middlewares=[outermost(gateway)], client_max_size=BULK_BYTES)
    app[GATEWAY] = gateway
    app.on_response_prepare.append(finish(settings))
    for route in ROUTES:
        handle = endpoint(gateway, route)
        app.router.add_route(route.method, route.path, handle)
        if route.method == "GET" and not route.streams:
            app.router.add_route("HEAD", route.path, handle)

    async def parts(_app: web.Application) -> AsyncIterator[None]:
        gateway.start()
        yield
        await gateway.close()

    app.cleanup_ctx.append(parts)
    return app


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. 1 and a sentence on stderr when it can't be done."""
    logs.configure("gateway", settings.log_level)
    host, port = settings.gateway_host, settings.gateway_port
    if unknown := settings.route_limits.keys() - {route.name for route in ROUTES}:
        sys.stderr.write(
            f"gateway: STREAMBANK_RATE_LIMIT_ROUTES names {min(unknown)}, which is no route; "
            f"those there are: {', '.join(sorted({route.name for route in ROUTES}))}\n"
        )
        return 1
    try:
        _tls(settings)
    except OSError as exc:  # ssl.SSLError is one
        sys.stderr.write(
            f"gateway: no HTTPS with {settings.tls_certificate} and {settings.tls_key} ({exc}); "
            "correct STREAMBANK_TLS_CERTIFICATE or STREAMBANK_TLS_KEY\n"
        )
        return 1
    try:
        _check_free(host, port)
    except OSError as exc:
        why = "is in use" if exc.errno == errno.EADDRINUSE else f"can't be had: {exc.strerror}"
        sys.stderr.write(
            f"gateway: {host}:{port} {why}; stop what listens there or set "
            "STREAMBANK_GATEWAY_PORT\n"
        )
        return 1
    if settings.gateway_processes == 1:
        uvloop.run(_serve(settings, LogOuts(), None))
        return 0
    return _supervise(settings)


def _listening(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _check_free(host: str, port: int) -> None:
    """Raises OSError if anyone listens there: a port that is shared would be shared with strangers."""
    _listening(host, port, shared=False).close()


async def _serve(settings: Settings, log_outs: LogOuts, parent: int | None) -> None:
    """One process. `parent`: a pipe that closes when the parent ends."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, done.set)
    if parent is not None:
        loop.add_reader(parent, done.set)
    app = build_app(settings, Gateway(settings, log_outs=log_outs))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE_S, keepalive_timeout=75)
    await runner.setup()
    listener = _listening(settings.gateway_host, settings.gateway_port, shared=True)
    site = web.SockSite(runner, listener, backlog=BACKLOG, ssl_context=_tls(settings))
    live = await app[GATEWAY].waiting.until_live(10)
    if not live:
        log.warning("the event topics are not read yet: requests will not hear of their outcome")
    collect_rarely()
    await site.start()
    log.info("listening on %s:%d", settings.gateway_host, settings.gateway_port)
    await done.wait()
    await runner.cleanup()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # a key behind a pass phrase is refused; without an answer OpenSSL would ask the terminal
    context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=lambda: "")
    return context


def _supervise(settings: Settings) -> int:
    """Fork the processes and keep them; nothing else runs here, so forking is safe."""
    watched, held = os.pipe()
    log_outs = LogOuts()

    def fork() -> int:
        return _fork(settings, log_outs, watched, held)

    children = {fork() for _ in range(settings.gateway_processes)}
    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while children:
        child, status = os.wait()
        children.discard(child)
        if not stopping:
            log.error("gateway process %d ended with %d and is started again", child, status)
            time.sleep(RESTART_S)
            children.add(fork())
    return 0


def _fork(settings: Settings, log_outs: LogOuts, watched: int, held: int) -> int:
    child = os.fork()
    if child:
        return child
    os.close(held)
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        uvloop.run(_serve(settings, log_outs, watched))
        code = 0
    finally:
        logging.shutdown()
        os._exit(code)
